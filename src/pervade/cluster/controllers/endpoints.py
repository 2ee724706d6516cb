"""EndpointSlices (and Endpoints) of Services with a selector.

Pure `slice_of`; the rim writes only what changed. One slice per family and 100 endpoints, named
`SERVICE-FAMILYn` so that a restart finds its own.
"""

from __future__ import annotations

import ipaddress
from typing import Any

from pervade.cluster.controllers import objects as ob
from pervade.cluster.controllers.hub import Hub
from pervade.cluster.controllers.objects import JSON
from pervade.cluster.controllers.queue import WorkQueue
from pervade.kube.errors import ApiError
from pervade.kube.resources import ENDPOINT_SLICES, ENDPOINTS, NODES, PODS, SERVICES

_MANAGER = "endpointslice-controller.k8s.io"
_MOST = 100


def port_of(pod: JSON, port: JSON) -> int | None:
    """The number of a service's target port in one pod; None when the pod has no port of that name."""
    target = port.get("targetPort", port["port"])
    if isinstance(target, int):
        return target
    for container in [*pod["spec"]["containers"], *(pod["spec"].get("initContainers") or ())]:
        for one in container.get("ports") or ():
            if one.get("name") == target and one.get("protocol", "TCP") == port.get("protocol", "TCP"):
                return int(one["containerPort"])
    return None


def endpoint_of(pod: JSON, address: str, service: JSON, zones: dict[str, str]) -> JSON:
    """One endpoint of a slice."""
    serving, ending = ob.ready(pod), ob.terminating(pod)
    publish = bool(service["spec"].get("publishNotReadyAddresses"))
    out: JSON = {
        "addresses": [address],
        "conditions": {
            "ready": (serving and not ending) or publish,
            "serving": serving or publish,
            "terminating": ending,
        },
        "targetRef": {
            "kind": "Pod",
            "namespace": pod["metadata"]["namespace"],
            "name": pod["metadata"]["name"],
            "uid": pod["metadata"]["uid"],
        },
    }
    node = pod["spec"].get("nodeName")
    if node:
        out["nodeName"] = node
        if zones.get(node):
            out["zone"] = zones[node]
    spec = pod["spec"]
    if spec.get("hostname") and spec.get("subdomain") == service["metadata"]["name"]:
        out["hostname"] = spec["hostname"]
    return out


def slices(service: JSON, pods: list[JSON], zones: dict[str, str]) -> list[JSON]:
    """The slices a Service should have. Pods with different numbers for one named port get slices of their own."""
    meta, spec = service["metadata"], service["spec"]
    families = spec.get("ipFamilies") or ["IPv4"]
    out: list[JSON] = []
    for family in families:
        groups: dict[tuple[Any, ...], list[JSON]] = {}
        for pod in sorted(pods, key=lambda p: p["metadata"]["name"]):
            phase = (pod.get("status") or {}).get("phase")
            address = _address(pod, 4 if family == "IPv4" else 6)
            if address is None or phase in ("Succeeded", "Failed"):
                continue
            numbers = tuple(
                (p.get("name", ""), p.get("protocol", "TCP"), port_of(pod, p), p.get("appProtocol"))
                for p in spec.get("ports") or ()
            )
            numbers = tuple(n for n in numbers if n[2] is not None)
            groups.setdefault(numbers, []).append(endpoint_of(pod, address, service, zones))
        if not groups:
            groups[()] = []
        index = 0
        for numbers, endpoints in sorted(groups.items(), key=str):
            for start in range(0, max(len(endpoints), 1), _MOST):
                name = f"{meta['name']}-{family.lower()}" + (f"-{index}" if index else "")
                index += 1
                out.append(_slice(service, name, family, numbers, endpoints[start : start + _MOST]))
    return out


def _slice(service: JSON, name: str, family: str, numbers: tuple[Any, ...], endpoints: list[JSON]) -> JSON:
    meta = service["metadata"]
    labels = dict(meta.get("labels") or {}) | {
        "kubernetes.io/service-name": meta["name"],
        "endpointslice.kubernetes.io/managed-by": _MANAGER,
    }
    if service["spec"].get("clusterIP") == "None":
        labels["service.kubernetes.io/headless"] = ""
    ports = [
        {"name": n, "protocol": p, "port": number} | ({"appProtocol": a} if a else {})
        for n, p, number, a in numbers
    ]
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": name,
            "namespace": meta["namespace"],
            "labels": labels,
            "ownerReferences": [ob.reference(service, "v1", "Service")],
        },
        "addressType": family,
        "endpoints": endpoints,
        "ports": ports,
    }


def _address(pod: JSON, family: int) -> str | None:
    held = (pod.get("status") or {}).get("podIPs") or ()
    return next((i["ip"] for i in held if ipaddress.ip_address(i["ip"]).version == family), None)


def classic(service: JSON, made: list[JSON]) -> JSON:
    """The v1 Endpoints of the same Service, for those who still read them."""
    subsets = []
    for one in made:
        if one["addressType"] != "IPv4" or not one["endpoints"]:
            continue
        rows: dict[bool, list[JSON]] = {True: [], False: []}
        for endpoint in one["endpoints"]:
            if endpoint["conditions"]["terminating"]:
                continue
            row = {"ip": endpoint["addresses"][0], "targetRef": endpoint["targetRef"]}
            row |= {k: endpoint[k] for k in ("nodeName", "hostname") if k in endpoint}
            rows[endpoint["conditions"]["ready"]].append(row)
        subset: JSON = {"ports": [{k: v for k, v in p.items() if v} for p in one["ports"]]}
        subset |= {
            name: found
            for name, found in (("addresses", rows[True]), ("notReadyAddresses", rows[False]))
            if found
        }
        if len(subset) > 1:
            subsets.append(subset)
    meta = service["metadata"]
    labels = dict(meta.get("labels") or {}) | {"endpoints.kubernetes.io/managed-by": "endpoint-controller"}
    return {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {"name": meta["name"], "namespace": meta["namespace"], "labels": labels},
        "subsets": subsets,
    }


