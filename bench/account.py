"""What the processes of a cluster cost: memory, and processor time over a span, from /proc.

Found by the mark in their environment; containerd, its shims and the pods are not counted (issue 3), and neither
is what this run itself starts. Helpers that a process starts and waits for (nft, nsenter) count as its own.
"""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path

from pervade.cluster.node import supervision
from pervade.cluster.plan import Plan
from pervade.host import processes

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclasses.dataclass(frozen=True)
class Cost:
    """One process: seconds of processor time so far, and resident bytes."""

    name: str
    seconds: float
    resident: int


def look(plan: Plan) -> dict[int, Cost]:
    """Cost by pid. Exact to 1 ns where the kernel keeps schedstat, plus ended children in ticks of 10 ms."""
    names = {life.pid: life.name for life in supervision.lives(plan) if life.running}
    found = {}
    for pid in supervision.marked(plan.run):
        base = Path(f"/proc/{pid}")
        try:
            stat = (base / "stat").read_text()
            command = stat[stat.index("(") + 1 : stat.rindex(")")]
            if command.startswith("containerd"):
                continue
            fields = stat.rpartition(")")[2].split()
            own = sum(int((t / "schedstat").read_text().split()[0]) for t in (base / "task").iterdir()) / 1e9
        except (OSError, ValueError):
            continue
        children = (int(fields[13]) + int(fields[14])) / _TICKS
        found[pid] = Cost(
            names.get(pid) or _of_parent(names, pid, command), own + children, processes.resident(pid)
        )
    return found


def _of_parent(names: dict[int, str], pid: int, command: str) -> str:
    """A process without a pid file is called after the one that started it: `node-1 (init)`."""
    for parent, name in names.items():
        if pid in processes.children(parent):
            return f"{name} ({command})"
    return command


def span(plan: Plan, seconds: float) -> tuple[dict[str, float], dict[str, int]]:
    """(share of one core by name over the next `seconds`, resident bytes by name at their end)."""
    before, begin = look(plan), time.monotonic()
    time.sleep(seconds)
    after, length = look(plan), time.monotonic() - begin
    used: dict[str, float] = {}
    resident: dict[str, int] = {}
    for pid, cost in after.items():
        spent = cost.seconds - (before[pid].seconds if pid in before else 0.0)
        used[cost.name] = used.get(cost.name, 0.0) + spent / length
        resident[cost.name] = resident.get(cost.name, 0) + cost.resident
    return used, resident
