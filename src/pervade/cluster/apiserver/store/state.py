"""Committed state in memory, writes in flight, and the watches over both.

Everything runs on one event loop except the log's writer. A write is visible to other *writes* at once
(so two of them never pass each other) and to *reads and watches* after its commit. Values stay encoded:
a list of unchanged objects costs no parsing, an event is encoded once for all watchers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from pervade.cluster.apiserver.store.log import CREATED, DELETED, UPDATED, Entry, Log

log = logging.getLogger(__name__)
JSON = dict[str, Any]
Key = tuple[str, str]
_WAITING_MOST = 5_000


class Gone(Exception):
    """The asked version was compacted: 410."""


class StoreFailed(Exception):
    """The disk refused the write: 500; nothing was changed."""


class Event:
    """One change as watchers see it. `old` is the encoded object before, None when it was created."""

    __slots__ = ("_cache", "action", "old", "rev", "value")

    def __init__(self, rev: int, action: int, value: bytes, old: bytes | None) -> None:
        self.rev, self.action, self.value, self.old = rev, action, value, old
        self._cache: dict[Any, Any] = {}

    def once(self, key: Any, make: Any) -> Any:
        """`make()` computed once per event and `key`, shared by all watchers."""
        if key not in self._cache:
            self._cache[key] = make()
        return self._cache[key]

    def objects(self) -> tuple[JSON, JSON | None]:
        """The decoded new and old object."""
        found: tuple[JSON, JSON | None] = self.once(
            "objects",
            lambda: (msgspec.json.decode(self.value), msgspec.json.decode(self.old) if self.old else None),
        )
        return found


class Subscription:
    """Events of one resource from a version on; `next()` waits. `overrun` says a slow reader was left behind."""

    def __init__(self, state: State, resource: str) -> None:
        self._state, self._resource = state, resource
        self._events: list[Event] = []
        self._wake = asyncio.Event()
        self.overrun = False
        self.skip_upto = 0

    def offer(self, event: Event) -> None:
        if len(self._events) >= _WAITING_MOST:
            self.overrun = True
            self._events.clear()
        elif event.rev > self.skip_upto:
            self._events.append(event)
        self._wake.set()

    async def next(self, timeout: float) -> list[Event]:
        """All events that wait, after at most `timeout` seconds; empty on time-out."""
        if not self._events and not self.overrun:
            try:
                async with asyncio.timeout(timeout):
                    await self._wake.wait()
            except TimeoutError:
                return []
        self._wake.clear()
        taken, self._events = self._events, []
        return taken

    def close(self) -> None:
        self._state.subscriptions[self._resource].discard(self)


class State:
    """The whole cluster's objects by resource (`group/plural`) and (namespace, name)."""

    def __init__(self, path: Path) -> None:
        self._log = Log(path, self._committed)
        self._objects: dict[str, dict[Key, Entry]] = {}
        self._pending: dict[tuple[str, Key], Entry] = {}
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self.subscriptions: dict[str, set[Subscription]] = {}
        self.head = 0
        self.next_rev = 1
        self._loop: asyncio.AbstractEventLoop | None = None

    def open(self) -> None:
        """Read the log and start the writer; call on the loop that will use this state."""
        self._loop = asyncio.get_running_loop()
        living, self.head = self._log.open()
        # resourceVersion 0 and 1 mean something special to some clients.
        self.head = max(self.head, 1)
        self.next_rev = self.head + 1
        for entry in living:
            self._objects.setdefault(entry.resource, {})[entry.namespace, entry.name] = entry
        self._log.start()

    def close(self) -> None:
        self._log.close()

    # Reads: committed state.

    def get(self, resource: str, namespace: str, name: str) -> Entry | None:
        return self._objects.get(resource, {}).get((namespace, name))

    def list(self, resource: str, namespace: str | None = None) -> list[Entry]:
        """Entries in key order; O(n log n) of the resource."""
        held = self._objects.get(resource, {})
        return [held[k] for k in sorted(held) if namespace is None or k[0] == namespace]

    def entries(self, resource: str) -> Iterable[Entry]:
        return self._objects.get(resource, {}).values()

    @property
    def compacted(self) -> int:
        return self._log.compacted

    # Writes.

    def latest(self, resource: str, namespace: str, name: str) -> Entry | None:
        """What the next write must start from: a write in flight, else the committed object."""
        pending = self._pending.get((resource, (namespace, name)))
        if pending is not None:
            return None if pending.action == DELETED else pending
        return self.get(resource, namespace, name)

    async def write(
        self, resource: str, namespace: str, name: str, obj: JSON | None, *, last: JSON | None = None
    ) -> JSON:
        """Create or replace (`obj`) or remove (`obj` None, `last` its final state); returns the object as stored.

        Must be called without an await between `latest` and this call. Returns after the commit.
        """
        before = self.latest(resource, namespace, name)
        rev = self.next_rev
        self.next_rev += 1
        body = obj if obj is not None else last
        assert body is not None
        body = {**body, "metadata": {**body["metadata"], "resourceVersion": str(rev)}}
        action = DELETED if obj is None else UPDATED if before is not None else CREATED
        entry = Entry(
            rev, resource, namespace, name, action, before.rev if before else 0, msgspec.json.encode(body)
        )
        self._pending[resource, (namespace, name)] = entry
        assert self._loop is not None
        waiter = self._loop.create_future()
        self._waiting[rev] = waiter
        self._log.append(entry)
        await asyncio.shield(waiter)
        return body

    def _committed(self, entries: list[Entry], error: Exception | None) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._apply, entries, error)

    def _apply(self, entries: list[Entry], error: Exception | None) -> None:
        for entry in entries:
            key = entry.namespace, entry.name
            waiter = self._waiting.pop(entry.rev)
            if self._pending.get((entry.resource, key)) is entry:
                del self._pending[entry.resource, key]
            if error is not None:
                waiter.set_exception(StoreFailed(str(error)))
                continue
            held = self._objects.setdefault(entry.resource, {})
            old = held.get(key)
            if entry.action == DELETED:
                held.pop(key, None)
            else:
                held[key] = entry
            self.head = entry.rev
            watchers = self.subscriptions.get(entry.resource)
            if watchers:
                event = Event(entry.rev, entry.action, entry.value, old.value if old else None)
                for one in watchers:
                    one.offer(event)
            if not waiter.cancelled():
                waiter.set_result(None)

    # Watches.

    async def subscribe(self, resource: str, after: int) -> tuple[list[Event], Subscription]:
        """Events after version `after` that already happened, and a subscription to those that follow.

        Raises Gone when `after` is older than the compaction. O(events of this resource since then).
        """
        if after < self._log.compacted:
            raise Gone(f"version {after} is older than {self._log.compacted}")
        live = self.listen(resource)
        if after >= self.head:
            live.skip_upto = after
            return [], live
        live.skip_upto = upto = self.head
        try:
            rows = await asyncio.to_thread(self._log.history, resource, after, upto)
            if after < self._log.compacted:
                raise Gone(f"version {after} is older than {self._log.compacted}")
            return [Event(e.rev, e.action, e.value, old) for e, old in rows], live
        except BaseException:
            live.close()
            raise

    def listen(self, resource: str) -> Subscription:
        """Events of `resource` committed from now on."""
        live = Subscription(self, resource)
        self.subscriptions.setdefault(resource, set()).add(live)
        return live

    def dump(self) -> JSON:
        """What is held: objects, bytes and watchers per resource."""
        return {
            "head": self.head,
            "compacted": self._log.compacted,
            "commits": self._log.commits,
            "resources": {
                name: {
                    "objects": len(held),
                    "bytes": sum(len(e.value) for e in held.values()),
                    "watchers": len(self.subscriptions.get(name, ())),
                }
                for name, held in sorted(self._objects.items())
            },
        }
