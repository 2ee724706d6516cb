"""DaemonSets: one pod on every node that suits, rolled over by maxUnavailable or maxSurge."""

from __future__ import annotations

import time
from typing import Any

from pervade.cluster.controllers import objects as ob
from pervade.cluster.controllers.hub import Hub
from pervade.cluster.controllers.objects import JSON
from pervade.cluster.controllers.owned import OwnedPods, write_status
from pervade.cluster.controllers.placement import Room, node_affinity, tolerates
from pervade.cluster.controllers.queue import WorkQueue
from pervade.cluster.controllers.replicaset import pod_from
from pervade.cluster.controllers.revisions import HASH, Revisions, mark_of
from pervade.kube.resources import DAEMON_SETS, NODES

_TOLERATED = (
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
)
_NETWORK = ("node.kubernetes.io/network-unavailable", "NoSchedule")


def pod_for(owner: JSON, node: str, mark: str) -> JSON:
    """The pod of one node: it tolerates what takes ordinary pods away, and only that node suits it."""
    pod = pod_from(owner, "apps/v1", "DaemonSet")
    pod["metadata"]["labels"][HASH] = mark
    spec = pod["spec"] = dict(pod["spec"])
    wanted = [*_TOLERATED, *([_NETWORK] if spec.get("hostNetwork") else [])]
    held = list(spec.get("tolerations") or [])
    held += [
        row
        for key, effect in wanted
        if (row := {"key": key, "operator": "Exists", "effect": effect}) not in held
    ]
    spec["tolerations"] = held
    affinity = dict(spec.get("affinity") or {})
    nodes = dict(affinity.get("nodeAffinity") or {})
    field = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
    # The template's own terms were checked when the node was chosen.
    nodes["requiredDuringSchedulingIgnoredDuringExecution"] = {"nodeSelectorTerms": [field]}
    affinity["nodeAffinity"] = nodes
    spec["affinity"] = affinity
    return pod


