"""The OpenAPI v2 document in the protobuf form that clients ask for.

kubectl reads it to check a `v1 List` on its own side, and to merge kinds it has no types for; it accepts
no other form. Field numbers: OpenAPIv2.proto of the published OpenAPI compiler. Definitions only: nobody
reads paths out of this document.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from pervade.cluster.apiserver.kinds.kind import JSON

MEDIA = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
SAID = MEDIA.replace("@", ".")
"""The same as a Content-Type: "@" is not allowed in one (RFC 6838 4.2), and clients refuse it there."""
_STRINGS = {"format": 2, "title": 3, "description": 4, "pattern": 13}
_WHOLE = {
    "exclusiveMaximum": 8,
    "exclusiveMinimum": 10,
    "maxLength": 11,
    "minLength": 12,
    "maxItems": 14,
    "minItems": 15,
    "uniqueItems": 16,
    "maxProperties": 17,
    "minProperties": 18,
}


def encode(schemas: Mapping[str, JSON]) -> bytes:
    """The document with `schemas` (OpenAPI v3 components by name) as definitions; O(their size)."""
    info = _text(1, "Kubernetes") + _text(2, "v1")
    named = b"".join(_field(1, _named(name, _schema(body))) for name, body in schemas.items())
    return _text(1, "2.0") + _field(2, info) + _field(8, b"") + _field(9, named)


def _schema(body: JSON) -> bytes:
    reference = body.get("$ref")
    inner = body.get("allOf") or []
    if reference is None and len(inner) == 1 and "$ref" in inner[0]:
        reference = inner[0]["$ref"]
    out = []
    if reference is not None:
        out.append(_text(1, "#/definitions/" + reference.rpartition("/")[2]))
    for key, number in _STRINGS.items():
        if isinstance(body.get(key), str):
            out.append(_text(number, body[key]))
    for key, number in _WHOLE.items():
        if isinstance(body.get(key), int):
            out.append(_varint(number << 3) + _varint(int(body[key])))
    out += [_text(19, name) for name in body.get("required") or ()]
    out += [_field(20, _any(value)) for value in body.get("enum") or ()]
    more = body.get("additionalProperties")
    if isinstance(more, dict):
        out.append(_field(21, _field(1, _schema(more))))
    elif more is True:
        out.append(_field(21, b"\x10\x01"))
    if isinstance(body.get("type"), str):
        out.append(_field(22, _text(1, body["type"])))
    if isinstance(body.get("items"), dict):
        out.append(_field(23, _field(1, _schema(body["items"]))))
    if properties := body.get("properties"):
        named = b"".join(_field(1, _named(name, _schema(one))) for name, one in properties.items())
        out.append(_field(25, named))
    out += [_field(31, _named(key, _any(value))) for key, value in body.items() if key.startswith("x-")]
    return b"".join(out)


def _any(value: Any) -> bytes:
    """A value as YAML text; JSON is YAML."""
    return _text(2, msgspec.json.encode(value).decode())


def _named(name: str, value: bytes) -> bytes:
    return _text(1, name) + _field(2, value)


def _text(number: int, text: str) -> bytes:
    return _field(number, text.encode())


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
