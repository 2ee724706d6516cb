"""What the four bookinfo services share: a small HTTP server and calls that carry the trace on. Standard library only."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

FORWARDED = (
    "x-request-id", "x-ot-span-context", "x-datadog-trace-id", "x-datadog-parent-id", "x-datadog-sampling-priority",
    "traceparent", "tracestate", "x-cloud-trace-context", "grpc-trace-bin", "x-b3-traceid", "x-b3-spanid",
    "x-b3-parentspanid", "x-b3-sampled", "x-b3-flags", "b3", "sw8", "end-user", "user-agent", "cookie",
    "authorization", "jwt",
)  # fmt: skip
_TIMEOUT = 10.0
_MOST = 1 << 20


class Answer(Exception):
    """An answer other than 200 with JSON; raise it anywhere in a handler."""

    def __init__(
        self, status: int, body: Any = None, content_type: str = "application/json", headers: Any = ()
    ) -> None:
        super().__init__(status)
        self.status, self.body, self.content_type, self.headers = status, body, content_type, list(headers)


class Call:
    """One request as a handler sees it."""

    def __init__(self, method: str, path: str, headers: dict[str, str], body: bytes) -> None:
        self.method, self.path, self.headers, self.body = method, path, headers, body

    @property
    def forwarded(self) -> dict[str, str]:
        """The headers that follow a request through the whole application."""
        return {name: self.headers[name] for name in FORWARDED if name in self.headers}


Handler = Callable[[Call], Any]


def host_of(variable: str, name: str) -> str:
    """Where a service is: its variable (as published), plus the domain in SERVICES_DOMAIN."""
    domain = os.environ.get("SERVICES_DOMAIN", "")
    return os.environ.get(variable, name) + (f".{domain}" if domain else "")


def get(host: str, port: int, path: str, call: Call, timeout: float = _TIMEOUT) -> tuple[int, Any]:
    """(status, decoded body) of a GET; status 0 when nobody answered."""
    connection = HTTPConnection(host, port, timeout=timeout)
    try:
        connection.request("GET", path, headers=call.forwarded)
        response = connection.getresponse()
        return response.status, json.loads(response.read() or b"null")
    except (OSError, HTTPException, ValueError) as error:
        print(f"{host}:{port}{path}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return 0, None
    finally:
        connection.close()


def number(text: str) -> int:
    """A product's number; an Answer 400 when it is none."""
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise Answer(400, {"error": "please provide numeric product ID"})
    return int(text)


def port_of(variable: str) -> int:
    """A service's port from its variable. Kubernetes may set such a name to a URL; that is not a port."""
    text = os.environ.get(variable, "9080")
    return int(text) if text.isdigit() else 9080


def main(handle: Handler) -> None:
    """Serve on the port of the command line, else of PORT, else 9080; 0 takes a free one."""
    serve(handle, int(sys.argv[1]) if len(sys.argv) > 1 else port_of("PORT"))


def serve(handle: Handler, port: int) -> None:
    """Answer requests on all addresses until SIGTERM; then finish those that are under way."""

    class Requests(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        server_version = "bookinfo"
        sys_version = ""
        disable_nagle_algorithm = True
        wbufsize = 1 << 16

        def answer(self) -> None:
            try:
                body = self._body()
            except ValueError as error:
                self.close_connection = True
                self._send(Answer(400, {"error": str(error)}))
                return
            with busy:
                self._answer(body)

        def _body(self) -> bytes:
            """The request's body, whole; ValueError when its length cannot be known or is too large."""
            if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
                data = b""
                while size := self._length(self.rfile.readline(64).partition(b";")[0].strip().decode(), 16):
                    data += self.rfile.read(size)
                    if self.rfile.readline(64) != b"\r\n" or len(data) > _MOST:
                        raise ValueError("the body is not chunked as it should be, or too large")
                while self.rfile.readline(1024).strip():
                    continue
                return data
            return self.rfile.read(self._length(self.headers.get("Content-Length") or "0", 10))

        @staticmethod
        def _length(text: str, base: int) -> int:
            if (
                text.strip("0123456789abcdefABCDEF" if base == 16 else "0123456789")
                or not text
                or len(text) > 8
            ):
                raise ValueError("the length of the body is not a number")
            if (found := int(text, base)) > _MOST:
                raise ValueError("the body is too large")
            return found

        def _answer(self, body: bytes) -> None:
            call = Call(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body)
            try:
                found = handle(call)
                said = found if isinstance(found, Answer) else Answer(200, found)
            except Answer as other:
                said = other
            self._send(said)

        def _send(self, said: Answer) -> None:
            if isinstance(said.body, bytes):
                data = said.body
            elif said.content_type == "application/json":
                data = json.dumps(said.body).encode()
            else:
                data = str(said.body or "").encode()
            self.send_response(said.status)
            self.send_header("Content-Type", said.content_type)
            self.send_header("Content-Length", str(len(data)))
            for name, value in said.headers:
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)
            self.wfile.flush()

        do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_PATCH = do_OPTIONS = answer

        def log_message(self, text: str, *values: Any) -> None:
            print(f"{time.strftime('%H:%M:%S')} {self.address_string()} {text % values}", flush=True)

    busy = _Busy()

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        # With Python's 5, a burst of callers waits a second for its SYN to be sent again.
        request_queue_size = 1024

    server = Server(("", port), Requests)
    signal.signal(signal.SIGTERM, _end)
    print("listening " + json.dumps({"http": server.server_port}), flush=True)
    try:
        server.serve_forever(poll_interval=3600)
    except SystemExit:
        server.socket.close()
        busy.wait(5.0)
        sys.stdout.flush()
        os._exit(0)


def _end(*_: object) -> None:
    # Raised in the main thread, which waits in select: the signal itself wakes it.
    raise SystemExit(0)


class _Busy:
    """Counts requests under way."""

    def __init__(self) -> None:
        self.count = 0
        self.idle = threading.Condition()

    def __enter__(self) -> None:
        with self.idle:
            self.count += 1

    def __exit__(self, *_: object) -> None:
        with self.idle:
            self.count -= 1
            self.idle.notify_all()

    def wait(self, timeout: float) -> None:
        with self.idle:
            self.idle.wait_for(lambda: self.count == 0, timeout)
