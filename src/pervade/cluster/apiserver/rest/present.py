"""Stored objects in the form a caller asked for: version, Table, PartialObjectMetadata. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from pervade.cluster.apiserver.kinds.kind import JSON, Kind

_META = "meta.k8s.io/v1"
_decode = msgspec.json.Decoder().decode


def decoded(value: bytes, kind: Kind) -> JSON:
    """The object of a stored value in the version of `kind`."""
    found: JSON = _decode(value)
    if found.get("apiVersion") != kind.api_version:
        found = convert(found, kind)
    return found


def convert(obj: JSON, kind: Kind) -> JSON:
    """`obj` as the version of `kind`: events and HPAs have two shapes, custom resources change only apiVersion."""
    if kind.table == "/events":
        from pervade.cluster.apiserver.kinds import events

        return events.convert(obj, kind.api_version)
    return obj | {"apiVersion": kind.api_version}


def partial(obj: JSON) -> JSON:
    """PartialObjectMetadata of an object."""
    return {"kind": "PartialObjectMetadata", "apiVersion": _META, "metadata": obj["metadata"]}


def listing(
    kind: Kind, items: list[Any], version: str, *, token: str = "", remaining: int | None = None
) -> JSON:
    """A list object; items carry their own kind only where upstream does (not)."""
    meta: JSON = {"resourceVersion": version}
    if token:
        meta["continue"] = token
        if remaining is not None:
            meta["remainingItemCount"] = remaining
    return {"kind": kind.list_kind, "apiVersion": kind.api_version, "metadata": meta, "items": items}


def table(
    kind: Kind, objects: list[JSON], meta: JSON, *, include: str = "Metadata", columns: bool = True
) -> JSON:
    """`objects` as a meta.k8s.io/v1 Table."""
    from pervade.cluster.apiserver import tables

    made = tables.table(kind, objects, include_object=include)
    made["metadata"] = meta
    if not columns:
        made["columnDefinitions"] = None
    return made
