"""A real API server process in the insecure mode, without controllers and nodes, and clients of it."""

from __future__ import annotations

import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pervade.testing import kubectl_objects
from pervade.testing.cluster import CACHE, free_port
from pervade.testing.kubectl import Client
from pervade.testing.wait import until

_CONFIG = """
apiVersion: v1
kind: Config
current-context: c
contexts: [{name: c, context: {cluster: c, user: u}}]
clusters: [{name: c, cluster: {server: "%s"}}]
users: [{name: u, user: {}}]
"""


def _ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError):
        return False


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The kubeconfig of a server of this module."""
    folder, port = tmp_path_factory.mktemp("server"), free_port()
    url = f"http://127.0.0.1:{port}"
    with (folder / "log").open("wb") as log:
        child = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "pervade.app.apiserver",
                "--state-dir",
                folder,
                "--insecure-port",
                str(port),
            ],
            stdout=log,
            stderr=log,
        )
    try:
        until(lambda: _ready(url), 30)
        (folder / "kubeconfig.yaml").write_text(_CONFIG % url)
        yield folder / "kubeconfig.yaml"
    finally:
        child.terminate()
        child.wait(20)


@pytest.fixture(scope="module")
def client_named(server: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Client]:
    """A client of `server` by the name of its program."""

    def make(name: str) -> Client:
        if not (CACHE / "bin" / name).exists():
            pytest.skip(f"{name} is not built: make kubectl")
        return Client(name, server, tmp_path_factory.mktemp(name), kubectl_objects.FILES)

    return make
