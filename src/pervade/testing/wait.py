"""Waiting for what has no event: a condition outside of this process."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(what: Callable[[], T], seconds: float = 60) -> T:
    """The first true answer of `what`, asked every 0.2 s. AssertionError with the last answer when none came."""
    limit = time.monotonic() + seconds
    while True:
        if answer := what():
            return answer
        assert time.monotonic() < limit, f"after {seconds:.0f} s still {answer!r}"
        time.sleep(0.2)
