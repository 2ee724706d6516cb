"""Deployments, DaemonSets, StatefulSets and Jobs over HTTP; the pods' kubelets are played."""

from __future__ import annotations

from typing import Any

import pytest

from pervade.kube.errors import ApiError
from pervade.kube.resources import (
    CONTROLLER_REVISIONS,
    DAEMON_SETS,
    DEPLOYMENTS,
    EVENTS,
    JOBS,
    NAMESPACES,
    NODES,
    PODS,
    REPLICA_SETS,
    STATEFUL_SETS,
    Resource,
)

JSON = dict[str, Any]
HASH = "controller-revision-hash"


def workload(name: str, plays: str = "", **spec: Any) -> JSON:
    labels = {"app": name} | ({"plays": plays} if plays else {})
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "one"}]}}
    base = {"selector": {"matchLabels": {"app": name}}, "template": template}
    return {"metadata": {"name": name, "namespace": "default"}, "spec": {**base, **spec}}


def image(text: str, plays: str | None = None) -> JSON:
    """A strategic patch: another image, and how its pods play."""
    labels = {"metadata": {"labels": {"plays": plays}}} if plays is not None else {}
    return {"spec": {"template": {**labels, "spec": {"containers": [{"name": "c", "image": text}]}}}}


async def change(world: Any, res: Resource, name: str, body: JSON) -> JSON:
    found: JSON = await world.client.patch(res, name, body, "default", kind="strategic")
    return found


def of(held: dict[str, JSON], app: str) -> list[JSON]:
    return [p for p in held.values() if p["metadata"]["labels"].get("app") == app]


def images(held: dict[str, JSON]) -> list[str]:
    return sorted(p["spec"]["containers"][0]["image"] for p in held.values())


def counts(name: str, **wanted: Any) -> Any:
    """The object's status has these values."""

    def look(held: dict[str, JSON]) -> JSON | None:
        found = held.get(name) or {}
        status = found.get("status") or {}
        good = all(status.get(k, 0) == v for k, v in wanted.items())
        return found if good else None

    return look


async def test_a_daemonset_has_one_pod_on_every_node_that_suits(world: Any) -> None:
    await world.client.create(DAEMON_SETS, workload("each"))
    await world.seen(
        DAEMON_SETS, counts("each", numberAvailable=2, updatedNumberScheduled=2, observedGeneration=1)
    )
    taint = {"spec": {"taints": [{"key": "own", "value": "x", "effect": "NoSchedule"}]}}
    await world.node("node-3")
    await world.seen(
        PODS,
        lambda held: {p["spec"].get("nodeName") for p in held.values()} == {"node-1", "node-2", "node-3"},
    )
    await world.client.patch(NODES, "node-3", taint)
    await world.seen(DAEMON_SETS, counts("each", desiredNumberScheduled=2, numberMisscheduled=1))
    taint["spec"]["taints"][0]["effect"] = "NoExecute"
    await world.client.patch(NODES, "node-3", taint)
    await world.seen(
        PODS, lambda held: {p["spec"].get("nodeName") for p in held.values()} == {"node-1", "node-2"}
    )
    await world.client.patch(DAEMON_SETS, "each", {"spec": {"template": {"spec": {"nodeSelector": {"kubernetes.io/hostname": "node-2"}}}}}, "default")  # fmt: skip
    await world.seen(PODS, lambda held: [p["spec"].get("nodeName") for p in held.values()] == ["node-2"])
    await world.client.delete(DAEMON_SETS, "each", "default", propagation="Foreground")
    await world.seen(DAEMON_SETS, lambda held: not held)
    await world.seen(PODS, lambda held: not held, seconds=1)


