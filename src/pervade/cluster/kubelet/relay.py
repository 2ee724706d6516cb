"""Streams (exec, attach, port-forward): the client's upgrade request is repeated to containerd's streaming
server inside the node's namespace, then bytes are copied both ways until either side ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Mapping
from urllib.parse import urlsplit

from pervade.host import netns

_CHUNK = 1 << 16
_DROPPED = {"host", "authorization", "content-length", "transfer-encoding", "expect"}


async def dial(
    node_netns: str | os.PathLike[str], url: str, method: str, headers: Mapping[str, str]
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to the streaming server with the request sent; the answer is the next thing to read."""
    target = urlsplit(url)
    sock = netns.inside(
        node_netns, lambda: socket.create_connection((target.hostname or "", target.port or 80), 5)
    )
    sock.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=sock, limit=1 << 20)
    path = target.path + (f"?{target.query}" if target.query else "")
    lines = [f"{method} {path} HTTP/1.1", f"Host: {target.netloc}"]
    lines += [f"{k}: {v}" for k, v in headers.items() if k.lower() not in _DROPPED]
    writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
    await writer.drain()
    return reader, writer


async def both_ways(
    near: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    far: tuple[asyncio.StreamReader, asyncio.StreamWriter],
) -> None:
    """Copy until one side has ended, then give the other a moment and close both."""

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(_CHUNK):
                writer.write(data)
                await writer.drain()

    tasks = [asyncio.create_task(copy(near[0], far[1])), asyncio.create_task(copy(far[0], near[1]))]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        for writer in (near[1], far[1]):
            writer.close()
