"""One node: prepare its folders and network, run its namespaces, and take them away again.

The node lives as long as `run` does; its death takes every container with it. Paths: plan.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from pervade.base.errors import OperatorError
from pervade.cluster.node import config, fabric
from pervade.cluster.plan import Plan
from pervade.host import cgroups, processes

_HERE = Path(__file__).parent
_CNI = Path("/usr/lib/cni")
_PDEATHSIG = 1


def cgroup(plan: Plan, node: str) -> str:
    """The control group below which everything of a node runs."""
    return f"pervade/{plan.name}/{node}"


def prepare(plan: Plan, name: str) -> None:
    """Folders, configuration files and network of the node; cgroups of an earlier life are removed."""
    state = plan.node_state(name)
    for folder in ("root", "sock", "net.d", "cnibin", "kubelet", "log", "cnilib"):
        (state / folder).mkdir(parents=True, exist_ok=True)
    (state / "containerd.toml").write_text(config.containerd())
    conflist = state / "net.d" / config.CONFLIST
    if not conflist.exists():
        conflist.write_text(config.conflist(plan.node(name)))
    for plugin in _CNI.iterdir():
        target = state / "cnibin" / plugin.name
        if not target.exists() or target.stat().st_mtime < plugin.stat().st_mtime:
            shutil.copy2(plugin, target)
    # Addresses of pods that died with the node's last life: sandboxes are removed by the kubelet, which frees the rest.
    cgroups.remove(cgroup(plan, name))
    fabric.connect(plan, plan.node(name))


def run(plan: Plan, name: str) -> int:
    """Start the node's namespaces and wait until its PID 1 ends; gives the exit status.

    The pid of PID 1, as the host sees it, is in `plan.init_pid(name)` while it runs.
    """
    state, node = plan.node_state(name), plan.node(name)
    pid_file = plan.init_pid(name)
    pid_file.parent.mkdir(parents=True, exist_ok=True)
    command = ["nsenter", f"--net={plan.netns(name)}", "--", "unshare", "-m", "-p", "-u", "-i", "--fork"]
    command += ["--kill-child", "--propagation", "private", "/bin/sh", str(_HERE / "root.sh")]
    command += [str(state), name, node.address, plan.outside_dns, str(_HERE / "init.py")]
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=_die_with_parent)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: child.terminate())
    try:
        pid_file.write_text(f"{_init_of(child)}\n")
        return child.wait()
    finally:
        pid_file.unlink(missing_ok=True)
        cgroups.remove(cgroup(plan, name))


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _init_of(child: subprocess.Popen[bytes]) -> int:
    """The pid of the node's PID 1: the only child of `unshare`, once it has forked."""
    limit = time.monotonic() + 10
    while time.monotonic() < limit:
        if child.poll() is not None:
            raise OperatorError(
                f"the node's namespaces could not be made (exit {child.returncode})",
                cause="a kernel without one of the namespaces, or a state folder on a file system without overlay support",
                fix="pervade doctor",
            )
        if found := processes.children(child.pid):
            return found[0]
        time.sleep(0.005)
    child.kill()
    raise OperatorError("the node's PID 1 did not appear within 10 s", fix="pervade doctor")


def init_pid(plan: Plan, name: str) -> int | None:
    """PID 1 of a running node as the host sees it, or None."""
    try:
        pid = int(plan.init_pid(name).read_text())
    except (OSError, ValueError):
        return None
    return pid if processes.alive(pid) else None


def inside(plan: Plan, name: str, argv: list[str]) -> list[str]:
    """`argv` as a command inside all namespaces of the running node."""
    pid = init_pid(plan, name)
    if pid is None:
        raise OperatorError(f"node {name} does not run", fix="pervade up")
    return ["nsenter", "-t", str(pid), "-m", "-p", "-u", "-i", "-n", "--", *argv]


def remove(plan: Plan, name: str) -> None:
    """Everything of a stopped node that is not state: namespace pin, cgroups, stray mounts."""
    from pervade.host import links

    cgroups.remove(cgroup(plan, name))
    rootfs = plan.node_state(name) / "rootfs"
    if os.path.ismount(rootfs):
        subprocess.run(["umount", "-l", str(rootfs)], check=False)
    links.unpin(plan.netns(name))
