"""containerd's events reach the kubelet, and a status that did not change is equal to the one the API holds."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from pervade.cluster.kubelet import status
from pervade.cluster.kubelet.cri import Cri
from pervade.cluster.kubelet.pleg import Pleg
from pervade.cluster.kubelet.status import CREATED, EXITED, RUNNING, Container, Observed, Waiting
from pervade.testing.cluster import Cluster


@pytest.mark.live
async def test_a_container_that_starts_and_ends_is_told_by_its_id(room_cluster: Cluster) -> None:
    """The slow poll behind the events names no container, so it cannot make this pass."""
    socket = room_cluster.state / "nodes" / "node-1" / "sock" / "containerd.sock"
    cri, heard = Cri(socket), asyncio.Queue[str]()
    task = asyncio.create_task(Pleg(cri, socket, lambda one: heard.put_nowait(one) if one else None).run())
    try:
        words = [
            "run",
            "told",
            "--image=busybox",
            "--restart=Never",
            '--overrides={"spec":{"nodeName":"node-1"}}',
        ]
        await asyncio.to_thread(room_cluster.kubectl, *words, "--", "sleep", "1")
        wait = ["wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/told", "--timeout=30s"]
        await asyncio.to_thread(room_cluster.kubectl, *wait)
        field = "{.status.containerStatuses[0].containerID}"
        identity = await asyncio.to_thread(room_cluster.jsonpath, "pod/told", field)
        times = 0
        async with asyncio.timeout(10):
            while times < 2:
                times += await heard.get() == identity.removeprefix("containerd://")
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await cri.close()
        await asyncio.to_thread(room_cluster.kubectl, "delete", "pod", "told", "--now", check=False)


def nothing(value: Any, path: str = "") -> Iterator[str]:
    """Where `value` holds a null."""
    if value is None:
        yield path
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from nothing(inner, f"{path}.{key}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from nothing(inner, f"{path}[{index}]")


@pytest.mark.parametrize(
    "seen",
    [
        Observed(waiting={"c": Waiting("ContainerCreating", "")}),
        Observed({"c": [Container("1", "c", 0, CREATED, created=1)]}, sandbox=True, addresses=["10.0.0.1"]),
        Observed({"c": [Container("1", "c", 0, RUNNING, created=1, started=2)]}, sandbox=True, addresses=["10.0.0.1"]),
        Observed({"c": [Container("1", "c", 0, EXITED, created=10**9, finished=2 * 10**9, exit_code=128)]}, sandbox=True),
        Observed(
            {"c": [Container("1", "c", 0, EXITED, created=10**9, started=10**9, finished=2 * 10**9, exit_code=1)]},
            waiting={"c": Waiting("CrashLoopBackOff", "back-off")},
            sandbox=True,
        ),
    ],
    ids=["waiting", "created", "running", "not started", "crashed"],
)  # fmt: skip
def test_a_status_holds_no_null_which_the_api_would_drop(seen: Observed) -> None:
    pod = {"metadata": {"name": "p", "uid": "u"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    made = status.pod_status(pod, seen, host_ips=["172.31.0.11"], now="2026-01-01T00:00:00Z")
    assert list(nothing(made)) == []
    again = status.pod_status(
        pod | {"status": made}, seen, host_ips=["172.31.0.11"], now="2026-01-01T00:01:00Z"
    )
    assert again == made
