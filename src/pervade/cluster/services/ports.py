"""What a Service means on one node: Service and its EndpointSlices to flat, frozen values.

Pure. One `PortView` is one (service port, address family); it holds every address the port answers
on and the endpoints that may serve it. Cost: O(ports x endpoints of this one service).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Any

import msgspec

JSON = dict[str, Any]


class Endpoint(msgspec.Struct, frozen=True, order=True, gc=False):
    """One address and port behind a service port."""

    address: str
    port: int
    local: bool


class PortView(msgspec.Struct, frozen=True):
    """One port of a Service in one address family, as this node has to serve it.

    `external` are LoadBalancer and externalIPs addresses; `endpoints` are the usable ones (ready, or,
    when none is ready, those still serving while they terminate: KEP-1669); `affinity` is the ClientIP
    time-out in seconds or 0; `*_local` are the traffic policies `Local`.
    """

    service: str
    protocol: str
    family: int
    port: int
    cluster_ips: tuple[str, ...]
    external: tuple[str, ...]
    node_port: int
    source_ranges: tuple[str, ...]
    endpoints: tuple[Endpoint, ...]
    affinity: int
    internal_local: bool
    external_local: bool

    @property
    def key(self) -> str:
        """A name that is unique among all views of a node and legal as nftables identifier."""
        return f"{self.family}/{self.service}/{self.protocol}/{self.port}"

    @property
    def local_endpoints(self) -> tuple[Endpoint, ...]:
        return tuple(e for e in self.endpoints if e.local)


def family_of(address: str) -> int:
    """4 or 6."""
    return ipaddress.ip_address(address).version


def service_key(obj: JSON) -> str:
    """`namespace/name` of a Service."""
    return f"{obj['metadata']['namespace']}/{obj['metadata']['name']}"


def slice_owner(obj: JSON) -> str | None:
    """`namespace/name` of the Service an EndpointSlice belongs to (label kubernetes.io/service-name)."""
    name = (obj["metadata"].get("labels") or {}).get("kubernetes.io/service-name")
    return f"{obj['metadata']['namespace']}/{name}" if name else None


def views(service: JSON, slices: Iterable[JSON], node: str) -> tuple[PortView, ...]:
    """Every port of `service` as `node` serves it; nothing for headless and ExternalName services."""
    spec = service.get("spec") or {}
    cluster_ips = tuple(
        ip for ip in spec.get("clusterIPs") or [spec.get("clusterIP") or ""] if ip and ip != "None"
    )
    if spec.get("type") == "ExternalName" or not cluster_ips:
        return ()
    ingress = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or []
    external = tuple(i["ip"] for i in ingress if i.get("ip") and i.get("ipMode", "VIP") == "VIP")
    external += tuple(spec.get("externalIPs") or ())
    affinity = 0
    if spec.get("sessionAffinity") == "ClientIP":
        config = (spec.get("sessionAffinityConfig") or {}).get("clientIP") or {}
        affinity = int(config.get("timeoutSeconds") or 10800)
    by_family = _slices_by_family(slices)
    out = []
    for family in sorted({family_of(ip) for ip in cluster_ips}):
        for port in spec.get("ports") or ():
            protocol = str(port.get("protocol") or "TCP").lower()
            out.append(
                PortView(
                    service=service_key(service),
                    protocol=protocol,
                    family=family,
                    port=int(port["port"]),
                    cluster_ips=_of(family, cluster_ips),
                    external=_of(family, external),
                    node_port=int(port.get("nodePort") or 0),
                    source_ranges=tuple(
                        r
                        for r in spec.get("loadBalancerSourceRanges") or ()
                        if ipaddress.ip_network(r.strip(), strict=False).version == family
                    ),
                    endpoints=_endpoints(by_family.get(family, ()), port.get("name") or "", protocol, node),
                    affinity=affinity,
                    internal_local=spec.get("internalTrafficPolicy") == "Local",
                    external_local=spec.get("externalTrafficPolicy") == "Local",
                )
            )
    return tuple(out)


def _of(family: int, addresses: Iterable[str]) -> tuple[str, ...]:
    return tuple(a for a in addresses if family_of(a) == family)


def _slices_by_family(slices: Iterable[JSON]) -> dict[int, list[JSON]]:
    out: dict[int, list[JSON]] = {}
    for one in slices:
        family = {"IPv4": 4, "IPv6": 6}.get(one.get("addressType", ""))
        if family:
            out.setdefault(family, []).append(one)
    return out


def _endpoints(slices: Iterable[JSON], port_name: str, protocol: str, node: str) -> tuple[Endpoint, ...]:
    ready: set[Endpoint] = set()
    draining: set[Endpoint] = set()
    for one in slices:
        numbers = [
            int(p["port"])
            for p in one.get("ports") or ()
            if (p.get("name") or "") == port_name
            and str(p.get("protocol") or "TCP").lower() == protocol
            and p.get("port")
        ]
        for endpoint in one.get("endpoints") or ():
            conditions = endpoint.get("conditions") or {}
            found = {
                Endpoint(address, number, endpoint.get("nodeName") == node)
                for address in endpoint.get("addresses") or ()
                for number in numbers
            }
            if conditions.get("ready", True) is not False:
                ready |= found
            elif conditions.get("serving") and conditions.get("terminating"):
                draining |= found
    return tuple(sorted(ready or draining))
