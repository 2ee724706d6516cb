"""Take a connection out of aiohttp's hands after an upgrade request, as a plain reader and writer.

aiohttp hands the bytes after an upgrade's head to a payload parser, which is how its own WebSockets work;
ours passes them on. Nothing is answered by aiohttp afterwards, and the connection is closed at the end.
"""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

_LIMIT = 1 << 20


class _Feed:
    """aiohttp's payload parser interface over a stream reader."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader

    def feed_data(self, data: bytes, _size: int = 0) -> tuple[bool, bytes]:
        self._reader.feed_data(bytes(data))
        return False, b""

    def feed_eof(self) -> None:
        self._reader.feed_eof()

    def set_exception(self, error: BaseException, _cause: BaseException | None = None) -> None:
        if isinstance(error, Exception):
            self._reader.set_exception(error)


class Hijacked(web.StreamResponse):
    """Returned by a handler that has answered on the raw connection itself."""

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return None


def take(request: web.BaseRequest) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Reader and writer of the connection of an upgrade request; ConnectionError when the client is gone."""
    transport, protocol = request.transport, request.protocol
    if transport is None:
        raise ConnectionResetError("the client went away")
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=_LIMIT, loop=loop)
    reader.set_transport(transport)
    parser: Any = _Feed(reader)
    protocol.set_parser(parser)
    protocol.keep_alive(False)
    writer = asyncio.StreamWriter(transport, protocol, reader, loop)
    return reader, writer
