"""The supervisor of one cluster: starts its processes, restarts what dies, adopts what survived it.

Standard library only and run as a file (`python3 -IS supervisor.py RUN/programs.json`), so that it stays
small. Every child writes its own pid file before it becomes its program; a supervisor that was killed is
started again by `pervade up` and finds all of them. SIGTERM stops everything in descending stages,
SIGHUP reads the list again (starts what is new, stops what is gone or changed).

The list: `{"pids": FOLDER, "programs": [{"name", "argv", "env", "log", "stage", "stop_signal", "grace"}]}`.
A pid file: `{"pid", "started" (clock ticks since boot), "since" (Unix seconds), "restarts", "failures" in a row, "mark"}`.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import sys
import time
import zlib
from pathlib import Path
from typing import Any

_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 10.0
_STEADY = 10.0
_LOG_LIMIT = 20 << 20
_LOG_CHECK = 600.0


def say(text: str) -> None:
    """One line to the log, which is this process' standard error."""
    now = time.time()
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
    print(f"{stamp}.{int(now % 1 * 1000):03d}+00:00 {text}", file=sys.stderr, flush=True)


def started(pid: int) -> int | None:
    """Start time of a process in clock ticks since boot; None when it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


class Program:
    """One process to keep: what to run and how its present life goes."""

    def __init__(self, spec: dict[str, Any], pids: Path) -> None:
        self.spec, self.name = spec, str(spec["name"])
        self.stage = int(spec.get("stage", 0))
        self.mark = f"{zlib.crc32(json.dumps(spec, sort_keys=True).encode()):08x}"
        self.file = pids / f"{self.name}.json"
        self.pid = self.fd = -1
        self.begun = 0.0
        self.failures = self.restarts = 0
        self.due = 0.0
        self.kill_at: float | None = None

    @property
    def running(self) -> bool:
        return self.fd >= 0

    def adopt(self) -> bool:
        """Take over the process that the pid file names, if it still is that one."""
        try:
            known = json.loads(self.file.read_text())
            pid, ticks = int(known["pid"]), int(known["started"])
            self.restarts = int(known.get("restarts", 0))
        except (OSError, ValueError, KeyError, TypeError):
            return False
        if started(pid) != ticks:
            self.restarts += 1
            return False
        try:
            self.fd = os.pidfd_open(pid)
        except ProcessLookupError:
            return False
        self.pid, self.begun = pid, time.monotonic() - _STEADY
        if known.get("mark") != self.mark:
            say(f"info supervisor {self.name} was started otherwise: starting it again")
            self.stop()
        return True

    def start(self) -> None:
        """Fork; the child writes its pid file and becomes the program."""
        log = Path(self.spec["log"])
        with contextlib.suppress(OSError):
            if log.stat().st_size > _LOG_LIMIT:
                log.replace(log.with_suffix(".log.1"))
        pid = os.fork()
        if pid == 0:
            self._become(log)
        self.pid, self.fd, self.begun = pid, os.pidfd_open(pid), time.monotonic()
        self.kill_at = None
        say(f"info supervisor started {self.name} pid={pid} restarts={self.restarts}")

    def _become(self, log: Path) -> None:
        try:
            os.setsid()
            # Ignored signals and the mask would be inherited.
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGCHLD, signal.SIGPIPE):
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
            null = os.open(os.devnull, os.O_RDONLY)
            os.dup2(null, 0)
            os.dup2(out, 1)
            os.dup2(out, 2)
            os.chdir("/")
            pid = os.getpid()
            state = {
                "pid": pid,
                "started": started(pid),
                "since": time.time(),
                "restarts": self.restarts,
                "failures": self.failures,
                "mark": self.mark,
            }
            fresh = self.file.with_suffix(".fresh")
            fresh.write_text(json.dumps(state))
            fresh.replace(self.file)
            environment = {**os.environ, **self.spec.get("env", {})}
            os.execvpe(self.spec["argv"][0], self.spec["argv"], environment)
        except BaseException as error:  # noqa: BLE001 - the child may never return into the loop
            say(f"error supervisor {self.name} could not be started error={json.dumps(str(error))}")
        finally:
            os._exit(127)

    def stop(self) -> None:
        """Ask it to end; `press` kills it when its grace is over."""
        if not self.running or self.kill_at is not None:
            return
        self.kill_at = time.monotonic() + float(self.spec.get("grace", 5.0))
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.fd, int(self.spec.get("stop_signal", signal.SIGTERM)))

    def press(self, now: float) -> None:
        """Kill it when it did not end in time."""
        if self.running and self.kill_at is not None and now >= self.kill_at:
            say(f"warning supervisor {self.name} did not end in time, killed")
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.fd, signal.SIGKILL)
            self.kill_at = now + 1.0

    def ended(self) -> str:
        """Note the end of the process; gives how it ended. Adopted processes leave no status."""
        how = "unknown"
        with contextlib.suppress(ChildProcessError):
            _, status = os.waitpid(self.pid, 0)
            code = os.waitstatus_to_exitcode(status)
            how = str(code) if code >= 0 else signal.Signals(-code).name
        os.close(self.fd)
        now = time.monotonic()
        self.failures = 0 if now - self.begun > _STEADY else self.failures + 1
        asked = self.kill_at is not None
        self.pid = self.fd = -1
        self.kill_at = None
        self.restarts += 1
        pause = 0.0 if asked else min(_FIRST_PAUSE * 2 ** max(0, self.failures - 1), _LONGEST_PAUSE)
        self.due = now + pause
        return how


class Supervisor:
    """Keeps the programs of one list running."""

    def __init__(self, listing: Path) -> None:
        self.listing = listing
        self.programs: dict[str, Program] = {}
        self.leaving: list[Program] = []
        self.stopping = False
        self.logs_due = time.monotonic() + _LOG_CHECK

    def load(self) -> None:
        """Read the list; adopt, start or stop what differs from what runs."""
        found = json.loads(self.listing.read_text())
        pids = Path(found["pids"])
        pids.mkdir(parents=True, exist_ok=True)
        wanted = {spec["name"]: Program(spec, pids) for spec in found["programs"]}
        for name, old in list(self.programs.items()):
            new = wanted.get(name)
            if new is not None and new.mark == old.mark:
                continue
            if new is not None:
                # It is started again with the new words as soon as the old process is gone.
                old.spec, old.stage, old.mark = new.spec, new.stage, new.mark
                old.stop()
                continue
            del self.programs[name]
            if old.running:
                old.stop()
                self.leaving.append(old)
            else:
                old.file.unlink(missing_ok=True)
        for name, new in wanted.items():
            if name not in self.programs:
                self.programs[name] = new
                if new.adopt():
                    say(f"info supervisor adopted {name} pid={new.pid}")

    def turn(self, wake: int) -> None:
        """Start what is due, then sleep until a process ends, a signal comes or something is due."""
        now = time.monotonic()
        if not self.stopping:
            for program in sorted(self.programs.values(), key=lambda p: p.stage):
                if not program.running and program.due <= now:
                    program.start()
        everyone = [p for p in [*self.programs.values(), *self.leaving] if p.running]
        poll = select.poll()
        poll.register(wake, select.POLLIN)
        for program in everyone:
            program.press(now)
            poll.register(program.fd, select.POLLIN)
        times = [p.kill_at for p in everyone if p.kill_at is not None] + [self.logs_due]
        if not self.stopping:
            times += [p.due for p in self.programs.values() if not p.running]
        ready = {fd for fd, _ in poll.poll(max(0.0, min(times) - time.monotonic()) * 1000 + 1)}
        if wake in ready:
            os.read(wake, 4096)
        for program in everyone:
            if program.fd in ready:
                self._gone(program)
        if now >= self.logs_due:
            self.logs_due = now + _LOG_CHECK
            self._trim_logs()

    def _gone(self, program: Program) -> None:
        asked = program.kill_at is not None
        how = program.ended()
        if program in self.leaving:
            self.leaving.remove(program)
            program.file.unlink(missing_ok=True)
        pause = program.due - time.monotonic()
        if asked or self.stopping:
            say(f"info supervisor {program.name} ended how={how}")
        else:
            say(f"warning supervisor {program.name} ended how={how} next_start_in={max(0.0, pause):.1f}s")

    def _trim_logs(self) -> None:
        """Logs are opened for appending, so cutting one short is safe while its writer runs."""
        for program in self.programs.values():
            log = Path(program.spec["log"])
            with contextlib.suppress(OSError):
                if log.stat().st_size > _LOG_LIMIT:
                    log.with_suffix(".log.1").write_bytes(log.read_bytes())
                    os.truncate(log, 0)

    def stop_all(self, wake: int) -> None:
        """Stop every program, the highest stage first, and wait for each stage to be gone."""
        self.stopping = True
        for stage in sorted({p.stage for p in self.programs.values()}, reverse=True):
            members = [p for p in self.programs.values() if p.stage == stage and p.running]
            for program in members:
                program.stop()
            while any(p.running for p in members):
                self.turn(wake)
            for program in self.programs.values():
                if program.stage == stage:
                    program.file.unlink(missing_ok=True)


def main(listing: Path) -> int:
    lock = os.open(listing.with_name("supervisor.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say("error supervisor another one runs already")
        return 1
    os.ftruncate(lock, 0)
    os.write(lock, f"{os.getpid()} {started(os.getpid())} {time.time()}\n".encode())
    told: set[int] = set()
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda n, _frame: told.add(n))
    supervisor = Supervisor(listing)
    supervisor.load()
    while not told & {signal.SIGTERM, signal.SIGINT}:
        if signal.SIGHUP in told:
            told.discard(signal.SIGHUP)
            supervisor.load()
        supervisor.turn(reader)
    say("info supervisor stopping")
    supervisor.stop_all(reader)
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
