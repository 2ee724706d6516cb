"""Service ports to nftables: one fragment for each port view, and the script between two states.

Pure. A fragment owns its chains, sets and map elements, so a changed service touches only its own
(cost O(endpoints of the service), one transaction). Marks: a connection with bit 0x4000 of the
conntrack mark is masqueraded on the way out (hairpin, NodePort, LoadBalancer).
Sources: nft(8); Kubernetes service proxying semantics (traffic policies, ClientIP affinity).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from pervade.cluster.services.ports import Endpoint, PortView

TABLE = "pervade-services"
_MARK = "ct mark set ct mark or 0x4000"


class Fragment(msgspec.Struct, frozen=True):
    """What one port view contributes: chains (name to rules), sets (name to body), map elements."""

    chains: dict[str, tuple[str, ...]]
    sets: dict[str, str]
    elements: dict[tuple[str, str], str]


EMPTY = Fragment({}, {}, {})


def base(pod_cidrs: Iterable[str]) -> str:
    """The table without services: hooks, maps and the fixed chains; replaces whatever was there."""
    maps = "".join(
        f" map {name}{f} {{ type {addr} . inet_proto . inet_service : verdict; }}\n"
        for f, addr in ((4, "ipv4_addr"), (6, "ipv6_addr"))
        for name in ("services", "refused", "firewall")
    )
    return (
        f"table inet {TABLE} {{}}\ndelete table inet {TABLE}\ntable inet {TABLE} {{\n{maps}"
        " map nodeports4 { type inet_proto . inet_service : verdict; }\n"
        " map nodeports6 { type inet_proto . inet_service : verdict; }\n"
        " chain lookup {\n"
        "  ip daddr . meta l4proto . th dport vmap @services4\n"
        "  ip6 daddr . meta l4proto . th dport vmap @services6\n"
        "  fib daddr type local ip daddr != 127.0.0.0/8 meta l4proto . th dport vmap @nodeports4\n"
        "  fib daddr type local ip6 daddr != ::1 meta l4proto . th dport vmap @nodeports6\n }\n"
        " chain prerouting { type nat hook prerouting priority dstnat; jump lookup; }\n"
        " chain output { type nat hook output priority -100; jump lookup; }\n"
        " chain postrouting { type nat hook postrouting priority srcnat;"
        " ct mark & 0x4000 == 0x4000 masquerade; }\n"
        " chain refuse { meta l4proto tcp reject with tcp reset; reject; }\n"
        " chain discard { drop; }\n"
        " chain guard {\n"
        "  ip daddr . meta l4proto . th dport vmap @refused4\n"
        "  ip6 daddr . meta l4proto . th dport vmap @refused6\n }\n"
        " chain source-ranges { type filter hook prerouting priority dstnat - 10;\n"
        "  ip daddr . meta l4proto . th dport vmap @firewall4\n"
        "  ip6 daddr . meta l4proto . th dport vmap @firewall6\n }\n"
        " chain filter-input { type filter hook input priority filter; ct state new jump guard; }\n"
        " chain filter-forward { type filter hook forward priority filter; ct state new jump guard; }\n"
        " chain filter-output { type filter hook output priority filter; ct state new jump guard; }\n"
        f" chain foreign {{ {_foreign(pod_cidrs)} }}\n"
        "}\n"
    )


def _foreign(pod_cidrs: Iterable[str]) -> str:
    """Rules that return for sources of the cluster and mark everyone else for masquerading."""
    rules = ["fib saddr type local return"]
    rules += [f"{'ip6' if ':' in c else 'ip'} saddr {c} return" for c in pod_cidrs]
    return "; ".join([*rules, _MARK]) + ";"


def fragment(view: PortView, pod_cidrs: Iterable[str]) -> Fragment:
    """Chains, sets and elements that serve `view`; a port without endpoints answers with a refusal."""
    ip = "ip" if view.family == 4 else "ip6"
    chains: dict[str, tuple[str, ...]] = {}
    sets: dict[str, str] = {}
    elements: dict[tuple[str, str], str] = {}
    for one in view.endpoints:
        chains[_ep(view, one)] = _endpoint_rules(view, one, ip)
        if view.affinity:
            kind = "ipv4_addr" if view.family == 4 else "ipv6_addr"
            sets[_aff(view, one)] = (
                f"type {kind}; size 65535; flags dynamic,timeout; timeout {view.affinity}s;"
            )
    everyone, local = f"svc-{view.key}", f"local-{view.key}"
    if view.endpoints:
        chains[everyone] = _balance(view, view.endpoints, ip)
    if view.local_endpoints and (view.internal_local or view.external_local):
        chains[local] = _balance(view, view.local_endpoints, ip)

    inside = view.local_endpoints if view.internal_local else view.endpoints
    if inside:
        chains[f"in-{view.key}"] = ("jump foreign", f"goto {local if view.internal_local else everyone}")
    for address in view.cluster_ips:
        key = f"{address} . {view.protocol} . {view.port}"
        if inside:
            elements[f"services{view.family}", key] = f"goto in-{view.key}"
        else:
            elements[f"refused{view.family}", key] = "goto discard" if view.endpoints else "goto refuse"

    outside = view.local_endpoints if view.external_local else view.endpoints
    if view.endpoints and (view.node_port or view.external):
        chains[f"ext-{view.key}"] = _external(view, outside, everyone, local, ip, pod_cidrs)
    for address in view.external:
        key = f"{address} . {view.protocol} . {view.port}"
        if view.endpoints:
            elements[f"services{view.family}", key] = f"goto ext-{view.key}"
        if not outside:
            elements[f"refused{view.family}", key] = "goto discard" if view.endpoints else "goto refuse"
        if view.source_ranges:
            ranges = ", ".join(view.source_ranges)
            chains[f"fw-{view.key}"] = (f"{ip} saddr {{ {ranges} }} return", "drop")
            elements[f"firewall{view.family}", key] = f"goto fw-{view.key}"
    if view.node_port and view.endpoints:
        elements[f"nodeports{view.family}", f"{view.protocol} . {view.node_port}"] = f"goto ext-{view.key}"
    return Fragment(chains, sets, elements)


def _ep(view: PortView, one: Endpoint) -> str:
    return f"ep-{view.key}/{one.address.replace(':', '.')}/{one.port}"


def _aff(view: PortView, one: Endpoint) -> str:
    return f"aff-{view.key}/{one.address.replace(':', '.')}/{one.port}"


def _endpoint_rules(view: PortView, one: Endpoint, ip: str) -> tuple[str, ...]:
    target = f"{one.address}:{one.port}" if view.family == 4 else f"[{one.address}]:{one.port}"
    rules = [f"{ip} saddr {one.address} {_MARK}"]
    if view.affinity:
        rules.append(f"update @{_aff(view, one)} {{ {ip} saddr }}")
    rules.append(f"meta l4proto {view.protocol} dnat {ip} to {target}")
    return tuple(rules)


def _balance(view: PortView, endpoints: tuple[Endpoint, ...], ip: str) -> tuple[str, ...]:
    sticky = [f"{ip} saddr @{_aff(view, e)} goto {_ep(view, e)}" for e in endpoints if view.affinity]
    targets = ", ".join(f"{i} : goto {_ep(view, e)}" for i, e in enumerate(endpoints))
    return (*sticky, f"numgen random mod {len(endpoints)} vmap {{ {targets} }}")


def _external(
    view: PortView,
    outside: tuple[Endpoint, ...],
    everyone: str,
    local: str,
    ip: str,
    pod_cidrs: Iterable[str],
) -> tuple[str, ...]:
    if not view.external_local:
        return (_MARK, f"goto {everyone}")
    # Pods and the node itself are not "external": the policy Local does not hold them back.
    family = ":" if ip == "ip6" else "."
    inner = [f"{ip} saddr {c} goto {everyone}" for c in pod_cidrs if family in c]
    inner += [f"fib saddr type local {_MARK}", f"fib saddr type local goto {everyone}"]
    return (*inner, f"goto {local}") if outside else tuple(inner)


def script(old: Mapping[str, Fragment], new: Mapping[str, Fragment]) -> str:
    """The nft commands that turn the fragments `old` into `new` (same keys, absent = EMPTY), in one transaction.

    Order: unhook (elements), empty (flush), remove, create, fill, hook. Empty string when nothing differs.
    """
    flush, unhook, drop, create, fill, hook = [], [], [], [], [], []
    for key in sorted({*old, *new}):
        a, b = old.get(key, EMPTY), new.get(key, EMPTY)
        if a == b:
            continue
        for (name, element), verdict in a.elements.items():
            if b.elements.get((name, element)) != verdict:
                unhook.append(f"delete element inet {TABLE} {name} {{ {element} }}")
        for name in a.chains:
            if b.chains.get(name) != a.chains[name]:
                flush.append(f"flush chain inet {TABLE} {name}")
            if name not in b.chains:
                drop.append(f"delete chain inet {TABLE} {name}")
        drop += [f"delete set inet {TABLE} {n}" for n, body in a.sets.items() if b.sets.get(n) != body]
        create += [
            f"add set inet {TABLE} {n} {{ {body} }}" for n, body in b.sets.items() if a.sets.get(n) != body
        ]
        for name, rules in b.chains.items():
            if name not in a.chains:
                create.append(f"add chain inet {TABLE} {name}")
            if a.chains.get(name) != rules:
                fill += [f"add rule inet {TABLE} {name} {rule}" for rule in rules]
        for (name, element), verdict in b.elements.items():
            if a.elements.get((name, element)) != verdict:
                hook.append(f"add element inet {TABLE} {name} {{ {element} : {verdict} }}")
    lines = [*unhook, *flush, *drop, *create, *fill, *hook]
    return "\n".join(lines) + "\n" if lines else ""
