"""Pods of one owner: found by reference, made once, deleted once. What the workload controllers share."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from typing import Any

from pervade.cluster.controllers import objects as ob
from pervade.cluster.controllers.hub import Hub
from pervade.cluster.controllers.objects import JSON
from pervade.cluster.controllers.queue import WorkQueue
from pervade.kube.errors import ApiError
from pervade.kube.reflector import Reflector
from pervade.kube.resources import PODS, Resource

_PATIENCE = 5.0


class OwnedPods:
    """The pods that objects of `res` control; an owner is woken when one of them changes.

    What was made or deleted a moment ago is remembered until the reflector shows it: an owner with such
    pods is `settled()` only then, so nothing is made twice.
    """

    def __init__(self, hub: Hub, res: Resource, queue: WorkQueue, component: str) -> None:
        self.hub, self.res, self.queue, self.component = hub, res, queue, component
        self.pods: Reflector = hub.owned(PODS)
        self._strays: dict[str, set[tuple[str, str]]] = {}
        """Pods that nobody controls, by namespace."""
        self._made: dict[Hashable, dict[str, float]] = {}
        self.pods.on_change(self._changed)

    def _changed(self, _kind: str, old: JSON | None, new: JSON | None) -> None:
        for pod, there in ((old, False), (new, True)):
            if pod is None:
                continue
            ref = ob.owner(pod)
            if ref is None:
                self._stray(pod, there)
            if ref is None or ref["kind"] != self.res.kind:
                continue
            key = (pod["metadata"]["namespace"], ref["name"])
            if there:
                self._made.get(key, {}).pop(pod["metadata"]["name"], None)
            self.queue.add(key)

    def _stray(self, pod: JSON, there: bool) -> None:
        """Note a pod without a controller, and wake those that may want it."""
        namespace = pod["metadata"]["namespace"]
        if not there:
            self._strays.get(namespace, set()).discard(ob.key_of(pod))
            return
        self._strays.setdefault(namespace, set()).add(ob.key_of(pod))
        for owner in self.hub.watch(self.res).items():
            same = owner["metadata"]["namespace"] == namespace
            if same and ob.matches(owner["spec"].get("selector"), pod["metadata"].get("labels")):
                self.queue.add(ob.key_of(owner))

    async def claim(self, owner: JSON, suits: Callable[[JSON], bool] = lambda _pod: True) -> list[JSON]:
        """The owner's pods: strays that its selector chooses become its own, those it no longer chooses are let go.

        Source: Kubernetes, "ReplicaSet", acquisition of pods. O(its pods and the namespace's strays).
        """
        selector, meta = owner["spec"]["selector"], owner["metadata"]
        kept = []
        for pod in self.of(owner):
            if ob.matches(selector, pod["metadata"].get("labels")) and suits(pod):
                kept.append(pod)
            elif not ob.terminating(pod):
                refs = [r for r in pod["metadata"]["ownerReferences"] if r["uid"] != meta["uid"]]
                await self._refer(pod, refs)
        found = [self.pods.get(*key) for key in self._strays.get(meta["namespace"], ())]
        wanted = [
            p
            for p in found
            if p is not None
            and ob.active(p)
            and ob.matches(selector, p["metadata"].get("labels"))
            and suits(p)
        ]
        if wanted:
            # The copy here may be older than the owner's deletion.
            live = await self.hub.client.get(self.res, meta["name"], meta["namespace"])
            if live["metadata"]["uid"] != meta["uid"] or ob.terminating(live):
                return kept
        for pod in wanted:
            ref = ob.reference(owner, self.res.api_version, self.res.kind)
            await self._refer(pod, [*(pod["metadata"].get("ownerReferences") or []), ref])
            self._made.setdefault(ob.key_of(owner), {})[pod["metadata"]["name"]] = time.monotonic()
        return [*kept, *wanted]

    async def _refer(self, pod: JSON, refs: list[JSON]) -> None:
        meta = pod["metadata"]
        body = {"metadata": {"uid": meta["uid"], "ownerReferences": refs or None}}
        try:
            await self.hub.client.patch(PODS, meta["name"], body, meta["namespace"])
        except ApiError as error:
            if not (error.not_found or error.conflict):
                raise

    def of(self, owner: JSON) -> list[JSON]:
        """Every pod of an owner, ended and terminating ones too; O(its pods)."""
        return self.pods.by_index("controller", ob.identity(owner))

    def settled(self, owner: JSON) -> bool:
        """Whether the reflector shows all that was made for the owner."""
        held = self._made.get(ob.key_of(owner), {})
        now = time.monotonic()
        for name in [n for n, at in held.items() if now - at > _PATIENCE]:
            del held[name]
        return not held

    async def make(self, owner: JSON, pod: JSON) -> JSON:
        """Create a pod and say so in an event. ApiError when it is refused (said too)."""
        try:
            made = await self.hub.client.create(PODS, pod)
        except ApiError as error:
            if not (error.already_exists or error.namespace_terminating):
                self.say(owner, "FailedCreate", f"Error creating: {error.message}", warn=True)
            raise
        key = ob.key_of(owner)
        if self.pods.get(made["metadata"]["namespace"], made["metadata"]["name"]) is None:
            self._made.setdefault(key, {})[made["metadata"]["name"]] = time.monotonic()
        self.say(owner, "SuccessfulCreate", f"Created pod: {made['metadata']['name']}")
        return made

    async def drop(self, owner: JSON, pod: JSON) -> None:
        """Delete a pod; one that is gone already is fine."""
        meta = pod["metadata"]
        try:
            await self.hub.client.delete(PODS, meta["name"], meta["namespace"], uid=meta["uid"])
        except ApiError as error:
            if not (error.not_found or error.conflict):
                raise
            return
        self.say(owner, "SuccessfulDelete", f"Deleted pod: {meta['name']}")

    def say(self, owner: JSON, reason: str, message: str, *, warn: bool = False) -> None:
        self.hub.event(owner, self.res.api_version, self.res.kind, self.component, reason, message, warn=warn)

    def forget(self, key: Hashable) -> None:
        self._made.pop(key, None)


async def write_status(hub: Hub, res: Resource, obj: JSON, status: JSON, empty: Callable[[str], Any]) -> None:
    """Write the fields of a status that differ; `empty(field)` is what an absent field means."""
    old = obj.get("status") or {}
    if all(old.get(k, empty(k)) == v for k, v in status.items()):
        return
    meta = obj["metadata"]
    try:
        await hub.client.patch(res, meta["name"], {"status": status}, meta["namespace"], subresource="status")
    except ApiError as error:
        if not error.not_found:
            raise
