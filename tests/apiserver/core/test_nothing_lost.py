"""The story of the sudden death: kill -9 of the real server process in the middle of many writes.

Every acknowledged write is there afterwards, and watchers that resume see each change once, in order.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from pervade.wire.http import ClientError, ClientSession, ClientTimeout, TCPConnector

MAPS = "/api/v1/namespaces/default/configmaps"
WRITES, WRITERS, KILLS = 10_000, 32, 3


class Process:
    """The server as a process that can be killed and started again on the same port and store."""

    def __init__(self, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        self.folder = folder
        self.url = f"http://127.0.0.1:{self.port}"
        self.up = asyncio.Event()
        self.progress = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        command = (
            "-m",
            "pervade.app.apiserver",
            "--insecure-port",
            str(self.port),
            "--state-dir",
            str(self.folder),
        )
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, *command, stderr=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONPATH": "src"}
        )
        assert self._process.stderr is not None
        async with asyncio.timeout(30):
            async for line in self._process.stderr:
                if b"serving" in line:
                    break
        self.up.set()

    async def kill(self, number: int = signal.SIGKILL) -> None:
        assert self._process is not None
        self.up.clear()
        if self._process.returncode is None:
            self._process.send_signal(number)
        await self._process.wait()


@pytest.fixture
async def process(tmp_path: Path) -> AsyncIterator[Process]:
    one = Process(tmp_path)
    await one.start()
    yield one
    await one.kill()


async def write(process: Process, session: ClientSession, queue: asyncio.Queue[int], acked: set[str]) -> None:
    """Create objects until the queue is empty; one that was not acknowledged is tried again."""
    while True:
        try:
            number = queue.get_nowait()
        except asyncio.QueueEmpty:
            return
        name = f"c{number:05}"
        while True:
            await process.up.wait()
            try:
                async with session.post(process.url + MAPS, json={"metadata": {"name": name}}) as response:
                    if response.status in (201, 409):
                        acked.add(name)
                        process.progress.set()
                        break
            except (ClientError, OSError):
                await asyncio.sleep(0)


async def watch(process: Process, session: ClientSession, version: str, seen: list[tuple[str, int]]) -> None:
    """Collect (name, version) of creations, resuming at the last version seen whenever the stream breaks."""
    while len(seen) < WRITES:
        await process.up.wait()
        try:
            url = f"{process.url}{MAPS}?watch=true&resourceVersion={version}"
            async with session.get(url) as response:
                assert response.status == 200, await response.text()
                async for line in response.content:
                    if not line.endswith(b"\n"):
                        break
                    event = msgspec.json.decode(line)
                    assert event["type"] == "ADDED", event
                    meta = event["object"]["metadata"]
                    seen.append((meta["name"], int(meta["resourceVersion"])))
                    version = meta["resourceVersion"]
                    if len(seen) == WRITES:
                        return
        except (ClientError, OSError):
            await asyncio.sleep(0)


async def test_nothing_acknowledged_is_lost_and_watchers_resume(process: Process) -> None:
    queue: asyncio.Queue[int] = asyncio.Queue()
    for number in range(WRITES):
        queue.put_nowait(number)
    acked: set[str] = set()
    views: list[list[tuple[str, int]]] = [[] for _ in range(4)]
    connector = TCPConnector(limit=0)
    async with ClientSession(
        connector=connector, timeout=ClientTimeout(total=None), read_bufsize=1 << 20
    ) as session:
        async with session.get(process.url + MAPS) as response:
            version = (await response.json())["metadata"]["resourceVersion"]
        watchers = [asyncio.create_task(watch(process, session, version, view)) for view in views]
        writers = [asyncio.create_task(write(process, session, queue, acked)) for _ in range(WRITERS)]
        async with asyncio.timeout(240):
            for kill in range(1, KILLS + 1):
                while len(acked) < WRITES * kill // (KILLS + 1):
                    process.progress.clear()
                    await process.progress.wait()
                before = set(acked)
                await process.kill()
                await process.start()
                async with session.get(process.url + MAPS) as response:
                    there = {i["metadata"]["name"] for i in (await response.json())["items"]}
                assert before <= there, "an acknowledged write is gone"
            await asyncio.gather(*writers)
            await asyncio.gather(*watchers)
        async with session.get(process.url + MAPS) as response:
            found = await response.json()
    names = {i["metadata"]["name"] for i in found["items"]}
    assert len(names) == WRITES and acked == names
    for view in views:
        versions = [v for _, v in view]
        assert versions == sorted(set(versions)), "in order, none twice"
        assert {n for n, _ in view} == names, "no gap"
    assert views[0] == views[1] == views[2] == views[3]
    await process.kill(signal.SIGTERM)
