"""The bench's own parts: what a row says, and that a killed run leaves nothing."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from bench.row import Row, markdown, share

from pervade.host import processes
from pervade.testing.wait import until

ROOT = Path(__file__).resolve().parents[2]
RUN = """
import subprocess, sys, time
from pathlib import Path
from bench.guard import Guard
with Guard() as guard:
    child = subprocess.Popen(["sleep", "300"], start_new_session=True)
    guard.process(child.pid)
    guard.folder(Path(sys.argv[1]))
    print(child.pid, flush=True)
    time.sleep(300)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_is_stopped_leaves_neither_process_nor_folder(
    tmp_path: Path, number: signal.Signals
) -> None:
    folder = tmp_path / "left"
    (folder / "inner").mkdir(parents=True)
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'src'}", "PATH": "/usr/bin:/bin"}
    with subprocess.Popen(
        [sys.executable, "-c", RUN, str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    ) as run:
        assert run.stdout is not None
        child = int(run.stdout.readline())
        assert processes.alive(child)
        assert folder.exists()
        run.send_signal(number)
    until(lambda: not processes.alive(child), 20)
    until(lambda: not folder.exists(), 20)


def test_a_row_is_measured_against_its_target_and_its_baseline() -> None:
    slow = Row("list", 3.0, "s", 2, baseline=1.5, baseline_name="empty list")
    assert (slow.held, slow.ratio) == (False, 2.0)
    assert Row("creates", 600, "/s", 500, at_most=False).held is True
    assert Row("creates", 400, "/s", 500, at_most=False).held is False
    assert Row("time", 1, "s").held is None
    table = markdown([slow])
    assert "| ✘ | list | ≤ 2.00 s | 3.00 s | 2.00 × empty list (1.50 s) |" in table


def test_a_share_is_a_value_that_was_seen() -> None:
    values = [float(n) for n in range(1, 101)]
    assert share(values, 0.99) == 99
    assert share(values, 0.5) == 50
    assert share([7.0], 0.99) == 7
