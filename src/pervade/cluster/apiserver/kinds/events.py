"""One event in its two shapes: core/v1 and events.k8s.io/v1 (one store, stored as core/v1). Pure."""

from __future__ import annotations

from pervade.cluster.apiserver.kinds.kind import JSON

# core/v1 name, events.k8s.io/v1 name; fields not named are the same in both.
_NAMES = (
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
)


def convert(obj: JSON, api_version: str) -> JSON:
    """The event in the shape of `api_version`; unknown shapes are returned unchanged but for the version."""
    if obj.get("apiVersion") == api_version:
        return obj
    to_new = api_version.startswith("events.k8s.io/")
    names = dict(_NAMES) if to_new else {new: old for old, new in _NAMES}
    return {names.get(k, k): v for k, v in obj.items()} | {"apiVersion": api_version}
