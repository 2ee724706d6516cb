"""The decoder: wire format by hand, fields by table, special types by name."""

from __future__ import annotations

import base64
import functools
import struct
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import resources
from typing import Any

import msgspec

JSON = dict[str, Any]
MAGIC = b"k8s\x00"
_DEPTH_MOST = 100
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
Field = tuple[str, str, str]
Table = dict[int, Field]


class ProtobufError(ValueError):
    """The bytes are not an object in Kubernetes' protobuf encoding."""


def decode(body: bytes) -> JSON:
    """The JSON form of an encoded object, `apiVersion` and `kind` included; O(bytes).

    Zero values of fields that are no pointers are left out where the JSON form leaves them out.
    Raises ProtobufError for malformed bytes and for kinds without a table.
    """
    if not body.startswith(MAGIC):
        raise ProtobufError("the magic bytes are missing")
    try:
        # A view: nested messages are parts of the body, not copies of it, however deep they are.
        return _envelope(memoryview(body)[len(MAGIC) :], 0)
    except (UnicodeDecodeError, OverflowError, RecursionError, msgspec.DecodeError) as error:
        raise ProtobufError(str(error)) from None


def _envelope(data: memoryview, depth: int) -> JSON:
    api_version = kind = ""
    raw = memoryview(b"")
    for number, wire, value in _fields(data):
        if number == 1 and wire == _BYTES:
            for inner, inner_wire, text in _fields(value):
                if inner_wire == _BYTES and inner == 1:
                    api_version = str(text, "utf-8")
                elif inner_wire == _BYTES and inner == 2:
                    kind = str(text, "utf-8")
        elif number == 2 and wire == _BYTES:
            raw = value
    if not kind:
        raise ProtobufError("the envelope names no kind")
    package = _package(api_version)
    message = f"{package}.{kind}"
    if _table(message) is None:
        # DeleteOptions and other kinds of meta/v1 belong to every group.
        message = f"meta/v1.{kind}"
        if _table(message) is None:
            raise ProtobufError(f"{api_version} {kind} has no known protobuf form")
    return {"apiVersion": api_version, "kind": kind, **_message(message, raw, depth)}


def _package(api_version: str) -> str:
    group, _, version = api_version.rpartition("/")
    return f"{group.partition('.')[0] or 'core'}/{version}"


@functools.cache
def _tables(package: str) -> dict[str, Table] | None:
    name = package.replace("/", "_")
    if not name.replace("_", "").isalnum():
        return None
    file = resources.files(__package__).joinpath("tables", f"{name}.json")
    if not file.is_file():
        return None
    found = msgspec.json.decode(file.read_bytes(), type=dict[str, dict[str, Field]])
    return {message: {int(n): f for n, f in fields.items()} for message, fields in found.items()}


def _table(message: str) -> Table | None:
    package, _, name = message.rpartition(".")
    return (_tables(package) or {}).get(name)


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data):
            raise ProtobufError("a number is cut off")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at
        shift += 7
        if shift > 63:
            raise ProtobufError("a number is longer than 64 bits")


