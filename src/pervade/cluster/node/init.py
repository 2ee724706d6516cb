"""PID 1 of a node: keeps containerd running and reaps what the shims leave. Standard library only.

Runs with the host's own python3 inside the node; it must not import anything of this project.
"""

import os
import signal
import time

_LOG = "/var/log/containerd.log"
_SOCKET = "/run/cri/containerd.sock"


def _start() -> int:
    pid = os.fork()
    if pid:
        return pid
    os.setsid()
    out = os.open(_LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    os.dup2(out, 1)
    os.dup2(out, 2)
    if os.path.exists(_SOCKET):
        os.unlink(_SOCKET)
    os.execv("/usr/bin/containerd", ["containerd", "-c", "/.containerd.toml", "-l", "warn"])


def main() -> None:
    # Python retries waitpid after a handler returns, so the handler itself has to end the process.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    signal.signal(signal.SIGINT, lambda *_: os._exit(0))
    begun = time.monotonic()
    containerd = _start()
    while True:
        pid, _ = os.waitpid(-1, 0)
        if pid != containerd:
            continue
        if time.monotonic() - begun < 1:
            time.sleep(1)
        begun = time.monotonic()
        containerd = _start()


main()
