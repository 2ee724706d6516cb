"""Defaults of a schema, and the nulls it does not allow. Pure, O(object).

Source: Kubernetes, "Extend the Kubernetes API with CustomResourceDefinitions", defaulting and nullable: a null in a
field that is not nullable counts as absent.
"""

from __future__ import annotations

import copy
from typing import Any

from pervade.cluster.apiserver.kinds.kind import JSON


def complete(schema: JSON, value: Any) -> None:
    """Drop nulls that are not allowed and fill absent fields that have a default, in place, also below what was filled in."""
    if isinstance(value, dict):
        properties = schema.get("properties") or {}
        for key, one in properties.items():
            if key in value and value[key] is None and not one.get("nullable"):
                del value[key]
            if key not in value and "default" in one:
                value[key] = copy.deepcopy(one["default"])
            if key in value:
                complete(one, value[key])
        more = schema.get("additionalProperties")
        if isinstance(more, dict):
            for key in [k for k in value if k not in properties]:
                if value[key] is None and not more.get("nullable"):
                    del value[key]
                    if "default" in more:
                        value[key] = copy.deepcopy(more["default"])
                else:
                    complete(more, value[key])
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        items = schema["items"]
        for i, inner in enumerate(value):
            if inner is None and "default" in items and not items.get("nullable"):
                value[i] = copy.deepcopy(items["default"])
            complete(items, value[i])


def any_in(schema: Any) -> bool:
    """Whether a schema has a default anywhere."""
    if not isinstance(schema, dict):
        return False
    inner = [
        *(schema.get("properties") or {}).values(),
        schema.get("items"),
        schema.get("additionalProperties"),
    ]
    return "default" in schema or any(any_in(one) for one in inner)
