"""A real cluster for the stories of this folder, by the command line as a user types it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

KUBECTL = Path("/var/cache/pervade/bin/kubectl-1.32")


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Cluster:
    """One cluster of a test: its own name, address plan and kubeconfig, removed in the end."""

    def __init__(self, name: str, octet: int, folder: Path) -> None:
        self.name, self.config = name, folder / "kubeconfig.yaml"
        self.state, self.run_dir = Path("/var/lib/pervade") / name, Path("/run/pervade") / name
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
            [sys.executable, "-m", "pervade.cli.main", *words],
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
        done = subprocess.run(
            [KUBECTL, "--kubeconfig", self.config, "--cache-dir", self.config.with_name("cache"), *words],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert not check or done.returncode == 0, f"{words}: {done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture
def machine() -> None:
    """Skip, with the reason, where no real node can run."""
    if os.geteuid() != 0 or not shutil.which("containerd"):
        pytest.skip("needs root and containerd")


@pytest.fixture
def cluster_of(machine: None, tmp_path: Path) -> Iterator[Callable[[int], Cluster]]:
    """Make a cluster of this test with an octet of its address plan; it is purged afterwards, also on failure."""
    made: list[Cluster] = []

    def make(octet: int) -> Cluster:
        made.append(Cluster(f"h6-{octet}-{os.getpid()}", octet, tmp_path))
        return made[-1]

    yield make
    for cluster in made:
        cluster.pervade("down", "--name", cluster.name, "--purge", check=False)
