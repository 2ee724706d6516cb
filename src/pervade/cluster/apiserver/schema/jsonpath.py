"""The JSONPath dialect of kubectl and CustomResourceDefinitions: `.spec.a`, `['x']`, `[0]`, `[*]`, `[?(@.type=="X")]`, `..`.

Pure; a path is parsed once. Source: Kubernetes, "JSONPath Support".
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable
from typing import Any

_TOKEN = re.compile(
    r"""\.\.(?P<deep>[A-Za-z_$][\w$-]*)|\.(?P<name>[A-Za-z_$\\](?:[\w$/-]|\\.)*|\*)|\['(?P<quoted>[^']*)'\]|\["(?P<double>[^"]*)"\]
    |\[(?P<index>-?\d+)\]|\[(?P<all>\*)\]|\[\?\(\s*@(?P<left>[^=!<>\s)]*)\s*(?:(?P<op>==|!=|>=|<=|>|<)\s*(?P<right>[^)]*?)\s*)?\)\]""",
    re.X,
)
Select = Callable[[Any], list[Any]]
_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "==": lambda a, b: bool(a == b),
    "!=": lambda a, b: bool(a != b),
    ">=": lambda a, b: bool(a >= b),
    "<=": lambda a, b: bool(a <= b),
    ">": lambda a, b: bool(a > b),
    "<": lambda a, b: bool(a < b),
}


@functools.lru_cache(maxsize=512)
def select(path: str) -> Select:
    """The values a path finds in an object, in order; ValueError for a path of another dialect."""
    text = path.strip().removeprefix("{").removesuffix("}").removeprefix("$")
    if text and text[0] not in ".[":
        text = "." + text
    steps: list[Callable[[Any], list[Any]]] = []
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise ValueError(f"JSONPath {path!r} cannot be read from {text[at:]!r} on")
        steps.append(_step(match))
        at = match.end()

    def run(obj: Any) -> list[Any]:
        found = [obj]
        for step in steps:
            found = [value for one in found for value in step(one)]
        return found

    return run


def names(path: str) -> list[str] | None:
    """The field names of a path that goes through fields only (`.a.b`, `['x']`); None for any other path."""
    text, at, out = path.strip().removeprefix("$"), 0, []
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None or match["name"] == "*":
            return None
        found = [match[g] for g in ("name", "quoted", "double") if match[g] is not None]
        if not found:
            return None
        out.append(re.sub(r"\\(.)", r"\1", found[0]))
        at = match.end()
    return out


def _step(match: re.Match[str]) -> Select:
    part = match.groupdict()
    if part["name"] == "*" or part["all"]:
        return lambda v: list(v.values()) if isinstance(v, dict) else list(v) if isinstance(v, list) else []
    if part["index"] is not None:
        return functools.partial(_at, int(part["index"]))
    if part["deep"] is not None:
        return functools.partial(_deep, part["deep"])
    if part["left"] is not None:
        return _filter(part["left"], part["op"], part["right"])
    name = next(t for t in (part["name"], part["quoted"], part["double"]) if t is not None)
    return functools.partial(_field, re.sub(r"\\(.)", r"\1", name))


def _field(name: str, value: Any) -> list[Any]:
    return [value[name]] if isinstance(value, dict) and name in value else []


def _at(index: int, value: Any) -> list[Any]:
    return [value[index]] if isinstance(value, list) and -len(value) <= index < len(value) else []


def _deep(name: str, value: Any) -> list[Any]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return _field(name, value) + [found for one in inner for found in _deep(name, one)]


def _filter(left: str, operator: str | None, right: str | None) -> Select:
    chosen = select(left) if left else lambda v: [v]
    wanted: Any = None
    if right is not None:
        text = right.strip()
        try:
            wanted = text[1:-1] if text[:1] == "'" else json.loads(text)
        except ValueError:
            raise ValueError(
                f"a filter compares with a string, number, true or false, not with {text!r}"
            ) from None

    def run(value: Any) -> list[Any]:
        if not isinstance(value, list):
            return []
        out = []
        for one in value:
            found = chosen(one)
            if operator is None:
                keep = bool(found)
            else:
                keep = bool(found) and _compare(operator, found[0], wanted)
            if keep:
                out.append(one)
        return out

    return run


def _compare(operator: str, a: Any, b: Any) -> bool:
    try:
        return _OPERATORS[operator](a, b)
    except TypeError:
        return False