async def test_a_daemonset_rolls_over_with_maxunavailable_and_waits_for_the_new_pod(world: Any) -> None:
    await world.client.create(DAEMON_SETS, workload("each"))
    await world.seen(DAEMON_SETS, counts("each", numberAvailable=2))
    await change(world, DAEMON_SETS, "each", image("two", "wait"))
    await world.seen(
        DAEMON_SETS, counts("each", updatedNumberScheduled=1, numberAvailable=1, numberUnavailable=1)
    )
    held = await world.seen(PODS, lambda held: len(held) == 2 and held)
    assert images(held) == ["one", "two"]
    await change(world, DAEMON_SETS, "each", image("three", ""))
    await world.seen(DAEMON_SETS, counts("each", updatedNumberScheduled=2, numberAvailable=2))
    revisions = await world.seen(CONTROLLER_REVISIONS, lambda held: len(held) == 3 and held)
    assert sorted(r["revision"] for r in revisions.values()) == [1, 2, 3]


async def test_a_daemonset_with_a_surge_keeps_the_old_pod_until_the_new_one_is_ready(world: Any) -> None:
    surge = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    await world.client.create(DAEMON_SETS, workload("each", updateStrategy=surge))
    await world.seen(DAEMON_SETS, counts("each", numberAvailable=2))
    await change(world, DAEMON_SETS, "each", image("two", "wait"))
    held = await world.seen(PODS, lambda held: len(held) == 3 and held)
    assert images(held) == ["one", "one", "two"]
    await world.seen(DAEMON_SETS, counts("each", updatedNumberScheduled=1, numberAvailable=2))
    await change(world, DAEMON_SETS, "each", image("three", ""))
    await world.seen(PODS, lambda held: images(held) == ["three", "three"])


async def test_ondelete_replaces_only_what_a_user_deletes_and_going_back_takes_the_old_revision(
    world: Any,
) -> None:
    await world.client.create(DAEMON_SETS, workload("each", updateStrategy={"type": "OnDelete"}))
    await world.seen(DAEMON_SETS, counts("each", numberAvailable=2))
    await change(world, DAEMON_SETS, "each", image("two"))
    await world.seen(DAEMON_SETS, counts("each", observedGeneration=2, numberAvailable=2))
    held = await world.seen(PODS, lambda held: len(held) == 2 and held)
    assert images(held) == ["one", "one"]
    await world.client.delete(PODS, next(iter(held)), "default")
    await world.seen(PODS, lambda held: images(held) == ["one", "two"])
    revisions = await world.seen(CONTROLLER_REVISIONS, lambda held: len(held) == 2 and held)
    first = next(r for r in revisions.values() if r["revision"] == 1)
    # What `kubectl rollout undo` sends.
    await change(world, DAEMON_SETS, "each", first["data"])
    await world.seen(CONTROLLER_REVISIONS, lambda held: held[first["metadata"]["name"]]["revision"] == 3)
    await world.seen(DAEMON_SETS, counts("each", updatedNumberScheduled=1))


async def test_a_statefulset_starts_in_order_and_goes_in_reverse(world: Any) -> None:
    await world.client.create(STATEFUL_SETS, workload("row", "wait", replicas=3, serviceName="row"))
    held = await world.seen(PODS, lambda held: held)
    await world.seen(STATEFUL_SETS, counts("row", replicas=1, readyReplicas=0))
    assert list(held) == ["row-0"]
    meta, spec = held["row-0"]["metadata"], held["row-0"]["spec"]
    assert meta["labels"]["statefulset.kubernetes.io/pod-name"] == "row-0"
    assert meta["labels"]["apps.kubernetes.io/pod-index"] == "0"
    assert (spec["hostname"], spec["subdomain"]) == ("row-0", "row")
    # The image of a pod that is stuck: it is replaced by hand, as upstream.
    await change(world, STATEFUL_SETS, "row", image("one", ""))
    await world.client.delete(PODS, "row-0", "default")
    found = await world.seen(
        STATEFUL_SETS, counts("row", readyReplicas=3, updatedReplicas=3, availableReplicas=3)
    )
    assert found["status"]["currentRevision"] == found["status"]["updateRevision"]
    held = await world.seen(PODS, lambda held: len(held) == 3 and held)
    assert {p["metadata"]["labels"][HASH] for p in held.values()} == {found["status"]["updateRevision"]}
    await change(world, STATEFUL_SETS, "row", {"spec": {"replicas": 1}})
    await world.seen(PODS, lambda held: list(held) == ["row-0"])


