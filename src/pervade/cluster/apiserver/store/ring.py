"""The recent events of one resource, shared by all its watchers through cursors.

A watcher holds only its position: its cost does not grow with how slow it is, and one that is slower
than the ring is long is told so. Bounded by number and bytes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import msgspec

JSON = dict[str, Any]
_HOT = 32


class Event:
    """One change as watchers see it. `old` is the encoded object before, None when it was created."""

    __slots__ = ("_cache", "action", "namespace", "old", "rev", "value")

    def __init__(self, rev: int, action: int, namespace: str, value: bytes, old: bytes | None) -> None:
        self.rev, self.action, self.namespace, self.value, self.old = rev, action, namespace, value, old
        self._cache: dict[Any, Any] | None = None

    def once(self, key: Any, make: Callable[[], Any]) -> Any:
        """`make()` computed once per event and `key` while the event is recent, shared by all watchers."""
        if self._cache is None:
            self._cache = {}
        if key not in self._cache:
            self._cache[key] = make()
        return self._cache[key]

    def objects(self) -> tuple[JSON, JSON | None]:
        """The decoded new and old object; not to be changed."""
        found: tuple[JSON, JSON | None] = self.once(
            "objects",
            lambda: (msgspec.json.decode(self.value), msgspec.json.decode(self.old) if self.old else None),
        )
        return found

    def cool(self) -> None:
        """Drop what was computed: the event is no longer recent."""
        self._cache = None


class Ring:
    """Events in log order; a sequence number counts all events ever pushed."""

    def __init__(self, floor: int, *, most: int = 2000, most_bytes: int = 2 << 20) -> None:
        self.floor = floor
        """The version before the oldest event held."""
        self._events: deque[Event] = deque()
        self._first = 0
        self._bytes = 0
        self._most, self._most_bytes = most, most_bytes

    @property
    def end(self) -> int:
        """The sequence number of the next event."""
        return self._first + len(self._events)

    def __len__(self) -> int:
        return len(self._events)

    @property
    def bytes(self) -> int:
        return self._bytes

    def push(self, event: Event) -> None:
        """O(1)."""
        self._events.append(event)
        self._bytes += len(event.value)
        while len(self._events) > self._most or (self._bytes > self._most_bytes and len(self._events) > _HOT):
            gone = self._events.popleft()
            self._bytes -= len(gone.value)
            self._first += 1
            self.floor = gone.rev
        if len(self._events) > _HOT:
            self._events[-_HOT - 1].cool()

    def position(self, rev: int) -> int | None:
        """The sequence number of the first event after version `rev`; None when it was dropped. O(events after)."""
        if rev < self.floor:
            return None
        at = self.end
        for event in reversed(self._events):
            if event.rev <= rev:
                break
            at -= 1
        return at

    def since(self, sequence: int, most: int) -> list[Event] | None:
        """At most `most` events from `sequence` on; None when the first was dropped. O(most + ring)."""
        at = sequence - self._first
        if at < 0:
            return None
        stop = min(len(self._events), at + most)
        return [self._events[i] for i in range(at, stop)]
