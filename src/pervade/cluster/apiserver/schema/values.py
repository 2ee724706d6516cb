"""Values against the constraints of a structural schema, with the texts that kubectl's users know. Pure.

The heavy part runs as JSON Schema in compiled code; lists whose items must differ and embedded resources are walked
here. What was wrong before and did not change passes (ratcheting).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import msgspec

from pervade.cluster.apiserver.kinds.kind import JSON, Cause
from pervade.cluster.apiserver.schema import formats

_REQUIRED, _UNSUPPORTED, _DUPLICATE, _TYPE = "FieldValueRequired", "FieldValueNotSupported", "FieldValueDuplicate", "FieldValueTypeInvalid"  # fmt: skip
_LOGIC = ("allOf", "anyOf", "oneOf")
_KEPT = {
    "type", "properties", "additionalProperties", "items", "required", "enum", "pattern", "minimum", "maximum",
    "minLength", "maxLength", "minItems", "maxItems", "uniqueItems", "minProperties", "maxProperties", "multipleOf",
    "format", "not", *_LOGIC,
}  # fmt: skip
_SAID = {"dict": "object", "list": "array", "str": "string", "bool": "boolean", "int": "integer", "float": "number", "NoneType": "null"}  # fmt: skip
_MOST_CAUSES = 64
Path = list[Any]


class Values:
    """The constraints of one schema, compiled."""

    def __init__(self, schema: JSON) -> None:
        self.schema = schema
        # Patterns in linear time: those of a definition are run on values of anybody.
        self.validator = jsonschema_rs.Draft7Validator(
            translated(schema),
            validate_formats=True,
            ignore_unknown_formats=True,
            formats=formats.TESTS,
            pattern_options=jsonschema_rs.RegexOptions(),
        )
        self.special = _has_special(schema)

    def causes(self, new: Any, old: Any) -> list[Cause]:
        """What is wrong with a value, at most 64 causes; `old` None when there is nothing to compare with."""
        out: list[Cause] = []
        if not self.validator.is_valid(new):
            for error in self.validator.iter_errors(new):
                path = list(error.instance_path)
                if old is None or not unchanged(self.schema, new, old, path):
                    out += _said(error, path)
                if len(out) >= _MOST_CAUSES:
                    return out
        if self.special:
            for path, found in _special(self.schema, new, []):
                if old is None or not unchanged(self.schema, new, old, path):
                    out += found
        return out[:_MOST_CAUSES]


def translated(schema: Any) -> Any:
    """The schema as JSON Schema draft 7: nullable, int-or-string and exclusive bounds spelled out, extensions gone."""
    if not isinstance(schema, dict):
        return schema
    out: JSON = {}
    for key, value in schema.items():
        if key not in _KEPT:
            continue
        if key == "properties":
            out[key] = {k: translated(v) for k, v in value.items()}
        elif key in _LOGIC:
            out[key] = [translated(v) for v in value]
        elif key in ("items", "not", "additionalProperties"):
            out[key] = translated(value)
        else:
            out[key] = value
    for bound, strict in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if schema.get(strict) is True and bound in out:
            out[strict] = out.pop(bound)
    if schema.get("x-kubernetes-int-or-string"):
        out.pop("anyOf", None)
        out["type"] = ["integer", "string"]
    if schema.get("nullable"):
        if "type" in out:
            out["type"] = [*(out["type"] if isinstance(out["type"], list) else [out["type"]]), "null"]
        if "enum" in out and None not in out["enum"]:
            out["enum"] = [*out["enum"], None]
    return out


def spelled(path: Path) -> str:
    """A path as messages have it: `spec.items[0].name`."""
    out = ""
    for part in path:
        out += f"[{part}]" if isinstance(part, int) else f".{part}" if out else str(part)
    return out


def unchanged(schema: Any, new: Any, old: Any, path: Path) -> bool:
    """Whether the value at `path`, or one around it, is what it was.

    Items of a list have a counterpart only where keys tell which (x-kubernetes-list-type map).
    """
    for part in path:
        if isinstance(new, dict) and isinstance(old, dict):
            if part not in new or part not in old:
                return False
            properties = schema.get("properties") or {} if isinstance(schema, dict) else {}
            more = schema.get("additionalProperties") if isinstance(schema, dict) else None
            new, old, schema = new[part], old[part], properties.get(part, more)
        elif isinstance(new, list) and isinstance(old, list) and isinstance(schema, dict):
            keys = schema.get("x-kubernetes-list-map-keys")
            if schema.get("x-kubernetes-list-type") != "map" or not keys or not isinstance(new[part], dict):
                return False
            mark = [new[part].get(k) for k in keys]
            found = [o for o in old if isinstance(o, dict) and [o.get(k) for k in keys] == mark]
            if len(found) != 1:
                return False
            new, old, schema = new[part], found[0], schema.get("items")
        else:
            return False
        if new == old and type(new) is type(old):
            return True
    return False


def shown(value: Any) -> str:
    """A value in a message: JSON, cut to a readable length; objects and lists by their name only."""
    if isinstance(value, dict | list):
        return f'"{_SAID[type(value).__name__]}"'
    text = msgspec.json.encode(value, enc_hook=str).decode()
    return text if len(text) <= 200 else text[:200] + '…"'


def _said(error: Any, path: Path) -> list[Cause]:
    """The causes that one failed constraint gives."""
    at, kind, value = spelled(path), error.kind, error.instance
    sort = type(kind).__name__
    wrong = f"Invalid value: {shown(value)}: {at} in body"
    if sort == "Required":
        return [Cause(f"{at}.{kind.property}" if at else kind.property, "Required value", _REQUIRED)]
    if sort == "Enum":
        allowed = ", ".join(
            msgspec.json.encode(v).decode() for v in kind.options if v is not None or value is None
        )
        return [Cause(at, f"Unsupported value: {shown(value)}: supported values: {allowed}", _UNSUPPORTED)]
    if sort == "Type":
        names = ",".join(t for t in kind.types if t != "null" or len(kind.types) == 1)
        name = _SAID.get(type(value).__name__, "value")
        return [Cause(at, f'Invalid value: "{name}": {at} in body must be of type {names}: "{name}"', _TYPE)]
    if sort == "Format":
        return [Cause(at, f"{wrong} must be of type {kind.format}: {shown(value)}", _TYPE)]
    if sort == "MaxLength":
        return [Cause(at, f"Too long: may not be more than {kind.limit} bytes", "FieldValueTooLong")]
    if sort in ("MaxItems", "MaxProperties"):
        text = f"Too many: {len(value)}: must have at most {kind.limit} items"
        return [Cause(at, text, "FieldValueTooMany")]
    if sort in ("MinItems", "MinProperties"):
        what = "items" if sort == "MinItems" else "properties"
        text = f"Invalid value: {len(value)}: {at} in body should have at least {kind.limit} {what}"
        return [Cause(at, text)]
    if sort in ("AnyOf", "OneOfNotValid", "OneOfMultipleValid", "Not"):
        rule = {
            "AnyOf": "must validate at least one schema (anyOf)",
            "OneOfNotValid": "must validate one and only one schema (oneOf). Found none valid",
            "OneOfMultipleValid": "must validate one and only one schema (oneOf). Found {} valid alternatives",
            "Not": "must not validate the schema (not)",
        }[sort].format(sum(not one for one in getattr(kind, "context", ())))
        return [Cause(at or "<nil>", f'Invalid value: "": "{at}" {rule}')]
    text = {
        "Minimum": lambda: f"should be greater than or equal to {kind.limit}",
        "Maximum": lambda: f"should be less than or equal to {kind.limit}",
        "ExclusiveMinimum": lambda: f"should be greater than {kind.limit}",
        "ExclusiveMaximum": lambda: f"should be less than {kind.limit}",
        "MultipleOf": lambda: f"should be a multiple of {kind.multiple_of}",
        "MinLength": lambda: f"should be at least {kind.limit} chars long",
        "Pattern": lambda: f"should match '{kind.pattern}'",
    }.get(sort, lambda: str(error.message)[:300])()
    return [Cause(at or "<nil>", f"{wrong} {text}")]


def _has_special(schema: Any) -> bool:
    if not isinstance(schema, dict):
        return False
    inner = [
        *(schema.get("properties") or {}).values(),
        schema.get("items"),
        schema.get("additionalProperties"),
    ]
    mine = schema.get("x-kubernetes-list-type") in ("set", "map") or schema.get(
        "x-kubernetes-embedded-resource"
    )
    return bool(mine) or any(_has_special(one) for one in inner)


def _special(schema: Any, value: Any, path: Path) -> Iterator[tuple[Path, list[Cause]]]:
    """Lists with equal items and embedded resources that are none, with the path that decides about ratcheting."""
    if not isinstance(schema, dict):
        return
    if isinstance(value, dict):
        if schema.get("x-kubernetes-embedded-resource"):
            yield path, _embedded(value, spelled(path))
        properties, more = schema.get("properties") or {}, schema.get("additionalProperties")
        for key, inner in value.items():
            if isinstance(inner, dict | list):
                yield from _special(properties.get(key, more), inner, [*path, key])
    elif isinstance(value, list):
        if schema.get("x-kubernetes-list-type") in ("set", "map"):
            yield path, _duplicates(value, schema, spelled(path))
        for i, inner in enumerate(value):
            if isinstance(inner, dict | list):
                yield from _special(schema.get("items"), inner, [*path, i])


def _duplicates(items: list[Any], schema: JSON, at: str) -> list[Cause]:
    seen: set[bytes] = set()
    out = []
    keys = schema.get("x-kubernetes-list-map-keys") or ()
    for i, one in enumerate(items):
        if schema["x-kubernetes-list-type"] == "map" and isinstance(one, dict):
            one = {k: one[k] for k in keys if k in one}
        mark = msgspec.json.encode(one, order="sorted")
        if mark in seen:
            out.append(Cause(f"{at}[{i}]", f"Duplicate value: {mark.decode()[:200]}", _DUPLICATE))
        seen.add(mark)
    return out


def _embedded(value: JSON, at: str) -> list[Cause]:
    out = []
    for field in ("apiVersion", "kind"):
        if not value.get(field):
            out.append(Cause(f"{at}.{field}", "Required value: must not be empty", _REQUIRED))
        elif not isinstance(value[field], str):
            out.append(
                Cause(f"{at}.{field}", f"Invalid value: {shown(value[field])}: must be a string", _TYPE)
            )
    meta = value.get("metadata")
    if meta is None:
        return out
    if not isinstance(meta, dict):
        return [*out, Cause(f"{at}.metadata", f"Invalid value: {shown(meta)}: must be an object", _TYPE)]
    for field in ("labels", "annotations"):
        held = meta.get(field) or {}
        if not (isinstance(held, dict) and all(isinstance(v, str) for v in held.values())):
            out.append(Cause(f"{at}.metadata.{field}", "Invalid value: must be a map of strings", _TYPE))
    for field in ("name", "namespace", "generateName"):
        if not isinstance(meta.get(field) or "", str):
            out.append(Cause(f"{at}.metadata.{field}", "Invalid value: must be a string", _TYPE))
    return out
