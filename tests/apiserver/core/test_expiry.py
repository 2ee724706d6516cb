"""Events do not stay for ever."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from pervade.cluster.apiserver.rest import expiry

EVENTS = "/api/v1/namespaces/default/events"


async def test_events_go_an_hour_after_they_were_last_seen(apiserver: Any) -> None:
    now = datetime.now(UTC)
    for name, age in (("old", 90), ("fresh", 5)):
        seen = (now - timedelta(minutes=age)).strftime("%Y-%m-%dT%H:%M:%SZ")
        body = {"metadata": {"name": name}, "involvedObject": {}, "lastTimestamp": seen}
        assert (await apiserver.call("POST", EVENTS, body)).status == 201
    assert await expiry.expire(apiserver.parts.state, now) == 0, "both were made just now"
    assert await expiry.expire(apiserver.parts.state, now + timedelta(minutes=62)) == 2
    assert (await apiserver.call("GET", EVENTS)).body["items"] == []
