"""Objects between their stored form and the form a caller asked for: version, Table, PartialObjectMetadata. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from pervade.cluster.apiserver import tables
from pervade.cluster.apiserver.kinds import versions
from pervade.cluster.apiserver.kinds.kind import JSON, Kind

META = "meta.k8s.io/"
parse: Any = msgspec.json.Decoder().decode
encode = msgspec.json.Encoder().encode


def stored(obj: JSON, kind: Kind) -> JSON:
    """An object of `kind` in the version it is stored in."""
    if kind.stored_version == kind.api_version:
        return obj
    convert = versions.to_stored(kind.api_version, kind.kind)
    return convert(obj) if convert else obj | {"apiVersion": kind.stored_version}


def shown(obj: JSON, kind: Kind) -> JSON:
    """A stored object in the version of `kind`; custom resources get the defaults of that version on reading."""
    if obj.get("apiVersion") != kind.api_version:
        convert = versions.from_stored(kind.api_version, kind.kind)
        obj = convert(obj) if convert else obj | {"apiVersion": kind.api_version}
    return _completed(obj, kind)


def _completed(obj: JSON, kind: Kind) -> JSON:
    """A custom object with the defaults its definition has now, which may be newer than the object."""
    if not has_defaults(kind):
        return obj
    made: JSON = parse(encode(obj))
    kind.custom.compiled.complete(made)
    return made


def has_defaults(kind: Kind) -> bool:
    return kind.custom is not None and bool(getattr(kind.custom.compiled, "has_defaults", False))


def decoded(value: bytes, kind: Kind) -> JSON:
    """The object of a stored value in the version of `kind`."""
    return shown(parse(value), kind)


def in_version(value: bytes, kind: Kind) -> bytes:
    """A stored value as the version of `kind`; re-encoded only when it is stored in another one."""
    if kind.stored_version == kind.api_version and kind.custom is None:
        return value
    if not has_defaults(kind) and value.startswith(b'{"apiVersion":"' + kind.api_version.encode() + b'"'):
        return value
    return encode(decoded(value, kind))


def partial(obj: JSON, version: str = "v1") -> JSON:
    """PartialObjectMetadata of an object."""
    return {"kind": "PartialObjectMetadata", "apiVersion": META + version, "metadata": obj["metadata"]}


def listing(
    kind: Kind, items: list[Any], version: str, *, token: str = "", remaining: int | None = None
) -> JSON:
    """A list object."""
    meta: JSON = {"resourceVersion": version}
    if token:
        meta["continue"] = token
        if remaining is not None:
            meta["remainingItemCount"] = remaining
    return {"kind": kind.list_kind, "apiVersion": kind.api_version, "metadata": meta, "items": items}


def table(
    kind: Kind,
    objects: list[JSON],
    meta: JSON,
    *,
    include: str = "Metadata",
    version: str = "v1",
    columns: bool = True,
) -> JSON:
    """`objects` as a meta.k8s.io Table; `columns` False leaves the definitions out (later events of a watch)."""
    made = tables.table(
        kind,
        objects,
        include_object=include,
        now=datetime.now(UTC),
    )
    made["apiVersion"] = META + version
    made["metadata"] = meta
    if not columns:
        made["columnDefinitions"] = []
    return made
