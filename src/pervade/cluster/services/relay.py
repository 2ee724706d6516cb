"""The host's way in: loopback addresses relayed to the nodes' NodePorts, in user space.

The host gets no rule, no route and no forwarding; a socket made inside the fabric's namespace dials
the node. Cost: two copies per byte and one thread of 0.4 ms per new connection; UDP flows are kept 60 s.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Coroutine
from typing import Any, cast

from pervade.cluster.services.published import Published
from pervade.host import netns

log = logging.getLogger(__name__)
_DIAL_TIMEOUT = 1.0
_UDP_IDLE = 60.0
_CHUNK = 1 << 16
Nodes = Callable[[], list[str]]


class Relay:
    """Listeners for the addresses published last; `nodes` gives the addresses of Ready nodes, best first."""

    def __init__(self, fabric: str | os.PathLike[str], nodes: Nodes) -> None:
        self.fabric, self.nodes = fabric, nodes
        self._open: dict[Published, asyncio.Server | asyncio.DatagramTransport] = {}
        self.refused: dict[Published, str] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def publish(self, wanted: frozenset[Published]) -> None:
        """Listen on exactly `wanted`; addresses that cannot be bound are named in the log and tried again next time."""
        for gone in [p for p in self._open if p not in wanted]:
            self._open.pop(gone).close()
        self.refused = {}
        for one in sorted(wanted - self._open.keys()):
            try:
                self._open[one] = await (
                    self._listen_tcp(one) if one.protocol == "tcp" else self._listen_udp(one)
                )
            except OSError as error:
                self.refused[one] = str(error)
                fields = {"address": f"{one.address}:{one.port}", "service": one.service, "error": str(error)}
                log.warning(
                    "not published on the host: stop what listens there, or use the node's address",
                    extra=fields,
                )

    def close(self) -> None:
        for one in self._open.values():
            one.close()
        for task in self._tasks:
            task.cancel()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` until it ends or the relay is closed."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def dump(self) -> dict[str, Any]:
        """What is published and what could not be."""
        rows = {f"{p.protocol}://{p.address}:{p.port}": p.service for p in sorted(self._open)}
        return {
            "published": rows,
            "refused": {f"{p.address}:{p.port}": why for p, why in self.refused.items()},
        }

    async def _listen_tcp(self, one: Published) -> asyncio.Server:
        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                upstream = await self._dial(one.node_port)
            except OSError as error:
                log.warning("no node answered", extra={"service": one.service, "error": str(error)})
                writer.transport.abort()
                return
            await asyncio.gather(_copy(reader, upstream[1]), _copy(upstream[0], writer))

        return await asyncio.start_server(accept, one.address, one.port, limit=_CHUNK)

    async def _dial(self, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        last: OSError = OSError("no Ready node")
        for address in self.nodes():
            sock = netns.inside(self.fabric, lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            sock.setblocking(False)
            try:
                # A node without an endpoint of a `Local` service drops: the next one is asked after a second.
                await asyncio.wait_for(
                    asyncio.get_running_loop().sock_connect(sock, (address, port)), _DIAL_TIMEOUT
                )
                return await asyncio.open_connection(sock=sock, limit=_CHUNK)
            except (OSError, TimeoutError) as error:
                sock.close()
                last = OSError(f"{address}:{port}: {error or 'timed out'}")
        raise last

    async def _listen_udp(self, one: Published) -> asyncio.DatagramTransport:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(
            lambda: _Inbound(self, one.node_port), local_addr=(one.address, one.port)
        )
        return transport


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Bytes one way until the end; the end is passed on as a half-close, a reset as a reset."""
    try:
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    except ConnectionError:
        writer.transport.abort()


class _Inbound(asyncio.DatagramProtocol):
    """One UDP listener: a socket in the fabric per client, so that answers find their way back."""

    def __init__(self, relay: Relay, node_port: int) -> None:
        self.relay, self.node_port = relay, node_port
        self.transport: asyncio.DatagramTransport | None = None
        self.flows: dict[tuple[str, int], _Outbound] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        nodes = self.relay.nodes()
        if addr not in self.flows and nodes:
            self.flows[addr] = _Outbound(self, addr)
            self.relay.spawn(self._connect(self.flows[addr], nodes[0]))
        if addr in self.flows:
            self.flows[addr].send(data)

    async def _connect(self, flow: _Outbound, node: str) -> None:
        sock = netns.inside(self.relay.fabric, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        sock.setblocking(False)
        sock.connect((node, self.node_port))
        loop = asyncio.get_running_loop()
        await loop.create_datagram_endpoint(lambda: flow, sock=sock)
        loop.call_later(_UDP_IDLE, self._retire, flow)

    def _retire(self, flow: _Outbound) -> None:
        loop = asyncio.get_running_loop()
        idle = loop.time() - flow.used
        if idle >= _UDP_IDLE:
            flow.close()
        else:
            loop.call_later(_UDP_IDLE - idle, self._retire, flow)

    def connection_lost(self, _exc: Exception | None) -> None:
        for flow in list(self.flows.values()):
            flow.close()


class _Outbound(asyncio.DatagramProtocol):
    """The side of one UDP client towards the node; holds what arrives before its socket is ready."""

    def __init__(self, inbound: _Inbound, client: tuple[str, int]) -> None:
        self.inbound, self.client = inbound, client
        self.transport: asyncio.DatagramTransport | None = None
        self.waiting: list[bytes] = []
        self.used = asyncio.get_running_loop().time()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)
        for data in self.waiting:
            self.transport.sendto(data)
        self.waiting.clear()

    def send(self, data: bytes) -> None:
        self.used = asyncio.get_running_loop().time()
        if self.transport is None:
            self.waiting.append(data)
        else:
            self.transport.sendto(data)

    def datagram_received(self, data: bytes, _addr: tuple[str, int]) -> None:
        self.used = asyncio.get_running_loop().time()
        if self.inbound.transport is not None:
            self.inbound.transport.sendto(data, self.client)

    def close(self) -> None:
        self.inbound.flows.pop(self.client, None)
        if self.transport is not None:
            self.transport.close()
