"""The life of nodes: a node whose lease is not renewed is NotReady, and its pods are let go in time."""

from __future__ import annotations

import time
from typing import Any

from pervade.cluster.controllers import objects as ob
from pervade.cluster.controllers.hub import Hub
from pervade.cluster.controllers.objects import JSON
from pervade.cluster.controllers.queue import WorkQueue
from pervade.kube.errors import ApiError
from pervade.kube.resources import LEASES, NODES, PODS

GRACE = 40.0
_UNREACHABLE, _NOT_READY = "node.kubernetes.io/unreachable", "node.kubernetes.io/not-ready"
_OURS = (_UNREACHABLE, _NOT_READY)
_LEASES = "kube-node-lease"
_STATUS = "NodeStatusUnknown", "Kubelet stopped posting node status."


def wanted_taints(ready: str) -> set[tuple[str, str]]:
    """(key, effect) a node's Ready condition calls for."""
    key = {"True": None, "False": _NOT_READY}.get(ready, _UNREACHABLE)
    return {(key, effect) for effect in ("NoSchedule", "NoExecute")} if key else set()


def stays(pod: JSON, taints: list[JSON], now: float) -> float | None:
    """Seconds a pod may still stay with the NoExecute `taints`: None for ever, 0 for not at all. Pure."""
    left: float | None = None
    for taint in taints:
        if taint.get("effect") != "NoExecute":
            continue
        limits = []
        for one in pod["spec"].get("tolerations") or ():
            if one.get("effect") not in (None, "", "NoExecute"):
                continue
            everything = not one.get("key") and one.get("operator") == "Exists"
            same = one.get("key") == taint["key"] and (
                one.get("operator") == "Exists" or (one.get("value") or "") == (taint.get("value") or "")
            )
            if everything or same:
                limits.append(one.get("tolerationSeconds"))
        if not limits:
            return 0.0
        bounded = [float(s) for s in limits if s is not None]
        if len(bounded) < len(limits):
            continue
        since = ob.epoch(taint["timeAdded"]) if taint.get("timeAdded") else now
        rest = max(since + min(bounded) - now, 0.0)
        left = rest if left is None else min(left, rest)
    return left


