"""A cluster lives on: what is killed comes back, pods keep serving, a reboot brings the same cluster back."""

from __future__ import annotations

import ipaddress
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
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
    with_pods(cluster, tmp_path)
    yield cluster


def with_pods(cluster: Any, folder: Path) -> None:
    """p1 on node-1 and p2 on node-2, Ready."""
    file = folder / "pods.yaml"
    file.write_text("---".join(PODS % {"name": f"p{n}", "node": f"node-{n}"} for n in (1, 2)))
    cluster.kubectl("apply", "-f", str(file))
    cluster.kubectl("wait", "--for=condition=Ready", "pod/p1", "pod/p2", "--timeout=60s", timeout=90)


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
    old = until(lambda: containerd_of(served, "node-1"))
    os.kill(old, signal.SIGKILL)
    until(lambda: containerd_of(served, "node-1") not in (None, old))
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
    served.kubectl("create", "configmap", "kept", "--from-literal=word=remembered")
    served.kubectl("create", "deployment", "web", "--image=busybox", "--replicas=2", "--", "sleep", "3600")
    served.kubectl("rollout", "status", "deployment/web", "--timeout=60s", timeout=90)
    served.kubectl("expose", "pod", "p2", "--port=8080")
    what = ("get", "pods,services,configmaps,deployments,replicasets", "-o", "json")
    before = {o["metadata"]["uid"]: o for o in json.loads(served.kubectl(*what))["items"]}
    _reboot(served)
    served.up()
    served.kubectl("wait", "--for=condition=Ready", "pod", "--all", "--timeout=90s", timeout=120)
    after = {o["metadata"]["uid"]: o for o in json.loads(served.kubectl(*what))["items"]}
    assert sorted(before) == sorted(after)
    for uid, one in before.items():
        assert one["metadata"]["name"] == after[uid]["metadata"]["name"]
        if one["kind"] in ("Service", "ConfigMap", "Deployment"):
            assert {k: one.get(k) for k in ("spec", "data")} == {
                k: after[uid].get(k) for k in ("spec", "data")
            }
    assert_served(served)
    kept = served.jsonpath("service/p2", "{.spec.clusterIP}")
    until(lambda: from_node_1(served, f"http://{kept}:8080/").startswith("200 "))


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
    field = "{.status.containerStatuses[0].containerID}"
    for cluster in (first, second):
        cluster.up("--nodes", "1")
        cluster.kubectl("run", "only", "--image=busybox", "--", "sleep", "3600")
    for cluster in (first, second):
        cluster.kubectl("wait", "--for=condition=Ready", "pod/only", "--timeout=60s", timeout=90)
    kept = second.jsonpath("pod/only", field)
    assert first.jsonpath("pod/only", field) != kept
    assert first.kubectl("get", "pods", "-o", "name").split() == ["pod/only"]
    first.down("--purge")
    assert second.kubectl("get", "nodes", "-o", "name").split() == ["node/node-1"]
    assert second.status()["nodes"][0]["ready"] == "True"
    assert second.jsonpath("pod/only", field) == kept
    assert address(second, "only").startswith("10.198.")


_FOREIGN = """
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER-USER - [0:0]
-A FORWARD -j DOCKER-USER
-A DOCKER-USER -j DROP
COMMIT
"""


@pytest.fixture
def foreign_host() -> Iterator[list[str]]:
    """A network namespace that is a host with Docker's rules: FORWARD DROP, and bridges that ask iptables.

    Gives the prefix that runs a command there. The namespace ends with the process that holds it, however this ends.
    """
    holder = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "unshare", "-n", "sleep", "infinity"])
    prefix = ["nsenter", f"--net=/proc/{holder.pid}/ns/net", "--"]
    try:
        mine = Path("/proc/self/ns/net").readlink()
        until(lambda: Path(f"/proc/{holder.pid}/ns/net").readlink() != mine)
        for restore in ("iptables-restore", "ip6tables-restore"):
            subprocess.run([*prefix, restore], input=_FOREIGN, text=True, check=True)
        bridged = "for f in /proc/sys/net/bridge/bridge-nf-call-ip*tables; do [ ! -e $f ] || echo 1 >$f; done"
        subprocess.run([*prefix, "sh", "-c", f"ip link set lo up; {bridged}"], check=True)
        yield prefix
    finally:
        holder.kill()
        holder.wait()


