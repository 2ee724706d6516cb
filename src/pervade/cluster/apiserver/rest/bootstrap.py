"""Objects every cluster has before anyone asks: namespaces, the Service of the API itself, priority classes.

Made through the ordinary write path, as the server itself; what exists is left alone, except the
endpoints of the API, which follow the plan.
"""

from __future__ import annotations

from pervade.cluster.apiserver.kinds.kind import JSON
from pervade.cluster.apiserver.rest import present, write
from pervade.cluster.apiserver.rest.context import RESERVED_NAMESPACES, Api, Request
from pervade.cluster.apiserver.rest.info import Info
from pervade.cluster.apiserver.rest.status import StatusError

_PRIORITIES = (("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000))


async def put(
    api: Api, user: object, plural: str, obj: JSON, *, group: str = "", replace: bool = False
) -> None:
    """Create `obj` unless it is there; `replace` makes an existing one equal to it."""
    version = obj["apiVersion"].rpartition("/")[2]
    kind = api.registry.find(group, version, plural)
    if kind is None:
        raise LookupError(f"{plural}.{group} is not served")
    meta = obj["metadata"]
    info = Info("", "create", group, version, plural, meta.get("namespace", ""), "")
    request = Request(info, kind, {}, user, user_agent="pervade-apiserver")
    entry = api.state.latest(kind.table, meta.get("namespace", ""), meta["name"])
    if entry is None:
        try:
            await write.create(api, request, obj)
        except StatusError as error:
            if error.reason != "AlreadyExists":
                raise
    elif replace:
        old = present.parse(entry.value)
        keys = [k for k in obj if k not in ("metadata", "kind", "apiVersion")]
        if any(old.get(k) != obj[k] for k in keys):
            request.info = Info("", "update", group, version, plural, meta.get("namespace", ""), meta["name"])
            await write.modify(api, request, lambda now: now | {k: obj[k] for k in keys})


async def bootstrap(api: Api, user: object, *, address: str | None, service_ip: str | None) -> None:
    """All of it; `address` is where pods reach the API (None: no Service for it)."""
    for name in RESERVED_NAMESPACES:
        await put(
            api, user, "namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        )
    for name, value in _PRIORITIES:
        body = {
            "apiVersion": "scheduling.k8s.io/v1",
            "kind": "PriorityClass",
            "metadata": {"name": name},
            "value": value,
            "preemptionPolicy": "PreemptLowerPriority",
            "description": "Used for system critical pods that must run in the cluster.",
        }
        await put(api, user, "priorityclasses", body, group="scheduling.k8s.io")
    if address is None or service_ip is None:
        return
    labels = {"component": "apiserver", "provider": "kubernetes"}
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": labels},
        "spec": {
            "type": "ClusterIP",
            "clusterIP": service_ip,
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": 6443}],
        },
    }
    await put(api, user, "services", service)
    endpoints = {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {
            "name": "kubernetes",
            "namespace": "default",
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"},
        },
        "subsets": [
            {"addresses": [{"ip": address}], "ports": [{"name": "https", "port": 6443, "protocol": "TCP"}]}
        ],
    }
    await put(api, user, "endpoints", endpoints, replace=True)
    slices = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "kubernetes",
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": "kubernetes"},
        },
        "addressType": "IPv6" if ":" in address else "IPv4",
        "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
        "ports": [{"name": "https", "port": 6443, "protocol": "TCP"}],
    }
    await put(api, user, "endpointslices", slices, group="discovery.k8s.io", replace=True)
