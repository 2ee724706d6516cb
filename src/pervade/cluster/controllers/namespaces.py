"""The end of a namespace: everything in it is deleted, then the namespace is let go."""

from __future__ import annotations

from typing import Any

from pervade.cluster.controllers import objects as ob
from pervade.cluster.controllers.hub import Hub
from pervade.cluster.controllers.objects import JSON
from pervade.cluster.controllers.queue import WorkQueue
from pervade.kube.discovery import served
from pervade.kube.errors import ApiError
from pervade.kube.resources import NAMESPACES

_FINALIZER = "kubernetes"
_SOON, _LATER = 0.3, 5.0


class NamespaceEnd:
    """Deletes the content of namespaces that are terminating; custom kinds too. O(kinds) calls a round."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.namespaces = hub.watch(NAMESPACES)
        self.queue = WorkQueue("namespaces", self.sync)
        self.rounds: dict[str, int] = {}
        self.namespaces.on_change(self._changed)

    def _changed(self, _kind: str, _old: JSON | None, new: JSON | None) -> None:
        if new is not None and ob.terminating(new):
            self.queue.add(new["metadata"]["name"])

    async def sync(self, name: Any) -> float | None:
        held = self.namespaces.get("", name)
        if held is None or not ob.terminating(held):
            self.rounds.pop(name, None)
            return None
        remaining: dict[str, int] = {}
        finalizers: dict[str, int] = {}
        for res in await served(self.hub.client, "delete", "list"):
            if not res.namespaced or (res.group, res.plural) == ("events.k8s.io", "events"):
                continue
            try:
                items, _ = await self.hub.client.list(res, name)
                for one in items:
                    meta = one["metadata"]
                    if not ob.terminating(one):
                        await self._delete(res, meta)
                if items:
                    items, _ = await self.hub.client.list(res, name)
            except ApiError as error:
                # A kind that went away between discovery and now has nothing left.
                if not error.not_found:
                    raise
                items = []
            if items:
                remaining[f"{res.plural}.{res.group}" if res.group else res.plural] = len(items)
            for one in items:
                for finalizer in one["metadata"].get("finalizers") or ():
                    finalizers[finalizer] = finalizers.get(finalizer, 0) + 1
        await self._say(held, remaining, finalizers)
        if remaining:
            count = self.rounds[name] = self.rounds.get(name, 0) + 1
            return _SOON if count < 20 else _LATER
        self.rounds.pop(name, None)
        left = [f for f in held["spec"].get("finalizers") or () if f != _FINALIZER]
        body = {"metadata": {"name": name}, "spec": {"finalizers": left}}
        try:
            await self.hub.client.update(NAMESPACES, body, subresource="finalize")
        except ApiError as error:
            if not error.not_found:
                raise
        return None

    async def _delete(self, res: Any, meta: JSON) -> None:
        try:
            await self.hub.client.delete(
                res, meta["name"], meta["namespace"], propagation="Background", uid=meta["uid"]
            )
        except ApiError as error:
            if not (error.not_found or error.conflict):
                raise

    async def _say(self, held: JSON, remaining: dict[str, int], finalizers: dict[str, int]) -> None:
        """Conditions that tell an operator what a namespace is waiting for."""
        conditions = list((held.get("status") or {}).get("conditions") or [])
        if remaining:
            rest = ", ".join(f"{k} has {n} resource instances" for k, n in sorted(remaining.items()))
            rows = ("True", "SomeResourcesRemain", f"Some resources are remaining: {rest}")
        else:
            rows = ("False", "ContentRemoved", "All content successfully removed")
        made = ob.set_condition(conditions, "NamespaceContentRemaining", *rows)
        if finalizers:
            rest = ", ".join(f"{k} in {n} resource instances" for k, n in sorted(finalizers.items()))
            why = (
                "True",
                "SomeFinalizersRemain",
                f"Some content in the namespace has finalizers remaining: {rest}",
            )
        else:
            why = ("False", "ContentHasNoFinalizers", "All content-preserving finalizers finished")
        made = ob.set_condition(made, "NamespaceFinalizersRemaining", *why)
        if made == conditions or (not conditions and not remaining):
            return
        try:
            await self.hub.client.patch(
                NAMESPACES, held["metadata"]["name"], {"status": {"conditions": made}}, subresource="status"
            )
        except ApiError as error:
            if not error.not_found:
                raise
