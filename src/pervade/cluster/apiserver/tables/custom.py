"""Rows of custom kinds, by the columns of their definition."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec

from pervade.cluster.apiserver.kinds.kind import JSON
from pervade.cluster.apiserver.schema import jsonpath
from pervade.cluster.apiserver.tables import human
from pervade.cluster.apiserver.tables.column import Column, Printer

_AGE = ".metadata.creationTimestamp"


def printer_of(columns: tuple[JSON, ...]) -> Printer:
    """Name, then the definition's columns; an age is added only where the definition has none of its own columns."""
    made = [Column("Name")]
    readers: list[Callable[[JSON, datetime], Any]] = []
    for one in columns:
        made.append(
            Column(
                one["name"],
                one.get("type", "string"),
                int(one.get("priority") or 0),
                one.get("description") or "",
                one.get("format") or "",
            )
        )
        readers.append(_reader(one))

    def cells(obj: JSON, now: datetime) -> list[Any]:
        return [obj["metadata"]["name"], *(read(obj, now) for read in readers)]

    return Printer(tuple(made), cells)


def _reader(column: JSON) -> Callable[[JSON, datetime], Any]:
    find, kind = jsonpath.select(column.get("jsonPath") or _AGE), column.get("type", "string")

    def read(obj: JSON, now: datetime) -> Any:
        found = find(obj)
        if not found:
            return None
        value = found[0]
        if kind == "date":
            return human.age(value, now)
        if kind == "string":
            if len(found) > 1:
                return _text(found)
            return value if isinstance(value, str) else _text(value)
        if kind in ("integer", "number"):
            return value if isinstance(value, int | float) and not isinstance(value, bool) else None
        return value if isinstance(value, bool) else None

    return read


def _text(value: Any) -> str:
    return msgspec.json.encode(value).decode()
