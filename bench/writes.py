"""How many objects a second are made, and what SQLite and aiohttp alone would allow."""

from __future__ import annotations

import asyncio
import sqlite3
import statistics
import time
from pathlib import Path

import msgspec

from bench.guard import Guard
from bench.row import Row
from bench.servers import apiserver, bare
from pervade.wire.http import ClientSession, TCPConnector

_WRITERS, _COUNT, _RUNS = 32, 4000, 3


def body(number: int) -> bytes:
    """A ConfigMap of about 500 bytes."""
    return msgspec.json.encode(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": f"c{number:07}", "labels": {"app": "bench", "part": str(number % 10)}},
            "data": {"text": "x" * 350},
        }
    )


async def post_all(url: str, bodies: list[bytes]) -> float:
    """POST all bodies with 32 connections; requests a second. Any answer but 201 is an error."""
    left = iter(bodies)

    async def writer(session: ClientSession) -> None:
        for one in left:
            async with session.post(url, data=one, headers={"Content-Type": "application/json"}) as answer:
                said = await answer.read()
                if answer.status != 201:
                    raise RuntimeError(f"{answer.status}: {said[:300]!r}")

    async with ClientSession(connector=TCPConnector(limit=0)) as session:
        begin = time.perf_counter()
        await asyncio.gather(*(writer(session) for _ in range(_WRITERS)))
        return len(bodies) / (time.perf_counter() - begin)


def commits(folder: Path) -> float:
    """Commits a second of one row each, as durable as the server's (WAL, synchronous=NORMAL), by one thread without any server."""
    db = sqlite3.connect(folder / "plain.db", isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=NORMAL")
    db.execute("CREATE TABLE log (rev INTEGER PRIMARY KEY, name TEXT, value BLOB)")
    begin = time.perf_counter()
    for number in range(_COUNT):
        db.execute("BEGIN IMMEDIATE")
        db.execute("INSERT INTO log (name, value) VALUES (?, ?)", (f"c{number}", body(number)))
        db.execute("COMMIT")
    rate = _COUNT / (time.perf_counter() - begin)
    db.close()
    (folder / "plain.db").unlink()
    return rate


def rows(guard: Guard, folder: Path) -> list[Row]:
    """creates/s, against each baseline."""
    with bare(guard) as url:
        plain = statistics.median(
            asyncio.run(post_all(f"{url}/objects", [body(n) for n in range(_COUNT)])) for _ in range(_RUNS)
        )
    sqlite = statistics.median(commits(folder) for _ in range(_RUNS))
    seen = []
    with apiserver(guard, folder / "writes") as (url, _pid):
        for run in range(_RUNS):
            bodies = [body(run * _COUNT + n) for n in range(_COUNT)]
            seen.append(asyncio.run(post_all(f"{url}/api/v1/namespaces/default/configmaps", bodies)))
    figure = statistics.median(seen)
    how = f"ConfigMaps of 500 B, {_WRITERS} connections, median of {_RUNS} × {_COUNT}"
    return [
        Row("creates", figure, "/s", 500, False, plain, "a bare aiohttp handler", how),
        Row("creates", figure, "/s", 500, False, sqlite, "SQLite alone, a commit each", how),
    ]
