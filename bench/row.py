"""One line of the report: a figure, its target, and what the same machine does without us. Pure."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence


@dataclasses.dataclass(frozen=True)
class Row:
    """`figure` against `target` (`at_most`, else at least); `baseline` is measured in the same run, in the same unit."""

    name: str
    figure: float
    unit: str
    target: float | None = None
    at_most: bool = True
    baseline: float | None = None
    baseline_name: str = ""
    note: str = ""

    @property
    def held(self) -> bool | None:
        """None for a row without a target."""
        if self.target is None:
            return None
        return self.figure <= self.target if self.at_most else self.figure >= self.target

    @property
    def ratio(self) -> float | None:
        return self.figure / self.baseline if self.baseline else None

    def cells(self) -> tuple[str, ...]:
        mark = {True: "✔", False: "✘", None: " "}[self.held]
        sign = "≤" if self.at_most else "≥"
        target = "" if self.target is None else f"{sign} {number(self.target)} {self.unit}"
        against = (
            f"{self.ratio:.2f} × {self.baseline_name} ({number(self.baseline)} {self.unit})"
            if self.ratio is not None and self.baseline is not None
            else ""
        )
        return mark, self.name, target, f"{number(self.figure)} {self.unit}", against, self.note

    def plain(self) -> dict[str, object]:
        """For `--json`."""
        return dataclasses.asdict(self) | {"held": self.held, "ratio": self.ratio}


HEAD = ("", "what", "target", "seen", "against a baseline of the same run", "how")


def number(value: float) -> str:
    """Three digits that matter."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def markdown(rows: Iterable[Row]) -> str:
    """The rows as a Markdown table."""
    table = [HEAD, tuple("---" for _ in HEAD), *(r.cells() for r in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in table)


def share(values: Sequence[float], part: float) -> float:
    """The value that `part` of all do not exceed (nearest rank)."""
    held = sorted(values)
    return held[max(0, math.ceil(round(part * len(held), 6)) - 1)]
