"""Committed state in memory, writes in flight, and the watches over both.

Everything runs on one event loop except the log's writer. A write is visible to other *writes* at once
(so two of them never pass each other) and to *reads and watches* after its commit. Values stay encoded:
a list of unchanged objects costs no parsing, an event is encoded once for all watchers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec

from pervade.cluster.apiserver.store import sql
from pervade.cluster.apiserver.store.log import CREATED, DELETED, UPDATED, Entry, Log
from pervade.cluster.apiserver.store.ring import Event, Ring

JSON = dict[str, Any]
Key = tuple[str, str]
_TAKE = 500
_LATE = 0.05
SHORT = frozenset({"coordination.k8s.io/leases", "/events"})
"""Resources whose history is trimmed hard: they change often and nobody reads their past."""


class Gone(Exception):
    """The asked version was compacted: 410."""


class StoreFailed(Exception):
    """The disk refused the write: 500; nothing was changed."""


class Subscription:
    """Events of one resource from a position on; `next()` waits. `overrun` says this reader was left behind."""

    def __init__(self, state: State, resource: str, ring: Ring) -> None:
        self._state, self._resource, self._ring = state, resource, ring
        self.at = ring.end
        self.overrun = False
        self.on_event: Callable[[], None] | None = None
        """Called (instead of waking `next`) when something was committed; must not block."""
        self._wake = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    def offer(self) -> None:
        if self.on_event is not None:
            self.on_event()
        else:
            self._wake.set()

    @property
    def caught_up(self) -> bool:
        return self.at == self._ring.end

    def take(self) -> list[Event]:
        """What has happened since the last call, at most a few hundred; sets `overrun` when the ring went on."""
        if self.at == self._ring.end:
            return []
        found = self._ring.since(self.at, _TAKE)
        if found is None:
            self.overrun = True
            return []
        self.at += len(found)
        return found

    async def next(self, timeout: float) -> list[Event]:
        """All events that wait, after at most about `timeout` seconds; empty on time-out, which may come early."""
        found = self.take()
        if found or self.overrun:
            return found
        self._wake.clear()
        self._arm(timeout)
        await self._wake.wait()
        return self.take()

    def _arm(self, timeout: float) -> None:
        """Wake after `timeout` at the latest. One timer serves many events: a thousand watchers set none per event."""
        loop = asyncio.get_running_loop()
        due = loop.time() + timeout
        if self._timer is not None:
            if self._timer.when() <= due + _LATE:
                return
            self._timer.cancel()
        self._timer = loop.call_at(due, self._rung)

    def _rung(self) -> None:
        self._timer = None
        self._wake.set()

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._state.subscriptions.get(self._resource, set()).discard(self)


class State:
    """The whole cluster's objects by resource (`group/plural`) and (namespace, name)."""

    def __init__(self, path: Path, **options: Any) -> None:
        self._log = Log(path, self._committed, short=SHORT, **options)
        self._objects: dict[str, dict[Key, Entry]] = {}
        self._order: dict[str, list[Key]] = {}
        self._pending: dict[tuple[str, Key], Entry] = {}
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._rings: dict[str, Ring] = {}
        self.subscriptions: dict[str, set[Subscription]] = {}
        self.changed: dict[str, int] = {}
        """Version of the last committed change per resource."""
        self.head = 0
        self.next_rev = 1
        self._start = 0
        self._loop: asyncio.AbstractEventLoop | None = None

    def open(self) -> None:
        """Read the log and start the writer; call on the loop that will use this state."""
        self._loop = asyncio.get_running_loop()
        living, self.head = self._log.open()
        # resourceVersion 0 and 1 mean something special to some clients.
        self.head = max(self.head, 1)
        self.next_rev = self.head + 1
        self._start = self.head
        for entry in living:
            self._objects.setdefault(entry.resource, {})[entry.namespace, entry.name] = entry
        self._log.start()

    def close(self) -> None:
        self._log.close()

    # Reads: committed state.

    def get(self, resource: str, namespace: str, name: str) -> Entry | None:
        return self._objects.get(resource, {}).get((namespace, name))

    def all(self, resource: str, namespace: str | None = None) -> list[Entry]:
        """Entries in key order; O(n), after a creation or deletion O(n log n)."""
        held = self._objects.get(resource)
        if not held:
            return []
        order = self._order.get(resource)
        if order is None:
            order = self._order[resource] = sorted(held)
        return [held[k] for k in order if namespace is None or k[0] == namespace]

    def entries(self, resource: str) -> Iterable[Entry]:
        return self._objects.get(resource, {}).values()

    async def list_at(
        self, resource: str, rev: int, namespace: str | None = None, *, after: Key = ("", ""), limit: int = -1
    ) -> list[Entry]:
        """Entries as they were at version `rev`, in key order after `after`; Gone when compacted.

        From memory when nothing has changed since, else one read of the log in a thread.
        """
        if rev >= self.changed.get(resource, self._start):
            found = [e for e in self.all(resource, namespace) if (e.namespace, e.name) > after]
            return found if limit < 0 else found[:limit]
        self._check(resource, rev)

        def read() -> list[Entry]:
            db = self._log.read()
            try:
                return sql.state_at(db, resource, rev, namespace, after, limit)
            finally:
                db.close()

        rows = await asyncio.to_thread(read)
        self._check(resource, rev)
        return rows

    def _check(self, resource: str, rev: int) -> None:
        if rev < self._log.floor(resource):
            raise Gone(f"version {rev} is older than {self._log.floor(resource)}")

    @property
    def compacted(self) -> int:
        """The oldest version at which every resource can still be read."""
        return max(self._log.floors.values(), default=0)

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
        body = obj if obj is not None else last
        assert body is not None
        body = {**body, "metadata": {**body["metadata"], "resourceVersion": str(rev)}}
        value = msgspec.json.encode(body)
        self.next_rev += 1
        action = DELETED if obj is None else UPDATED if before is not None else CREATED
        entry = Entry(rev, resource, namespace, name, action, before.rev if before else 0, value)
        self._pending[resource, (namespace, name)] = entry
        assert self._loop is not None
        waiter = self._loop.create_future()
        self._waiting[rev] = waiter
        self._log.append(entry)
        await asyncio.shield(waiter)
        return body

    def _committed(self, entries: list[Entry], error: Exception | None) -> None:
        assert self._loop is not None
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._apply, entries, error)

    def _apply(self, entries: list[Entry], error: Exception | None) -> None:
        touched: set[str] = set()
        waiters = []
        for entry in entries:
            key = entry.namespace, entry.name
            waiter = self._waiting.pop(entry.rev)
            if self._pending.get((entry.resource, key)) is entry:
                del self._pending[entry.resource, key]
            if error is not None:
                # Retrieved here: the caller may be gone, and then nobody else would look at it.
                waiter.set_exception(StoreFailed(str(error)))
                waiter.exception()
                continue
            self._show(entry, key)
            touched.add(entry.resource)
            waiters.append(waiter)
        for resource in touched:
            for one in tuple(self.subscriptions.get(resource, ())):
                one.offer()
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _show(self, entry: Entry, key: Key) -> None:
        held = self._objects.setdefault(entry.resource, {})
        old = held.get(key)
        if entry.action == DELETED:
            held.pop(key, None)
        else:
            held[key] = entry
        if old is None or entry.action == DELETED:
            self._order.pop(entry.resource, None)
        ring = self._ring(entry.resource)
        self.head = entry.rev
        self.changed[entry.resource] = entry.rev
        ring.push(Event(entry.rev, entry.action, entry.namespace, entry.value, old.value if old else None))

    # Watches.

    def _ring(self, resource: str) -> Ring:
        ring = self._rings.get(resource)
        if ring is None:
            # Nothing of this resource was committed since the start, so the start is as far as memory goes.
            ring = self._rings[resource] = Ring(self._start)
        return ring

    async def subscribe(self, resource: str, after: int) -> tuple[list[Event], Subscription]:
        """Events after version `after` that already happened, and a subscription to those that follow.

        From the ring when it reaches back that far, else from the log. Raises Gone when `after` is older
        than the compaction. O(events of this resource since then).
        """
        live = self.listen(resource)
        position = live._ring.position(after)
        if position is not None:
            live.at = position
            return [], live
        upto = self.head
        try:
            self._check(resource, after)

            def read() -> list[tuple[Entry, bytes | None]]:
                db = self._log.read()
                try:
                    return sql.changes(db, resource, after, upto)
                finally:
                    db.close()

            rows = await asyncio.to_thread(read)
            self._check(resource, after)
            return [Event(e.rev, e.action, e.namespace, e.value, old) for e, old in rows], live
        except BaseException:
            live.close()
            raise

    def listen(self, resource: str) -> Subscription:
        """Events of `resource` committed from now on."""
        live = Subscription(self, resource, self._ring(resource))
        self.subscriptions.setdefault(resource, set()).add(live)
        return live

    def dump(self) -> JSON:
        """What is held: objects, bytes, recent events and watchers per resource."""
        names = sorted({*self._objects, *self._rings, *self.subscriptions})
        empty: dict[Key, Entry] = {}
        return {
            "head": self.head,
            "commits": self._log.commits,
            "compacted_rows": self._log.dropped,
            "file_bytes": self._log.size(),
            "in_flight": len(self._waiting),
            "resources": {
                name: {
                    "objects": len(self._objects.get(name, empty)),
                    "bytes": sum(len(e.value) for e in self._objects.get(name, empty).values()),
                    "recent_events": len(self._rings[name]) if name in self._rings else 0,
                    "recent_bytes": self._rings[name].bytes if name in self._rings else 0,
                    "watchers": len(self.subscriptions.get(name, ())),
                    "floor": self._log.floor(name),
                }
                for name in names
            },
        }
