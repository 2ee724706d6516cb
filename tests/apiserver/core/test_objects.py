"""Objects over HTTP: created, read, changed, deleted, as a client of Kubernetes expects."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

Call = Callable[..., Awaitable[Any]]
MAPS = "/api/v1/namespaces/default/configmaps"
PODS = "/api/v1/namespaces/default/pods"
MERGE = "application/merge-patch+json"


def config(name: str = "one", **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def pod(name: str = "web", **spec: Any) -> dict[str, Any]:
    containers = [{"name": "c", "image": "busybox"}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"containers": containers} | spec,
    }


async def test_a_created_object_carries_what_the_server_sets(call: Call) -> None:
    made = await call("POST", MAPS, config(a="b"))
    assert made.status == 201
    meta = made.body["metadata"]
    assert meta["namespace"] == "default" and meta["uid"] and meta["creationTimestamp"].endswith("Z")
    assert meta["resourceVersion"].isdigit()
    assert (await call("GET", f"{MAPS}/one")).body == made.body


async def test_names_are_generated_and_unique(call: Call) -> None:
    body = {"metadata": {"generateName": "web-"}}
    names = {(await call("POST", MAPS, body)).body["metadata"]["name"] for _ in range(20)}
    assert len(names) == 20 and all(n.startswith("web-") and len(n) == 9 for n in names)


@pytest.mark.parametrize(
    ("body", "path", "status", "reason", "said"),
    [
        (config("Upper"), MAPS, 422, "Invalid", "metadata.name: Invalid value"),
        ({"metadata": {}}, MAPS, 422, "Invalid", "name or generateName is required"),
        (
            {"kind": "Secret", "metadata": {"name": "x"}},
            MAPS,
            400,
            "BadRequest",
            "does not match the expected kind",
        ),
        (
            config() | {"metadata": {"name": "x", "namespace": "other"}},
            MAPS,
            400,
            "BadRequest",
            "does not match",
        ),
        (config() | {"metadata": {"name": "x", "labels": {"a": "-"}}}, MAPS, 422, "Invalid", "a valid label"),
        (
            config() | {"metadata": {"name": "x", "labels": {"a": 1}}},
            MAPS,
            400,
            "BadRequest",
            "cannot unmarshal number into field metadata.labels.a",
        ),
        (config() | {"metadata": []}, MAPS, 400, "BadRequest", "metadata must be an object"),
        (config(), "/api/v1/namespaces/none/configmaps", 404, "NotFound", 'namespaces "none" not found'),
        (pod(containers=[]), PODS, 422, "Invalid", "spec.containers: Required value"),
        ([1], MAPS, 400, "BadRequest", "must be an object"),
        (b"{", MAPS, 400, "BadRequest", "not JSON"),
        (b"", MAPS, 400, "BadRequest", "needs a body"),
    ],
)
async def test_a_wrong_object_is_refused_with_its_reason(
    call: Call, body: Any, path: str, status: int, reason: str, said: str
) -> None:
    refused = await call("POST", path, body)
    assert (refused.status, refused.body["reason"]) == (status, reason)
    assert refused.body["kind"] == "Status" and said in refused.body["message"]


async def test_a_second_creation_is_refused(call: Call) -> None:
    await call("POST", MAPS, config())
    again = await call("POST", MAPS, config())
    assert (again.status, again.body["reason"]) == (409, "AlreadyExists")
    assert again.body["details"] == {"name": "one", "kind": "configmaps"}


async def test_a_stale_update_is_refused_and_one_without_a_version_wins(call: Call) -> None:
    first = (await call("POST", MAPS, config(a="1"))).body
    second = (await call("PUT", f"{MAPS}/one", first | {"data": {"a": "2"}})).body
    stale = await call("PUT", f"{MAPS}/one", first | {"data": {"a": "3"}})
    assert (stale.status, stale.body["reason"]) == (409, "Conflict")
    forced = await call("PUT", f"{MAPS}/one", config(a="4"))
    assert forced.status == 200 and forced.body["metadata"]["uid"] == second["metadata"]["uid"]


async def test_a_change_of_nothing_bumps_nothing(call: Call) -> None:
    first = (await call("POST", MAPS, config(a="1"))).body
    same = await call("PATCH", f"{MAPS}/one", {"data": {"a": "1"}}, content_type=MERGE)
    again = await call("PUT", f"{MAPS}/one", config(a="1"))
    assert same.body == again.body == first


async def test_generation_counts_changes_of_the_spec_and_status_has_its_own_door(call: Call) -> None:
    await call("POST", PODS, pod(terminationGracePeriodSeconds=1))
    changed = await call(
        "PATCH",
        f"{PODS}/web",
        {"spec": {"activeDeadlineSeconds": 9}, "status": {"phase": "Failed"}},
        content_type=MERGE,
    )
    assert changed.status == 200, changed.body
    assert changed.body["metadata"]["generation"] == 2 and changed.body["status"]["phase"] == "Pending"
    body = {"spec": {"activeDeadlineSeconds": 5}, "status": {"phase": "Running"}}
    through = await call("PATCH", f"{PODS}/web/status", body, content_type=MERGE)
    assert through.body["status"]["phase"] == "Running"
    assert through.body["spec"]["activeDeadlineSeconds"] == 9 and through.body["metadata"]["generation"] == 2


async def test_immutable_fields_stay(call: Call) -> None:
    await call("POST", PODS, pod())
    refused = await call("PATCH", f"{PODS}/web", {"spec": {"hostNetwork": True}}, content_type=MERGE)
    assert refused.status == 422 and "pod updates may not change fields" in refused.body["message"]
    renamed = await call("PATCH", f"{PODS}/web", {"metadata": {"name": "x"}}, content_type=MERGE)
    assert renamed.status == 400


async def test_finalizers_hold_an_object_until_they_are_gone(call: Call) -> None:
    held = config() | {"metadata": {"name": "one", "finalizers": ["example.com/wait"]}}
    await call("POST", MAPS, held)
    waits = await call("DELETE", f"{MAPS}/one")
    assert waits.status == 200 and waits.body["metadata"]["deletionTimestamp"]
    assert (await call("GET", f"{MAPS}/one")).status == 200
    added = {"metadata": {"finalizers": ["example.com/wait", "example.com/more"]}}
    assert (await call("PATCH", f"{MAPS}/one", added, content_type=MERGE)).status == 422
    await call("PATCH", f"{MAPS}/one", {"metadata": {"finalizers": None}}, content_type=MERGE)
    assert (await call("GET", f"{MAPS}/one")).status == 404


async def test_a_pod_on_a_node_waits_for_its_kubelet(call: Call) -> None:
    await call("POST", PODS, pod(nodeName="node-1"))
    waits = (await call("DELETE", f"{PODS}/web")).body
    assert waits["metadata"]["deletionGracePeriodSeconds"] == 30
    done = await call("DELETE", f"{PODS}/web", {"gracePeriodSeconds": 0})
    assert done.status == 200
    assert (await call("GET", f"{PODS}/web")).status == 404


async def test_preconditions_protect_a_recreated_object(call: Call) -> None:
    await call("POST", MAPS, config())
    refused = await call("DELETE", f"{MAPS}/one", {"preconditions": {"uid": "other"}})
    assert (refused.status, refused.body["reason"]) == (409, "Conflict")


async def test_deletion_says_what_it_deleted(call: Call) -> None:
    made = (await call("POST", MAPS, config())).body
    done = (await call("DELETE", f"{MAPS}/one", {"propagationPolicy": "Background"})).body
    assert done["status"] == "Success"
    assert done["details"] == {"name": "one", "kind": "configmaps", "uid": made["metadata"]["uid"]}


async def test_foreground_deletion_leaves_the_work_to_the_collector(call: Call) -> None:
    await call("POST", MAPS, config())
    waits = (await call("DELETE", f"{MAPS}/one", {"propagationPolicy": "Foreground"})).body
    assert waits["metadata"]["finalizers"] == ["foregroundDeletion"]


async def test_a_collection_is_deleted_by_selector(call: Call) -> None:
    for name, tier in (("a", "x"), ("b", "x"), ("c", "y")):
        await call("POST", MAPS, config(name) | {"metadata": {"name": name, "labels": {"tier": tier}}})
    gone = await call("DELETE", f"{MAPS}?labelSelector=tier%3Dx")
    assert [i["metadata"]["name"] for i in gone.body["items"]] == ["a", "b"]
    left = (await call("GET", MAPS)).body["items"]
    assert [i["metadata"]["name"] for i in left] == ["c"]


async def test_a_terminating_namespace_takes_nothing_new(call: Call) -> None:
    await call("POST", "/api/v1/namespaces", {"metadata": {"name": "work"}})
    gone = (await call("DELETE", "/api/v1/namespaces/work")).body
    assert gone["status"]["phase"] == "Terminating"
    refused = await call("POST", "/api/v1/namespaces/work/configmaps", config())
    assert refused.status == 403 and refused.body["details"]["causes"][0]["reason"] == "NamespaceTerminating"
    finished = await call("PUT", "/api/v1/namespaces/work/finalize", gone | {"spec": {}})
    assert finished.status == 200, finished.body
    assert (await call("GET", "/api/v1/namespaces/work")).status == 404


async def test_a_dry_run_changes_nothing(call: Call) -> None:
    assert (await call("POST", f"{MAPS}?dryRun=All", config())).status == 201
    assert (await call("GET", f"{MAPS}/one")).status == 404
    await call("POST", MAPS, config())
    assert (await call("DELETE", f"{MAPS}/one?dryRun=All")).body["status"] == "Success"
    assert (await call("DELETE", f"{MAPS}/one", {"dryRun": ["All"]})).body["status"] == "Success"
    assert (await call("GET", f"{MAPS}/one")).status == 200


async def test_services_get_addresses_and_give_them_back(call: Call) -> None:
    services = "/api/v1/namespaces/default/services"
    body = {"metadata": {"name": "web"}, "spec": {"type": "NodePort", "ports": [{"port": 80}]}}
    made = (await call("POST", services, body)).body
    ip, port = made["spec"]["clusterIP"], made["spec"]["ports"][0]["nodePort"]
    taken = {"metadata": {"name": "other"}, "spec": {"clusterIP": ip, "ports": [{"port": 80}]}}
    refused = await call("POST", services, taken)
    assert refused.status == 422 and "already allocated" in refused.body["message"]
    kept = await call("PUT", f"{services}/web", body)
    assert (kept.body["spec"]["clusterIP"], kept.body["spec"]["ports"][0]["nodePort"]) == (ip, port)
    await call("DELETE", f"{services}/web")
    assert (await call("POST", services, taken)).status == 201


async def test_scale_is_one_number(call: Call) -> None:
    deployments = "/apis/apps/v1/namespaces/default/deployments"
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    body = {
        "metadata": {"name": "web"},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template},
    }
    made = await call("POST", deployments, body)
    assert made.status == 201, made.body
    scaled = await call("PATCH", f"{deployments}/web/scale", {"spec": {"replicas": 3}}, content_type=MERGE)
    assert scaled.body["kind"] == "Scale" and scaled.body["spec"] == {"replicas": 3}
    assert scaled.body["status"]["selector"] == "a=b"
    now = (await call("GET", f"{deployments}/web")).body
    assert now["spec"]["replicas"] == 3 and now["metadata"]["generation"] == 2


async def test_a_pod_is_bound_once(call: Call) -> None:
    await call("POST", PODS, pod())
    target = {"metadata": {"name": "web"}, "target": {"kind": "Node", "name": "node-1"}}
    assert (await call("POST", f"{PODS}/web/binding", target)).status == 201
    bound = (await call("GET", f"{PODS}/web")).body
    assert bound["spec"]["nodeName"] == "node-1"
    assert bound["status"]["conditions"][0]["type"] == "PodScheduled"
    assert (await call("POST", f"{PODS}/web/binding", target)).status == 409


async def test_an_eviction_respects_the_budget(call: Call) -> None:
    labelled = pod(nodeName="n")
    labelled["metadata"]["labels"] = {"app": "web"}
    await call("POST", PODS, labelled)
    await call("PATCH", f"{PODS}/web/status", {"status": {"phase": "Running"}}, content_type=MERGE)
    budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets"
    await call(
        "POST",
        budgets,
        {"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}},
    )
    state = {
        "status": {"observedGeneration": 1, "currentHealthy": 1, "desiredHealthy": 1, "disruptionsAllowed": 0}
    }
    await call("PATCH", f"{budgets}/b/status", state, content_type=MERGE)
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "web"}}
    refused = await call("POST", f"{PODS}/web/eviction", eviction)
    assert refused.status == 429 and "disruption budget" in refused.body["message"]
    state["status"]["disruptionsAllowed"] = 1
    await call("PATCH", f"{budgets}/b/status", state, content_type=MERGE)
    assert (await call("POST", f"{PODS}/web/eviction", eviction)).status == 201
    assert (await call("GET", f"{PODS}/web")).body["metadata"]["deletionTimestamp"]


async def test_ephemeral_containers_are_added_and_never_taken_away(call: Call) -> None:
    await call("POST", PODS, pod())
    debug = {"spec": {"ephemeralContainers": [{"name": "debug", "image": "netshoot"}]}}
    added = await call("PATCH", f"{PODS}/web/ephemeralcontainers", debug, content_type=MERGE)
    assert added.status == 200, added.body
    assert added.body["spec"]["ephemeralContainers"][0]["name"] == "debug"
    empty = {"spec": {"ephemeralContainers": []}}
    assert (await call("PATCH", f"{PODS}/web/ephemeralcontainers", empty, content_type=MERGE)).status == 422


async def test_events_have_two_shapes_of_one_thing(call: Call) -> None:
    old = {
        "metadata": {"name": "e"},
        "involvedObject": {"kind": "Pod", "name": "web"},
        "message": "hello",
        "reason": "R",
        "type": "Normal",
    }
    made = await call("POST", "/api/v1/namespaces/default/events", old)
    assert made.status == 201, made.body
    new = (await call("GET", "/apis/events.k8s.io/v1/namespaces/default/events/e")).body
    assert (new["apiVersion"], new["note"], new["regarding"]["name"]) == ("events.k8s.io/v1", "hello", "web")
    chosen = await call("GET", "/api/v1/events?fieldSelector=involvedObject.name%3Dweb")
    assert len(chosen.body["items"]) == 1
    changed = await call(
        "PATCH", "/apis/events.k8s.io/v1/namespaces/default/events/e", {"note": "bye"}, content_type=MERGE
    )
    assert changed.body["note"] == "bye"
    assert (await call("GET", "/api/v1/namespaces/default/events/e")).body["message"] == "bye"


async def test_a_kind_nobody_serves_says_so(call: Call) -> None:
    body = {"metadata": {"name": "np"}, "spec": {"podSelector": {}}}
    made = await call("POST", "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies", body)
    assert made.headers["Warning"].startswith('299 - "NetworkPolicy')
