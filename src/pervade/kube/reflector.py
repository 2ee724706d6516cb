"""A local copy of one kind, kept in step by list and watch.

Resumes at the last version after any disconnect; 410 lists again and turns what vanished meanwhile
into DELETED (replace semantics), so a callback never misses a change and never sees one twice.
Source: Kubernetes API concepts, "Efficient detection of changes". Cost: O(change) per event, O(n) per list.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Hashable, Iterable, ValuesView
from typing import Any

from pervade.kube.client import Client
from pervade.kube.errors import ApiError
from pervade.kube.resources import Resource
from pervade.wire.http import ClientError

log = logging.getLogger(__name__)
JSON = dict[str, Any]
Change = Callable[[str, Any, Any], None]
Key = tuple[str, str]


def without_managed_fields(obj: JSON) -> JSON:
    """Half of an object's size that no reader of ours looks at; in place."""
    obj["metadata"].pop("managedFields", None)
    return obj


class Store:
    """Objects by (namespace, name), with indexes; the part of a reflector without I/O."""

    def __init__(self, trim: Callable[[JSON], Any] | None = None) -> None:
        self.version = ""
        self._trim = trim or without_managed_fields
        self._objects: dict[Key, Any] = {}
        self._versions: dict[Key, str] = {}
        self._callbacks: list[Change] = []
        self._indexes: dict[
            str, tuple[Callable[[Any], Iterable[Hashable]], dict[Hashable, dict[Key, Any]]]
        ] = {}

    def on_change(self, callback: Change) -> None:
        """Call `callback(type, old, new)` for every change from now on; those held already come as ADDED at once."""
        self._callbacks.append(callback)
        for obj in list(self._objects.values()):
            callback("ADDED", None, obj)

    def add_index(self, name: str, keys: Callable[[Any], Iterable[Hashable]]) -> None:
        """Maintain `by_index(name, key)` over the values `keys(object)` gives."""
        table: dict[Hashable, dict[Key, Any]] = {}
        self._indexes[name] = (keys, table)
        for at, obj in self._objects.items():
            for value in keys(obj):
                table.setdefault(value, {})[at] = obj

    def by_index(self, name: str, key: Hashable) -> list[Any]:
        return list(self._indexes[name][1].get(key, {}).values())

    def get(self, namespace: str | None, name: str) -> Any | None:
        return self._objects.get((namespace or "", name))

    def items(self) -> ValuesView[Any]:
        return self._objects.values()

    def __len__(self) -> int:
        return len(self._objects)

    def replace(self, objects: Iterable[JSON], version: str) -> None:
        """Make `objects` all there is (after a list)."""
        seen = set()
        for obj in objects:
            seen.add(_key(obj))
            self._put("ADDED", obj)
        for at in [k for k in self._objects if k not in seen]:
            self._drop(at)
        self.version = version

    def event(self, kind: str, obj: JSON) -> None:
        """Apply one watch event."""
        version = obj["metadata"].get("resourceVersion") or self.version
        if kind == "DELETED":
            self._drop(_key(obj))
        elif kind != "BOOKMARK":
            self._put(kind, obj)
        self.version = version

    def _put(self, kind: str, obj: JSON) -> None:
        at, version = _key(obj), obj["metadata"].get("resourceVersion", "")
        if at in self._objects and self._versions.get(at) == version:
            return
        old, new = self._objects.get(at), self._trim(obj)
        self._objects[at], self._versions[at] = new, version
        self._reindex(at, old, new)
        self._tell("MODIFIED" if old is not None else "ADDED", old, new)

    def _drop(self, at: Key) -> None:
        if at in self._objects:
            old = self._objects.pop(at)
            self._versions.pop(at, None)
            self._reindex(at, old, None)
            self._tell("DELETED", old, None)

    def _reindex(self, at: Key, old: Any, new: Any) -> None:
        for keys, table in self._indexes.values():
            for value in keys(old) if old is not None else ():
                held = table.get(value, {})
                held.pop(at, None)
                if not held:
                    table.pop(value, None)
            for value in keys(new) if new is not None else ():
                table.setdefault(value, {})[at] = new

    def _tell(self, kind: str, old: Any, new: Any) -> None:
        for callback in self._callbacks:
            try:
                callback(kind, old, new)
            except Exception:
                # One listener's fault over one object must not end the copy that all others live on.
                log.exception("a listener failed", extra={"change": kind})


def _key(obj: JSON) -> Key:
    meta = obj["metadata"]
    return meta.get("namespace", ""), meta["name"]


class Reflector(Store):
    """A `Store` that follows the API; `run()` is its task and ends only by cancellation."""

    def __init__(
        self,
        client: Client,
        res: Resource,
        *,
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
        trim: Callable[[JSON], Any] | None = None,
        metadata_only: bool = False,
    ) -> None:
        super().__init__(trim)
        self.client, self.res, self.namespace = client, res, namespace
        self._selectors: dict[str, Any] = {
            "label_selector": label_selector,
            "field_selector": field_selector,
            "metadata_only": metadata_only,
        }
        self._synced = asyncio.Event()
        self.failures = 0

    async def synced(self) -> None:
        """Wait for the first complete list."""
        await self._synced.wait()

    async def run(self) -> None:
        while True:
            try:
                if not self.version:
                    items, version = await self.client.list(self.res, self.namespace, **self._selectors)
                    self.replace(items, version)
                    self._synced.set()
                await self._follow()
                self.failures = 0
            except ApiError as error:
                if error.gone:
                    self.version = ""
                else:
                    await self._pause(str(error))
            except (ClientError, OSError, TimeoutError) as error:
                await self._pause(f"{type(error).__name__}: {error}")

    async def _follow(self) -> None:
        stream = self.client.watch(self.res, self.namespace, resource_version=self.version, **self._selectors)
        async for kind, obj in stream:
            self.event(kind, obj)
            self.failures = 0

    async def _pause(self, why: str) -> None:
        self.failures += 1
        delay = min(0.1 * 2 ** min(self.failures, 8), 10.0) * random.uniform(0.5, 1.0)
        level = logging.DEBUG if self.failures < 3 else logging.WARNING
        log.log(level, "lost the API", extra={"kind": self.res.kind, "why": why, "retry_s": round(delay, 1)})
        await asyncio.sleep(delay)
