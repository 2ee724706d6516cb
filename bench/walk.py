"""The whole of `make demo` with cached images."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from bench.guard import Guard
from bench.row import Row
from bench.servers import ROOT


def rows(guard: Guard, folder: Path, name: str) -> list[Row]:
    """Seconds of the run; RuntimeError with its last lines when it did not come to its end."""
    guard.cluster(name)
    environment = os.environ | {"KUBECONFIG": str(folder / "walk.yaml"), "NO_COLOR": "1"}
    begin = time.monotonic()
    done = subprocess.run(
        ["make", "demo", f"ARGS=--name {name}"],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.monotonic() - begin
    last = done.stdout[-900:] + done.stderr[-300:]
    if " held, " not in last:
        raise RuntimeError(f"make demo, after {seconds:.0f} s: {last}")
    # An expectation that did not hold is the walk's matter; the figure stands, and says so.
    crosses = [line.strip() for line in done.stdout.splitlines() if line.strip().startswith("✘")]
    note = "bring-up, samples, plaintext walk, clean end"
    if done.returncode != 0:
        note += f"; exit status {done.returncode}: {'; '.join(dict.fromkeys(crosses))[:300]}"
    return [Row("`make demo`, images cached", seconds, "s", 90, note=note)]
