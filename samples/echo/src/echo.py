"""The echo server: says in JSON what it saw of a connection and a request, over many protocols.

`echo.py --port http=8080 --port https=8443 …`; port 0 takes a free one. The first line on standard output
is `listening` with the ports as JSON. SIGTERM ends it: nothing new is taken, what is under way has 5 s.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import socket
import ssl
import subprocess
from asyncio import StreamReader, StreamWriter
from collections.abc import Awaitable, Callable
from typing import Any

import http1
import http2
import raw
from report import Connection

Talk = Callable[[StreamReader, StreamWriter, Connection], Awaitable[None]]
DEFAULT = ("http=8080", "https=8443", "grpc=7070", "tcp=9090", "server-first=9091", "udp=9090")
_GRACE = 5.0


async def http(reader: StreamReader, writer: StreamWriter, connection: Connection) -> None:
    """HTTP/2 when the peer begins with its preface, else HTTP/1."""
    try:
        begun = await reader.readexactly(3)
    except asyncio.IncompleteReadError:
        return
    if begun == b"PRI":
        await http2.Session(reader, writer, connection).serve(begun)
    else:
        await http1.serve(reader, writer, connection, begun)


TALKS: dict[str, Talk] = {
    "http": http,
    "https": http,
    "grpc": http,
    "tcp": raw.tcp,
    "server-first": raw.server_first,
}
KINDS = (*TALKS, "udp")


def context() -> ssl.SSLContext:
    """TLS with a certificate of its own, made now and kept in memory only; HTTP/2 is preferred."""
    name = os.environ.get("TLS_NAME", "echo")
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-days", "3650", "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name},DNS:localhost",
         "-keyout", "-", "-out", "-"],
        capture_output=True, check=True,
    )  # fmt: skip
    found = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    found.set_alpn_protocols(["h2", "http/1.1"])
    # The root may be read-only and /tmp absent; OpenSSL reads files only.
    memory = os.memfd_create("certificate")
    os.write(memory, made.stdout)
    found.load_cert_chain(f"/proc/self/fd/{memory}")
    os.close(memory)

    def remember(session: Any, asked: str | None, _context: ssl.SSLContext) -> None:
        session.asked_name = asked

    found.sni_callback = remember
    return found


class Server:
    """All listeners, and the connections that are open."""

    def __init__(self) -> None:
        self.ports: list[tuple[str, int]] = []
        self._open: list[asyncio.Server | socket.socket] = []
        self._tasks: set[asyncio.Task[Any]] = set()

    async def listen(self, kind: str, port: int) -> None:
        """Serve one more port; OSError when it is taken."""
        if kind == "udp":
            found = raw.udp(port)
            self._open.append(found)
            self.ports.append((kind, found.getsockname()[1]))
            return
        listener = socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024)
        tls = await asyncio.to_thread(context) if kind == "https" else None
        talk = TALKS[kind]
        self._open.append(
            await asyncio.start_server(lambda r, w: self._serve(talk, r, w), sock=listener, ssl=tls)
        )
        self.ports.append((kind, listener.getsockname()[1]))

    async def _serve(self, talk: Talk, reader: StreamReader, writer: StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            ends = writer.get_extra_info("peername"), writer.get_extra_info("sockname")
            await talk(reader, writer, Connection(*ends, writer.get_extra_info("ssl_object")))
        except OSError as error:
            print(f"{type(error).__name__}: {error}", flush=True)
        finally:
            self._tasks.discard(task)
            writer.close()

    async def end(self) -> None:
        """Take nothing new; give what is open a moment."""
        for one in self._open:
            if isinstance(one, socket.socket):
                asyncio.get_running_loop().remove_reader(one)
            one.close()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_GRACE)


def port(text: str) -> tuple[str, int]:
    """`kind=number`."""
    kind, _, number = text.partition("=")
    if kind not in KINDS or not number.isdigit() or int(number) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not KIND=PORT with KIND one of {', '.join(KINDS)}")
    return kind, int(number)


async def run(ports: list[tuple[str, int]]) -> None:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for sign in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sign, stop.set)
    server = Server()
    for kind, number in ports:
        await server.listen(kind, number)
    print("listening " + json.dumps(dict(server.ports)), flush=True)
    await stop.wait()
    await server.end()


def main() -> None:
    parser = argparse.ArgumentParser(description="An echo server that says what it saw.")
    parser.add_argument("--port", action="append", type=port, metavar="KIND=PORT", help=" ".join(DEFAULT))
    asyncio.run(run(parser.parse_args().port or [port(text) for text in DEFAULT]))


if __name__ == "__main__":
    main()
