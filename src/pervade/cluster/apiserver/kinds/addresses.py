"""ClusterIPs and node ports of Services, handed out by the API server as it admits them.

Addresses in use are held in memory, derived from the stored Services at start; `assign` reserves what a
Service lacks and gives back an undo for a write that fails afterwards. O(1) a Service on a range that
is not nearly full.
"""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Callable, Iterable
from typing import Any

from pervade.cluster.apiserver.kinds.kind import JSON, Cause

_STATIC_BAND = 256
"""The first addresses of a range are left to those who ask for one by name (Kubernetes, KEP-3070)."""
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _owner(service: JSON) -> str:
    meta = service["metadata"]
    return f"{meta.get('namespace', '')}/{meta.get('name', '')}"


class Addresses:
    """What is taken of the Service ranges and the node ports. `families` maps IPv4 and IPv6 to their range."""

    def __init__(self, families: dict[str, str], node_ports: range, *, reserved: Iterable[str] = ()) -> None:
        self.ranges: dict[str, Network] = {f: ipaddress.ip_network(c) for f, c in families.items()}
        self.node_ports = node_ports
        self._ips: dict[str, str] = dict.fromkeys(reserved, "reserved")
        self._ports: dict[int, str] = {}

    def load(self, services: Iterable[JSON]) -> None:
        """Take what stored Services hold."""
        for service in services:
            owner = _owner(service)
            self._ips.update(dict.fromkeys(_ips(service), owner))
            self._ports.update(dict.fromkeys(_ports(service), owner))

    def release(self, before: JSON, after: JSON | None = None) -> None:
        """Give back what `before` held and `after` (None: deleted) does not; call when that is committed."""
        owner = _owner(before)
        kept_ips, kept_ports = (set(_ips(after)), set(_ports(after))) if after else (set(), set())
        for ip in _ips(before):
            if ip not in kept_ips and self._ips.get(ip) == owner:
                del self._ips[ip]
        for port in _ports(before):
            if port not in kept_ports and self._ports.get(port) == owner:
                del self._ports[port]

    def figures(self) -> dict[str, int]:
        return {"cluster_ips": len(self._ips), "node_ports": len(self._ports)}

    def assign(self, new: JSON) -> tuple[list[Cause], Callable[[], None]]:
        """Complete `new` in place; causes for what cannot be had, and an undo of what was reserved."""
        taken: list[tuple[dict[Any, str], Any]] = []
        owner = _owner(new)

        def undo() -> None:
            for table, key in taken:
                table.pop(key, None)

        causes = self._assign_ips(new["spec"], owner, taken) + self._assign_ports(new["spec"], owner, taken)
        if causes:
            undo()
        return causes, undo

    def _assign_ips(self, spec: JSON, owner: str, taken: list[tuple[dict[Any, str], Any]]) -> list[Cause]:
        if spec.get("type") == "ExternalName":
            for field in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"):
                spec.pop(field, None)
            return []
        causes = self._families(spec)
        if causes:
            return causes
        given = list(spec.get("clusterIPs") or ([spec["clusterIP"]] if spec.get("clusterIP") else []))
        if given[:1] == ["None"]:
            spec["clusterIP"], spec["clusterIPs"] = "None", ["None"]
            return []
        if spec.get("clusterIP") and given[0] != spec["clusterIP"]:
            given[0] = spec["clusterIP"]
        out: list[str] = []
        for i, family in enumerate(spec["ipFamilies"]):
            if i < len(given) and given[i]:
                cause = self._take(given[i], family, owner, f"spec.clusterIPs[{i}]", taken)
                if cause:
                    return [cause]
                out.append(given[i])
                continue
            ip = self._free(family)
            if ip is None:
                text = f"failed to allocate a serviceIP: range {self.ranges[family]} is full"
                return [Cause(f"spec.clusterIPs[{i}]", text, "InternalError")]
            self._ips[ip] = owner
            taken.append((self._ips, ip))
            out.append(ip)
        spec["clusterIP"], spec["clusterIPs"] = out[0], out
        return []

    def _families(self, spec: JSON) -> list[Cause]:
        """Default and check ipFamilies and ipFamilyPolicy (Kubernetes, "IPv4/IPv6 dual-stack")."""
        first = next(iter(self.ranges))
        given = [g for g in spec.get("clusterIPs") or [spec.get("clusterIP") or ""] if g and g != "None"]
        headless = (spec.get("clusterIP") or (spec.get("clusterIPs") or [""])[0]) == "None"
        policy = spec.get("ipFamilyPolicy")
        if policy is None:
            both = len(spec.get("ipFamilies") or ()) > 1 or len(given) > 1
            loose = headless and not spec.get("selector")
            policy = "RequireDualStack" if (both or loose) and len(self.ranges) > 1 else "SingleStack"
            spec["ipFamilyPolicy"] = policy
        families = list(spec.get("ipFamilies") or [_family(g) for g in given] or [first])
        unknown = [f for f in families if f not in self.ranges]
        if unknown:
            return [
                Cause("spec.ipFamilies[0]", f'Invalid value: "{unknown[0]}": not configured on this cluster')
            ]
        if policy == "RequireDualStack" and len(self.ranges) < 2:
            text = f'Invalid value: "{policy}": this cluster is not configured for dual-stack services'
            return [Cause("spec.ipFamilyPolicy", text)]
        if policy == "SingleStack":
            families = families[:1]
        else:
            families += [f for f in self.ranges if f not in families]
        spec["ipFamilies"] = families
        return []

    def _take(
        self, ip: str, family: str, owner: str, field: str, taken: list[tuple[dict[Any, str], Any]]
    ) -> Cause | None:
        try:
            inside = ipaddress.ip_address(ip) in self.ranges[family]
        except ValueError:
            return Cause(
                field, f'Invalid value: "{ip}": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)'
            )
        if not inside:
            text = (
                f'Invalid value: "{ip}": failed to allocate IP {ip}: the provided IP ({ip}) is not in the valid'
                f" range. The range of valid IPs is {self.ranges[family]}"
            )
            return Cause(field, text)
        holder = self._ips.get(ip)
        if holder == owner:
            return None
        if holder is not None and not (
            holder == "reserved" and owner in ("default/kubernetes", "kube-system/kube-dns")
        ):
            text = f'Invalid value: "{ip}": failed to allocate IP {ip}: provided IP is already allocated'
            return Cause(field, text)
        self._ips[ip] = owner
        taken.append((self._ips, ip))
        return None

    def _free(self, family: str) -> str | None:
        network = self.ranges[family]
        size = min(network.num_addresses, 1 << 16)
        low = _STATIC_BAND if size > 2 * _STATIC_BAND else 1
        for _ in range(64):
            ip = str(network[low + secrets.randbelow(size - low - 1)])
            if ip not in self._ips:
                return ip
        return next((ip for i in range(1, size - 1) if (ip := str(network[i])) not in self._ips), None)

    def _assign_ports(self, spec: JSON, owner: str, taken: list[tuple[dict[Any, str], Any]]) -> list[Cause]:
        kind = spec.get("type")
        wants = kind == "NodePort" or (
            kind == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts") is not False
        )
        local = kind == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local"
        own: dict[tuple[int, str], int] = {}
        causes: list[Cause] = []
        for i, port in enumerate(spec.get("ports") or ()):
            asked = port.get("nodePort")
            if asked:
                causes += self._take_port(asked, owner, f"spec.ports[{i}].nodePort", taken)
            elif wants:
                # A port of two protocols gets one number.
                number = next(
                    (
                        n
                        for (p, proto), n in own.items()
                        if p == port.get("port") and proto != port.get("protocol")
                    ),
                    None,
                )
                port["nodePort"] = number or self._free_port(owner, taken)
                if not port["nodePort"]:
                    causes.append(
                        Cause(
                            f"spec.ports[{i}].nodePort",
                            "failed to allocate: the range is full",
                            "InternalError",
                        )
                    )
            if port.get("nodePort"):
                own[port.get("port"), port.get("protocol")] = port["nodePort"]
        if not local:
            spec.pop("healthCheckNodePort", None)
        elif spec.get("healthCheckNodePort"):
            causes += self._take_port(spec["healthCheckNodePort"], owner, "spec.healthCheckNodePort", taken)
        else:
            spec["healthCheckNodePort"] = self._free_port(owner, taken)
        return causes

    def _take_port(
        self, port: Any, owner: str, field: str, taken: list[tuple[dict[Any, str], Any]]
    ) -> list[Cause]:
        if not isinstance(port, int) or port not in self.node_ports:
            bounds = f"{self.node_ports.start}-{self.node_ports.stop - 1}"
            return [
                Cause(
                    field,
                    f"Invalid value: {port}: provided port is not in the valid range. The range of valid ports is {bounds}",
                )
            ]
        holder = self._ports.get(port)
        if holder is None:
            self._ports[port] = owner
            taken.append((self._ports, port))
        elif holder != owner:
            return [Cause(field, f"Invalid value: {port}: provided port is already allocated")]
        return []

    def _free_port(self, owner: str, taken: list[tuple[dict[Any, str], Any]]) -> int | None:
        start = secrets.randbelow(len(self.node_ports))
        for i in range(len(self.node_ports)):
            port = self.node_ports[(start + i) % len(self.node_ports)]
            if port not in self._ports:
                self._ports[port] = owner
                taken.append((self._ports, port))
                return port
        return None


def _family(ip: str) -> str:
    return "IPv6" if ":" in ip else "IPv4"


def _ips(service: JSON | None) -> list[str]:
    spec = (service or {}).get("spec") or {}
    return [ip for ip in spec.get("clusterIPs") or [spec.get("clusterIP")] if ip and ip != "None"]


def _ports(service: JSON | None) -> list[int]:
    spec = (service or {}).get("spec") or {}
    found = [p.get("nodePort") for p in spec.get("ports") or ()] + [spec.get("healthCheckNodePort")]
    return [p for p in found if p]
