"""The gRPC probe against a real gRPC server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
from grpc import aio

from pervade.cluster.kubelet import grpc_health

ANSWERS = {b"": b"\x08\x01", b"\x0a\x03bad": b"\x08\x02"}


class _Health(grpc.GenericRpcHandler):
    """Health/Check by raw bytes: "" is SERVING, "bad" is NOT_SERVING, anything else NOT_FOUND."""

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        if details.method != "/grpc.health.v1.Health/Check":
            return None

        async def check(request: bytes, context: aio.ServicerContext) -> bytes:
            if request not in ANSWERS:
                await context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
            return ANSWERS[request]

        return grpc.unary_unary_rpc_method_handler(check)


@pytest.fixture
async def port() -> AsyncIterator[int]:
    server = aio.server()
    server.add_generic_rpc_handlers((_Health(),))
    found = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield found
    await server.stop(0)


@pytest.mark.parametrize(("service", "good"), [("", True), ("bad", False), ("other", False)])
async def test_only_serving_is_good(port: int, service: str, good: bool) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        found, said = await asyncio.wait_for(grpc_health.check(reader, writer, service), 5)
    finally:
        writer.close()
    assert found is good, said
