"""Takes away what a run leaves behind, also when the run is killed: a process that waits for the end of its input.

Lines of input: `cluster NAME`, `folder PATH`, `process PID START`. At the end of input (which the kernel brings
about when the run dies, however it dies) they are undone, the last first.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

from pervade.host import processes


class Guard:
    """The run's end of the pipe; use as a context manager."""

    def __enter__(self) -> Guard:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.guard"], stdin=subprocess.PIPE, text=True, start_new_session=True
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def cluster(self, name: str) -> None:
        self._say(f"cluster {name}")

    def folder(self, path: Path) -> None:
        self._say(f"folder {path}")

    def process(self, pid: int) -> None:
        self._say(f"process {pid} {processes.start_time(pid) or 0}")


def undo(line: str) -> None:
    """Take away what one line names; things that are gone already are fine."""
    kind, *words = line.split()
    if kind == "cluster":
        subprocess.run(
            [sys.executable, "-m", "pervade.cli.main", "down", "--name", words[0], "--purge"],
            check=False,
            stdout=subprocess.DEVNULL,
        )
    elif kind == "folder":
        shutil.rmtree(words[0], ignore_errors=True)
    elif kind == "process" and processes.alive(int(words[0]), int(words[1])):
        processes.stop(int(words[0]))


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    for told in reversed(sys.stdin.read().splitlines()):
        undo(told)
