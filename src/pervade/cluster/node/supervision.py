"""Start, tell and look at the supervisor of a cluster from outside; and find its processes without any file."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import resource
import signal
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pervade.base.errors import OperatorError
from pervade.cluster.node.programs import JSON, MARK, SUPERVISOR, environment, listing, pids
from pervade.cluster.plan import Plan
from pervade.host import processes

_FILES = 65536


@dataclass(frozen=True)
class Life:
    """One process of the cluster, as its pid file and the kernel know it."""

    name: str
    pid: int
    running: bool
    since: float
    restarts: int


def supervisor_pid(plan: Plan) -> int | None:
    """The running supervisor: who holds the lock wrote its pid into it."""
    try:
        fd = os.open(plan.run / "supervisor.lock", os.O_RDWR)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        words = os.read(fd, 200).split()
        return int(words[0]) if words else None
    finally:
        os.close(fd)
    return None


def write_listing(plan: Plan, programs: list[JSON]) -> bool:
    """Write the supervisor's list; True when it differs from the one before."""
    text = json.dumps({"pids": str(pids(plan)), "programs": programs}, indent=1)
    file = listing(plan)
    with contextlib.suppress(OSError):
        if file.read_text() == text:
            return False
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_suffix(".fresh")
    fresh.write_text(text)
    fresh.replace(file)
    return True


def ensure(plan: Plan, *, changed: bool) -> str:
    """Have a supervisor that knows the present list: `started`, `told` or `running`."""
    if (pid := supervisor_pid(plan)) is not None:
        if changed:
            os.kill(pid, signal.SIGHUP)
            return "told"
        return "running"
    log = os.open(
        plan.log_dir / "supervisor.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640
    )
    with open(os.devnull) as null:  # noqa: PTH123
        process = subprocess.Popen(
            ["/usr/bin/python3", "-IS", str(SUPERVISOR), str(listing(plan))],
            stdin=null,
            stdout=log,
            stderr=log,
            cwd="/",
            start_new_session=True,
            env=_clean_environment() | environment(plan),
            preexec_fn=_raise_limits,
        )
    os.close(log)
    limit = time.monotonic() + 10
    while supervisor_pid(plan) != process.pid:
        if process.poll() is not None or time.monotonic() > limit:
            raise OperatorError(
                "the supervisor did not start",
                where=str(plan.log_dir / "supervisor.log"),
                fix="pervade doctor",
            )
        time.sleep(0.01)
    return "started"


def _clean_environment() -> dict[str, str]:
    """What long-lived processes inherit from a user's shell: the search path and proxies, nothing else."""
    kept = ("LANG", "TZ", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return {"PATH": path} | {k: os.environ[k] for k in kept if k in os.environ}


def _raise_limits() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(hard, _FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def lives(plan: Plan) -> list[Life]:
    """All processes that have a pid file, and the supervisor; O(processes)."""
    found = []
    if (pid := supervisor_pid(plan)) is not None:
        found.append(Life("supervisor", pid, True, _since(pid), 0))
    for file in sorted(pids(plan).glob("*.json")):
        try:
            known = json.loads(file.read_text())
            pid = int(known["pid"])
            running = processes.alive(pid, int(known["started"]))
            found.append(Life(file.stem, pid, running, float(known["since"]), int(known["restarts"])))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return found


def falls(plan: Plan, program: str) -> int:
    """How often in a row `program` has ended soon after its start; 0 while it runs."""
    try:
        known = json.loads((pids(plan) / f"{program}.json").read_text())
        if processes.alive(int(known["pid"]), int(known["started"])):
            return 0
        return int(known.get("failures", 0))
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def _since(pid: int) -> float:
    ticks = processes.start_time(pid) or 0
    return time.time() - processes.boot_age() + ticks / os.sysconf("SC_CLK_TCK")


def marked(run: Path) -> list[int]:
    """Every process of the cluster whose run folder is `run`, found by its environment alone; O(processes)."""
    mark = f"{MARK}={run}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
    return found


def kill(victims: Iterable[int]) -> None:
    """SIGKILL, and wait until they are gone."""
    waiting = []
    for pid in victims:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            waiting.append(pid)
    limit = time.monotonic() + 10
    while any(processes.alive(p) for p in waiting) and time.monotonic() < limit:
        time.sleep(0.01)
