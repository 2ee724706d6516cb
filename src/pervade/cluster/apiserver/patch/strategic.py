"""Strategic merge patch: a merge patch that knows which lists are merged by key.

Directives: `$patch` (replace, delete, merge), `$retainKeys`, `$setElementOrder/LIST`,
`$deleteFromPrimitiveList/LIST` (Kubernetes, "Update API Objects in Place Using kubectl patch"). Pure.
"""

from __future__ import annotations

from typing import Any

from pervade.cluster.apiserver.patch import PatchError
from pervade.cluster.apiserver.schema.tree import ANY, Node

JSON = dict[str, Any]
_ORDER, _DROP = "$setElementOrder/", "$deleteFromPrimitiveList/"


def apply(node: Node, original: JSON, patch: JSON) -> JSON:
    """The patched object; neither argument is changed. O(object). PatchError when the patch makes no sense."""
    made: JSON = _object(node, original, patch, "")
    return made


def _object(node: Node, original: JSON, patch: JSON, path: str) -> JSON:
    directive = patch.get("$patch")
    if directive == "replace":
        whole: JSON = _clean({k: v for k, v in patch.items() if k != "$patch"})
        return whole
    if directive == "delete":
        return {}
    if directive not in (None, "merge"):
        raise PatchError(f"unknown directive $patch: {directive!r} at {path or '.'}")
    out = dict(original)
    retain = patch.get("$retainKeys")
    if retain is not None:
        if not isinstance(retain, list):
            raise PatchError(f"$retainKeys at {path or '.'} must be a list")
        missing = [k for k in patch if not k.startswith("$") and patch[k] is not None and k not in retain]
        if missing:
            raise PatchError(f"$retainKeys at {path or '.'} does not name {', '.join(missing)}")
        out = {k: v for k, v in out.items() if k in retain}
    for key, change in patch.items():
        if key.startswith(_DROP):
            out = _without(out, key.removeprefix(_DROP), change, path)
    for key, change in patch.items():
        if key in ("$patch", "$retainKeys") or key.startswith((_ORDER, _DROP)):
            continue
        child = _child(node, key)
        order = patch.get(_ORDER + key)
        where = f"{path}.{key}"
        if change is None:
            out.pop(key, None)
        elif isinstance(change, dict):
            before = out.get(key)
            if change.get("$patch") == "delete":
                out.pop(key, None)
            elif "replace" in child.strategies or not isinstance(before, dict):
                out[key] = _object(child, {}, change, where)
            else:
                out[key] = _object(child, before, change, where)
        elif isinstance(change, list):
            before = out.get(key)
            out[key] = _list(child, before if isinstance(before, list) else [], change, order, where)
        else:
            out[key] = change
    for key, order in patch.items():
        # An order without changes: only sort.
        name = key.removeprefix(_ORDER)
        if key.startswith(_ORDER) and name not in patch and isinstance(out.get(name), list):
            child = _child(node, name)
            out[name] = _sorted(child, out[name], out[name], order, f"{path}.{name}")
    return out


def _child(node: Node, key: str) -> Node:
    if node.kind == "map" and node.items is not None:
        return node.items
    return node.properties.get(key, ANY)


def _clean(value: Any) -> Any:
    """A value that comes in whole: without directives and nulls."""
    if isinstance(value, dict):
        return {
            k: _clean(v)
            for k, v in value.items()
            if v is not None and not k.startswith(("$patch", _ORDER, _DROP, "$retainKeys"))
        }
    if isinstance(value, list):
        return [_clean(v) for v in value if not (isinstance(v, dict) and v.get("$patch") == "delete")]
    return value


def _without(out: JSON, name: str, drop: Any, path: str) -> JSON:
    if not isinstance(drop, list):
        raise PatchError(f"{_DROP}{name} at {path or '.'} must be a list")
    if isinstance(out.get(name), list):
        out[name] = [v for v in out[name] if v not in drop]
    return out


def _list(node: Node, before: list[Any], change: list[Any], order: Any, path: str) -> list[Any]:
    if "merge" not in node.strategies:
        return list(_clean(change))
    items = node.items or ANY
    if items.kind not in ("object", "any") or (items.kind == "any" and not node.merge_key):
        merged = [*before, *(v for i, v in enumerate(change) if v not in before and v not in change[:i])]
        return _sorted(node, merged, before, change if order is None else order, path)
    key = node.merge_key
    if any(not isinstance(c, dict) for c in change):
        raise PatchError(f"items of {path} must be objects")
    if any(c.get("$patch") == "replace" for c in change):
        return [_clean(c) for c in change if c.get("$patch") != "replace"]
    merged = list(before)
    for one in change:
        if key not in one:
            raise PatchError(f"map: {one} does not contain declared merge key: {key}")
        place = next(
            (i for i, v in enumerate(merged) if isinstance(v, dict) and v.get(key) == one[key]), None
        )
        if one.get("$patch") == "delete":
            if place is not None:
                merged = [v for v in merged if not (isinstance(v, dict) and v.get(key) == one[key])]
        elif place is None:
            merged.append(_object(items, {}, one, path))
        else:
            merged[place] = _object(items, merged[place], one, path)
    return _sorted(node, merged, before, change if order is None else order, path)


def _sorted(node: Node, merged: list[Any], before: list[Any], order: Any, path: str) -> list[Any]:
    """`merged` in the patch's order; what only the server has stays where it was between its neighbours."""
    if not isinstance(order, list):
        raise PatchError(f"{_ORDER} of {path} must be a list")
    key = node.merge_key

    def identity(value: Any) -> Any:
        found = value.get(key) if isinstance(value, dict) and key else value
        return repr(found)

    places = {identity(v): i for i, v in enumerate(order)}
    server = {identity(v): i for i, v in enumerate(before)}
    mine = sorted((v for v in merged if identity(v) in places), key=lambda v: places[identity(v)])
    theirs = [v for v in merged if identity(v) not in places]
    out: list[Any] = []
    i = j = 0
    while i < len(mine) and j < len(theirs):
        here = server.get(identity(mine[i]))
        if here is not None and server.get(identity(theirs[j]), 1 << 30) < here:
            out.append(theirs[j])
            j += 1
        else:
            out.append(mine[i])
            i += 1
    return [*out, *mine[i:], *theirs[j:]]