def rules(prefix: list[str]) -> str:
    done = subprocess.run(
        [*prefix, "nft", "-s", "list", "ruleset"], capture_output=True, text=True, check=True
    )
    return done.stdout


def test_a_foreign_firewall_on_the_host_does_not_matter(
    foreign_host: list[str], cluster_of: Callable[[int], Any], tmp_path: Path
) -> None:
    if not Path("/proc/sys/net/bridge").exists():
        print("br_netfilter is not loaded in this kernel: only FORWARD DROP is tried")
    before = rules(foreign_host)
    assert "policy drop" in before
    cluster = cluster_of(204)
    cluster.prefix = foreign_host
    cluster.up()
    with_pods(cluster, tmp_path)
    assert_served(cluster)
    assert rules(foreign_host) == before
    cluster.down("--purge")
    assert rules(foreign_host) == before


_CALLER = """
apiVersion: v1
kind: Pod
metadata: {name: caller}
spec:
  nodeName: node-1
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: nicolaka/netshoot
    command:
    - sh
    - -c
    - 'while :; do curl -sf -m3 -o /dev/null http://web:8080/ && echo served || echo FAILED $?; sleep 0.05; done'
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: p2}, ports: [{port: 8080}]}
"""


def test_while_each_part_is_killed_a_service_never_fails(served: Any, tmp_path: Path) -> None:
    """kill -9 of API server, controllers, kubelets and containerd: names, Services and pods go on without one failure."""
    (tmp_path / "caller.yaml").write_text(_CALLER)
    served.kubectl("apply", "-f", str(tmp_path / "caller.yaml"))
    served.kubectl("wait", "--for=condition=Ready", "pod/caller", "--timeout=60s", timeout=90)

    def count(word: str) -> int:
        return log_of(served, "node-1", "caller").count(word)

    # The first calls may come before the Service is in the nodes' rules.
    until(lambda: count("served") > 10)
    early, kills = count("FAILED"), []
    for program in ("apiserver", "controllers", "kubelet-node-1", "kubelet-node-2", "containerd"):
        seen = count("served")
        old = containerd_of(served, "node-2") if program == "containerd" else served.pid(program)
        kills.append(f"{datetime.now(UTC):%H:%M:%S.%f} {program}")
        os.kill(old, signal.SIGKILL)
        until(
            lambda program=program, old=old: (
                (containerd_of(served, "node-2") if program == "containerd" else served.pid(program))
                not in (None, -1, old)
            )
        )
        until(lambda: "error" not in served.status())
        # It heals: the part does its work again, and the caller was served all the while.
        name = f"after-{program}"
        served.kubectl("create", "deployment", name, "--image=busybox", "--replicas=2", "--", "sleep", "3600")
        served.kubectl("rollout", "status", f"deployment/{name}", "--timeout=60s", timeout=90)
        served.kubectl("delete", "deployment", name)
        until(lambda seen=seen: count("served") > seen + 20)
    failed = [line for line in log_of(served, "node-1", "caller").splitlines() if "FAILED" in line]
    assert len(failed) == early, (kills, failed)


def containerd_of(cluster: Any, node: str) -> int | None:
    """The present containerd of a node, a child of its PID 1."""
    init = int((cluster.run_dir / "nodes" / node / "init.pid").read_text())
    for pid in Path(f"/proc/{init}/task/{init}/children").read_text().split():
        try:
            if Path(f"/proc/{pid}/comm").read_text().strip() == "containerd":
                return int(pid)
        except OSError:
            continue
    return None
