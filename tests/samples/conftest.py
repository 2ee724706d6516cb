"""Sample services as processes on loopback, with the interpreter and libraries of their image."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

SAMPLES = Path(__file__).parents[2] / "samples"
# The image runs Debian's interpreter with Debian's python3-h2; so do the tests.
PYTHON = "/usr/bin/python3"


class Service:
    """A running sample: its process and its ports by kind."""

    def __init__(self, script: str, *arguments: str, **env: str) -> None:
        argv = ["setpriv", "--pdeathsig", "KILL", PYTHON, str(SAMPLES / script), *arguments]
        clean = {k: v for k, v in os.environ.items() if k in ("PATH", "LANG")}
        self.process = subprocess.Popen(
            argv,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**clean, "PYTHONDONTWRITEBYTECODE": "1", **env},
        )
        self.ports: dict[str, int] = json.loads(self._first_line())

    def _first_line(self) -> str:
        assert self.process.stdout is not None
        limit, said = time.monotonic() + 20, b""
        while time.monotonic() < limit and select.select([self.process.stdout], [], [], 1)[0] is not None:
            if not select.select([self.process.stdout], [], [], 0)[0]:
                continue
            piece = os.read(self.process.stdout.fileno(), 4096)
            said += piece
            for line in said.decode().splitlines():
                if line.startswith("listening {") and line.endswith("}"):
                    return line.removeprefix("listening ")
            if not piece:
                break
        raise AssertionError(f"did not listen: {said.decode()}")

    @property
    def http(self) -> int:
        return self.ports["http"]

    def end(self) -> int:
        """SIGTERM, and its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(10)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


Start = Callable[..., Service]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start sample services; they end with the test."""
    made: list[Service] = []

    def one(script: str, *arguments: str, **env: str) -> Service:
        made.append(Service(script, *arguments, **env))
        return made[-1]

    yield one
    for service in made:
        service.kill()


@pytest.fixture(scope="module")
def start_shared() -> Iterator[Start]:
    """As `start`, for a whole file."""
    made: list[Service] = []

    def one(script: str, *arguments: str, **env: str) -> Service:
        made.append(Service(script, *arguments, **env))
        return made[-1]

    yield one
    for service in made:
        service.kill()
