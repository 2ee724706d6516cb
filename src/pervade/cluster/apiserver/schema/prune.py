"""Fields that a schema does not know go before an object is stored. Pure, O(object).

Source: Kubernetes, "Extend the Kubernetes API with CustomResourceDefinitions", field pruning.
"""

from __future__ import annotations

from typing import Any

from pervade.cluster.apiserver.kinds.kind import JSON

_ROOT = ("apiVersion", "kind", "metadata")
_METADATA = frozenset({
    "name", "generateName", "namespace", "selfLink", "uid", "resourceVersion", "generation", "creationTimestamp",
    "deletionTimestamp", "deletionGracePeriodSeconds", "labels", "annotations", "ownerReferences", "finalizers", "managedFields",
})  # fmt: skip


def prune(schema: JSON, obj: JSON) -> list[str]:
    """Take unknown fields out of an object, in place; their paths in the order found."""
    found: list[str] = []
    _prune(schema, obj, found, "", resource=True)
    return found


def _prune(schema: JSON, value: Any, found: list[str], path: str, *, resource: bool) -> None:
    if isinstance(value, list):
        items = schema.get("items")
        if isinstance(items, dict):
            for i, inner in enumerate(value):
                _prune(items, inner, found, f"{path}[{i}]", resource=_is_resource(items))
        return
    if not isinstance(value, dict):
        return
    properties, more = schema.get("properties") or {}, schema.get("additionalProperties")
    free = schema.get("x-kubernetes-preserve-unknown-fields") or more is True
    for key in list(value):
        where = f"{path}.{key}" if path else key
        if resource and key in _ROOT:
            if key == "metadata" and isinstance(value[key], dict):
                unknown = [name for name in value[key] if name not in _METADATA]
                for name in unknown:
                    del value[key][name]
                    found.append(f"{where}.{name}")
        elif key in properties:
            _prune(properties[key], value[key], found, where, resource=_is_resource(properties[key]))
        elif isinstance(more, dict):
            _prune(more, value[key], found, where, resource=_is_resource(more))
        elif not free:
            del value[key]
            found.append(where)


def _is_resource(schema: JSON) -> bool:
    return bool(schema.get("x-kubernetes-embedded-resource"))
