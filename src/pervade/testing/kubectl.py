"""A stock kubectl as a test's hand: one client with its own configuration, and the rows of a table run with it."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from pervade.testing.cluster import CACHE
from pervade.testing.kubectl_commands import Row

CLIENTS = ("kubectl-1.32", "kubectl-1.36")
TIMED_OUT = 124
_RETRY_S = 20


class Client:
    """One kubectl with its own kubeconfig, cache and namespace; `files` are laid into its folder, `%(ns)s` filled in."""

    def __init__(self, name: str, config: Path, folder: Path, files: Mapping[str, str]) -> None:
        self.program, self.dir = CACHE / "bin" / name, folder
        self.namespace = "k" + name.rpartition(".")[2]
        self.config = folder / "kubeconfig.yaml"
        shutil.copy(config, self.config)
        for file, text in files.items():
            (folder / file).write_text(text % {"ns": self.namespace} if "%(ns)s" in text else text)
        self.environment = os.environ | {
            "KUBECONFIG": str(self.config),
            "KUBECACHEDIR": str(folder / "cache"),
            "NO_COLOR": "1",
            "KUBE_EDITOR": "sed -i s/before-the-edit/after-the-edit/",
        }

    def run(self, words: list[str], stdin: str = "", timeout: float = 120) -> tuple[int, str]:
        """Exit status and all output; status 124 when it did not end in time."""
        try:
            done = subprocess.run(
                [self.program, *words],
                input=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=timeout,
                check=False,
                env=self.environment,
            )
        except subprocess.TimeoutExpired as late:
            return TIMED_OUT, (late.stdout or b"").decode()
        return done.returncode, done.stdout

    def pod(self) -> str:
        """A running pod of the deployment `web`."""
        path = "{range .items[*]}{.metadata.name} {.metadata.deletionTimestamp}{'\\n'}{end}".replace("'", '"')
        _, out = self.run(["get", "pods", "-l", "app=web", "-o", f"jsonpath={path}"])
        return next((line.split()[0] for line in out.splitlines() if len(line.split()) == 1), "none")


def failures(client: Client, rows: Iterable[Row]) -> list[str]:
    """Run every row, also after one that failed; what was wrong, one text a row."""
    return [text for number, one in enumerate(rows, 1) if (text := _failure(client, number, one))]


def _failure(client: Client, number: int, one: Row) -> str:
    pod = client.pod() if "{pod}" in one.command else ""
    words = shlex.split(one.command.format(ns=client.namespace, dir=client.dir, pod=pod))
    deadline = time.monotonic() + (_RETRY_S if one.retry else 0)
    while True:
        code, out = client.run(words, one.stdin, one.seconds)
        missing, found = _shape(client, one.shape, out, False), _shape(client, one.absent, out, True)
        fine = one.code in (None, code) and not missing and not found
        if fine or time.monotonic() > deadline:
            break
        time.sleep(0.3)
    if fine and "panic" not in out and "Traceback" not in out:
        return ""
    said = f"exit {code}, expected {one.code}; missing {missing}; not wanted {found}"
    return f"{number}. kubectl {one.command[:120]}\n   {said}\n   {out[:900]}"


def _shape(client: Client, patterns: Iterable[str], out: str, present: bool) -> list[str]:
    """The patterns that are (not) in the output."""
    filled = [p.replace("{ns}", client.namespace) for p in patterns]
    return [p for p in filled if bool(re.search(p, out, re.M)) == present]
