"""The scheduler: pods without a node get one, one after the other, each seeing those before it."""

from __future__ import annotations

import asyncio
from typing import Any

from pervade.cluster.controllers import objects as ob
from pervade.cluster.controllers.hub import Hub
from pervade.cluster.controllers.objects import JSON
from pervade.cluster.controllers.placement import Room, choose
from pervade.cluster.controllers.queue import WorkQueue
from pervade.kube.errors import ApiError
from pervade.kube.resources import NODES, PODS

_NAME = "default-scheduler"


def _place(pod: JSON) -> list[str]:
    """The node that a pod takes room on."""
    ended = (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
    return [pod["spec"]["nodeName"]] if pod["spec"].get("nodeName") and not ended else []


class Scheduler:
    """One worker, so that a decision always knows the last one (`assumed` until the reflector shows it)."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.pods, self.nodes = hub.watch(PODS), hub.watch(NODES)
        self.queue = WorkQueue("scheduler", self.sync, workers=1)
        self.assumed: dict[str, tuple[str, JSON]] = {}
        """uid → the node decided for a pod, and the pod."""
        self._rooms: dict[str, Room] = {}
        self.unplaced: set[Any] = set()
        self.pods.add_index("node", _place)
        self.pods.on_change(self._pod)
        self.nodes.on_change(self._node)

    def _pod(self, _kind: str, old: JSON | None, new: JSON | None) -> None:
        pod = new or old
        if pod is None:
            return
        for one in (old, new):
            for name in _place(one) if one is not None else ():
                self._rooms.pop(name, None)
        if (
            new is not None
            and not new["spec"].get("nodeName")
            and new["spec"].get("schedulerName", _NAME) == _NAME
        ):
            if not new["spec"].get("schedulingGates"):
                self.queue.add(ob.key_of(new))
        else:
            self._forget(pod)
            self.unplaced.discard(ob.key_of(pod))
        if new is None or not ob.active(pod):
            for key in list(self.unplaced):
                self.queue.add(key)

    def _assume(self, pod: JSON, node: str) -> None:
        self.assumed[pod["metadata"]["uid"]] = node, pod
        self._rooms.pop(node, None)

    def _forget(self, pod: JSON) -> None:
        held = self.assumed.pop(pod["metadata"]["uid"], None)
        if held is not None:
            self._rooms.pop(held[0], None)

    def _node(self, _kind: str, old: JSON | None, new: JSON | None) -> None:
        self._rooms.pop((new or old or {})["metadata"]["name"], None)
        if old is not None and new is not None:
            same = old.get("spec") == new.get("spec") and old["metadata"].get("labels") == new[
                "metadata"
            ].get("labels")
            if same and (ob.condition(old, "Ready") or {}).get("status") == (
                ob.condition(new, "Ready") or {}
            ).get("status"):
                return
        for key in list(self.unplaced):
            self.queue.add(key)

    def rooms(self) -> list[Room]:
        """Nodes with their pods, those just decided included. Counted again is only what changed."""
        out = []
        for node in self.nodes.items():
            if ob.terminating(node):
                continue
            name = node["metadata"]["name"]
            room = self._rooms.get(name)
            if room is None:
                decided = [p for at, p in self.assumed.values() if at == name]
                room = self._rooms[name] = Room(node, [*self.pods.by_index("node", name), *decided])
            out.append(room)
        return out

    async def sync(self, key: Any) -> float | None:
        pod = self.pods.get(*key)
        if (
            pod is None
            or pod["spec"].get("nodeName")
            or ob.terminating(pod)
            or pod["metadata"]["uid"] in self.assumed
        ):
            return None
        node, why = choose(pod, self.rooms())
        meta = pod["metadata"]
        if node is None:
            self.unplaced.add(key)
            await self._unschedulable(pod, why)
            return 30.0
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": meta["name"], "namespace": meta["namespace"], "uid": meta["uid"]},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        }
        self._assume(pod, node)
        try:
            await self.hub.client.create(
                PODS, binding, meta["namespace"], name=meta["name"], subresource="binding"
            )
        except ApiError as error:
            self._forget(pod)
            if error.not_found or error.conflict:
                return None
            raise
        except (asyncio.CancelledError, OSError):
            self._forget(pod)
            raise
        text = f"Successfully assigned {meta['namespace']}/{meta['name']} to {node}"
        self.hub.event(pod, "v1", "Pod", _NAME, "Scheduled", text)
        return None

    async def _unschedulable(self, pod: JSON, why: str) -> None:
        found = ob.condition(pod, "PodScheduled")
        if found is not None and found.get("message") == why:
            return
        meta = pod["metadata"]
        held = [c for c in (pod.get("status") or {}).get("conditions") or () if c["type"] != "PodScheduled"]
        row = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": why,
            "lastTransitionTime": ob.now(),
        }
        body = {"status": {"conditions": [*held, {"lastProbeTime": None, **row}]}}
        await self.hub.client.patch(PODS, meta["name"], body, meta["namespace"], subresource="status")
        self.hub.event(pod, "v1", "Pod", _NAME, "FailedScheduling", why, warn=True)
