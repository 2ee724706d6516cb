"""WebSocket (RFC 6455) for the echo server: a report first, then every frame comes back."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import struct
from asyncio import StreamReader, StreamWriter
from typing import Any

from report import line

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_TEXT, _CLOSE, _PING, _PONG = 1, 8, 9, 10
_FIN = 0x80
MAX_FRAME = 16 << 20


def refusal(method: str, headers: dict[str, str]) -> str | None:
    """Why a handshake cannot be taken, or None."""
    if method != "GET" or headers.get("sec-websocket-version") != "13":
        return "WebSocket is served for GET with version 13"
    try:
        key = base64.b64decode(headers.get("sec-websocket-key", ""), validate=True)
    except ValueError:
        key = b""
    return None if len(key) == 16 else "Sec-WebSocket-Key is 16 bytes in base64"


def frame(first: int, data: bytes) -> bytes:
    """A frame as a server sends it (not masked); `first` holds FIN and the opcode."""
    if len(data) < 126:
        return bytes((first, len(data))) + data
    if len(data) < 1 << 16:
        return struct.pack("!BBH", first, 126, len(data)) + data
    return struct.pack("!BBQ", first, 127, len(data)) + data


async def serve(reader: StreamReader, writer: StreamWriter, key: str, report: dict[str, Any]) -> None:
    """Accept, send the report as the first message, give every frame back until either side closes."""
    accept = base64.b64encode(hashlib.sha1(key.encode() + _GUID).digest()).decode()
    writer.write(
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
        + f"sec-websocket-accept: {accept}\r\n\r\n".encode()
    )
    writer.write(frame(_FIN | _TEXT, line(report)))
    try:
        while True:
            await writer.drain()
            first, data = await _frame(reader)
            opcode = first & 0x0F
            if opcode == _CLOSE:
                writer.write(frame(first, data))
                return
            if opcode == _PING:
                writer.write(frame(_FIN | _PONG, data))
            elif opcode != _PONG:
                writer.write(frame(first, data))
    except ValueError as error:
        writer.write(frame(_FIN | _CLOSE, struct.pack("!H", 1002) + str(error).encode()))
    except asyncio.IncompleteReadError:
        return


async def _frame(reader: StreamReader) -> tuple[int, bytes]:
    first, second = await reader.readexactly(2)
    size = second & 0x7F
    if not second & 0x80:
        raise ValueError("a client's frame is masked")
    if first & 0x70:
        raise ValueError("no extension was agreed on")
    if size == 126:
        (size,) = struct.unpack("!H", await reader.readexactly(2))
    elif size == 127:
        (size,) = struct.unpack("!Q", await reader.readexactly(8))
    if size > MAX_FRAME or (first & 0x08 and size > 125):
        raise ValueError("the frame is too large")
    mask = await reader.readexactly(4)
    data = await reader.readexactly(size)
    wide = (mask * (size // 4 + 1))[:size]
    plain = int.from_bytes(data, "big") ^ int.from_bytes(wide, "big")
    return first, plain.to_bytes(size, "big")
