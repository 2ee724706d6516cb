"""Stories of logs and streams, of the node's own object, and of a kubelet or containerd that is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from pervade.testing.cluster import KUBECTL, free_port
from pervade.testing.wait import until

pytestmark = pytest.mark.live
SLEEP = ["sh", "-c", "trap 'exit 0' TERM; sleep 3600 & wait"]


def test_logs_over_a_rotation(pods: Any, tmp_path: Path) -> None:
    # 12 MB at once, so that the next look rotates; then a line now and then, to be followed over it.
    script = "seq 100000 | sed 's/$/ ----------------------------------------------------------------/'; i=0; while :; do i=$((i+1)); echo late $i; sleep 0.2; done"
    pods.run("chatty", {"name": "c", "command": ["sh", "-c", script]})
    pods.ready("chatty")
    words = [KUBECTL, "--kubeconfig", pods.cluster.config, "logs", "-f", "chatty", "--since=1h"]
    with (tmp_path / "followed").open("w") as out, subprocess.Popen(words, stdout=out) as follower:
        try:
            folder = pods.cluster.state / "nodes" / "node-1" / "log" / "pods"
            until(lambda: list(folder.glob("default_chatty_*/c/0.log.*")), 30)
            time.sleep(1)  # some lines go to the new file
        finally:
            follower.terminate()
    followed = (tmp_path / "followed").read_text().splitlines()
    late = [int(line.split()[1]) for line in followed if line.startswith("late ")]
    assert late == list(range(1, len(late) + 1)) and late, "every line once and in order"
    assert sum(line.endswith("-") for line in followed) == 100000
    whole = pods.kubectl("logs", "chatty").splitlines()
    assert whole[0].startswith("1 -") and len(whole) > 100000, "also what is in the older file"
    assert len(pods.kubectl("logs", "chatty", "--tail=100010").splitlines()) >= 100010
    assert len(pods.kubectl("logs", "chatty", "--tail=3").splitlines()) == 3
    assert 1 <= len(pods.kubectl("logs", "chatty", "--since=2s").splitlines()) <= 30
    assert pods.kubectl("logs", "chatty", "--tail=1", "--timestamps").split()[0].startswith("20")


def test_exec_attach_copy_and_port_forward(pods: Any, tmp_path: Path) -> None:
    pods.run("stream", {"name": "c", "image": "nicolaka/netshoot", "command": ["sh", "-c", "cd /tmp; echo page > x; exec python3 -m http.server 8080"]})  # fmt: skip
    pods.run("echo", {"name": "c", "command": ["cat"], "stdin": True})
    pods.ready("stream")
    pods.ready("echo")
    base = [str(KUBECTL), "--kubeconfig", str(pods.cluster.config)]
    done = subprocess.run([*base, "exec", "stream", "--", "sh", "-c", "echo out; echo err >&2; exit 5"], capture_output=True, text=True, timeout=20, check=False)  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr.splitlines()[0]) == (5, "out\n", "err")
    big = "x" * 3_000_000
    done = subprocess.run([*base, "exec", "-i", "stream", "--", "cat"], input=big, capture_output=True, text=True, timeout=30, check=False)  # fmt: skip
    assert done.stdout == big
    (tmp_path / "file").write_text("carried")
    pods.kubectl("cp", str(tmp_path / "file"), "stream:/tmp/file")
    pods.kubectl("cp", "stream:/tmp/file", str(tmp_path / "back"))
    assert (tmp_path / "back").read_text() == "carried"
    with subprocess.Popen([*base, "attach", "-i", "echo"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as attached:  # fmt: skip
        assert attached.stdin and attached.stdout
        attached.stdin.write("hello\n")
        attached.stdin.flush()
        assert attached.stdout.readline() == "hello\n"
        attached.terminate()
    port = free_port()
    with subprocess.Popen([*base, "port-forward", "stream", f"{port}:8080"], stdout=subprocess.PIPE, text=True) as forward:  # fmt: skip
        assert forward.stdout and "Forwarding" in forward.stdout.readline()
        page = subprocess.run(["curl", "-s", "--noproxy", "*", f"http://127.0.0.1:{port}/x"], capture_output=True, text=True, timeout=10, check=False)  # fmt: skip
        forward.terminate()
    assert page.stdout == "page\n"


def test_the_node_tells_of_itself(pods: Any) -> None:
    node = json.loads(pods.kubectl("get", "node", "node-1", "-o", "json"))
    status = node["status"]
    assert {c["type"]: c["status"] for c in status["conditions"]} == {
        "Ready": "True", "MemoryPressure": "False", "DiskPressure": "False", "PIDPressure": "False",
    }  # fmt: skip
    assert (
        {"cpu", "memory", "pods", "ephemeral-storage"}
        <= status["capacity"].keys()
        == status["allocatable"].keys()
    )
    assert {"InternalIP", "Hostname"} == {a["type"] for a in status["addresses"]}
    assert any("busybox" in name for image in status["images"] for name in image["names"])
    get = ["get", "lease", "node-1", "-n", "kube-node-lease", "-o", "jsonpath={.spec.renewTime}"]
    before = pods.kubectl(*get)
    until(lambda: pods.kubectl(*get) != before, 15)


def test_a_network_plugin_that_refuses_is_quoted(pods: Any) -> None:
    folder = pods.cluster.state / "nodes" / "node-2" / "net.d"
    file = next(f for f in sorted(folder.iterdir()) if f.suffix == ".conflist")
    whole = file.read_text()
    broken = json.loads(whole)
    broken["plugins"].append({"type": "no-such-plugin"})
    try:
        file.write_text(json.dumps(broken))
        until(lambda: _refused(pods), 30)
    finally:
        file.write_text(whole)
    pods.ready("refused", 30)


def _refused(pods: Any) -> bool:
    if not pods.kubectl("get", "pod", "refused", "--ignore-not-found", "-o", "name"):
        time.sleep(1)  # containerd watches the folder
        pods.run("refused", {"name": "c", "command": SLEEP}, nodeName="node-2")
    return "no-such-plugin" in pods.events("refused").get("FailedCreatePodSandBox", "")


def test_killed_kubelet_and_containerd_change_nothing(pods: Any) -> None:
    probe = {"exec": {"command": ["true"]}, "periodSeconds": 1}
    pods.run("steady", {"name": "c", "command": ["sh", "-c", "i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done"], "readinessProbe": probe, "startupProbe": probe})  # fmt: skip
    pods.ready("steady")
    before = pods.container("steady", "c")
    since = pods.status("steady")["conditions"]
    old = pods.cluster.pid("kubelet-node-1")
    os.kill(old, signal.SIGKILL)
    until(lambda: pods.cluster.pid("kubelet-node-1") not in (0, old), 20)
    time.sleep(3)  # longer than its start and the first probes
    assert pods.container("steady", "c") == before
    assert pods.status("steady")["conditions"] == since, "never unready in between"
    assert pods.sh("steady", "echo exec works") == "exec works"
    daemon = _containerd(pods, "node-1")
    heard = pods.kubectl("get", "node", "node-1", "-o", "jsonpath={.status.conditions}")
    os.kill(daemon, signal.SIGKILL)
    until(lambda: _containerd(pods, "node-1") not in (0, daemon), 20)
    until(lambda: "works" in pods.sh("steady", "echo works", check=False), 20)
    assert pods.container("steady", "c") == before
    assert pods.kubectl("get", "node", "node-1", "-o", "jsonpath={.status.conditions}") == heard
    numbers = [int(n) for n in pods.kubectl("logs", "steady").split()]
    assert numbers == list(range(1, len(numbers) + 1))
    pods.run("after", {"name": "c", "command": SLEEP})
    pods.ready("after", 20)


def _containerd(pods: Any, node: str) -> int:
    """The pid of a node's containerd: the child of the init that the cluster's plan names; 0 while there is none."""
    init = pods.cluster.run_dir / "nodes" / node / "init.pid"
    children = subprocess.run(["pgrep", "-P", init.read_text().strip(), "containerd$"], capture_output=True, text=True, check=False)  # fmt: skip
    return int(children.stdout.split()[0]) if children.stdout.strip() else 0


def test_a_container_restarts_while_the_api_hangs(pods: Any) -> None:
    pods.apply("ConfigMap", "known", data={"a": "1"})
    script = "while [ ! -e /d/crash ]; do sleep 0.1; done; rm /d/crash; exit 1"
    pods.run(
        "hangs",
        {"name": "c", "command": ["sh", "-c", script], "envFrom": [{"configMapRef": {"name": "known"}}],
         "volumeMounts": [{"name": "d", "mountPath": "/d"}, {"name": "k", "mountPath": "/k"}]},
        volumes=[{"name": "d", "emptyDir": {}}, {"name": "k", "configMap": {"name": "known"}}],
    )  # fmt: skip
    pods.ready("hangs")
    folder = pods.cluster.state / "nodes" / "node-1"
    uid = pods.get("hangs")["metadata"]["uid"]
    api = pods.cluster.pid("apiserver")
    os.kill(api, signal.SIGSTOP)
    try:
        (folder / "kubelet" / "pods" / uid / "volumes" / "emptyDir" / "d" / "crash").touch()
        until((folder / "log" / "pods" / f"default_hangs_{uid}" / "c" / "1.log").exists, 10)
    finally:
        os.kill(api, signal.SIGCONT)
    until(lambda: pods.container("hangs", "c").get("restartCount") == 1, 40)