async def test_a_partition_keeps_the_lower_ordinals_on_the_old_revision(world: Any) -> None:
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"partition": 1}}
    spec = {
        "replicas": 3,
        "podManagementPolicy": "Parallel",
        "ordinals": {"start": 5},
        "updateStrategy": strategy,
    }
    await world.client.create(STATEFUL_SETS, workload("row", **spec))
    await world.seen(STATEFUL_SETS, counts("row", readyReplicas=3))
    await change(world, STATEFUL_SETS, "row", image("two"))
    found = await world.seen(
        STATEFUL_SETS, counts("row", updatedReplicas=2, readyReplicas=3, currentReplicas=1)
    )
    assert found["status"]["currentRevision"] != found["status"]["updateRevision"]
    await world.client.delete(PODS, "row-5", "default")
    held = await world.seen(PODS, lambda held: images(held) == ["one", "two", "two"] and held)
    assert sorted(held) == ["row-5", "row-6", "row-7"]
    strategy["rollingUpdate"]["partition"] = 0
    await change(world, STATEFUL_SETS, "row", {"spec": {"updateStrategy": strategy}})
    await world.seen(PODS, lambda held: images(held) == ["two", "two", "two"])
    await world.seen(STATEFUL_SETS, counts("row", updatedReplicas=3, currentReplicas=3))


