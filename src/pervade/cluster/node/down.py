"""`down`: everything of a cluster goes, however much of it is left and whatever state it is in.

Nothing here needs the plan: processes are found by the mark in their environment, the rest by the run and
state folders and by the cluster's name in the control groups.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from pervade.base.errors import OperatorError
from pervade.cluster.node import supervision
from pervade.cluster.node.up import MADE, Report
from pervade.cluster.plan import Plan
from pervade.host import cgroups, processes
from pervade.kube import kubeconfig

_GRACE = 25.0
_UNMOUNT = ("umount", "-l")


def down(plan: Plan, report: Report, *, purge: bool = False, config: Path | None = None) -> None:
    """Stop and remove the cluster; with `purge` its state too. 2 s; idempotent.

    Only `plan.name`, `plan.state` and `plan.run` are used. OperatorError names what is left, if anything.
    """
    parents = [*_made_parents(plan), *_ours(plan)]
    with report("processes") as note:
        stopped = _stop_supervisor(plan)
        rest = supervision.marked(plan.run)
        supervision.kill(rest)
        note.text = "stopped" if stopped else ("killed" if rest else "none ran")
    with report("mounts and namespaces") as note:
        gone = _unmount(plan.run) + _unmount(plan.state)
        note.text = f"{gone} unmounted"
    with report("control groups") as note:
        note.text = f"{_remove_groups(plan)} removed"
    with report("kubeconfig") as note:
        path = config or kubeconfig.default_path()
        with contextlib.suppress(OperatorError):
            note.text = (
                f"{plan.name} removed from {path}" if kubeconfig.remove(path, plan.name) else "not in it"
            )
    with report("files") as note:
        shutil.rmtree(plan.run, ignore_errors=True)
        if purge:
            shutil.rmtree(plan.state, ignore_errors=True)
        _remove_empty(parents if purge else [p for p in parents if p != plan.state.parent])
        note.text = "state removed" if purge else f"state stays in {plan.state}"
    left = leftovers(plan, purge=purge)
    if left:
        raise OperatorError(
            f"not everything could be removed: {'; '.join(left)}",
            where=str(plan.run),
            cause="a foreign process uses it",
            fix="end that process (fuser -vm PATH), then the same command again",
        )


def _stop_supervisor(plan: Plan) -> bool:
    pid = supervision.supervisor_pid(plan)
    return pid is not None and processes.stop(pid, grace=_GRACE, number=signal.SIGTERM)


def mounts_below(folder: Path) -> list[str]:
    """Mount points at or below `folder`, the deepest first; a point mounted twice is listed twice."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        point = line.split()[4].encode().decode("unicode_escape")
        if point == str(folder) or point.startswith(f"{folder}/"):
            found.append(point)
    return sorted(found, reverse=True)


def _unmount(folder: Path) -> int:
    points = mounts_below(folder)
    for point in points:
        subprocess.run([*_UNMOUNT, point], capture_output=True, check=False, timeout=20)
    return len(points)


def _remove_groups(plan: Plan) -> int:
    gone, limit = 0, time.monotonic() + 5
    top = f"pervade/{plan.name}"
    while True:
        gone += cgroups.remove(top)
        # Processes of a dying pid namespace may hold their group a moment longer.
        if not cgroups.exists(top) or time.monotonic() > limit:
            break
        time.sleep(0.05)
    cgroups.remove_if_empty("pervade")
    return gone


def _made_parents(plan: Plan) -> list[Path]:
    """Folders above the cluster's that its first `up` made; a damaged note costs only their removal."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return [Path(p) for p in (plan.state / MADE).read_text().splitlines() if p.startswith("/")]
    return []


def _ours(plan: Plan) -> list[Path]:
    """The usual folders of all clusters, which the last of them takes along whoever made them."""
    return [p for p in (plan.run.parent, plan.state.parent) if p.name == "pervade"]


def _remove_empty(folders: list[Path]) -> None:
    for folder in sorted(folders, key=lambda p: len(p.parts), reverse=True):
        with contextlib.suppress(OSError):
            folder.rmdir()


def leftovers(plan: Plan, *, purge: bool) -> list[str]:
    """What of the cluster is still on the machine."""
    found = [f"process {pid}" for pid in supervision.marked(plan.run)]
    found += [f"mount {p}" for p in (*mounts_below(plan.run), *mounts_below(plan.state))]
    if cgroups.exists(f"pervade/{plan.name}"):
        found.append(f"control group pervade/{plan.name}")
    found += [str(p) for p in ((plan.run, plan.state) if purge else (plan.run,)) if os.path.lexists(p)]
    return found
