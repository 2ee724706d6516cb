"""Stories of containers on real nodes: starts, ends, probes, hooks, restarts."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from pervade.testing.wait import until

pytestmark = pytest.mark.live
SLEEP = ["sh", "-c", "trap 'exit 0' TERM; sleep 3600 & wait"]


def test_init_containers_in_order_then_a_sidecar_that_ends_last(pods: Any) -> None:
    mount = [{"name": "d", "mountPath": "/d"}]
    side = (
        "trap 'cut -d\" \" -f1 /proc/uptime > /d/side; exit 0' TERM; echo side >> /d/order; sleep 3600 & wait"
    )
    main = "trap 'sleep 0.3; cut -d\" \" -f1 /proc/uptime > /d/main; exit 0' TERM; echo main >> /d/order; sleep 3600 & wait"
    pods.run(
        "order",
        {"name": "main", "command": ["sh", "-c", main], "volumeMounts": mount},
        initContainers=[
            {"name": "one", "command": ["sh", "-c", "sleep 0.5; echo one >> /d/order"], "volumeMounts": mount},
            {"name": "side", "restartPolicy": "Always", "command": ["sh", "-c", side], "volumeMounts": mount,
             "startupProbe": {"exec": {"command": ["grep", "side", "/d/order"]}, "periodSeconds": 1}},
            {"name": "two", "command": ["sh", "-c", "echo two >> /d/order"], "volumeMounts": mount},
        ],
        terminationGracePeriodSeconds=5,
        volumes=[{"name": "d", "hostPath": {"path": "/var/tmp/order", "type": "DirectoryOrCreate"}}],
    )  # fmt: skip
    pods.ready("order", 15)
    assert pods.sh("order", "cat /d/order", "main").split() == ["one", "side", "two", "main"]
    pods.run(
        "look",
        {"name": "c", "command": SLEEP, "volumeMounts": mount},
        volumes=[{"name": "d", "hostPath": {"path": "/var/tmp/order", "type": "Directory"}}],
    )
    pods.ready("look")
    pods.kubectl("delete", "pod", "order")
    main_end, side_end = (float(pods.sh("look", f"cat /d/{n}")) for n in ("main", "side"))
    assert main_end < side_end, "the sidecar is told to stop after the main container has ended"


def test_a_sidecar_does_not_keep_a_finished_pod(pods: Any) -> None:
    pods.run(
        "job",
        {"name": "work", "command": ["sh", "-c", "sleep 1"]},
        initContainers=[{"name": "side", "restartPolicy": "Always", "command": SLEEP}],
        restartPolicy="Never",
    )
    pods.phase("job", "Succeeded", 20)
    assert until(lambda: "terminated" in pods.container("job", "side", "initContainerStatuses")["state"], 10)


def test_an_init_container_that_fails(pods: Any) -> None:
    pods.run(
        "failing",
        {"name": "c", "command": SLEEP},
        initContainers=[{"name": "i", "command": ["sh", "-c", "exit 7"]}],
        restartPolicy="Never",
    )
    pods.phase("failing", "Failed")
    ended = pods.container("failing", "i", "initContainerStatuses")["state"]["terminated"]
    assert ended["exitCode"] == 7


def test_crash_back_off_counts_and_keeps_the_last_words(pods: Any) -> None:
    pods.run(
        "crash",
        {"name": "said", "command": ["sh", "-c", "echo bye > /dev/termination-log; exit 3"]},
        {"name": "log", "command": ["sh", "-c", "echo from the log; exit 4"], "terminationMessagePolicy": "FallbackToLogsOnError"},
        {"name": "nocmd", "command": ["nope"]},
        {"name": "oom", "image": "nicolaka/netshoot", "command": ["python3", "-c", "x='a'*500000000"],
         "resources": {"limits": {"memory": "32Mi"}}},
    )  # fmt: skip
    for name in ("said", "log", "nocmd", "oom"):
        until(
            lambda name=name: (
                (s := pods.container("crash", name)).get("restartCount") == 1
                and s["state"].get("waiting", {}).get("reason") in ("CrashLoopBackOff", "RunContainerError")
            ),
            15,
        )
    last = {n: pods.container("crash", n)["lastState"]["terminated"] for n in ("said", "log", "nocmd", "oom")}
    assert (last["said"]["exitCode"], last["said"]["message"]) == (3, "bye\n")
    assert last["log"]["message"] == "from the log\n"
    assert "not found" in last["nocmd"]["message"] and last["nocmd"]["reason"] == "StartError"
    assert last["oom"]["reason"] == "OOMKilled"
    assert pods.kubectl("logs", "crash", "-c", "log", "--previous") == "from the log\n"
    until(lambda: pods.container("crash", "said")["restartCount"] == 2, 15)
    assert "Back-off restarting failed container" in pods.events("crash")["BackOff"]


def test_restart_policies(pods: Any) -> None:
    pods.run("never", {"name": "c", "command": ["sh", "-c", "exit 1"]}, restartPolicy="Never")
    pods.run("good", {"name": "c", "command": ["true"]}, restartPolicy="OnFailure")
    pods.run("retry", {"name": "c", "command": ["sh", "-c", "exit 1"]}, restartPolicy="OnFailure")
    assert pods.phase("never", "Failed")["containerStatuses"][0]["restartCount"] == 0
    assert (
        pods.phase("good", "Succeeded")["containerStatuses"][0]["state"]["terminated"]["reason"]
        == "Completed"
    )
    until(lambda: pods.container("retry", "c").get("restartCount") == 1, 15)


def test_what_cannot_be_started_says_why(pods: Any) -> None:
    pods.run(
        "why",
        {"name": "pull", "image": "nowhere.invalid/x:1"},
        {"name": "never", "image": "nowhere.invalid/y:1", "imagePullPolicy": "Never"},
        {"name": "root", "command": SLEEP, "securityContext": {"runAsNonRoot": True}},
        {"name": "conf", "command": SLEEP, "env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "nope", "key": "a"}}}]},
    )  # fmt: skip

    def reason(name: str) -> str:
        return str(pods.container("why", name).get("state", {}).get("waiting", {}).get("reason"))

    until(lambda: reason("pull") == "ImagePullBackOff", 20)
    assert [reason(n) for n in ("never", "root", "conf")] == [
        "ErrImageNeverPull",
        "CreateContainerConfigError",
        "CreateContainerConfigError",
    ]
    found = pods.events("why")
    assert "not present with pull policy of Never" in found["ErrImageNeverPull"]
    assert "Pulling" in found and "Failed" in found and "BackOff" in found


def test_probes_of_every_kind_come_from_the_node(pods: Any) -> None:
    server = (
        "import http.server as h\n"
        "class H(h.BaseHTTPRequestHandler):\n"
        "  def log_message(self, *words): del words\n"
        "  def do_GET(self):\n"
        "    print(self.client_address[0], self.path, self.headers['x'], flush=True)\n"
        "    self.send_response(200); self.end_headers()\n"
        "h.ThreadingHTTPServer(('', 8080), H).serve_forever()"
    )
    http = {"path": "/p", "port": "web", "httpHeaders": [{"name": "x", "value": "y"}]}
    pods.run(
        "probed",
        {"name": "http", "image": "nicolaka/netshoot", "command": ["python3", "-c", server],
         "ports": [{"name": "web", "containerPort": 8080}],
         "startupProbe": {"httpGet": http, "periodSeconds": 1, "failureThreshold": 20},
         "livenessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
         "readinessProbe": {"exec": {"command": ["test", "!", "-e", "/tmp/away"]}, "periodSeconds": 1, "failureThreshold": 1}},
    )  # fmt: skip
    pods.ready("probed", 15)
    address, *rest = pods.kubectl("logs", "probed").splitlines()[0].split()
    assert rest == ["/p", "y"]
    assert address.removeprefix("::ffff:") == pods.sh("probed", "ip route show default | cut -d' ' -f3"), (
        "the gateway is the node"
    )
    pods.sh("probed", "touch /tmp/away")
    pods.kubectl("wait", "--for=condition=Ready=false", "pod/probed", "--timeout=10s")
    pods.sh("probed", "rm /tmp/away")
    pods.ready("probed", 10)
    assert pods.container("probed", "http")["restartCount"] == 0


def test_liveness_restarts_and_startup_protects(pods: Any) -> None:
    pods.run(
        "alive",
        {"name": "c", "command": ["sh", "-c", "trap 'exit 0' TERM; [ -e /d/x ] || touch /d/bad; touch /d/x; sleep 3600 & wait"],
         "volumeMounts": [{"name": "d", "mountPath": "/d"}],
         "startupProbe": {"exec": {"command": ["true"]}, "periodSeconds": 1},
         "livenessProbe": {"exec": {"command": ["sh", "-c", "! rm /d/bad 2>/dev/null"]}, "periodSeconds": 1, "failureThreshold": 1}},
        volumes=[{"name": "d", "emptyDir": {}}],
    )  # fmt: skip
    until(lambda: pods.container("alive", "c").get("restartCount") == 1, 20)
    pods.ready("alive", 15)
    time.sleep(2.5)  # more than two periods of the probe, which now succeeds
    assert pods.container("alive", "c")["restartCount"] == 1
    found = pods.events("alive")
    assert "Liveness probe failed" in found["Unhealthy"] and "Killing" in found


def test_hooks_and_a_grace_period_that_is_not_waited_for(pods: Any) -> None:
    mount = [{"name": "d", "mountPath": "/d"}]
    volume = [{"name": "d", "hostPath": {"path": "/var/tmp/hooks", "type": "DirectoryOrCreate"}}]
    hooks = {
        "postStart": {"exec": {"command": ["sh", "-c", "echo post > /d/post"]}},
        "preStop": {"exec": {"command": ["sh", "-c", "echo pre > /d/pre"]}},
    }
    pods.run("look2", {"name": "c", "command": SLEEP, "volumeMounts": mount}, volumes=volume)
    pods.run(
        "hooked",
        {"name": "c", "command": SLEEP, "volumeMounts": mount, "lifecycle": hooks},
        volumes=volume,
        terminationGracePeriodSeconds=86400,
    )
    pods.ready("look2")
    pods.ready("hooked")
    assert pods.sh("look2", "cat /d/post") == "post"
    begin = time.monotonic()
    pods.kubectl("delete", "pod", "hooked")
    assert time.monotonic() - begin < 6
    assert pods.sh("look2", "cat /d/pre") == "pre"
    pods.run(
        "bad-hook",
        {"name": "c", "command": SLEEP, "lifecycle": {"postStart": {"exec": {"command": ["false"]}}}},
    )
    until(lambda: "FailedPostStartHook" in pods.events("bad-hook"), 15)


def test_force_ends_a_pod_that_ignores_its_signal(pods: Any) -> None:
    deaf = ["sh", "-c", "trap '' TERM; while :; do sleep 1; done"]
    pods.run("deaf", {"name": "c", "command": deaf}, terminationGracePeriodSeconds=3600)
    pods.ready("deaf")
    pods.kubectl("delete", "pod", "deaf", "--wait=false")
    until(lambda: "Killing" in pods.events("deaf"), 10)
    assert pods.get("deaf")["metadata"]["deletionGracePeriodSeconds"] == 3600
    begin = time.monotonic()
    pods.kubectl("delete", "pod", "deaf", "--grace-period=1")
    assert time.monotonic() - begin < 6, "a shorter grace that comes later is honoured"


def test_a_deadline_ends_the_pod(pods: Any) -> None:
    pods.run("late", {"name": "c", "command": SLEEP}, activeDeadlineSeconds=2)
    found = pods.phase("late", "Failed", 15)
    assert found["reason"] == "DeadlineExceeded"
    until(lambda: "terminated" in pods.container("late", "c")["state"], 10)


def test_a_pod_lost_with_its_sandbox_keeps_its_count(pods: Any) -> None:
    pods.run("lost", {"name": "c", "command": ["sh", "-c", "echo run; " + SLEEP[2]]})
    pods.ready("lost")
    uid, before = pods.get("lost")["metadata"]["uid"], pods.container("lost", "c")
    _kill_pause(uid)
    until(lambda: pods.container("lost", "c").get("restartCount") == 1, 20)
    pods.ready("lost")
    after = pods.container("lost", "c")
    assert after["containerID"] != before["containerID"]
    assert after["lastState"]["terminated"]["containerID"] == before["containerID"]
    assert pods.kubectl("logs", "lost", "--previous") == "run\n"


def _kill_pause(uid: str) -> None:
    """Kill the process that holds the namespaces of a pod; the pause image's command knows both signals."""
    for file in Path("/sys/fs/cgroup").rglob(f"pod{uid}/*/cgroup.procs"):
        for pid in file.read_text().split():
            if b"TERM INT" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(int(pid), signal.SIGKILL)
                return
    raise AssertionError("no pause process found")


