"""Bytes without a protocol: TCP, TCP where the server speaks first, UDP."""

from __future__ import annotations

import asyncio
import socket
import struct
from asyncio import StreamReader, StreamWriter

from report import Body, Connection, line

_PKTINFO = struct.Struct("=16sI")
_SPACE = socket.CMSG_SPACE(_PKTINFO.size)
_ANY = b"\0" * 16


async def tcp(reader: StreamReader, writer: StreamWriter, connection: Connection) -> None:
    """At the first bytes one line of report, then every byte comes back; ends when the peer's half is closed."""
    data = await reader.read(1 << 16)
    if data:
        writer.write(line(connection.report("TCP")))
    await _echo(reader, writer, data)


async def server_first(reader: StreamReader, writer: StreamWriter, connection: Connection) -> None:
    """The report as a greeting before the peer has said anything, then every byte comes back."""
    writer.write(line(connection.report("TCP server-first")))
    await writer.drain()
    await _echo(reader, writer, await reader.read(1 << 16))


async def _echo(reader: StreamReader, writer: StreamWriter, data: bytes) -> None:
    while data:
        writer.write(data)
        await writer.drain()
        data = await reader.read(1 << 16)


def udp(port: int) -> socket.socket:
    """A socket that answers each datagram with a report, from the address it was sent to."""
    found = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    found.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    found.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    found.setblocking(False)
    found.bind(("::", port))
    asyncio.get_running_loop().add_reader(found, _datagram, found)
    return found


def _datagram(server: socket.socket) -> None:
    try:
        data, extra, _flags, peer = server.recvmsg(1 << 16, _SPACE)
    except OSError:
        return  # An ICMP error of an earlier answer, or nothing after all.
    body, local = Body(), _ANY
    body.add(data)
    for level, kind, value in extra:
        if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO):
            local, _index = _PKTINFO.unpack(value)
    name = socket.inet_ntop(socket.AF_INET6, local), server.getsockname()[1]
    report = line(Connection(peer, name).report("UDP", body=body.seen()))
    source = [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, _PKTINFO.pack(local, 0))]
    try:
        server.sendmsg([report], source, 0, peer)
    except OSError as error:
        print(f"no answer to {peer[0]}: {error}", flush=True)
