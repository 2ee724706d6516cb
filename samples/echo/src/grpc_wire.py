"""Just enough of gRPC over HTTP/2 and of protobuf for `echo.proto` and the health check. Pure.

Sources: gRPC "PROTOCOL-HTTP2", the protobuf encoding, `grpc.health.v1`.
"""

from __future__ import annotations

from collections.abc import Iterator

OK, INTERNAL, UNIMPLEMENTED, INVALID, TOO_LARGE = 0, 13, 12, 3, 8
UNARY, STREAM = "/pervade.echo.v1.Echo/Unary", "/pervade.echo.v1.Echo/Stream"
CHECK, WATCH = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"
HEALTH, STREAMS = (CHECK, WATCH), (STREAM,)
METHODS = (UNARY, STREAM, CHECK, WATCH)
SERVING = b"\x08\x01"
MAX_MESSAGE = 4 << 20


class Malformed(Exception):
    """A message that cannot be read; `status` is the gRPC status."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class Parser:
    """Messages out of a stream's pieces."""

    def __init__(self) -> None:
        self.rest = b""

    def feed(self, data: bytes) -> Iterator[bytes]:
        self.rest += data
        while len(self.rest) >= 5:
            size = int.from_bytes(self.rest[1:5], "big")
            if self.rest[0]:
                raise Malformed(UNIMPLEMENTED, "compressed messages are not served")
            if size > MAX_MESSAGE:
                raise Malformed(TOO_LARGE, f"a message is at most {MAX_MESSAGE} bytes")
            if len(self.rest) < 5 + size:
                return
            found, self.rest = self.rest[5 : 5 + size], self.rest[5 + size :]
            yield found


def message(data: bytes) -> bytes:
    """A message with its prefix."""
    return b"\0" + len(data).to_bytes(4, "big") + data


def string(data: bytes) -> bytes:
    """A protobuf message whose field 1 is this string."""
    return b"\x0a" + _varint(len(data)) + data


def text(data: bytes) -> str:
    """Field 1 as a string; other fields are skipped."""
    at, found = 0, ""
    while at < len(data):
        tag, at = _read(data, at)
        kind = tag & 7
        if kind == 0:
            _, at = _read(data, at)
        elif kind == 2:
            size, at = _read(data, at)
            if at + size > len(data):
                raise Malformed(INVALID, "a field is longer than its message")
            if tag >> 3 == 1:
                found = data[at : at + size].decode(errors="replace")
            at += size
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:
            raise Malformed(INVALID, "not a protobuf field")
    return found


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*out, number))


def _read(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while at < len(data) and shift < 64:
        number |= (data[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not data[at - 1] & 0x80:
            return number, at
    raise Malformed(INVALID, "a number has no end")


def percent(why: str) -> str:
    """grpc-message: printable ASCII, the rest percent-encoded."""
    return "".join(chr(b) if 0x20 <= b <= 0x7E and b != 0x25 else f"%{b:02X}" for b in why.encode())
