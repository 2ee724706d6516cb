"""Which node a pod goes to: filters with reasons, then a score. Pure.

Sources: Kubernetes "Assigning Pods to Nodes", "Taints and Tolerations", "Pod Topology Spread Constraints".
Cost: O(nodes x pods) for a pod with spread or affinity rules, O(nodes) without; of a changed room, O(its pods).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from pervade.cluster.controllers.objects import matches

JSON = dict[str, Any]


class Room:
    """One node with the pods assigned to it. What is counted of them is kept: a change makes a new room."""

    def __init__(self, node: JSON, pods: list[JSON]) -> None:
        self.node, self.pods = node, pods

    @cached_property
    def used(self) -> tuple[int, int]:
        """(milli-CPU, bytes) that its pods ask for."""
        held = [requests(p) for p in self.pods]
        return sum(c for c, _ in held), sum(m for _, m in held)

    @cached_property
    def ports(self) -> set[tuple[Any, str]]:
        """Host ports that are taken."""
        return {port for p in self.pods for port in host_ports(p)}

    @cached_property
    def avoiding(self) -> list[tuple[JSON, JSON]]:
        """Each pod with each of its required anti-affinity terms."""
        return [(p, t) for p in self.pods for t in _affinity_terms(p, "podAntiAffinity")]

    @cached_property
    def owners(self) -> Counter[str]:
        """Pods by the uid of their owner."""
        return Counter(r["uid"] for p in self.pods for r in p["metadata"].get("ownerReferences") or ())

    @cached_property
    def namespaces(self) -> Counter[str]:
        """Pods by namespace."""
        return Counter(str(p["metadata"].get("namespace")) for p in self.pods)

    @property
    def name(self) -> str:
        return str(self.node["metadata"]["name"])

    @property
    def labels(self) -> dict[str, str]:
        return self.node["metadata"].get("labels") or {}


def tolerates(pod: JSON, taint: JSON) -> bool:
    """Whether one of the pod's tolerations covers the taint."""
    for one in pod["spec"].get("tolerations") or ():
        if one.get("effect") and one["effect"] != taint.get("effect"):
            continue
        if not one.get("key"):
            if one.get("operator") == "Exists":
                return True
            continue
        if one["key"] != taint["key"]:
            continue
        if one.get("operator") == "Exists" or (one.get("value") or "") == (taint.get("value") or ""):
            return True
    return False


def _expression(labels: dict[str, str], one: JSON) -> bool:
    key, values = one["key"], one.get("values") or []
    held = labels.get(key)
    match one["operator"]:
        case "In":
            return held in values
        case "NotIn":
            return held not in values
        case "Exists":
            return held is not None
        case "DoesNotExist":
            return held is None
        case "Gt" | "Lt" as sign if held is not None and held.lstrip("-").isdigit() and values:
            return int(held) > int(values[0]) if sign == "Gt" else int(held) < int(values[0])
    return False


def _term(room: Room, term: JSON) -> bool:
    wanted = term.get("matchExpressions") or []
    fields = term.get("matchFields") or []
    if not wanted and not fields:
        return False
    return all(_expression(room.labels, e) for e in wanted) and all(
        _expression({"metadata.name": room.name}, f) for f in fields
    )


