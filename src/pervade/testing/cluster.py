"""A real cluster for a test, by the command line as a user types it."""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

CACHE = Path(os.environ.get("PERVADE_CACHE", "/var/cache/pervade"))
KUBECTL = CACHE / "bin" / "kubectl-1.32"
STATE, RUN = Path("/var/lib/pervade"), Path("/run/pervade")


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def free_octet() -> int:
    """An octet for an address plan that no cluster of this machine has, so that test runs live side by side."""
    taken = "".join(plan.read_text() for plan in STATE.glob("*/plan.json"))
    free = [n for n in range(60, 240, 2) if f"172.31.{n}." not in taken and f'"10.{n}.' not in taken]
    return random.choice([n for n in free if n not in (76, 96)])


class Cluster:
    """One cluster of a test: its own name, address plan (from one octet) and kubeconfig below `folder`."""

    def __init__(self, name: str, octet: int, folder: Path) -> None:
        self.name, self.config = name, folder / "kubeconfig.yaml"
        self.state, self.run_dir = STATE / name, RUN / name
        self.prefix: list[str] = []
        """Put before every command: `nsenter --net=…` makes another network namespace the cluster's host."""
        self.flags = [
            "--name",
            name,
            "--api-port",
            str(free_port()),
            "--fabric-cidr",
            f"172.31.{octet}.0/24",
            "--pod-cidr",
            f"10.{octet}.0.0/16",
            "--service-cidr",
            f"10.{octet + 1}.0.0/16",
        ]

    def pervade(self, *words: str, check: bool = True, timeout: float = 150) -> str:
        """Run the command line; its output."""
        environment = os.environ | {"KUBECONFIG": str(self.config), "NO_COLOR": "1"}
        done = subprocess.run(
            [*self.prefix, sys.executable, "-m", "pervade.cli.main", *words],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            env=environment,
        )
        assert not check or done.returncode == 0, f"{words}: {done.stdout}\n{done.stderr}"
        return done.stdout if check else done.stdout + done.stderr

    def up(self, *more: str) -> str:
        return self.pervade("up", *self.flags, *more)

    def down(self, *more: str) -> str:
        return self.pervade("down", "--name", self.name, *more)

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(
            self.pervade("status", "--name", self.name, "-o", "json", check=False)
        )
        return found

    def pid(self, program: str) -> int:
        """Present pid of a process by its name in the status."""
        return next(int(p["pid"]) for p in self.status()["processes"] if p["name"] == program)

    def kubectl(self, *words: str, check: bool = True, timeout: float = 60) -> str:
        common = ["--kubeconfig", str(self.config), "--cache-dir", str(self.config.with_name("cache"))]
        done = subprocess.run(
            [*self.prefix, str(KUBECTL), *common, *words],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert not check or done.returncode == 0, f"{words}: {done.stdout}\n{done.stderr}"
        return done.stdout

    def jsonpath(self, what: str, path: str) -> str:
        """A field of an object, as kubectl prints it."""
        return self.kubectl("get", what, "-o", f"jsonpath={path}").strip()