class EndpointSlices:
    """Services without a selector are left alone: their endpoints belong to whoever writes them."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.services, self.pods, self.nodes = hub.watch(SERVICES), hub.watch(PODS), hub.watch(NODES)
        self.slices, self.classic = hub.watch(ENDPOINT_SLICES), hub.watch(ENDPOINTS)
        self.pods.add_index("namespace", lambda p: (p["metadata"]["namespace"],))
        self.services.add_index("namespace", lambda s: (s["metadata"]["namespace"],))
        self.slices.add_index(
            "service",
            lambda s: (
                (
                    s["metadata"]["namespace"],
                    (s["metadata"].get("labels") or {}).get("kubernetes.io/service-name"),
                ),
            ),
        )
        self.queue = WorkQueue("endpointslice", self.sync)
        self.services.on_change(lambda _k, old, new: self.queue.add(ob.key_of(new or old)))
        self.pods.on_change(self._pod)
        self.slices.on_change(self._slice)

    def _pod(self, _kind: str, old: JSON | None, new: JSON | None) -> None:
        if old is not None and new is not None and _relevant(old) == _relevant(new):
            return
        for pod in (old, new):
            if pod is None:
                continue
            for service in self.services.by_index("namespace", pod["metadata"]["namespace"]):
                selector = service["spec"].get("selector")
                labels = pod["metadata"].get("labels") or {}
                if selector and all(labels.get(k) == v for k, v in selector.items()):
                    self.queue.add(ob.key_of(service))

    def _slice(self, _kind: str, old: JSON | None, new: JSON | None) -> None:
        labels = (new or old or {})["metadata"].get("labels") or {}
        if labels.get("endpointslice.kubernetes.io/managed-by") == _MANAGER:
            self.queue.add(
                ((new or old or {})["metadata"]["namespace"], labels.get("kubernetes.io/service-name"))
            )

    async def sync(self, key: Any) -> None:
        service = self.services.get(*key)
        held = [
            s
            for s in self.slices.by_index("service", key)
            if (s["metadata"].get("labels") or {}).get("endpointslice.kubernetes.io/managed-by") == _MANAGER
        ]
        wanted: list[JSON] = []
        selector = (service or {}).get("spec", {}).get("selector")
        if (
            service is not None
            and selector
            and service["spec"].get("type") != "ExternalName"
            and not ob.terminating(service)
        ):
            zones = {
                n["metadata"]["name"]: (n["metadata"].get("labels") or {}).get(
                    "topology.kubernetes.io/zone", ""
                )
                for n in self.nodes.items()
            }
            chosen = [
                p
                for p in self.pods.by_index("namespace", key[0])
                if all((p["metadata"].get("labels") or {}).get(k) == v for k, v in selector.items())
            ]
            wanted = slices(service, chosen, zones)
        by_name = {s["metadata"]["name"]: s for s in held}
        for one in wanted:
            await self._put(by_name.pop(one["metadata"]["name"], None), one)
        for gone in by_name.values():
            await self._delete(gone)
        if service is not None and wanted:
            await self._put_classic(service, wanted)

    async def _put(self, old: JSON | None, new: JSON) -> None:
        if old is None:
            try:
                await self.hub.client.create(ENDPOINT_SLICES, new)
            except ApiError as error:
                if not error.already_exists:
                    raise
                old = await self.hub.client.get(
                    ENDPOINT_SLICES, new["metadata"]["name"], new["metadata"]["namespace"]
                )
        if old is None:
            return
        same = (
            all(old.get(f) == new[f] for f in ("endpoints", "ports"))
            and old["metadata"].get("labels") == new["metadata"]["labels"]
        )
        if not same:
            new["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"]
            await self.hub.client.update(ENDPOINT_SLICES, new)

    async def _delete(self, old: JSON) -> None:
        try:
            await self.hub.client.delete(
                ENDPOINT_SLICES, old["metadata"]["name"], old["metadata"]["namespace"]
            )
        except ApiError as error:
            if not error.not_found:
                raise

    async def _put_classic(self, service: JSON, made: list[JSON]) -> None:
        new = classic(service, made)
        meta = new["metadata"]
        old = self.classic.get(meta["namespace"], meta["name"])
        if old is not None and (old.get("subsets") or []) == new["subsets"]:
            return
        try:
            if old is None:
                await self.hub.client.create(ENDPOINTS, new)
            else:
                meta["resourceVersion"] = old["metadata"]["resourceVersion"]
                await self.hub.client.update(ENDPOINTS, new)
        except ApiError as error:
            if not (error.already_exists or error.conflict):
                raise


def _relevant(pod: JSON) -> tuple[Any, ...]:
    status = pod.get("status") or {}
    return (
        pod["metadata"].get("labels"), status.get("podIPs"), ob.ready(pod), ob.terminating(pod),
        status.get("phase") in ("Succeeded", "Failed"), pod["spec"].get("nodeName"),
    )  # fmt: skip
