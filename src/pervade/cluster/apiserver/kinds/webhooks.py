"""Webhook configurations: their defaults, and what is wrong with one. Pure.

Source: Kubernetes, "Dynamic Admission Control"; API admissionregistration.k8s.io/v1.
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Iterator
from typing import Any

from pervade.cluster.apiserver.kinds.kind import JSON, Cause, Strategy
from pervade.cluster.apiserver.schema import cel_library

VARIABLES = ("object", "oldObject", "request")
"""What matchConditions may speak of."""
_REQUIRED, _UNSUPPORTED, _DUPLICATE = "FieldValueRequired", "FieldValueNotSupported", "FieldValueDuplicate"
_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_NAME = re.compile(rf"{_LABEL}(\.{_LABEL}){{2,}}")
_QUALIFIED = re.compile(rf"({_LABEL}(\.{_LABEL})*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{{0,61}}[A-Za-z0-9])?")
_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_CHOICES = {
    "failurePolicy": ("Fail", "Ignore"),
    "matchPolicy": ("Equivalent", "Exact"),
    "reinvocationPolicy": ("IfNeeded", "Never"),
    "sideEffects": ("None", "NoneOnDryRun"),
}
_OPERATIONS = ("*", "CONNECT", "CREATE", "DELETE", "UPDATE")
_SCOPES = ("*", "Cluster", "Namespaced")
_OPERATORS = ("DoesNotExist", "Exists", "In", "NotIn")
_MOST_CONDITIONS = 64


def default(new: JSON) -> None:
    """Policies, selectors, time-out, scope and port as the API defines them."""
    for hook in new.get("webhooks") or ():
        hook.setdefault("failurePolicy", "Fail")
        hook.setdefault("matchPolicy", "Equivalent")
        hook.setdefault("namespaceSelector", {})
        hook.setdefault("objectSelector", {})
        hook.setdefault("timeoutSeconds", 10)
        if new["kind"].startswith("Mutating"):
            hook.setdefault("reinvocationPolicy", "Never")
        for rule in hook.get("rules") or ():
            rule.setdefault("scope", "*")
        service = (hook.get("clientConfig") or {}).get("service")
        if service is not None:
            service.setdefault("port", 443)


def validate(new: JSON, _old: JSON | None) -> list[Cause]:
    """What is wrong with a configuration."""
    causes: list[Cause] = []
    seen: set[str] = set()
    for i, hook in enumerate(new.get("webhooks") or ()):
        at, name = f"webhooks[{i}]", str(hook.get("name") or "")
        if name in seen:
            causes.append(Cause(f"{at}.name", f'Duplicate value: "{name}"', _DUPLICATE))
        seen.add(name)
        causes += [Cause(f"{at}.{c.field}", c.message, c.reason) for c in _hook(hook, name)]
    return causes


STRATEGY = Strategy(default=default, validate=validate)


def _required(path: str, text: str = "") -> Cause:
    return Cause(path, f"Required value: {text}" if text else "Required value", _REQUIRED)


def _unsupported(path: str, value: Any, allowed: tuple[str, ...]) -> Cause:
    listed = ", ".join(f'"{one}"' for one in allowed)
    return Cause(path, f'Unsupported value: "{value}": supported values: {listed}', _UNSUPPORTED)


def _hook(hook: JSON, name: str) -> Iterator[Cause]:
    if not _NAME.fullmatch(name):
        text = f'Invalid value: "{name}": should be a domain with at least three segments separated by dots'
        yield Cause("name", text)
    reviews = hook.get("admissionReviewVersions") or []
    if not reviews:
        yield _required("admissionReviewVersions", "must specify at least one of v1")
    elif "v1" not in reviews:
        yield Cause("admissionReviewVersions", f"Invalid value: {reviews}: must include at least one of v1")
    if not hook.get("sideEffects"):
        yield _required("sideEffects", "must specify one of None, NoneOnDryRun")
    for field, allowed in _CHOICES.items():
        if hook.get(field) and hook[field] not in allowed:
            yield _unsupported(field, hook[field], allowed)
    seconds = hook.get("timeoutSeconds")
    if isinstance(seconds, int) and not 1 <= seconds <= 30:
        text = f"Invalid value: {seconds}: the timeout value must be between 1 and 30 seconds"
        yield Cause("timeoutSeconds", text)
    yield from _client(hook.get("clientConfig") or {})
    for i, rule in enumerate(hook.get("rules") or ()):
        yield from _rule(rule, f"rules[{i}]")
    for field in ("namespaceSelector", "objectSelector"):
        yield from _selector(hook.get(field) or {}, field)
    yield from _conditions(hook.get("matchConditions") or [])


def _client(client: JSON) -> Iterator[Cause]:
    url, service = client.get("url"), client.get("service")
    if (url is None) == (service is None):
        yield _required("clientConfig", "exactly one of url or service is required")
    if url is not None:
        yield from _url(str(url))
    if service is not None:
        for field in ("name", "namespace"):
            if not service.get(field):
                yield _required(f"clientConfig.service.{field}")
        path, port = service.get("path"), service.get("port")
        if path is not None and (not path.startswith("/") or "//" in path or path.split("?")[0] != path):
            text = f"Invalid value: \"{path}\": must start with a '/' and hold no empty segment and no query"
            yield Cause("clientConfig.service.path", text)
        if isinstance(port, int) and not 0 < port < 65536:
            text = f"Invalid value: {port}: port is not valid: must be between 1 and 65535, inclusive"
            yield Cause("clientConfig.service.port", text)


def _url(url: str) -> Iterator[Cause]:
    path = "clientConfig.url"
    try:
        found = urllib.parse.urlsplit(url)
        host = found.hostname
        _ = found.port
    except ValueError as error:
        yield _required(path, f"url must be a valid URL: {error}; desired format: https://host[/path]")
        return
    form = "desired format: https://host[/path]"
    if found.scheme != "https":
        text = f"Invalid value: \"{found.scheme}\": 'https' is the only allowed URL scheme; {form}"
        yield Cause(path, text)
    if not host:
        yield Cause(path, f'Invalid value: "{host or ""}": host must be specified; {form}')
    for held, what in ((found.username, "user information"), (found.fragment, "fragments"), (found.query, "query parameters")):  # fmt: skip
        if held:
            yield Cause(path, f'Invalid value: "{held}": {what} are not permitted in the URL')


def _rule(rule: JSON, at: str) -> Iterator[Cause]:
    for field in ("operations", "apiGroups", "apiVersions", "resources"):
        values = rule.get(field) or []
        if not values:
            yield _required(f"{at}.{field}")
        elif "*" in values and len(values) > 1 and field != "resources":
            yield Cause(
                f"{at}.{field}", f"Invalid value: {values}: if '*' is present, must not specify others"
            )
    for i, one in enumerate(rule.get("operations") or ()):
        if one not in _OPERATIONS:
            yield _unsupported(f"{at}.operations[{i}]", one, _OPERATIONS)
    for i, one in enumerate(rule.get("resources") or ()):
        if not one:
            yield _required(f"{at}.resources[{i}]")
    if rule.get("scope") and rule["scope"] not in _SCOPES:
        yield _unsupported(f"{at}.scope", rule["scope"], _SCOPES)


def _selector(selector: JSON, at: str) -> Iterator[Cause]:
    labels = selector.get("matchLabels") or {}
    rows = [("matchLabels", key, [value], "In") for key, value in labels.items()]
    for i, one in enumerate(selector.get("matchExpressions") or ()):
        rows.append(
            (f"matchExpressions[{i}]", one.get("key") or "", one.get("values") or [], one.get("operator"))
        )
    for path, key, values, operator in rows:
        if operator not in _OPERATORS:
            yield _unsupported(f"{at}.{path}.operator", operator or "", _OPERATORS)
        elif (operator in ("In", "NotIn")) != bool(values):
            text = "must be specified when `operator` is 'In' or 'NotIn', and only then"
            yield _required(f"{at}.{path}.values", text)
        if not _QUALIFIED.fullmatch(key):
            yield Cause(f"{at}.{path}", f'Invalid value: "{key}": is no label key')
        for value in values:
            if not _VALUE.fullmatch(str(value)):
                yield Cause(f"{at}.{path}", f'Invalid value: "{value}": is no label value')


def _conditions(conditions: list[JSON]) -> Iterator[Cause]:
    if len(conditions) > _MOST_CONDITIONS:
        text = f"Too many: {len(conditions)}: must have at most {_MOST_CONDITIONS} items"
        yield Cause("matchConditions", text, "FieldValueTooMany")
        return
    seen: set[str] = set()
    for i, one in enumerate(conditions):
        at, name, expression = (
            f"matchConditions[{i}]",
            str(one.get("name") or ""),
            str(one.get("expression") or ""),
        )
        if not _QUALIFIED.fullmatch(name):
            yield Cause(f"{at}.name", f'Invalid value: "{name}": must be a qualified name')
        if name in seen:
            yield Cause(f"{at}.name", f'Duplicate value: "{name}"', _DUPLICATE)
        seen.add(name)
        if not expression.strip():
            yield _required(f"{at}.expression")
            continue
        try:
            cel_library.environment(*VARIABLES).compile(cel_library.readable(expression))
        except (RuntimeError, ValueError, TypeError) as error:
            text = f"compilation failed: {str(error)[:300]}"
            yield Cause(f"{at}.expression", f"Invalid value: {expression[:100]!r}: {text}")