def node_affinity(pod: JSON, room: Room) -> bool:
    """nodeSelector and required node affinity."""
    spec = pod["spec"]
    if any(room.labels.get(k) != v for k, v in (spec.get("nodeSelector") or {}).items()):
        return False
    required = ((spec.get("affinity") or {}).get("nodeAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    )
    return required is None or any(_term(room, t) for t in required.get("nodeSelectorTerms") or ())


def requests(pod: JSON) -> tuple[int, int]:
    """(milli-CPU, bytes) a pod asks for: the sum of its containers, at least its largest init container."""
    main = [_request(c) for c in pod["spec"].get("containers") or ()]
    total = (sum(c for c, _ in main), sum(m for _, m in main))
    for one in pod["spec"].get("initContainers") or ():
        cpu, memory = _request(one)
        total = (max(total[0], cpu), max(total[1], memory))
    return total


_UNITS = {
    "Ki": 1 << 10,
    "Mi": 1 << 20,
    "Gi": 1 << 30,
    "Ti": 1 << 40,
    "k": 1000,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
}


def _number(text: str) -> float:
    for suffix, factor in _UNITS.items():
        if text.endswith(suffix):
            return float(text[: -len(suffix)]) * factor
    return float(text[:-1]) / 1000 if text.endswith("m") else float(text)


def _request(container: JSON) -> tuple[int, int]:
    held = (container.get("resources") or {}).get("requests") or {}
    return int(_number(str(held.get("cpu", "0"))) * 1000), int(_number(str(held.get("memory", "0"))))


def host_ports(pod: JSON) -> set[tuple[Any, str]]:
    """(port, protocol) of each host port a pod asks for."""
    return {
        (p["hostPort"], p.get("protocol", "TCP"))
        for c in pod["spec"].get("containers") or ()
        for p in c.get("ports") or ()
        if p.get("hostPort")
    }


def fits(pod: JSON, room: Room) -> list[str]:
    """Upstream's words for each resource the node has too little of."""
    allocatable = (room.node.get("status") or {}).get("allocatable") or {}
    cpu, memory = requests(pod)
    used_cpu, used_memory = room.used
    out = []
    if allocatable.get("cpu") and cpu and used_cpu + cpu > _number(allocatable["cpu"]) * 1000:
        out.append("Insufficient cpu")
    if allocatable.get("memory") and memory and used_memory + memory > _number(allocatable["memory"]):
        out.append("Insufficient memory")
    if len(room.pods) + 1 > int(allocatable.get("pods", 110)):
        out.append("Too many pods")
    if host_ports(pod) & room.ports:
        out.append("node(s) didn't have free ports for the requested pod ports")
    return out


def _affinity_terms(pod: JSON, kind: str) -> list[JSON]:
    held = ((pod["spec"].get("affinity") or {}).get(kind) or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    )
    return list(held or [])


def _concerns(term: JSON, namespace: str, other: JSON) -> bool:
    spaces = term.get("namespaces") or ([namespace] if term.get("namespaceSelector") is None else None)
    if spaces is not None and other["metadata"].get("namespace") not in spaces:
        return False
    return matches(term.get("labelSelector"), other["metadata"].get("labels"))


def pod_affinity(pod: JSON, room: Room, rooms: Sequence[Room]) -> str | None:
    """Why required pod (anti-)affinity speaks against the node; None when it does not."""
    namespace = pod["metadata"].get("namespace", "")

    def near(term: JSON) -> list[JSON]:
        key = term["topologyKey"]
        here = room.labels.get(key)
        return [
            p
            for r in rooms
            if here is not None and r.labels.get(key) == here
            for p in r.pods
            if _concerns(term, namespace, p)
        ]

    for term in _affinity_terms(pod, "podAffinity"):
        anywhere = any(_concerns(term, namespace, p) for r in rooms for p in r.pods)
        if not near(term) and (anywhere or not _concerns(term, namespace, pod)):
            return "node(s) didn't match pod affinity rules"
    if any(near(term) for term in _affinity_terms(pod, "podAntiAffinity")):
        return "node(s) didn't match pod anti-affinity rules"
    for other in rooms:
        for held, term in other.avoiding:
            key = term["topologyKey"]
            here = room.labels.get(key)
            same = here is not None and here == other.labels.get(key)
            if same and _concerns(term, held["metadata"].get("namespace", ""), pod):
                return "node(s) didn't satisfy existing pods anti-affinity rules"
    return None


def spread(pod: JSON, room: Room, rooms: Sequence[Room]) -> bool:
    """Whether the node keeps all hard topology spread constraints."""
    for one in pod["spec"].get("topologySpreadConstraints") or ():
        if one.get("whenUnsatisfiable", "DoNotSchedule") != "DoNotSchedule":
            continue
        key, counts = one["topologyKey"], Counter[str]()
        for other in rooms:
            if key in other.labels and node_affinity(pod, other):
                counts[other.labels[key]] += sum(
                    p["metadata"].get("namespace") == pod["metadata"].get("namespace")
                    and matches(one.get("labelSelector"), p["metadata"].get("labels"))
                    for p in other.pods
                )
        if key not in room.labels:
            return False
        own = 1 if matches(one.get("labelSelector"), pod["metadata"].get("labels")) else 0
        if counts[room.labels[key]] + own - min(counts.values(), default=0) > int(one.get("maxSkew", 1)):
            return False
    return True


def choose(pod: JSON, rooms: Sequence[Room]) -> tuple[str | None, str]:
    """(node, "") or (None, why not), the latter as upstream words it."""
    why: Counter[str] = Counter()
    possible = []
    for room in rooms:
        reasons = _against(pod, room, rooms)
        if reasons:
            why.update(reasons)
        else:
            possible.append(room)
    if possible:
        return min(possible, key=lambda r: (_cost(pod, r), r.name)).name, ""
    listed = ", ".join(f"{n} {text}" for text, n in sorted(why.items()))
    return None, f"0/{len(rooms)} nodes are available: {listed or 'no nodes'}."


def _against(pod: JSON, room: Room, rooms: Sequence[Room]) -> list[str]:
    spec = room.node.get("spec") or {}
    unschedulable = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}
    if spec.get("unschedulable") and not tolerates(pod, unschedulable):
        return ["node(s) were unschedulable"]
    for taint in spec.get("taints") or ():
        if taint.get("effect") in ("NoSchedule", "NoExecute") and not tolerates(pod, taint):
            value = taint.get("value") or ""
            return [f"node(s) had untolerated taint {{{taint['key']}: {value}}}"]
    if not node_affinity(pod, room):
        return ["node(s) didn't match Pod's node affinity/selector"]
    if reasons := fits(pod, room):
        return reasons
    if reason := pod_affinity(pod, room, rooms):
        return [reason]
    return [] if spread(pod, room, rooms) else ["node(s) didn't match pod topology spread constraints"]


def _cost(pod: JSON, room: Room) -> tuple[float, ...]:
    """Lower is better: siblings of the same owner, missed preferences, then the number of pods of the namespace and of all."""
    siblings = sum(room.owners[r["uid"]] for r in pod["metadata"].get("ownerReferences") or ())
    preferred = ((pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}).get(
        "preferredDuringSchedulingIgnoredDuringExecution"
    )
    liked = sum(int(p["weight"]) for p in preferred or () if _term(room, p["preference"]))
    avoided = sum(
        t.get("effect") == "PreferNoSchedule" and not tolerates(pod, t)
        for t in (room.node.get("spec") or {}).get("taints") or ()
    )
    neighbours = room.namespaces[str(pod["metadata"].get("namespace"))]
    return (avoided, siblings - liked, neighbours, len(room.pods))
