"""The first CNI plugin of a node: a pod's addresses serve at once, and nobody else's namespace is touched."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pervade.cluster import plan as plans
from pervade.cluster.node import config
from pervade.testing.wait import until

PLUGIN = Path(config.__file__).with_name("settled.sh")


@pytest.fixture
def namespace(machine: None) -> Iterator[str]:
    """A fresh network namespace; it ends with its process."""
    holder = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "unshare", "-n", "sleep", "60"])
    try:
        mine = Path("/proc/self/ns/net").readlink()
        until(lambda: Path(f"/proc/{holder.pid}/ns/net").readlink() != mine)
        yield f"/proc/{holder.pid}/ns/net"
    finally:
        holder.kill()
        holder.wait()


def plugin(command: str, namespace: str = "") -> str:
    environment = {"CNI_COMMAND": command, "CNI_NETNS": namespace, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    done = subprocess.run(
        ["sh", PLUGIN], env=environment, capture_output=True, text=True, input="{}", check=True
    )
    return done.stdout


def detection(namespace: str, link: str = "default") -> str:
    command = ["nsenter", f"--net={namespace}", "cat", f"/proc/sys/net/ipv6/conf/{link}/accept_dad"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.skipif(not Path("/proc/sys/net/ipv6").exists(), reason="no IPv6 in this kernel")
def test_an_address_in_the_pods_namespace_is_never_tentative(namespace: str) -> None:
    before = detection("/proc/self/ns/net")
    assert detection(namespace) == "1"
    assert json.loads(plugin("ADD", namespace)) == {"cniVersion": "0.4.0"}
    steps = "ip link add one0 type veth peer name two0; ip link set one0 up; ip link set two0 up; ip address add fd00::1/64 dev one0"
    shown = subprocess.run(
        ["nsenter", f"--net={namespace}", "sh", "-c", f"{steps}; ip -6 -o address show dev one0"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "fd00::1/64" in shown
    assert "tentative" not in shown
    assert detection("/proc/self/ns/net") == before


def test_it_speaks_the_versions_of_the_chain_and_forgets_nothing() -> None:
    chain = json.loads(config.conflist(plans.make().nodes[0]))
    assert chain["cniVersion"] in json.loads(plugin("VERSION"))["supportedVersions"]
    assert [p["type"] for p in chain["plugins"]] == [config.SETTLED, "ptp", "portmap"]
    assert plugin("DEL") == ""
