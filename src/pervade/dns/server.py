"""The rim: DNS over UDP and TCP from a zone, with other names forwarded.

dnspython reads and writes the messages (RFC 1035, EDNS of RFC 6891). A malformed query is answered
FORMERR or dropped, a resolver that does not answer is SERVFAIL with an extended error (RFC 8914) that
says which resolver was asked. Cost per query: one zone look-up and about 0.2 ms of message work.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Iterable, Sequence
from typing import cast

import dns.asyncquery
import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.query
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from pervade.dns.zone import Record, Zone

log = logging.getLogger(__name__)
_UDP_PLAIN = 512
_UDP_MOST = 1232
_TCP_IDLE = 10.0
_FORWARD_TIMEOUT = 2.0


class Resolver:
    """Answers one query: from `zone` when it has authority, else from `upstreams` (address, port) in turn."""

    def __init__(self, zone: Zone, upstreams: Sequence[tuple[str, int]] = ()) -> None:
        self.zone, self.upstreams = zone, tuple(upstreams)
        self.counts = {"answered": 0, "forwarded": 0, "failed": 0, "malformed": 0}

    async def respond(self, wire: bytes, *, tcp: bool) -> bytes | None:
        """The answer to the query `wire` in wire form, or None when it deserves none."""
        try:
            query = dns.message.from_wire(wire)
        except dns.exception.DNSException:
            self.counts["malformed"] += 1
            # Answering what may itself be an answer could loop between two servers.
            if len(wire) < 12 or wire[2] & 0x80:
                return None
            return wire[:2] + struct.pack("!HHHHH", 0x8000 | dns.rcode.FORMERR, 0, 0, 0, 0)
        if query.flags & dns.flags.QR:
            return None
        response = await self._answer(query)
        limit = 65535 if tcp else min(max(query.payload or _UDP_PLAIN, _UDP_PLAIN), _UDP_MOST)
        try:
            return response.to_wire(max_size=limit)
        except dns.exception.TooBig:
            short = dns.message.make_response(query)
            short.flags |= dns.flags.TC | (response.flags & (dns.flags.AA | dns.flags.RA))
            return short.to_wire(max_size=limit)

    async def _answer(self, query: dns.message.Message) -> dns.message.Message:
        if query.opcode() != dns.opcode.QUERY or len(query.question) != 1:
            response = dns.message.make_response(query)
            response.set_rcode(dns.rcode.NOTIMP if query.opcode() != dns.opcode.QUERY else dns.rcode.FORMERR)
            return response
        question = query.question[0]
        name, kind = question.name.to_text(), dns.rdatatype.to_text(question.rdtype)
        found = self.zone.lookup(name, kind)
        if found.rcode == "REFUSED":
            return await self._forward(query)
        response = dns.message.make_response(query)
        response.flags |= dns.flags.AA | (dns.flags.RA if self.upstreams else 0)
        response.set_rcode(dns.rcode.from_text(found.rcode))
        # dnspython shuffles each RRset as it writes it, which spreads clients that take the first address.
        response.answer += _rrsets(found.records, original=question.name)
        response.authority += _rrsets(found.authority)
        response.additional += _rrsets(found.additional)
        self.counts["answered"] += 1
        if found.leaves_to:
            outside = await self._forward(dns.message.make_query(found.leaves_to, question.rdtype))
            response.answer += outside.answer
            response.set_rcode(outside.rcode())
        return response

    async def _forward(self, query: dns.message.Message) -> dns.message.Message:
        tried = []
        for address, port in self.upstreams:
            try:
                found, _ = await dns.asyncquery.udp_with_fallback(
                    query, address, port=port, timeout=_FORWARD_TIMEOUT, ignore_unexpected=True
                )
            except (dns.exception.DNSException, OSError) as error:
                tried.append(f"{address}:{port}: {error or type(error).__name__}")
                continue
            self.counts["forwarded"] += 1
            return found
        self.counts["failed"] += 1
        response = dns.message.make_response(query)
        response.set_rcode(dns.rcode.SERVFAIL)
        text = "; ".join(tried) or "no resolver outside the cluster is configured"
        response.use_edns(0, options=[dns.edns.EDEOption(dns.edns.EDECode.NETWORK_ERROR, text[:200])])
        log.warning("name not resolved", extra={"query": str(query.question[0]), "tried": text})
        return response


def _rrsets(records: Iterable[Record], original: dns.name.Name | None = None) -> list[dns.rrset.RRset]:
    grouped: dict[tuple[str, str, int], list[str]] = {}
    for record in records:
        grouped.setdefault((record.name, record.type, record.ttl), []).append(record.data)
    out = []
    for (name, kind, ttl), data in grouped.items():
        owner = dns.name.from_text(name)
        # The owner is echoed as asked (0x20 mixed case), as resolvers check it.
        owner = original if original is not None and owner == original else owner
        out.append(dns.rrset.from_text_list(owner, ttl, dns.rdataclass.IN, kind, data))
    return out


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, resolver: Resolver) -> None:
        self.resolver = resolver
        self.tasks: set[asyncio.Task[None]] = set()
        self.transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        task = asyncio.create_task(self._reply(data, addr))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _reply(self, data: bytes, addr: tuple[str, int]) -> None:
        answer = await self.resolver.respond(data, tcp=False)
        if answer and self.transport:
            self.transport.sendto(answer, addr)


async def serve(resolver: Resolver, host: str, port: int) -> tuple[asyncio.DatagramTransport, asyncio.Server]:
    """Listen on UDP and TCP `host:port`; close both values to stop. Raises OSError when the port is taken."""
    loop = asyncio.get_running_loop()

    async def stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                size = struct.unpack("!H", await asyncio.wait_for(reader.readexactly(2), _TCP_IDLE))[0]
                answer = await resolver.respond(
                    await asyncio.wait_for(reader.readexactly(size), _TCP_IDLE), tcp=True
                )
                if answer is None:
                    return
                writer.write(struct.pack("!H", len(answer)) + answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, TimeoutError, ConnectionError) as end:
            log.debug("dns connection ended", extra={"why": type(end).__name__})
        finally:
            writer.close()

    server = await asyncio.start_server(stream, host, port)
    bound = server.sockets[0].getsockname()[1]
    transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(resolver), local_addr=(host, bound))
    return transport, server
