"""Type trees of the built-in kinds, out of the published definitions of Kubernetes (package kubernetes-validate).

The JSON is read when a kind is first needed and let go again; what stays are the nodes of the kinds in use.
"""

from __future__ import annotations

import functools
from importlib import resources
from typing import Any

import msgspec

from pervade.cluster.apiserver.schema.tree import Node

JSON = dict[str, Any]
VERSION = "v1.33.0"
_PREFIX = "#/$defs/"
_INTSTR = "io.k8s.apimachinery.pkg.util.intstr.IntOrString"
_QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"
_OPAQUE = frozenset({"FieldsV1", "RawExtension", "JSON", "JSONSchemaPropsOrBool", "JSONSchemaPropsOrArray"})
_OPAQUE |= {"JSONSchemaPropsOrStringArray"}
_nodes: dict[str, Node] = {}


def definitions() -> dict[str, JSON]:
    """All published definitions by their full name; about 10 ms, not kept."""
    folder = resources.files("kubernetes_validate").joinpath("kubernetes-json-schema", f"{VERSION}-local")
    found: JSON = msgspec.json.decode(folder.joinpath("_definitions.json").read_bytes())
    made: dict[str, JSON] = found["$defs"]
    return made


@functools.cache
def _index() -> dict[tuple[str, str, str], str]:
    """(group, version, kind) to the name of its definition."""
    out: dict[tuple[str, str, str], str] = {}
    for name, body in definitions().items():
        for gvk in body.get("x-kubernetes-group-version-kind") or ():
            out.setdefault((gvk["group"], gvk["version"], gvk["kind"]), name)
    return out


def name_of(group: str, version: str, kind: str) -> str | None:
    return _index().get((group, version, kind))


@functools.cache
def type_for(group: str, version: str, kind: str) -> Node | None:
    """The type of a built-in kind; None when it has no published definition."""
    name = name_of(group, version, kind)
    if name is None:
        return None
    return _nodes.get(name) or _define(name, definitions())


def _define(name: str, all_: dict[str, JSON]) -> Node:
    known = _nodes.get(name)
    if known is not None:
        return known
    node = _nodes[name] = Node()
    if name == _INTSTR:
        node.kind = "intstr"
    elif name == _QUANTITY:
        node.kind = "quantity"
    elif name.rpartition(".")[2] not in _OPAQUE:
        _fill(node, all_[name], all_)
    return node


def _node(schema: JSON, all_: dict[str, JSON]) -> Node:
    ref = schema.get("$ref")
    if ref:
        return _define(str(ref).removeprefix(_PREFIX), all_)
    node = Node()
    _fill(node, schema, all_)
    return node


def _fill(node: Node, schema: JSON, all_: dict[str, JSON]) -> None:
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((k for k in kind if k != "null"), None)
    node.format = schema.get("format") or ""
    node.atomic = schema.get("x-kubernetes-map-type") == "atomic"
    if kind == "object" and "properties" in schema:
        node.kind = "object"
        node.properties = {k: _node(v, all_) for k, v in schema["properties"].items()}
    elif kind == "object" and "additionalProperties" in schema:
        node.kind, node.items = "map", _node(schema["additionalProperties"], all_)
    elif kind == "array":
        node.kind, node.items = "list", _node(schema.get("items") or {}, all_)
        node.list_type = schema.get("x-kubernetes-list-type") or "atomic"
        node.map_keys = tuple(schema.get("x-kubernetes-list-map-keys") or ())
        node.merge_key = schema.get("x-kubernetes-patch-merge-key") or ""
    elif kind in ("string", "integer", "number", "boolean"):
        node.kind = kind
    strategy = schema.get("x-kubernetes-patch-strategy") or ""
    node.strategies = tuple(s.strip() for s in strategy.split(",") if s.strip())
