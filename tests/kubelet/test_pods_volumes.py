"""Stories of volumes and environment on real nodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pervade.testing.wait import until

pytestmark = pytest.mark.live
SLEEP = ["sh", "-c", "trap 'exit 0' TERM; sleep 3600 & wait"]


def test_environment_in_all_its_forms(pods: Any) -> None:
    pods.apply("ConfigMap", "conf", data={"a": "one", "b": "two"})
    pods.apply("Secret", "sec", stringData={"pw": "hush"})
    pods.apply("Service", "my-db", spec={"ports": [{"name": "sql", "port": 5432}]})
    field = lambda path: {"valueFrom": {"fieldRef": {"fieldPath": path}}}  # noqa: E731
    variables = [
        {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "conf", "key": "a"}}},
        {"name": "OPT", "valueFrom": {"configMapKeyRef": {"name": "nope", "key": "a", "optional": True}}},
        {"name": "PW", "valueFrom": {"secretKeyRef": {"name": "sec", "key": "pw"}}},
        {"name": "NAME", **field("metadata.name")},
        {"name": "IP", **field("status.podIP")},
        {"name": "HOST", **field("status.hostIP")},
        {"name": "LABEL", **field("metadata.labels['tier']")},
        {"name": "SA", **field("spec.serviceAccountName")},
        {"name": "MEM", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
        {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "requests.cpu", "divisor": "1m"}}},
        {"name": "EXPANDED", "value": "$(A)/$(PW)/$(NOPE)/$$(A)"},
    ]
    pods.run(
        "env",
        {"name": "c", "command": ["sh", "-c", "echo $(A) \"$@\"; " + SLEEP[2], "sh"], "args": ["$(PW)"], "env": variables,
         "envFrom": [{"prefix": "P_", "configMapRef": {"name": "conf"}}, {"secretRef": {"name": "gone", "optional": True}}],
         "resources": {"limits": {"memory": "64Mi"}, "requests": {"cpu": "250m"}}},
        metadata={"labels": {"tier": "front"}},
    )  # fmt: skip
    pods.ready("env")
    found = dict(line.split("=", 1) for line in pods.sh("env", "env").splitlines() if "=" in line)
    status = pods.status("env")
    assert found | {
        "A": "one", "PW": "hush", "NAME": "env", "IP": status["podIP"], "HOST": status["hostIP"], "LABEL": "front",
        "SA": "default", "MEM": "64", "CPU": "250", "EXPANDED": "one/hush/$(NOPE)/$(A)", "P_a": "one", "P_b": "two",
        "MY_DB_SERVICE_PORT_SQL": "5432", "KUBERNETES_SERVICE_PORT": "443",
    } == found  # fmt: skip
    assert "OPT" not in found and found["MY_DB_SERVICE_HOST"].startswith("10.")
    assert pods.kubectl("logs", "env") == "one hush\n"


@pytest.mark.matrix
def test_written_volumes_are_read_only_and_change_at_once(pods: Any) -> None:
    pods.apply("ConfigMap", "live", data={"a": "one", "b": "two"})
    pods.apply("Secret", "shh", stringData={"pw": "hush"})
    sources = [
        {"secret": {"name": "shh", "items": [{"key": "pw", "path": "deep/pw", "mode": 0o400}]}},
        {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 600, "audience": "me"}},
    ]
    names = {"conf": "/conf", "proj": "/proj", "down": "/down", "sec": "/sec"}
    pods.run(
        "written",
        {"name": "c", "command": SLEEP, "volumeMounts": [
            *({"name": k, "mountPath": v, "readOnly": False} for k, v in names.items()),
            {"name": "conf", "mountPath": "/one", "subPath": "a"}]},
        metadata={"labels": {"tier": "front"}},
        volumes=[
            {"name": "conf", "configMap": {"name": "live", "defaultMode": 0o640}},
            {"name": "sec", "secret": {"secretName": "shh"}},
            {"name": "down", "downwardAPI": {"items": [{"path": "cpu", "resourceFieldRef": {"containerName": "c", "resource": "limits.cpu"}}]}},
            {"name": "proj", "projected": {"sources": sources}}],
    )  # fmt: skip
    pods.ready("written")
    for folder in names.values():
        refused = pods.cluster.kubectl("exec", "written", "--", "touch", f"{folder}/x", check=False)
        assert refused == "" and "no" in pods.sh("written", f"[ -e {folder}/x ] && echo yes || echo no")
    assert pods.sh("written", "cat /conf/a /sec/pw /proj/deep/pw /proj/labels") == 'onehushhushtier="front"'
    assert pods.sh("written", "stat -Lc %a /conf/a /proj/deep/pw").split() == ["640", "400"]
    assert pods.sh("written", "cat /proj/token | tr . '\\n' | wc -l") in ("2", "3")
    pods.apply("ConfigMap", "live", data={"a": "changed", "c": "new"})
    pods.kubectl("label", "pod", "written", "tier=back", "--overwrite")
    until(
        lambda: (
            pods.sh("written", "cat /conf/a /conf/c /proj/labels", check=False) == 'changednewtier="back"'
        ),
        90,
    )
    assert pods.sh("written", "ls /conf; cat /one").split() == ["a", "c", "one"], "a subPath stays as it was"


def test_empty_dirs(pods: Any) -> None:
    mounts = [{"name": n, "mountPath": f"/{n}"} for n in ("disk", "memory")]
    pods.run(
        "empty",
        {"name": "c", "command": SLEEP, "volumeMounts": mounts},
        securityContext={"runAsUser": 1000, "runAsGroup": 3000, "fsGroup": 2000},
        volumes=[
            {"name": "disk", "emptyDir": {"sizeLimit": "1Mi"}},
            {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "8Mi"}},
        ],
    )
    pods.ready("empty")
    assert pods.sh("empty", "id -u; id -g; id -G").split() == ["1000", "3000", "3000", "2000"]
    assert pods.sh("empty", "touch /disk/x /memory/x; stat -c %g /disk/x /memory/x").split() == [
        "2000",
        "2000",
    ]
    assert pods.sh(
        "empty", "stat -fc %T /memory; df -m /memory | tail -1 | tr -s ' ' | cut -d' ' -f2"
    ).split() == ["tmpfs", "8"]
    pods.sh("empty", "dd if=/dev/zero of=/disk/big bs=1M count=3 2>/dev/null")
    found = pods.phase("empty", "Failed", 30)
    assert found["reason"] == "Evicted" and "exceeds the limit" in found["message"]


def test_host_path_types_mean_the_node(pods: Any) -> None:
    def volume(name: str, path: str, kind: str) -> dict[str, Any]:
        return {"name": name, "hostPath": {"path": path, "type": kind}}

    good = [
        volume("made", "/var/run/pervade-made/here", "DirectoryOrCreate"),
        volume("file", "/var/run/pervade-made/file", "FileOrCreate"),
        volume("socket", "/run/cri/containerd.sock", "Socket"),
        volume("device", "/dev/null", "CharDevice"),
    ]
    pods.run(
        "host",
        {"name": "c", "command": SLEEP, "volumeMounts": [{"name": v["name"], "mountPath": f"/m/{v['name']}"} for v in good]},
        volumes=good,
    )  # fmt: skip
    pods.ready("host")
    assert "yes" in pods.sh(
        "host", "[ -d /m/made -a -f /m/file -a -S /m/socket -a -c /m/device ] && echo yes"
    )
    assert not Path("/run/pervade-made").exists(), "the node's /var/run is not this machine's"
    pods.run(
        "wrong",
        {"name": "c", "command": SLEEP, "volumeMounts": [{"name": "x", "mountPath": "/x"}]},
        volumes=[volume("x", "/etc/hosts", "Directory")],
    )
    until(lambda: "is not a Directory" in pods.events("wrong").get("FailedMount", ""), 15)


def test_a_sub_path_cannot_leave_its_volume(pods: Any) -> None:
    def one(name: str, **sub: str) -> dict[str, Any]:
        mount = {"name": "d", "mountPath": "/x", **sub}
        env = [{"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]
        return {"name": name, "command": SLEEP, "volumeMounts": [mount], "env": env}

    links = "ln -s /etc /d/abs; ln -s ../../../../../../../.. /d/up; mkdir /d/real; ln -s real /d/ok; echo in > /d/real/f"
    pods.run(
        "sub",
        one("abs", subPath="abs/passwd"),
        one("up", subPath="up"),
        one("ok", subPath="ok"),
        one("deep", subPath="ok/new/deep"),
        one("file", subPath="ok/f"),
        one("expr", subPathExpr="logs/$(N)"),
        initContainers=[{"name": "i", "command": ["sh", "-c", links], "volumeMounts": [{"name": "d", "mountPath": "/d"}]}],
        volumes=[{"name": "d", "emptyDir": {}}],
    )  # fmt: skip
    for good in ("ok", "deep", "file", "expr"):
        until(lambda good=good: "running" in pods.container("sub", good).get("state", {}), 20)
    for bad in ("abs", "up"):
        waiting = pods.container("sub", bad)["state"]["waiting"]
        assert waiting["reason"] == "CreateContainerConfigError" and "leaves the volume" in waiting["message"]
    assert pods.sh("sub", "cat /x/f", "ok") == "in" == pods.sh("sub", "cat /x", "file")
    pods.sh("sub", "touch /x/mine", "expr")
    assert pods.sh("sub", "ls -d /x/new/deep", "ok") == "/x/new/deep"


def test_a_pod_is_known_by_its_token_and_allowed_nothing(pods: Any) -> None:
    pods.run("token", {"name": "c", "image": "nicolaka/netshoot", "command": ["sleep", "3600"]})
    pods.ready("token")
    base = "/var/run/secrets/kubernetes.io/serviceaccount"
    script = (
        f"curl -s -o /dev/null -w '%{{http_code}}' --cacert {base}/ca.crt -H \"Authorization: Bearer $(cat {base}/token)\" "
        f"https://kubernetes.default.svc/api/v1/namespaces/$(cat {base}/namespace)/pods"
    )
    assert pods.sh("token", script) == "403", "known (not 401), and allowed nothing"
