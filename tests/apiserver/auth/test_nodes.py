"""A kubelet reaches what its own pods need, and nothing of another node. Over TLS, with the kubelets' certificates."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from pervade.testing.guarded import Guarded

MERGE = "application/merge-patch+json"
JSON = dict[str, Any]
ONE, TWO = "kubelet-node-1", "kubelet-node-2"


class Home:
    """Two nodes, a pod on each; `web` on node-1 refers to every kind of thing that starts with `web-`."""

    def __init__(self, server: Guarded) -> None:
        self.server, self.namespace = server, f"ns-{uuid.uuid4().hex[:8]}"
        self.path = f"/api/v1/namespaces/{self.namespace}"
        self.admin("POST", "/api/v1/namespaces", {"metadata": {"name": self.namespace}})
        for node in ("node-1", "node-2"):
            made = server.call("admin", "POST", "/api/v1/nodes", {"metadata": {"name": node}})
            assert made.status in (201, 409), made.body
        for plural in ("secrets", "configmaps"):
            for name in ("web-volume", "web-projected", "web-env", "web-all", "web-pull", "other"):
                self.admin("POST", f"{self.path}/{plural}", {"metadata": {"name": name}})
        for account in ("robot", "other"):
            self.admin("POST", f"{self.path}/serviceaccounts", {"metadata": {"name": account}})
        env = [
            {"name": "A", "valueFrom": {"secretKeyRef": {"name": "web-env", "key": "a"}}},
            {"name": "B", "valueFrom": {"configMapKeyRef": {"name": "web-env", "key": "a"}}},
        ]
        whole = [{"secretRef": {"name": "web-all"}}, {"configMapRef": {"name": "web-all"}}]
        sources = [
            {"secret": {"name": "web-projected"}},
            {"configMap": {"name": "web-projected"}},
            {"serviceAccountToken": {"path": "t", "audience": "ca"}},
        ]
        spec = {
            "serviceAccountName": "robot",
            "nodeName": "node-1",
            "imagePullSecrets": [{"name": "web-pull"}],
            "containers": [{"name": "c", "image": "i", "env": env, "envFrom": whole}],
            "volumes": [
                {"name": "s", "secret": {"secretName": "web-volume"}},
                {"name": "c", "configMap": {"name": "web-volume"}},
                {"name": "p", "projected": {"sources": sources}},
            ],
        }
        self.pod = self.admin("POST", f"{self.path}/pods", {"metadata": {"name": "web"}, "spec": spec})
        plain = {
            "nodeName": "node-2",
            "serviceAccountName": "other",
            "containers": [{"name": "c", "image": "i"}],
        }
        self.far = self.admin("POST", f"{self.path}/pods", {"metadata": {"name": "far"}, "spec": plain})

    def admin(self, method: str, path: str, body: Any = None) -> JSON:
        done = self.server.call("admin", method, path, body)
        assert done.status in (200, 201), done.body
        found: JSON = done.body
        return found

    def status(self, who: str, method: str, path: str, body: Any = None) -> int:
        kind = MERGE if method == "PATCH" else ""
        return self.server.call(who, method, path, body, content_type=kind).status


@pytest.fixture
def home(guarded: Guarded) -> Home:
    return Home(guarded)


@pytest.mark.parametrize("plural", ["secrets", "configmaps"])
def test_contents_of_its_own_pods_only(home: Home, plural: str) -> None:
    path = f"{home.path}/{plural}"
    referred = ["web-volume", "web-projected", "web-env", "web-all"] + (
        ["web-pull"] if plural == "secrets" else []
    )
    for name in referred:
        assert home.status(ONE, "GET", f"{path}/{name}") == 200, name
        assert home.status(TWO, "GET", f"{path}/{name}") == 403, name
    assert home.status(ONE, "GET", f"{path}/other") == 403
    assert home.status(ONE, "GET", path) == 403 and home.status(ONE, "GET", f"/api/v1/{plural}") == 403
    assert home.status(ONE, "DELETE", f"{path}/web-volume") == 403
    assert home.status(ONE, "PATCH", f"{path}/web-volume", {"data": {}}) == 403
    refused = home.server.call(TWO, "GET", f"{path}/web-env").body["message"]
    assert "no relationship found between node 'node-2' and this object" in refused


def test_the_end_of_the_pod_ends_the_right(home: Home) -> None:
    assert home.status(ONE, "GET", f"{home.path}/secrets/web-env") == 200
    home.admin("DELETE", f"{home.path}/pods/web", {"gracePeriodSeconds": 0})
    assert home.status(ONE, "GET", f"{home.path}/secrets/web-env") == 403


def test_pods(home: Home) -> None:
    pods = f"{home.path}/pods"
    assert home.status(ONE, "GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Dnode-1") == 200
    for query in (
        "",
        "?fieldSelector=spec.nodeName%3Dnode-2",
        "?fieldSelector=spec.nodeName!%3Dnode-1",
        "?watch=true",
    ):
        assert home.status(ONE, "GET", f"/api/v1/pods{query}") == 403, query
    assert home.status(ONE, "GET", f"{pods}/web") == 200 and home.status(ONE, "GET", f"{pods}/far") == 403
    running: JSON = {"status": {"phase": "Running"}}
    assert home.status(ONE, "PATCH", f"{pods}/web/status", running) == 200
    assert home.status(ONE, "PATCH", f"{pods}/far/status", running) == 403
    labelled = running | {"metadata": {"labels": {"app": "another"}}}
    assert home.status(ONE, "PATCH", f"{pods}/web/status", labelled) == 403
    assert home.status(ONE, "PATCH", f"{pods}/web", {"metadata": {"labels": {"a": "b"}}}) == 403
    made = {
        "metadata": {"name": "new"},
        "spec": {"nodeName": "node-1", "containers": [{"name": "c", "image": "i"}]},
    }
    assert home.status(ONE, "POST", pods, made) == 403
    for part in ("exec?command=sh", "attach", "portforward", "log"):
        assert home.status(ONE, "GET", f"{pods}/web/{part}") == 403, part
    assert home.status(ONE, "POST", f"{pods}/far/eviction", {"metadata": {"name": "far"}}) == 403
    assert home.status(ONE, "DELETE", f"{pods}/far") == 403 and home.status(ONE, "DELETE", pods) == 403
    assert home.status(ONE, "DELETE", f"{pods}/web?gracePeriodSeconds=0") == 200
    # What is gone is not found: a kubelet that asks again must not take it for a lost right.
    assert home.status(ONE, "PATCH", f"{pods}/web/status", running) == 404
    assert home.status(ONE, "DELETE", f"{pods}/web") == 404 and home.status(ONE, "GET", f"{pods}/web") == 404


def test_its_own_node_and_lease(home: Home) -> None:
    nodes, leases = "/api/v1/nodes", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
    ready = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    assert home.status(ONE, "GET", nodes) == 200
    assert home.status(ONE, "PATCH", f"{nodes}/node-1/status", ready) == 200
    assert home.status(ONE, "PATCH", f"{nodes}/node-2/status", ready) == 403
    assert home.status(ONE, "DELETE", f"{nodes}/node-2") == 403
    assert home.status(ONE, "POST", nodes, {"metadata": {"name": "node-3"}}) == 403
    for label, status in {
        "topology.kubernetes.io/zone": 200,
        "kubernetes.io/hostname": 200,
        "example.com/mine": 200,
        "plain": 200,
        "node.kubernetes.io/x": 200,
        "node-restriction.kubernetes.io/secure": 403,
        "kubernetes.io/other": 403,
        "node-role.kubernetes.io/control-plane": 403,
        "x.k8s.io/y": 403,
    }.items():
        body = {"metadata": {"labels": {label: "v"}}}
        assert home.status(ONE, "PATCH", f"{nodes}/node-1", body) == status, label
    taint = [{"key": "a", "effect": "NoSchedule"}]
    assert home.status(ONE, "PATCH", f"{nodes}/node-1", {"spec": {"taints": taint}}) == 403
    owner = [{"apiVersion": "v1", "kind": "Pod", "name": "web", "uid": "u"}]
    assert home.status(ONE, "PATCH", f"{nodes}/node-1", {"metadata": {"ownerReferences": owner}}) == 403
    lease: JSON = {"metadata": {"name": "node-1"}, "spec": {"holderIdentity": "node-1"}}
    assert home.status(ONE, "POST", leases, lease) in (201, 409)
    assert home.status(ONE, "POST", leases, {"metadata": {"name": "node-2"}}) == 403
    assert home.status(ONE, "POST", leases, {"metadata": {"generateName": "node-1"}}) == 403
    assert home.status(ONE, "PATCH", f"{leases}/node-1", {"spec": {"leaseDurationSeconds": 40}}) == 200
    assert home.status(TWO, "PATCH", f"{leases}/node-1", {"spec": {"leaseDurationSeconds": 41}}) == 403
    assert home.status(ONE, "GET", leases) == 403
    elsewhere = leases.replace("kube-node-lease", home.namespace)
    assert home.status(ONE, "POST", elsewhere, lease) == 403


def test_tokens_only_for_its_pods_and_bound_to_them(home: Home) -> None:
    path = f"{home.path}/serviceaccounts/robot/token"
    ref = {"apiVersion": "v1", "kind": "Pod", "name": "web", "uid": home.pod["metadata"]["uid"]}
    other = {"apiVersion": "v1", "kind": "Pod", "name": "far", "uid": home.far["metadata"]["uid"]}
    own = {"apiVersion": "v1", "kind": "Node", "name": "node-1"}

    def ask(who: str, account: str = "robot", **spec: Any) -> int:
        return home.status(who, "POST", path.replace("robot", account), {"spec": spec})

    # The default audience is that of the volume which admission adds to every pod.
    assert ask(ONE, boundObjectRef=ref) == 201
    assert ask(ONE, boundObjectRef=ref, audiences=["ca"]) == 201
    assert ask(ONE, boundObjectRef=ref, audiences=["elsewhere"]) == 403
    assert ask(ONE) == 403 and ask(ONE, boundObjectRef=own) == 403
    assert ask(ONE, boundObjectRef=other) == 403 and ask(ONE, "other", boundObjectRef=other) == 403
    assert ask(ONE, "other", boundObjectRef=ref) == 403 and ask(TWO, boundObjectRef=ref) == 403
    assert ask(TWO, "other", boundObjectRef=other) == 201


def test_what_a_node_needs_of_everyones(home: Home) -> None:
    for path in (
        "/api/v1/services",
        "/apis/discovery.k8s.io/v1/endpointslices",
        "/apis/node.k8s.io/v1/runtimeclasses",
    ):
        assert home.status(ONE, "GET", path) == 200, path
    event = {
        "metadata": {"generateName": "e."},
        "involvedObject": {"namespace": home.namespace, "name": "web"},
    }
    assert home.status(ONE, "POST", f"{home.path}/events", event) == 201
    for path in ("/api/v1/namespaces", "/apis/apps/v1/deployments", "/metrics", "/debug/store", "/apis/rbac.authorization.k8s.io/v1/roles"):  # fmt: skip
        assert home.status(ONE, "GET", path) == 403, path
    assert home.status(ONE, "DELETE", f"{home.path}/services/none") == 403


def test_the_service_rules_of_a_node_see_services_and_no_secrets(home: Home) -> None:
    assert home.status("services-node-1", "GET", "/api/v1/services") == 200
    assert home.status("services-node-1", "GET", "/apis/discovery.k8s.io/v1/endpointslices") == 200
    assert home.status("services-node-1", "GET", "/api/v1/pods") == 403
    assert home.status("services-node-1", "GET", f"{home.path}/secrets/web-env") == 403


def test_controllers_write_everywhere_and_yet_give_nobody_rights(home: Home) -> None:
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    assert home.status("controllers", "DELETE", f"{home.path}/secrets/other") == 200
    assert home.status("controllers", "POST", f"{home.path}/secrets", {"metadata": {"name": "x"}}) == 403
    grant = {"subjects": [{"kind": "User", "name": "system:kube-controller-manager"}]}
    assert home.status("controllers", "PATCH", f"{rbac}/clusterrolebindings/cluster-admin", grant) == 403
    everything = {"rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]}
    assert home.status("controllers", "PATCH", f"{rbac}/clusterroles/system:basic-user", everything) == 403
