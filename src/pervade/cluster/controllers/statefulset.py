"""StatefulSets: pods with a number and a lasting name, made and replaced in order."""

from __future__ import annotations

import time
from typing import Any

from pervade.cluster.controllers import objects as ob
from pervade.cluster.controllers.hub import Hub
from pervade.cluster.controllers.objects import JSON
from pervade.cluster.controllers.owned import OwnedPods, write_status
from pervade.cluster.controllers.queue import WorkQueue
from pervade.cluster.controllers.replicaset import pod_from
from pervade.cluster.controllers.revisions import HASH, Revisions, mark_of
from pervade.kube.errors import ApiError
from pervade.kube.resources import STATEFUL_SETS

_NAME, _INDEX = "statefulset.kubernetes.io/pod-name", "apps.kubernetes.io/pod-index"
_NO_VOLUMES = (
    "volumeClaimTemplates need a provisioner of volumes; this cluster has none. Use emptyDir or hostPath"
)


def ordinal(owner: JSON, pod: JSON) -> int:
    """A pod's number; -1 when its name is not of the set's."""
    stem, _, number = pod["metadata"]["name"].rpartition("-")
    return int(number) if stem == owner["metadata"]["name"] and number.isdigit() else -1


def pod_for(owner: JSON, number: int, revision: JSON) -> JSON:
    """Pod `number` as a revision's template has it."""
    template = dict(revision["data"]["spec"]["template"])
    template.pop("$patch", None)
    name = f"{owner['metadata']['name']}-{number}"
    pod = pod_from(owner, "apps/v1", "StatefulSet", name=name, template=template)
    pod["metadata"]["labels"] |= {_NAME: name, _INDEX: str(number), HASH: revision["metadata"]["name"]}
    pod["spec"] = {**pod["spec"], "hostname": name}
    if owner["spec"].get("serviceName"):
        pod["spec"]["subdomain"] = owner["spec"]["serviceName"]
    return pod


def _of_revision(pod: JSON, revision: JSON) -> bool:
    """A StatefulSet's pods carry the whole name of their revision."""
    return mark_of(pod) == str(revision["metadata"]["name"])


class StatefulSets:
    """One sync makes one step (any number with podManagementPolicy Parallel)."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.queue = WorkQueue("statefulset", self.sync)
        self.sets = hub.watch(STATEFUL_SETS)
        self.revisions = Revisions(hub, "apps/v1", "StatefulSet")
        self.owned = OwnedPods(hub, STATEFUL_SETS, self.queue, "statefulset-controller")
        self.sets.on_change(lambda _k, old, new: self.queue.add(ob.key_of(new or old)))

    async def sync(self, key: Any) -> float | None:
        owner = self.sets.get(*key)
        if owner is None:
            self.owned.forget(key)
            return None
        if ob.terminating(owner):
            return None
        if owner["spec"].get("volumeClaimTemplates"):
            self.owned.say(owner, "FailedCreate", _NO_VOLUMES, warn=True)
            return None
        update = await self.revisions.current(owner)
        known = {r["metadata"]["name"]: r for r in self.revisions.of(owner)} | {
            update["metadata"]["name"]: update
        }
        name = (owner.get("status") or {}).get("currentRevision") or update["metadata"]["name"]
        current = known.get(name, update)
        mine = await self.owned.claim(owner, lambda pod: ordinal(owner, pod) >= 0)
        pods = {n: p for p in mine if (n := ordinal(owner, p)) >= 0}
        wish = None if self.owned.settled(owner) else 1.0
        if wish is None:
            await self._step(owner, current, update, pods)
        return await self._status(owner, current, update, pods) or wish

    async def _step(self, owner: JSON, current: JSON, update: JSON, pods: dict[int, JSON]) -> None:
        spec = owner["spec"]
        first = int((spec.get("ordinals") or {}).get("start") or 0)
        wanted = range(first, first + int(spec.get("replicas", 1)))
        parallel = spec.get("podManagementPolicy") == "Parallel"
        strategy = spec.get("updateStrategy") or {}
        rolling = strategy.get("type", "RollingUpdate") == "RollingUpdate"
        # The partition counts from the first ordinal, whatever that is.
        partition = first + int((strategy.get("rollingUpdate") or {}).get("partition") or 0)
        at, least = time.time(), int(spec.get("minReadySeconds") or 0)

        def good(pod: JSON) -> bool:
            return ob.active(pod) and ob.available(pod, least, at)

        for number in wanted:
            pod = pods.get(number)
            if pod is not None and (pod.get("status") or {}).get("phase") in ("Failed", "Succeeded"):
                if not ob.terminating(pod):
                    await self.owned.drop(owner, pod)
                if not parallel:
                    return
                continue
            if pod is None:
                fresh = update if not rolling or number >= partition else current
                try:
                    await self.owned.make(owner, pod_for(owner, number, fresh))
                except ApiError as error:
                    if not error.already_exists:
                        raise
                if not parallel:
                    return
            elif not parallel and not good(pod):
                return
        extra = sorted((n for n in pods if n not in wanted), reverse=True)
        for number in extra:
            if not ob.terminating(pods[number]):
                await self.owned.drop(owner, pods[number])
            if not parallel:
                return
        if not rolling:
            return
        for number in sorted(wanted, reverse=True):
            pod = pods.get(number)
            if number < partition or pod is None:
                continue
            if not _of_revision(pod, update):
                if not ob.terminating(pod):
                    await self.owned.drop(owner, pod)
                return
            if not good(pod):
                return

    async def _status(self, owner: JSON, current: JSON, update: JSON, pods: dict[int, JSON]) -> float | None:
        at, least = time.time(), int(owner["spec"].get("minReadySeconds") or 0)
        live = list(pods.values())
        ready = [p for p in live if ob.active(p) and ob.ready(p)]
        good = [p for p in ready if ob.available(p, least, at)]
        updated = [p for p in live if _of_revision(p, update) and not ob.terminating(p)]
        wanted = int(owner["spec"].get("replicas", 1))
        done = len(updated) == wanted == len(live) and len(ready) == wanted
        now = update if done else current
        found: JSON = {
            "replicas": len(live),
            "readyReplicas": len(ready),
            "availableReplicas": len(good),
            "updatedReplicas": len(updated),
            "currentReplicas": sum(_of_revision(p, now) and not ob.terminating(p) for p in live),
            "currentRevision": now["metadata"]["name"],
            "updateRevision": update["metadata"]["name"],
            "observedGeneration": owner["metadata"].get("generation", 0),
        }
        await write_status(
            self.hub, STATEFUL_SETS, owner, found, lambda f: "" if f.endswith("Revision") else 0
        )
        await self.revisions.trim(
            owner, {mark_of(p) for p in live} | {now["metadata"]["name"], update["metadata"]["name"]}
        )
        return least + 0.2 if len(good) < len(ready) else None
