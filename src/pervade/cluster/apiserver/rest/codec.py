"""Request bodies to JSON objects: JSON, YAML and Kubernetes protobuf by content type."""

from __future__ import annotations

from typing import Any

import msgspec
import yaml

from pervade.cluster.apiserver.rest.status import StatusError, bad_request

JSON = dict[str, Any]
PROTOBUF = "application/vnd.kubernetes.protobuf"
_decode = msgspec.json.Decoder().decode


def read_object(body: bytes, content_type: str) -> JSON:
    """The object in `body`; 400 for what is malformed, 415 for a type that is not served."""
    kind = content_type.split(";")[0].strip().lower()
    if kind in ("", "application/json"):
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


def read_yaml(body: bytes) -> Any:
    if body.lstrip()[:1] in (b"{", b"["):
        return read_json(body)
    try:
        found = yaml.load(body, Loader=yaml.CSafeLoader)
        # Dates and other YAML types have no JSON form of their own: as text, like sigs.k8s.io/yaml.
        return _decode(msgspec.json.encode(found))
    except (yaml.YAMLError, TypeError, ValueError, RecursionError) as error:
        raise bad_request(f"the body is not YAML: {error}") from None


def _protobuf(body: bytes) -> JSON:
    from pervade.cluster.apiserver import protobuf

    try:
        return protobuf.decode(body)
    except protobuf.ProtobufError as error:
        raise bad_request(f"the body is not Kubernetes protobuf: {error}") from None
