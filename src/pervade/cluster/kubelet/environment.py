"""Environment of a container: values, references, expansion, service variables. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from pervade.cluster.kubelet import quantity

JSON = dict[str, Any]
Lookup = Callable[[str, str], JSON | None]
"""(kind "configmap" or "secret", name) → the object's decoded text data, or None when it does not exist."""
_REFERENCE = re.compile(r"\$(\$|\(([^()]+)\))")


class Missing(Exception):
    """A reference leads nowhere: CreateContainerConfigError."""


def expand(text: str, known: dict[str, str]) -> str:
    """`$(NAME)` replaced by known values, `$$` by `$`; unknown names stay (as Kubernetes does)."""

    def one(match: re.Match[str]) -> str:
        if match.group(1) == "$":
            return "$"
        return known.get(match.group(2), match.group(0))

    return _REFERENCE.sub(one, text)


def field_value(pod: JSON, path: str, *, pod_ips: Iterable[str], host_ips: Iterable[str]) -> str:
    """The downward API's fieldPath; Missing for what it does not offer."""
    meta, spec = pod["metadata"], pod["spec"]
    simple = {
        "metadata.name": meta["name"],
        "metadata.namespace": meta.get("namespace", ""),
        "metadata.uid": meta["uid"],
        "spec.nodeName": spec.get("nodeName", ""),
        "spec.serviceAccountName": spec.get("serviceAccountName", ""),
        "status.podIP": next(iter(pod_ips), ""),
        "status.podIPs": ",".join(pod_ips),
        "status.hostIP": next(iter(host_ips), ""),
        "status.hostIPs": ",".join(host_ips),
    }
    if path in simple:
        return str(simple[path])
    match = re.fullmatch(r"metadata\.(labels|annotations)(?:\['(.+)'\])?", path)
    if match:
        held = meta.get(match.group(1)) or {}
        if match.group(2):
            return str(held.get(match.group(2), ""))
        return "\n".join(f'{k}="{v}"' for k, v in sorted(held.items()))
    raise Missing(f"fieldPath {path!r} is not offered by the downward API")


def resource_value(container: JSON, name: str, divisor: str, capacity: dict[str, str]) -> str:
    """resourceFieldRef: a limit or request in units of `divisor`; limits default to the node's capacity."""
    group, _, resource = name.partition(".")
    resources = container.get("resources") or {}
    text = (resources.get(group) or {}).get(resource)
    if text is None:
        text = capacity.get(resource, "0") if group == "limits" else "0"
    unit = quantity.parse(divisor if divisor and divisor != "0" else "1")
    return str(int((quantity.parse(text) / unit).to_integral_value(rounding="ROUND_CEILING")))


def variables(
    container: JSON,
    pod: JSON,
    *,
    lookup: Lookup,
    services: dict[str, str],
    pod_ips: list[str],
    host_ips: list[str],
    capacity: dict[str, str],
) -> dict[str, str]:
    """All variables in the order they win: services, envFrom, env. Raises Missing."""
    out = dict(services)
    for source in container.get("envFrom") or ():
        for kind, field in (("configmap", "configMapRef"), ("secret", "secretRef")):
            if ref := source.get(field):
                data = lookup(kind, ref["name"])
                if data is None and not ref.get("optional"):
                    raise Missing(f'{kind} "{ref["name"]}" not found')
                out |= {f"{source.get('prefix', '')}{k}": str(v) for k, v in (data or {}).items()}
    for entry in container.get("env") or ():
        name, origin = entry["name"], entry.get("valueFrom")
        if not origin:
            out[name] = expand(entry.get("value") or "", out)
        elif ref := origin.get("fieldRef"):
            out[name] = field_value(pod, ref["fieldPath"], pod_ips=pod_ips, host_ips=host_ips)
        elif ref := origin.get("resourceFieldRef"):
            out[name] = resource_value(container, ref["resource"], str(ref.get("divisor") or "1"), capacity)
        else:
            kind, field = (
                ("configmap", "configMapKeyRef")
                if "configMapKeyRef" in origin
                else ("secret", "secretKeyRef")
            )
            ref = origin.get(field) or {}
            data = lookup(kind, ref.get("name", ""))
            if data is not None and ref.get("key") in data:
                out[name] = str(data[ref["key"]])
            elif not ref.get("optional"):
                what = "not found" if data is None else f"has no key {ref.get('key')!r}"
                raise Missing(f'{kind} "{ref.get("name")}" {what}')
    return out


def service_variables(services: Iterable[JSON]) -> dict[str, str]:
    """NAME_SERVICE_HOST, NAME_SERVICE_PORT and the docker-links forms, of services with an address."""
    out: dict[str, str] = {}
    for service in services:
        spec = service.get("spec") or {}
        ip = spec.get("clusterIP")
        ports = spec.get("ports") or []
        if not ip or ip == "None" or not ports:
            continue
        name = service["metadata"]["name"].upper().replace("-", "_")
        out[f"{name}_SERVICE_HOST"] = ip
        out[f"{name}_SERVICE_PORT"] = str(ports[0]["port"])
        host = f"[{ip}]" if ":" in ip else ip
        for i, port in enumerate(ports):
            number, protocol = port["port"], str(port.get("protocol") or "TCP").lower()
            if port.get("name"):
                out[f"{name}_SERVICE_PORT_{port['name'].upper().replace('-', '_')}"] = str(number)
            url = f"{protocol}://{host}:{number}"
            base = f"{name}_PORT_{number}_{protocol.upper()}"
            out |= {base: url, f"{base}_PROTO": protocol, f"{base}_PORT": str(number), f"{base}_ADDR": ip}
            if i == 0:
                out[f"{name}_PORT"] = url
    return out
