"""Work by key: each key at most once in the queue and in one pair of hands, failures with growing pauses."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable

from pervade.kube.errors import ApiError
from pervade.wire.http import ClientError

log = logging.getLogger(__name__)
_FIRST, _MOST = 0.05, 30.0


class WorkQueue:
    """`add(key)` asks for `work(key)`; an add while the key is worked on asks once more.

    `work` may return a number of seconds after which it wants to be called again.
    """

    def __init__(
        self, name: str, work: Callable[[Hashable], Awaitable[float | None]], workers: int = 4
    ) -> None:
        self.name, self._work, self._workers = name, work, workers
        self._queue: asyncio.Queue[Hashable] = asyncio.Queue()
        self._waiting: set[Hashable] = set()
        self._busy: set[Hashable] = set()
        self._again: set[Hashable] = set()
        self._failures: dict[Hashable, int] = {}
        self._timers: dict[Hashable, asyncio.TimerHandle] = {}

    def add(self, key: Hashable) -> None:
        if key in self._busy:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting.add(key)
            self._queue.put_nowait(key)

    def later(self, key: Hashable, seconds: float) -> None:
        """Ask for `key` after a while; a sooner request already there stays."""
        loop = asyncio.get_running_loop()
        held = self._timers.get(key)
        if held is not None and held.when() <= loop.time() + seconds and not held.cancelled():
            return
        if held is not None:
            held.cancel()
        self._timers[key] = loop.call_later(seconds, self._due, key)

    def _due(self, key: Hashable) -> None:
        self._timers.pop(key, None)
        self.add(key)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(self._workers):
                tasks.create_task(self._serve())

    async def _serve(self) -> None:
        while True:
            key = await self._queue.get()
            self._waiting.discard(key)
            self._busy.add(key)
            try:
                wish = await self._work(key)
                self._failures.pop(key, None)
                if wish is not None:
                    self.later(key, wish)
            except (ApiError, ClientError, OSError, TimeoutError) as error:
                self._failed(key, error)
            except Exception as error:  # one object's fault must not end the others' controller
                log.exception("a controller failed", extra={"controller": self.name, "key": str(key)})
                self._failed(key, error)
            finally:
                self._busy.discard(key)
                if key in self._again:
                    self._again.discard(key)
                    self.add(key)

    def _failed(self, key: Hashable, error: Exception) -> None:
        if isinstance(error, ApiError) and error.namespace_terminating:
            # The object itself is about to go; its events come here anyway.
            self._failures.pop(key, None)
            return
        count = self._failures[key] = self._failures.get(key, 0) + 1
        delay = min(_FIRST * 2**count, _MOST)
        quiet = isinstance(error, ApiError) and (error.conflict or error.not_found)
        log.log(
            logging.DEBUG if quiet or count < 4 else logging.WARNING,
            "will try again",
            extra={
                "controller": self.name,
                "key": str(key),
                "error": str(error)[:300],
                "in_s": round(delay, 1),
            },
        )
        self.later(key, delay)
