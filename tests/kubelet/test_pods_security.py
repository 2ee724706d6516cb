"""Stories of isolation and resources on real nodes."""

from __future__ import annotations

from typing import Any

import pytest

from pervade.testing.wait import until

pytestmark = pytest.mark.live
SLEEP = ["sh", "-c", "trap 'exit 0' TERM; sleep 3600 & wait"]


def _caps(pods: Any, name: str, container: str) -> int:
    return int(pods.sh(name, "grep CapEff /proc/1/status", container).split()[1], 16)


def test_what_a_container_may(pods: Any) -> None:
    def one(name: str, **security: Any) -> dict[str, Any]:
        return {"name": name, "command": SLEEP, "securityContext": security}

    pods.run(
        "may",
        one("plain"),
        one("caps", capabilities={"drop": ["ALL"], "add": ["NET_ADMIN"]}),
        one("fixed", readOnlyRootFilesystem=True, allowPrivilegeEscalation=False),
        one("all", privileged=True),
        one("filtered", seccompProfile={"type": "RuntimeDefault"}),
        one("user", runAsUser=1234, runAsNonRoot=True),
        one("group", runAsGroup=77),
        securityContext={"supplementalGroups": [55], "sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "81"}]},
    )  # fmt: skip
    pods.ready("may")
    assert _caps(pods, "may", "caps") == 1 << 12
    assert _caps(pods, "may", "all").bit_count() >= 38 > _caps(pods, "may", "plain").bit_count()
    assert pods.sh("may", "touch /x 2>/dev/null || echo refused", "fixed") == "refused"
    status = dict(
        line.split(":\t", 1) for line in pods.sh("may", "cat /proc/1/status", "fixed").splitlines() if ":\t" in line
    )  # fmt: skip
    assert status["NoNewPrivs"] == "1"
    assert pods.sh("may", "grep Seccomp: /proc/1/status", "filtered").split()[1] == "2"
    assert pods.sh("may", "grep Seccomp: /proc/1/status", "plain").split()[1] == "0"
    assert pods.sh("may", "id -u; id -G", "user").split()[0] == "1234"
    assert "55" in pods.sh("may", "id -G", "user").split()
    assert pods.sh("may", "id -u; id -g", "group").split() == ["0", "77"]
    assert pods.sh("may", "cat /proc/sys/net/ipv4/ip_unprivileged_port_start", "plain") == "81"
    assert pods.sh("may", "echo 1 > /proc/sys/kernel/panic || echo refused", "plain").endswith("refused")
    assert pods.sh("may", "head -c1 /proc/kcore | wc -c", "plain") == "0", "masked"


def test_namespaces_of_the_node_and_of_the_pod(pods: Any) -> None:
    pods.run("own", {"name": "a", "command": SLEEP}, {"name": "b", "command": SLEEP})
    pods.run(
        "shared", {"name": "a", "command": SLEEP}, {"name": "b", "command": SLEEP}, shareProcessNamespace=True
    )
    pods.run("node", {"name": "a", "command": SLEEP}, hostNetwork=True, hostPID=True, hostIPC=True)
    for name in ("own", "shared", "node"):
        pods.ready(name)
    ns = "readlink /proc/self/ns/{}"
    assert pods.sh("own", ns.format("net"), "a") == pods.sh("own", ns.format("net"), "b")
    assert pods.sh("own", ns.format("pid"), "a") != pods.sh("own", ns.format("pid"), "b")
    assert pods.sh("shared", ns.format("pid"), "a") == pods.sh("shared", ns.format("pid"), "b")
    assert "containerd" in pods.sh("node", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
    status = pods.status("node")
    assert status["podIP"] == status["hostIP"]
    assert pods.sh("node", "hostname") == "node-1"


def test_hosts_and_names(pods: Any) -> None:
    pods.run(
        "named",
        {"name": "c", "command": SLEEP},
        hostname="host",
        subdomain="sub",
        hostAliases=[{"ip": "10.9.9.9", "hostnames": ["foo.local", "bar.local"]}],
        dnsConfig={"options": [{"name": "ndots", "value": "2"}], "searches": ["example.test"]},
    )
    pods.ready("named")
    assert pods.sh("named", "hostname; hostname -f").split() == ["host", "host.sub.default.svc.cluster.local"]
    assert "10.9.9.9\tfoo.local\tbar.local" in pods.sh("named", "cat /etc/hosts")
    resolver = pods.sh("named", "cat /etc/resolv.conf")
    assert "ndots:2" in resolver and "default.svc.cluster.local" in resolver and "example.test" in resolver


def test_resources_and_quality_of_service(pods: Any) -> None:
    pods.run("best", {"name": "c", "command": SLEEP})
    pods.run(
        "burst", {"name": "c", "command": SLEEP, "resources": {"requests": {"cpu": "100m", "memory": "32Mi"}}}
    )
    limits = {"cpu": "200m", "memory": "64Mi"}
    pods.run("guaranteed", {"name": "c", "command": SLEEP, "resources": {"limits": limits}})
    seen = {}
    for name in ("best", "burst", "guaranteed"):
        pods.ready(name)
        seen[name] = (pods.status(name)["qosClass"], int(pods.sh(name, "cat /proc/1/oom_score_adj")))
    assert seen["best"] == ("BestEffort", 1000)
    assert seen["burst"][0] == "Burstable" and 900 < seen["burst"][1] < 1000
    # A node does not go below its own score (restrict_oom_score_adj), so that it also runs inside a container.
    assert seen["guaranteed"] in (("Guaranteed", -997), ("Guaranteed", 0))
    v1, v2 = "/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory.max"
    assert pods.sh("guaranteed", f"cat {v1} 2>/dev/null || cat {v2}") == str(64 << 20)
    v1, v2 = "/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "/sys/fs/cgroup/cpu.max"
    assert pods.sh("guaranteed", f"cat {v1} 2>/dev/null || cat {v2}").split()[0] == "20000"


def test_mount_propagation(pods: Any) -> None:
    volume = [{"name": "d", "hostPath": {"path": "/var/tmp/prop", "type": "DirectoryOrCreate"}}]

    def one(name: str, how: str) -> dict[str, Any]:
        mount = {"name": "d", "mountPath": "/d", "mountPropagation": how}
        return {"name": name, "image": "nicolaka/netshoot", "command": SLEEP, "securityContext": {"privileged": True}, "volumeMounts": [mount]}  # fmt: skip

    pods.run(
        "prop",
        one("both", "Bidirectional"),
        one("in", "HostToContainer"),
        one("none", "None"),
        volumes=volume,
    )
    pods.ready("prop")
    pods.sh("prop", "mkdir -p /d/m && mount -t tmpfs x /d/m && touch /d/m/f", "both")
    try:
        assert pods.sh("prop", "ls /d/m", "in") == "f"
        assert pods.sh("prop", "ls /d/m", "none") == ""
    finally:
        pods.sh("prop", "umount /d/m", "both")


def test_debug_containers_and_node(pods: Any) -> None:
    pods.run("target", {"name": "app", "command": SLEEP})
    pods.ready("target")
    words = ["debug", "target", "-q", "--image=nicolaka/netshoot", "--target=app", "-c", "dbg", "--"]
    pods.kubectl(*words, "sh", "-c", "cat /proc/1/cmdline | tr '\\0' ' '; ip -o -4 addr show eth0")
    until(
        lambda: (
            "terminated" in pods.container("target", "dbg", "ephemeralContainerStatuses").get("state", {})
        ),
        15,
    )
    said = pods.kubectl("logs", "target", "-c", "dbg")
    assert "trap" in said and pods.status("target")["podIP"] in said
    made = pods.kubectl(
        "debug", "node/node-1", "--image=busybox", "--", "sh", "-c", "cat /host/etc/hostname; hostname"
    )
    name = made.split("debugging pod ")[1].split()[0]
    try:
        pods.phase(name, "Succeeded", 20)
        assert pods.kubectl("logs", name).split() == ["node-1", "node-1"]
    finally:
        pods.kubectl("delete", "pod", name, "--wait=false")


def test_a_port_of_the_host(pods: Any) -> None:
    server = {
        "name": "c",
        "command": ["httpd", "-f", "-p", "8080"],
        "ports": [{"containerPort": 8080, "hostPort": 18080}],
    }
    pods.run("hosted", server)
    pods.ready("hosted")
    pods.run("asks", {"name": "c", "command": SLEEP}, nodeName="node-2")
    pods.ready("asks")
    node = pods.status("hosted")["hostIP"]
    assert "404" in pods.sh("asks", f"wget -qO- http://{node}:18080/ 2>&1 || true")