async def test_a_statefulset_with_claims_says_why_it_has_no_pods(world: Any) -> None:
    claim = {
        "metadata": {"name": "d"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
    }
    await world.client.create(STATEFUL_SETS, workload("row", volumeClaimTemplates=[claim]))
    held = await world.seen(EVENTS, lambda held: [e for e in held.values() if e["reason"] == "FailedCreate"])
    assert "no" in held[0]["message"] and "provisioner" in held[0]["message"]
    assert (await world.client.list(PODS, "default"))[0] == []


async def test_an_orphaned_set_is_taken_over_by_one_of_the_same_name(world: Any) -> None:
    await world.client.create(STATEFUL_SETS, workload("row", replicas=1))
    await world.seen(STATEFUL_SETS, counts("row", readyReplicas=1))
    before = await world.client.get(PODS, "row-0", "default")
    await world.client.delete(STATEFUL_SETS, "row", "default", propagation="Orphan")
    await world.seen(STATEFUL_SETS, lambda held: not held)
    made = await world.client.create(STATEFUL_SETS, workload("row", replicas=1))
    await world.seen(STATEFUL_SETS, counts("row", readyReplicas=1, updatedReplicas=1))
    after = await world.client.get(PODS, "row-0", "default")
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert [r["uid"] for r in after["metadata"]["ownerReferences"]] == [made["metadata"]["uid"]]


def job(name: str, plays: str, **spec: Any) -> JSON:
    labels = {"app": name, "plays": plays}
    pod = {"restartPolicy": "Never", "containers": [{"name": "c", "image": "one"}]}
    template = {"metadata": {"labels": labels}, "spec": pod}
    return {"metadata": {"name": name, "namespace": "default"}, "spec": {"template": template, **spec}}


def ended(name: str, kind: str) -> Any:
    def look(held: dict[str, JSON]) -> JSON | None:
        rows = {c["type"]: c for c in (held[name].get("status") or {}).get("conditions") or ()}
        return (
            {**held[name]["status"], "row": rows[kind]}
            if rows.get(kind, {}).get("status") == "True"
            else None
        )

    return look


async def test_an_indexed_job_runs_every_index_once(world: Any) -> None:
    await world.client.create(
        JOBS, job("three", "end", completions=3, parallelism=2, completionMode="Indexed")
    )
    status = await world.seen(JOBS, ended("three", "Complete"))
    assert (status["succeeded"], status["completedIndexes"]) == (3, "0-2")
    assert status["completionTime"] and "lastUpdateTime" not in status["row"]
    pods = await world.seen(PODS, lambda held: len(of(held, "three")) == 3 and of(held, "three"))
    assert {p["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"] for p in pods} == {
        "0",
        "1",
        "2",
    }
    assert {p["spec"]["hostname"] for p in pods} == {"three-0", "three-1", "three-2"}
    environment = [
        e["value"]
        for p in pods
        for e in p["spec"]["containers"][0]["env"]
        if e["name"] == "JOB_COMPLETION_INDEX"
    ]
    assert sorted(environment) == ["0", "1", "2"]


async def test_what_a_job_has_done_is_not_done_again_when_its_pods_are_deleted(world: Any) -> None:
    await world.client.create(JOBS, job("two", "end", completions=2, parallelism=1, suspend=True))
    await world.seen(JOBS, ended("two", "Suspended"))
    assert (await world.client.list(PODS, "default"))[0] == []
    await change(world, JOBS, "two", {"spec": {"suspend": False}})
    first = await world.seen(
        PODS,
        lambda held: next(
            (n for n, p in held.items() if p.get("status", {}).get("phase") == "Succeeded"), None
        ),
    )
    await world.client.delete(PODS, first, "default")
    status = await world.seen(JOBS, ended("two", "Complete"))
    assert status["succeeded"] == 2
    events = await world.seen(
        EVENTS, lambda held: [e for e in held.values() if e["reason"] == "SuccessfulCreate"]
    )
    assert len(events) == 2


async def test_jobs_fail_by_limit_and_by_deadline_and_go_after_their_time(world: Any) -> None:
    await world.client.create(JOBS, job("limit", "break", backoffLimit=0))
    status = await world.seen(JOBS, ended("limit", "Failed"))
    assert (status["row"]["reason"], status["failed"]) == ("BackoffLimitExceeded", 1)
    await world.client.create(JOBS, job("late", "stay", activeDeadlineSeconds=1, ttlSecondsAfterFinished=0))
    await world.seen(JOBS, ended("late", "FailureTarget"))
    pods = await world.seen(PODS, lambda held: of(held, "late"))
    # Failed is said only when no pod runs any longer.
    assert "Failed" not in {
        c["type"] for c in (await world.client.get(JOBS, "late", "default"))["status"]["conditions"]
    }
    await world.client.delete(PODS, pods[0]["metadata"]["name"], "default", grace_seconds=0)
    await world.seen(JOBS, lambda held: "late" not in held)


async def test_suspending_a_job_stops_its_pods_and_counts_no_failure(world: Any) -> None:
    await world.client.create(JOBS, job("run", "", backoffLimit=0))
    await world.seen(JOBS, counts("run", active=1, ready=1))
    await change(world, JOBS, "run", {"spec": {"suspend": True}})
    await world.seen(PODS, lambda held: not held)
    found = await world.seen(JOBS, counts("run", active=0, failed=0))
    assert "startTime" not in found["status"]
    await change(world, JOBS, "run", {"spec": {"suspend": False}})
    await world.seen(JOBS, counts("run", active=1, failed=0))


async def test_a_deployment_is_scaled_in_the_midst_of_a_rollout_each_set_its_share(world: Any) -> None:
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 2, "maxUnavailable": 0}}
    await world.client.create(DEPLOYMENTS, workload("web", replicas=4, strategy=rolling))
    await world.seen(DEPLOYMENTS, counts("web", availableReplicas=4))
    await change(world, DEPLOYMENTS, "web", image("two", "wait"))
    await world.seen(DEPLOYMENTS, counts("web", updatedReplicas=2, replicas=6))
    await change(world, DEPLOYMENTS, "web", {"spec": {"replicas": 8}})
    sets = await world.seen(
        REPLICA_SETS, lambda held: sum(r["spec"]["replicas"] for r in held.values()) == 10 and held
    )
    shares = {
        r["spec"]["template"]["spec"]["containers"][0]["image"]: r["spec"]["replicas"] for r in sets.values()
    }
    assert shares == {"one": 7, "two": 3}


