"""Request bodies to JSON objects: JSON, YAML and Kubernetes protobuf by content type."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from pervade.cluster.apiserver.rest.context import Request
from pervade.cluster.apiserver.rest.status import StatusError, bad_request

JSON = dict[str, Any]
PROTOBUF = "application/vnd.kubernetes.protobuf"
_decode = msgspec.json.Decoder().decode


def read_object(body: bytes, content_type: str, request: Request | None = None) -> JSON:
    """The object in `body`; 400 for what is malformed, 415 for a type that is not served.

    Fields that the body names twice are noted in `request`, when its fieldValidation asks for that.
    """
    kind = content_type.split(";")[0].strip().lower()
    if kind in ("", "application/json"):
        if request is not None and request.query.get("fieldValidation") in ("Strict", "Warn"):
            found, request.duplicates = read_json_twice(body)
        else:
            found = read_json(body)
    elif kind in ("application/yaml", "application/apply-patch+yaml"):
        found = read_yaml(body)
    elif kind == PROTOBUF:
        found = _protobuf(body)
    else:
        served = "application/json, application/yaml, application/vnd.kubernetes.protobuf"
        raise StatusError(
            415, f"the body of the request was in an unknown format - accepted media types include: {served}"
        )
    if not isinstance(found, dict):
        raise bad_request(f"the body must be an object, it is {type(found).__name__}")
    return found


def read_json(body: bytes) -> Any:
    try:
        return _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise bad_request(f"the body is not JSON: {error}") from None


def read_json_twice(body: bytes) -> tuple[Any, list[str]]:
    """The decoded body, and the names that one of its objects holds more than once."""
    twice: list[str] = []

    def note(pairs: list[tuple[str, Any]]) -> JSON:
        made = dict(pairs)
        if len(made) != len(pairs):
            names = [k for k, _ in pairs]
            twice.extend(sorted({n for n in names if names.count(n) > 1}))
        return made

    found = read_json(body)
    try:
        json.loads(body, object_pairs_hook=note)
    except (ValueError, RecursionError) as error:
        raise bad_request(f"the body is not JSON: {error}") from None
    return found, twice


def read_yaml(body: bytes) -> Any:
    """A YAML document as JSON; O(bytes), also for one whose aliases would unfold to much more."""
    if body.lstrip()[:1] in (b"{", b"["):
        return read_json(body)
    import yaml

    try:
        found = yaml.load(body, Loader=yaml.CSafeLoader)
        if b"*" in body:
            _bounded(found, 200_000)
        # Dates and other YAML types have no JSON form of their own: as text, like sigs.k8s.io/yaml.
        return _decode(msgspec.json.encode(found))
    except (yaml.YAMLError, TypeError, ValueError, RecursionError) as error:
        raise bad_request(f"the body is not YAML: {error}") from None


def _bounded(value: Any, budget: int) -> int:
    """What is left of `budget` after counting the values of a document, aliases unfolded; ValueError below zero."""
    budget -= 1
    if budget < 0:
        raise ValueError("its aliases unfold to too many values")
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for one in inner:
        budget = _bounded(one, budget)
    return budget


def _protobuf(body: bytes) -> JSON:
    from pervade.cluster.apiserver import protobuf

    try:
        return protobuf.decode(body)
    except protobuf.ProtobufError as error:
        raise bad_request(f"the body is not Kubernetes protobuf: {error}") from None
