"""Stock kubectl against a real cluster: the rows of `commands.ROWS` in order, with the oldest and newest client we build."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pervade.testing import kubectl_commands as commands
from pervade.testing.cluster import CACHE, Cluster

pytestmark = pytest.mark.live


class Client:
    """One kubectl with its own kubeconfig, cache and namespace."""

    def __init__(self, program: Path, cluster: Cluster, folder: Path) -> None:
        self.program, self.dir = program, folder
        self.namespace = "k" + program.name.rpartition(".")[2]
        self.config = folder / "kubeconfig.yaml"
        shutil.copy(cluster.config, self.config)
        for name, text in commands.FILES.items():
            (folder / name).write_text(text % {"ns": self.namespace} if "%(ns)s" in text else text)

    def run(self, words: list[str], stdin: str = "", timeout: float = 120) -> tuple[int, str]:
        try:
            done = subprocess.run(
                [self.program, *words],
                input=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=timeout,
                check=False,
                env=os.environ
                | {"KUBECONFIG": str(self.config), "KUBECACHEDIR": str(self.dir / "cache"), "NO_COLOR": "1"},
            )
        except subprocess.TimeoutExpired as late:
            return 124, (late.stdout or b"").decode()
        return done.returncode, done.stdout

    def pod(self) -> str:
        """A running pod of the deployment `web`."""
        path = "{range .items[*]}{.metadata.name} {.metadata.deletionTimestamp}{'\\n'}{end}".replace("'", '"')
        _, out = self.run(["get", "pods", "-l", "app=web", "-o", f"jsonpath={path}"])
        return next((line.split()[0] for line in out.splitlines() if len(line.split()) == 1), "none")


@pytest.fixture(scope="module", params=["kubectl-1.32", "kubectl-1.36"])
def client(
    request: pytest.FixtureRequest, room_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Client]:
    yield Client(CACHE / "bin" / request.param, room_cluster, tmp_path_factory.mktemp(request.param))


def test_the_table(client: Client) -> None:
    """Every row is run, also after one that failed; all failures are shown."""
    wrong = []
    for number, one in enumerate(commands.ROWS, 1):
        known = {
            "ns": client.namespace,
            "dir": client.dir,
            "pod": client.pod() if "{pod}" in one.command else "",
        }
        words = shlex.split(one.command.format(**known))
        deadline = time.monotonic() + (20 if one.retry else 0)
        while True:
            code, out = client.run(words, one.stdin, one.seconds)
            shape = [p.replace("{ns}", client.namespace) for p in one.shape]
            missing = [p for p in shape if not re.search(p, out, re.M)]
            bad = (
                (one.code is not None and code != one.code)
                or missing
                or [p for p in one.absent if re.search(p, out, re.M)]
            )
            if not bad or time.monotonic() > deadline:
                break
            time.sleep(0.3)
        if bad or "panic" in out or "Traceback" in out:
            wrong.append(
                f"{number}. kubectl {one.command[:120]}\n   exit {code}, expected {one.code}; missing {missing}\n   {out[:700]}"
            )
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
