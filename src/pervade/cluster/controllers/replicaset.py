"""ReplicaSets: as many pods of a template as asked for."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from pervade.cluster.controllers import objects as ob
from pervade.cluster.controllers.hub import Hub
from pervade.cluster.controllers.objects import JSON
from pervade.cluster.controllers.owned import OwnedPods
from pervade.cluster.controllers.queue import WorkQueue
from pervade.kube.resources import REPLICA_SETS

_BURST = 50


class ReplicaSets:
    """Starts after the first complete list; what it made is remembered until it is seen, so no pod is made twice."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.queue = WorkQueue("replicaset", self.sync)
        self.sets = hub.watch(REPLICA_SETS)
        self.owned = OwnedPods(hub, REPLICA_SETS, self.queue, "replicaset-controller")
        self.sets.on_change(lambda _k, old, new: self.queue.add(ob.key_of(new or old)))

    async def sync(self, key: Any) -> float | None:
        rs = self.sets.get(*key)
        if rs is None:
            self.owned.forget(key)
            return None
        wish: float | None = None
        if ob.terminating(rs):
            mine = self.owned.of(rs)
        else:
            mine = await self.owned.claim(rs)
        live = [p for p in mine if ob.active(p)]
        if not ob.terminating(rs):
            if self.owned.settled(rs):
                await self._scale(rs, live)
            else:
                wish = 1.0
        return await self._status(rs, mine, live) or wish

    async def _scale(self, rs: JSON, live: list[JSON]) -> None:
        wanted = int(rs["spec"].get("replicas", 1))
        if len(live) < wanted:
            for _ in range(min(wanted - len(live), _BURST)):
                await self.owned.make(rs, pod_from(rs, "apps/v1", "ReplicaSet"))
        elif len(live) > wanted:
            crowd = Counter(p["spec"].get("nodeName") or "" for p in live)
            for pod in sorted(live, key=lambda p: ob.kill_rank(p, crowd))[: len(live) - wanted]:
                await self.owned.drop(rs, pod)

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
