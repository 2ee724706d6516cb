"""Whether a version of a definition can be served: its schema is structural, its rules, columns and paths make sense.

Source: Kubernetes, "Extend the Kubernetes API with CustomResourceDefinitions" (structural schemas) and "Validation
rules". Pure, O(schema).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pervade.cluster.apiserver.kinds.kind import JSON, Cause
from pervade.cluster.apiserver.schema import jsonpath
from pervade.cluster.apiserver.schema.rules import OLD, REASONS, RuleError
from pervade.cluster.apiserver.schema.structural import Structural, compiled
from pervade.cluster.apiserver.schema.values import Values

_REQUIRED, _FORBIDDEN, _UNSUPPORTED = "FieldValueRequired", "FieldValueForbidden", "FieldValueNotSupported"
_TYPES = ("array", "boolean", "integer", "number", "object", "string")
_SCALARS = ("boolean", "integer", "number", "string")
# Inside logic nothing may be said that would give a field its form.
_FORM = ("type", "title", "description", "default", "additionalProperties", "nullable")
_NEVER = ("$ref", "definitions", "dependencies", "patternProperties", "additionalItems", "id")
_COLUMNS = ("integer", "number", "string", "boolean", "date")
_LISTS = {"x-kubernetes-list-type": ("atomic", "set", "map"), "x-kubernetes-map-type": ("atomic", "granular")}
_DEEPEST = 100


def compile_version(_definition: JSON, version: JSON) -> Structural | None:
    """The compiled schema of one version of a definition; None when it has none."""
    schema = (version.get("schema") or {}).get("openAPIV3Schema")
    return compiled(schema) if schema is not None else None


def check(version: JSON, at: str) -> list[Cause]:
    """What is wrong with a version; `at` is the path of its schema."""
    schema = (version.get("schema") or {}).get("openAPIV3Schema")
    base = at.removesuffix(".schema.openAPIV3Schema")
    causes = [*_root(schema, at), *_structural(schema, at, 0, True)] if schema is not None else []
    causes += _columns(version, base)
    if causes or schema is None:
        return causes
    causes += [*_scale(version, base), *_selectable(version, schema, base)]
    try:
        compiled(schema)
    except RuleError as error:
        where, _, text = str(error).partition(": ")
        causes.append(Cause(f"{base}.schema.{where}", f"Invalid value: {text}"))
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        causes.append(Cause(at, f"Invalid value: the schema cannot be used: {str(error)[:300]}"))
    return causes or _defaults(schema, at)


def _forbidden(path: str, text: str) -> Cause:
    return Cause(path, f"Forbidden: {text}", _FORBIDDEN)


def _required(path: str, text: str) -> Cause:
    return Cause(path, f"Required value: {text}", _REQUIRED)


def _unsupported(path: str, value: Any, allowed: tuple[str, ...]) -> Cause:
    listed = ", ".join(f'"{one}"' for one in sorted(allowed))
    return Cause(path, f'Unsupported value: "{value}": supported values: {listed}', _UNSUPPORTED)


def _root(schema: Any, at: str) -> Iterator[Cause]:
    if not isinstance(schema, dict):
        return
    if schema.get("type") != "object":
        yield Cause(f"{at}.type", f'Invalid value: "{schema.get("type") or ""}": must be object at the root')
    for word in ("nullable", "x-kubernetes-embedded-resource"):
        if schema.get(word):
            yield _forbidden(f"{at}.{word}", f"{word} cannot be true at the root")
    properties = schema.get("properties")
    meta = properties.get("metadata") if isinstance(properties, dict) else None
    if isinstance(meta, dict) and set(meta.get("properties") or ()) - {"name", "generateName"}:
        text = (
            "must not specify anything other than name and generateName, but metadata is implicitly specified"
        )
        yield _forbidden(f"{at}.properties[metadata]", text)


def _inner(schema: JSON, at: str) -> Iterator[tuple[str, Any, str]]:
    """The schemas right below one: path, schema, and the word that holds it."""
    for key, one in (schema.get("properties") or {}).items():
        yield f"{at}.properties[{key}]", one, "properties"
    for word in ("items", "additionalProperties"):
        if isinstance(schema.get(word), dict):
            yield f"{at}.{word}", schema[word], word


def _structural(schema: Any, at: str, deep: int, comparable: bool) -> Iterator[Cause]:
    """`comparable`: values here have a counterpart in the object before, so that rules may ask for it."""
    if not isinstance(schema, dict) or deep > _DEEPEST:
        yield Cause(at, f"Invalid value: must be an object, at most {_DEEPEST} deep")
        return
    yield from _type(schema, at)
    yield from _extensions(schema, at)
    yield from _list(schema, at)
    for word in _NEVER:
        if schema.get(word):
            yield _forbidden(f"{at}.{word}", f"{word} is not supported")
    if schema.get("properties") and schema.get("additionalProperties"):
        text = "additionalProperties and properties are mutual exclusive"
        yield _forbidden(f"{at}.additionalProperties", text)
    if schema.get("additionalProperties") is False:
        yield _forbidden(f"{at}.additionalProperties", "additionalProperties cannot be set to false")
    if schema.get("uniqueItems"):
        text = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic"
        yield _forbidden(f"{at}.uniqueItems", text)
    for word in ("allOf", "anyOf", "oneOf"):
        for i, one in enumerate(schema.get(word) or ()):
            if not schema.get("x-kubernetes-int-or-string"):
                yield from _logic(one, f"{at}.{word}[{i}]", schema, at, deep)
    if "not" in schema:
        yield from _logic(schema["not"], f"{at}.not", schema, at, deep)
    yield from _rules(schema, at, comparable)
    for path, one, word in _inner(schema, at):
        keyed = word != "items" or schema.get("x-kubernetes-list-type") == "map"
        yield from _structural(one, path, deep + 1, comparable and keyed)


def _type(schema: JSON, at: str) -> Iterator[Cause]:
    kind, either = schema.get("type"), schema.get("x-kubernetes-int-or-string")
    if either and kind:
        yield _forbidden(f"{at}.type", "must be empty if x-kubernetes-int-or-string is true")
    elif not kind and not either and not schema.get("x-kubernetes-preserve-unknown-fields"):
        yield _required(f"{at}.type", "must not be empty for specified object fields")
    elif kind and kind not in _TYPES:
        yield _unsupported(f"{at}.type", kind, _TYPES)
    if kind == "array" and not isinstance(schema.get("items"), dict):
        yield _required(f"{at}.items", "must be specified")
    if kind != "array" and isinstance(schema.get("items"), list):
        yield _forbidden(f"{at}.items", "items must be a schema object and not an array")


def _extensions(schema: JSON, at: str) -> Iterator[Cause]:
    kind = schema.get("type")
    if schema.get("x-kubernetes-preserve-unknown-fields") is False:
        yield Cause(
            f"{at}.x-kubernetes-preserve-unknown-fields", "Invalid value: false: must be true or undefined"
        )
    if schema.get("x-kubernetes-embedded-resource"):
        if kind != "object":
            text = f'Invalid value: "{kind}": must be object if x-kubernetes-embedded-resource is true'
            yield Cause(f"{at}.type", text)
        if not schema.get("properties") and not schema.get("x-kubernetes-preserve-unknown-fields"):
            text = "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields"
            yield _required(f"{at}.properties", text)
    for word, allowed in _LISTS.items():
        value = schema.get(word)
        if value is None:
            continue
        if value not in allowed:
            yield _unsupported(f"{at}.{word}", value, allowed)
        wanted = "array" if word == "x-kubernetes-list-type" else "object"
        if kind != wanted:
            yield Cause(
                f"{at}.type", f'Invalid value: "{kind or ""}": must be {wanted} if {word} is specified'
            )


def _list(schema: JSON, at: str) -> Iterator[Cause]:
    sort, keys = schema.get("x-kubernetes-list-type"), schema.get("x-kubernetes-list-map-keys") or ()
    items = schema.get("items")
    if keys and sort != "map":
        text = f"must be map if x-kubernetes-list-map-keys is non-empty, not {sort!r}"
        yield Cause(f"{at}.x-kubernetes-list-type", f"Invalid value: {text}")
    if sort == "set" and isinstance(items, dict) and items.get("nullable"):
        yield _forbidden(f"{at}.items.nullable", "cannot be nullable when x-kubernetes-list-type is set")
    if sort != "map":
        return
    if not keys:
        text = "must not be empty if x-kubernetes-list-type is map"
        yield _required(f"{at}.x-kubernetes-list-map-keys", text)
    if not isinstance(items, dict):
        return
    if items.get("type") != "object":
        text = f'Invalid value: "{items.get("type") or ""}": must be object if parent array\'s x-kubernetes-list-type is map'
        yield Cause(f"{at}.items.type", text)
    for i, key in enumerate(keys):
        one = (items.get("properties") or {}).get(key)
        if not isinstance(one, dict):
            text = f'Invalid value: "{key}": must be the name of a property in items'
            yield Cause(f"{at}.x-kubernetes-list-map-keys[{i}]", text)
            continue
        if one.get("type") not in _SCALARS and not one.get("x-kubernetes-int-or-string"):
            text = f'Invalid value: "{one.get("type")}": must be a scalar type if parent array\'s x-kubernetes-list-type is map'
            yield Cause(f"{at}.items.properties[{key}].type", text)
        if one.get("nullable"):
            text = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable"
            yield _forbidden(f"{at}.items.properties[{key}].nullable", text)
        if "default" not in one and key not in (items.get("required") or ()):
            text = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property"
            yield _required(f"{at}.items.properties[{key}].default", text)


def _logic(schema: Any, at: str, form: Any, root: str, deep: int) -> Iterator[Cause]:
    """`form` is the structural schema that says what the fields named in the logic are."""
    if not isinstance(schema, dict) or deep > _DEEPEST:
        yield Cause(at, f"Invalid value: must be an object, at most {_DEEPEST} deep")
        return
    words = [word for word in _FORM if word in schema]
    words += [
        word for word in schema if word.startswith("x-kubernetes-") and word != "x-kubernetes-validations"
    ]
    for word in words:
        if schema[word] not in (False, ""):
            yield _forbidden(f"{at}.{word}", "must be empty to be structural")
    known = (form.get("properties") or {}) if isinstance(form, dict) else {}
    for key, one in (schema.get("properties") or {}).items():
        if key not in known:
            if isinstance(form, dict) and form.get("x-kubernetes-preserve-unknown-fields"):
                continue
            yield _required(f"{root}.properties[{key}]", f"because it is defined in {at}.properties[{key}]")
        else:
            yield from _logic(
                one, f"{at}.properties[{key}]", known[key], f"{root}.properties[{key}]", deep + 1
            )
    if isinstance(schema.get("items"), dict):
        inner = form.get("items") if isinstance(form, dict) else None
        yield from _logic(schema["items"], f"{at}.items", inner, f"{root}.items", deep + 1)
    for word in ("allOf", "anyOf", "oneOf"):
        for i, one in enumerate(schema.get(word) or ()):
            yield from _logic(one, f"{at}.{word}[{i}]", form, root, deep + 1)
    if "not" in schema:
        yield from _logic(schema["not"], f"{at}.not", form, root, deep + 1)


def _rules(schema: JSON, at: str, comparable: bool) -> Iterator[Cause]:
    for i, rule in enumerate(schema.get("x-kubernetes-validations") or ()):
        path = f"{at}.x-kubernetes-validations[{i}]"
        if not isinstance(rule, dict):
            yield Cause(path, "Invalid value: must be an object")
            continue
        text, message = str(rule.get("rule") or ""), str(rule.get("message") or "")
        if not text.strip():
            yield _required(f"{path}.rule", "rule is not specified")
        if "\n" in message:
            yield Cause(f"{path}.message", "Invalid value: message must not contain line breaks")
        elif "message" in rule and not message.strip():
            yield Cause(f"{path}.message", 'Invalid value: "": message must be non-empty if specified')
        elif "\n" in text.strip() and not message and not rule.get("messageExpression"):
            yield _required(f"{path}.message", "message must be specified if rule contains line breaks")
        if rule.get("reason") and rule["reason"] not in REASONS:
            yield _unsupported(f"{path}.reason", rule["reason"], tuple(REASONS))
        if rule.get("fieldPath") and not _exists(schema, str(rule["fieldPath"])):
            text = f"Invalid value: {rule['fieldPath']!r}: fieldPath must be a valid path to a field of this schema"
            yield Cause(f"{path}.fieldPath", text)
        if not comparable and OLD.search(text):
            text = "oldSelf cannot be used on the uncorrelatable portion of the schema within a list that is no map"
            yield Cause(f"{path}.rule", f"Invalid value: {text}")
        if "optionalOldSelf" in rule and not OLD.search(text):
            yield Cause(
                f"{path}.optionalOldSelf", "Invalid value: may not be set if oldSelf is not used in rule"
            )


def _exists(schema: Any, path: str) -> bool:
    """Whether a fieldPath (`.a.b`, `['x']`) names fields of a schema."""
    for name in jsonpath.names(path) or [""]:
        if not isinstance(schema, dict):
            return False
        properties = schema.get("properties") or {}
        more = schema.get("additionalProperties")
        if name not in properties and not isinstance(more, dict):
            return False
        schema = properties.get(name, more)
    return True


def _columns(version: JSON, base: str) -> Iterator[Cause]:
    for i, column in enumerate(version.get("additionalPrinterColumns") or ()):
        path = f"{base}.additionalPrinterColumns[{i}]"
        if not column.get("name"):
            yield Cause(f"{path}.name", "Required value", _REQUIRED)
        if column.get("type") not in _COLUMNS:
            yield _unsupported(f"{path}.type", column.get("type") or "", _COLUMNS)
        text = str(column.get("jsonPath") or "")
        if not text:
            yield Cause(f"{path}.jsonPath", "Required value", _REQUIRED)
            continue
        try:
            if not text.startswith("."):
                raise ValueError("must start with '.'")
            jsonpath.select(text)
        except ValueError as error:
            yield Cause(f"{path}.jsonPath", f'Invalid value: "{text}": {error}')


def _scale(version: JSON, base: str) -> Iterator[Cause]:
    scale = (version.get("subresources") or {}).get("scale")
    if scale is None:
        return
    for field, starts in (
        ("specReplicasPath", (".spec.",)),
        ("statusReplicasPath", (".status.",)),
        ("labelSelectorPath", (".spec.", ".status.")),
    ):
        path, text = f"{base}.subresources.scale.{field}", str(scale.get(field) or "")
        if not text and field != "labelSelectorPath":
            yield Cause(path, "Required value", _REQUIRED)
        elif text and (not text.startswith(starts) or "[" in text):
            wanted = " or ".join(starts)
            yield Cause(
                path, f'Invalid value: "{text}": should be a json path under {wanted} without array notation'
            )


def _selectable(version: JSON, schema: JSON, base: str) -> Iterator[Cause]:
    fields = version.get("selectableFields") or ()
    if len(fields) > 8:
        text = f"Too many: {len(fields)}: must have at most 8 items"
        yield Cause(f"{base}.selectableFields", text, "FieldValueTooMany")
    seen: set[str] = set()
    for i, one in enumerate(fields):
        path, text = f"{base}.selectableFields[{i}].jsonPath", str(one.get("jsonPath") or "")
        at: Any = schema
        for name in (jsonpath.names(text) if text.startswith(".") else None) or [""]:
            at = (at.get("properties") or {}).get(name) if isinstance(at, dict) else None
        if not isinstance(at, dict) or at.get("type") not in ("boolean", "integer", "string"):
            said = "must point to a field of type string, integer or boolean that is no list and no map"
            yield Cause(path, f'Invalid value: "{text}": {said}')
        elif text.startswith(".metadata"):
            yield Cause(path, f'Invalid value: "{text}": must not point to fields in metadata')
        elif text in seen:
            yield Cause(path, f'Duplicate value: "{text}"', "FieldValueDuplicate")
        seen.add(text)


def _defaults(schema: JSON, at: str) -> list[Cause]:
    """Defaults must be valid themselves, and hold nothing the schema does not know."""
    causes = []
    for path, one in _defaulted(schema, at):
        if one["default"] is None:
            if not one.get("nullable"):
                causes.append(Cause(f"{path}.default", "Invalid value: null: must not be null"))
            continue
        causes += [
            Cause(f"{path}.default", cause.message, cause.reason)
            for cause in Values(one).causes(one["default"], None)
        ]
    return causes


def _defaulted(schema: Any, at: str) -> Iterator[tuple[str, JSON]]:
    if not isinstance(schema, dict):
        return
    if "default" in schema:
        yield at, schema
    for path, one, _ in _inner(schema, at):
        yield from _defaulted(one, path)
