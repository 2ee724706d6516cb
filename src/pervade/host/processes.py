"""Processes by pid and start time, so that a number used again is never mistaken for the old process."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from pathlib import Path


def start_time(pid: int) -> int | None:
    """Field 22 of /proc/PID/stat (clock ticks since boot); None when there is no such process (or it is a zombie)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def alive(pid: int, started: int | None = None) -> bool:
    """Whether the process runs and, if `started` is given, is the one that started then."""
    found = start_time(pid)
    return found is not None and (started is None or found == started)


def children(pid: int) -> list[int]:
    """Direct children of a process' main thread."""
    try:
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def resident(pid: int) -> int:
    """Resident bytes; 0 when it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def stop(pid: int, *, grace: float = 5.0, number: int = signal.SIGTERM) -> bool:
    """Ask a process to end, wait `grace` seconds, then kill it; True when it is gone."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        for sign, patience in ((number, grace), (signal.SIGKILL, 5.0)):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(fd, sign)
            poll = select.poll()
            poll.register(fd, select.POLLIN)
            if poll.poll(patience * 1000):
                return True
        return False
    finally:
        os.close(fd)


def boot_age() -> float:
    """Seconds since boot."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
