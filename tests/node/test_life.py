"""A cluster lives on: what is killed comes back, pods keep serving, a reboot brings the same cluster back."""

from __future__ import annotations

import ipaddress
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pervade.testing.wait import until

pytestmark = pytest.mark.live
PODS = """
apiVersion: v1
kind: Pod
metadata: {name: %(name)s, labels: {app: %(name)s}}
spec:
  nodeName: %(node)s
  terminationGracePeriodSeconds: 1
  containers:
  - {name: c, image: nicolaka/netshoot, command: [python3, -m, http.server, "8080", --bind, "::"]}
"""


@pytest.fixture
def served(cluster_of: Callable[[int], Any], tmp_path: Path) -> Iterator[Any]:
    """A cluster with a web server on each of its two nodes."""
    cluster = cluster_of(190)
    cluster.up()
    file = tmp_path / "pods.yaml"
    file.write_text("---".join(PODS % {"name": f"p{n}", "node": f"node-{n}"} for n in (1, 2)))
    cluster.kubectl("apply", "-f", str(file))
    cluster.kubectl("wait", "--for=condition=Ready", "pod/p1", "pod/p2", "--timeout=60s", timeout=90)
    yield cluster


def address(cluster: Any, pod: str, index: int = 0) -> str:
    return str(cluster.kubectl("get", "pod", pod, "-o", f"jsonpath={{.status.podIPs[{index}].ip}}"))


def from_node_1(cluster: Any, url: str) -> str:
    """Status code and source address of a request out of a pod's network namespace on node-1; no API server is needed."""
    init = (cluster.run_dir / "nodes" / "node-1" / "init.pid").read_text().strip()
    found = (
        "for n in $(ls /run/netns); do"
        " ip netns exec $n curl -gs -m5 -o/dev/null -w'%{http_code} %{local_ip}\\n' $0 && break; done"
    )
    inside = ["nsenter", "-t", init, "-m", "-p", "-u", "-i", "-n", "--", "sh", "-c", found, url]
    done = subprocess.run(inside, capture_output=True, text=True, timeout=60, check=False)
    return (done.stdout.splitlines() or [""])[-1].strip()


def _answered(cluster: Any, url: str) -> list[str] | None:
    said = from_node_1(cluster, url)
    return None if said.startswith("000") else said.split()


def assert_served(cluster: Any) -> None:
    """p2 answers a pod of the other node (its server needs a moment after it is started)."""
    until(lambda: from_node_1(cluster, f"http://{address(cluster, 'p2')}:8080/").startswith("200 "))


def log_of(cluster: Any, node: str, pod: str) -> str:
    """What a pod's container wrote, from the node's own folder."""
    files = (cluster.state / "nodes" / node / "log" / "pods").glob(f"default_{pod}_*/c/*.log")
    return "".join(f.read_text() for f in files)


def test_pods_of_two_nodes_talk_in_both_families_with_their_own_addresses(served: Any) -> None:
    for index, form in ((0, "http://{}:8080/"), (1, "http://[{}]:8080/")):
        url = form.format(address(served, "p2", index))
        code, mine = until(partial(_answered, served, url))
        assert code == "200"
        assert ipaddress.ip_address(mine) in ipaddress.ip_network(
            f"{address(served, 'p1', index)}/{(24, 64)[index]}", strict=False
        )
        assert mine in log_of(served, "node-2", "p2").replace("::ffff:", "")


def test_up_again_changes_nothing(served: Any) -> None:
    before = {p["name"]: (p["pid"], p["restarts"]) for p in served.status()["processes"]}
    nodes = served.kubectl("get", "pods,services,deployments", "-A", "-o", "json")
    served.up()
    assert {p["name"]: (p["pid"], p["restarts"]) for p in served.status()["processes"]} == before
    versions = [
        {o["metadata"]["uid"]: o["metadata"].get("generation") for o in json.loads(text)["items"]}
        for text in (nodes, served.kubectl("get", "pods,services,deployments", "-A", "-o", "json"))
    ]
    assert versions[0] == versions[1]


@pytest.mark.parametrize("program", ["apiserver", "controllers", "kubelet-node-1", "relay", "way-out"])
def test_a_killed_process_comes_back_and_pods_do_not_notice(served: Any, program: str) -> None:
    there = served.kubectl("get", "pods", "-o", "json")
    old = served.pid(program)
    os.kill(old, signal.SIGKILL)
    until(lambda: served.pid(program) not in (old, -1) and served.status()["processes"])
    until(
        lambda: "error" not in served.status() and all(n["ready"] == "True" for n in served.status()["nodes"])
    )
    assert_served(served)
    uids = [
        {
            p["metadata"]["uid"]: p["status"]["containerStatuses"][0]["containerID"]
            for p in json.loads(t)["items"]
        }
        for t in (there, served.kubectl("get", "pods", "-o", "json"))
    ]
    assert uids[0] == uids[1]


