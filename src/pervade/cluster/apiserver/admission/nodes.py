"""NodeRestriction: what a kubelet may not write even into objects that are its own. Pure.

A stolen node must not be able to draw pods to itself, claim another node's identity, or get tokens of
accounts that none of its pods uses. Source: Kubernetes, "Admission Controllers", NodeRestriction.
"""

from __future__ import annotations

from collections.abc import Iterable

from pervade.cluster.apiserver.kinds.kind import JSON

_LABELS = frozenset(
    {
        "kubernetes.io/hostname", "kubernetes.io/os", "kubernetes.io/arch", "beta.kubernetes.io/os", "beta.kubernetes.io/arch",
        "beta.kubernetes.io/instance-type", "node.kubernetes.io/instance-type", "topology.kubernetes.io/zone", "topology.kubernetes.io/region",
        "failure-domain.beta.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/region",
    }
)  # fmt: skip
_PREFIXES = ("kubelet.kubernetes.io/", "node.kubernetes.io/")
_POD_STATUS_KEPT = ("labels", "ownerReferences")


def refusal(
    node: str, table: str, subresource: str, operation: str, new: JSON | None, old: JSON | None
) -> str:
    """Why the kubelet of `node` may not do this; "" when it may. O(labels)."""
    name = (new or old or {}).get("metadata", {}).get("name", "")
    if table == "/nodes":
        if name != node:
            return f"node {node!r} is not allowed to modify node {name!r}"
        return "" if new is None else _node(node, new, old)
    if table == "coordination.k8s.io/leases" and name != node:
        return f"node {node!r} is not allowed to modify the lease {name!r}"
    if table == "/pods" and operation == "CREATE":
        return f"node {node!r} is not allowed to create pods"
    if table == "/pods" and ((old or {}).get("spec") or {}).get("nodeName") != node:
        return f"node {node!r} can only change pods with spec.nodeName set to itself"
    if table == "/pods" and subresource == "status" and new is not None and old is not None:
        for field in _POD_STATUS_KEPT:
            if new["metadata"].get(field) != old["metadata"].get(field):
                return f"node {node!r} cannot update {field} through pod status"
    return ""


def _node(node: str, new: JSON, old: JSON | None) -> str:
    meta, before = new["metadata"], (old or {}).get("metadata") or {}
    if (new["metadata"].get("ownerReferences") or []) != (before.get("ownerReferences") or []):
        return f"node {node!r} is not allowed to set ownerReferences"
    taints, earlier = ((o.get("spec") or {}).get("taints") or [] for o in (new, old or {}))
    if old is not None and taints != earlier:
        return f"node {node!r} is not allowed to modify taints"
    held = before.get("labels") or {}
    given = meta.get("labels") or {}
    bad = sorted(k for k in {*held, *given} if held.get(k) != given.get(k) and not _own_label(k))
    if bad:
        return f"is not allowed to modify labels: {', '.join(bad)}"
    return ""


def _own_label(key: str) -> bool:
    domain, slash, _ = key.partition("/")
    if not slash:
        return True
    if domain == "node-restriction.kubernetes.io" or domain.endswith(".node-restriction.kubernetes.io"):
        return False
    kubernetes = any(domain == d or domain.endswith(f".{d}") for d in ("kubernetes.io", "k8s.io"))
    return (
        not kubernetes
        or key in _LABELS
        or any(f"{domain}/" == p or domain.endswith(f".{p[:-1]}") for p in _PREFIXES)
    )


def token_refusal(node: str, account: str, pod: JSON | None, audiences: Iterable[str], issuer: str) -> str:
    """Why the kubelet of `node` may not have a token of `account` bound to `pod` (None: bound to no pod)."""
    if pod is None:
        return f"node {node!r} may only request tokens that are bound to a pod"
    spec = pod.get("spec") or {}
    if spec.get("nodeName") != node:
        return f"node {node!r} requested a token bound to a pod scheduled on a different node"
    if (spec.get("serviceAccountName") or "default") != account:
        return f"node {node!r} requested a token for a service account that the pod does not use"
    wanted = {
        str((s.get("serviceAccountToken") or {}).get("audience") or issuer)
        for v in spec.get("volumes") or ()
        for s in (v.get("projected") or {}).get("sources") or ()
        if "serviceAccountToken" in s
    }
    if extra := sorted(set(audiences) - wanted):
        return f"audience {extra[0]!r} not found in the pod's volumes"
    return ""
