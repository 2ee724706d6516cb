"""Garbage: objects whose owners are gone are deleted, as the deletion of the owner asked for.

A graph of owner references over every kind that can be deleted (custom kinds as they come), held as names
and uids only. An owner that is not in the graph is looked up in the API before anything is deleted for it.
Source: Kubernetes, "Owners and dependents", "Finalizers". Cost of a change: O(dependents of what changed).
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
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
# Events own nothing and nobody owns them; they only come and go.
_IGNORED = {("", "events"), ("events.k8s.io", "events")}
_PATIENCE = 30.0


class Owner(msgspec.Struct, frozen=True):
    """One owner reference."""

    api_version: str
    kind: str
    name: str
    uid: str
    blocks: bool


class Node(msgspec.Struct, frozen=True):
    """One object in the graph: all that is kept of it."""

    res: Resource
    uid: str
    namespace: str
    name: str
    owners: tuple[Owner, ...]
    finalizers: tuple[str, ...]
    deleting: bool

    @property
    def waits(self) -> bool:
        """Being deleted in the foreground: it goes after its dependents."""
        return self.deleting and FOREGROUND in self.finalizers

    def named_by(self, ref: Owner, dependent: Node) -> bool:
        """Whether this is the object that the reference of `dependent` names, beside its uid."""
        here = not self.res.namespaced or self.namespace == dependent.namespace
        return here and self.name == ref.name and self.res.kind == ref.kind


def node_of(res: Resource, obj: JSON) -> Node:
    """What the graph keeps of an object."""
    meta = obj["metadata"]
    owners = tuple(
        Owner(
            r.get("apiVersion", ""),
            r.get("kind", ""),
            r.get("name", ""),
            r["uid"],
            bool(r.get("blockOwnerDeletion")),
        )
        for r in meta.get("ownerReferences") or ()
    )
    finalizers = tuple(meta.get("finalizers") or ())
    deleting = bool(meta.get("deletionTimestamp"))
    return Node(res, meta["uid"], meta.get("namespace", ""), meta["name"], owners, finalizers, deleting)


class Garbage:
    """`queue` works on uids; `follow()` keeps one reflector (metadata only) per served kind."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.queue = WorkQueue("garbage", self.sync)
        self.nodes: dict[str, Node] = {}
        self.dependents: dict[str, set[str]] = {}
        self.kinds: dict[tuple[str, str], Resource] = {}
        self.lost: set[str] = set()
        """Owners that went with their kind's definition: of those no API can be asked."""
        self._followed: dict[tuple[str, str], asyncio.Task[None] | None] = {}
        self._whole, self._changed = asyncio.Event(), asyncio.Event()
        self._changed.set()
        self._definitions = hub.watch(CUSTOM_RESOURCE_DEFINITIONS)
        self._definitions.on_change(lambda _k, _old, _new: self._changed.set())

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
                fresh = self._follow_only({(r.group, r.plural): r for r in found})
                if not self._whole.is_set():
                    await self._first(fresh)
        finally:
            for task in self._followed.values():
                if task is not None:
                    task.cancel()

    async def _first(self, fresh: list[Reflector]) -> None:
        """Begin once every kind was listed, so that no owner is asked for that is about to be seen."""
        lists = [asyncio.ensure_future(r.synced()) for r in fresh]
        if lists:
            _, missing = await asyncio.wait(lists, timeout=_PATIENCE)
            for one in missing:
                one.cancel()
            if missing:
                log.warning("kinds could not be listed", extra={"count": len(missing)})
        self._whole.set()

    def _follow_only(self, found: dict[tuple[str, str], Resource]) -> list[Reflector]:
        """Follow exactly these kinds; the reflectors that began."""
        self.kinds = {(r.api_version, r.kind): r for r in found.values()}
        defined = {(d["spec"]["group"], d["spec"]["names"]["plural"]) for d in self._definitions.items()}
        for key in [k for k in self._followed if k not in found]:
            task = self._followed.pop(key)
            if task is not None:
                task.cancel()
            for uid in [u for u, n in self.nodes.items() if (n.res.group, n.res.plural) == key]:
                if key not in defined and self.dependents.get(uid):
                    self.lost.add(uid)
                self._gone(uid)
        fresh = []
        for key, res in found.items():
            if key in self._followed or key in _IGNORED:
                continue
            if self.hub.watched(res):
                self._followed[key] = None
                self.hub.watch(res).on_change(partial(self._object, res))
            else:
                reflector = Reflector(self.hub.client, res, trim=partial(node_of, res), metadata_only=True)
                reflector.on_change(self._node)
                self._followed[key] = asyncio.create_task(reflector.run())
                fresh.append(reflector)
        return fresh

    def _object(self, res: Resource, kind: str, old: JSON | None, new: JSON | None) -> None:
        before, after = (node_of(res, o) if o is not None else None for o in (old, new))
        self._node(kind, before, after)

    def _node(self, _kind: str, old: Node | None, new: Node | None) -> None:
        if old is not None and (new is None or new.uid != old.uid):
            self._gone(old.uid)
        if new is not None:
            self._put(new)

    def _put(self, node: Node) -> None:
        old = self.nodes.get(node.uid)
        if old == node:
            return
        self.nodes[node.uid] = node
        before = {r.uid for r in old.owners} if old else set()
        after = {r.uid for r in node.owners}
        for owner in before - after:
            self._unlink(node.uid, owner)
        for owner in after - before:
            self.dependents.setdefault(owner, set()).add(node.uid)
        if node.waits and not (old is not None and old.waits):
            for dependent in self.dependents.get(node.uid, ()):
                self.queue.add(dependent)
        if (node.deleting and (FOREGROUND in node.finalizers or ORPHAN in node.finalizers)) or any(
            self._unsound(node, r) for r in node.owners
        ):
            self.queue.add(node.uid)

    def _unlink(self, uid: str, owner: str) -> None:
        held = self.dependents.get(owner)
        if held is not None:
            held.discard(uid)
            if not held:
                del self.dependents[owner]
                self.lost.discard(owner)
        if owner in self.nodes and self.nodes[owner].waits:
            self.queue.add(owner)

    def _gone(self, uid: str) -> None:
        node = self.nodes.pop(uid, None)
        if node is None:
            return
        for ref in node.owners:
            self._unlink(uid, ref.uid)
        for dependent in self.dependents.get(uid, ()):
            self.queue.add(dependent)

    def _unsound(self, node: Node, ref: Owner) -> bool:
        """Whether an owner is absent, going, or another object than the reference names."""
        owner = self.nodes.get(ref.uid)
        return owner is None or owner.waits or not owner.named_by(ref, node)

    async def sync(self, uid: Any) -> float | None:
        await self._whole.wait()
        node = self.nodes.get(uid)
        if node is None:
            return None
        if node.deleting and ORPHAN in node.finalizers:
            await self._orphan(node)
        elif node.waits:
            await self._foreground(node)
        elif not node.deleting and node.owners:
            await self._check(node)
        return None

    async def _orphan(self, node: Node) -> None:
        for dependent in list(self.dependents.get(node.uid, ())):
            held = self.nodes.get(dependent)
            if held is not None:
                await self._drop_owners(held, {node.uid})
        await self._drop_finalizer(node, ORPHAN)

    def _blocked(self, node: Node) -> bool:
        """Whether a dependent asks the deletion of its owner to wait for it."""
        held = (self.nodes.get(d) for d in self.dependents.get(node.uid, ()))
        return any(r.uid == node.uid and r.blocks for d in held if d is not None for r in d.owners)

    async def _foreground(self, node: Node) -> None:
        if not self._blocked(node):
            await self._drop_finalizer(node, FOREGROUND)

    async def _check(self, node: Node) -> None:
        """Delete an object without a living owner; drop references to the dead when one lives."""
        solid, waiting, dangling = [], [], []
        for ref in node.owners:
            owner = self.nodes.get(ref.uid)
            if owner is not None and owner.waits and owner.named_by(ref, node):
                waiting.append(ref.uid)
            elif await self._exists(node, ref):
                solid.append(ref.uid)
            else:
                dangling.append(ref.uid)
        if solid:
            if dangling or waiting:
                await self._drop_owners(node, {*dangling, *waiting})
            return
        policy = "Background"
        if FOREGROUND in node.finalizers or (waiting and self._blocked(node)):
            policy = "Foreground"
        elif ORPHAN in node.finalizers:
            policy = "Orphan"
        live = await self._live(node)
        if live is None or {r.uid for r in node_of(node.res, live).owners} != {r.uid for r in node.owners}:
            # The change that the graph has not seen yet brings this object here again.
            return
        try:
            await self.hub.client.delete(
                node.res, node.name, node.namespace or None, propagation=policy, uid=node.uid
            )
        except ApiError as error:
            if not error.not_found:
                raise

    async def _exists(self, node: Node, ref: Owner) -> bool:
        """Whether an owner lives; asked of the API when the graph does not know it. In doubt it does."""
        owner = self.nodes.get(ref.uid)
        if owner is not None and owner.named_by(ref, node):
            return True
        if ref.uid in self.lost:
            return False
        group = ref.api_version.rpartition("/")[0]
        res = self.kinds.get((ref.api_version, ref.kind)) or next(
            (r for r in self.kinds.values() if r.kind == ref.kind and r.group == group), None
        )
        if res is None:
            # A kind that is not served now may be served again: nothing is deleted on a guess.
            return True
        if res.namespaced and not node.namespace:
            self._invalid(node, ref)
            return True
        if owner is not None and res.namespaced and owner.namespace != node.namespace:
            self._invalid(node, ref)
        try:
            found = await self.hub.client.get(res, ref.name, node.namespace if res.namespaced else None)
        except ApiError as error:
            if error.not_found:
                return False
            raise
        return bool(found["metadata"]["uid"] == ref.uid)

    def _invalid(self, node: Node, ref: Owner) -> None:
        """Tell the operator of a reference that names an object outside of the dependent's namespace."""
        where = f"namespace {node.namespace}" if node.namespace else "a namespace of a cluster-wide object"
        text = f"ownerRef [{ref.api_version}/{ref.kind}, name: {ref.name}, uid: {ref.uid}] does not exist in {where}"
        meta = {"name": node.name, "namespace": node.namespace, "uid": node.uid}
        self.hub.event(
            {"metadata": meta}, node.res.api_version, node.res.kind, "garbage-collector-controller",
            "OwnerRefInvalidNamespace", text, warn=True,
        )  # fmt: skip

    async def _live(self, node: Node) -> JSON | None:
        """The object as the API has it now; None when it is gone or another one has its name."""
        try:
            found = await self.hub.client.get(node.res, node.name, node.namespace or None)
        except ApiError as error:
            if error.not_found:
                return None
            raise
        return found if found["metadata"]["uid"] == node.uid else None

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
        version = {"resourceVersion": live["metadata"]["resourceVersion"], "uid": node.uid}
        try:
            await self.hub.client.patch(
                node.res, node.name, {"metadata": {**version, **change}}, node.namespace or None
            )
        except ApiError as error:
            if not error.not_found:
                raise