def _fields(data: memoryview) -> Iterator[tuple[int, int, Any]]:
    """(field number, wire type, value) of each field: an int, or the bytes of the value."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, at = _varint(data, at)
            yield number, wire, value
            continue
        if wire == _BYTES:
            size, at = _varint(data, at)
        elif wire in (_FIXED64, _FIXED32):
            size = 8 if wire == _FIXED64 else 4
        else:
            raise ProtobufError(f"field {number} has wire type {wire}, which is not used")
        if at + size > len(data):
            raise ProtobufError(f"field {number} is cut off")
        yield number, wire, data[at : at + size]
        at += size


def _message(message: str, data: memoryview, depth: int) -> JSON:
    if depth > _DEPTH_MOST:
        raise ProtobufError("messages are nested too deep")
    table = _table(message)
    if table is None:
        raise ProtobufError(f"{message} has no known protobuf form")
    out: JSON = {}
    for number, wire, value in _fields(data):
        field = table.get(number)
        if field is None:
            continue
        name, code, flags = field
        if "n" in flags:
            out |= _value(code, wire, value, depth)
        elif code.startswith("m"):
            key, item = _pair(code, value, depth) if wire == _BYTES else _wrong(name)
            out.setdefault(name, {})[key] = item
        elif "r" in flags:
            out.setdefault(name, []).extend(_items(code, wire, value, depth))
        else:
            made = _value(code, wire, value, depth)
            zero = made is None or (not isinstance(made, float) and made in ("", 0, False, {}))
            if "p" in flags or not zero or ("o" not in flags and made is not None and made != {}):
                out[name] = made
    return out


def _wrong(name: str) -> Any:
    raise ProtobufError(f"field {name} has the wrong wire type")


def _items(code: str, wire: int, value: Any, depth: int) -> list[Any]:
    if code in ("i", "b") and wire == _BYTES:
        # Packed numbers.
        found, at = [], 0
        while at < len(value):
            number, at = _varint(value, at)
            found.append(_value(code, _VARINT, number, depth))
        return found
    return [_value(code, wire, value, depth)]


def _pair(code: str, data: memoryview, depth: int) -> tuple[str, Any]:
    many, _, inner = code[1:].partition(":")
    key, item = "", None
    for number, wire, value in _fields(data):
        if number == 1 and wire == _BYTES:
            key = str(value, "utf-8")
        elif number == 2:
            item = _items(inner, wire, value, depth) if many else _value(inner, wire, value, depth)
    if item is None:
        # A zero value is not on the wire.
        item = [] if many else {"s": "", "y": "", "i": 0, "b": False}.get(inner, {})
    return key, item


def _value(code: str, wire: int, value: Any, depth: int) -> Any:
    if code in ("i", "b"):
        if wire != _VARINT:
            _wrong(code)
        return bool(value) if code == "b" else value - (1 << 64) if value >= 1 << 63 else value
    if code == "d":
        if wire != _FIXED64:
            _wrong(code)
        (number,) = struct.unpack("<d", value)
        return number
    if wire != _BYTES:
        _wrong(code)
    if code == "s":
        return str(value, "utf-8")
    if code == "y":
        return base64.b64encode(value).decode()
    if code.startswith("@"):
        return _message(code[1:], value, depth + 1)
    return _special(code[1:], value, depth + 1)


def _special(name: str, data: memoryview, depth: int) -> Any:
    """Types whose JSON form is not the form of their fields."""
    if depth > _DEPTH_MOST:
        raise ProtobufError("messages are nested too deep")
    fields = list(_fields(data))
    found = {number: (wire, value) for number, wire, value in fields}
    if name in ("time", "microtime"):
        return _time(found, micro=name == "microtime")
    if name == "duration":
        return f"{_number(found, 1) / 1e9:g}s"
    if name == "wrapped":
        return _text(found, 1)
    if name == "list":
        return [_value("s", w, v, depth) for n, w, v in fields if n == 1]
    if name == "intstr":
        return _text(found, 3) if _number(found, 1) == 1 else _number(found, 2)
    if name == "raw":
        return _raw(_part(found, 1), depth)
    schema = "apiextensions/v1.JSONSchemaProps"
    if name == "orbool":
        return _message(schema, _part(found, 2), depth) if 2 in found else bool(_number(found, 1))
    if 1 in found:
        return _message(schema, _part(found, 1), depth)
    return [_value(f"@{schema}", w, v, depth) for n, w, v in fields if n == 2]


Found = dict[int, tuple[int, Any]]
"""(wire type, value) by field number, the last of each."""


def _number(found: Found, number: int) -> int:
    wire, value = found.get(number, (_VARINT, 0))
    made: int = _value("i", wire, value, 0)
    return made


def _part(found: Found, number: int) -> memoryview:
    wire, value = found.get(number, (_BYTES, memoryview(b"")))
    if wire != _BYTES:
        _wrong(str(number))
    part: memoryview = value
    return part


def _text(found: Found, number: int) -> str:
    return str(_part(found, number), "utf-8")


def _raw(value: memoryview, depth: int) -> Any:
    if value[: len(MAGIC)] == MAGIC:
        return _envelope(value[len(MAGIC) :], depth)
    return msgspec.json.decode(value) if value else None


def _time(found: Found, *, micro: bool) -> str | None:
    """RFC 3339; the zero time (nothing on the wire) is null."""
    if not found:
        return None
    seconds, nanos = _number(found, 1), _number(found, 2)
    try:
        at = datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        raise ProtobufError(f"{seconds} is no time") from None
    if not 0 <= nanos < 1_000_000_000:
        raise ProtobufError("a time has wrong nanoseconds")
    # isoformat, as %Y does not fill up years before 1000.
    text = at.replace(tzinfo=None).isoformat(timespec="seconds")
    return f"{text}.{nanos // 1000:06}Z" if micro else f"{text}Z"
