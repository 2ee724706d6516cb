"""ReplicaSets: as many pods of a template as asked for."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Hashable
from typing import Any

from pervade.cluster.controllers import objects as ob
from pervade.cluster.controllers.hub import Hub
from pervade.cluster.controllers.objects import JSON
from pervade.cluster.controllers.queue import WorkQueue
from pervade.kube.errors import ApiError
from pervade.kube.resources import PODS, REPLICA_SETS

_BURST = 50


class ReplicaSets:
    """Starts after the first complete list and remembers what it made until that is seen, so no pod is made twice."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.sets, self.pods = hub.watch(REPLICA_SETS), hub.watch(PODS)
        self.queue = WorkQueue("replicaset", self.sync)
        self.expected: dict[Hashable, set[str]] = {}
        """Names (created) not yet seen by the reflector, per set."""
        self.sets.on_change(lambda _k, old, new: self.queue.add(ob.key_of(new or old)))
        self.pods.on_change(self._pod)

    def _pod(self, _kind: str, old: JSON | None, new: JSON | None) -> None:
        for pod in (old, new):
            ref = ob.owner(pod) if pod else None
            if pod is not None and ref is not None and ref["kind"] == "ReplicaSet":
                self.queue.add((pod["metadata"]["namespace"], ref["name"]))
        if new is not None and old is None and ob.owner(new) is None:
            for rs in self.sets.items():
                same = rs["metadata"]["namespace"] == new["metadata"]["namespace"]
                if same and ob.matches(rs["spec"].get("selector"), new["metadata"].get("labels")):
                    self.queue.add(ob.key_of(rs))

    async def sync(self, key: Any) -> float | None:
        rs = self.sets.get(*key)
        if rs is None:
            self.expected.pop(key, None)
            return None
        namespace, _ = key
        held = [p for p in self.pods.items() if p["metadata"]["namespace"] == namespace]
        mine = [p for p in held if ob.owned_by(p, rs["metadata"]["uid"])]
        if not ob.terminating(rs):
            mine += await self._adopt(rs, held)
        seen = {p["metadata"]["name"] for p in mine}
        pending = self.expected.get(key, set()) - seen
        self.expected[key] = pending
        live = [p for p in mine if ob.active(p)]
        wish: float | None = None
        if not ob.terminating(rs):
            if pending:
                wish = 5.0
                # The reflector is behind what was created a moment ago; it will wake this set when it has caught up.
                self.hub.spawn(self._expire(key, set(pending)))
            else:
                await self._scale(key, rs, live)
        return await self._status(rs, mine, live) or wish

    async def _expire(self, key: Hashable, names: set[str]) -> None:
        await asyncio.sleep(5)
        if key in self.expected:
            self.expected[key] -= names

    async def _adopt(self, rs: JSON, held: list[JSON]) -> list[JSON]:
        out = []
        for pod in held:
            if (
                ob.owner(pod) is None
                and ob.active(pod)
                and ob.matches(rs["spec"]["selector"], pod["metadata"].get("labels"))
            ):
                refs = [
                    *(pod["metadata"].get("ownerReferences") or []),
                    ob.reference(rs, "apps/v1", "ReplicaSet"),
                ]
                meta = {"ownerReferences": refs, "uid": pod["metadata"]["uid"]}
                out.append(
                    await self.hub.client.patch(
                        PODS, pod["metadata"]["name"], {"metadata": meta}, pod["metadata"]["namespace"]
                    )
                )
        return out

    async def _scale(self, key: Hashable, rs: JSON, live: list[JSON]) -> None:
        wanted = int(rs["spec"].get("replicas", 1))
        if len(live) < wanted:
            for _ in range(min(wanted - len(live), _BURST)):
                pod = pod_from(rs, "apps/v1", "ReplicaSet")
                try:
                    made = await self.hub.client.create(PODS, pod)
                except ApiError as error:
                    self._say(rs, "FailedCreate", f"Error creating: {error.message}", warn=True)
                    raise
                self.expected[key].add(made["metadata"]["name"])
                self._say(rs, "SuccessfulCreate", f"Created pod: {made['metadata']['name']}")
        elif len(live) > wanted:
            crowd = Counter(p["spec"].get("nodeName") or "" for p in live)
            for pod in sorted(live, key=lambda p: ob.kill_rank(p, crowd))[: len(live) - wanted]:
                meta = pod["metadata"]
                try:
                    await self.hub.client.delete(PODS, meta["name"], meta["namespace"], uid=meta["uid"])
                except ApiError as error:
                    if not error.not_found:
                        raise
                self._say(rs, "SuccessfulDelete", f"Deleted pod: {meta['name']}")

    def _say(self, rs: JSON, reason: str, message: str, *, warn: bool = False) -> None:
        self.hub.event(rs, "apps/v1", "ReplicaSet", "replicaset-controller", reason, message, warn=warn)

    async def _status(self, rs: JSON, mine: list[JSON], live: list[JSON]) -> float | None:
        at, least = time.time(), int(rs["spec"].get("minReadySeconds") or 0)
        labels = (rs["spec"]["template"].get("metadata") or {}).get("labels") or {}
        ready = [p for p in live if ob.ready(p)]
        count = sum(ob.available(p, least, at) for p in ready)
        new: JSON = {
            "replicas": len(live),
            "fullyLabeledReplicas": sum(
                all((p["metadata"].get("labels") or {}).get(k) == v for k, v in labels.items()) for p in live
            ),
            "readyReplicas": len(ready),
            "availableReplicas": count,
            "terminatingReplicas": sum(ob.terminating(p) for p in mine),
            "observedGeneration": rs["metadata"].get("generation", 0),
        }
        old = rs.get("status") or {}
        if any(old.get(k, 0) != v for k, v in new.items()):
            meta = rs["metadata"]
            await self.hub.client.patch(
                REPLICA_SETS, meta["name"], {"status": new}, meta["namespace"], subresource="status"
            )
        return least + 0.2 if least and count < len(ready) else None


def pod_from(
    parent: JSON, api_version: str, kind: str, *, name: str | None = None, template: JSON | None = None
) -> JSON:
    """A pod made from an owner's template."""
    source = template or parent["spec"]["template"]
    meta = source.get("metadata") or {}
    out: JSON = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "namespace": parent["metadata"]["namespace"],
            "labels": dict(meta.get("labels") or {}),
            "annotations": dict(meta.get("annotations") or {}),
            "ownerReferences": [ob.reference(parent, api_version, kind)],
        },
        "spec": source["spec"],
    }
    if meta.get("finalizers"):
        out["metadata"]["finalizers"] = list(meta["finalizers"])
    if name:
        out["metadata"]["name"] = name
    else:
        out["metadata"]["generateName"] = f"{parent['metadata']['name']}-"
    return out