def target_of(pod: JSON) -> str:
    """The node a pod runs on or is meant for."""
    if pod["spec"].get("nodeName"):
        return str(pod["spec"]["nodeName"])
    required = ((pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    ) or {}
    for term in required.get("nodeSelectorTerms") or ():
        for one in term.get("matchFields") or ():
            if one.get("key") == "metadata.name" and one.get("values"):
                return str(one["values"][0])
    return ""


def suits(owner: JSON, node: JSON) -> tuple[bool, bool]:
    """(a pod should start there, a running one may stay). Pure."""
    probe = pod_for(owner, "", "")
    probe["spec"]["affinity"] = owner["spec"]["template"]["spec"].get("affinity") or {}
    if not node_affinity(probe, Room(node, [])):
        return False, False
    taints = [t for t in (node.get("spec") or {}).get("taints") or () if not tolerates(probe, t)]
    start = not any(t.get("effect") in ("NoSchedule", "NoExecute") for t in taints)
    return start, not any(t.get("effect") == "NoExecute" for t in taints)


def _doubles(pods: list[JSON]) -> list[JSON]:
    """All but the oldest of the pods of one revision on one node."""
    seen: set[str] = set()
    out = []
    for pod in sorted(pods, key=lambda p: (p["metadata"]["creationTimestamp"], p["metadata"]["name"])):
        if not ob.terminating(pod):
            if mark_of(pod) in seen:
                out.append(pod)
            seen.add(mark_of(pod))
    return out


class DaemonSets:
    """One sync looks at every node once: O(nodes + pods of the set)."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.queue = WorkQueue("daemonset", self.sync)
        self.sets, self.nodes = hub.watch(DAEMON_SETS), hub.watch(NODES)
        self.revisions = Revisions(hub, "apps/v1", "DaemonSet")
        self.owned = OwnedPods(hub, DAEMON_SETS, self.queue, "daemonset-controller")
        self._failures: dict[tuple[str, str], tuple[int, float]] = {}
        """(uid of the set, node) → how often its pod failed there, and when the next may start."""
        self.sets.on_change(lambda _k, old, new: self.queue.add(ob.key_of(new or old)))
        self.nodes.on_change(self._node)

    def _node(self, _kind: str, old: JSON | None, new: JSON | None) -> None:
        def view(node: JSON | None) -> Any:
            return node and (node["metadata"].get("labels"), (node.get("spec") or {}).get("taints"))

        if view(old) != view(new):
            for one in self.sets.items():
                self.queue.add(ob.key_of(one))

    async def sync(self, key: Any) -> float | None:
        owner = self.sets.get(*key)
        if owner is None:
            self.owned.forget(key)
            alive = {s["metadata"]["uid"] for s in self.sets.items()}
            self._failures = {k: v for k, v in self._failures.items() if k[0] in alive}
            return None
        if ob.terminating(owner):
            return None
        current = await self.revisions.current(owner)
        mark = mark_of(current)
        pods: dict[str, list[JSON]] = {}
        for pod in await self.owned.claim(owner):
            pods.setdefault(target_of(pod), []).append(pod)
        wish: float | None = None
        if self.owned.settled(owner):
            wish = await self._place(owner, mark, pods)
            await self._roll(owner, mark, pods)
        else:
            wish = 1.0
        used = {mark_of(p) for rows in pods.values() for p in rows} | {mark}
        await self.revisions.trim(owner, used)
        later = await self._status(owner, mark, pods)
        return min((w for w in (wish, later) if w is not None), default=None)

    def _pause(self, owner: JSON, node: str) -> float:
        """Seconds until a failed pod is replaced: at once, then 1 s doubling to 15 minutes, until one is Ready."""
        key = (owner["metadata"]["uid"], node)
        count, due = self._failures.get(key, (0, 0.0))
        now = time.monotonic()
        if due > now:
            return due - now
        self._failures[key] = (count + 1, now + min(2.0**count, 900.0))
        return 0.0

    async def _place(self, owner: JSON, mark: str, pods: dict[str, list[JSON]]) -> float | None:
        """Pods where they are missing, none where they do not belong; when to look again."""
        wish: float | None = None
        nodes = {n["metadata"]["name"]: n for n in self.nodes.items()}
        for name, node in nodes.items():
            held = pods.get(name, [])
            ended = [p for p in held if (p.get("status") or {}).get("phase") in ("Failed", "Succeeded")]
            if any(ob.ready(p) for p in held):
                self._failures.pop((owner["metadata"]["uid"], name), None)
            for pod in ended:
                if not ob.terminating(pod):
                    left = self._pause(owner, name)
                    if left > 0:
                        wish = left if wish is None else min(wish, left)
                        continue
                    self.owned.say(owner, "FailedDaemonPod", f"Found failed daemon pod {pod['metadata']['name']} on node {name}, will try to kill it", warn=True)  # fmt: skip
                    await self.owned.drop(owner, pod)
            start, stay = suits(owner, node)
            live = [p for p in held if p not in ended]
            if not live and not ended and start:
                await self.owned.make(owner, pod_for(owner, name, mark))
            surplus = live if not stay else _doubles(live)
            for pod in surplus:
                if not ob.terminating(pod):
                    await self.owned.drop(owner, pod)
        for name in pods.keys() - nodes.keys():
            for pod in pods[name]:
                if not ob.terminating(pod):
                    await self.owned.drop(owner, pod)
        return wish

    async def _roll(self, owner: JSON, mark: str, pods: dict[str, list[JSON]]) -> None:
        """The next step of a rolling update; nothing with OnDelete."""
        strategy = owner["spec"].get("updateStrategy") or {}
        if strategy.get("type", "RollingUpdate") != "RollingUpdate":
            return
        rolling = strategy.get("rollingUpdate") or {}
        nodes = [n["metadata"]["name"] for n in self.nodes.items() if suits(owner, n)[1]]
        surge = ob.amount(rolling.get("maxSurge"), len(nodes), up=True)
        unavailable = ob.amount(rolling.get("maxUnavailable", 1), len(nodes), up=True)
        at, least = time.time(), int(owner["spec"].get("minReadySeconds") or 0)

        def good(pod: JSON) -> bool:
            return ob.active(pod) and ob.available(pod, least, at)

        down = surging = 0
        olds: list[tuple[str, JSON, JSON | None]] = []
        for name in nodes:
            live = [p for p in pods.get(name, []) if ob.active(p)]
            new = next((p for p in live if mark_of(p) == mark), None)
            old = next((p for p in live if mark_of(p) != mark), None)
            down += not any(good(p) for p in live)
            surging += new is not None and old is not None
            if old is not None:
                olds.append((name, old, new))
        for name, old, new in olds:
            if surge:
                if new is None and surging < surge and not any(ob.terminating(p) for p in pods.get(name, [])):
                    surging += 1
                    await self.owned.make(owner, pod_for(owner, name, mark))
                elif new is not None and (good(new) or not good(old)):
                    await self.owned.drop(owner, old)
            elif not good(old):
                await self.owned.drop(owner, old)
            elif down < max(unavailable, 1):
                down += 1
                await self.owned.drop(owner, old)

    async def _status(self, owner: JSON, mark: str, pods: dict[str, list[JSON]]) -> float | None:
        at, least = time.time(), int(owner["spec"].get("minReadySeconds") or 0)
        found = dict.fromkeys(
            (
                "desiredNumberScheduled",
                "currentNumberScheduled",
                "numberMisscheduled",
                "numberReady",
                "updatedNumberScheduled",
                "numberAvailable",
                "numberUnavailable",
            ),
            0,
        )
        waiting = False
        for node in self.nodes.items():
            live = [p for p in pods.get(node["metadata"]["name"], []) if ob.active(p)]
            start, _ = suits(owner, node)
            if not start:
                found["numberMisscheduled"] += bool(live)
                continue
            found["desiredNumberScheduled"] += 1
            if not live:
                continue
            found["currentNumberScheduled"] += 1
            ready = [p for p in live if ob.ready(p)]
            found["numberReady"] += bool(ready)
            found["updatedNumberScheduled"] += any(mark_of(p) == mark for p in live)
            good = any(ob.available(p, least, at) for p in ready)
            found["numberAvailable"] += good
            waiting |= bool(ready) and not good
        found["numberUnavailable"] = found["desiredNumberScheduled"] - found["numberAvailable"]
        found["observedGeneration"] = owner["metadata"].get("generation", 0)
        await write_status(self.hub, DAEMON_SETS, owner, found, lambda _field: 0)
        return least + 0.2 if waiting else None
