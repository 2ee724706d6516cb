"""DNS as a client sees it: a real server on loopback, asked over UDP and TCP."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator

import dns.asyncquery
import dns.edns
import dns.flags
import dns.message
import dns.rcode
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pervade.dns.server import Resolver, serve
from pervade.dns.zone import Record, Zone

Z = "cluster.local."


def zone() -> Zone:
    found = Zone([Z])
    found.replace("web", [Record(f"web.default.svc.{Z}", "A", f"10.96.0.{i}") for i in range(1, 4)])
    found.replace("srv", [Record(f"_http._tcp.web.default.svc.{Z}", "SRV", f"0 100 80 web.default.svc.{Z}")])
    found.replace("big", [Record(f"big.{Z}", "A", f"10.1.{i // 250}.{i % 250 + 1}") for i in range(300)])
    found.replace("alias", [Record(f"alias.{Z}", "CNAME", f"web.default.svc.{Z}")])
    found.replace("away", [Record(f"away.{Z}", "CNAME", "example.test.")])
    return found


class Server:
    def __init__(self, port: int) -> None:
        self.port = port

    async def ask(self, name: str, kind: str = "A", *, tcp: bool = False) -> dns.message.Message:
        query = dns.message.make_query(name, kind, use_edns=0)
        ask = dns.asyncquery.tcp if tcp else dns.asyncquery.udp
        return await ask(query, "127.0.0.1", port=self.port, timeout=5)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    outside = Zone(["test."])
    outside.replace("x", [Record("example.test.", "A", "192.0.2.7")])
    far_udp, far_tcp = await serve(Resolver(outside), "127.0.0.1", 0)
    far = far_udp.get_extra_info("sockname")[1]
    near_udp, near_tcp = await serve(Resolver(zone(), [("127.0.0.1", far)]), "127.0.0.1", 0)
    yield Server(near_udp.get_extra_info("sockname")[1])
    for closing in (far_udp, far_tcp, near_udp, near_tcp):
        closing.close()


async def test_answers_names_ports_and_absence(server: Server) -> None:
    """N15: A, SRV with its addresses, NODATA and NXDOMAIN with SOA, never NOTIMP."""
    found = await server.ask(f"WEB.default.svc.{Z}")
    assert sorted(str(r) for r in found.answer[0]) == ["10.96.0.1", "10.96.0.2", "10.96.0.3"]
    assert found.flags & dns.flags.AA
    assert found.answer[0].name.to_text().startswith("WEB.")
    srv = await server.ask(f"_http._tcp.web.default.svc.{Z}", "SRV")
    assert srv.answer and len(srv.additional[0]) == 3
    nodata = await server.ask(f"web.default.svc.{Z}", "AAAA")
    assert nodata.rcode() == dns.rcode.NOERROR and not nodata.answer and nodata.authority
    empty = await server.ask(f"default.svc.{Z}")
    assert empty.rcode() == dns.rcode.NOERROR
    assert (await server.ask(f"nope.default.svc.{Z}")).rcode() == dns.rcode.NXDOMAIN
    for kind in ("MX", "TXT", "HTTPS", "NAPTR", "CAA"):
        assert (await server.ask(f"web.default.svc.{Z}", kind)).rcode() == dns.rcode.NOERROR


async def test_every_address_comes_first_sometimes(server: Server) -> None:
    firsts = set()
    for _ in range(60):  # three addresses, 60 draws: a miss has p < 1e-9
        firsts.add(str(next(iter((await server.ask(f"web.default.svc.{Z}")).answer[0]))))
    assert len(firsts) == 3


async def test_large_answers_are_cut_on_udp_and_whole_on_tcp(server: Server) -> None:
    cut = await server.ask(f"big.{Z}")
    assert cut.flags & dns.flags.TC
    assert len((await server.ask(f"big.{Z}", tcp=True)).answer[0]) == 300


async def test_other_names_are_forwarded_also_behind_an_alias(server: Server) -> None:
    assert str((await server.ask("example.test.")).answer[0][0]) == "192.0.2.7"
    chain = await server.ask(f"away.{Z}")
    assert [r.rdtype.name for r in chain.answer] == ["CNAME", "A"]
    assert [r.rdtype.name for r in (await server.ask(f"alias.{Z}")).answer] == ["CNAME", "A"]


async def test_a_dead_resolver_is_servfail_with_its_name() -> None:
    resolver = Resolver(zone(), [])
    wire = dns.message.make_query("example.test.", "A", use_edns=0).to_wire()
    answer = dns.message.from_wire(await resolver.respond(wire, tcp=False) or b"")
    assert answer.rcode() == dns.rcode.SERVFAIL
    (error,) = (o for o in answer.options if isinstance(o, dns.edns.EDEOption))
    assert "no resolver outside" in (error.text or "")


async def test_malformed_queries_do_not_end_the_connection_handler(server: Server) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(struct.pack("!H", 14) + b"\x12\x34" + b"\x01\x00\x00\x05\x00\x00\x00\x00\x00\x00\xff\xff")
    size = struct.unpack("!H", await reader.readexactly(2))[0]
    assert (
        dns.message.from_wire(await reader.readexactly(size), ignore_trailing=True).rcode()
        == dns.rcode.FORMERR
    )
    writer.close()
    assert (await server.ask(f"web.default.svc.{Z}")).answer


@given(st.binary(max_size=200))
def test_no_bytes_make_the_resolver_fail(data: bytes) -> None:
    asyncio.run(Resolver(zone()).respond(data, tcp=False))


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sets(st.sampled_from(["x", "y.x", "z.y.x"]))), max_size=20)
)
def test_replacing_equals_rebuilding(edits: list[tuple[str, set[str]]]) -> None:
    incremental, last = Zone([Z]), {}
    for owner, names in edits:
        incremental.replace(owner, [Record(f"{n}.{Z}", "A", f"10.0.0.{ord(owner)}") for n in names])
        last[owner] = names
    rebuilt = Zone([Z])
    for owner, names in last.items():
        rebuilt.replace(owner, [Record(f"{n}.{Z}", "A", f"10.0.0.{ord(owner)}") for n in names])
    for name in ("x", "y.x", "z.y.x", "q.x"):
        a, b = incremental.lookup(f"{name}.{Z}", "A"), rebuilt.lookup(f"{name}.{Z}", "A")
        assert (a.rcode, sorted(a.records)) == (b.rcode, sorted(b.records))
