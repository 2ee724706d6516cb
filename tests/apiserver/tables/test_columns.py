"""What a user sees of each kind: headers and cells, the wide ones behind the bar."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from pervade.cluster.apiserver import tables
from pervade.cluster.apiserver.kinds.builtin import BUILTIN
from pervade.cluster.apiserver.kinds.kind import JSON, Kind
from pervade.cluster.apiserver.tables import custom, human

NOW = datetime(2026, 3, 10, 12, 0, 0, tzinfo=UTC)
BORN = "2026-03-10T11:54:30Z"
KINDS = {k.group_resource: k for k in BUILTIN if not k.review}
RBAC, NET, CLASS = "rbac.authorization.k8s.io", "networking.k8s.io", "storageclass.kubernetes.io"
MADE = {"containers": [{"name": "a", "image": "one:1"}, {"name": "b", "image": "two:2"}]}
OWNED = {"selector": {"matchLabels": {"app": "x"}}, "template": {"spec": MADE}}
SET = "a,b one:1,two:2 app=x"
# kind; the object without its name and age; ordinary cells after the name; wide cells. `_` is a blank inside a cell.
ROWS: list[tuple[str, JSON, str, str]] = [
    ("deployments.apps", {"spec": OWNED | {"replicas": 3}, "status": {"readyReplicas": 2, "updatedReplicas": 1}},
     "2/3 1 0 5m30s", SET),
    ("replicasets.apps", {"spec": OWNED | {"replicas": 0}, "status": {"replicas": 1}}, "0 1 0 5m30s", SET),
    ("daemonsets.apps", {"spec": OWNED, "status": {"desiredNumberScheduled": 2, "numberReady": 1}},
     "2 0 1 0 0 <none> 5m30s", SET),
    ("statefulsets.apps", {"spec": OWNED, "status": {}}, "0/1 5m30s", "a,b one:1,two:2"),
    ("controllerrevisions.apps", {"revision": 4, "metadata": {"ownerReferences": [
        {"kind": "DaemonSet", "apiVersion": "apps/v1", "name": "d"}]}}, "daemonset.apps/d 4 5m30s", ""),
    ("jobs.batch", {"spec": OWNED | {"completions": 3}, "status": {"succeeded": 1, "startTime": "2026-03-10T11:59:00Z"}},
     "Running 1/3 60s 5m30s", SET),
    ("jobs.batch", {"spec": OWNED | {"parallelism": 2}, "status": {
        "conditions": [{"type": "Complete", "status": "True"}], "startTime": "2026-03-10T11:50:00Z",
        "completionTime": "2026-03-10T11:50:07Z"}}, "Complete 0/1_of_2 7s 5m30s", SET),
    ("jobs.batch", {"spec": OWNED, "metadata": {"deletionTimestamp": BORN}}, "Terminating 0/1 _ 5m30s", SET),
    ("cronjobs.batch", {"spec": {"schedule": "*/5", "suspend": True, "jobTemplate": {"spec": OWNED}}},
     "*/5 <none> True 0 <none> 5m30s", SET),
    ("services", {"spec": {"type": "NodePort", "clusterIP": "10.0.0.7", "selector": {"app": "x"}, "ports": [
        {"port": 80, "nodePort": 30080}, {"port": 53, "protocol": "UDP"}]}},
     "NodePort 10.0.0.7 <none> 80:30080/TCP,53/UDP 5m30s", "app=x"),
    ("services", {"spec": {"type": "LoadBalancer", "clusterIP": "10.0.0.8"}},
     "LoadBalancer 10.0.0.8 <pending> <none> 5m30s", "<none>"),
    ("services", {"spec": {"type": "LoadBalancer", "clusterIP": "10.0.0.8", "externalIPs": ["192.0.2.9"]},
                  "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}},
     "LoadBalancer 10.0.0.8 192.0.2.1,192.0.2.9 <none> 5m30s", "<none>"),
    ("services", {"spec": {"clusterIP": "None"}}, "ClusterIP None <none> <none> 5m30s", "<none>"),
    ("services", {"spec": {"type": "ExternalName", "externalName": "a.b"}},
     "ExternalName <none> a.b <none> 5m30s", "<none>"),
    ("endpoints", {"subsets": [{"addresses": [{"ip": f"10.0.0.{i}"} for i in range(5)], "ports": [{"port": 80}]}]},
     "10.0.0.0:80,10.0.0.1:80,10.0.0.2:80_+_2_more... 5m30s", ""),
    ("endpointslices.discovery.k8s.io", {"addressType": "IPv4", "ports": [{"port": 80}],
                                         "endpoints": [{"addresses": ["10.0.0.1"]}]}, "IPv4 80 10.0.0.1 5m30s", ""),
    ("endpointslices.discovery.k8s.io", {"addressType": "IPv6"}, "IPv6 <unset> <unset> 5m30s", ""),
    ("nodes", {"metadata": {"labels": {"node-role.kubernetes.io/worker": "", "node-role.kubernetes.io/edge": ""}},
               "spec": {"unschedulable": True}, "status": {
        "conditions": [{"type": "Ready", "status": "True"}], "addresses": [{"type": "InternalIP", "address": "10.9.0.1"}],
        "nodeInfo": {"kubeletVersion": "v1.33.0", "osImage": "Debian_12", "kernelVersion": "6.1",
                     "containerRuntimeVersion": "containerd://1.6"}}},
     "Ready,SchedulingDisabled edge,worker 5m30s v1.33.0", "10.9.0.1 <none> Debian_12 6.1 containerd://1.6"),
    ("nodes", {"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}},
     "NotReady <none> 5m30s _", "<none> <none> <unknown> <unknown> <unknown>"),
    ("nodes", {}, "Unknown <none> 5m30s _", "<none> <none> <unknown> <unknown> <unknown>"),
    ("namespaces", {"status": {"phase": "Active"}}, "Active 5m30s", ""),
    ("configmaps", {"data": {"a": "", "b": ""}, "binaryData": {"c": ""}}, "3 5m30s", ""),
    ("secrets", {"type": "kubernetes.io/tls", "data": {"a": ""}}, "kubernetes.io/tls 1 5m30s", ""),
    ("serviceaccounts", {}, "0 5m30s", ""),
    ("leases.coordination.k8s.io", {"spec": {"holderIdentity": "n1"}}, "n1 5m30s", ""),
    ("persistentvolumes", {"spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce", "ReadOnlyMany"],
        "claimRef": {"namespace": "d", "name": "c"}, "storageClassName": "s", "volumeMode": "Block",
        "persistentVolumeReclaimPolicy": "Retain"}, "status": {"phase": "Bound"}},
     "1Gi RWO,ROX Retain Bound d/c s <unset> _ 5m30s", "Block"),
    ("persistentvolumeclaims", {"spec": {"volumeName": "v"}, "status": {
        "phase": "Bound", "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOncePod"]}},
     "Bound v 1Gi RWOP _ <unset> 5m30s", "<unset>"),
    ("persistentvolumeclaims", {"status": {"phase": "Pending"}}, "Pending _ _ _ _ <unset> 5m30s", "<unset>"),
    ("storageclasses.storage.k8s.io", {"provisioner": "p", "allowVolumeExpansion": True},
     "p Delete Immediate true 5m30s", ""),
    ("poddisruptionbudgets.policy", {"spec": {"minAvailable": 0}, "status": {"disruptionsAllowed": 2}},
     "0 N/A 2 5m30s", ""),
    ("horizontalpodautoscalers.autoscaling", {"spec": {
        "scaleTargetRef": {"kind": "Deployment", "name": "d"}, "minReplicas": 1, "maxReplicas": 5, "metrics": [
            {"type": "Resource", "resource": {"name": "cpu", "target": {"averageUtilization": 80}}}]},
        "status": {"currentReplicas": 2}}, "Deployment/d cpu:_<unknown>/80% 1 5 2 5m30s", ""),
    (f"networkpolicies.{NET}", {"spec": {"podSelector": {"matchExpressions": [
        {"key": "a", "operator": "In", "values": ["x", "y"]}, {"key": "b", "operator": "DoesNotExist"}]}}},
     "a_in_(x,y),!b 5m30s", ""),
    (f"ingresses.{NET}", {"spec": {"rules": [{"host": "a"}, {}], "tls": [{}]}}, "<none> a,* _ 80,_443 5m30s", ""),
    (f"ingressclasses.{NET}", {"spec": {"controller": "c/x"}}, "c/x <none> 5m30s", ""),
    (f"roles.{RBAC}", {}, BORN, ""),
    (f"clusterroles.{RBAC}", {}, BORN, ""),
    (f"rolebindings.{RBAC}", {"roleRef": {"kind": "Role", "name": "r"}, "subjects": [
        {"kind": "User", "name": "u"}, {"kind": "Group", "name": "g"},
        {"kind": "ServiceAccount", "name": "s", "namespace": "n"}]}, "Role/r 5m30s", "u g n/s"),
    (f"clusterrolebindings.{RBAC}", {"roleRef": {"kind": "ClusterRole", "name": "r"}},
     "ClusterRole/r 5m30s", "_ _ _"),
    ("validatingwebhookconfigurations.admissionregistration.k8s.io", {"webhooks": [{}, {}]}, "2 5m30s", ""),
    ("mutatingwebhookconfigurations.admissionregistration.k8s.io", {}, "0 5m30s", ""),
    ("validatingadmissionpolicies.admissionregistration.k8s.io", {"spec": {"validations": [{}]}},
     "1 <unset> 5m30s", ""),
    ("validatingadmissionpolicybindings.admissionregistration.k8s.io", {"spec": {"policyName": "p"}},
     "p <unset> 5m30s", ""),
    ("customresourcedefinitions.apiextensions.k8s.io", {}, BORN, ""),
    ("priorityclasses.scheduling.k8s.io", {"value": 7, "globalDefault": True},
     "7 true 5m30s PreemptLowerPriority", ""),
    ("certificatesigningrequests.certificates.k8s.io", {
        "spec": {"signerName": "s/x", "username": "u", "expirationSeconds": 86400},
        "status": {"conditions": [{"type": "Approved"}], "certificate": "eA=="}}, "5m30s s/x u 24h Approved,Issued", ""),
    ("certificatesigningrequests.certificates.k8s.io", {"spec": {"signerName": "s/x", "username": "u"}},
     "5m30s s/x u <none> Pending", ""),
    ("runtimeclasses.node.k8s.io", {"handler": "h"}, "h 5m30s", ""),
    ("podtemplates", {"template": {"metadata": {"labels": {"a": "b"}}, "spec": MADE}}, "a,b one:1,two:2 a=b", ""),
    ("limitranges", {}, "5m30s", ""),
    ("events", {"involvedObject": {"kind": "Pod", "name": "p"}, "type": "Warning", "reason": "BackOff", "count": 3,
                "firstTimestamp": "2026-03-10T11:00:00Z", "lastTimestamp": "2026-03-10T11:58:00Z", "message": "no\n",
                "source": {"component": "kubelet", "host": "n1"}},
     "2m_(x3_over_60m) Warning BackOff pod/p no", "_ kubelet,_n1 60m 3 o"),
    ("events", {"involvedObject": {"kind": "Node", "name": "n"}, "eventTime": "2026-03-10T11:59:59.5Z",
                "reportingComponent": "c"}, "0s _ _ node/n _", "_ c 0s 1 o"),
]  # fmt: skip


def cells_of(kind: Kind, obj: JSON) -> tuple[list[str], list[str]]:
    full = obj | {"metadata": {"name": "o", "creationTimestamp": BORN} | obj.get("metadata", {})}
    made = tables.table(kind, [full], now=NOW)
    (row,) = made["rows"]
    assert len(row["cells"]) == len(made["columnDefinitions"])
    ordinary, wide = [], []
    for column, cell in zip(made["columnDefinitions"], row["cells"], strict=True):
        assert isinstance(cell, int) == (column["type"] == "integer"), column
        (wide if column["priority"] else ordinary).append(str(cell))
    return ordinary, wide


@pytest.mark.parametrize(
    ("resource", "obj", "ordinary", "wide"), ROWS, ids=lambda v: v if isinstance(v, str) else ""
)
def test_cells(resource: str, obj: JSON, ordinary: str, wide: str) -> None:
    seen, far = cells_of(KINDS[resource], obj)
    if resource not in ("events",):
        assert seen.pop(0) == "o"
    assert [c.replace(" ", "_") or "_" for c in seen] == ordinary.split()
    assert [c.replace(" ", "_") or "_" for c in far] == wide.split()


def test_every_kind_with_columns_of_its_own_is_in_the_rows() -> None:
    assert set(tables._PRINTERS) <= {r[0] for r in ROWS} | {"pods", "events.events.k8s.io"}
    assert set(tables._PRINTERS) <= set(KINDS)


def test_both_forms_of_an_event_make_the_same_row() -> None:
    one = {"involvedObject": {"kind": "Pod", "name": "p"}, "message": "m", "reason": "R", "type": "Normal"}
    two = {"regarding": {"kind": "Pod", "name": "p"}, "note": "m", "reason": "R", "type": "Normal"}
    times = {"lastTimestamp": BORN}, {"deprecatedLastTimestamp": BORN}
    assert cells_of(KINDS["events"], one | times[0]) == cells_of(
        KINDS["events.events.k8s.io"], two | times[1]
    )


def test_the_default_class_is_marked() -> None:
    kind = KINDS["storageclasses.storage.k8s.io"]
    marked = {"metadata": {"annotations": {f"{CLASS}/is-default-class": "true"}}}
    assert cells_of(kind, marked)[0][0] == "o (default)"


def running(name: str = "c", **more: Any) -> JSON:
    return {"name": name, "ready": True, "restartCount": 0, "state": {"running": {}}} | more


def waiting(reason: str, name: str = "c", **more: Any) -> JSON:
    return {"name": name, "restartCount": 0, "state": {"waiting": {"reason": reason}}} | more


def ended(code: int, reason: str = "", name: str = "c", **more: Any) -> JSON:
    return {
        "name": name,
        "restartCount": 0,
        "state": {"terminated": {"exitCode": code, "reason": reason}},
    } | more


READY = {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Initialized", "status": "True"}]}
GONE = {"lastState": {"terminated": {"finishedAt": "2026-03-10T11:55:00Z"}}}
ONE, TWO = [{"name": "c"}], [{"name": "c"}, {"name": "d"}]
SIDECAR = [{"name": "proxy", "restartPolicy": "Always"}]
PODS: list[tuple[str, JSON, JSON, JSON]] = [
    ("0/1 Pending 0", {"containers": ONE}, {"phase": "Pending"}, {}),
    ("1/1 Running 0", {"containers": ONE}, READY | {"phase": "Running", "containerStatuses": [running()]}, {}),
    ("0/1 ContainerCreating 0", {"containers": ONE},
     {"phase": "Pending", "containerStatuses": [waiting("ContainerCreating")]}, {}),
    ("1/2 CrashLoopBackOff 4_(5m_ago)", {"containers": TWO}, {"phase": "Running", "containerStatuses": [
        waiting("CrashLoopBackOff", restartCount=4, **GONE), running("d")]}, {}),
    ("0/1 ImagePullBackOff 0", {"containers": ONE},
     {"phase": "Pending", "containerStatuses": [waiting("ImagePullBackOff")]}, {}),
    ("0/1 Completed 0", {"containers": ONE},
     {"phase": "Succeeded", "containerStatuses": [ended(0, "Completed")]}, {}),
    ("0/1 Error 0", {"containers": ONE}, {"phase": "Failed", "containerStatuses": [ended(1, "Error")]}, {}),
    ("0/1 OOMKilled 0", {"containers": ONE}, {"phase": "Failed", "containerStatuses": [ended(137, "OOMKilled")]}, {}),
    ("0/1 ExitCode:3 0", {"containers": ONE}, {"phase": "Failed", "containerStatuses": [ended(3)]}, {}),
    ("0/1 Signal:9 0", {"containers": ONE}, {"phase": "Failed", "containerStatuses": [
        {"name": "c", "state": {"terminated": {"signal": 9}}}]}, {}),
    ("0/1 Evicted 0", {"containers": ONE}, {"phase": "Failed", "reason": "Evicted"}, {}),
    ("1/2 NotReady 0", {"containers": TWO},
     {"phase": "Running", "containerStatuses": [ended(0, "Completed"), running("d")]}, {}),
    ("1/2 Running 0", {"containers": TWO},
     READY | {"phase": "Running", "containerStatuses": [ended(0, "Completed"), running("d")]}, {}),
    ("0/1 SchedulingGated 0", {"containers": ONE}, {"phase": "Pending", "conditions": [
        {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]}, {}),
    ("0/1 Init:0/2 0", {"containers": ONE, "initContainers": [{"name": "i"}, {"name": "j"}]},
     {"phase": "Pending", "initContainerStatuses": [running("i", ready=False)]}, {}),
    ("0/1 Init:1/2 0", {"containers": ONE, "initContainers": [{"name": "i"}, {"name": "j"}]},
     {"phase": "Pending", "initContainerStatuses": [ended(0, "Completed", "i"), waiting("PodInitializing", "j")],
      "containerStatuses": [waiting("PodInitializing")]}, {}),
    ("0/1 PodInitializing 0", {"containers": ONE, "initContainers": [{"name": "i"}]},
     {"phase": "Pending", "initContainerStatuses": [ended(0, "Completed", "i")],
      "containerStatuses": [waiting("PodInitializing")]}, {}),
    ("0/1 Init:CrashLoopBackOff 2_(5m_ago)", {"containers": ONE, "initContainers": [{"name": "i"}]},
     {"phase": "Pending", "initContainerStatuses": [waiting("CrashLoopBackOff", "i", restartCount=2, **GONE)]}, {}),
    ("0/1 Init:Error 0", {"containers": ONE, "initContainers": [{"name": "i"}]},
     {"phase": "Failed", "initContainerStatuses": [ended(1, "Error", "i")]}, {}),
    ("0/1 Init:ExitCode:4 0", {"containers": ONE, "initContainers": [{"name": "i"}]},
     {"phase": "Failed", "initContainerStatuses": [ended(4, "", "i")]}, {}),
    ("1/2 PodInitializing 0", {"containers": ONE, "initContainers": SIDECAR},
     {"phase": "Pending", "initContainerStatuses": [running("proxy", started=True)],
      "containerStatuses": [waiting("PodInitializing")]}, {}),
    ("2/2 Running 3", {"containers": ONE, "initContainers": SIDECAR}, READY | {
        "phase": "Running", "initContainerStatuses": [running("proxy", started=True, restartCount=3)],
        "containerStatuses": [running()]}, {}),
    ("1/2 Running 1_(5m_ago)", {"containers": ONE, "initContainers": SIDECAR}, READY | {
        "phase": "Running", "initContainerStatuses": [waiting("CrashLoopBackOff", "proxy", restartCount=1, **GONE)],
        "containerStatuses": [running()]}, {}),
    ("1/1 Terminating 0", {"containers": ONE}, {"phase": "Running", "containerStatuses": [running()]},
     {"deletionTimestamp": BORN}),
    ("0/1 Completed 0", {"containers": ONE}, {"phase": "Succeeded", "containerStatuses": [ended(0, "Completed")]},
     {"deletionTimestamp": BORN}),
    ("0/1 Unknown 0", {"containers": ONE}, {"phase": "Running", "reason": "NodeLost"}, {"deletionTimestamp": BORN}),
    ("0/1 Unknown 0", {"containers": ONE}, {}, {}),
]  # fmt: skip


@pytest.mark.parametrize(("seen", "spec", "state", "meta"), PODS, ids=[p[0] for p in PODS])
def test_words_of_a_pod(seen: str, spec: JSON, state: JSON, meta: JSON) -> None:
    ordinary, wide = cells_of(KINDS["pods"], {"spec": spec, "status": state, "metadata": meta})
    assert [c.replace(" ", "_") for c in ordinary] == ["o", *seen.split(), "5m30s"]
    assert wide == ["<none>"] * 4


def test_wide_columns_of_a_pod() -> None:
    gates = [{"conditionType": "a"}, {"conditionType": "Ready"}]
    state = READY | {"podIP": "10.0.0.1", "nominatedNodeName": "m"}
    pod = {"spec": {"nodeName": "n", "readinessGates": gates}, "status": state}
    assert cells_of(KINDS["pods"], pod)[1] == ["10.0.0.1", "n", "m", "1/2"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (119, "119s"), (120, "2m"), (330, "5m30s"), (600, "10m"), (10799, "179m"), (10800, "3h"),
     (28740, "7h59m"), (28800, "8h"), (172799, "47h"), (172800, "2d"), (187200, "2d4h"), (691200, "8d"),
     (63072000, "2y"), (63936000, "2y10d"), (252288000, "8y"), (-1, "0s"), (-30, "<invalid>")],
)  # fmt: skip
def test_durations(seconds: int, text: str) -> None:
    assert human.duration(seconds) == text


def test_no_object_a_client_can_store_breaks_a_list() -> None:
    """Empty entries and texts that are no times: a row all the same."""
    empty: list[JSON] = [{}, {}]
    hostile = {
        "spec": {"containers": empty, "initContainers": empty, "ports": empty, "rules": empty, "metrics": empty,
                 "readinessGates": empty, "selector": {}, "podSelector": {"matchExpressions": empty}},
        "status": {"conditions": empty, "containerStatuses": empty, "initContainerStatuses": empty, "addresses": empty,
                   "loadBalancer": {"ingress": empty}, "startTime": "soon", "completionTime": "late"},
        "subsets": empty, "endpoints": empty, "ports": empty, "subjects": empty, "webhooks": empty,
        "firstTimestamp": "x", "lastTimestamp": "2026-03-10", "roleRef": {},
        "metadata": {"name": "o", "creationTimestamp": "then", "ownerReferences": empty},
    }  # fmt: skip
    for kind in KINDS.values():
        for obj in (
            hostile,
            {"metadata": {"name": "o"}},
            {"metadata": {"name": "o"}, "spec": None, "status": None},
        ):
            made = tables.table(kind, [obj], now=NOW)
            assert len(made["rows"][0]["cells"]) == len(made["columnDefinitions"]), kind.plural


def test_what_a_row_carries() -> None:
    obj = {"metadata": {"name": "o"}, "data": {}}
    kind = KINDS["configmaps"]
    assert tables.table(kind, [obj], now=NOW, include_object="Object")["rows"][0]["object"] == obj
    assert "object" not in tables.table(kind, [obj], now=NOW, include_object="None")["rows"][0]
    carried = tables.table(kind, [obj], now=NOW)["rows"][0]["object"]
    assert carried == {
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {"name": "o"},
    }


@pytest.mark.parametrize(
    ("kind", "path", "cell"),
    [("string", ".spec.s", "x"), ("string", ".spec.o", '{"a":[1]}'), ("string", ".spec.l[*].n", '["p","q"]'),
     ("string", ".spec.none", None), ("integer", ".spec.i", 7), ("integer", ".spec.s", None),
     ("number", ".spec.f", 1.5), ("boolean", ".spec.b", True), ("boolean", ".spec.i", None), ("integer", ".spec.b", None),
     ("date", ".metadata.creationTimestamp", "5m30s"), ("date", ".spec.s", "<invalid>"), ("date", ".spec.i", "<invalid>"),
     ("date", ".spec.day", "36h"), ("date", ".spec.none", None),
     ("string", '.spec.l[?(@.n=="q")].v', "2")],
)  # fmt: skip
def test_columns_of_a_definition(kind: str, path: str, cell: Any) -> None:
    spec = {
        "s": "x",
        "o": {"a": [1]},
        "l": [{"n": "p", "v": 1}, {"n": "q", "v": 2}],
        "i": 7,
        "f": 1.5,
        "b": True,
    }
    obj = {"metadata": {"name": "o", "creationTimestamp": BORN}, "spec": spec | {"day": "2026-03-09"}}
    made = custom.printer_of(({"name": "C", "type": kind, "jsonPath": path, "priority": 1},))
    assert [c.name for c in made.columns] == ["Name", "C"]
    assert made.columns[1].priority == 1
    assert made.cells(obj, NOW) == ["o", cell]
