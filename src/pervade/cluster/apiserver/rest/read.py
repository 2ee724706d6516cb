"""get and list."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from pervade.cluster.apiserver.kinds.kind import JSON, Kind
from pervade.cluster.apiserver.rest import present, selectors
from pervade.cluster.apiserver.rest.context import Api, Request
from pervade.cluster.apiserver.rest.present import in_version
from pervade.cluster.apiserver.rest.status import StatusError, bad_request, not_found
from pervade.cluster.apiserver.store.log import Entry
from pervade.cluster.apiserver.store.state import Gone

_META_FIELDS = ("metadata.name", "metadata.namespace")
Predicate = Callable[[JSON], bool]


class _Labels(msgspec.Struct, gc=False):
    labels: dict[str, str] | None = None


class _Labelled(msgspec.Struct, gc=False):
    metadata: _Labels


_labels_of = msgspec.json.Decoder(_Labelled).decode


def get(api: Api, request: Request) -> bytes:
    """The stored bytes of one object (in the asked version)."""
    info, kind = request.info, request.kind
    text = request.query.get("resourceVersion", "")
    _number(text, "resourceVersion")
    if text and int(text) > api.state.head:
        raise too_large(int(text), api.state.head)
    entry = api.state.get(kind.table, info.namespace, info.name)
    if entry is None:
        raise not_found(kind, info.name)
    return in_version(entry.value, kind)


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
    return tests[0] if len(tests) == 1 else lambda obj: all(test(obj) for test in tests)


def _choice(kind: Kind, query: Mapping[str, str]) -> Callable[[Entry], bool] | None:
    """`predicate` over stored entries, decoding no more than it needs."""
    chosen = predicate(kind, query)
    if chosen is None:
        return None
    fields = query.get("fieldSelector")
    if not fields:
        by_labels = selectors.labels(query["labelSelector"])
        return lambda entry: by_labels(_labels_of(entry.value).metadata.labels)
    conditions = selectors.parse_fields(fields)
    if not query.get("labelSelector") and all(path in _META_FIELDS for path, _v, _e in conditions):

        def by_key(entry: Entry) -> bool:
            key = {"metadata.name": entry.name, "metadata.namespace": entry.namespace}
            return all((key[path] == value) is equal for path, value, equal in conditions)

        return by_key
    return lambda entry: chosen(present.decoded(entry.value, kind))


class Page(msgspec.Struct):
    """One answer to a list: encoded items, version, token of the next page."""

    values: list[bytes]
    version: int
    token: str = ""
    remaining: int | None = None


async def page(api: Api, request: Request) -> Page:
    """One page of a list, from the state at one version; O(objects of the resource in the namespace).

    Versions and tokens: Kubernetes API concepts, "Resource versions" and "Retrieving large results sets in chunks".
    """
    kind, query, state = request.kind, request.query, api.state
    version, exact = _version(api, query)
    choose = _choice(kind, query)
    limit = _number(query.get("limit"), "limit")
    after = ("", "")
    if token := query.get("continue"):
        if query.get("resourceVersion") not in (None, "", "0"):
            raise bad_request("specifying resource version is not allowed when using continue")
        version, after = _read_token(token)
        exact = version > 0
        version = version or state.head
    namespace = request.info.namespace or None
    if not exact:
        version = state.head
    try:
        entries = await state.list_at(kind.table, version, namespace, after=after)
    except Gone as gone:
        raise _expired(gone, after, bool(token)) from None
    chosen = entries if choose is None else [e for e in entries if choose(e)]
    if not limit or len(chosen) <= limit:
        return Page([in_version(e.value, kind) for e in chosen], version)
    shown, last = chosen[:limit], chosen[limit - 1]
    remaining = len(chosen) - limit if choose is None else None
    values = [in_version(e.value, kind) for e in shown]
    return Page(values, version, _write_token(version, (last.namespace, last.name)), remaining)


def _version(api: Api, query: Mapping[str, str]) -> tuple[int, bool]:
    """The version asked for, and whether exactly that one is."""
    text, match = query.get("resourceVersion", ""), query.get("resourceVersionMatch", "")
    if match and match not in ("Exact", "NotOlderThan"):
        raise _invalid_options(
            f'resourceVersionMatch: Unsupported value: "{match}": supported values: "Exact", "NotOlderThan"'
        )
    if match and not text:
        raise _invalid_options(
            "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided"
        )
    if match and query.get("continue"):
        raise _invalid_options(
            "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden when continue is provided"
        )
    if "sendInitialEvents" in query:
        raise _invalid_options("sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list")
    version = _number(text, "resourceVersion")
    if match == "Exact" and not version:
        raise _invalid_options(
            'resourceVersionMatch: Forbidden: resourceVersionMatch "Exact" is forbidden for resourceVersion "0"'
        )
    if version > api.state.head:
        raise too_large(version, api.state.head)
    # A version with a limit and no match means exactly that version, as upstream.
    legacy = bool(version and not match and _number(query.get("limit"), "limit"))
    return version, match == "Exact" or legacy


def _invalid_options(text: str) -> StatusError:
    return StatusError(422, f"ListOptions.meta.k8s.io is invalid: {text}")


def _expired(gone: Gone, after: tuple[str, str], paging: bool) -> StatusError:
    if not paging:
        return StatusError(410, f"The resourceVersion for the provided list is too old: {gone}")
    error = StatusError(
        410,
        "The provided continue parameter is too old to display a consistent list result. You can start a new list"
        " without the continue parameter, or use the continue token in this response to retrieve the remainder of the"
        " results. Continuing with the provided token results in an inconsistent list.",
    )
    error.token = _write_token(0, after)
    return error


def too_large(version: int, head: int) -> StatusError:
    """504 as upstream: the asked version has not happened yet."""
    text = f"Timeout: Too large resource version: {version}, current: {head}"
    cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
    return StatusError(504, text, details={"causes": [cause], "retryAfterSeconds": 1})


def _number(text: str | None, name: str) -> int:
    if not text:
        return 0
    if not (text.isascii() and text.isdigit()) or len(text) > 18:
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
    return b"".join(itertools.chain((head[:-1], b',"items":['), (b",".join(found.values),), (b"]}",)))
