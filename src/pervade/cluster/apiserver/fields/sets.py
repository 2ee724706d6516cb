"""Sets of field paths as tries, and their published form FieldsV1.

A set is a dict from path element to the set below it; the key "." says that the path itself is a member.
Elements: `f:NAME` a field, `k:{"key":value}` an item of a list by its keys, `v:VALUE` an item of a set.
In FieldsV1 a member without members below it is written `{}`. Source: structured merge and diff, FieldsV1.
"""

from __future__ import annotations

from typing import Any

import msgspec

FieldSet = dict[str, Any]
SELF = "."
_MOST = 64
_encode = msgspec.json.Encoder(order="sorted").encode


def decode(fields: Any, depth: int = 0) -> FieldSet:
    """FieldsV1 to a set; ValueError for what is none."""
    if not isinstance(fields, dict) or depth > _MOST:
        raise ValueError("fieldsV1 must be nested objects")
    if not fields:
        return {SELF: True} if depth else {}
    out: FieldSet = {}
    for key, below in fields.items():
        if key == SELF:
            out[SELF] = True
        else:
            out[_element(key)] = decode(below, depth + 1)
    return out


def _element(key: str) -> str:
    """The element in the one spelling that comparisons rely on: JSON compact, its keys sorted."""
    sort, text = key[:2], key[2:]
    if sort == "f:" or (sort == "i:" and text.isdigit()):
        return key
    if sort in ("k:", "v:"):
        try:
            value = msgspec.json.decode(text)
        except (ValueError, RecursionError):
            raise ValueError(f"fieldsV1 has an element {key[:80]!r} whose value is no JSON") from None
        if sort == "v:" or isinstance(value, dict):
            return sort + _encode(value).decode()
    raise ValueError(f"fieldsV1 has an element {key[:80]!r} of an unknown sort")


def encode(held: FieldSet) -> dict[str, Any]:
    """A set to FieldsV1, its keys sorted so that equal sets are equal texts."""
    out: dict[str, Any] = {}
    for key in sorted(held):
        if key == SELF:
            if len(held) > 1:
                out[SELF] = {}
        else:
            out[key] = encode(held[key])
    return out


def union(a: FieldSet, b: FieldSet) -> FieldSet:
    out = dict(a)
    for key, below in b.items():
        out[key] = True if key == SELF else union(out[key], below) if key in out else below
    return out


def difference(a: FieldSet, b: FieldSet) -> FieldSet:
    """Members of `a` that are not members of `b`."""
    out: FieldSet = {}
    for key, below in a.items():
        if key == SELF:
            if SELF not in b:
                out[SELF] = True
        elif key not in b:
            out[key] = below
        elif left := difference(below, b[key]):
            out[key] = left
    return out


def intersection(a: FieldSet, b: FieldSet) -> FieldSet:
    out: FieldSet = {}
    for key, below in a.items():
        if key in b:
            if key == SELF:
                out[SELF] = True
            elif both := intersection(below, b[key]):
                out[key] = both
    return out


def paths(held: FieldSet, at: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every member, as elements from the root."""
    out = [at] if SELF in held else []
    for key in sorted(held):
        if key != SELF:
            out += paths(held[key], (*at, key))
    return out


def spelled(path: tuple[str, ...]) -> str:
    """A path as messages have it: `.spec.containers[name="web"].image`."""
    out = ""
    for element in path:
        kind, text = element[0], element[2:]
        if kind == "f":
            out += f".{text}"
        elif kind == "k":
            keys = msgspec.json.decode(text)
            out += (
                "["
                + ",".join(f"{k}={msgspec.json.encode(v).decode()}" for k, v in sorted(keys.items()))
                + "]"
            )
        else:
            out += f"[={text}]"
    return out
