"""Events live an hour after they were last seen, as on any Kubernetes; then the server deletes them."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta

import msgspec

from pervade.cluster.apiserver.rest import present
from pervade.cluster.apiserver.store.state import State, StoreFailed

log = logging.getLogger(__name__)
TABLE = "/events"
LIFE = timedelta(hours=1)
_EVERY = 300.0
_AT_ONCE = 200


class _Series(msgspec.Struct, gc=False):
    lastObservedTime: str | None = None


class _Meta(msgspec.Struct, gc=False):
    creationTimestamp: str | None = None


class _Times(msgspec.Struct, gc=False):
    metadata: _Meta
    lastTimestamp: str | None = None
    eventTime: str | None = None
    series: _Series | None = None


_times = msgspec.json.Decoder(_Times).decode


def last_seen(value: bytes) -> datetime:
    """When an encoded event was last seen; the beginning of time when it does not say."""
    times = _times(value)
    said = [times.metadata.creationTimestamp, times.lastTimestamp, times.eventTime]
    said.append(times.series.lastObservedTime if times.series else None)
    found = [datetime.fromisoformat(t) for t in said if t]
    return max(
        (t if t.tzinfo else t.replace(tzinfo=UTC) for t in found), default=datetime.min.replace(tzinfo=UTC)
    )


async def expire(state: State, now: datetime) -> int:
    """Delete what was last seen more than `LIFE` before `now`; the number deleted. O(events)."""
    old = []
    for entry in state.all(TABLE):
        try:
            if now - last_seen(entry.value) > LIFE:
                old.append(entry)
        except (ValueError, msgspec.ValidationError):
            log.warning(
                "an event with times that are none", extra={"event": f"{entry.namespace}/{entry.name}"}
            )
            old.append(entry)
    for start in range(0, len(old), _AT_ONCE):
        writes = []
        for entry in old[start : start + _AT_ONCE]:
            latest = state.latest(TABLE, entry.namespace, entry.name)
            if latest is not None and latest.rev == entry.rev:
                last = present.parse(entry.value)
                writes.append(state.write(TABLE, entry.namespace, entry.name, None, last=last))
        await asyncio.gather(*writes)
    return len(old)


async def run(state: State) -> None:
    """Expire events now and then, for as long as the server runs."""
    while True:
        await asyncio.sleep(_EVERY)
        try:
            if gone := await expire(state, datetime.now(UTC)):
                log.debug("events expired", extra={"count": gone})
        except StoreFailed as error:
            log.warning("events could not be expired", extra={"error": str(error)})
