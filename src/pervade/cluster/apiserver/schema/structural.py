"""Structural schemas of custom resources: what a field is, which fields go, which get a default, which are wrong.

Pure, O(object) per use. Source: Kubernetes, "Extend the Kubernetes API with CustomResourceDefinitions"
(structural schemas, pruning, defaulting, validation rules).
"""

from __future__ import annotations

import copy
from typing import Any

import jsonschema_rs
import msgspec

from pervade.cluster.apiserver.kinds.kind import JSON, Cause
from pervade.cluster.apiserver.schema import rules
from pervade.cluster.apiserver.schema.tree import ANY, Node

_ROOT = ("apiVersion", "kind", "metadata")
_REQUIRED, _UNSUPPORTED, _DUPLICATE, _TYPE = "FieldValueRequired", "FieldValueNotSupported", "FieldValueDuplicate", "FieldValueTypeInvalid"  # fmt: skip
_LOGIC = ("allOf", "anyOf", "oneOf")
_KEPT = {
    "type", "properties", "additionalProperties", "items", "required", "enum", "pattern", "minimum", "maximum", "exclusiveMinimum",
    "exclusiveMaximum", "minLength", "maxLength", "minItems", "maxItems", "uniqueItems", "minProperties", "maxProperties", "multipleOf",
    "format", "not", *_LOGIC,
}  # fmt: skip


class Structural:
    """One compiled version of a definition."""

    def __init__(self, schema: JSON) -> None:
        self.schema = schema
        self.node = tree(schema, root=True)
        self.validator = jsonschema_rs.Draft4Validator(_translated(schema), validate_formats=True)
        self.rules = rules.collect(schema)
        self.has_defaults = _has_defaults(schema)

    def complete(self, obj: JSON) -> None:
        """Defaults, in place."""
        default(self.schema, obj)

    def prune(self, obj: JSON) -> list[str]:
        """Take out fields the schema does not know, in place; their paths."""
        found: list[str] = []
        _prune(self.schema, obj, found, "", root=True)
        return found

    def causes(self, new: JSON, old: JSON | None) -> list[Cause]:
        """What is wrong with an object. What was wrong before and did not change is let pass (ratcheting)."""
        out = []
        for error in self.validator.iter_errors(new):
            path = list(error.instance_path)
            if old is not None and _same(new, old, path):
                continue
            out += _said(error, path)
        for path_text, path, items, node in _lists(self.schema, new, "", []):
            if old is not None and _same(new, old, path):
                continue
            out += _duplicates(path_text, items, node)
        return out or self.rules.causes(new, old)


def tree(schema: Any, *, root: bool = False) -> Node:
    """The type tree of a schema, for merges and field management."""
    if not isinstance(schema, dict):
        return ANY
    node = Node()
    kind = schema.get("type")
    node.embedded = bool(schema.get("x-kubernetes-preserve-unknown-fields"))
    node.atomic = schema.get("x-kubernetes-map-type") == "atomic"
    if schema.get("x-kubernetes-int-or-string"):
        node.kind = "intstr"
    elif isinstance(schema.get("additionalProperties"), dict):
        node.kind, node.items = "map", tree(schema["additionalProperties"])
    elif kind == "object" and schema.get("properties"):
        node.kind = "object"
        node.properties = {k: tree(v) for k, v in schema["properties"].items()}
        if root:
            node.properties["metadata"] = _META
    elif kind == "array":
        node.kind, node.items = "list", tree(schema.get("items"))
        node.list_type = schema.get("x-kubernetes-list-type") or "atomic"
        node.map_keys = tuple(schema.get("x-kubernetes-list-map-keys") or ())
    elif kind in ("string", "integer", "number", "boolean"):
        node.kind = kind
    return node


def _metadata() -> Node:
    text = Node(kind="string")
    owners = Node(kind="list", items=Node(kind="any", atomic=True), list_type="map", map_keys=("uid",))
    finalizers = Node(kind="list", items=text, list_type="set")
    labels = Node(kind="map", items=text)
    inner = {"labels": labels, "annotations": labels, "finalizers": finalizers, "ownerReferences": owners}
    return Node(kind="object", properties=inner, embedded=True)


_META = _metadata()


def default(schema: JSON, value: Any) -> None:
    """Fill absent fields that have a default, in place, also below what was just filled in."""
    if isinstance(value, dict):
        properties = schema.get("properties") or {}
        for key, one in properties.items():
            if key in value and value[key] is None and "default" in one and not one.get("nullable"):
                del value[key]
            if key not in value and "default" in one:
                value[key] = copy.deepcopy(one["default"])
            if key in value:
                default(one, value[key])
        more = schema.get("additionalProperties")
        if isinstance(more, dict):
            for key, inner in value.items():
                if key not in properties:
                    default(more, inner)
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        for inner in value:
            default(schema["items"], inner)


def _has_defaults(schema: Any) -> bool:
    if not isinstance(schema, dict):
        return False
    inner = [
        *(schema.get("properties") or {}).values(),
        schema.get("items"),
        schema.get("additionalProperties"),
    ]
    return "default" in schema or any(_has_defaults(one) for one in inner)


