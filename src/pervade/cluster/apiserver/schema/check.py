"""Whether a definition's schema is structural, and the compiled form of one that is."""

from __future__ import annotations

from typing import Any

from pervade.cluster.apiserver.kinds.kind import JSON, Cause
from pervade.cluster.apiserver.schema import jsonpath
from pervade.cluster.apiserver.schema.rules import RuleError
from pervade.cluster.apiserver.schema.structural import Structural

_REQUIRED, _FORBIDDEN = "FieldValueRequired", "FieldValueForbidden"
_TYPES = ("array", "boolean", "integer", "number", "object", "string")
# Inside logic nothing may be said that would give a field its form.
_FORM = (
    "type",
    "title",
    "description",
    "default",
    "additionalProperties",
    "nullable",
    "x-kubernetes-preserve-unknown-fields",
)
_DEEPEST = 100


def compile_version(_definition: JSON, version: JSON) -> Structural | None:
    """The compiled schema of one version of a definition; None when it has none."""
    schema = (version.get("schema") or {}).get("openAPIV3Schema")
    return Structural(schema) if schema is not None else None


def check(version: JSON, at: str) -> list[Cause]:
    """What is wrong with a version's schema and columns; `at` is the schema's path. O(schema)."""
    schema = (version.get("schema") or {}).get("openAPIV3Schema")
    causes: list[Cause] = []
    if schema is not None:
        if schema.get("type") != "object":
            said = schema.get("type")
            causes.append(Cause(f"{at}.type", f'Invalid value: "{said or ""}": must be object at the root'))
        _structural(schema, at, causes, 0)
    base = at.removesuffix(".schema.openAPIV3Schema")
    for i, column in enumerate(version.get("additionalPrinterColumns") or ()):
        try:
            jsonpath.select(str(column.get("jsonPath") or ""))
        except ValueError as error:
            text = f"Invalid value: {str(column.get('jsonPath'))!r}: {error}"
            causes.append(Cause(f"{base}.additionalPrinterColumns[{i}].jsonPath", text))
    if causes or schema is None:
        return causes
    try:
        made = Structural(schema)
    except RuleError as error:
        where, _, text = str(error).partition(": ")
        return [Cause(f"{base}.schema.{where}", f"Invalid value: {text}")]
    except (ValueError, TypeError, KeyError) as error:
        return [Cause(at, f"Invalid value: the schema cannot be used: {str(error)[:300]}")]
    return _defaults(made, schema, at)


def _structural(schema: Any, at: str, causes: list[Cause], depth: int) -> None:
    if not isinstance(schema, dict) or depth > _DEEPEST:
        causes.append(Cause(at, f"Invalid value: must be an object, at most {_DEEPEST} deep"))
        return
    free = schema.get("x-kubernetes-int-or-string") or schema.get("x-kubernetes-preserve-unknown-fields")
    kind = schema.get("type")
    if not kind and not free:
        causes.append(
            Cause(f"{at}.type", "Required value: must not be empty for specified object fields", _REQUIRED)
        )
    elif kind and kind not in _TYPES:
        listed = ", ".join(f'"{t}"' for t in _TYPES)
        causes.append(
            Cause(
                f"{at}.type",
                f'Unsupported value: "{kind}": supported values: {listed}',
                "FieldValueNotSupported",
            )
        )
    if schema.get("properties") and schema.get("additionalProperties"):
        causes.append(
            Cause(
                f"{at}.additionalProperties",
                "Forbidden: additionalProperties and properties are mutual exclusive",
                _FORBIDDEN,
            )
        )
    if schema.get("uniqueItems"):
        causes.append(
            Cause(
                f"{at}.uniqueItems",
                "Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
                _FORBIDDEN,
            )
        )
    if kind == "array" and not isinstance(schema.get("items"), dict):
        causes.append(Cause(f"{at}.items", "Required value: must be specified", _REQUIRED))
    if schema.get("x-kubernetes-list-type") == "map" and not schema.get("x-kubernetes-list-map-keys"):
        causes.append(
            Cause(
                f"{at}.x-kubernetes-list-map-keys",
                "Required value: must not be empty if x-kubernetes-list-type is map",
                _REQUIRED,
            )
        )
    for word in ("allOf", "anyOf", "oneOf"):
        for i, one in enumerate(schema.get(word) or ()):
            if not schema.get("x-kubernetes-int-or-string"):
                _logic(one, f"{at}.{word}[{i}]", causes)
    if "not" in schema:
        _logic(schema["not"], f"{at}.not", causes)
    for key, one in (schema.get("properties") or {}).items():
        _structural(one, f"{at}.properties[{key}]", causes, depth + 1)
    if isinstance(schema.get("items"), dict):
        _structural(schema["items"], f"{at}.items", causes, depth + 1)
    if isinstance(schema.get("additionalProperties"), dict):
        _structural(schema["additionalProperties"], f"{at}.additionalProperties", causes, depth + 1)


def _logic(schema: Any, at: str, causes: list[Cause]) -> None:
    if not isinstance(schema, dict):
        causes.append(Cause(at, "Invalid value: must be an object"))
        return
    for word in _FORM:
        if word in schema:
            causes.append(Cause(f"{at}.{word}", "Forbidden: must be empty to be structural", _FORBIDDEN))
    for key, one in (schema.get("properties") or {}).items():
        _logic(one, f"{at}.properties[{key}]", causes)
    if isinstance(schema.get("items"), dict):
        _logic(schema["items"], f"{at}.items", causes)


def _defaults(made: Structural, schema: JSON, at: str) -> list[Cause]:
    """Defaults must be valid themselves."""
    causes = []
    for path, one in _defaulted(schema, at):
        for cause in Structural({**one, "x-kubernetes-validations": []}).causes(one["default"], None):
            causes.append(Cause(f"{path}.default", cause.message, cause.reason))
    return causes


def _defaulted(schema: Any, at: str) -> list[tuple[str, JSON]]:
    if not isinstance(schema, dict):
        return []
    out = [(at, schema)] if "default" in schema else []
    for key, one in (schema.get("properties") or {}).items():
        out += _defaulted(one, f"{at}.properties[{key}]")
    return (
        out
        + _defaulted(schema.get("items"), f"{at}.items")
        + _defaulted(schema.get("additionalProperties"), f"{at}.additionalProperties")
    )
