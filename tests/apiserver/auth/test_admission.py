"""Admission on the guarded server: bad types do not get past it as errors of ours, and priority is not for the asking."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from pervade.testing.guarded import Guarded

PODS = "/api/v1/namespaces/default/pods"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
WRONG = [None, 5, "x", [], [1], {}, {"a": 1}, True, [None], [{}]]
_CONTAINER = {"name": "c", "image": "i", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}
_SPEC = {
    "containers": [_CONTAINER],
    "initContainers": [_CONTAINER],
    "tolerations": [{"key": "a"}],
    "volumes": [{"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}],
    "serviceAccountName": "default",
    "priorityClassName": "system-node-critical",
    "imagePullSecrets": [{"name": "s"}],
}
_RULE = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"], "resourceNames": ["x"]}
SAMPLES: dict[str, Any] = {
    PODS: {"metadata": {"name": "x"}, "spec": _SPEC},
    f"{RBAC}/clusterroles": {
        "metadata": {"name": "x"},
        "rules": [_RULE, {"nonResourceURLs": ["/x"], "verbs": ["get"]}],
        "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]},
    },
    f"{RBAC}/namespaces/default/rolebindings": {
        "metadata": {"name": "x"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "u"}],
    },
    "/api/v1/nodes": {"metadata": {"name": "node-1", "labels": {"a": "b"}, "ownerReferences": []}, "spec": {"taints": [{"key": "a"}]}},
    "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases": {"metadata": {"name": "node-1"}, "spec": {"holderIdentity": "x"}},
    "/api/v1/namespaces/default/serviceaccounts/default/token": {
        "spec": {"audiences": ["a"], "expirationSeconds": 600, "boundObjectRef": {"kind": "Pod", "name": "x", "uid": "u"}}
    },
}  # fmt: skip
AUTHOR = {"Impersonate-User": "author", "Impersonate-Group": "author"}
KUBELET = {"Impersonate-User": "system:node:node-1", "Impersonate-Group": "system:nodes"}


def places(obj: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    inner = obj.items() if isinstance(obj, dict) else enumerate(obj) if isinstance(obj, list) else ()
    for key, value in inner:
        yield from places(value, (*path, key))


def with_value(obj: Any, path: tuple[Any, ...], value: Any) -> Any:
    made = msgspec.json.decode(msgspec.json.encode(obj))
    at = made
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return made


@pytest.fixture(scope="module")
def author(guarded: Guarded) -> None:
    """A user who may write roles, bindings and pods, and nothing beyond."""
    group = "rbac.authorization.k8s.io"
    account = {"metadata": {"name": "default"}}
    made = guarded.call("admin", "POST", "/api/v1/namespaces/default/serviceaccounts", account)
    assert made.status in (201, 409), made.body
    rules = [{"apiGroups": ["", group], "resources": ["clusterroles", "rolebindings", "pods", "serviceaccounts/token"], "verbs": ["create"]}]  # fmt: skip
    role = {"metadata": {"name": "author"}, "rules": rules}
    binding = {
        "metadata": {"name": "author"},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "author"},
        "subjects": [{"apiGroup": group, "kind": "Group", "name": "author"}],
    }
    for plural, body in (("clusterroles", role), ("clusterrolebindings", binding)):
        made = guarded.call("admin", "POST", f"{RBAC}/{plural}", body)
        assert made.status in (201, 409), made.body


@pytest.mark.usefixtures("author")
@pytest.mark.parametrize("path", SAMPLES)
def test_no_wrong_type_is_an_error_of_ours(guarded: Guarded, path: str) -> None:
    """Every value of a sample is replaced by others; as an ordinary author and as a kubelet, never 5xx."""
    who = KUBELET if path.endswith(("nodes", "leases")) else AUTHOR
    bad, seen = [], set()
    for place in places(SAMPLES[path]):
        for value in WRONG:
            body = with_value(SAMPLES[path], place, value)
            answer = guarded.call("admin", "POST", f"{path}?dryRun=All", body, **who)
            seen.add(answer.status)
            if answer.status >= 500:
                bad.append((place, value, answer.body))
    assert not bad and len(seen) > 1


def test_a_priority_is_what_its_class_says(guarded: Guarded, author: None) -> None:
    spec = {"containers": [{"name": "c", "image": "i"}]}

    def make(**more: Any) -> Any:
        body = {"metadata": {"generateName": "p-"}, "spec": spec | more}
        return guarded.call("admin", "POST", f"{PODS}?dryRun=All", body)

    assert make().body["spec"]["priority"] == 0
    assert make(priorityClassName="system-node-critical").body["spec"]["priority"] == 2_000_001_000
    assert make(priorityClassName="system-node-critical", priority=2_000_001_000).status == 201
    for more in ({"priority": 2_000_000_000}, {"priority": 5, "priorityClassName": "system-node-critical"}, {"preemptionPolicy": "Never"}):  # fmt: skip
        refused = make(**more)
        assert (refused.status, refused.body["reason"]) == (403, "Forbidden"), refused.body
    assert make(priorityClassName="none").status == 403


def test_a_pod_gets_its_accounts_token_or_not(guarded: Guarded, author: None) -> None:
    spec = {"containers": [{"name": "c", "image": "i"}]}
    made = guarded.call(
        "admin", "POST", f"{PODS}?dryRun=All", {"metadata": {"generateName": "p-"}, "spec": spec}
    )
    (mount,) = made.body["spec"]["containers"][0]["volumeMounts"]
    assert mount["mountPath"] == "/var/run/secrets/kubernetes.io/serviceaccount" and mount["readOnly"]
    (volume,) = made.body["spec"]["volumes"]
    assert volume["projected"]["sources"][0]["serviceAccountToken"]["expirationSeconds"] == 3607
    spec["automountServiceAccountToken"] = False  # type: ignore[assignment]
    bare = guarded.call(
        "admin", "POST", f"{PODS}?dryRun=All", {"metadata": {"generateName": "p-"}, "spec": spec}
    )
    assert "volumes" not in bare.body["spec"]
    # An account that nobody makes is waited for a moment, then said.
    spec["serviceAccountName"] = "none"  # type: ignore[assignment]
    refused = guarded.call(
        "admin", "POST", f"{PODS}?dryRun=All", {"metadata": {"generateName": "p-"}, "spec": spec}
    )
    assert refused.status == 403 and 'serviceaccount "none" not found' in refused.body["message"]
