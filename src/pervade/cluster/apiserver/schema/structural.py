"""Structural schemas of custom resources: what a field is, which fields go, which get a default, which are wrong.

Pure, O(object) per use. Source: Kubernetes, "Extend the Kubernetes API with CustomResourceDefinitions"
(structural schemas, pruning, defaulting, validation rules).
"""

from __future__ import annotations

import hashlib
import weakref
from collections import deque
from typing import Any

import msgspec

from pervade.cluster.apiserver.kinds.kind import JSON, Cause
from pervade.cluster.apiserver.schema import defaults, prune, rules
from pervade.cluster.apiserver.schema.tree import ANY, Node
from pervade.cluster.apiserver.schema.values import Values


class Structural:
    """One compiled version of a definition."""

    def __init__(self, schema: JSON) -> None:
        self.schema = schema
        self.mark = ""
        """Stands for the schema where two have to be told apart; set by `compiled`."""
        self.node = tree(schema, root=True)
        self.values = Values(schema)
        self.rules = rules.collect(schema)
        self.has_defaults = defaults.any_in(schema)

    def complete(self, obj: JSON) -> None:
        """Defaults, in place; nulls that are not allowed go."""
        defaults.complete(self.schema, obj)

    def prune(self, obj: JSON) -> list[str]:
        """Take out fields the schema does not know, in place; their paths."""
        return prune.prune(self.schema, obj)

    def causes(self, new: JSON, old: JSON | None) -> list[Cause]:
        """What is wrong with an object. What was wrong before and did not change is let pass (ratcheting)."""
        return self.values.causes(new, old) or self.rules.causes(new, old)


_known: weakref.WeakValueDictionary[bytes, Structural] = weakref.WeakValueDictionary()
# The check of a definition compiles it a moment before it is served; until then nobody else holds it.
_recent: deque[Structural] = deque(maxlen=8)


def compiled(schema: JSON) -> Structural:
    """The compiled form of a schema, the same object for the same schema; raises as `Structural` does."""
    mark = hashlib.sha256(msgspec.json.encode(schema)).digest()
    found = _known.get(mark)
    if found is None:
        found = _known[mark] = Structural(schema)
        found.mark = mark.hex()
    _recent.append(found)
    return found


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
