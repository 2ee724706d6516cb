"""A real API server on loopback, in this process: `apiserver`; its calls: `call`."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pervade.cluster.apiserver.parts import Parts, Settings, assemble
from pervade.testing.guarded import Guarded
from pervade.wire.http import ClientSession, ClientTimeout, web

JSON = dict[str, Any]


@dataclasses.dataclass
class Answer:
    """One answer: status, headers and the decoded body (text when it is no JSON)."""

    status: int
    headers: Any
    body: Any


@dataclasses.dataclass
class Running:
    """A server, its parts, and a session to it."""

    url: str
    parts: Parts
    session: ClientSession

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content_type: str = "application/json",
        accept: str = "application/json",
        **headers: str,
    ) -> Answer:
        """One request; `body` is encoded unless it is bytes."""
        data = body if body is None or isinstance(body, bytes) else msgspec.json.encode(body)
        sent = {"Accept": accept, **headers} | ({"Content-Type": content_type} if data is not None else {})
        async with self.session.request(method, self.url + path, data=data, headers=sent) as response:
            raw = await response.read()
            found = msgspec.json.decode(raw) if "json" in response.content_type and raw else raw.decode()
            return Answer(response.status, response.headers, found)

    async def watch(self, path: str, *, accept: str = "application/json") -> AsyncIterator[JSON]:
        """Events of a watch; give `watch=true` in the path."""
        async with self.session.get(self.url + path, headers={"Accept": accept}) as response:
            assert response.status == 200, await response.text()
            async for line in response.content:
                yield msgspec.json.decode(line)


async def start(folder: Path) -> tuple[Parts, web.ServerRunner, str]:
    """A server with its store in `folder`, on a free port of loopback."""
    parts = assemble(Settings(store=folder / "store.db"))
    await parts.start()
    runner = web.ServerRunner(parts.server.connections(), handle_signals=False, shutdown_timeout=0.1)
    await runner.setup()
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    await web.SockSite(runner, listener).start()
    return parts, runner, f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def start_server() -> Callable[[Path], Awaitable[tuple[Parts, web.ServerRunner, str]]]:
    """`start`, for stories that start and stop servers themselves."""
    return start


@pytest.fixture
async def apiserver(tmp_path: Path) -> AsyncIterator[Running]:
    """A fresh server in the insecure mode; every caller is an administrator."""
    parts, runner, url = await start(tmp_path)
    async with ClientSession(timeout=ClientTimeout(total=60), read_bufsize=1 << 20) as session:
        yield Running(url, parts, session)
    parts.server.stop()
    await runner.cleanup()
    await parts.stop()
    await asyncio.sleep(0)


@pytest.fixture
def call(apiserver: Running) -> Callable[..., Awaitable[Answer]]:
    return apiserver.call


@pytest.fixture(scope="session")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A process with TLS, roles and certificates, shared: names in its tests are their own."""
    server = Guarded(tmp_path_factory.mktemp("guarded"))
    yield server
    server.stop()
    assert "Traceback" not in server.log.read_text()
