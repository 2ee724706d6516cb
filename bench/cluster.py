"""A real cluster with the samples: how long until it is Ready, until a pod is, and what it costs when nothing happens."""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import account
from bench.guard import Guard
from bench.row import Row, number, share
from bench.servers import ROOT
from pervade.cluster.kubelet.cri import Cri
from pervade.cluster.plan import Plan, load
from pervade.kube.client import Client
from pervade.kube.resources import PODS

JSON = dict[str, Any]
_ADDRESSES = (
    "--fabric-cidr",
    "172.31.46.0/24",
    "--pod-cidr",
    "10.146.0.0/16",
    "--service-cidr",
    "10.246.0.0/16",
)
_STATE = Path("/var/lib/pervade")
_RUNS, _PODS, _SETTLE = 3, 20, 20.0
_IMAGE = "busybox"
_SAMPLES = ("bookinfo/platform/kube/bookinfo.yaml", "sleep/sleep.yaml", "sleep/notsleep.yaml")
Told = Callable[[str], None]


class Cluster:
    """One cluster under the guard's eyes."""

    def __init__(self, guard: Guard, name: str, kubectl: Path, folder: Path) -> None:
        self.name, self.kubectl_path, self.folder = name, kubectl, folder
        guard.cluster(name)

    @property
    def plan(self) -> Plan:
        return load(_STATE / self.name / "plan.json")

    def up(self) -> tuple[float, float]:
        """(seconds until both nodes are Ready, until `up` ends), as its lines come."""
        command = [
            sys.executable,
            "-u",
            "-m",
            "pervade.cli.main",
            "up",
            "--name",
            self.name,
            "--no-kubeconfig",
        ]
        begin, ready, said = time.monotonic(), 0.0, []
        environment = os.environ | {"NO_COLOR": "1", "PYTHONPATH": str(ROOT / "src")}
        with subprocess.Popen(
            [*command, "--nodes", "2", "--api-port", "7843", *_ADDRESSES],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                said.append(line)
                if "✓ nodes" in line:
                    ready = time.monotonic() - begin
        if process.returncode != 0 or not ready:
            raise RuntimeError("pervade up: " + "".join(said[-8:]))
        return ready, time.monotonic() - begin

    def down(self) -> None:
        command = [sys.executable, "-m", "pervade.cli.main", "down", "--name", self.name, "--purge"]
        subprocess.run(
            command, check=True, capture_output=True, env=os.environ | {"PYTHONPATH": str(ROOT / "src")}
        )

    def kubectl(self, *words: str) -> str:
        config = self.plan.kubeconfig("admin")
        common: list[str | Path] = [
            self.kubectl_path,
            "--kubeconfig",
            config,
            "--cache-dir",
            self.folder / "kubectl",
        ]
        done = subprocess.run([*common, *words], capture_output=True, text=True, check=False, timeout=240)
        if done.returncode != 0:
            raise RuntimeError(f"kubectl {' '.join(words)}: {done.stderr.strip()[-600:]}")
        return str(done.stdout)


def rows(guard: Guard, folder: Path, kubectl: Path, name: str, seconds: float, told: Told) -> list[Row]:
    """All rows that need nodes; the cluster is gone afterwards."""
    cluster = Cluster(guard, name, kubectl, folder)
    begun = []
    for run in range(_RUNS):
        if run:
            cluster.down()
        begun.append(cluster.up())
        told(f"up {run + 1}/{_RUNS}: nodes Ready after {begun[-1][0]:.1f} s, whole {begun[-1][1]:.1f} s")
    alone = statistics.median(asyncio.run(_containerd_alone(cluster.plan)))
    seen = asyncio.run(_ready_times(cluster.plan))
    told(f"pods Ready after {', '.join(f'{s:.2f}' for s in seen)} s")
    made = time.monotonic()
    for manifest in _SAMPLES:
        cluster.kubectl("apply", "-f", str(ROOT / "samples" / manifest))
    cluster.kubectl("wait", "--for=condition=Available", "deployment", "--all", "--timeout=180s")
    available = time.monotonic() - made
    told(f"samples available after {available:.1f} s; now nothing happens for {_SETTLE + seconds:.0f} s")
    time.sleep(_SETTLE)
    used, resident = account.span(cluster.plan, seconds)
    cluster.down()
    how = f"{_PODS} pods one after another, each node in turn, image present"
    result = [
        Row("two nodes Ready", statistics.median(b[0] for b in begun), "s", 10, note=f"`pervade up` on nothing, median of {_RUNS}"),
        Row("… until `up` ends (DNS serves too)", statistics.median(b[1] for b in begun), "s"),
        Row("bound → Ready, p50", share(seen, 0.5), "s", 1.5, True, alone, "containerd alone (sandbox, container, start)", how),
        Row("bound → Ready, p99", share(seen, 0.99), "s", 1.5, True, alone, "containerd alone", how),
        Row("samples applied → available", available, "s", note="8 pods, with their readiness probes"),
        Row("API server's memory, samples up", resident["apiserver"] / 1e6, "MB", 120, note="RSS"),
    ]  # fmt: skip
    result += [
        Row(f"{one} memory", size / 1e6, "MB", 60, note="RSS")
        for one, size in sorted(resident.items())
        if one.startswith("kubelet-")
    ]
    total = sum(used.values()) * 100
    parts = ", ".join(f"{n} {v * 100:.2f}" for n, v in sorted(used.items(), key=lambda i: -i[1]) if v >= 5e-5)
    result.append(
        Row(
            "processor when idle, all of ours", total, "% of a core", 3, note=f"over {seconds:.0f} s: {parts}"
        )
    )
    rest = ", ".join(f"{n} {number(v / 1e6)}" for n, v in sorted(resident.items(), key=lambda i: -i[1]))
    result.append(Row("memory, all of ours", sum(resident.values()) / 1e6, "MB", note=f"RSS: {rest}"))
    return result


async def _ready_times(plan: Plan) -> list[float]:
    """Seconds from the event that shows `spec.nodeName` to the event that shows Ready, for pods made one by one."""
    seen = []
    async with Client.from_kubeconfig(plan.kubeconfig("admin")) as client:
        _, version = await client.list(PODS, "default")
        events = client.watch(PODS, "default", resource_version=version)
        for count in range(_PODS):
            await client.create(
                PODS, _pod(f"bench-{count}", plan.nodes[count % len(plan.nodes)].zone), "default"
            )
            bound = 0.0
            async with asyncio.timeout(60):
                async for _kind, pod in events:
                    if pod["metadata"].get("name") != f"bench-{count}":
                        continue
                    if not bound and pod["spec"].get("nodeName"):
                        bound = time.monotonic()
                    conditions = (pod.get("status") or {}).get("conditions") or ()
                    if any(c["type"] == "Ready" and c["status"] == "True" for c in conditions):
                        seen.append(time.monotonic() - bound)
                        break
        for count in range(_PODS):
            await client.delete(PODS, f"bench-{count}", "default", grace_seconds=0)
    return seen


def _pod(name: str, zone: str) -> JSON:
    container = {"name": "c", "image": _IMAGE, "command": ["sleep", "3600"]}
    return {
        "metadata": {"name": name},
        "spec": {
            "containers": [container],
            "nodeSelector": {"topology.kubernetes.io/zone": zone},
            "terminationGracePeriodSeconds": 0,
        },
    }


async def _containerd_alone(plan: Plan) -> list[float]:
    """Seconds that containerd needs for the least sandbox with one container, without a kubelet."""
    node = plan.nodes[0]
    cri = Cri(plan.cri_socket(node.name))
    seen = []
    try:
        images = (await cri.call("ListImages")).images
        image = next(i.id for i in images if any("busybox" in tag for tag in i.repo_tags))
        for count in range(5):
            meta = {
                "name": f"alone-{count}",
                "namespace": "bench",
                "uid": f"bench-alone-{count}",
                "attempt": 0,
            }
            sandbox = {"metadata": meta, "log_directory": f"/var/log/pods/bench-{count}", "linux": {}}
            config = {
                "metadata": {"name": "c"},
                "image": {"image": image},
                "command": ["sleep", "3600"],
                "log_path": "c.log",
                "linux": {},
            }
            begin = time.monotonic()
            box = (await cri.call("RunPodSandbox", config=sandbox)).pod_sandbox_id
            made = await cri.call(
                "CreateContainer", pod_sandbox_id=box, config=config, sandbox_config=sandbox
            )
            await cri.call("StartContainer", container_id=made.container_id)
            seen.append(time.monotonic() - begin)
            await cri.call("StopPodSandbox", pod_sandbox_id=box)
            await cri.call("RemovePodSandbox", pod_sandbox_id=box)
    finally:
        await cri.close()
    return seen
