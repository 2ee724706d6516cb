"""Garbage: objects whose owners are gone are deleted, as the deletion of the owner asked for.

A graph of owner references over every kind that can be deleted (custom kinds as they come), held as names
and uids only. An owner that is not in the graph is looked up in the API before anything is deleted for it.
Source: Kubernetes, "Owners and dependents", "Finalizers". Cost of a change: O(dependents of what changed).
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import msgspec

from pervade.cluster.controllers.hub import Hub
from pervade.cluster.controllers.objects import JSON
from pervade.cluster.controllers.queue import WorkQueue
from pervade.kube.discovery import served
from pervade.kube.errors import ApiError
from pervade.kube.reflector import Reflector
from pervade.kube.resources import CUSTOM_RESOURCE_DEFINITIONS, Resource
from pervade.wire.http import ClientError

log = logging.getLogger(__name__)
FOREGROUND, ORPHAN = "foregroundDeletion", "orphan"
_KEPT = ("name", "namespace", "uid", "ownerReferences", "finalizers", "deletionTimestamp", "resourceVersion")
# Events own nothing and nobody owns them; they only come and go.
_IGNORED = {("", "events"), ("events.k8s.io", "events")}


class Node(msgspec.Struct):
    """One object in the graph."""

    res: Resource
    namespace: str
    name: str
    owners: list[JSON]
    finalizers: tuple[str, ...]
    deleting: bool

    @property
    def waits(self) -> bool:
        """Being deleted in the foreground: it goes after its dependents."""
        return self.deleting and FOREGROUND in self.finalizers


def slim(obj: JSON) -> JSON:
    """What the graph reads of an object."""
    meta = obj["metadata"]
    return {"metadata": {k: meta[k] for k in _KEPT if meta.get(k)}}


class Garbage:
    """`queue` works on uids; `follow()` keeps one reflector per served kind."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.queue = WorkQueue("garbage", self.sync)
        self.nodes: dict[str, Node] = {}
        self.dependents: dict[str, set[str]] = {}
        self.kinds: dict[tuple[str, str], Resource] = {}
        self._followed: dict[tuple[str, str], asyncio.Task[None] | None] = {}
        self._changed = asyncio.Event()
        self._changed.set()
        hub.watch(CUSTOM_RESOURCE_DEFINITIONS).on_change(lambda _k, _old, _new: self._changed.set())

    async def follow(self) -> None:
        """Follow the kinds that are served, new ones as their definitions come."""
        try:
            while True:
                await self._changed.wait()
                self._changed.clear()
                try:
                    found = await served(self.hub.client, "delete", "list", "watch", "patch")
                except (ApiError, ClientError, OSError, TimeoutError) as error:
                    log.warning("kinds not read", extra={"why": str(error)[:200]})
                    asyncio.get_running_loop().call_later(1, self._changed.set)
                    continue
                self._follow_only({(r.group, r.plural): r for r in found})
        finally:
            for task in self._followed.values():
                if task is not None:
                    task.cancel()

    def _follow_only(self, found: dict[tuple[str, str], Resource]) -> None:
        self.kinds = {(r.api_version, r.kind): r for r in found.values()}
        for key in [k for k in self._followed if k not in found]:
            task = self._followed.pop(key)
            if task is not None:
                task.cancel()
            for uid in [u for u, n in self.nodes.items() if (n.res.group, n.res.plural) == key]:
                self._gone(uid)
        for key, res in found.items():
            if key in self._followed or key in _IGNORED:
                continue
            if self.hub.watched(res):
                self._followed[key] = None
                self.hub.watch(res).on_change(self._listener(res))
            else:
                reflector = Reflector(self.hub.client, res, trim=slim)
                reflector.on_change(self._listener(res))
                self._followed[key] = asyncio.create_task(reflector.run())

    def _listener(self, res: Resource) -> Any:
        def changed(_kind: str, old: JSON | None, new: JSON | None) -> None:
            if old is not None and (new is None or new["metadata"]["uid"] != old["metadata"]["uid"]):
                self._gone(old["metadata"]["uid"])
            if new is not None:
                self._put(res, new["metadata"])

        return changed

    def _put(self, res: Resource, meta: JSON) -> None:
        uid = meta["uid"]
        old = self.nodes.get(uid)
        owners = meta.get("ownerReferences") or []
        node = Node(
            res,
            meta.get("namespace", ""),
            meta["name"],
            owners,
            tuple(meta.get("finalizers") or ()),
            bool(meta.get("deletionTimestamp")),
        )
        if old == node:
            return
        self.nodes[uid] = node
        before = {r["uid"] for r in old.owners} if old else set()
        after = {r["uid"] for r in owners}
        for owner in before - after:
            self._unlink(uid, owner)
        for owner in after - before:
            self.dependents.setdefault(owner, set()).add(uid)
        if (node.deleting and (FOREGROUND in node.finalizers or ORPHAN in node.finalizers)) or any(
            self._unsound(node, r) for r in owners
        ):
            self.queue.add(uid)

    def _unlink(self, uid: str, owner: str) -> None:
        held = self.dependents.get(owner)
        if held is not None:
            held.discard(uid)
            if not held:
                del self.dependents[owner]
        if owner in self.nodes and self.nodes[owner].waits:
            self.queue.add(owner)

    def _gone(self, uid: str) -> None:
        node = self.nodes.pop(uid, None)
        if node is None:
            return
        for ref in node.owners:
            self._unlink(uid, ref["uid"])
        for dependent in self.dependents.get(uid, ()):
            self.queue.add(dependent)

    def _unsound(self, node: Node, ref: JSON) -> bool:
        """Whether an owner is absent, going, or another object than the reference names."""
        owner = self.nodes.get(ref["uid"])
        if owner is None or owner.waits:
            return True
        return owner.name != ref.get("name") or (owner.res.namespaced and owner.namespace != node.namespace)

    async def sync(self, uid: Any) -> float | None:
        node = self.nodes.get(uid)
        if node is None:
            return None
        if node.deleting and ORPHAN in node.finalizers:
            await self._orphan(uid, node)
        elif node.waits:
            await self._foreground(uid, node)
        elif not node.deleting and node.owners:
            await self._check(node)
        return None

    async def _orphan(self, uid: str, node: Node) -> None:
        for dependent in list(self.dependents.get(uid, ())):
            held = self.nodes.get(dependent)
            if held is not None:
                await self._drop_owners(held, {uid})
        await self._drop_finalizer(node, ORPHAN)

    async def _foreground(self, uid: str, node: Node) -> None:
        blocking = False
        for dependent in list(self.dependents.get(uid, ())):
            held = self.nodes.get(dependent)
            if held is None:
                continue
            self.queue.add(dependent)
            blocking |= any(r["uid"] == uid and r.get("blockOwnerDeletion") for r in held.owners)
        if not blocking:
            await self._drop_finalizer(node, FOREGROUND)

    async def _check(self, node: Node) -> None:
        """Delete an object without a living owner; drop references to the dead when one lives."""
        solid, waiting, dangling = [], [], []
        for ref in node.owners:
            owner = self.nodes.get(ref["uid"])
            if owner is not None and owner.waits and not self._misplaced(node, owner, ref):
                waiting.append(ref["uid"])
            elif await self._exists(node, ref):
                solid.append(ref["uid"])
            else:
                dangling.append(ref["uid"])
        if solid:
            if dangling or waiting:
                await self._drop_owners(node, {*dangling, *waiting})
            return
        policy = "Foreground" if waiting else "Background"
        if not waiting and ORPHAN in node.finalizers:
            policy = "Orphan"
        elif FOREGROUND in node.finalizers:
            policy = "Foreground"
        live = await self._live(node)
        if live is None:
            return
        if {r["uid"] for r in live["metadata"].get("ownerReferences") or ()} != {
            r["uid"] for r in node.owners
        }:
            return
        meta = live["metadata"]
        try:
            await self.hub.client.delete(
                node.res, node.name, node.namespace or None, propagation=policy, uid=meta["uid"]
            )
        except ApiError as error:
            if not error.not_found:
                raise

    def _misplaced(self, node: Node, owner: Node, ref: JSON) -> bool:
        return owner.name != ref.get("name") or (owner.res.namespaced and owner.namespace != node.namespace)

    async def _exists(self, node: Node, ref: JSON) -> bool:
        owner = self.nodes.get(ref["uid"])
        if owner is not None and not self._misplaced(node, owner, ref):
            return True
        res = self.kinds.get((ref.get("apiVersion", ""), ref.get("kind", "")))
        if res is None:
            res = next((r for (_, kind), r in self.kinds.items() if kind == ref.get("kind")
                        and r.group == ref.get("apiVersion", "").rpartition("/")[0]), None)  # fmt: skip
        if res is None:
            # A kind that is not served now may be served again: nothing is deleted on a guess.
            return True
        if res.namespaced and not node.namespace:
            return False
        try:
            found = await self.hub.client.get(
                res, ref.get("name", ""), node.namespace if res.namespaced else None
            )
        except ApiError as error:
            if error.not_found:
                return False
            raise
        return bool(found["metadata"]["uid"] == ref["uid"])

    async def _live(self, node: Node) -> JSON | None:
        try:
            return await self.hub.client.get(node.res, node.name, node.namespace or None)
        except ApiError as error:
            if error.not_found:
                return None
            raise

    async def _drop_owners(self, node: Node, gone: set[str]) -> None:
        live = await self._live(node)
        if live is None:
            return
        refs = live["metadata"].get("ownerReferences") or []
        kept = [r for r in refs if r["uid"] not in gone]
        if len(kept) != len(refs):
            await self._patch(node, live, {"ownerReferences": kept or None})

    async def _drop_finalizer(self, node: Node, name: str) -> None:
        live = await self._live(node)
        if live is not None and name in (live["metadata"].get("finalizers") or ()):
            kept = [f for f in live["metadata"]["finalizers"] if f != name]
            await self._patch(node, live, {"finalizers": kept or None})

    async def _patch(self, node: Node, live: JSON, change: JSON) -> None:
        version = {"resourceVersion": live["metadata"]["resourceVersion"], "uid": live["metadata"]["uid"]}
        try:
            await self.hub.client.patch(
                node.res, node.name, {"metadata": {**version, **change}}, node.namespace or None
            )
        except ApiError as error:
            if not error.not_found:
                raise
