"""Servers as processes of their own: the development API server, and the bare one it is compared with."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.guard import Guard
from pervade.host import processes

ROOT = Path(__file__).resolve().parents[1]


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextmanager
def running(guard: Guard, module: str, *arguments: str, port: int, ready: str) -> Iterator[int]:
    """`python -m module` until the end of the block; gives its pid once `ready` (a path) answers."""
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments], cwd=ROOT, env=environment, stderr=subprocess.DEVNULL
    )
    guard.process(process.pid)
    try:
        limit = time.monotonic() + 30
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}{ready}", timeout=5).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > limit:
                    raise RuntimeError(f"{module} did not start") from None
                time.sleep(0.05)
        yield process.pid
    finally:
        processes.stop(process.pid)
        process.wait()


@contextmanager
def apiserver(guard: Guard, folder: Path) -> Iterator[tuple[str, int]]:
    """The API server of this tree in its development mode (plain HTTP on loopback): address and pid."""
    port = free_port()
    arguments = ("--insecure-port", str(port), "--state-dir", str(folder))
    with running(guard, "pervade.app.apiserver", *arguments, port=port, ready="/readyz") as pid:
        yield f"http://127.0.0.1:{port}", pid


@contextmanager
def bare(guard: Guard) -> Iterator[str]:
    """The address of `bench.bare`."""
    port = free_port()
    with running(guard, "bench.bare", str(port), port=port, ready="/readyz"):
        yield f"http://127.0.0.1:{port}"
