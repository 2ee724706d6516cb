"""get and list."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from pervade.cluster.apiserver.kinds.kind import JSON, Kind
from pervade.cluster.apiserver.rest import present, selectors
from pervade.cluster.apiserver.rest.context import Api, Request
from pervade.cluster.apiserver.rest.status import StatusError, bad_request, not_found

_META_FIELDS = ("metadata.name", "metadata.namespace")
Predicate = Callable[[JSON], bool]


def get(api: Api, request: Request) -> bytes:
    """The stored bytes of one object (in the asked version)."""
    info, kind = request.info, request.kind
    entry = api.state.get(kind.table, info.namespace, info.name)
    if entry is None:
        raise not_found(kind, info.name)
    return in_version(entry.value, kind)


def in_version(value: bytes, kind: Kind) -> bytes:
    """`value` re-encoded only when the stored version is another one."""
    head = b'"apiVersion":"' + kind.api_version.encode() + b'"'
    if head in value[:200]:
        return value
    return msgspec.json.encode(present.decoded(value, kind))


def predicate(kind: Kind, query: Mapping[str, str]) -> Predicate | None:
    """Selection by `labelSelector` and `fieldSelector`; None = everything. 400 for selectors that are not valid."""
    tests: list[Predicate] = []
    try:
        if text := query.get("labelSelector"):
            by_labels = selectors.labels(text)
            tests.append(lambda obj: by_labels(obj["metadata"].get("labels")))
        if text := query.get("fieldSelector"):
            tests.append(selectors.fields(text, frozenset((*_META_FIELDS, *kind.fields))))
    except ValueError as error:
        raise bad_request(str(error)) from None
    if not tests:
        return None
    return lambda obj: all(test(obj) for test in tests)


class Page(msgspec.Struct):
    """One answer to a list: encoded items (decoded too when they had to be), version, token of the next page."""

    values: list[bytes]
    version: int
    token: str = ""
    remaining: int | None = None


def page(api: Api, request: Request) -> Page:
    """One page of a list; O(objects of the resource in the namespace)."""
    kind, query = request.kind, request.query
    asked = _version(api, query)
    chosen = predicate(kind, query)
    limit = _number(query.get("limit"), "limit")
    start: tuple[str, str] | None = None
    version = api.state.head
    if token := query.get("continue"):
        version, start = _read_token(token)
        if version < api.state.compacted:
            raise StatusError(410, "The provided continue parameter is too old; list again without it")
    del asked
    entries = api.state.all(kind.table, request.info.namespace or None)
    if start is not None:
        after = start
        entries = [e for e in entries if (e.namespace, e.name) > after]
    out: list[bytes] = []
    for i, entry in enumerate(entries):
        if chosen is not None and not chosen(present.decoded(entry.value, kind)):
            continue
        if limit and len(out) == limit:
            last = entries[i - 1]
            remaining = len(entries) - i if chosen is None else None
            return Page(out, version, _write_token(version, (last.namespace, last.name)), remaining)
        out.append(in_version(entry.value, kind))
    return Page(out, version)


def _version(api: Api, query: Mapping[str, str]) -> int:
    text, match = query.get("resourceVersion", ""), query.get("resourceVersionMatch", "")
    if match and match not in ("Exact", "NotOlderThan"):
        raise bad_request(f"resourceVersionMatch {match!r} is not supported")
    if match and not text:
        raise StatusError(422, "resourceVersionMatch is forbidden unless resourceVersion is provided")
    version = _number(text, "resourceVersion")
    if version > api.state.head:
        raise too_large(version, api.state.head)
    if match == "Exact" and version < api.state.compacted:
        raise StatusError(410, f"The resourceVersion for the provided list is too old: {version}")
    return version


def too_large(version: int, head: int) -> StatusError:
    """504 as upstream: the asked version has not happened yet."""
    text = f"Too large resource version: {version}, current: {head}"
    cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
    return StatusError(504, text, details={"causes": [cause], "retryAfterSeconds": 1})


def _number(text: str | None, name: str) -> int:
    if not text:
        return 0
    if not text.isdigit():
        raise bad_request(f"invalid {name}: {text!r} is not a number")
    return int(text)


def _write_token(version: int, last: tuple[str, str]) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode([version, *last])).decode().rstrip("=")


def _read_token(text: str) -> tuple[int, tuple[str, str]]:
    try:
        found: Any = msgspec.json.decode(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        version, namespace, name = found
        return int(version), (str(namespace), str(name))
    except (ValueError, TypeError, msgspec.DecodeError):
        raise bad_request("continue key is not valid: it is not a token of this server") from None


def list_body(kind: Kind, found: Page) -> bytes:
    """A list spliced together from encoded items; O(bytes)."""
    shell = present.listing(kind, [], str(found.version), token=found.token, remaining=found.remaining)
    head = msgspec.json.encode({k: v for k, v in shell.items() if k != "items"})
    return head[:-1] + b',"items":[' + b",".join(found.values) + b"]}"
