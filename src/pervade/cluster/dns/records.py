"""Services and their EndpointSlices to DNS records.

Pure; cost O(endpoints of the service). Source: the Kubernetes DNS-based service discovery
specification, version 1.1.0 (A, AAAA, SRV, PTR, headless, ExternalName), and the habits of its usual
server: `a-b-c-d.NAMESPACE.pod.DOMAIN`, dashed endpoint names, SRV for named ports only.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from typing import Any

from pervade.dns.zone import Record

JSON = dict[str, Any]
TTL = 5


def service_records(service: JSON, slices: Iterable[JSON], domain: str) -> list[Record]:
    """All records one Service owns, names under `svc.<domain>.` and the reverse zones."""
    meta, spec = service["metadata"], service.get("spec") or {}
    name = f"{meta['name']}.{meta['namespace']}.svc.{domain}.".lower()
    if spec.get("type") == "ExternalName":
        target = str(spec.get("externalName", "")).rstrip(".").lower()
        return [Record(name, "CNAME", f"{target}.", TTL)] if target else []
    addresses = [ip for ip in spec.get("clusterIPs") or [spec.get("clusterIP")] if ip and ip != "None"]
    if addresses:
        return [*_addressed(name, addresses), *_srv(name, spec.get("ports") or (), name)]
    return _headless(name, spec, list(slices))


def _addressed(name: str, addresses: Iterable[str]) -> Iterator[Record]:
    for address in addresses:
        yield address_record(name, address)
        yield Record(f"{ipaddress.ip_address(address).reverse_pointer}.", "PTR", name, TTL)


def address_record(name: str, address: str) -> Record:
    """The A or AAAA record of `name`."""
    return Record(name, "A" if ipaddress.ip_address(address).version == 4 else "AAAA", address, TTL)


def _srv(name: str, ports: Iterable[JSON], target: str) -> Iterator[Record]:
    for port in ports:
        if port.get("name"):
            protocol = str(port.get("protocol") or "TCP").lower()
            yield Record(
                f"_{port['name']}._{protocol}.{name}".lower(), "SRV", f"0 100 {port['port']} {target}", TTL
            )


def _headless(name: str, spec: JSON, slices: list[JSON]) -> list[Record]:
    out: list[Record] = []
    for one in slices:
        for endpoint in one.get("endpoints") or ():
            ready = (endpoint.get("conditions") or {}).get("ready", True) is not False
            if not ready and not spec.get("publishNotReadyAddresses"):
                continue
            for address in endpoint.get("addresses") or ():
                host = endpoint.get("hostname") or address.replace(".", "-").replace(":", "-")
                own = f"{host}.{name}".lower()
                out += [address_record(name, address), address_record(own, address)]
                if endpoint.get("hostname"):
                    out.append(Record(f"{ipaddress.ip_address(address).reverse_pointer}.", "PTR", own, TTL))
                out += _srv(name, one.get("ports") or (), own)
    return out


def pod_answer(question: str, domain: str) -> Record | None:
    """The record of a name `10-77-1-3.NAMESPACE.pod.DOMAIN.`, made from the name itself; None if it is not one."""
    suffix = f".pod.{domain}."
    labels = question.lower().removesuffix(suffix).split(".")
    if not question.lower().endswith(suffix) or len(labels) != 2:
        return None
    for text in (labels[0].replace("-", "."), labels[0].replace("-", ":")):
        try:
            return address_record(question.lower(), str(ipaddress.ip_address(text)))
        except ValueError:
            continue
    return None
