"""watch: events of a resource as a stream of JSON lines, in the form and selection the caller asked for.

The line of an event is made once and shared by all watchers that asked for the same form. A watch costs
its position in the resource's ring; a reader that falls behind the ring, or leaves its connection full
for long, is ended with 410 Expired and lists again.
"""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec

from pervade.cluster.apiserver.kinds.kind import JSON, Kind
from pervade.cluster.apiserver.rest import present, read
from pervade.cluster.apiserver.rest.context import Api, Request
from pervade.cluster.apiserver.rest.negotiate import Format
from pervade.cluster.apiserver.rest.status import StatusError, bad_request
from pervade.cluster.apiserver.store.log import CREATED, DELETED
from pervade.cluster.apiserver.store.ring import Event
from pervade.cluster.apiserver.store.state import Gone, Subscription

BOOKMARK_EVERY = 60.0
_LONGEST = 1800.0
_TYPES = {CREATED: "ADDED", DELETED: "DELETED"}
_INITIAL_END = "k8s.io/initial-events-end"
_JOIN_MOST = 256 * 1024


class Watch:
    """One watch; `lines()` yields what goes on the wire. Raises StatusError for options that are not valid."""

    def __init__(self, api: Api, request: Request, form: Format) -> None:
        self.api, self.request, self.form = api, request, form
        self.include = request.query.get("includeObject", "Metadata")
        self.kind: Kind = request.kind
        self.chosen = read.predicate(self.kind, request.query)
        self.namespace = request.info.namespace
        if request.info.name:
            # GET of one object with watch=true: a watch of that name.
            name, more = request.info.name, self.chosen
            self.chosen = lambda obj: obj["metadata"]["name"] == name and (more is None or more(obj))
        self._options(request)
        self.columns_sent = False
        self._live_now: Subscription | None = None

    def end(self) -> None:
        """Let `lines` come to its regular end now."""
        self.deadline = 0.0
        if self._live_now is not None:
            self._live_now.offer()

    def _options(self, request: Request) -> None:
        query = request.query
        self.bookmarks = query.get("allowWatchBookmarks") in ("true", "1")
        self.initial = query.get("sendInitialEvents") in ("true", "1")
        match = query.get("resourceVersionMatch")
        if "sendInitialEvents" in query and match != "NotOlderThan":
            raise _invalid(
                "resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
            )
        if "sendInitialEvents" not in query and match:
            raise _invalid(
                "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
            )
        text = query.get("resourceVersion", "")
        if text and not (text.isascii() and text.isdigit()):
            raise bad_request(f"invalid resourceVersion: {text!r} is not a number")
        self.version = int(text or 0)
        if self.version > self.api.state.head:
            raise read.too_large(self.version, self.api.state.head)
        # Initial events: asked for, or what a watch from nowhere always meant.
        nowhere = self.version == 0 and query.get("sendInitialEvents") not in ("false", "0")
        self.synthetic = self.initial or nowhere
        seconds = query.get("timeoutSeconds", "")
        if seconds and not seconds.isdigit():
            raise bad_request(f"invalid timeoutSeconds: {seconds!r} is not a number")
        # Without one, watches end at different times, so that their owners do not come back together.
        span = float(seconds or 0) or _LONGEST * (1 + random.random())
        self.deadline = time.monotonic() + span

    async def lines(self) -> AsyncIterator[bytes]:
        """Encoded events, one or more whole lines at a time; ends at the deadline or when the reader is too slow."""
        state, table = self.api.state, self.kind.table
        if self.synthetic:
            live = state.listen(table)
            version = state.head
            past: list[Event] = []
        elif self.version == 0:
            live, version, past = state.listen(table), state.head, []
        else:
            try:
                past, live = await state.subscribe(table, self.version)
            except Gone as gone:
                yield self._error(StatusError(410, f"too old resource version: {gone}"))
                return
            version = self.version
        self._live_now = live
        try:
            if self.synthetic:
                # Entries are kept until sent, so what changes meanwhile comes as an event afterwards.
                for part in self._initial():
                    yield part
                if self.initial and self.bookmarks:
                    yield self._bookmark(version, end=True)
            for part in self._joined(past):
                yield part
            async for part in self._live(live, version):
                yield part
        finally:
            live.close()

    def _initial(self) -> Iterator[bytes]:
        out, size = [], 0
        for entry in self.api.state.all(self.kind.table, self.namespace or None):
            if self.chosen is None and self.form.kind == "json":
                line = b'{"type":"ADDED","object":' + present.in_version(entry.value, self.kind) + b"}\n"
            else:
                obj = present.decoded(entry.value, self.kind)
                if self.chosen is not None and not self.chosen(obj):
                    continue
                line = self._line("ADDED", obj)
            out.append(line)
            size += len(line)
            if size > _JOIN_MOST:
                yield b"".join(out)
                out, size = [], 0
        if out:
            yield b"".join(out)

    def _joined(self, events: list[Event]) -> Iterator[bytes]:
        out, size = [], 0
        for event in events:
            line = self._event(event)
            if line is None:
                continue
            out.append(line)
            size += len(line)
            if size > _JOIN_MOST:
                yield b"".join(out)
                out, size = [], 0
        if out:
            yield out[0] if len(out) == 1 else b"".join(out)

    async def _live(self, live: Subscription, version: int) -> AsyncIterator[bytes]:
        mark = time.monotonic() + BOOKMARK_EVERY * (0.9 + 0.2 * random.random())
        while (now := time.monotonic()) < self.deadline:
            wait = (min(self.deadline, mark) if self.bookmarks else self.deadline) - now
            events = await live.next(max(wait, 0.0))
            if live.overrun:
                yield self._error(StatusError(410, "this watch was read too slowly; list again"))
                return
            if events:
                version = events[-1].rev
                for part in self._joined(events):
                    yield part
            elif self.bookmarks and time.monotonic() >= mark:
                version = max(version, self.api.state.head)
                yield self._bookmark(version)
            if time.monotonic() >= mark:
                mark = time.monotonic() + BOOKMARK_EVERY
        if self.bookmarks and live.caught_up:
            yield self._bookmark(max(version, self.api.state.head))

    def _event(self, event: Event) -> bytes | None:
        """The line of one event for this watch, or None when it is not selected."""
        if self.namespace and event.namespace != self.namespace:
            return None
        what, deleted = _TYPES.get(event.action, "MODIFIED"), event.action == DELETED
        shown = event.value
        if self.chosen is not None:
            new, old = self._versions(event)
            was = old is not None and self.chosen(old)
            now = not deleted and self.chosen(new)
            if not was and not now:
                return None
            if was and not now and not deleted:
                # It left the selection: its last selected state, with the version of the change.
                return self._left(event, old)
            if now and not was:
                what = "ADDED"
        if self.form.kind == "json":
            kind = self.kind
            line: bytes = event.once(
                (what, kind.api_version),
                lambda: b'{"type":"%b","object":%b}\n' % (what.encode(), present.in_version(shown, kind)),
            )
            return line
        if self.form.kind == "table" and not self.columns_sent:
            return self._line(what, present.decoded(shown, self.kind))
        key = (what, self.form, self.include, self.kind.api_version)
        made: bytes = event.once(key, lambda: self._line(what, present.decoded(shown, self.kind)))
        return made

    def _versions(self, event: Event) -> tuple[JSON, JSON | None]:
        """New and old object in the version of this watch; shared by all watchers."""
        if self.kind.stored_version == self.kind.api_version:
            return event.objects()

        def make() -> tuple[JSON, JSON | None]:
            new, old = event.objects()
            return present.shown(new, self.kind), present.shown(old, self.kind) if old else None

        found: tuple[JSON, JSON | None] = event.once(("versions", self.kind.api_version), make)
        return found

    def _left(self, event: Event, old: JSON | None) -> bytes:
        def make() -> bytes:
            last = old or {}
            last = {**last, "metadata": {**last["metadata"], "resourceVersion": str(event.rev)}}
            return self._line("DELETED", last)

        if self.form.kind == "table" and not self.columns_sent:
            return make()
        made: bytes = event.once(("left", self.form, self.include, self.kind.api_version), make)
        return made

    def _line(self, what: str, obj: JSON) -> bytes:
        shown: Any = obj
        if self.form.kind == "table":
            meta = {"resourceVersion": obj["metadata"]["resourceVersion"]}
            shown = present.table(
                self.kind,
                [obj],
                meta,
                include=self.include,
                version=self.form.version,
                columns=not self.columns_sent,
            )
            self.columns_sent = True
        elif self.form.kind != "json":
            shown = present.partial(obj, self.form.version)
        return msgspec.json.encode({"type": what, "object": shown}) + b"\n"

    def _bookmark(self, version: int, *, end: bool = False) -> bytes:
        meta: JSON = {"resourceVersion": str(version), "creationTimestamp": None}
        if end:
            meta["annotations"] = {_INITIAL_END: "true"}
        shown: JSON = {"kind": self.kind.kind, "apiVersion": self.kind.api_version, "metadata": meta}
        if self.form.kind == "table":
            row = {
                "cells": [],
                "object": {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": meta},
            }
            shown = {"kind": "Table", "apiVersion": f"meta.k8s.io/{self.form.version}"}
            shown |= {"metadata": {"resourceVersion": str(version)}, "columnDefinitions": [], "rows": [row]}
        elif self.form.kind != "json":
            shown = {
                "kind": "PartialObjectMetadata",
                "apiVersion": f"meta.k8s.io/{self.form.version}",
                "metadata": meta,
            }
        return msgspec.json.encode({"type": "BOOKMARK", "object": shown}) + b"\n"

    def _error(self, error: StatusError) -> bytes:
        return msgspec.json.encode({"type": "ERROR", "object": error.body()}) + b"\n"


def _invalid(text: str) -> StatusError:
    return StatusError(422, f"ListOptions.meta.k8s.io is invalid: {text}")
