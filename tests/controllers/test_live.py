"""Controllers on real nodes, through kubectl as a user sees them."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import Any

import pytest

from pervade.testing.cluster import Cluster
from pervade.testing.wait import until

pytestmark = pytest.mark.live
SLEEP = {"name": "c", "image": "busybox", "command": ["sleep", "3600"]}


def apply(cluster: Cluster, *objects: dict[str, Any]) -> None:
    file = cluster.config.with_name("objects.json")
    file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))
    cluster.kubectl("apply", "-f", str(file))


def workload(kind: str, name: str, namespace: str = "default", **spec: Any) -> dict[str, Any]:
    template = {
        "metadata": {"labels": {"app": name}},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [SLEEP]},
    }
    base = {"selector": {"matchLabels": {"app": name}}, "template": template}
    meta = {"name": name, "namespace": namespace}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": meta, "spec": {**base, **spec}}


def pods(
    cluster: Cluster, app: str, path: str = "{.items[*].metadata.name}", namespace: str = "default"
) -> list[str]:
    return cluster.kubectl(
        "get", "pods", "-n", namespace, "-l", f"app={app}", "-o", f"jsonpath={path}"
    ).split()


def test_owners_take_their_dependents_along(room_cluster: Cluster) -> None:
    """Background, foreground, orphan."""
    for name, cascade in (("back", "background"), ("fore", "foreground"), ("orph", "orphan")):
        apply(room_cluster, workload("Deployment", name, replicas=1))
        room_cluster.kubectl("rollout", "status", f"deployment/{name}", "--timeout=30s")
        room_cluster.kubectl("delete", "deployment", name, f"--cascade={cascade}", "--timeout=30s")
        sets = room_cluster.kubectl("get", "rs", "-l", f"app={name}", "-o", "name")
        if cascade == "foreground":
            assert (sets, pods(room_cluster, name)) == ("", [])
        elif cascade == "background":
            until(lambda: not pods(room_cluster, "back"), 20)
            assert room_cluster.kubectl("get", "rs", "-l", "app=back", "-o", "name") == ""
        else:
            assert sets
            until(
                lambda: (
                    "ownerReferences" not in room_cluster.kubectl("get", "rs", "-l", "app=orph", "-o", "yaml")
                ),
                10,
            )
            assert len(pods(room_cluster, "orph")) == 1
            room_cluster.kubectl("delete", "rs", "-l", "app=orph")


def test_a_namespace_goes_with_all_that_is_in_it(room_cluster: Cluster) -> None:
    room_cluster.kubectl("create", "namespace", "short")
    apply(room_cluster, workload("Deployment", "inside", "short", replicas=2))
    room_cluster.kubectl("rollout", "status", "-n", "short", "deployment/inside", "--timeout=30s")
    room_cluster.kubectl("create", "configmap", "-n", "short", "held")
    room_cluster.kubectl(
        "patch", "configmap", "-n", "short", "held", "-p", '{"metadata":{"finalizers":["example.com/kept"]}}'
    )
    room_cluster.kubectl("delete", "namespace", "short", "--wait=false")
    why = "{.status.conditions[?(@.type=='NamespaceFinalizersRemaining')].message}"
    until(lambda: "example.com/kept in 1" in room_cluster.jsonpath("namespace/short", why), 20)
    refused = room_cluster.kubectl("create", "configmap", "-n", "short", "late", check=False)
    assert refused == ""
    room_cluster.kubectl(
        "patch", "configmap", "-n", "short", "held", "-p", '{"metadata":{"finalizers":null}}'
    )
    room_cluster.kubectl("wait", "--for=delete", "namespace/short", "--timeout=30s")


@pytest.mark.parametrize("rolling", [{"maxUnavailable": 1}, {"maxSurge": 1, "maxUnavailable": 0}])
def test_a_daemonset_runs_on_every_node_and_rolls_over(
    room_cluster: Cluster, rolling: dict[str, Any]
) -> None:
    name = "surge" if "maxSurge" in rolling else "each"
    strategy = {"type": "RollingUpdate", "rollingUpdate": rolling}
    apply(room_cluster, workload("DaemonSet", name, updateStrategy=strategy))
    room_cluster.kubectl("rollout", "status", f"daemonset/{name}", "--timeout=30s")
    assert sorted(pods(room_cluster, name, "{.items[*].spec.nodeName}")) == ["node-1", "node-2"]
    before = set(pods(room_cluster, name))
    room_cluster.kubectl("set", "env", f"daemonset/{name}", "ROUND=2")
    room_cluster.kubectl("rollout", "status", f"daemonset/{name}", "--timeout=60s")
    # With a surge the old pods may still be ending when the new ones are all there.
    until(lambda: not before & set(pods(room_cluster, name)), 20)
    assert len(room_cluster.kubectl("rollout", "history", f"daemonset/{name}").splitlines()) >= 4
    room_cluster.kubectl("rollout", "undo", f"daemonset/{name}")
    room_cluster.kubectl("rollout", "status", f"daemonset/{name}", "--timeout=60s")
    until(lambda: "ROUND" not in room_cluster.kubectl("get", "pods", "-l", f"app={name}", "-o", "yaml"), 20)
    room_cluster.kubectl("delete", "daemonset", name)
    until(lambda: not pods(room_cluster, name), 20)


def test_a_statefulset_keeps_names_and_order(room_cluster: Cluster) -> None:
    apply(room_cluster, workload("StatefulSet", "row", replicas=2, serviceName="row"))
    room_cluster.kubectl("rollout", "status", "statefulset/row", "--timeout=40s")
    assert pods(room_cluster, "row") == ["row-0", "row-1"]
    born = pods(room_cluster, "row", "{.items[*].status.startTime}")
    assert born[0] <= born[1]
    room_cluster.kubectl("set", "env", "statefulset/row", "ROUND=2")
    room_cluster.kubectl("rollout", "status", "statefulset/row", "--timeout=60s")
    room_cluster.kubectl("scale", "statefulset/row", "--replicas=1")
    until(lambda: pods(room_cluster, "row") == ["row-0"], 30)
    room_cluster.kubectl("delete", "statefulset", "row")
    until(lambda: not pods(room_cluster, "row"), 20)


def job(name: str, command: list[str], **spec: Any) -> dict[str, Any]:
    template = {
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "c", "image": "busybox", "command": command}],
        }
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"template": template, **spec},
    }


def test_jobs_complete_fail_and_go(room_cluster: Cluster) -> None:
    index = ["sh", "-c", 'test -n "$JOB_COMPLETION_INDEX"']
    apply(
        room_cluster,
        job(
            "three", index, completions=3, parallelism=2, completionMode="Indexed", ttlSecondsAfterFinished=6
        ),
        job("never", ["false"], backoffLimit=0),
        job("late", ["sleep", "60"], activeDeadlineSeconds=2),
    )
    room_cluster.kubectl("wait", "--for=condition=Complete", "job/three", "--timeout=40s")
    assert room_cluster.jsonpath("job/three", "{.status.succeeded} {.status.completedIndexes}") == "3 0-2"
    room_cluster.kubectl("wait", "--for=condition=Failed", "job/never", "job/late", "--timeout=40s")
    reasons = "{.status.conditions[?(@.type=='Failed')].reason}"
    assert room_cluster.jsonpath("job/never", reasons) == "BackoffLimitExceeded"
    assert room_cluster.jsonpath("job/late", reasons) == "DeadlineExceeded"
    until(lambda: "three" not in room_cluster.kubectl("get", "jobs,pods", "-o", "name"), 20)


def test_a_deployment_rolls_back(room_cluster: Cluster) -> None:
    apply(room_cluster, workload("Deployment", "again", replicas=2))
    room_cluster.kubectl("rollout", "status", "deployment/again", "--timeout=30s")
    room_cluster.kubectl("set", "image", "deployment/again", "c=nowhere.invalid/none:1")
    image = "{.items[*].spec.containers[0].image}"
    until(lambda: "nowhere.invalid/none:1" in pods(room_cluster, "again", image), 20)
    assert "busybox" in pods(room_cluster, "again", image)
    room_cluster.kubectl("rollout", "undo", "deployment/again")
    room_cluster.kubectl("rollout", "status", "deployment/again", "--timeout=30s")
    until(lambda: pods(room_cluster, "again", image) == ["busybox", "busybox"], 20)
    assert "3" in room_cluster.kubectl("rollout", "history", "deployment/again")


@pytest.mark.matrix
def test_a_silent_node_is_given_up_and_comes_back_and_a_hanging_server_condemns_none(
    room_cluster: Cluster,
) -> None:
    """Takes as long as nodes may be silent, twice."""

    def silent(program: str, seconds: float) -> None:
        pid = room_cluster.pid(program)
        os.kill(pid, signal.SIGSTOP)
        try:
            time.sleep(seconds)
        finally:
            os.kill(pid, signal.SIGCONT)

    conditions = "{.items[*].status.conditions[?(@.type=='Ready')].status}"
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "pinned"},
        "spec": {"nodeName": "node-2", "terminationGracePeriodSeconds": 1, "containers": [SLEEP]},
    }
    apply(room_cluster, pod)
    room_cluster.kubectl("wait", "--for=condition=Ready", "pod/pinned", "--timeout=30s")
    silent("apiserver", 50)
    time.sleep(5)
    assert room_cluster.jsonpath("nodes", conditions) == "True True"
    silent("kubelet-node-2", 50)
    reasons = room_cluster.kubectl("get", "events", "-A", "-o", "jsonpath={.items[*].reason}").split()
    assert reasons.count("NodeNotReady") == 1
    until(lambda: room_cluster.jsonpath("nodes", conditions) == "True True", 20)
    until(lambda: "unreachable" not in room_cluster.jsonpath("node/node-2", "{.spec.taints}"), 20)
    room_cluster.kubectl("wait", "--for=condition=Ready", "pod/pinned", "--timeout=30s")
    room_cluster.kubectl("delete", "pod", "pinned")


@pytest.mark.matrix
def test_a_cronjob_starts_a_job_every_minute(room_cluster: Cluster) -> None:
    body = job("tick", ["true"])
    spec = {"schedule": "* * * * *", "jobTemplate": {"spec": body["spec"]}}
    apply(
        room_cluster,
        {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "tick"}, "spec": spec},
    )
    until(lambda: room_cluster.jsonpath("cronjob/tick", "{.status.lastSuccessfulTime}"), 90)
    room_cluster.kubectl("create", "job", "--from=cronjob/tick", "by-hand")
    room_cluster.kubectl("wait", "--for=condition=Complete", "job/by-hand", "--timeout=30s")
    room_cluster.kubectl("delete", "cronjob", "tick")
    # The job made by hand has the CronJob for its owner, too.
    names = ("tick-", "by-hand")
    until(lambda: not any(n in room_cluster.kubectl("get", "jobs", "-o", "name") for n in names), 20)
