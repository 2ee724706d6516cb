"""The end of a namespace: everything in it is deleted, then the namespace is let go."""

from __future__ import annotations

from typing import Any

import msgspec

from pervade.cluster.controllers import objects as ob
from pervade.cluster.controllers.hub import Hub
from pervade.cluster.controllers.objects import JSON
from pervade.cluster.controllers.queue import WorkQueue
from pervade.kube.discovery import served
from pervade.kube.errors import ApiError
from pervade.kube.resources import NAMESPACES, Resource
from pervade.wire.http import ClientError

_FINALIZER = "kubernetes"
_SOON, _LATER = 0.3, 5.0


class Rest(msgspec.Struct):
    """What a round left behind: kind → objects, finalizer → objects, and what could not be read or deleted."""

    kinds: dict[str, int] = msgspec.field(default_factory=dict)
    finalizers: dict[str, int] = msgspec.field(default_factory=dict)
    failures: list[str] = msgspec.field(default_factory=list)
    unread: str = ""
    """Why the kinds themselves could not be read."""

    @property
    def nothing(self) -> bool:
        return not (self.kinds or self.failures or self.unread)


def _row(kind: str, bad: tuple[str, str] | None, good: tuple[str, str]) -> tuple[str, str, str, str]:
    return (kind, "True", *bad) if bad else (kind, "False", *good)


def conditions(held: list[JSON], rest: Rest) -> list[JSON]:
    """Upstream's conditions, which tell an operator what a namespace is waiting for. Pure."""
    kinds = ", ".join(f"{k} has {n} resource instances" for k, n in sorted(rest.kinds.items()))
    finalizers = ", ".join(f"{k} in {n} resource instances" for k, n in sorted(rest.finalizers.items()))
    rows = (
        _row(
            "NamespaceDeletionDiscoveryFailure",
            ("DiscoveryFailed", rest.unread) if rest.unread else None,
            ("ResourcesDiscovered", "All resources successfully discovered"),
        ),
        _row(
            "NamespaceDeletionContentFailure",
            ("ContentDeletionFailed", "; ".join(rest.failures)[:1000]) if rest.failures else None,
            ("ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
        ),
        _row(
            "NamespaceContentRemaining",
            ("SomeResourcesRemain", f"Some resources are remaining: {kinds}") if kinds else None,
            ("ContentRemoved", "All content successfully removed"),
        ),
        _row(
            "NamespaceFinalizersRemaining",
            ("SomeFinalizersRemain", f"Some content in the namespace has finalizers remaining: {finalizers}")
            if finalizers
            else None,
            ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
        ),
    )
    for kind, status, reason, message in rows:
        held = ob.set_condition(held, kind, status, reason, message, update_time=False)
    return held


class NamespaceEnd:
    """Deletes the content of namespaces that are terminating; custom kinds too. O(kinds) calls a round."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.namespaces = hub.watch(NAMESPACES)
        self.queue = WorkQueue("namespaces", self.sync)
        self.rounds: dict[str, int] = {}
        self.namespaces.on_change(self._changed)

    def _changed(self, _kind: str, old: JSON | None, new: JSON | None) -> None:
        if new is not None and ob.terminating(new) and (old is None or not ob.terminating(old)):
            self.queue.add(new["metadata"]["name"])

    async def sync(self, name: Any) -> float | None:
        held = self.namespaces.get("", name)
        if held is None or not ob.terminating(held):
            self.rounds.pop(name, None)
            return None
        rest = await self._round(name)
        await self._say(held, rest)
        if not rest.nothing:
            count = self.rounds[name] = self.rounds.get(name, 0) + 1
            return _SOON if count < 20 else _LATER
        self.rounds.pop(name, None)
        left = [f for f in held["spec"].get("finalizers") or () if f != _FINALIZER]
        body = {"metadata": {"name": name, "uid": held["metadata"]["uid"]}, "spec": {"finalizers": left}}
        try:
            await self.hub.client.update(NAMESPACES, body, subresource="finalize")
        except ApiError as error:
            if not (error.not_found or error.conflict):
                raise
        return None

    async def _round(self, name: str) -> Rest:
        """Delete what is there; one kind that cannot be read or deleted does not keep the others."""
        rest = Rest()
        try:
            kinds = await served(self.hub.client, "delete", "list")
        except (ApiError, ClientError, OSError, TimeoutError) as error:
            rest.unread = str(error)[:300]
            return rest
        for res in kinds:
            if not res.namespaced or (res.group, res.plural) == ("events.k8s.io", "events"):
                continue
            label = f"{res.plural}.{res.group}" if res.group else res.plural
            try:
                items = await self._empty(res, name)
            except ApiError as error:
                # A kind that went away between discovery and now has nothing left.
                if not error.not_found:
                    rest.failures.append(f"{label}: {error.message[:200]}")
                continue
            if items:
                rest.kinds[label] = len(items)
            for one in items:
                for finalizer in one["metadata"].get("finalizers") or ():
                    rest.finalizers[finalizer] = rest.finalizers.get(finalizer, 0) + 1
        return rest

    async def _empty(self, res: Resource, namespace: str) -> list[JSON]:
        """Delete the objects of one kind; those that are still there afterwards."""
        items, _ = await self.hub.client.list(res, namespace, metadata_only=True)
        fresh = [one["metadata"] for one in items if not ob.terminating(one)]
        for meta in fresh:
            try:
                await self.hub.client.delete(
                    res, meta["name"], namespace, propagation="Background", uid=meta["uid"]
                )
            except ApiError as error:
                if not (error.not_found or error.conflict):
                    raise
        if fresh:
            items, _ = await self.hub.client.list(res, namespace, metadata_only=True)
        return items

    async def _say(self, held: JSON, rest: Rest) -> None:
        before = list((held.get("status") or {}).get("conditions") or [])
        made = conditions(before, rest)
        if made == before or (not before and rest.nothing):
            return
        try:
            await self.hub.client.patch(
                NAMESPACES, held["metadata"]["name"], {"status": {"conditions": made}}, subresource="status"
            )
        except ApiError as error:
            if not error.not_found:
                raise
