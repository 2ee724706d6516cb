"""The life of nodes: a node whose lease is not renewed is NotReady, and its pods are let go in time."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from pervade.cluster.controllers import objects as ob
from pervade.cluster.controllers.hub import Hub
from pervade.cluster.controllers.objects import JSON
from pervade.cluster.controllers.placement import tolerates
from pervade.cluster.controllers.queue import WorkQueue
from pervade.kube.errors import ApiError
from pervade.kube.resources import LEASES, NODES, PODS
from pervade.wire.http import ClientError

GRACE = 40.0
_UNREACHABLE, _NOT_READY = "node.kubernetes.io/unreachable", "node.kubernetes.io/not-ready"
_OURS = (_UNREACHABLE, _NOT_READY)
_LEASES = "kube-node-lease"
_LOOK, _SLOW, _DOUBT = 5.0, 2.0, 0.4
_MOST_ENDED = 12500
"""Upstream's --terminated-pod-gc-threshold."""
_STATUS = "NodeStatusUnknown", "Kubelet stopped posting node status."


def wanted_taints(ready: str) -> set[tuple[str, str]]:
    """(key, effect) a node's Ready condition calls for."""
    key = {"True": None, "False": _NOT_READY}.get(ready, _UNREACHABLE)
    return {(key, effect) for effect in ("NoSchedule", "NoExecute")} if key else set()


def stays(pod: JSON, taints: list[JSON], now: float) -> float | None:
    """Seconds a pod may still stay with the NoExecute `taints`: None for ever, 0 for not at all. Pure.

    For each taint the first toleration that covers it counts, as upstream.
    """
    left: float | None = None
    for taint in taints:
        if taint.get("effect") != "NoExecute":
            continue
        rows = pod["spec"].get("tolerations") or ()
        found = next((t for t in rows if tolerates({"spec": {"tolerations": [t]}}, taint)), None)
        if found is None:
            return 0.0
        if found.get("tolerationSeconds") is None:
            continue
        since = ob.epoch(taint["timeAdded"]) if taint.get("timeAdded") else now
        rest = max(since + float(found["tolerationSeconds"]) - now, 0.0)
        left = rest if left is None else min(left, rest)
    return left


def _health(node: JSON | None) -> tuple[Any, Any]:
    """Status and heartbeat of the Ready condition."""
    found = (ob.condition(node, "Ready") if node is not None else None) or {}
    return found.get("status"), found.get("lastHeartbeatTime")


class Nodes:
    """Watches leases from when this process saw them change, and counts no time in which the API was away:
    an API server's absence condemns no node.
    """

    def __init__(self, hub: Hub, grace: float = GRACE) -> None:
        self.hub, self.grace = hub, grace
        self._away = 0.0
        """When the API was last seen to be away."""
        self._ended: dict[tuple[str, str], None] = {}
        """Pods that ended, in the order in which that was seen."""
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
            back = self._silent(name) >= self.grace
            self.heard[name] = time.monotonic()
            if back:
                self.queue.add(name)

    def _silent(self, name: str) -> float:
        """Seconds since a node was heard, or since it could not have been."""
        if self.leases.failures:
            self._away = time.monotonic()
        return time.monotonic() - max(self.heard.get(name, 0.0), self._away)

    def _node(self, _kind: str, old: JSON | None, new: JSON | None) -> None:
        name = (new or old or {})["metadata"]["name"]
        if new is None:
            self.heard.pop(name, None)
        elif name not in self.heard or (_health(old) != _health(new) and _health(new)[0] != "Unknown"):
            # A kubelet that comes back may write its status before its lease.
            self.heard[name] = time.monotonic()
        before = old and (old["spec"].get("taints"), (ob.condition(old, "Ready") or {}).get("status"))
        after = new and (new["spec"].get("taints"), (ob.condition(new, "Ready") or {}).get("status"))
        if before != after:
            self.queue.add(name)
            for pod in list(self.pods.items()):
                if pod["spec"].get("nodeName") == name:
                    self.evictions.add(ob.key_of(pod))

    def _pod(self, _kind: str, old: JSON | None, new: JSON | None) -> None:
        self._count(old, new)
        if new is not None and new["spec"].get("nodeName"):
            was = (old or {}).get("spec", {}).get("nodeName")
            if was != new["spec"]["nodeName"] or self.nodes.get("", new["spec"]["nodeName"]) is None:
                self.evictions.add(ob.key_of(new))

    async def sync(self, name: Any) -> float | None:
        """Set a silent node's conditions to Unknown, and the taints that its readiness calls for."""
        node = self.nodes.get("", name)
        if node is None:
            return None
        silent = self._silent(name)
        if silent >= self.grace * _DOUBT:
            await self._ask(name)
            silent = self._silent(name)
        if silent >= self.grace:
            await self._unknown(node)
        ready = (ob.condition(node, "Ready") or {}).get("status", "Unknown")
        await self._taint(node, "Unknown" if silent >= self.grace else str(ready))
        # Often enough to see that the API was away; no call is made while the lease is renewed in time.
        return min(self.grace - silent, _LOOK) + 0.1 if silent < self.grace else None

    async def _ask(self, name: str) -> None:
        """Read a silent node's lease itself: an API that does not answer in time could not have told of a renewal."""
        begun, held = time.monotonic(), self.leases.get(_LEASES, name)
        try:
            lease = await asyncio.wait_for(self.hub.client.get(LEASES, name, _LEASES), _SLOW)
        except ApiError as error:
            if not error.not_found:
                raise
            return
        except (ClientError, OSError, TimeoutError):
            self._away = time.monotonic()
            raise
        if held is not None and lease["spec"].get("renewTime") != held["spec"].get("renewTime"):
            # The watch is behind.
            self.heard[name] = begun

    def _count(self, old: JSON | None, new: JSON | None) -> None:
        """Remember ended pods; the oldest beyond a large number are deleted."""
        key = ob.key_of(new or old or {})
        if new is None:
            self._ended.pop(key, None)
        elif (new.get("status") or {}).get("phase") in ("Succeeded", "Failed") and not ob.terminating(new):
            self._ended[key] = None
            if len(self._ended) > _MOST_ENDED:
                self.evictions.add(next(iter(self._ended)))

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
        if pod is not None and key in self._ended and len(self._ended) > _MOST_ENDED:
            self._ended.pop(key)
            await self._delete(pod, 0)
            return None
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
