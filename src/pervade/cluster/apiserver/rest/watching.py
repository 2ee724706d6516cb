"""watch: events of a resource as a stream of JSON lines, in the form and selection the caller asked for.

The line of an event is made once and shared by all watchers that asked for the same form.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from pervade.cluster.apiserver.kinds.kind import JSON, Kind
from pervade.cluster.apiserver.rest import present, read
from pervade.cluster.apiserver.rest.context import Api, Request
from pervade.cluster.apiserver.rest.status import StatusError, bad_request
from pervade.cluster.apiserver.store.log import CREATED, DELETED
from pervade.cluster.apiserver.store.ring import Event
from pervade.cluster.apiserver.store.state import Gone, Subscription

_BOOKMARK_EVERY = 60.0
_TYPES = {CREATED: "ADDED", DELETED: "DELETED"}
_INITIAL_END = "k8s.io/initial-events-end"


class Watch:
    """One watch: `lines()` yields what goes on the wire."""

    def __init__(self, api: Api, request: Request, form: str, include: str) -> None:
        self.api, self.request, self.form, self.include = api, request, form, include
        query = request.query
        self.kind: Kind = request.kind
        self.chosen = read.predicate(self.kind, query)
        self.namespace = request.info.namespace
        self.bookmarks = query.get("allowWatchBookmarks") in ("true", "1")
        self.initial = query.get("sendInitialEvents") in ("true", "1")
        if "sendInitialEvents" in query and query.get("resourceVersionMatch") != "NotOlderThan":
            text = (
                "ListOptions.meta.k8s.io is invalid: resourceVersionMatch: Forbidden: sendInitialEvents requires setting"
                " resourceVersionMatch to NotOlderThan"
            )
            raise StatusError(422, text)
        if "sendInitialEvents" not in query and query.get("resourceVersionMatch"):
            raise StatusError(
                422, "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
            )
        text = query.get("resourceVersion", "")
        if text and not text.isdigit():
            raise bad_request(f"invalid resourceVersion: {text!r} is not a number")
        self.version = int(text or 0)
        if self.version > api.state.head:
            raise read.too_large(self.version, api.state.head)
        seconds = query.get("timeoutSeconds", "")
        self.deadline = time.monotonic() + (int(seconds) if seconds.isdigit() and int(seconds) else 3600)
        self.columns_sent = False

    async def lines(self) -> AsyncIterator[bytes]:
        """Encoded events, one line each; ends at the deadline or when the reader is too slow."""
        synthetic = self.initial or self.version == 0
        if synthetic:
            live = self.api.state.listen(self.kind.table)
            version = self.api.state.head
            past: list[Event] = []
        else:
            try:
                past, live = await self.api.state.subscribe(self.kind.table, self.version)
            except Gone as gone:
                yield self._error(StatusError(410, f"too old resource version: {gone}"))
                return
            version = self.version
        try:
            if synthetic:
                for entry in self.api.state.all(self.kind.table, self.namespace or None):
                    obj = present.decoded(entry.value, self.kind)
                    if self.chosen is None or self.chosen(obj):
                        yield self._line("ADDED", obj)
                if self.initial and self.bookmarks:
                    yield self._bookmark(version, end=True)
            for event in past:
                if line := self._event(event):
                    yield line
            async for line in self._live(live, version):
                yield line
        finally:
            live.close()

    async def _live(self, live: Subscription, version: int) -> AsyncIterator[bytes]:
        next_mark = time.monotonic() + _BOOKMARK_EVERY
        while (now := time.monotonic()) < self.deadline:
            events = await live.next(min(self.deadline, next_mark) - now)
            if live.overrun:
                yield self._error(
                    StatusError(410, "this watch was read too slowly; list again", reason="Expired")
                )
                return
            out = []
            for event in events:
                version = event.rev
                if line := self._event(event):
                    out.append(line)
            if out:
                yield b"".join(out)
            elif not events and self.bookmarks and time.monotonic() >= next_mark:
                version = max(version, self.api.state.head)
                yield self._bookmark(version)
            if time.monotonic() >= next_mark:
                next_mark = time.monotonic() + _BOOKMARK_EVERY
        if self.bookmarks:
            await asyncio.sleep(0)
            yield self._bookmark(max(version, 1))

    def _event(self, event: Event) -> bytes | None:
        """The line of one event for this watch, or None when it is not selected."""
        what = _TYPES.get(event.action, "MODIFIED")
        if self.namespace and self._namespace_of(event) != self.namespace:
            return None
        if self.chosen is not None:
            new, old = event.objects()
            if new.get("apiVersion") != self.kind.api_version:
                new, old = present.convert(new, self.kind), present.convert(old, self.kind) if old else None
            was = old is not None and self.chosen(old)
            now = event.action != DELETED and self.chosen(new)
            if event.action == DELETED:
                if not was:
                    return None
            elif was and not now:
                what = "DELETED"
            elif now and not was:
                what = "ADDED"
            elif not now:
                return None
        if self.form == "json":
            line: bytes = event.once((what, self.kind.api_version), lambda: self._raw(what, event.value))
            return line
        return self._line(what, present.decoded(event.value, self.kind))

    def _namespace_of(self, event: Event) -> str:
        found: str = event.once("namespace", lambda: event.objects()[0]["metadata"].get("namespace", ""))
        return found

    def _raw(self, what: str, value: bytes) -> bytes:
        return b'{"type":"' + what.encode() + b'","object":' + read.in_version(value, self.kind) + b"}\n"

    def _line(self, what: str, obj: JSON) -> bytes:
        shown: Any = obj
        if self.form == "table":
            meta = {"resourceVersion": obj["metadata"]["resourceVersion"]}
            shown = present.table(self.kind, [obj], meta, include=self.include, columns=not self.columns_sent)
            self.columns_sent = True
        elif self.form == "partial":
            shown = present.partial(obj)
        return msgspec.json.encode({"type": what, "object": shown}) + b"\n"

    def _bookmark(self, version: int, *, end: bool = False) -> bytes:
        meta: JSON = {"resourceVersion": str(version), "creationTimestamp": None}
        if end:
            meta["annotations"] = {_INITIAL_END: "true"}
        shown: JSON = {"kind": self.kind.kind, "apiVersion": self.kind.api_version, "metadata": meta}
        if self.form == "table":
            shown = {
                "kind": "Table",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": {"resourceVersion": str(version)},
            }
            shown |= {"columnDefinitions": None, "rows": [{"cells": [], "object": {"metadata": meta}}]}
        elif self.form == "partial":
            shown = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": meta}
        return msgspec.json.encode({"type": "BOOKMARK", "object": shown}) + b"\n"

    def _error(self, error: StatusError) -> bytes:
        return msgspec.json.encode({"type": "ERROR", "object": error.body()}) + b"\n"
