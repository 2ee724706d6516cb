"""The kubelet's HTTPS API as the API server reaches it: from inside the fabric, with its own client certificate."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import ssl
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from pervade.cluster.apiserver.kinds.kind import JSON
from pervade.cluster.apiserver.rest.context import Request
from pervade.cluster.apiserver.rest.status import StatusError, bad_request
from pervade.wire.hijack import Hijacked, take
from pervade.wire.http import web

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Dial = Callable[[str, int], socket.socket]
"""A TCP socket for (address, port), not connected, in the network that nodes are reached from."""
_CHUNK = 64 * 1024
_HEAD_MOST = 64 * 1024
_CONNECT_SECONDS = 10.0
_DEFAULT = "kubectl.kubernetes.io/default-container"
_LOGS = ("follow", "tailLines", "sinceSeconds", "sinceTime", "timestamps", "previous", "limitBytes")
_EXEC = {"stdin": "input", "stdout": "output", "stderr": "error", "tty": "tty"}
_FORWARDED = frozenset(
    {"connection", "upgrade", "origin", "user-agent", "accept", "x-stream-protocol-version"}
)
"""What of the caller's head the kubelet needs. Everything else stays here: credentials, cookies, impersonation."""
_TOKEN_PROTOCOL = "base64url.bearer.authorization.k8s.io."
_GROUPS = ("initContainers", "containers", "ephemeralContainers")


def container_of(pod: JSON, asked: str | None) -> str:
    """The container a request means; 400 when it names none of the pod's."""
    spec, name = pod["spec"], pod["metadata"]["name"]
    names = [c["name"] for g in _GROUPS for c in spec.get(g) or ()]
    if asked:
        if asked not in names:
            raise bad_request(f"container {asked} is not valid for pod {name}")
        return asked
    default = (pod["metadata"].get("annotations") or {}).get(_DEFAULT)
    if default in names:
        return str(default)
    plain = [c["name"] for c in spec.get("containers") or ()]
    if len(plain) != 1:
        raise bad_request(
            f"a container name must be specified for pod {name}, choose one of: [{' '.join(names)}]"
        )
    return str(plain[0])


