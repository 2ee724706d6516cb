"""Label and field selectors, compiled to predicates.

Grammar of labels: `a=b, a==b, a!=b, a in (x,y), a notin (x,y), a, !a` joined by commas (Kubernetes,
"Labels and Selectors"); of fields: `path=value, path==value, path!=value`. Malformed text is a ValueError
whose text is fit for a 400.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

Labels = Mapping[str, str]
LabelTest = Callable[[Labels | None], bool]
FieldTest = Callable[[Mapping[str, Any]], bool]

_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_PREFIX = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_TOKEN = re.compile(r"\s*(?:(?P<op>==|!=|=|!|\(|\)|,|<|>)|(?P<word>[^\s=!(),<>]+))")


class Requirement(NamedTuple):
    """One condition: `op` is in, notin, exists, absent, gt or lt."""

    key: str
    op: str
    values: frozenset[str]

    def holds(self, labels: Labels) -> bool:
        value = labels.get(self.key)
        if self.op == "in":
            return value is not None and value in self.values
        if self.op == "notin":
            return value is None or value not in self.values
        if self.op == "exists":
            return value is not None
        if self.op == "absent":
            return value is None
        try:
            number, bound = int(value or ""), int(next(iter(self.values)))
        except ValueError:
            return False
        return number > bound if self.op == "gt" else number < bound


def labels(text: str) -> LabelTest:
    """The predicate of a label selector; O(requirements) a call. Empty text selects everything."""
    requirements = parse_labels(text)
    if not requirements:
        return lambda _labels: True
    nothing: Labels = {}
    if len(requirements) == 1:
        single = requirements[0]
        return lambda found: single.holds(found or nothing)
    return lambda found: all(r.holds(found or nothing) for r in requirements)


def parse_labels(text: str) -> tuple[Requirement, ...]:
    """The conditions of a label selector; ValueError when malformed."""
    tokens = _tokens(text)
    found: list[Requirement] = []
    at = 0
    while at < len(tokens):
        requirement, at = _requirement(tokens, at, text)
        found.append(requirement)
        if at < len(tokens):
            if tokens[at] != "," or at + 1 == len(tokens):
                raise ValueError(
                    f"unable to parse requirement: found '{tokens[at]}', expected: ',' or end of {text!r}"
                )
            at += 1
    return tuple(found)


def _tokens(text: str) -> list[str]:
    out, at, text = [], 0, text.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise ValueError(f"unable to parse requirement: {text[at:]!r}")
        out.append(match["op"] or match["word"])
        at = match.end()
    return out


def _requirement(tokens: list[str], at: int, text: str) -> tuple[Requirement, int]:
    def peek(i: int) -> str:
        return tokens[i] if i < len(tokens) else ""

    if tokens[at] == "!":
        return Requirement(_key(peek(at + 1)), "absent", frozenset()), at + 2
    key = _key(tokens[at])
    operator = peek(at + 1)
    if operator in ("", ","):
        return Requirement(key, "exists", frozenset()), at + 1
    if operator in ("=", "==", "!="):
        value = peek(at + 2)
        op = "notin" if operator == "!=" else "in"
        if value in ("", ","):
            return Requirement(key, op, frozenset({""})), at + 2
        return Requirement(key, op, frozenset({_value(key, value)})), at + 3
    if operator in ("<", ">"):
        value = peek(at + 2)
        if not re.fullmatch(r"-?\d+", value):
            raise ValueError(f"for '{operator}' the value must be an integer: {text!r}")
        return Requirement(key, "gt" if operator == ">" else "lt", frozenset({value})), at + 3
    if operator in ("in", "notin"):
        values, after = _set(key, tokens, at + 2, text)
        return Requirement(key, operator, values), after
    raise ValueError(
        f"unable to parse requirement: found '{operator}', expected: in, notin, =, ==, !=, gt, lt"
    )


def _set(key: str, tokens: list[str], at: int, text: str) -> tuple[frozenset[str], int]:
    if at >= len(tokens) or tokens[at] != "(":
        raise ValueError(f"unable to parse requirement: found no '(' after in or notin: {text!r}")
    values: set[str] = set()
    word = ""
    for i in range(at + 1, len(tokens)):
        token = tokens[i]
        if token == ")":
            return frozenset(values | {_value(key, word)}), i + 1
        if token == ",":
            values.add(_value(key, word))
            word = ""
        elif word or token in ("=", "==", "!=", "!", "(", "<", ">"):
            break
        else:
            word = token
    raise ValueError(f"unable to parse requirement: the set of values is not closed: {text!r}")


def _key(key: str) -> str:
    prefix, slash, name = key.rpartition("/")
    if not _NAME.fullmatch(name) or (slash and not _PREFIX.fullmatch(prefix)):
        raise ValueError(
            f"unable to parse requirement: invalid label key {key!r}: name part must consist of alphanumeric"
            " characters, '-', '_' or '.', and must start and end with an alphanumeric character"
        )
    return key


def _value(key: str, value: str) -> str:
    if not _VALUE.fullmatch(value):
        raise ValueError(
            f"unable to parse requirement: values[0][{key}]: Invalid value: {value!r}: a valid label must be an"
            " empty string or consist of alphanumeric characters, '-', '_' or '.'"
        )
    return value


def fields(text: str, allowed: frozenset[str]) -> FieldTest:
    """The predicate over decoded objects of a field selector whose paths must be in `allowed`.

    O(conditions) a call; absent and false values compare as "" and "false", numbers as their text.
    """
    conditions = parse_fields(text)
    for path, _value_of, _equal in conditions:
        if path not in allowed:
            raise ValueError(f"field label not supported: {path}")
    compiled = [(tuple(path.split(".")), value, equal) for path, value, equal in conditions]

    def test(obj: Mapping[str, Any]) -> bool:
        return all((field(obj, path) == value) is equal for path, value, equal in compiled)

    return test


def parse_fields(text: str) -> list[tuple[str, str, bool]]:
    """(path, value, must be equal) of each condition; `\\,` `\\=` and `\\\\` stand for themselves in values."""
    found = []
    for term in re.split(r"(?<!\\),", text):
        if not term:
            continue
        match = re.fullmatch(r"(?P<path>[^=!]+?)\s*(?P<op>==|!=|=)\s*(?P<value>.*)", term.strip())
        if match is None:
            raise ValueError(f"invalid selector: '{text}'; can't understand '{term}'")
        value = re.sub(r"\\([\\,=])", r"\1", match["value"])
        found.append((match["path"].strip(), value, match["op"] != "!="))
    return found


def field(obj: Mapping[str, Any], path: tuple[str, ...]) -> str:
    """The text of the value at `path`, as selectors compare it."""
    at: Any = obj
    for step in path:
        at = at.get(step) if isinstance(at, Mapping) else None
        if at is None:
            # Absent booleans are false in the typed form that selectors are defined on.
            return "false" if path[-1] in ("hostNetwork", "unschedulable") else ""
    if isinstance(at, bool):
        return "true" if at else "false"
    if isinstance(at, Mapping):
        # The selectable label `source` of Events means source.component.
        return str(at.get("component", ""))
    return str(at)
