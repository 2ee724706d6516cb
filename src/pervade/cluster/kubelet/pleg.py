"""What changed on the node, as containerd's event service tells it, with a slow poll behind it.

`containerd.services.events.v1.Events/Subscribe` streams the exits of tasks; one wakes its pod at once. The poll (10 s) finds what an event lost in a containerd restart would have said.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from pervade.cluster.kubelet.cri import Cri, CriError
from pervade.wire.grpc import RpcError, StatusCode, aio

log = logging.getLogger(__name__)
_POLL, _AGAIN = 10.0, 0.3
# The CRI side of containerd hears of an exit when we do, and needs a moment to take note of it.
_LOOKS = (0.05, 0.5)
_SUBSCRIBE = "/containerd.services.events.v1.Events/Subscribe"


def _classes() -> tuple[Any, Any, Any]:
    """SubscribeRequest, Envelope and an exit cut down to its ids (fields of containerd's events.proto)."""
    file = descriptor_pb2.FileDescriptorProto(
        name="pervade/containerd_events.proto", package="pervade.ctd", syntax="proto3"
    )
    text, raw, repeated, single = 9, 12, 3, 1
    for name, fields in {
        "SubscribeRequest": [("filters", 1, text, repeated)],
        "Any": [("type_url", 1, text, single), ("value", 2, raw, single)],
        "Envelope": [("namespace", 2, text, single), ("topic", 3, text, single)],
        "Event": [("container_id", 1, text, single), ("id", 2, text, single)],
    }.items():
        message = file.message_type.add(name=name)
        for field, number, kind, label in fields:
            message.field.add(name=field, number=number, type=kind, label=label)
    envelope = next(m for m in file.message_type if m.name == "Envelope")
    envelope.field.add(name="event", number=4, type=11, label=1, type_name=".pervade.ctd.Any")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)

    def get(name: str) -> Any:
        return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"pervade.ctd.{name}"))

    return get("SubscribeRequest"), get("Envelope"), get("Event")


class Pleg:
    """Calls `changed(container_or_sandbox_id)` for each event, and `changed(None)` for each poll that saw a difference."""

    def __init__(self, cri: Cri, socket: Path, changed: Callable[[str | None], None]) -> None:
        self.cri, self.socket, self.changed = cri, socket, changed
        self._last: object = None

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._events())
            tasks.create_task(self._poll())

    async def _events(self) -> None:
        request, envelope, event = _classes()
        loop = asyncio.get_running_loop()
        while True:
            pause = _AGAIN
            try:
                async with aio.insecure_channel(
                    f"unix://{self.socket}", options=[("grpc.enable_http_proxy", 0)]
                ) as channel:
                    call = channel.unary_stream(
                        _SUBSCRIBE,
                        request_serializer=request.SerializeToString,
                        response_deserializer=envelope.FromString,
                    )
                    # A value with signs in it must be quoted, else containerd refuses the filter.
                    topics = ['topic=="/tasks/exit"']
                    async for one in call(request(filters=topics)):
                        ended = event.FromString(one.event.value)
                        if ended.id == ended.container_id:  # else a process of an exec, such as a probe
                            for delay in _LOOKS:
                                loop.call_later(delay, self.changed, ended.container_id)
            except RpcError as error:
                away = error.code() == StatusCode.UNAVAILABLE
                pause = _AGAIN if away else _POLL
                log.log(
                    logging.DEBUG if away else logging.WARNING,
                    "containerd's events ended",
                    extra={"error": error.details()},
                )
            self.changed(None)
            await asyncio.sleep(pause)

    async def _poll(self) -> None:
        while True:
            try:
                found = (await self.cri.call("ListContainers")).containers
                boxes = (await self.cri.call("ListPodSandbox")).items
                now = {(c.id, c.state) for c in found} | {(b.id, b.state) for b in boxes}
                if now != self._last:
                    self._last = now
                    self.changed(None)
            except CriError as error:
                log.debug("containerd not polled", extra={"error": str(error)})
            await asyncio.sleep(_POLL)
