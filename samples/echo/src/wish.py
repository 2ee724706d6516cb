"""How a caller shapes an answer: `?status=503&delay=0.5&size=1000` in the path. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qs

MAX_SIZE, MAX_DELAY = 64 << 20, 3600.0


@dataclass(frozen=True)
class Wish:
    """Status of the answer, seconds before it, and a body of that many bytes instead of the report."""

    status: int = 200
    delay: float = 0.0
    size: int | None = None


def wish(path: str) -> Wish:
    """The wish in a path's query; ValueError names what cannot be granted."""
    asked = {name: values[-1] for name, values in parse_qs(path.partition("?")[2]).items()}
    status, delay = int(asked.get("status", 200)), float(asked.get("delay", 0))
    size = int(asked["size"]) if "size" in asked else None
    if not 200 <= status <= 599:
        raise ValueError("status is from 200 to 599")
    if not 0 <= delay <= MAX_DELAY:
        raise ValueError(f"delay is from 0 to {MAX_DELAY:.0f} seconds")
    if size is not None and not 0 <= size <= MAX_SIZE:
        raise ValueError(f"size is from 0 to {MAX_SIZE} bytes")
    return Wish(status, delay, size)
