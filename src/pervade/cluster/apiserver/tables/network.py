"""Rows of Services and what belongs to them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pervade.cluster.apiserver.kinds.kind import JSON
from pervade.cluster.apiserver.tables import human
from pervade.cluster.apiserver.tables.column import printer


def _service(obj: JSON, now: datetime) -> list[Any]:
    meta, spec = obj["metadata"], obj.get("spec") or {}
    ports = []
    for port in spec.get("ports") or ():
        node = f":{port['nodePort']}" if port.get("nodePort") else ""
        ports.append(f"{port.get('port')}{node}/{port.get('protocol', 'TCP')}")
    return [
        meta["name"],
        spec.get("type", "ClusterIP"),
        spec.get("clusterIP") or "<none>",
        _outside(obj),
        human.listed(ports),
        human.age(meta.get("creationTimestamp"), now),
        human.labels(spec.get("selector")),
    ]


def _outside(obj: JSON) -> str:
    spec = obj.get("spec") or {}
    given = list(spec.get("externalIPs") or ())
    kind = spec.get("type", "ClusterIP")
    if kind == "ExternalName":
        return str(spec.get("externalName", ""))
    if kind == "LoadBalancer":
        balancer = (obj.get("status") or {}).get("loadBalancer") or {}
        made = [i.get("ip") or i.get("hostname") or "" for i in balancer.get("ingress") or ()]
        return human.listed([*made, *given]) if made or given else "<pending>"
    return human.listed(given)


def _endpoints(obj: JSON, now: datetime) -> list[Any]:
    found = []
    for subset in obj.get("subsets") or ():
        for address in subset.get("addresses") or ():
            ports = subset.get("ports") or ()
            found += [f"{address.get('ip')}:{p.get('port')}" for p in ports] or [address.get("ip")]
    return [
        obj["metadata"]["name"],
        human.listed(found, 3),
        human.age(obj["metadata"].get("creationTimestamp"), now),
    ]


def _slice(obj: JSON, now: datetime) -> list[Any]:
    ports = [str(p.get("port", "*")) for p in obj.get("ports") or ()]
    addresses = [a for e in obj.get("endpoints") or () for a in e.get("addresses") or ()]
    return [
        obj["metadata"]["name"],
        obj.get("addressType", ""),
        human.listed(ports, 3) if ports else "<unset>",
        human.listed(addresses, 3) if addresses else "<unset>",
        human.age(obj["metadata"].get("creationTimestamp"), now),
    ]


def _ingress(obj: JSON, now: datetime) -> list[Any]:
    spec = obj.get("spec") or {}
    hosts = [r.get("host") or "*" for r in spec.get("rules") or ()]
    balancer = (obj.get("status") or {}).get("loadBalancer") or {}
    return [
        obj["metadata"]["name"],
        spec.get("ingressClassName") or "<none>",
        human.listed(hosts, 3) if hosts else "*",
        ",".join(i.get("ip") or i.get("hostname") or "" for i in balancer.get("ingress") or ()),
        "80, 443" if spec.get("tls") else "80",
        human.age(obj["metadata"].get("creationTimestamp"), now),
    ]


def _ingress_class(obj: JSON, now: datetime) -> list[Any]:
    spec = obj.get("spec") or {}
    chosen = spec.get("parameters") or {}
    kind = ".".join(part for part in (chosen.get("kind"), chosen.get("apiGroup")) if part)
    return [
        obj["metadata"]["name"],
        spec.get("controller", ""),
        f"{kind}/{chosen.get('name', '')}" if chosen else "<none>",
        human.age(obj["metadata"].get("creationTimestamp"), now),
    ]


def _network_policy(obj: JSON, now: datetime) -> list[Any]:
    chosen = (obj.get("spec") or {}).get("podSelector")
    return [
        obj["metadata"]["name"],
        human.selector(chosen),
        human.age(obj["metadata"].get("creationTimestamp"), now),
    ]


SERVICES = printer(_service, ("Name", "Type", "Cluster-IP", "External-IP", "Port(s)", "Age"), ("Selector",))
ENDPOINTS = printer(_endpoints, ("Name", "Endpoints", "Age"))
SLICES = printer(_slice, ("Name", "AddressType", "Ports", "Endpoints", "Age"))
INGRESSES = printer(_ingress, ("Name", "Class", "Hosts", "Address", "Ports", "Age"))
INGRESS_CLASSES = printer(_ingress_class, ("Name", "Controller", "Parameters", "Age"))
NETWORK_POLICIES = printer(_network_policy, ("Name", "Pod-Selector", "Age"))
