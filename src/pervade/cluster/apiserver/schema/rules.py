"""Validation rules in CEL (x-kubernetes-validations): compiled once a definition, run over every value they stand at.

Source: Kubernetes, "Validation rules". Cost is held down in three ways: a rule has at most 5,000 characters, the
evaluator ends a rule after 10,000 loop steps, and the rules of one object have a second of the processor together.
"""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Callable
from typing import Any

import msgspec
from google.protobuf import duration_pb2, timestamp_pb2

from pervade.cluster.apiserver.kinds.kind import JSON, Cause
from pervade.cluster.apiserver.schema import cel_library
from pervade.cluster.apiserver.schema.values import shown

MOST_CHARACTERS = 5000
MOST_SECONDS = 1.0
OLD = re.compile(r"\boldSelf\b")
REASONS = {"FieldValueInvalid", "FieldValueForbidden", "FieldValueRequired", "FieldValueDuplicate"}
_RESERVED = {
    "true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if", "import", "let", "loop",
    "package", "namespace", "return", "var", "void", "while",
}  # fmt: skip


class RuleError(ValueError):
    """A rule that does not compile: where it stands and why."""


class Rule(msgspec.Struct, frozen=True):
    """One compiled rule."""

    expression: Any
    text: str
    transition: bool
    optional_old: bool
    message: str
    message_expression: Any
    reason: str
    field_path: str


class Rules:
    """The rules of a schema as a tree along its properties and items."""

    __slots__ = ("items", "own", "properties", "schema", "values")

    def __init__(self, schema: JSON) -> None:
        self.schema = schema
        self.own: tuple[Rule, ...] = ()
        self.properties: dict[str, Rules] = {}
        self.items: Rules | None = None
        self.values: Rules | None = None

    def causes(self, new: Any, old: Any) -> list[Cause]:
        """What the rules say against a value; `old` None where there is nothing to compare with."""
        out: list[Cause] = []
        self._add(out, new, old, "", time.thread_time() + MOST_SECONDS)
        return out

    def _add(self, out: list[Cause], new: Any, old: Any, at: str, deadline: float) -> None:
        if self.own and not (old is not None and new == old):
            seen, before = view(self.schema, new), None if old is None else view(self.schema, old)
            for rule in self.own:
                if time.thread_time() > deadline:
                    text = "Forbidden: validation failed due to running out of cost budget, no further validation rules will be run"
                    out.append(Cause(at or "<nil>", text, "FieldValueForbidden"))
                    return
                out += _run(rule, seen, before, new, at)
        if isinstance(new, dict):
            was = old if isinstance(old, dict) else {}
            for key, child in self.properties.items():
                if key in new:
                    child._add(out, new[key], was.get(key), f"{at}.{key}" if at else key, deadline)
            if self.values is not None:
                for key, value in new.items():
                    if key not in self.properties:
                        where = f"{at}.{key}" if at else key
                        self.values._add(out, value, was.get(key), where, deadline)
        elif isinstance(new, list) and self.items is not None:
            pairs = _pairs(self.schema, new, old if isinstance(old, list) else [])
            for i, (value, before) in enumerate(pairs):
                self.items._add(out, value, before, f"{at}[{i}]", deadline)


def collect(schema: JSON, path: str = "openAPIV3Schema") -> Rules:
    """All rules of a schema; RuleError for one that does not compile."""
    return _collect(schema, path) or Rules(schema)


def _collect(schema: Any, path: str) -> Rules | None:
    if not isinstance(schema, dict):
        return None
    made = Rules(schema)
    made.own = tuple(
        _compile(one, f"{path}.x-kubernetes-validations[{i}]")
        for i, one in enumerate(schema.get("x-kubernetes-validations") or ())
    )
    for key, one in (schema.get("properties") or {}).items():
        if child := _collect(one, f"{path}.properties[{key}]"):
            made.properties[key] = child
    made.items = _collect(schema.get("items"), f"{path}.items")
    made.values = _collect(schema.get("additionalProperties"), f"{path}.additionalProperties")
    return made if made.own or made.properties or made.items or made.values else None


def _compile(one: JSON, path: str) -> Rule:
    text = str(one.get("rule") or "")
    if not text.strip() or len(text) > MOST_CHARACTERS:
        raise RuleError(f"{path}.rule: must be 1 to {MOST_CHARACTERS} characters")
    optional = bool(one.get("optionalOldSelf"))
    message = one.get("messageExpression")
    return Rule(
        _program(text, f"{path}.rule", optional),
        text,
        bool(OLD.search(text)),
        optional,
        str(one.get("message") or ""),
        _program(str(message), f"{path}.messageExpression", optional) if message else None,
        str(one.get("reason") or "FieldValueInvalid"),
        str(one.get("fieldPath") or ""),
    )