class Nodes:
    """Watches leases from when this process saw them change, so that an API server's absence condemns no node."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.nodes, self.leases, self.pods = hub.watch(NODES), hub.watch(LEASES), hub.watch(PODS)
        self.queue = WorkQueue("nodes", self.sync, workers=2)
        self.evictions = WorkQueue("evictions", self.evict, workers=2)
        self.heard: dict[str, float] = {}
        self.leases.on_change(self._lease)
        self.nodes.on_change(self._node)
        self.pods.on_change(self._pod)

    def _lease(self, _kind: str, old: JSON | None, new: JSON | None) -> None:
        if new is None or new["metadata"].get("namespace") != _LEASES:
            return
        name = new["metadata"]["name"]
        if old is None or (old.get("spec") or {}).get("renewTime") != (new.get("spec") or {}).get(
            "renewTime"
        ):
            first = time.monotonic() - self.heard.get(name, -GRACE) >= GRACE
            self.heard[name] = time.monotonic()
            if first:
                self.queue.add(name)

    def _node(self, _kind: str, old: JSON | None, new: JSON | None) -> None:
        name = (new or old or {})["metadata"]["name"]
        if new is None:
            self.heard.pop(name, None)
        self.heard.setdefault(name, time.monotonic())
        before = old and (old["spec"].get("taints"), (ob.condition(old, "Ready") or {}).get("status"))
        after = new and (new["spec"].get("taints"), (ob.condition(new, "Ready") or {}).get("status"))
        if before != after:
            self.queue.add(name)
            for pod in list(self.pods.items()):
                if pod["spec"].get("nodeName") == name:
                    self.evictions.add(ob.key_of(pod))

    def _pod(self, _kind: str, old: JSON | None, new: JSON | None) -> None:
        if new is not None and new["spec"].get("nodeName"):
            was = (old or {}).get("spec", {}).get("nodeName")
            if was != new["spec"]["nodeName"] or self.nodes.get("", new["spec"]["nodeName"]) is None:
                self.evictions.add(ob.key_of(new))

    async def sync(self, name: Any) -> float | None:
        """Set a silent node's conditions to Unknown, and the taints that its readiness calls for."""
        node = self.nodes.get("", name)
        if node is None:
            return None
        silent = time.monotonic() - self.heard.get(name, 0.0)
        if silent >= GRACE:
            await self._unknown(node)
        ready = (ob.condition(node, "Ready") or {}).get("status", "Unknown")
        await self._taint(node, "Unknown" if silent >= GRACE else str(ready))
        return max(GRACE - silent, 0.0) + 0.1 if silent < GRACE else None

    async def _unknown(self, node: JSON) -> None:
        name = node["metadata"]["name"]
        conditions = list((node.get("status") or {}).get("conditions") or [])
        if (ob.condition(node, "Ready") or {}).get("status") == "Unknown":
            return
        reason, text = _STATUS
        at = ob.now()
        row = {"status": "Unknown", "reason": reason, "message": text, "lastTransitionTime": at}
        made = [{**c, **row} for c in conditions] or [{"type": "Ready", **row}]
        await self.hub.client.patch(NODES, name, {"status": {"conditions": made}}, subresource="status")
        self.hub.event(
            node, "v1", "Node", "node-controller", "NodeNotReady", f"Node {name} status is now: NodeNotReady"
        )
        for pod in list(self.pods.items()):
            if pod["spec"].get("nodeName") == name and ob.ready(pod):
                await self._not_ready(pod)

    async def _not_ready(self, pod: JSON) -> None:
        """Take a pod of a silent node out of its Services."""
        held = (pod.get("status") or {}).get("conditions") or []
        made = [
            {**c, "status": "False", "lastTransitionTime": ob.now()} if c["type"] == "Ready" else c
            for c in held
        ]
        try:
            await self.hub.client.patch(
                PODS, pod["metadata"]["name"], {"status": {"conditions": made}}, pod["metadata"]["namespace"], subresource="status"
            )  # fmt: skip
        except ApiError as error:
            if not error.not_found:
                raise

    async def _taint(self, node: JSON, ready: str) -> None:
        held = list(node["spec"].get("taints") or [])
        wanted = wanted_taints(ready)
        have = {(t["key"], t["effect"]) for t in held if t["key"] in _OURS}
        if have == wanted:
            return
        kept = [t for t in held if t["key"] not in _OURS or (t["key"], t["effect"]) in wanted]
        kept += [{"key": k, "effect": e, "timeAdded": ob.now()} for k, e in sorted(wanted - have)]
        meta = {"resourceVersion": node["metadata"]["resourceVersion"]}
        await self.hub.client.patch(
            NODES, node["metadata"]["name"], {"metadata": meta, "spec": {"taints": kept or None}}
        )

    async def evict(self, key: Any) -> float | None:
        """Delete a pod whose node is gone, or that does not tolerate its node's NoExecute taints any longer."""
        pod = self.pods.get(*key)
        name = pod["spec"].get("nodeName") if pod is not None else None
        if pod is None or not name:
            return None
        node = self.nodes.get("", name)
        if node is None:
            try:
                await self.hub.client.get(NODES, name)
            except ApiError as error:
                if not error.not_found:
                    raise
                await self._delete(pod, 0)
            return None
        if ob.terminating(pod):
            return None
        taints = [t for t in node["spec"].get("taints") or () if t.get("effect") == "NoExecute"]
        left = stays(pod, taints, time.time()) if taints else None
        if left is None:
            return None
        if left > 0:
            return left + 0.05
        text = f"Marking for deletion Pod {key[0]}/{key[1]}"
        self.hub.event(pod, "v1", "Pod", "taint-eviction-controller", "TaintManagerEviction", text)
        await self._delete(pod, None)
        return None

    async def _delete(self, pod: JSON, grace: int | None) -> None:
        meta = pod["metadata"]
        try:
            await self.hub.client.delete(
                PODS, meta["name"], meta["namespace"], grace_seconds=grace, uid=meta["uid"]
            )
        except ApiError as error:
            if not (error.not_found or error.conflict):
                raise
