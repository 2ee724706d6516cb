"""The processes of a cluster, in the order in which they start and (backwards) stop. Pure.

Every process carries `MARK` in its environment, so that all of them can be found without any file.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

import pervade
from pervade.cluster.node import fabric
from pervade.cluster.plan import Plan

JSON = dict[str, Any]
MARK = "PERVADE_CLUSTER"
SUPERVISOR = Path(pervade.__file__).parent / "app" / "supervisor.py"
_NODES, _SERVER, _CLIENTS = 0, 1, 2


def pids(plan: Plan) -> Path:
    """Folder of the pid files."""
    return plan.run / "pids"


def listing(plan: Plan) -> Path:
    """The supervisor's list."""
    return plan.run / "programs.json"


def environment(plan: Plan) -> dict[str, str]:
    """What all processes get: the mark, our own source, few malloc arenas."""
    source = str(Path(pervade.__file__).parents[1])
    return {MARK: str(plan.run), "PYTHONPATH": source, "MALLOC_ARENA_MAX": "2", "PYTHONUNBUFFERED": "1"}


def programs(plan: Plan, *, way_out: bool) -> list[JSON]:
    """One entry per process, as app/supervisor.py reads them."""

    def python(root: str, *arguments: str) -> list[str]:
        return [sys.executable, "-P", "-m", f"pervade.app.{root}", "--plan", str(plan.file), *arguments]

    def entry(name: str, stage: int, argv: list[str], **more: object) -> JSON:
        log = str(plan.log_dir / f"{name}.log")
        return {"name": name, "argv": argv, "log": log, "stage": stage, "env": environment(plan), **more}

    found = []
    if way_out:
        found.append(entry("way-out", _NODES, fabric.way_out_command(plan), grace=2))
    for node in plan.nodes:
        # The death of this process is the end of all containers: nothing in a node waits for a signal.
        found.append(
            entry(node.name, _NODES, python("node", "--node", node.name), stop_signal=int(signal.SIGKILL))
        )
    found.append(entry("apiserver", _SERVER, python("apiserver"), grace=10))
    found.append(entry("controllers", _CLIENTS, python("controllers")))
    for node in plan.nodes:
        found.append(entry(f"kubelet-{node.name}", _CLIENTS, python("kubelet", "--node", node.name)))
    relay = python("relay", "--kubeconfig", str(plan.kubeconfig("relay")))
    found.append(entry("relay", _CLIENTS, relay, grace=2))
    return found
