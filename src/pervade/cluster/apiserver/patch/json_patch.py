"""JSON patch (RFC 6902) with JSON pointers (RFC 6901)."""

from __future__ import annotations

import re
from typing import Any

from pervade.cluster.apiserver.patch import PatchError

_MOST = 10_000
_OPERATIONS = ("add", "remove", "replace", "move", "copy", "test")


def apply(document: Any, patch: Any) -> Any:
    """The patched document; `document` may be changed in place. O(patch · list lengths).

    PatchError 400 when the patch is malformed, 422 when an operation does not apply; the text names it.
    """
    if not isinstance(patch, list):
        raise PatchError("a JSON patch must be an array of operations")
    if len(patch) > _MOST:
        raise PatchError(f"a JSON patch may have at most {_MOST} operations", 413)
    for i, operation in enumerate(patch):
        if not isinstance(operation, dict) or operation.get("op") not in _OPERATIONS:
            raise PatchError(f"operation {i} of the JSON patch is none of {', '.join(_OPERATIONS)}")
        document = _one(
            document,
            operation,
            f"operation {i} of the JSON patch ({operation['op']} {operation.get('path')})",
        )
    return document


def pointer(text: Any, where: str) -> list[str]:
    """The steps of a JSON pointer; PatchError when it is none."""
    if not isinstance(text, str) or (text and not text.startswith("/")) or re.search(r"~(?![01])", text):
        raise PatchError(f"{where}: {text!r} is not a JSON pointer")
    return [step.replace("~1", "/").replace("~0", "~") for step in text.split("/")[1:]]


def _one(document: Any, operation: dict[str, Any], where: str) -> Any:
    op, path = operation["op"], pointer(operation.get("path"), where)
    if op in ("add", "replace", "test") and "value" not in operation:
        raise PatchError(f"{where}: it needs a value")
    if op == "test":
        if _get(document, path, where) != operation["value"]:
            raise PatchError(f"{where}: the value is another one", 422)
        return document
    if op == "remove":
        return _remove(document, path, where)[0]
    if op == "replace":
        _get(document, path, where)
        return _put(document, path, _copy(operation["value"]), where, insert=False)
    if op == "add":
        return _put(document, path, _copy(operation["value"]), where, insert=True)
    source = pointer(operation.get("from"), where)
    if op == "copy":
        return _put(document, path, _copy(_get(document, source, where)), where, insert=True)
    if path[: len(source)] == source and len(path) > len(source):
        raise PatchError(f"{where}: a value cannot be moved into itself", 422)
    document, value = _remove(document, source, where)
    return _put(document, path, value, where, insert=True)


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _copy(v) for k, v in value.items()}
    return [_copy(v) for v in value] if isinstance(value, list) else value


def _index(at: list[Any], step: str, where: str, most: int) -> int:
    if not re.fullmatch(r"0|[1-9]\d{0,8}", step) or int(step) > most:
        raise PatchError(f"{where}: {step!r} is no place in the list", 422)
    return int(step)


def _get(document: Any, path: list[str], where: str) -> Any:
    at = document
    for step in path:
        if isinstance(at, dict) and step in at:
            at = at[step]
        elif isinstance(at, list):
            at = at[_index(at, step, where, len(at) - 1)]
        else:
            raise PatchError(f"{where}: the path does not exist", 422)
    return at


def _put(document: Any, path: list[str], value: Any, where: str, *, insert: bool) -> Any:
    if not path:
        return value
    holder, step = _get(document, path[:-1], where), path[-1]
    if isinstance(holder, dict):
        holder[step] = value
    elif not isinstance(holder, list):
        raise PatchError(f"{where}: the path does not exist", 422)
    elif insert and step == "-":
        holder.append(value)
    elif insert:
        holder.insert(_index(holder, step, where, len(holder)), value)
    else:
        holder[_index(holder, step, where, len(holder) - 1)] = value
    return document


def _remove(document: Any, path: list[str], where: str) -> tuple[Any, Any]:
    value = _get(document, path, where)
    if not path:
        return None, value
    holder, step = _get(document, path[:-1], where), path[-1]
    if isinstance(holder, dict):
        del holder[step]
    else:
        del holder[_index(holder, step, where, len(holder) - 1)]
    return document, value
