"""Objects against their type: unknown fields, wrong types, and the object without either.

What a decoder of typed objects does on a real server: unknown fields are dropped (and reported), nulls
are absent values, a value of a wrong type refuses the object. Pure.
"""

from __future__ import annotations

from typing import Any

from pervade.cluster.apiserver.schema.tree import Node

_SAID = {"integer": "int32", "boolean": "bool", "number": "float64", "intstr": "intstr.IntOrString"}
_SAID |= {"quantity": "resource.Quantity", "string": "string"}


class Findings:
    """Paths of unknown fields, and texts about values of wrong types, in the order found."""

    __slots__ = ("unknown", "wrong")

    def __init__(self) -> None:
        self.unknown: list[str] = []
        self.wrong: list[str] = []


def conform(node: Node, value: Any, found: Findings, path: str = "") -> Any:
    """`value` as the type has it: without unknown fields and nulls; O(values). Findings are added to `found`."""
    kind = node.kind
    if kind == "any":
        return value
    if kind == "string":
        if value.__class__ is str:
            return value
    elif kind == "object":
        if isinstance(value, dict):
            return _object(node, value, found, path)
    elif kind == "list":
        if isinstance(value, list):
            items = node.items
            assert items is not None
            return [
                conform(items, one, found, f"{path}[{i}]") if one is not None else _empty(items)
                for i, one in enumerate(value)
            ]
    elif kind == "map":
        if isinstance(value, dict):
            items = node.items
            assert items is not None
            return {
                k: conform(items, one, found, f"{path}.{k}") if one is not None else _empty(items)
                for k, one in value.items()
            }
    else:
        fits, made = _scalar(kind, value)
        if fits:
            return made
    name = type(value).__name__
    said = {"str": "string", "int": "number", "float": "number", "dict": "object", "list": "array"}.get(
        name, name
    )
    wanted = node.format or _SAID.get(kind, kind)
    found.wrong.append(f"cannot unmarshal {said} into field {path.lstrip('.')} of type {wanted}")
    return value


def _object(node: Node, value: dict[str, Any], found: Findings, path: str) -> dict[str, Any]:
    out = {}
    properties = node.properties
    for key, one in value.items():
        known = properties.get(key)
        if known is None:
            if node.embedded:
                out[key] = one
            else:
                found.unknown.append(f"{path}.{key}".lstrip("."))
        elif one is not None:
            out[key] = conform(known, one, found, f"{path}.{key}")
    return out


_ZERO: dict[str, Any] = {
    "string": "",
    "integer": 0,
    "number": 0,
    "boolean": False,
    "intstr": 0,
    "quantity": "0",
}


def _empty(node: Node) -> Any:
    """What null stands for inside lists and maps: the zero value."""
    if node.kind in ("object", "map"):
        return {}
    return [] if node.kind == "list" else _ZERO.get(node.kind)


def _scalar(kind: str, value: Any) -> tuple[bool, Any]:
    if kind == "boolean":
        return isinstance(value, bool), value
    if isinstance(value, bool):
        return False, value
    if kind == "integer":
        if isinstance(value, float) and value.is_integer() and abs(value) < 1 << 63:
            return True, int(value)
        return isinstance(value, int) and abs(value) < 1 << 63, value
    if kind == "number":
        return isinstance(value, int | float), value
    if kind == "intstr":
        return isinstance(value, int | str), value
    if kind == "quantity":
        if isinstance(value, int | float):
            return True, _quantity(value)
        return isinstance(value, str), value
    return False, value


def _quantity(value: float) -> str:
    """A number given for a quantity, as the quantity's text (0.5 is 500m)."""
    if isinstance(value, int) or value.is_integer():
        return str(int(value))
    milli = value * 1000
    return f"{round(milli)}m" if abs(milli - round(milli)) < 1e-9 else f"{value:g}"
