"""Everything bad at once, again and again, against one process: each time the same answers, and nothing is left behind.

A round is malformed bodies of every encoding, objects beyond the limit, wrong types, unknown fields, bad
tokens, clients that stop half-way, and idle watches. The gate runs one small round; `make test-all` ten.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import ssl
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from pervade.testing.guarded import Guarded

MAPS = "/api/v1/namespaces/default/configmaps"
PODS = "/api/v1/namespaces/default/pods"
WHOAMI = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
J, YAML, PROTOBUF = "application/json", "application/yaml", "application/vnd.kubernetes.protobuf"
MERGE, PATCH = "application/merge-patch+json", "application/json-patch+json"
STRATEGIC, APPLY = "application/strategic-merge-patch+json", "application/apply-patch+yaml"
WITHIN = 0.05
SILENT = 4.0
ROUNDS, WARM = 10, 2


def _field(number: int, data: bytes) -> bytes:
    return bytes([number << 3 | 2, len(data)]) + data


def _pod(raw: bytes) -> bytes:
    return b"k8s\x00" + _field(1, _field(1, b"v1") + _field(2, b"Pod")) + _field(2, raw)


BOMB = b"a: &a [x,x,x,x,x,x,x,x,x,x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (98 + n, 98 + n, b",".join([b"*%c" % (97 + n)] * 10)) for n in range(8)
)
MANY = [{"name": f"c{n}", "image": "i"} for n in range(3)]
TABLE: list[tuple[str, str, Any, str, int, str]] = [
    # Malformed.
    ("POST", MAPS, b'{"metadata":', J, 400, "BadRequest"),
    ("POST", MAPS, b'{"metadata":{"name":"\xff"}}', J, 400, "BadRequest"),
    ("POST", MAPS, b"[" * 100_000, J, 400, "BadRequest"),
    ("POST", MAPS, b'{"a":' * 50_000, J, 400, "BadRequest"),
    ("POST", f"{MAPS}?fieldValidation=Strict", b'{"a":' * 50_000, J, 400, "BadRequest"),
    ("POST", MAPS, b"null", J, 400, "BadRequest"),
    ("POST", MAPS, b"", J, 400, "BadRequest"),
    ("POST", MAPS, b"a: [", YAML, 400, "BadRequest"),
    ("POST", MAPS, BOMB, YAML, 400, "BadRequest"),
    ("POST", MAPS, b"- " * 20_000, YAML, 400, "BadRequest"),
    ("POST", MAPS, b"!!python/object/apply:os.system [id]", YAML, 400, "BadRequest"),
    ("POST", PODS, b"k8s\x00\xff\xff\xff", PROTOBUF, 400, "BadRequest"),
    ("POST", PODS, b"\x00" * 100, PROTOBUF, 400, "BadRequest"),
    ("POST", PODS, _pod(b"\x0a\x7f"), PROTOBUF, 400, "BadRequest"),
    ("POST", PODS, _pod(_field(1, _field(8, _field(1, b"x")))), PROTOBUF, 400, "BadRequest"),
    ("POST", PODS, _pod(_field(1, b"\x08\x05")), PROTOBUF, 400, "BadRequest"),
    ("POST", MAPS, b"{}", "text/plain", 415, "UnsupportedMediaType"),
    # Too large: 3 MiB is the limit.
    ("POST", MAPS, b'{"data":{"a":"' + b"x" * (4 << 20) + b'"}}', J, 413, "RequestEntityTooLarge"),
    ("POST", MAPS, b"a: " + b"x" * (4 << 20), YAML, 413, "RequestEntityTooLarge"),
    ("POST", PODS, _pod(b"") + b"\x00" * (4 << 20), PROTOBUF, 413, "RequestEntityTooLarge"),
    # Wrong types.
    ("POST", MAPS, {"metadata": {"name": 5}}, J, 400, "BadRequest"),
    ("POST", MAPS, {"metadata": []}, J, 400, "BadRequest"),
    ("POST", MAPS, {"metadata": {"name": "x", "labels": ["a"]}}, J, 400, "BadRequest"),
    ("POST", MAPS, {"kind": "Secret", "metadata": {"name": "x"}}, J, 400, "BadRequest"),
    ("POST", PODS, {"metadata": {"name": "x"}, "spec": {"containers": {}}}, J, 400, "BadRequest"),
    ("POST", PODS, {"metadata": {"name": "x"}, "spec": {"containers": []}}, J, 422, "Invalid"),
    ("POST", MAPS, {"metadata": {"name": "Not Valid"}}, J, 422, "Invalid"),
    ("POST", DEPLOYMENTS, {"metadata": {"name": "x"}, "spec": {"replicas": "two"}}, J, 400, "BadRequest"),
    ("POST", "/apis/authentication.k8s.io/v1/tokenreviews", {"spec": {"token": 5}}, J, 400, "BadRequest"),
    ("DELETE", f"{MAPS}/none", {"gracePeriodSeconds": "x"}, J, 400, "BadRequest"),
    ("DELETE", f"{MAPS}/none", {"propagationPolicy": "x"}, J, 422, "Invalid"),
    # Unknown fields.
    ("POST", f"{MAPS}?fieldValidation=Strict&dryRun=All", {"metadata": {"name": "x"}, "nonsense": 1}, J, 400, "BadRequest"),
    ("POST", f"{MAPS}?fieldValidation=Strict&dryRun=All", b'{"metadata":{"name":"x"},"data":{},"data":{}}', J, 400, "BadRequest"),
    ("POST", f"{PODS}?fieldValidation=Strict&dryRun=All", {"metadata": {"name": "x"}, "spec": {"containers": MANY, "nodeNam": "x"}}, J, 400, "BadRequest"),
    ("POST", f"{MAPS}?fieldValidation=Sometimes", {"metadata": {"name": "x"}}, J, 422, "Invalid"),
    # Patches.
    ("PATCH", f"{MAPS}/kept", b"[", MERGE, 400, "BadRequest"),
    ("PATCH", f"{MAPS}/kept", b"[]", MERGE, 400, "BadRequest"),
    ("PATCH", f"{MAPS}/kept", {"metadata": None}, MERGE, 400, "BadRequest"),
    ("PATCH", f"{MAPS}/kept", {"op": "add"}, PATCH, 400, "BadRequest"),
    ("PATCH", f"{MAPS}/kept", [{"op": "none", "path": "/x"}], PATCH, 400, "BadRequest"),
    ("PATCH", f"{MAPS}/kept", {"data": {"$patch": "nonsense"}}, STRATEGIC, 400, "BadRequest"),
    ("PATCH", f"{MAPS}/kept", b"a: [", f"{APPLY}", 400, "BadRequest"),
    ("PATCH", f"{MAPS}/kept", b"{}", "text/plain", 415, "UnsupportedMediaType"),
    # Requests for nothing.
    ("GET", f"{MAPS}/none", None, "", 404, "NotFound"),
    ("GET", f"{MAPS}?labelSelector=a%20in%20(", None, "", 400, "BadRequest"),
    ("GET", f"{MAPS}?fieldSelector=none%3D1", None, "", 400, "BadRequest"),
    ("GET", f"{MAPS}?limit=x", None, "", 400, "BadRequest"),
    ("GET", f"{MAPS}?continue=x", None, "", 400, "BadRequest"),
    ("GET", f"{MAPS}?resourceVersion=x", None, "", 400, "BadRequest"),
    ("GET", f"{MAPS}?watch=true&resourceVersion=x", None, "", 400, "BadRequest"),
    ("GET", f"{MAPS}?watch=true&sendInitialEvents=true", None, "", 422, "Invalid"),
    ("PROPFIND", MAPS, None, "", 405, "MethodNotAllowed"),
]  # fmt: skip


def tokens(server: Guarded) -> list[str]:
    """Bearer tokens that are not good: foreign, expired, unsigned, nonsense."""
    key = (server.pki / "sa.key").read_bytes()
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    about = {"namespace": "default", "serviceaccount": {"name": "default", "uid": "u"}}
    claims: Any = {
        "iss": "https://kubernetes.default.svc",
        "aud": ["https://kubernetes.default.svc"],
        "sub": "system:serviceaccount:default:default",
        "exp": time.time() + 600,
        "kubernetes.io": about,
    }
    return [
        jwt.encode(claims, other, algorithm="RS256"),
        jwt.encode(claims | {"exp": 1}, key, algorithm="RS256"),
        jwt.encode(claims | {"kubernetes.io": "x"}, key, algorithm="RS256"),
        jwt.encode(claims | {"nbf": time.time() + 600}, key, algorithm="RS256"),
        jwt.encode(claims, None, algorithm="none"),
        "nonsense",
        "a.b.c",
    ]


class Storm:
    """One kind of bad weather after the other."""

    def __init__(self, server: Guarded, watches: int) -> None:
        self.server, self.watches, self.tokens = server, watches, tokens(server)

    def prepare(self) -> None:
        assert self.server.call("", "GET", "/version").status == 200
        made = self.server.call("admin", "POST", MAPS, {"metadata": {"name": "kept"}, "data": {"a": "b"}})
        assert made.status in (201, 409), made.body
        account = {"metadata": {"name": "default"}}
        made = self.server.call("admin", "POST", "/api/v1/namespaces/default/serviceaccounts", account)
        assert made.status in (201, 409), made.body

    def bodies(self) -> None:
        """Each row of the table gets its Status."""
        for method, path, body, content_type, status, reason in TABLE:
            answer = self.server.call("admin", method, path, body, content_type=content_type)
            row = (method, path, body if not isinstance(body, bytes) else body[:60], answer)
            assert answer.status == status, row
            assert answer.body["kind"] == "Status" and answer.body["reason"] == reason, row
            assert answer.body["code"] == status and answer.body["status"] == "Failure", row
            assert answer.body["message"] and "Traceback" not in json.dumps(answer.body), row

    def credentials(self) -> None:
        for token in self.tokens:
            answer = self.server.call(f"Bearer {token}", "POST", WHOAMI, {})
            assert (answer.status, answer.body["reason"]) == (401, "Unauthorized"), answer
        assert self.server.call("", "GET", MAPS).status == 403

    async def clients(self) -> None:
        """Half-sent heads and bodies end in time, nonsense at once; others are served meanwhile."""
        post = f"POST {MAPS} HTTP/1.1\r\nHost: x\r\nContent-Type: {J}\r\nContent-Length: 100\r\n\r\n"
        slow = {
            "nothing": b"",
            "half a head": b"GET /version HTTP/1.1\r\nHost: x\r\n",
            "half a body": post.encode() + b'{"meta',
            "half a chunk": post.replace("Content-Length: 100", "Transfer-Encoding: chunked").encode()
            + b"50\r\nabc",
        }
        wrong = {
            "no http": b"\x00\x01\x02\r\n\r\n",
            "long head": b"GET /" + b"a" * 70_000,
            "odd version": b"GET / HTTP/9\r\n\r\n",
        }
        sockets = [await self._open(data) for data in (*slow.values(), *wrong.values())]
        # A handshake that never begins.
        plain = await asyncio.open_connection("127.0.0.1", self.server.port)
        assert (await asyncio.to_thread(self.server.call, "admin", "GET", "/version")).status == 200
        async with asyncio.timeout(60):
            answers = [await self._rest(reader) for reader, _ in sockets]
        for _, writer in [*sockets, plain]:
            writer.transport.abort()
        for name, answer in zip((*slow, *wrong), answers, strict=True):
            assert b"Traceback" not in answer, name
            expected = b"" if name in ("nothing", "half a head") else b"408" if name in slow else b"400"
            assert (answer[9:12] if expected else answer) == expected, (name, answer[:200])

    async def _rest(self, reader: asyncio.StreamReader) -> bytes:
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            return await reader.read(2000)
        return b""

    async def _open(self, data: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        context = self.server.context("admin")
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.server.port, ssl=context, server_hostname="127.0.0.1"
        )
        writer.write(data)
        return reader, writer

    async def idle(self) -> None:
        """Watches that wait; one change reaches all of them, and closing them frees everything."""
        mark = uuid.uuid4().hex
        ask = f"GET {MAPS}?watch=true&resourceVersion={self._version()} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        opened = []
        # Few at a time: the server is impatient here, and a busy machine is slow to greet.
        for _ in range(0, self.watches, 20):
            opened += await asyncio.gather(
                *(self._open(ask) for _ in range(min(20, self.watches - len(opened))))
            )
        async with asyncio.timeout(120):
            for reader, _ in opened:
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            body = {"data": {"mark": mark}}
            changed = await asyncio.to_thread(
                self.server.call, "admin", "PATCH", f"{MAPS}/kept", body, content_type=MERGE
            )
            assert changed.status == 200, changed.body
            for reader, _ in opened:
                while mark.encode() not in await reader.readuntil(b"\n"):
                    pass
        for _, writer in opened:
            writer.transport.abort()

    def _version(self) -> str:
        return str(self.server.call("admin", "GET", MAPS).body["metadata"]["resourceVersion"])

    async def quiet(self, descriptors: int = 1 << 20) -> tuple[int, int]:
        """Memory and descriptors once nobody watches and at most `descriptors` are open; a time-out when that never is."""
        async with asyncio.timeout(60):
            while True:
                dump = (await asyncio.to_thread(self.server.call, "admin", "GET", "/debug/store")).body
                seen = []
                for _ in range(10):
                    # What was closed on one side is closed on the other a moment later.
                    await asyncio.sleep(0.05)
                    seen.append(self.server.used())
                rss, held = seen[-1][0], min(held for _, held in seen)
                if not dump["resources"]["/configmaps"]["watchers"] and held <= descriptors:
                    return rss, held

    async def round(self) -> None:
        await asyncio.to_thread(self.bodies)
        await asyncio.to_thread(self.credentials)
        await self.clients()
        await self.idle()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Guarded]:
    """A process that is impatient with silent clients."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    made = Guarded(tmp_path, silent_seconds=SILENT)
    yield made
    made.stop()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    log = made.log.read_text()
    assert "Traceback" not in log, log[-3000:]


async def test_one_round(server: Guarded) -> None:
    """All answers are the documented ones; afterwards not one descriptor more is open than before."""
    storm = Storm(server, watches=40)
    storm.prepare()
    _, before = await storm.quiet()
    await storm.round()
    await storm.quiet(before)


@pytest.mark.matrix
@pytest.mark.timeout(900)
async def test_ten_rounds_leave_nothing(server: Guarded) -> None:
    """Memory and descriptors after the last round are within 5 % of those after the first (of `WARM` more)."""
    storm = Storm(server, watches=1000)
    storm.prepare()
    _, idle = await storm.quiet()
    used: list[tuple[int, int]] = []
    for _ in range(WARM + ROUNDS):
        await storm.round()
        used.append(await storm.quiet(int(idle * (1 + WITHIN))))
    (rss, held), (last_rss, last_held) = used[WARM], used[-1]
    assert last_held <= held * (1 + WITHIN), used
    assert last_rss <= rss * (1 + WITHIN), used
