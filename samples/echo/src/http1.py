"""HTTP/1.1 (RFC 9112) for the echo server: keep-alive, chunked bodies, 100-continue, the step to WebSocket."""

from __future__ import annotations

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator
from http import HTTPStatus

import websocket
from report import Body, Connection, merged, page
from wish import wish

_CHUNK = 1 << 16


class Malformed(Exception):
    """A request that no answer but a refusal fits; the connection ends with it."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


async def serve(reader: StreamReader, writer: StreamWriter, connection: Connection, begun: bytes) -> None:
    """Answer requests until the peer closes or asks to close; `begun` was read already."""
    try:
        while True:
            try:
                head = begun + await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError:
                return
            except asyncio.LimitOverrunError:
                raise Malformed(431, "the head is longer than 64 KiB") from None
            begun = b""
            if not await _request(reader, writer, connection, head):
                return
    except Malformed as refusal:
        await _answer(writer, refusal.status, f"{refusal}\n".encode(), kind="text/plain", keep=False)


async def _request(reader: StreamReader, writer: StreamWriter, connection: Connection, head: bytes) -> bool:
    method, path, version, fields = parse(head)
    headers = merged(fields)
    seen = {"method": method, "authority": headers.get("host", ""), "path": path, "headers": headers}
    if headers.get("upgrade", "").lower() == "websocket":
        if (refused := websocket.refusal(method, headers)) is not None:
            raise Malformed(400, refused)
        await websocket.serve(
            reader, writer, headers["sec-websocket-key"], connection.report("WebSocket", **seen)
        )
        return False
    if headers.get("expect", "").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    body = Body()
    async for data in _body(reader, headers):
        body.add(data)
    tokens = {t.strip().lower() for t in headers.get("connection", "").split(",")}
    keep = "close" not in tokens and (version == "HTTP/1.1" or "keep-alive" in tokens)
    try:
        wanted = wish(path)
    except ValueError as error:
        await _answer(
            writer, 400, f"{error}\n".encode(), kind="text/plain", keep=keep, empty=method == "HEAD"
        )
        return keep
    await asyncio.sleep(wanted.delay)
    report = page(connection.report(version, **seen, body=body.seen()))
    kind = "application/json" if wanted.size is None else "application/octet-stream"
    content = report if wanted.size is None else b"x" * wanted.size
    await _answer(writer, wanted.status, content, kind=kind, keep=keep, empty=method == "HEAD")
    return keep


def parse(head: bytes) -> tuple[str, str, str, list[tuple[str, str]]]:
    """(method, path, version, fields) of a request's head; Malformed for what RFC 9112 forbids."""
    lines = head.decode("latin-1").split("\r\n")
    first = lines[0].split(" ")
    if len(first) != 3 or first[2] not in ("HTTP/1.1", "HTTP/1.0") or not all(first):
        raise Malformed(400, "not a request line of HTTP/1.1")
    fields = []
    for text in lines[1:-2]:
        name, colon, value = text.partition(":")
        if not colon or not name or name != name.strip() or any(c in name for c in " \t"):
            raise Malformed(400, "not a header line")
        fields.append((name, value.strip(" \t")))
    names = [name.lower() for name, _ in fields]
    # Two ways to say how long a body is would let two readers disagree (RFC 9112 6.3).
    if ("transfer-encoding" in names and "content-length" in names) or names.count("content-length") > 1:
        raise Malformed(400, "the length of the body is given twice")
    return first[0], first[1], first[2], fields


async def _body(reader: StreamReader, headers: dict[str, str]) -> AsyncIterator[bytes]:
    coding = headers.get("transfer-encoding", "").lower()
    try:
        if coding == "chunked":
            while size := _number((await reader.readuntil(b"\r\n")).partition(b";")[0].strip(), 16):
                async for data in _exactly(reader, size):
                    yield data
                if await reader.readexactly(2) != b"\r\n":
                    raise Malformed(400, "a chunk does not end where it says")
            while await reader.readuntil(b"\r\n") != b"\r\n":
                continue
        elif coding:
            raise Malformed(501, f"transfer coding {coding} is not served")
        else:
            async for data in _exactly(reader, _number(headers.get("content-length", "0").encode(), 10)):
                yield data
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        raise Malformed(400, "the body ends too early") from None


async def _exactly(reader: StreamReader, size: int) -> AsyncIterator[bytes]:
    while size:
        data = await reader.read(min(size, _CHUNK))
        if not data:
            raise asyncio.IncompleteReadError(b"", size)
        size -= len(data)
        yield data


def _number(text: bytes, base: int) -> int:
    digits = b"0123456789abcdefABCDEF" if base == 16 else b"0123456789"
    if not text or len(text) > 15 or text.strip(digits):
        raise Malformed(400, "not a length")
    return int(text, base)


async def _answer(
    writer: StreamWriter, status: int, content: bytes, *, kind: str, keep: bool, empty: bool = False
) -> None:
    try:
        reason = HTTPStatus(status).phrase
    except ValueError:
        reason = "Chosen"
    head = f"HTTP/1.1 {status} {reason}\r\nserver: echo\r\n"
    if status in (204, 304):
        content = b""
    else:
        head += f"content-type: {kind}\r\ncontent-length: {len(content)}\r\n"
    head += "\r\n" if keep else "connection: close\r\n\r\n"
    writer.write(head.encode() + (b"" if empty else content))
    await writer.drain()
