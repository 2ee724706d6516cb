"""What a kind's table is made of, as values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import msgspec

from pervade.cluster.apiserver.kinds.kind import JSON

Cells = Callable[[JSON, datetime], list[Any]]


class Column(msgspec.Struct, frozen=True):
    """One column; `priority` 1 shows with `-o wide` only."""

    name: str
    type: str = "string"
    priority: int = 0
    description: str = ""
    format: str = ""

    def definition(self) -> JSON:
        form = "name" if self.name == "Name" else self.format
        return {
            "name": self.name,
            "type": self.type,
            "format": form,
            "description": self.description,
            "priority": self.priority,
        }


class Printer(msgspec.Struct, frozen=True):
    """The columns of a kind and the cells of one object at a time; pure, O(object)."""

    columns: tuple[Column, ...]
    cells: Cells


def columns(names: Sequence[str], priority: int = 0) -> tuple[Column, ...]:
    """Columns by their names; those that count things carry `#` in front."""
    return tuple(
        Column(n.removeprefix("#"), "integer" if n.startswith("#") else "string", priority) for n in names
    )


def printer(cells: Cells, names: Sequence[str], wide: Sequence[str] = ()) -> Printer:
    """A printer whose wide columns come last."""
    return Printer((*columns(names), *columns(wide, 1)), cells)