def test_a_killed_containerd_comes_back_with_the_same_containers(served: Any) -> None:
    before = served.kubectl("get", "pod", "p1", "-o", "jsonpath={.status.containerStatuses[0].containerID}")
    init = int((served.run_dir / "nodes" / "node-1" / "init.pid").read_text())

    def daemon() -> int | None:
        for pid in Path(f"/proc/{init}/task/{init}/children").read_text().split():
            if Path(f"/proc/{pid}/comm").read_text().strip() == "containerd":
                return int(pid)
        return None

    old = until(daemon)
    os.kill(old, signal.SIGKILL)
    until(lambda: daemon() not in (None, old))
    until(lambda: from_node_1(served, "http://127.0.0.1:8080/").startswith("200"))
    after = served.kubectl("get", "pod", "p1", "-o", "jsonpath={.status.containerStatuses[0].containerID}")
    assert after == before


def test_a_killed_supervisor_is_replaced_by_up_and_nothing_else_is(served: Any) -> None:
    before = {p["name"]: p["pid"] for p in served.status()["processes"]}
    os.kill(before["supervisor"], signal.SIGKILL)
    until(lambda: not any(p["name"] == "supervisor" for p in served.status()["processes"]))
    served.up()
    after = {p["name"]: p["pid"] for p in served.status()["processes"]}
    assert after.pop("supervisor") != before.pop("supervisor")
    assert after == before


def test_a_killed_node_comes_back_with_its_pods(served: Any) -> None:
    field = "jsonpath={.status.containerStatuses[0].containerID}"
    before = served.kubectl("get", "pod", "p2", "-o", field)
    init = int((served.run_dir / "nodes" / "node-2" / "init.pid").read_text())
    os.kill(init, signal.SIGKILL)
    until(lambda: served.kubectl("get", "pod", "p2", "-o", field) != before)
    served.kubectl("wait", "--for=condition=Ready", "pod/p2", "--timeout=60s", timeout=90)
    assert_served(served)


def test_after_a_reboot_up_brings_the_same_cluster_back(served: Any) -> None:
    before = json.loads(served.kubectl("get", "pods", "-o", "json"))
    _reboot(served)
    served.up()
    served.kubectl("wait", "--for=condition=Ready", "pod/p1", "pod/p2", "--timeout=90s", timeout=120)
    after = json.loads(served.kubectl("get", "pods", "-o", "json"))
    assert [p["metadata"]["uid"] for p in before["items"]] == [p["metadata"]["uid"] for p in after["items"]]
    assert_served(served)


def _reboot(cluster: Any) -> None:
    """What a reboot takes: all processes at once, the run folder with its pins, the control groups."""
    mark = f"PERVADE_CLUSTER={cluster.run_dir}".encode()
    for _ in range(2):
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and mark in (entry / "environ").read_bytes().split(b"\0"):
                    os.kill(int(entry.name), signal.SIGKILL)
            except OSError:
                continue
    for pin in (cluster.run_dir / "netns").iterdir():
        subprocess.run(["umount", "-l", pin], check=False, capture_output=True)
    subprocess.run(["rm", "-rf", cluster.run_dir], check=True)
    from pervade.host import cgroups

    until(
        lambda: (
            cgroups.remove(f"pervade/{cluster.name}") >= 0 and not cgroups.exists(f"pervade/{cluster.name}")
        )
    )


def test_nodes_are_added_and_removed(cluster_of: Callable[[int], Any]) -> None:
    cluster = cluster_of(194)
    cluster.up("--nodes", "1")
    kept = cluster.pid("node-1")
    cluster.up("--nodes", "3")
    assert len(cluster.kubectl("get", "nodes", "-o", "name").split()) == 3
    cluster.up("--nodes", "2")
    assert cluster.kubectl("get", "nodes", "-o", "name").split() == ["node/node-1", "node/node-2"]
    assert not (cluster.state / "nodes" / "node-3").exists()
    assert cluster.pid("node-1") == kept


def test_two_clusters_run_side_by_side_and_one_goes_alone(
    cluster_of: Callable[[int], Any], tmp_path: Path
) -> None:
    first, second = cluster_of(196), cluster_of(198)
    second.config = tmp_path / "second.yaml"
    first.up("--nodes", "1")
    second.up("--nodes", "1")
    first.down("--purge")
    assert second.kubectl("get", "nodes", "-o", "name").split() == ["node/node-1"]
    assert second.status()["nodes"][0]["ready"] == "True"


def test_a_foreign_firewall_on_the_host_does_not_matter(served: Any) -> None:
    """What Docker and others leave on a host: FORWARD DROP, and bridges that call iptables where there is br_netfilter."""
    table = f"foreign_{os.getpid()}"
    rules = f"table ip {table} {{ chain f {{ type filter hook forward priority 0; policy drop; }} ; }}"
    bridged = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
    if not bridged.exists():
        subprocess.run(["modprobe", "br_netfilter"], check=False, capture_output=True)
    if not bridged.exists():
        print("br_netfilter is not available in this kernel: only FORWARD DROP is tried")
    subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)
    try:
        assert_served(served)
    finally:
        subprocess.run(["nft", "delete", "table", "ip", table], check=True)
