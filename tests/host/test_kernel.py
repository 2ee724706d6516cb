"""The kernel room: namespaces, links, processes and control groups, on the real kernel where root allows it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from pervade.base.errors import OperatorError
from pervade.host import cgroups, links, netns, processes
from pervade.host.run import command

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces and control groups need root")


@pytest.fixture
def pinned(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "netns"
    links.pin(path)
    yield path
    links.unpin(path)


@needs_root
def test_a_namespace_is_pinned_once_and_gone_after_unpin(tmp_path: Path) -> None:
    path = tmp_path / "one"
    assert links.pin(path)
    assert not links.pin(path)
    assert links.is_pinned(path)
    links.unpin(path)
    assert not path.exists()
    links.unpin(path)


@needs_root
def test_links_of_a_namespace_are_its_own(pinned: Path) -> None:
    links.ip(pinned, ["link set lo up", "link add t0 type veth peer name t1"])
    assert links.link_names(pinned) == {"lo", "t0", "t1"}
    assert "t0" not in {name for _, name in socket.if_nameindex()}


@needs_root
def test_a_refused_batch_says_what_ip_said(pinned: Path) -> None:
    with pytest.raises(OperatorError, match="Unknown device type"):
        links.ip(pinned, ["link add nonsense type nonsense"])


@needs_root
def test_a_socket_keeps_the_namespace_it_was_made_in(pinned: Path) -> None:
    links.ip(pinned, ["link set lo up"])
    listening = netns.listen(pinned, "127.0.0.1", 0)
    port = listening.getsockname()[1]
    inside = netns.inside(pinned, lambda: socket.create_connection(("127.0.0.1", port), 5))
    inside.close()
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", port), 1)
    listening.close()


@needs_root
def test_a_failure_inside_comes_out(pinned: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        netns.inside(pinned, lambda: 1 / 0)
    with pytest.raises(FileNotFoundError):
        netns.inside("/no/such/namespace", lambda: None)


@needs_root
def test_control_groups_go_with_their_descendants_unless_somebody_is_inside() -> None:
    name = f"pervade-test-{uuid.uuid4().hex[:8]}"
    for top in cgroups.hierarchies():
        (top / name / "a" / "b").mkdir(parents=True)
    sleeper = subprocess.Popen(["sleep", "600"])
    held = cgroups.hierarchies()[0] / name / "a"
    try:
        if "cpuset" not in str(held):
            (held / "cgroup.procs").write_text(str(sleeper.pid))
            cgroups.remove(name)
            assert held.exists()
    finally:
        sleeper.kill()
        sleeper.wait()
    cgroups.remove(name)
    assert not cgroups.exists(name)


def test_a_pid_that_was_used_again_is_not_the_old_process() -> None:
    started = processes.start_time(os.getpid())
    assert started is not None
    assert processes.alive(os.getpid(), started)
    assert not processes.alive(os.getpid(), started - 1)


def test_a_process_that_ignores_sigterm_is_killed() -> None:
    deaf = subprocess.Popen(
        ["/bin/sh", "-c", "trap '' TERM; echo ready; while :; do read -r x; done"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert deaf.stdout is not None
    assert deaf.stdout.readline() == b"ready\n"
    assert processes.stop(deaf.pid, grace=0.2)
    assert deaf.wait() == -signal.SIGKILL
    assert processes.stop(deaf.pid)


def test_a_command_that_fails_is_quoted() -> None:
    with pytest.raises(OperatorError, match="no such thing"):
        command(["/bin/sh", "-c", "echo no such thing >&2; exit 1"])
    with pytest.raises(OperatorError, match="is not there"):
        command(["no-such-command-at-all"])