def _program(text: str, path: str, optional: bool) -> Any:
    text = cel_library.readable(text)
    names = ("self", "old__", "held__") if optional else ("self", "oldSelf")
    if optional:
        text = f"cel.bind(oldSelf, held__ ? optional.of(old__) : optional.none(), {text})"
    try:
        return cel_library.environment(*names).compile(text)
    except (RuntimeError, ValueError, TypeError) as error:
        raise RuleError(f"{path}: compilation failed: {str(error)[:300]}") from None


def _evaluate(expression: Any, data: JSON) -> tuple[Any, str]:
    """(value, "") or (None, what went wrong)."""
    try:
        result = expression.eval(data=data)
    except (RuntimeError, ValueError, TypeError, OverflowError) as error:
        return None, str(error)[:200]
    value = result.value()
    return (None, str(value)[:200]) if result.type().name() in ("ERROR", "UNKNOWN") else (value, "")


def _run(rule: Rule, new: Any, old: Any, raw: Any, at: str) -> list[Cause]:
    """What one rule says; `new` and `old` as rules see values, `raw` as the object has it."""
    if rule.transition and not rule.optional_old and old is None:
        return []
    data = (
        {"self": new, "old__": old, "held__": old is not None}
        if rule.optional_old
        else {"self": new, "oldSelf": old}
    )
    one_line = " ".join(rule.text.split())
    held, trouble = _evaluate(rule.expression, data)
    if held is True:
        return []
    if held is False:
        text = rule.message or f"failed rule: {one_line}"
        if rule.message_expression is not None:
            made, _ = _evaluate(rule.message_expression, data)
            if isinstance(made, str) and made.strip() and "\n" not in made:
                text = made
    else:
        text = f"rule evaluation error: {trouble or 'the rule is neither true nor false'}: {one_line}"
    where = at + (
        rule.field_path
        if rule.field_path.startswith((".", "["))
        else f".{rule.field_path}"
        if rule.field_path
        else ""
    )
    reason = rule.reason if rule.reason in REASONS else "FieldValueInvalid"
    said = {
        "FieldValueForbidden": f"Forbidden: {text}",
        "FieldValueRequired": f"Required value: {text}",
        "FieldValueDuplicate": f"Duplicate value: {shown(raw)}",
    }.get(reason, f"Invalid value: {shown(raw)}: {text}")
    return [Cause(where.lstrip(".") or "<nil>", said, reason)]


def _pairs(schema: JSON, new: list[Any], old: list[Any]) -> list[tuple[Any, Any]]:
    """Items with what they were: by keys in lists of type map, by value in sets, never in atomic lists."""
    keys = schema.get("x-kubernetes-list-map-keys") or ()
    if schema.get("x-kubernetes-list-type") == "map":
        was = {tuple(str(o.get(k)) for k in keys): o for o in old if isinstance(o, dict)}
        return [
            (n, was.get(tuple(str(n.get(k)) for k in keys)) if isinstance(n, dict) else None) for n in new
        ]
    return [(n, None) for n in new]


def escaped(name: str) -> str:
    """A property name as rules spell it."""
    if name in _RESERVED:
        return f"__{name}__"
    return (
        name.replace("__", "__underscores__")
        .replace(".", "__dot__")
        .replace("-", "__dash__")
        .replace("/", "__slash__")
    )


def view(schema: Any, value: Any) -> Any:
    """A value as rules see it: names escaped, numbers, times and durations of their declared type."""
    if not isinstance(schema, dict):
        return value
    if isinstance(value, dict):
        properties, more = schema.get("properties") or {}, schema.get("additionalProperties")
        return {
            escaped(k) if k in properties else k: view(properties.get(k, more), v)
            for k, v in value.items()
            if v is not None or (properties.get(k) or {}).get("nullable")
        }
    if isinstance(value, list):
        return [view(schema.get("items"), v) for v in value]
    kind, form = schema.get("type"), schema.get("format")
    if kind == "number" and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind == "integer" and isinstance(value, float):
        return int(value)
    if kind == "string" and isinstance(value, str) and form in _READ:
        try:
            return _READ[form](value)
        except (ValueError, OverflowError):
            return value
    return value


def _time(text: str) -> timestamp_pb2.Timestamp:
    found = timestamp_pb2.Timestamp()
    found.FromJsonString(text if len(text) > len("2026-01-31") else f"{text}T00:00:00Z")
    return found


def _duration(text: str) -> duration_pb2.Duration:
    found = duration_pb2.Duration()
    found.FromTimedelta(cel_library.duration(text))
    return found


# The evaluator knows times and durations as protobuf messages only.
_READ: dict[str, Callable[[str], Any]] = {
    "date-time": _time,
    "date": _time,
    "duration": _duration,
    "byte": base64.b64decode,
}