async def test_a_paused_deployment_is_scaled_but_not_rolled_and_a_revision_comes_back(world: Any) -> None:
    await world.client.create(DEPLOYMENTS, workload("web", replicas=1))
    await world.seen(DEPLOYMENTS, counts("web", availableReplicas=1))
    await change(world, DEPLOYMENTS, "web", {"spec": {"paused": True, "replicas": 2}} | {})
    await change(world, DEPLOYMENTS, "web", image("two"))
    await world.seen(PODS, lambda held: images(held) == ["one", "one"])
    await world.seen(DEPLOYMENTS, counts("web", availableReplicas=2, observedGeneration=3))
    assert len((await world.client.list(REPLICA_SETS, "default"))[0]) == 1
    await change(world, DEPLOYMENTS, "web", {"spec": {"paused": False}})
    await world.seen(PODS, lambda held: images(held) == ["two", "two"])
    await change(world, DEPLOYMENTS, "web", image("one"))
    await world.seen(PODS, lambda held: images(held) == ["one", "one"])
    note = "deployment.kubernetes.io/revision"
    await world.seen(DEPLOYMENTS, lambda held: held["web"]["metadata"]["annotations"].get(note) == "3")
    sets = (await world.client.list(REPLICA_SETS, "default"))[0]
    assert sorted(r["metadata"]["annotations"][note] for r in sets) == ["2", "3"]


async def test_a_rollout_that_does_not_progress_says_so(world: Any) -> None:
    body = workload("web", "wait", replicas=1, progressDeadlineSeconds=1)
    await world.client.create(DEPLOYMENTS, body)
    status = await world.seen(
        DEPLOYMENTS,
        lambda held: next(
            (
                c
                for c in (held["web"].get("status") or {}).get("conditions") or ()
                if c.get("reason") == "ProgressDeadlineExceeded"
            ),
            None,
        ),
    )
    assert (status["type"], status["status"]) == ("Progressing", "False")


async def test_a_replicaset_takes_fitting_strays_and_lets_go_of_what_no_longer_fits(world: Any) -> None:
    template = workload("web")["spec"]["template"]
    await world.client.create(
        PODS,
        {
            "metadata": {"name": "stray", "namespace": "default", "labels": {"app": "web"}},
            "spec": template["spec"],
        },
    )
    made = await world.client.create(REPLICA_SETS, workload("web", replicas=2))
    await world.seen(REPLICA_SETS, counts("web", availableReplicas=2))
    held = await world.seen(PODS, lambda held: len(held) == 2 and held)
    assert held["stray"]["metadata"]["ownerReferences"][0]["uid"] == made["metadata"]["uid"]
    await world.client.patch(PODS, "stray", {"metadata": {"labels": {"app": "mine"}}}, "default")
    held = await world.seen(
        PODS, lambda held: len(held) == 3 and not held["stray"]["metadata"].get("ownerReferences") and held
    )
    await world.client.delete(REPLICA_SETS, "web", "default", propagation="Foreground")
    await world.seen(PODS, lambda held: list(held) == ["stray"])


@pytest.mark.parametrize(
    ("res", "body", "change", "field"),
    [
        (STATEFUL_SETS, workload("row"), {"spec": {"podManagementPolicy": "Parallel"}}, "spec"),
        (
            DAEMON_SETS,
            workload("each"),
            {"spec": {"updateStrategy": {"rollingUpdate": {"maxSurge": 1}}}},
            "spec.updateStrategy.rollingUpdate.maxSurge",
        ),
        (
            DAEMON_SETS,
            workload("each"),
            {"spec": {"updateStrategy": {"rollingUpdate": {"maxUnavailable": 0}}}},
            "spec.updateStrategy.rollingUpdate.maxUnavailable",
        ),
    ],
)
async def test_what_no_controller_could_do_is_refused(
    world: Any, res: Resource, body: JSON, change: JSON, field: str
) -> None:
    await world.client.create(res, body)
    with pytest.raises(ApiError) as refused:
        await world.client.patch(res, body["metadata"]["name"], change, "default")
    assert refused.value.status_code == 422
    assert [c["field"] for c in refused.value.details["causes"]] == [field]


