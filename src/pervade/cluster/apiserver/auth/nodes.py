"""What a kubelet may do: its own Node and Lease, its pods, and what those pods refer to. Nothing of another node.

Answers for callers `system:node:NAME` of the group system:nodes; everyone else's rights are roles. What
depends on the content of a write is `admission.nodes`. Source: Kubernetes, "Using Node Authorization".
"""

from __future__ import annotations

from collections.abc import Iterator

from pervade.cluster.apiserver.auth.user import User
from pervade.cluster.apiserver.kinds.kind import JSON
from pervade.cluster.apiserver.rest import present
from pervade.cluster.apiserver.rest.info import Info
from pervade.cluster.apiserver.store.log import Entry
from pervade.cluster.apiserver.store.state import State

GROUP, PREFIX = "system:nodes", "system:node:"
LEASES = "kube-node-lease"
_READ = frozenset({"get", "list", "watch"})
_FREE: dict[tuple[str, str], frozenset[str]] = {
    ("", "services"): _READ,
    ("", "nodes"): frozenset({"create", *_READ}),
    ("", "events"): frozenset({"create", "patch", "update"}),
    ("events.k8s.io", "events"): frozenset({"create", "patch", "update"}),
    ("discovery.k8s.io", "endpointslices"): _READ,
    ("node.k8s.io", "runtimeclasses"): _READ,
    ("authentication.k8s.io", "tokenreviews"): frozenset({"create"}),
    ("authorization.k8s.io", "subjectaccessreviews"): frozenset({"create"}),
    ("authorization.k8s.io", "localsubjectaccessreviews"): frozenset({"create"}),
    ("certificates.k8s.io", "certificatesigningrequests"): frozenset({"create", *_READ}),
}
"""Allowed whatever the object is: its name says nothing, or everyone on the node sees it anyway."""
_WRITES = frozenset({"patch", "update"})
_ENV_SOURCES = {"secrets": ("secretKeyRef", "secretRef"), "configmaps": ("configMapKeyRef", "configMapRef")}


def name_of(user: User) -> str | None:
    """The node that a caller is the kubelet of; None for everyone else."""
    if GROUP not in user.groups or not user.name.startswith(PREFIX):
        return None
    return user.name.removeprefix(PREFIX) or None


def references(pod: JSON, plural: str) -> Iterator[str]:
    """Names of the Secrets, ConfigMaps or ServiceAccount that a pod refers to. Pure."""
    spec = pod.get("spec") or {}
    if plural == "serviceaccounts":
        yield str(spec.get("serviceAccountName") or "default")
        return
    kind, named = ("secret", "secretName") if plural == "secrets" else ("configMap", "name")
    if plural == "secrets":
        yield from (str(one.get("name")) for one in spec.get("imagePullSecrets") or ())
    for volume in spec.get("volumes") or ():
        if kind in volume:
            yield str((volume[kind] or {}).get(named))
        for source in (volume.get("projected") or {}).get("sources") or ():
            if kind in source:
                yield str((source[kind] or {}).get("name"))
    key, whole = _ENV_SOURCES[plural]
    for group in ("initContainers", "containers", "ephemeralContainers"):
        for container in spec.get(group) or ():
            for one in container.get("env") or ():
                yield str(((one.get("valueFrom") or {}).get(key) or {}).get("name"))
            for one in container.get("envFrom") or ():
                yield str((one.get(whole) or {}).get("name"))


class Nodes:
    """`refuse(node, info)`: None when the kubelet of `node` may, else why not."""

    def __init__(self, state: State) -> None:
        self.state = state

    def refuse(self, node: str, info: Info) -> str | None:
        """O(1); for Secrets, ConfigMaps and accounts O(pods), a byte search in each."""
        if not info.resource:
            return ""
        what = f"{info.resource}/{info.subresource}" if info.subresource else info.resource
        if info.verb in _FREE.get((info.group, what), ()):
            return None
        match (info.group, what):
            case ("", "nodes" | "nodes/status"):
                mine = info.name == node and info.verb in (*_WRITES, "delete")
                return None if mine else f"node {node!r} cannot {info.verb} other nodes"
            case ("coordination.k8s.io", "leases"):
                return self._lease(node, info)
            case ("", "pods" | "pods/status" | "pods/eviction"):
                return self._pod(node, info, what)
            case ("", "secrets" | "configmaps" | "serviceaccounts" | "serviceaccounts/token"):
                verbs = ("create",) if info.subresource else _READ
                if info.verb not in verbs:
                    return f"can only read resources of this type, node {node!r} cannot {info.verb}"
                if not info.name:
                    return f"No Object name found, node {node!r} cannot {info.verb} all of them"
                if self._refers(node, info):
                    return None
                return f"no relationship found between node {node!r} and this object"
        return ""

    def _lease(self, node: str, info: Info) -> str | None:
        if info.namespace != LEASES:
            return f"can only access leases in the {LEASES!r} namespace"
        # A creation names its object in the body: admission looks at it.
        if info.verb == "create" or (info.name == node and info.verb in ("get", "delete", *_WRITES)):
            return None
        return f"can only access the node lease with the same name as the requesting node, {node!r}"

    def _pod(self, node: str, info: Info, what: str) -> str | None:
        if what == "pods" and info.verb in ("list", "watch") and not info.name:
            if f"spec.nodeName={node}" in info.fields.replace("==", "=").split(","):
                return None
            return f"can only list/watch pods with spec.nodeName={node} field selector"
        verbs = {"pods": ("get", "watch", "delete"), "pods/status": ("get", *_WRITES)}.get(what, ("create",))
        if info.verb not in verbs:
            return f"node {node!r} cannot {info.verb} {what}"
        entry = self.state.latest("/pods", info.namespace, info.name)
        # A pod that is gone is 404, not 403: the kubelet must learn that it has nothing left to report.
        if entry is None or _bound(entry, node) is not None:
            return None
        return f"no relationship found between node {node!r} and this object"

    def _refers(self, node: str, info: Info) -> bool:
        name = f'"{info.name}"'.encode()
        for entry in self.state.entries("/pods"):
            if entry.namespace != info.namespace or (
                name not in entry.value and info.resource != "serviceaccounts"
            ):
                continue
            pod = _bound(entry, node)
            if pod is not None and info.name in references(pod, info.resource):
                return True
        return False


def _bound(entry: Entry, node: str) -> JSON | None:
    """The pod, when it is bound to `node`."""
    if f'"nodeName":"{node}"'.encode() not in entry.value:
        return None
    pod: JSON = present.parse(entry.value)
    return pod if (pod.get("spec") or {}).get("nodeName") == node else None
