"""Stories of the store: what was acknowledged stays, watchers miss nothing, history is bounded."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pervade.base.errors import OperatorError
from pervade.cluster.apiserver.store import sql
from pervade.cluster.apiserver.store.log import CREATED, DELETED, UPDATED
from pervade.cluster.apiserver.store.state import Gone, State, StoreFailed, Subscription

PODS = "/pods"


def pod(name: str, n: int = 0) -> dict[str, Any]:
    return {"kind": "Pod", "metadata": {"namespace": "a", "name": name}, "spec": {"n": n}}


@pytest.fixture
async def state(tmp_path: Path) -> Any:
    one = State(tmp_path / "log.db", keep=50, keep_short=20)
    one.open()
    yield one
    one.close()


async def drain(live: Subscription, count: int) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    async with asyncio.timeout(20):
        while len(found) < count:
            found += [(e.rev, e.action) for e in await live.next(5)]
            assert not live.overrun
    return found


async def test_a_write_is_acknowledged_when_it_is_on_disk(state: State, tmp_path: Path) -> None:
    stored = await state.write(PODS, "a", "one", pod("one"))
    db = sql.connect(tmp_path / "log.db")
    (value,) = db.execute("SELECT value FROM log WHERE name = 'one'").fetchone()
    db.close()
    assert json.loads(value) == stored
    assert int(stored["metadata"]["resourceVersion"]) == state.head


async def test_reads_do_not_see_a_write_in_flight_but_writes_do(state: State) -> None:
    task = asyncio.create_task(state.write(PODS, "a", "one", pod("one")))
    await asyncio.sleep(0)
    latest = state.latest(PODS, "a", "one")
    assert latest is not None and latest.action == CREATED
    if not task.done():
        assert state.get(PODS, "a", "one") is None
    await task
    assert state.get(PODS, "a", "one") is not None


async def test_a_watch_from_any_version_gives_what_came_after_it(state: State, tmp_path: Path) -> None:
    revs = []
    for n in range(5):
        done = await state.write(PODS, "a", "one", pod("one", n))
        revs.append(int(done["metadata"]["resourceVersion"]))
    past, live = await state.subscribe(PODS, revs[1])
    assert past == []
    assert await drain(live, 3) == [(r, UPDATED) for r in revs[2:]]


async def test_watchers_resume_over_a_restart_with_no_gap_and_no_duplicate(tmp_path: Path) -> None:
    first = State(tmp_path / "log.db")
    first.open()
    revs = []
    for n in range(10):
        done = await first.write(PODS, "a", f"p{n}", pod(f"p{n}"))
        revs.append(int(done["metadata"]["resourceVersion"]))
    await first.write(PODS, "a", "p3", None, last=pod("p3"))
    first.close()
    second = State(tmp_path / "log.db")
    second.open()
    past, live = await second.subscribe(PODS, revs[4])
    more = await second.write(PODS, "a", "later", pod("later"))
    assert [e.rev for e in past] == [*revs[5:], revs[9] + 1]
    assert past[-1].action == DELETED and past[-1].old is not None
    assert await drain(live, 1) == [(int(more["metadata"]["resourceVersion"]), CREATED)]
    assert [e.name for e in second.all(PODS)] == ["later", *(f"p{n}" for n in range(10) if n != 3)]
    second.close()


async def test_a_reader_slower_than_the_ring_is_told_and_costs_nothing(state: State) -> None:
    await state.write(PODS, "a", "one", pod("one"))
    live = state.listen(PODS)
    await asyncio.gather(*(state.write(PODS, "a", f"p{n}", pod(f"p{n}")) for n in range(2500)))
    assert await live.next(1) == []
    assert live.overrun
    assert state.dump()["resources"][PODS]["recent_events"] <= 2000


async def test_compacted_versions_are_gone_and_later_ones_are_whole(state: State) -> None:
    seen: dict[int, list[str]] = {}
    for n in range(200):
        name = f"p{n % 7}"
        if n % 5 == 4 and state.get(PODS, "a", name):
            await state.write(PODS, "a", name, None, last=pod(name, n))
        else:
            await state.write(PODS, "a", name, pod(name, n))
        seen[state.head] = [f"{e.name}@{e.rev}" for e in state.all(PODS)]
    floor = state._log.floor(PODS)
    assert floor > 50, "history is bounded"
    with pytest.raises(Gone):
        await state.list_at(PODS, 5)
    for rev in (floor, floor + 3, state.head - 10, state.head):
        assert [f"{e.name}@{e.rev}" for e in await state.list_at(PODS, rev)] == seen[rev]


async def test_a_watch_from_a_compacted_version_is_refused(tmp_path: Path) -> None:
    first = State(tmp_path / "log.db", keep=20, keep_short=10)
    first.open()
    for n in range(100):
        await first.write(PODS, "a", "one", pod("one", n))
    first.close()
    second = State(tmp_path / "log.db")
    second.open()
    with pytest.raises(Gone):
        await second.subscribe(PODS, 5)
    assert not second.subscriptions[PODS]
    second.close()


async def test_pages_of_an_old_version_are_consistent(state: State) -> None:
    for n in range(9):
        await state.write(PODS, "a", f"p{n}", pod(f"p{n}"))
    pinned = state.head
    first = await state.list_at(PODS, pinned, limit=4)
    await state.write(PODS, "a", "p5", None, last=pod("p5"))
    await state.write(PODS, "a", "p4x", pod("p4x"))
    rest = await state.list_at(PODS, pinned, after=(first[-1].namespace, first[-1].name))
    assert [e.name for e in first + rest] == [f"p{n}" for n in range(9)]


async def test_a_failed_write_changes_nothing_and_takes_its_successors_along(
    state: State, tmp_path: Path
) -> None:
    await state.write(PODS, "a", "one", pod("one", 1))
    blocker = sqlite3.connect(tmp_path / "log.db", isolation_level=None)
    taken = state.next_rev
    blocker.execute("INSERT INTO log VALUES (?, 'x', '', '', 0, 0, '')", (taken,))
    results = await asyncio.gather(
        state.write(PODS, "a", "one", pod("one", 2)),
        state.write(PODS, "a", "one", pod("one", 3)),
        return_exceptions=True,
    )
    blocker.close()
    assert [type(r) for r in results] == [StoreFailed, StoreFailed]
    held = state.get(PODS, "a", "one")
    assert held is not None and json.loads(held.value)["spec"]["n"] == 1
    again = await state.write(PODS, "a", "one", pod("one", 4))
    assert again["spec"]["n"] == 4


async def test_a_damaged_file_is_refused_with_the_cure(tmp_path: Path) -> None:
    (tmp_path / "log.db").write_bytes(b"this is not a database, it is a sentence" * 200)
    with pytest.raises(OperatorError, match="cannot be read"):
        State(tmp_path / "log.db").open()


def _names() -> Iterator[str]:
    yield from ("x", "y", "z")


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(list(_names())), st.booleans()), max_size=40), st.integers(0, 40))
async def test_replaying_the_log_gives_the_state(steps: list[tuple[str, bool]], cut: int) -> None:
    """Any list at a version plus the watch from it equals the list now."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        state = State(Path(folder) / "log.db")
        state.open()
        marks = [state.head]
        for name, remove in steps:
            if remove and state.get(PODS, "a", name):
                await state.write(PODS, "a", name, None, last=pod(name))
            else:
                await state.write(PODS, "a", name, pod(name))
            marks.append(state.head)
        start = marks[min(cut, len(marks) - 1)]
        view = {e.name: e.rev for e in await state.list_at(PODS, start)}
        past, live = await state.subscribe(PODS, start)
        for event in [*past, *live.take()]:
            name = json.loads(event.value)["metadata"]["name"]
            if event.action == DELETED:
                assert view.pop(name)
            else:
                assert (event.action == CREATED) == (name not in view)
                view[name] = event.rev
        assert view == {e.name: e.rev for e in state.all(PODS)}
        state.close()
