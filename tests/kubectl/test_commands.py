"""Stock kubectl against a real cluster: the rows of `commands.ROWS` in order, with the oldest and newest client we build."""

from __future__ import annotations

import re
import socket
import subprocess
from pathlib import Path

import pytest

from pervade.testing import kubectl_commands as commands
from pervade.testing.cluster import Cluster
from pervade.testing.kubectl import CLIENTS, Client, failures

pytestmark = pytest.mark.live


@pytest.fixture(scope="module", params=CLIENTS)
def client(
    request: pytest.FixtureRequest, room_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Client:
    return Client(request.param, room_cluster.config, tmp_path_factory.mktemp(request.param), commands.FILES)


@pytest.mark.timeout(1200)
def test_the_table(client: Client) -> None:
    wrong = failures(client, commands.ROWS)
    assert not wrong, f"{len(wrong)} of {len(commands.ROWS)} rows:\n" + "\n".join(wrong)


def test_port_forward_carries_bytes_both_ways(room_cluster: Cluster, client: Client, tmp_path: Path) -> None:
    """To a pod and to a Service; several connections; the forward ends when it is told to."""
    manifest = tmp_path / "fwd.yaml"
    manifest.write_text(commands.WEB.replace("web", "fwd"))
    room_cluster.kubectl("apply", "-f", str(manifest))
    room_cluster.kubectl("rollout", "status", "deployment/fwd", "--timeout=60s", timeout=90)
    for target in ("deployment/fwd", "service/fwd"):
        inner = "8080" if target.startswith("deployment") else "80"
        child = subprocess.Popen(
            [
                client.program,
                "--kubeconfig",
                room_cluster.config,
                "-n",
                "default",
                "port-forward",
                target,
                f":{inner}",
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert child.stdout is not None
            said = child.stdout.readline()
            port = int(re.search(r"127\.0\.0\.1:(\d+)", said).group(1))  # type: ignore[union-attr]
            for _ in range(5):
                with socket.create_connection(("127.0.0.1", port), 10) as sock:
                    sock.settimeout(10)
                    sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
                    answer = b""
                    while part := sock.recv(65536):
                        answer += part
                assert answer.startswith(b"HTTP/1.0 200"), answer[:100]
        finally:
            child.terminate()
            child.wait(10)
    room_cluster.kubectl("delete", "-f", str(manifest))
