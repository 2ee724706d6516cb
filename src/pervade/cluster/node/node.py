"""One node: prepare its folders, images and network, and the command that becomes its namespaces.

The node lives as long as the process of `command` does; its death takes every container with it.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from pervade.base.errors import OperatorError
from pervade.cluster.images import store
from pervade.cluster.node import config, fabric
from pervade.cluster.plan import Plan
from pervade.host import cgroups, links, processes

_HERE = Path(__file__).parent
_CNI = Path("/usr/lib/cni")
_FOLDERS = ("root", "sock", "net.d", "cnibin", "kubelet", "log", "cnilib")


def prepare(plan: Plan, name: str) -> None:
    """Folders, configuration files, images and network of a node that does not run.

    What an earlier life left (its PID 1, cgroups) goes first. Idempotent; 0.1 s when nothing changed.
    """
    _end_earlier_life(plan, name)
    state = plan.node_state(name)
    state.mkdir(parents=True, exist_ok=True)
    if (images := store.ready(plan.cache)) is not None and store.give(images, state):
        # Another store: containerd forgets its sandboxes, so nobody will free their addresses.
        shutil.rmtree(state / "cnilib", ignore_errors=True)
    for folder in _FOLDERS:
        (state / folder).mkdir(exist_ok=True)
    (state / "containerd.toml").write_text(config.containerd())
    conflist = state / "net.d" / config.CONFLIST
    if not conflist.exists():
        conflist.write_text(config.conflist(plan.node(name)))
    for plugin in _CNI.iterdir():
        target = state / "cnibin" / plugin.name
        if not target.exists() or target.stat().st_mtime < plugin.stat().st_mtime:
            shutil.copy2(plugin, target)
    settled = state / "cnibin" / config.SETTLED
    settled.write_bytes((_HERE / "settled.sh").read_bytes())
    settled.chmod(0o755)
    plan.node_run(name).mkdir(parents=True, exist_ok=True)
    fabric.connect(plan, plan.node(name))


def _end_earlier_life(plan: Plan, name: str) -> None:
    pid = init_pid(plan, name)
    if pid is not None:
        processes.stop(pid)
    plan.init_pid(name).unlink(missing_ok=True)
    cgroups.remove(plan.cgroup(name))


def command(plan: Plan, name: str) -> list[str]:
    """The command that makes the node's namespaces and waits for its PID 1; killing it kills the node.

    root.sh writes the pid of PID 1, as the host sees it, to `plan.init_pid(name)`.
    """
    argv = ["nsenter", f"--net={plan.netns(name)}", "--", "unshare", "-m", "-p", "-u", "-i", "--fork"]
    argv += ["--kill-child", "--propagation", "private", "/bin/sh", str(_HERE / "root.sh")]
    argv += [str(plan.node_state(name)), name, plan.node(name).address, plan.outside_dns]
    return [*argv, str(_HERE / "init.py"), str(plan.init_pid(name))]


def init_pid(plan: Plan, name: str) -> int | None:
    """PID 1 of a running node as the host sees it, or None."""
    try:
        pid = int(plan.init_pid(name).read_text())
        words = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        return None
    # The number may have been used again since.
    return pid if b".init.py" in words and processes.alive(pid) else None


def inside(plan: Plan, name: str, argv: list[str]) -> list[str]:
    """`argv` as a command inside all namespaces of the running node."""
    pid = init_pid(plan, name)
    if pid is None:
        raise OperatorError(f"node {name} does not run", fix="pervade up")
    return ["nsenter", "-t", str(pid), "-m", "-p", "-u", "-i", "-n", "--", *argv]


def remove(plan: Plan, name: str) -> None:
    """Everything of a stopped node that is not state: cgroups, the namespace pin, its run folder."""
    _end_earlier_life(plan, name)
    links.unpin(plan.netns(name))
    port = fabric.port(name)
    if links.is_pinned(plan.netns("fabric")) and port in links.link_names(plan.netns("fabric")):
        subprocess.run(
            ["nsenter", f"--net={plan.netns('fabric')}", "--", "ip", "link", "del", port], check=False
        )
    shutil.rmtree(plan.node_run(name), ignore_errors=True)