def _prune(schema: JSON, value: Any, found: list[str], path: str, *, root: bool = False) -> None:
    if isinstance(value, dict):
        properties = schema.get("properties") or {}
        more = schema.get("additionalProperties")
        free = schema.get("x-kubernetes-preserve-unknown-fields") or more is True
        known = _ROOT if root or schema.get("x-kubernetes-embedded-resource") else ()
        for key in list(value):
            where = f"{path}.{key}" if path else key
            if key in properties:
                if key not in known:
                    _prune(properties[key], value[key], found, where)
            elif key in known:
                continue
            elif isinstance(more, dict):
                _prune(more, value[key], found, where)
            elif not free:
                del value[key]
                found.append(where)
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        for i, inner in enumerate(value):
            _prune(schema["items"], inner, found, f"{path}[{i}]")


def _translated(schema: Any) -> Any:
    """The schema as JSON Schema draft 4: nullable and int-or-string spelled out, extensions gone."""
    if not isinstance(schema, dict):
        return schema
    out: JSON = {}
    for key, value in schema.items():
        if key not in _KEPT:
            continue
        if key == "properties":
            out[key] = {k: _translated(v) for k, v in value.items()}
        elif key in _LOGIC:
            out[key] = [_translated(v) for v in value]
        elif key in ("items", "not", "additionalProperties"):
            out[key] = _translated(value)
        else:
            out[key] = value
    if schema.get("x-kubernetes-int-or-string"):
        out.pop("anyOf", None)
        out["type"] = ["integer", "string"]
    if schema.get("nullable"):
        if "type" in out:
            out["type"] = [*(out["type"] if isinstance(out["type"], list) else [out["type"]]), "null"]
        if "enum" in out and None not in out["enum"]:
            out["enum"] = [*out["enum"], None]
    return out


def spelled(path: list[Any]) -> str:
    """A path as messages have it: `spec.items[0].name`."""
    out = ""
    for part in path:
        out += f"[{part}]" if isinstance(part, int) else f".{part}" if out else str(part)
    return out


def _same(new: Any, old: Any, path: list[Any]) -> bool:
    for part in path:
        try:
            new, old = new[part], old[part]
        except (KeyError, IndexError, TypeError):
            return False
    return bool(new == old) and bool(path)


def _said(error: Any, path: list[Any]) -> list[Cause]:
    at = spelled(path)
    sort = type(error.kind).__name__
    shown = msgspec.json.encode(error.instance).decode()
    if len(shown) > 200:
        shown = shown[:200] + "…"
    if sort == "Required":
        name = str(error.message).split('"')[1]
        where = f"{at}.{name}" if at else name
        return [Cause(where, "Required value", _REQUIRED)]
    if sort == "Enum":
        allowed = ", ".join(msgspec.json.encode(v).decode() for v in _enum(error))
        return [Cause(at, f"Unsupported value: {shown}: supported values: {allowed}", _UNSUPPORTED)]
    if sort == "Type":
        names = (
            str(error.message).rpartition("of type")[2].lstrip("s ").replace('"', "").replace(" or ", ", ")
        )
        found = {"dict": "object", "list": "array", "str": "string", "bool": "boolean", "int": "integer", "float": "number", "NoneType": "null"}  # fmt: skip
        said = found.get(type(error.instance).__name__, "value")
        return [Cause(at, f'Invalid value: "{said}": {at} in body must be of type {names}: "{said}"', _TYPE)]
    return [Cause(at, f"Invalid value: {shown}: {at} in body: {error.message}")]


def _enum(error: Any) -> list[Any]:
    found = getattr(error.kind, "options", None)
    if found is None:
        return []
    return list(found) if isinstance(found, list | tuple) else list(msgspec.json.decode(str(found)))


def _lists(schema: Any, value: Any, at: str, path: list[Any]) -> list[tuple[str, list[Any], list[Any], JSON]]:
    """Every list whose items must differ."""
    out = []
    if isinstance(value, dict) and isinstance(schema, dict):
        properties, more = schema.get("properties") or {}, schema.get("additionalProperties")
        for key, inner in value.items():
            child = properties.get(key, more)
            if isinstance(child, dict) and isinstance(inner, dict | list):
                out += _lists(child, inner, f"{at}.{key}" if at else key, [*path, key])
    elif isinstance(value, list) and isinstance(schema, dict):
        if schema.get("x-kubernetes-list-type") in ("set", "map"):
            out.append((at, path, value, schema))
        for i, inner in enumerate(value):
            if isinstance(inner, dict | list):
                out += _lists(schema.get("items"), inner, f"{at}[{i}]", [*path, i])
    return out


def _duplicates(at: str, items: list[Any], schema: JSON) -> list[Cause]:
    seen: set[bytes] = set()
    out = []
    keys = schema.get("x-kubernetes-list-map-keys") or ()
    properties = (schema.get("items") or {}).get("properties") or {}
    for i, one in enumerate(items):
        if schema["x-kubernetes-list-type"] == "map" and isinstance(one, dict):
            one = {k: one.get(k, (properties.get(k) or {}).get("default")) for k in keys}
        mark = msgspec.json.encode(one, order="sorted")
        if mark in seen:
            out.append(Cause(f"{at}[{i}]", f"Duplicate value: {mark.decode()}", _DUPLICATE))
        seen.add(mark)
    return out
