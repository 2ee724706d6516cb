"""One `grpc.health.v1.Health/Check` over a connection that is already there: a few HTTP/2 frames.

grpcio dials itself, and in the wrong network namespace; the call needs four frames. Sources: RFC 9113,
RFC 7541 (literals without indexing only), gRPC over HTTP/2.
"""

from __future__ import annotations

import asyncio
import struct

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST, _SETTINGS, _PING, _GOAWAY = 0, 1, 3, 4, 6, 7
_SERVING = 1


def _frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    return struct.pack("!I", len(body))[1:] + bytes([kind, flags]) + struct.pack("!I", stream) + body


def _literal(name: bytes, value: bytes) -> bytes:
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


async def check(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, service: str) -> tuple[bool, str]:
    """(is SERVING, what was seen)."""
    headers = b"".join(
        _literal(n, v)
        for n, v in (
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", b"/grpc.health.v1.Health/Check"),
            (b":authority", b"probe"),
            (b"content-type", b"application/grpc"),
            (b"te", b"trailers"),
        )
    )
    name = service.encode()
    message = (b"\x0a" + bytes([len(name)]) + name) if name else b""
    body = b"\x00" + struct.pack("!I", len(message)) + message
    writer.write(
        _PREFACE + _frame(_SETTINGS, 0, 0, b"") + _frame(_HEADERS, 4, 1, headers) + _frame(_DATA, 1, 1, body)
    )
    data = b""
    while True:
        head = await reader.readexactly(9)
        size, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
        payload = await reader.readexactly(size)
        if kind == _SETTINGS and not flags & 1:
            writer.write(_frame(_SETTINGS, 1, 0, b""))
        elif kind == _PING and not flags & 1:
            writer.write(_frame(_PING, 1, 0, payload))
        elif kind == _DATA:
            data += payload[1 : len(payload) - payload[0]] if flags & 8 else payload
        elif kind in (_RST, _GOAWAY):
            return False, "the server closed the stream"
        if kind in (_DATA, _HEADERS) and flags & 1:
            break
    status = data[6] if len(data) >= 7 and data[5] == 0x08 else 0
    return status == _SERVING, "SERVING" if status == _SERVING else f"health status {status}"
