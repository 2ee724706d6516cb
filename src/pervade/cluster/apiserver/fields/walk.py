"""Values through their types: which fields they have, how two differ, how one is laid over the other. Pure.

Types say what is one field: a scalar, an `atomic` list or map; and how items of lists are told apart
(`set` by value, `map` by keys). Without a type maps are granular and lists atomic. Every function is
O(size of its values). Source: Kubernetes, "Merge strategy" of server-side apply.
"""

from __future__ import annotations

from typing import Any

import msgspec

from pervade.cluster.apiserver.fields.sets import SELF, FieldSet
from pervade.cluster.apiserver.schema.tree import ANY, Node

_DEFAULT_KEYS = {"protocol": "TCP"}
_encode = msgspec.json.Encoder(order="sorted").encode


def _granular(node: Node, value: Any) -> str:
    """ "map", "set" or "items" for values made of fields of their own, else ""."""
    if isinstance(value, dict):
        return "" if node.atomic else "map"
    if isinstance(value, list) and node.kind == "list":
        if node.list_type == "set":
            return "set"
        if node.list_type == "map" and node.map_keys and all(isinstance(v, dict) for v in value):
            return "items"
    return ""


def _child(node: Node, key: str) -> Node:
    if node.kind == "map":
        return node.items or ANY
    return node.properties.get(key, ANY)


def element(node: Node, item: Any) -> str:
    """The path element of an item of a set or a list by keys."""
    if node.list_type == "set":
        return "v:" + _encode(item).decode()
    keys = {k: item.get(k, _DEFAULT_KEYS.get(k)) for k in node.map_keys}
    return "k:" + _encode({k: v for k, v in keys.items() if v is not None}).decode()


def _items(node: Node, values: list[Any]) -> dict[str, Any]:
    """Items by element; of several with the same one, the first."""
    out: dict[str, Any] = {}
    for value in values:
        out.setdefault(element(node, value), value)
    return out


def fields_of(node: Node, value: Any) -> FieldSet:
    """The set of all fields of a value (of its inside: the root itself is no member)."""
    out: FieldSet = {}
    sort = _granular(node, value)
    if sort == "map":
        declared = node.kind == "object"
        for key, inner in value.items():
            child = _child(node, key)
            below = fields_of(child, inner) if _granular(child, inner) else {SELF: True}
            if inner == {} or (not declared and isinstance(inner, dict) and node.kind == "map"):
                below[SELF] = True
            if below:
                out[f"f:{key}"] = below
    elif sort == "set":
        for name in _items(node, value):
            out[name] = {SELF: True}
    elif sort == "items":
        for name, inner in _items(node, value).items():
            out[name] = {**fields_of(node.items or ANY, inner), SELF: True}
    else:
        out[SELF] = True
    return out


