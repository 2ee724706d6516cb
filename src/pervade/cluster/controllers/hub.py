"""What all controllers share: the client, one reflector per kind, events."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from pervade.cluster.controllers.objects import JSON, controllers_of, now
from pervade.cluster.plan import Plan
from pervade.kube.client import Client
from pervade.kube.errors import ApiError
from pervade.kube.reflector import Reflector
from pervade.kube.resources import EVENTS, Resource
from pervade.wire.http import ClientError

log = logging.getLogger(__name__)


class Hub:
    """One process' reflectors, made when a controller asks for a kind; `run()` starts them all."""

    def __init__(self, client: Client, plan: Plan) -> None:
        self.client, self.plan = client, plan
        self._reflectors: dict[Resource, Reflector] = {}
        self._by_owner: set[Resource] = set()
        self._events: set[asyncio.Task[None]] = set()

    def watch(self, res: Resource) -> Reflector:
        """The reflector of `res`, shared."""
        if res not in self._reflectors:
            self._reflectors[res] = Reflector(self.client, res)
        return self._reflectors[res]

    def owned(self, res: Resource) -> Reflector:
        """The reflector of `res` with an index "controller" by the controlling owner (`objects.identity`)."""
        held = self.watch(res)
        if res not in self._by_owner:
            self._by_owner.add(res)
            held.add_index("controller", controllers_of)
        return held

    def watched(self, res: Resource) -> bool:
        """Whether a controller asked for this kind before the start."""
        return res in self._reflectors

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for one in self._reflectors.values():
                tasks.create_task(one.run())

    async def synced(self) -> None:
        """Wait for the first list of every kind."""
        await asyncio.gather(*(r.synced() for r in self._reflectors.values()))

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._events.add(task)
        task.add_done_callback(self._events.discard)

    def event(
        self,
        obj: JSON,
        api_version: str,
        kind: str,
        component: str,
        reason: str,
        message: str,
        *,
        warn: bool = False,
    ) -> None:
        """Record an event about `obj`; never waits."""
        meta, at = obj["metadata"], now()
        body = {
            "metadata": {"generateName": f"{meta['name']}.", "namespace": meta.get("namespace") or "default"},
            "involvedObject": {
                "apiVersion": api_version, "kind": kind, "name": meta["name"], "namespace": meta.get("namespace", ""),
                "uid": meta["uid"], "resourceVersion": meta.get("resourceVersion", ""),
            },
            "reason": reason, "message": message[:1000], "type": "Warning" if warn else "Normal", "count": 1,
            "firstTimestamp": at, "lastTimestamp": at, "source": {"component": component}, "reportingComponent": component,
            "reportingInstance": "",
        }  # fmt: skip
        self.spawn(self._record(body))

    async def _record(self, body: JSON) -> None:
        try:
            await self.client.create(EVENTS, body, body["metadata"]["namespace"])
        except (ApiError, ClientError, OSError) as error:
            log.debug("event not recorded", extra={"reason": body["reason"], "error": str(error)})
