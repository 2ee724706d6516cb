"""Objects as rows: meta.k8s.io/v1 Table."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pervade.cluster.apiserver.kinds.kind import JSON, Kind


def table(
    kind: Kind, objects: list[JSON], *, include_object: str = "Metadata", now: datetime | None = None
) -> JSON:
    """Rows of `objects` with the columns every kind has (name and age)."""
    del kind
    at = now or datetime.now(UTC)
    columns = [
        {"name": "Name", "type": "string", "format": "name", "description": "", "priority": 0},
        {"name": "Age", "type": "string", "format": "", "description": "", "priority": 0},
    ]
    rows = []
    for obj in objects:
        meta = obj["metadata"]
        shown: Any = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": meta}
        shown = {"Metadata": shown, "Object": obj, "None": None}.get(include_object, shown)
        seconds = int((at - datetime.fromisoformat(meta["creationTimestamp"])).total_seconds())
        rows.append({"cells": [meta["name"], f"{seconds}s"], "object": shown})
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {},
        "columnDefinitions": columns,
        "rows": rows,
    }