def duplicates(node: Node, value: Any, at: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Paths of items that a list holds more than once, although its type says they differ."""
    out: list[tuple[str, ...]] = []
    sort = _granular(node, value)
    if sort == "map":
        for key, inner in value.items():
            out += duplicates(_child(node, key), inner, (*at, f"f:{key}"))
    elif sort:
        seen: set[str] = set()
        for item in value:
            name = element(node, item)
            if name in seen:
                out.append((*at, name))
            seen.add(name)
            if sort == "items":
                out += duplicates(node.items or ANY, item, (*at, name))
    return out


class Difference(msgspec.Struct):
    """Fields of the second value that are new or have another value, and fields only the first has."""

    changed: FieldSet = {}
    removed: FieldSet = {}


def compare(node: Node, old: Any, new: Any) -> Difference:
    """How `new` differs from `old`; both granular."""
    out = Difference({}, {})
    sort = _granular(node, new) or _granular(node, old)
    if sort == "map":
        before, after = old if isinstance(old, dict) else {}, new if isinstance(new, dict) else {}
        rows = [
            (f"f:{k}", _child(node, k), before.get(k), after.get(k), k in before, k in after)
            for k in {**before, **after}
        ]
    elif sort:
        was = _items(node, old) if isinstance(old, list) else {}
        now = _items(node, new) if isinstance(new, list) else {}
        inner = node.items or ANY
        rows = [(k, inner, was.get(k), now.get(k), k in was, k in now) for k in {**was, **now}]
    else:
        rows = []
    for name, child, was_value, now_value, had, has in rows:
        if had and has:
            if was_value == now_value:
                continue
            if _granular(child, was_value) and _granular(child, now_value) and sort != "set":
                below = compare(child, was_value, now_value)
                if below.changed:
                    out.changed[name] = below.changed
                if below.removed:
                    out.removed[name] = below.removed
            else:
                out.changed[name] = {
                    **(fields_of(child, now_value) if _granular(child, now_value) else {}),
                    SELF: True,
                }
        elif has:
            out.changed[name] = _whole(child, now_value, sort)
        else:
            out.removed[name] = _whole(child, was_value, sort)
    return out


def _whole(child: Node, value: Any, sort: str) -> FieldSet:
    """A value that comes or goes as a whole: its fields, containers included."""
    if sort == "set" or not _granular(child, value):
        return {SELF: True}
    return {**compare(child, _nothing(value), value).changed, SELF: True}


def _nothing(value: Any) -> Any:
    return {} if isinstance(value, dict) else []


def merge(node: Node, live: Any, applied: Any) -> Any:
    """`applied` laid over `live`; neither is changed."""
    sort = _granular(node, applied)
    if sort == "map" and isinstance(live, dict):
        out = dict(live)
        for key, value in applied.items():
            out[key] = merge(_child(node, key), live[key], value) if key in live else value
        return out
    if sort in ("set", "items") and isinstance(live, list):
        return _merge_items(node, live, applied)
    return applied


def _merge_items(node: Node, live: list[Any], applied: list[Any]) -> list[Any]:
    """In the order of `applied`; what only `live` has keeps its place before or after its neighbours.

    Items that `live` holds twice (older validation let them in) stay as they are unless they are applied.
    """
    held, wanted = _items(node, live), _items(node, applied)
    made = {k: merge(node.items or ANY, held[k], v) if k in held else v for k, v in wanted.items()}
    names = list(wanted)
    place = {name: i for i, name in enumerate(names)}
    done = 0
    out: list[Any] = []
    for item in live:
        at = place.get(element(node, item))
        if at is None:
            out.append(item)
        elif at >= done:
            out += [made[k] for k in names[done : at + 1]]
            done = at + 1
    return [*out, *(made[k] for k in names[done:])]


def without(node: Node, value: Any, drop: FieldSet, keep: FieldSet) -> Any:
    """`value` without the members of `drop`; an item or map goes with its last content unless `keep` owns it."""
    sort = _granular(node, value)
    if sort == "map":
        out = {}
        for key, inner in value.items():
            name = f"f:{key}"
            if name not in drop:
                out[key] = inner
                continue
            child, kept = _child(node, key), keep.get(name, {})
            if not _granular(child, inner) or (SELF in drop[name] and not kept):
                if kept or SELF not in drop[name]:
                    out[key] = inner
                continue
            left = without(child, inner, drop[name], kept)
            if left or kept or not inner:
                out[key] = left
        return out
    if sort:
        rest = []
        for item in value:
            name = element(node, item)
            if name not in drop:
                rest.append(item)
            elif keep.get(name) or SELF not in drop[name]:
                rest.append(item if sort == "set" else _thinned(node, item, drop[name], keep.get(name, {})))
        return rest
    return value


def _thinned(node: Node, item: Any, drop: FieldSet, keep: FieldSet) -> Any:
    """An item of a list by keys without the members of `drop`; its keys stay, for they say which item it is."""
    left = without(node.items or ANY, item, drop, keep)
    return {k: left.get(k, v) for k, v in item.items() if k in left or k in node.map_keys}
