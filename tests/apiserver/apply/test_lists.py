"""Items of lists and identities of appliers: what must not be lost when many write the same list."""

from __future__ import annotations

import json
from typing import Any

import pytest

APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
MAPS = "/api/v1/namespaces/default/configmaps"
WEB = "/apis/apps/v1/namespaces/default/deployments/web"
NOTE = "kubectl.kubernetes.io/last-applied-configuration"
JSON = dict[str, Any]


def config(**data: str) -> JSON:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": data}


def deployment(*containers: JSON) -> JSON:
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": list(containers)}}
    spec = {"selector": {"matchLabels": {"a": "b"}}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec}


def containers(answer: Any) -> list[JSON]:
    found: list[JSON] = answer.body["spec"]["template"]["spec"]["containers"]
    return found


async def apply(call: Any, path: str, body: JSON, manager: str) -> Any:
    return await call("PATCH", f"{path}?fieldManager={manager}", body, content_type=APPLY)


async def test_an_item_that_another_owns_a_field_of_keeps_its_keys(call: Any) -> None:
    a, b = {"name": "a", "image": "i"}, {"name": "b", "image": "i"}
    assert (await apply(call, WEB, deployment(a, b), "m1")).status == 201
    change = {"spec": {"template": {"spec": {"containers": [{"name": "b", "image": "j"}]}}}}
    assert (await call("PATCH", WEB + "?fieldManager=u", change, content_type=STRATEGIC)).status == 200
    answer = await apply(call, WEB, deployment(a), "m1")
    assert answer.status == 200, answer.body
    assert [(c["name"], c["image"]) for c in containers(answer)] == [("a", "i"), ("b", "j")]


@pytest.mark.parametrize("exists", [False, True])
async def test_an_item_applied_twice_is_refused(call: Any, exists: bool) -> None:
    a = {"name": "a", "image": "i"}
    if exists:
        assert (await apply(call, WEB, deployment(a), "m1")).status == 201
    env = [{"name": "E", "value": "1"}, {"name": "E", "value": "2"}]
    answer = await apply(call, WEB, deployment({**a, "env": env}), "m1")
    assert answer.status == 400
    assert answer.body["message"].endswith(
        'duplicate entries for .spec.template.spec.containers[name="a"].env[name="E"]'
    )


async def test_items_that_are_there_twice_stay_until_they_are_applied(call: Any) -> None:
    twice = [{"name": "E", "value": "1"}, {"name": "E", "value": "2"}]
    a = {"name": "a", "image": "i"}
    assert (await call("POST", WEB[:-4], deployment({**a, "env": twice}))).status == 201
    mine = {"name": "F", "value": "1"}
    answer = await apply(call, WEB, deployment({**a, "env": [mine]}), "m1")
    assert containers(answer)[0]["env"] == [*twice, mine]
    answer = await apply(call, WEB, deployment({**a, "env": [mine, {"name": "E", "value": "1"}]}), "m1")
    assert sorted(e["name"] for e in containers(answer)[0]["env"]) == ["E", "F"]


async def test_conflicts_are_listed_by_manager(call: Any) -> None:
    path = MAPS + "/x"
    await apply(call, path, config(a="1", c="1"), "m1")
    await apply(call, path, config(b="1"), "m2")
    answer = await apply(call, path, config(a="2", b="2", c="2"), "m3")
    assert answer.status == 409
    assert answer.body["message"] == (
        'Apply failed with 3 conflicts: conflicts with "m1":\n- .data.a\n- .data.c\nconflicts with "m2":\n- .data.b'
    )
    assert [c["field"] for c in answer.body["details"]["causes"]] == [".data.a", ".data.c", ".data.b"]


async def test_an_applier_is_the_same_in_every_version(call: Any) -> None:
    def scaler(version: str, most: int) -> tuple[str, JSON]:
        spec = {"scaleTargetRef": {"kind": "Deployment", "name": "d"}, "maxReplicas": most}
        kind = {"apiVersion": f"autoscaling/{version}", "kind": "HorizontalPodAutoscaler"}
        path = f"/apis/autoscaling/{version}/namespaces/default/horizontalpodautoscalers/h"
        return path, {**kind, "metadata": {"name": "h"}, "spec": spec}

    assert (await apply(call, *scaler("v1", 3), "m")).status == 201
    answer = await apply(call, *scaler("v2", 4), "m")
    assert answer.status == 200, answer.body
    assert answer.body["spec"]["maxReplicas"] == 4
    assert [(r["manager"], r["apiVersion"]) for r in answer.body["metadata"]["managedFields"]] == [
        ("m", "autoscaling/v2")
    ]


async def test_kubectls_note_of_what_it_applied_is_kept_up_to_date(call: Any) -> None:
    """Else its client-side apply would compare with an old state later."""
    body = config(a="1")
    body["metadata"]["annotations"] = {NOTE: json.dumps(config(a="1"))}
    await call("POST", MAPS + "?fieldManager=kubectl-client-side-apply", body)
    answer = await apply(call, MAPS + "/x", config(a="2"), "kubectl")
    assert answer.status == 200, answer.body
    noted = json.loads(answer.body["metadata"]["annotations"][NOTE])
    assert (noted["data"], "managedFields" in noted["metadata"]) == ({"a": "2"}, False)
    again = await apply(call, MAPS + "/x", config(a="2"), "kubectl")
    assert again.body == answer.body
    other = await apply(call, MAPS + "/x", config(b="1"), "m2")
    assert other.body["metadata"]["annotations"] == answer.body["metadata"]["annotations"]


@pytest.mark.parametrize("wrong", ["k:xx", "k:3", "v:{", "i:x", "k:" + "[" * 5000])
async def test_elements_that_are_no_paths_are_refused(call: Any, wrong: str) -> None:
    await apply(call, MAPS + "/x", config(a="1"), "m1")
    row = {"manager": "x", "operation": "Apply", "apiVersion": "v1", "fieldsV1": {"f:data": {wrong: {}}}}
    change = {"metadata": {"managedFields": [row]}}
    answer = await call("PATCH", MAPS + "/x", change, content_type=MERGE)
    assert (answer.status, answer.body["reason"]) == (400, "BadRequest")
