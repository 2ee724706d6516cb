"""How long one change takes to reach 1,000 watchers.

Watchers are plain sockets in this process, read by epoll, so that the reader costs a few µs per event; the clock
starts when the change is sent and stops for each watcher when its line is read.
"""

from __future__ import annotations

import resource
import select
import socket
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from bench.guard import Guard
from bench.row import Row, share
from bench.servers import apiserver, bare

_WATCHERS, _ROUNDS, _PATIENCE = 1000, 30, 30.0


def _connect(url: str) -> socket.socket:
    where = urlsplit(url)
    return socket.create_connection((where.hostname or "", where.port or 80), timeout=_PATIENCE)


def _request(method: str, path: str, body: bytes = b"") -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: bench\r\nAccept: application/json\r\n"
    if body:
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


def _obj(round_: int) -> bytes:
    data = f'{{"round":"round-{round_:04}","more":"{"x" * 300}"}}'
    return f'{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"seen"}},"data":{data}}}'.encode()


def delays(url: str, watch: str, change: Callable[[int], bytes]) -> list[float]:
    """Seconds from sending each of 30 changes to each of 1,000 watchers' reading it."""
    poll = select.epoll()
    watchers: dict[int, socket.socket] = {}
    writer = _connect(url)
    try:
        for _ in range(_WATCHERS):
            one = _connect(url)
            one.sendall(_request("GET", watch))
            watchers[one.fileno()] = one
        for one in watchers.values():
            if b"200" not in one.recv(1 << 16).split(b"\r\n")[0]:
                raise RuntimeError("a watch was refused")
            one.setblocking(False)
            poll.register(one, select.EPOLLIN)
        seen: list[float] = []
        for number in range(1, _ROUNDS + 1):
            mark, missing = f"round-{number:04}".encode(), dict.fromkeys(watchers, b"")
            begin = time.perf_counter()
            writer.sendall(change(number))
            while missing:
                ready = poll.poll(_PATIENCE)
                if not ready:
                    raise RuntimeError(f"{len(missing)} watchers did not hear of a change")
                for fd, _ in ready:
                    got = watchers[fd].recv(1 << 16)
                    if not got:
                        raise RuntimeError("a watch ended")
                    if fd in missing:
                        missing[fd] += got
                        if mark in missing[fd]:
                            del missing[fd]
                            seen.append(time.perf_counter() - begin)
            if b" 200 " not in writer.recv(1 << 16).split(b"\r\n")[0]:
                raise RuntimeError("a change was refused")
            time.sleep(0.05)
        return seen
    finally:
        poll.close()
        for one in (writer, *watchers.values()):
            one.close()


def rows(guard: Guard, folder: Path) -> list[Row]:
    """p50 and p99 of the server, against a bare aiohttp server that does the same without a store."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(hard, 4096), max(hard, 4096)))
    with bare(guard) as url:
        plain = delays(url, "/stream", lambda n: _request("PUT", "/change", _obj(n)))
    maps = "/api/v1/namespaces/default/configmaps"
    with apiserver(guard, folder / "fanout") as (url, _pid):
        with _connect(url) as first:
            first.sendall(_request("POST", maps, _obj(0)))
            if b" 201 " not in first.recv(1 << 16).split(b"\r\n")[0]:
                raise RuntimeError("no object could be made")
        watch = f"{maps}?watch=true&timeoutSeconds=600"
        ours = delays(url, watch, lambda n: _request("PUT", f"{maps}/seen", _obj(n)))
    how = f"{_ROUNDS} changes of a ConfigMap × {_WATCHERS} watchers, from sending the change to reading the line"
    return [
        Row(f"a change to {_WATCHERS} watchers, p{part}", value * 1e3, "ms", target, True, base * 1e3, "bare aiohttp streams", how)
        for part, target, value, base in (
            (50, None, share(ours, 0.50), share(plain, 0.50)),
            (99, 100.0, share(ours, 0.99), share(plain, 0.99)),
        )
    ]  # fmt: skip