def forwarded(headers: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """The headers of an upgrade request that its kubelet may see. Pure.

    Browsers carry bearer tokens in `Sec-WebSocket-Protocol`, for want of another header: that part is left out.
    """
    for name, value in headers:
        known = name.lower()
        if known == "sec-websocket-protocol":
            kept = [p for p in (p.strip() for p in value.split(",")) if not p.startswith(_TOKEN_PROTOCOL)]
            if kept:
                yield name, ", ".join(kept)
        elif known in _FORWARDED or known.startswith("sec-websocket-"):
            yield name, value


class Kubelets:
    """Relays; `address_of(node)` gives where the kubelet of a node listens, None when the node is unknown."""

    def __init__(
        self, tls: ssl.SSLContext | None, dial: Dial, address_of: Callable[[str], tuple[str, int] | None]
    ) -> None:
        self.tls, self.dial, self.address_of = tls, dial, address_of

    def table(self) -> dict[tuple[str, str], Any]:
        """Handlers by (table, subresource), as `Server.connect` wants them."""
        return {
            ("/pods", "log"): self.log,
            ("/pods", "exec"): self.run,
            ("/pods", "attach"): self.run,
            ("/pods", "portforward"): self.port_forward,
        }

    async def log(self, http: web.BaseRequest, request: Request, pod: JSON) -> web.StreamResponse:
        """pods/log, as text, for as long as the kubelet sends."""
        container = container_of(pod, request.query.get("container"))
        query = [(k, request.query[k]) for k in _LOGS if k in request.query]
        for name in ("tailLines", "sinceSeconds", "limitBytes"):
            if name in request.query and not re.fullmatch(r"\d{1,15}", request.query[name]):
                raise bad_request(f"{name}: {request.query[name]!r} is not a number")
        path = self._path("containerLogs", pod, container)
        reader, writer = await self._ask(pod, "GET", path, query, [("Connection", "close")])
        try:
            status, headers, _ = await _head(reader)
            if status != 200:
                raise await _refusal(status, headers, reader)
            response = web.StreamResponse(headers={"Content-Type": "text/plain", "Cache-Control": "no-cache"})
            await response.prepare(http)
            await response.write(b"")
            async for chunk in _body(headers, reader):
                await response.write(chunk)
            await response.write_eof()
            return response
        finally:
            await _close(writer)

    async def run(self, http: web.BaseRequest, request: Request, pod: JSON) -> web.StreamResponse:
        """pods/exec and pods/attach."""
        container = container_of(pod, request.query.get("container"))
        raw = http.query
        query = [("command", c) for c in raw.getall("command", ())]
        query += [(far, "1") for near, far in _EXEC.items() if raw.get(near) in ("1", "true")]
        if request.info.subresource == "exec" and not query:
            raise bad_request("you must specify at least 1 command for the container")
        path = self._path(request.info.subresource, pod, container)
        return await self._relay(http, pod, path, query)

    async def port_forward(self, http: web.BaseRequest, request: Request, pod: JSON) -> web.StreamResponse:
        query = [("port", p) for p in http.query.getall("ports", http.query.getall("port", ()))]
        return await self._relay(http, pod, self._path("portForward", pod), query)

    def _path(self, verb: str, pod: JSON, container: str = "") -> str:
        meta = pod["metadata"]
        return "/".join(("", verb, meta["namespace"], meta["name"], *([container] if container else [])))

    async def _relay(
        self, http: web.BaseRequest, pod: JSON, path: str, query: list[tuple[str, str]]
    ) -> web.StreamResponse:
        if "upgrade" not in http.headers.get("Connection", "").lower():
            raise bad_request("Upgrade request required")
        headers = list(forwarded(http.headers.items()))
        far = await self._ask(pod, http.method, path, query, headers)
        try:
            status, answered, head = await _head(far[0])
            if status != 101:
                raise await _refusal(status, answered, far[0])
            near = take(http)
            near[1].write(head)
            await _both_ways(near, far)
        finally:
            await _close(far[1])
        return Hijacked()

    async def _ask(
        self,
        pod: JSON,
        method: str,
        path: str,
        query: Iterable[tuple[str, str]],
        headers: Iterable[tuple[str, str]],
    ) -> Connection:
        name, node = pod["metadata"]["name"], (pod.get("spec") or {}).get("nodeName")
        if not node:
            raise bad_request(f"pod {name} does not have a host assigned")
        where = self.address_of(node)
        if where is None:
            raise StatusError(404, f'nodes "{node}" not found', details={"name": node, "kind": "nodes"})
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                sock = await asyncio.to_thread(self.dial, *where)
                # A kubelet that is away must not keep the whole server waiting for its handshake.
                sock.setblocking(False)
                try:
                    await asyncio.get_running_loop().sock_connect(sock, where)
                    reader, writer = await asyncio.open_connection(
                        sock=sock,
                        ssl=self.tls,
                        server_hostname=where[0] if self.tls else None,
                        limit=_HEAD_MOST,
                    )
                except BaseException:
                    sock.close()
                    raise
        except (OSError, TimeoutError, ssl.SSLError) as error:
            text = f"error dialing backend: the kubelet of {node} at {where[0]}:{where[1]} does not answer: {error or 'timeout'}"
            raise StatusError(500, text) from None
        text = "".join(f"{k}: {v}\r\n" for k, v in headers)
        target = f"{path}?{urlencode(list(query))}"
        writer.write(f"{method} {target} HTTP/1.1\r\nHost: {where[0]}:{where[1]}\r\n{text}\r\n".encode())
        return reader, writer


async def _head(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and the raw head of an answer."""
    try:
        async with asyncio.timeout(30):
            head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError, TimeoutError) as error:
        raise StatusError(
            500, f"error dialing backend: the kubelet gave no answer: {error or 'timeout'}"
        ) from None
    first, *lines = head.decode("latin-1").split("\r\n")
    parts = first.split(" ")
    if len(parts) < 2 or not parts[1].isdigit():
        raise StatusError(500, "error dialing backend: the kubelet's answer is no HTTP")
    headers = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in lines if line)}
    return int(parts[1]), headers, head


async def _refusal(status: int, headers: dict[str, str], reader: asyncio.StreamReader) -> StatusError:
    """What the kubelet said instead, as a Status."""
    text = b""
    with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError, ValueError):
        async with asyncio.timeout(5):
            async for chunk in _body(headers, reader):
                text += chunk
                if len(text) > 8192:
                    break
    said = text.decode(errors="replace").strip() or f"the kubelet answered {status}"
    return StatusError(status if 400 <= status < 600 else 500, said)


async def _body(headers: dict[str, str], reader: asyncio.StreamReader) -> Any:
    """The chunks of a body: chunked, of a known length, or to the end of the connection (RFC 9112, 6)."""
    if headers.get("transfer-encoding", "").lower() == "chunked":
        while size := _size((await reader.readline()).split(b";")[0]):
            left = size
            while left:
                chunk = await reader.read(min(left, _CHUNK))
                if not chunk:
                    return
                left -= len(chunk)
                yield chunk
            await reader.readexactly(2)
        return
    said = headers.get("content-length", "")
    left = int(said) if said.isdecimal() else 1 << 62
    while left and (chunk := await reader.read(min(left, _CHUNK))):
        left -= len(chunk)
        yield chunk


def _size(text: bytes) -> int:
    """Of a chunk; what is no size ends the body, as a closed connection does."""
    return int(text, 16) if re.fullmatch(rb"[0-9A-Fa-f]{1,15}", text.strip()) else 0


async def _both_ways(near: Connection, far: Connection) -> None:
    """Copy both directions until one end closes, at the pace of the slower end."""

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while data := await reader.read(_CHUNK):
                writer.write(data)
                await writer.drain()

    tasks = [asyncio.create_task(copy(near[0], far[1])), asyncio.create_task(copy(far[0], near[1]))]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        # What the other end has already sent still goes out.
        await asyncio.wait(tasks, timeout=1.0)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # Its protocol is the HTTP server's, which cannot be waited for; it closes in its own time.
        near[1].close()


async def _close(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, ssl.SSLError, TimeoutError):
        writer.close()
        async with asyncio.timeout(2):
            await writer.wait_closed()


def client_tls(pki: Path) -> ssl.SSLContext:
    """TLS to kubelets: their certificates are the cluster's, ours is apiserver-kubelet-client."""
    context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
    context.load_cert_chain(pki / "apiserver-kubelet-client.crt", pki / "apiserver-kubelet-client.key")
    return context
