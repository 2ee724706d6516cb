"""Watches and lists over HTTP: what a client sees, in which order, from which version."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pervade.wire.http import ClientSession, ClientTimeout, TCPConnector

Running = Any
"""The `apiserver` fixture: url, parts, session, call(), watch()."""

MAPS = "/api/v1/namespaces/default/configmaps"
MERGE = "application/merge-patch+json"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
PARTIAL = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
INITIAL = "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"


def config(name: str, **labels: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": labels}, "data": {}}


async def take(events: AsyncIterator[Any], count: int) -> list[tuple[str, str]]:
    found = []
    async with asyncio.timeout(20):
        async for event in events:
            found.append((event["type"], event["object"]["metadata"].get("name", "")))
            if len(found) == count:
                break
    return found


async def test_a_watch_from_a_list_misses_nothing(apiserver: Running) -> None:
    call = apiserver.call
    await call("POST", MAPS, config("old"))
    version = (await call("GET", MAPS)).body["metadata"]["resourceVersion"]
    await call("POST", MAPS, config("a"))
    await call("PATCH", f"{MAPS}/a", {"data": {"x": "y"}}, content_type=MERGE)
    events = apiserver.watch(f"{MAPS}?watch=true&resourceVersion={version}")
    assert await take(events, 2) == [("ADDED", "a"), ("MODIFIED", "a")]
    await call("DELETE", f"{MAPS}/a")
    assert await take(events, 1) == [("DELETED", "a")]


async def test_a_deletion_carries_the_last_state_and_its_own_version(apiserver: Running) -> None:
    made = (await apiserver.call("POST", MAPS, config("a"))).body
    events = apiserver.watch(f"{MAPS}?watch=true&resourceVersion={made['metadata']['resourceVersion']}")
    await apiserver.call("DELETE", f"{MAPS}/a")
    async with asyncio.timeout(10):
        gone = await anext(events)
    assert gone["type"] == "DELETED" and gone["object"]["metadata"]["uid"] == made["metadata"]["uid"]
    assert int(gone["object"]["metadata"]["resourceVersion"]) > int(made["metadata"]["resourceVersion"])


async def test_a_watch_from_nowhere_begins_with_everything(apiserver: Running) -> None:
    for name in ("b", "a"):
        await apiserver.call("POST", MAPS, config(name))
    events = apiserver.watch(f"{MAPS}?watch=true")
    assert await take(events, 2) == [("ADDED", "a"), ("ADDED", "b")]


async def test_initial_events_end_with_an_annotated_bookmark(apiserver: Running) -> None:
    await apiserver.call("POST", MAPS, config("a"))
    events = apiserver.watch(f"{MAPS}?{INITIAL}")
    async with asyncio.timeout(10):
        first, mark = await anext(events), await anext(events)
    assert first["type"] == "ADDED"
    assert mark["type"] == "BOOKMARK"
    assert mark["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
    assert mark["object"]["kind"] == "ConfigMap" and "data" not in mark["object"]


async def test_objects_enter_and_leave_a_selection(apiserver: Running) -> None:
    version = (await apiserver.call("GET", MAPS)).body["metadata"]["resourceVersion"]
    events = apiserver.watch(f"{MAPS}?watch=true&resourceVersion={version}&labelSelector=tier%3Dx")
    await apiserver.call("POST", MAPS, config("a", tier="y"))
    for tier in ("x", "x", "y", "x"):
        body = {"metadata": {"labels": {"tier": tier}}, "data": {"n": tier + str(id(tier))}}
        await apiserver.call("PATCH", f"{MAPS}/a", body, content_type=MERGE)
    await apiserver.call("DELETE", f"{MAPS}/a")
    assert await take(events, 3) == [("ADDED", "a"), ("DELETED", "a"), ("ADDED", "a")]
    assert await take(events, 1) == [("DELETED", "a")]


async def test_tables_and_metadata_are_watched_too(apiserver: Running) -> None:
    version = (await apiserver.call("GET", MAPS)).body["metadata"]["resourceVersion"]
    tables = apiserver.watch(f"{MAPS}?watch=true&resourceVersion={version}", accept=TABLE)
    partial = apiserver.watch(f"{MAPS}?watch=true&resourceVersion={version}", accept=PARTIAL)
    for name in ("a", "b"):
        await apiserver.call("POST", MAPS, config(name))
    async with asyncio.timeout(10):
        first, second = await anext(tables), await anext(tables)
        meta = await anext(partial)
    assert first["object"]["kind"] == "Table" and first["object"]["columnDefinitions"]
    assert not second["object"]["columnDefinitions"] and len(second["object"]["rows"]) == 1
    assert meta["object"]["kind"] == "PartialObjectMetadata" and "data" not in meta["object"]


async def test_a_watch_ends_when_its_time_is_over(apiserver: Running) -> None:
    events = [
        e async for e in apiserver.watch(f"{MAPS}?watch=true&timeoutSeconds=1&allowWatchBookmarks=true")
    ]
    assert [e["type"] for e in events] == ["BOOKMARK"]


@pytest.mark.parametrize(
    ("query", "status", "reason"),
    [
        ("watch=true&resourceVersion=abc", 400, "BadRequest"),
        ("watch=true&resourceVersion=99999999", 504, "Timeout"),
        ("watch=true&sendInitialEvents=true", 422, "Invalid"),
        ("watch=true&resourceVersionMatch=NotOlderThan", 422, "Invalid"),
        ("watch=true&fieldSelector=spec.foo%3D1", 400, "BadRequest"),
        ("labelSelector=a%20in%20b", 400, "BadRequest"),
        ("fieldSelector=spec.foo%3D1", 400, "BadRequest"),
        ("continue=nonsense", 400, "BadRequest"),
        ("limit=x", 400, "BadRequest"),
        ("resourceVersion=1.5", 400, "BadRequest"),
        ("resourceVersion=99999999", 504, "Timeout"),
        ("resourceVersionMatch=Exact", 422, "Invalid"),
        ("resourceVersion=0&resourceVersionMatch=Exact", 422, "Invalid"),
        ("resourceVersion=1&resourceVersionMatch=Some", 422, "Invalid"),
    ],
)
async def test_options_that_make_no_sense_are_refused(
    apiserver: Running, query: str, status: int, reason: str
) -> None:
    refused = await apiserver.call("GET", f"{MAPS}?{query}")
    assert (refused.status, refused.body["reason"]) == (status, reason), refused.body


async def test_a_version_before_the_log_is_expired(apiserver: Running, tmp_path: Path) -> None:
    state = apiserver.parts.state
    state._log.floors = {"/configmaps": 5}
    state._rings.clear()
    state._start = state.head
    state.changed.clear()
    async with asyncio.timeout(10):
        event = await anext(apiserver.watch(f"{MAPS}?watch=true&resourceVersion=2"))
    assert event["type"] == "ERROR" and (event["object"]["code"], event["object"]["reason"]) == (
        410,
        "Expired",
    )


async def test_pages_show_one_moment(apiserver: Running) -> None:
    call = apiserver.call
    for n in range(7):
        await call("POST", MAPS, config(f"c{n}"))
    first = (await call("GET", f"{MAPS}?limit=3")).body
    assert first["metadata"]["remainingItemCount"] == 4
    await call("DELETE", f"{MAPS}/c5")
    await call("POST", MAPS, config("c33"))
    names = [i["metadata"]["name"] for i in first["items"]]
    token = first["metadata"]["continue"]
    while token:
        page = (await call("GET", f"{MAPS}?limit=3&continue={token}")).body
        names += [i["metadata"]["name"] for i in page["items"]]
        assert page["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
        token = page["metadata"].get("continue")
    assert names == [f"c{n}" for n in range(7)]


async def test_an_exact_version_can_be_listed(apiserver: Running) -> None:
    version = (await apiserver.call("POST", MAPS, config("a"))).body["metadata"]["resourceVersion"]
    await apiserver.call("POST", MAPS, config("b"))
    then = (await apiserver.call("GET", f"{MAPS}?resourceVersion={version}&resourceVersionMatch=Exact")).body
    assert [i["metadata"]["name"] for i in then["items"]] == ["a"]
    assert then["metadata"]["resourceVersion"] == version


async def test_a_thousand_watchers_see_one_change_once(apiserver: Running) -> None:
    version = (await apiserver.call("GET", MAPS)).body["metadata"]["resourceVersion"]
    async with ClientSession(connector=TCPConnector(limit=0), timeout=ClientTimeout(total=60)) as session:
        url = f"{apiserver.url}{MAPS}?watch=true&resourceVersion={version}"
        open_ = [await session.get(url) for _ in range(1000)]
        assert len(apiserver.parts.server.watches) == 1000
        await apiserver.call("POST", MAPS, config("a"))
        lines = await asyncio.gather(*(r.content.readline() for r in open_))
        assert len(set(lines)) == 1
        assert msgspec.json.decode(lines[0])["object"]["metadata"]["name"] == "a"
        for response in open_:
            response.close()
    async with asyncio.timeout(20):
        await apiserver.parts.server.quiet()
    assert not apiserver.parts.state.subscriptions["/configmaps"], "closed watches leave nothing behind"


async def test_stopping_ends_watches_in_order(tmp_path: Path, start_server: Any) -> None:
    parts, runner, url = await start_server(tmp_path)
    async with ClientSession(timeout=ClientTimeout(total=30)) as session:
        response = await session.get(f"{url}{MAPS}?watch=true&resourceVersion={parts.state.head}")
        parts.server.stop()
        assert await response.content.read() == b"", "a whole, empty stream: no reset"
        assert (await session.get(f"{url}/readyz")).status == 500
    await runner.cleanup()
    await parts.stop()
