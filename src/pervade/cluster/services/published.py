"""Which addresses of the host's loopback lead to which ports of the nodes: pure.

A NodePort N answers on 127.0.0.1:N. A LoadBalancer address a.b.c.d answers on 127.b.c.d with the
Service's own ports, so that two services on port 80 (and two clusters) never meet.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec


class Published(msgspec.Struct, frozen=True, order=True):
    """One listening address of the host and the NodePort behind it."""

    address: str
    port: int
    protocol: str
    node_port: int
    service: str


def loopback_of(address: str) -> str:
    """The loopback twin of an IPv4 load-balancer address."""
    return "127." + address.split(".", 1)[1]


def published(services: Iterable[dict[str, Any]]) -> frozenset[Published]:
    """Every address the host publishes; O(ports of all services of type NodePort and LoadBalancer)."""
    out = set()
    for service in services:
        spec, meta = service.get("spec") or {}, service["metadata"]
        if spec.get("type") not in ("NodePort", "LoadBalancer"):
            continue
        ingress = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or []
        twins = [loopback_of(i["ip"]) for i in ingress if "." in i.get("ip", "")]
        for port in spec.get("ports") or ():
            node_port, protocol = port.get("nodePort"), str(port.get("protocol") or "TCP").lower()
            if not node_port or protocol not in ("tcp", "udp"):
                continue
            name = f"{meta['namespace']}/{meta['name']}"
            out.add(Published("127.0.0.1", node_port, protocol, node_port, name))
            out |= {Published(twin, port["port"], protocol, node_port, name) for twin in twins}
    return frozenset(out)
