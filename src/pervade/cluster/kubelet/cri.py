"""Calls to containerd over its socket. A channel is made anew after containerd was away, without gRPC's back-off."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pervade.protos import cri
from pervade.wire.grpc import RpcError, StatusCode, aio


class CriError(Exception):
    """containerd refused: `code` (a gRPC status name) and its own words."""

    def __init__(self, method: str, code: str, text: str) -> None:
        super().__init__(f"{method}: {text}")
        self.code, self.text = code, text


class Cri:
    """`await cri.call("ListContainers", filter={...})` gives the response message."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self.methods = cri.load()
        self._channel: aio.Channel | None = None
        self._calls: dict[str, Callable[..., Any]] = {}

    async def call(self, method: str, *, timeout: float = 120.0, **fields: Any) -> Any:
        """One call; nested messages are given as dictionaries. Raises CriError."""
        return await self._send(method, self.methods[method].request(**fields), timeout)

    async def _send(self, method: str, request: Any, timeout: float) -> Any:
        kind = self.methods[method]
        if self._channel is None:
            self._channel = aio.insecure_channel(
                f"unix://{self.socket}", options=[("grpc.enable_http_proxy", 0)]
            )
        channel = self._channel
        if method not in self._calls:
            self._calls[method] = channel.unary_unary(
                kind.path,
                request_serializer=kind.request.SerializeToString,
                response_deserializer=kind.response.FromString,
            )
        try:
            return await self._calls[method](request, timeout=timeout)
        except RpcError as error:
            code = error.code()
            if code == StatusCode.UNAVAILABLE and self._channel is channel:
                self._channel, self._calls = None, {}
                await channel.close()
            raise CriError(method, code.name, error.details() or "") from None

    async def execute(self, container: str, argv: list[str], timeout: float) -> Any:
        """ExecSync; the call has a deadline of its own, as containerd waits for every holder of the output."""
        request = self.methods["ExecSync"].request(
            container_id=container, cmd=argv, timeout=max(1, int(timeout))
        )
        return await self._send("ExecSync", request, timeout + 1)

    async def stop(self, container: str, grace: int) -> None:
        """StopContainer; returns when it has ended."""
        request = self.methods["StopContainer"].request(container_id=container, timeout=grace)
        await self._send("StopContainer", request, grace + 30.0)

    async def ready(self) -> None:
        """Wait until containerd answers."""
        while True:
            try:
                await self.call("Version", timeout=2)
                return
            except CriError:
                await asyncio.sleep(0.1)

    async def close(self) -> None:
        if self._channel is not None:
            await self._channel.close()
            self._channel, self._calls = None, {}
