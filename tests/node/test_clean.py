"""`down --purge` leaves nothing: the machine afterwards equals the machine before, line by line."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pervade.host import processes
from pervade.testing import snapshot
from pervade.testing.cluster import STATE

pytestmark = pytest.mark.live


def test_up_and_down_leave_the_machine_as_it_was(cluster_of: Callable[[int], Any]) -> None:
    cluster = cluster_of(180)
    before = snapshot.take(of=cluster.name)
    cluster.up()
    cluster.kubectl("run", "held", "--image=busybox", "--", "sleep", "3600")
    cluster.kubectl("wait", "--for=condition=Ready", "pod/held", "--timeout=60s", timeout=90)
    running = snapshot.take(of=cluster.name)
    assert {"processes", "namespaces", "mounts", "cgroups", "files"} <= before.difference(running).keys()
    cluster.down("--purge")
    assert before.difference(snapshot.take(of=cluster.name)) == {}


def test_a_cluster_whose_parts_were_all_killed_goes_without_a_trace(
    cluster_of: Callable[[int], Any],
) -> None:
    cluster = cluster_of(182)
    before = snapshot.take(of=cluster.name)
    cluster.up()
    _kill_everything(cluster)
    cluster.down("--purge")
    assert before.difference(snapshot.take(of=cluster.name)) == {}


def test_damaged_state_and_a_lost_run_folder_do_not_stop_down(cluster_of: Callable[[int], Any]) -> None:
    cluster = cluster_of(184)
    before = snapshot.take(of=cluster.name)
    cluster.up()
    (cluster.state / "plan.json").write_bytes(b"\0 not a plan")
    shutil.rmtree(cluster.state / "pki")
    for file in cluster.run_dir.glob("*.json"):
        file.write_text("{")
    cluster.down("--purge")
    assert before.difference(snapshot.take(of=cluster.name)) == {}


def test_down_of_nothing_is_quiet(cluster_of: Callable[[int], Any]) -> None:
    assert "is down" in cluster_of(186).down("--purge")


def _kill_everything(cluster: Any) -> None:
    mark = f"PERVADE_CLUSTER={cluster.run_dir}".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                ours = mark in (entry / "environ").read_bytes().split(b"\0")
                if ours:
                    os.kill(int(entry.name), signal.SIGKILL)
            except OSError:
                continue
    subprocess.run(["sync"], check=False)
    assert all(not processes.alive(p["pid"]) for p in cluster.status()["processes"] if p["running"])


def test_the_last_of_two_clusters_takes_the_common_folders_along(
    cluster_of: Callable[[int], Any], tmp_path: Path
) -> None:
    if others := sorted(p.name for p in STATE.glob("*")):
        pytest.skip(
            f"other clusters are on this machine ({', '.join(others)}): the common folders are theirs too"
        )
    before = snapshot.take()
    first, second = cluster_of(200), cluster_of(202)
    second.config = tmp_path / "second.yaml"
    first.up("--nodes", "1")
    second.up("--nodes", "1")
    first.down("--purge")
    second.down("--purge")
    assert before.difference(snapshot.take()) == {}
