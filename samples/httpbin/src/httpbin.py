"""A small httpbin: the paths that tutorials use, in the shape they know. Standard library only.

`httpbin.py [-port N] [-b HOST:PORT] …`: the flags of the programs that published manifests start; without
one it listens on 80 and 8080, where the two published images listen. Unknown flags are ignored.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

_MOST_BYTES, _MOST_SECONDS, _MOST_BODY = 10 << 20, 600.0, 16 << 20


class Refused(Exception):
    """An answer that is not 200."""

    def __init__(self, status: int, why: str = "", headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(why)
        self.status, self.headers = status, headers


class Requests(BaseHTTPRequestHandler):
    protocol_version, server_version, sys_version = "HTTP/1.1", "httpbin", ""
    disable_nagle_algorithm = True
    wbufsize = 1 << 16

    def answer(self) -> None:
        try:
            length = self.headers.get("Content-Length") or "0"
            if not length.isdigit() or int(length) > _MOST_BODY or "Transfer-Encoding" in self.headers:
                self.close_connection = True
                raise Refused(411, "give a Content-Length of at most 16 MiB")
            self.body = self.rfile.read(int(length))
            content, kind, headers = self.route()
            self.say(200, content, kind, headers)
        except Refused as refused:
            self.say(
                refused.status,
                f"{refused}\n".encode() if str(refused) else b"",
                "text/plain",
                refused.headers,
            )

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = do_OPTIONS = answer

    def route(self) -> tuple[bytes, str, tuple[tuple[str, str], ...]]:
        """The answer to a request; Refused for the rest."""
        split = urlsplit(self.path)
        head, *rest = split.path.strip("/").split("/")
        asked = {k: v[0] if len(v) == 1 else v for k, v in parse_qs(split.query).items()}
        last = rest[0] if rest else ""
        match head, rest:
            case "get" | "post" | "put" | "delete" | "patch", []:
                if self.command not in (head.upper(), "HEAD" if head == "get" else ""):
                    raise Refused(405, f"{self.command} is not served here", (("Allow", head.upper()),))
                return self.json(self.seen(asked))
            case "anything", _:
                return self.json({**self.seen(asked), "method": self.command})
            case "headers", []:
                return self.json({"headers": self.given()})
            case "ip", []:
                return self.json({"origin": self.origin()})
            case "user-agent", []:
                return self.json({"user-agent": self.headers.get("User-Agent", "")})
            case "uuid", []:
                return self.json({"uuid": str(uuid4())})
            case "hostname", []:
                return self.json({"hostname": socket.gethostname()})
            case "health" | "", []:
                return (
                    b"httpbin: /get /post /put /delete /patch /anything /headers /ip /status/N /delay/S\n",
                    "text/plain",
                    (),
                )
            case "status", [_]:
                status = int(self.number(last, 200, 599))
                raise Refused(status) if status != 200 else Refused(200)
            case "delay", [_]:
                time.sleep(self.number(last, 0, _MOST_SECONDS))
                return self.json(self.seen(asked))
            case "bytes", [_]:
                return b"x" * int(self.number(last, 0, _MOST_BYTES)), "application/octet-stream", ()
            case "redirect", [_]:
                left = int(self.number(last, 1, 100)) - 1
                raise Refused(302, "", (("Location", f"/redirect/{left}" if left else "/get"),))
            case "response-headers", []:
                pairs = tuple(
                    (k, str(v)) for k, v in asked.items() if not any(c in f"{k}{v}" for c in "\r\n")
                )
                return (*self.json(dict(pairs))[:2], pairs)
            case "basic-auth", [user, password]:
                return self.basic(user, password)
            case "bearer", []:
                kind, _, token = self.headers.get("Authorization", "").partition(" ")
                if kind != "Bearer" or not token:
                    raise Refused(401, "", (("WWW-Authenticate", "Bearer"),))
                return self.json({"authenticated": True, "token": token})
        raise Refused(404, "not found")

    def basic(self, user: str, password: str) -> tuple[bytes, str, tuple[tuple[str, str], ...]]:
        wanted = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
        if self.headers.get("Authorization") != wanted:
            raise Refused(401, "", (("WWW-Authenticate", 'Basic realm="httpbin"'),))
        return self.json({"authenticated": True, "user": user})

    def seen(self, asked: dict[str, Any]) -> dict[str, Any]:
        host = self.headers.get("Host", "")
        found: dict[str, Any] = {"args": asked, "headers": self.given(), "origin": self.origin()}
        found["url"] = f"http://{host}{self.path}"
        if self.command not in ("GET", "HEAD"):
            text, form = self.body.decode(errors="replace"), {}
            if self.headers.get_content_type() == "application/x-www-form-urlencoded":
                form, text = {k: v[0] for k, v in parse_qs(text).items()}, ""
            try:
                value = json.loads(text) if text else None
            except ValueError:
                value = None
            found |= {"data": text, "form": form, "json": value}
        return found

    def given(self) -> dict[str, str]:
        return {name.title(): ",".join(self.headers.get_all(name) or ()) for name in self.headers}

    def origin(self) -> str:
        peer = str(self.client_address[0]).removeprefix("::ffff:")
        return self.headers.get("X-Forwarded-For", peer)

    @staticmethod
    def number(text: str, least: float, most: float) -> float:
        try:
            found = float(text)
        except ValueError:
            raise Refused(400, "not a number") from None
        if not least <= found <= most:
            raise Refused(400, f"a number from {least:.0f} to {most:.0f}")
        return found

    @staticmethod
    def json(value: Any) -> tuple[bytes, str, tuple[tuple[str, str], ...]]:
        return json.dumps(value, indent=2).encode() + b"\n", "application/json", ()

    def say(self, status: int, content: bytes, kind: str, headers: tuple[tuple[str, str], ...]) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        if status not in (204, 304):
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD" and status not in (204, 304):
            self.wfile.write(content)
        self.wfile.flush()

    def log_message(self, text: str, *values: Any) -> None:
        print(f"{time.strftime('%H:%M:%S')} {self.address_string()} {text % values}", flush=True)


class Listener(ThreadingHTTPServer):
    """Both address families on one port."""

    address_family = socket.AF_INET6
    daemon_threads = True
    request_queue_size = 256

    def server_bind(self) -> None:
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


def ports(flags: list[str]) -> list[int]:
    """The ports that flags ask for: `-port 8080`, `-b 0.0.0.0:8080`, `--bind=[::]:80`."""
    found, wanted = [], ("-port", "--port", "-b", "--bind")
    for i, flag in enumerate(flags):
        name, _, value = flag.partition("=")
        if name in wanted:
            value = value or (flags[i + 1] if i + 1 < len(flags) else "")
            number = value.rpartition(":")[2]
            if not number.isdigit():
                raise SystemExit(f"{flag} needs a port")
            found.append(int(number))
    return found or [80, 8080]


def main() -> None:
    servers = []
    for port in ports(sys.argv[1:]):
        try:
            servers.append(Listener(("::", port), Requests))
        except PermissionError:
            print(f"not allowed to listen on {port}", flush=True)
    if not servers:
        raise SystemExit("nothing to listen on")
    stop = threading.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, lambda *_: stop.set())
    for server in servers:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 3600}, daemon=True).start()
    print("listening " + json.dumps({"http": servers[0].server_port}), flush=True)
    stop.wait()
    os._exit(0)


if __name__ == "__main__":
    main()