def test_another_image_restarts_the_container_alone(pods: Any) -> None:
    pods.run("swap", {"name": "a", "command": SLEEP}, {"name": "b", "command": SLEEP})
    pods.ready("swap")
    other = pods.container("swap", "b")
    pods.kubectl("set", "image", "pod/swap", "a=nicolaka/netshoot")
    until(lambda: pods.container("swap", "a").get("restartCount") == 1, 20)
    pods.ready("swap")
    assert pods.container("swap", "a")["image"] == "nicolaka/netshoot"
    assert pods.sh("swap", "python3 -c 'print(1)'", "a") == "1"
    assert pods.container("swap", "b") == other
    assert "definition changed" in pods.events("swap")["Killing"]


def test_a_node_that_is_killed_brings_its_pods_back(pods: Any) -> None:
    pods.run("back", {"name": "c", "command": ["sh", "-c", "echo run; " + SLEEP[2]]}, nodeName="node-2")
    pods.run("over", {"name": "c", "command": SLEEP}, nodeName="node-2", restartPolicy="Never")
    pods.ready("back")
    pods.ready("over")
    before = pods.container("back", "c")
    init = pods.cluster.run_dir / "nodes" / "node-2" / "init.pid"
    os.kill(int(init.read_text()), signal.SIGKILL)
    until(lambda: pods.container("back", "c").get("restartCount") == 1, 40)
    pods.ready("back")
    after = pods.container("back", "c")
    assert after["lastState"]["terminated"]["containerID"] == before["containerID"]
    assert pods.kubectl("logs", "back", "--previous") == "run\n" == pods.kubectl("logs", "back")
    assert pods.phase("over", "Failed", 20)["containerStatuses"][0]["restartCount"] == 0
