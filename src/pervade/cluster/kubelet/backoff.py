"""Crash back-off of a container: 10 s, doubled up to 5 min, forgotten after 10 min of running. Pure.

Source: Kubernetes "Pod Lifecycle", container restart policy. All times in seconds since the epoch.
"""

from __future__ import annotations

FIRST, MOST, FORGET = 10.0, 300.0, 600.0


class Backoff:
    """The state of one container; asked with what is known of its last run."""

    def __init__(self) -> None:
        self.delay, self._until = 0.0, 0.0

    def left(self, *, started: float, finished: float, restarts: int, now: float) -> float:
        """Seconds until the container that ran from `started` to `finished` may start again; 0 = now.

        The first restart is at once. A process that lost its memory goes on at 10 s.
        """
        if self._until < finished:
            if finished - started > FORGET or (self.delay == 0.0 and restarts == 0):
                self.delay, wait = FIRST / 2, 0.0
            else:
                self.delay = wait = min(max(self.delay * 2, FIRST), MOST)
            self._until = finished + max(wait, 0.001)
        return max(self._until - now, 0.0)