async def test_recreate_starts_nothing_new_before_the_old_is_gone(world: Any) -> None:
    body = workload("web", "stay", replicas=2, strategy={"type": "Recreate"})
    await world.client.create(DEPLOYMENTS, body)
    await world.seen(DEPLOYMENTS, counts("web", availableReplicas=2))
    await change(world, DEPLOYMENTS, "web", image("two", ""))
    held = await world.seen(
        PODS, lambda held: all(p["metadata"].get("deletionTimestamp") for p in held.values()) and held
    )
    assert images(held) == ["one", "one"]
    for name in held:
        await world.client.delete(PODS, name, "default", grace_seconds=0)
    await world.seen(PODS, lambda held: images(held) == ["two", "two"])
    await world.seen(DEPLOYMENTS, counts("web", availableReplicas=2, updatedReplicas=2))


async def test_controllers_that_start_again_make_nothing_twice_and_see_what_they_missed(world: Any) -> None:
    await world.client.create(REPLICA_SETS, workload("set", replicas=2))
    await world.client.create(DAEMON_SETS, workload("each"))
    await world.client.create(STATEFUL_SETS, workload("row", replicas=2))
    await world.client.create(
        JOBS, job("half", "end", completions=2, parallelism=1, completionMode="Indexed")
    )
    await world.client.create(REPLICA_SETS, workload("left", replicas=1))
    for res, name in ((REPLICA_SETS, "set"), (STATEFUL_SETS, "row"), (REPLICA_SETS, "left")):
        await world.seen(res, lambda held, n=name: held[n].get("status", {}).get("availableReplicas"))
    await world.seen(DAEMON_SETS, counts("each", numberAvailable=2))
    await world.seen(STATEFUL_SETS, counts("row", availableReplicas=2))
    await world.seen(JOBS, ended("half", "Complete"))
    before = await world.seen(PODS, lambda held: len(held) == 9 and held)
    await world.stop()
    await world.client.delete(REPLICA_SETS, "left", "default", propagation="Background")
    gone = next(p["metadata"]["name"] for p in of(before, "set"))
    await world.client.delete(PODS, gone, "default", grace_seconds=0)
    world.start()
    after = await world.seen(PODS, lambda held: not of(held, "left") and len(of(held, "set")) == 2 and held)
    kept = {p["metadata"]["uid"] for n, p in before.items() if n != gone and not n.startswith("left")}
    assert kept < {p["metadata"]["uid"] for p in after.values()}
    assert len(after) == len(kept) + 1


async def test_a_pod_of_another_namespace_is_nobodys_replica(world: Any) -> None:
    """Whoever may create pods in one namespace must not take a replica from another."""
    made = await world.client.create(REPLICA_SETS, workload("web", replicas=0))
    await world.client.create(NAMESPACES, {"metadata": {"name": "other"}})
    ref = {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "name": "web",
        "uid": made["metadata"]["uid"],
        "controller": True,
    }
    labels = {"app": "web", "plays": "stay"}
    meta = {
        "name": "false",
        "namespace": "other",
        "labels": labels,
        "ownerReferences": [ref],
        "finalizers": ["example.com/kept"],
    }
    await world.client.create(
        PODS, {"metadata": meta, "spec": {"containers": [{"name": "c", "image": "one"}]}}
    )
    await change(world, REPLICA_SETS, "web", {"spec": {"replicas": 1}})
    await world.seen(REPLICA_SETS, counts("web", availableReplicas=1, observedGeneration=2))
    assert len((await world.client.list(PODS, "default"))[0]) == 1
    # The reference leads nowhere, so the pod is garbage.
    await world.seen(PODS, lambda held: held["false"]["metadata"].get("deletionTimestamp"), "other")
