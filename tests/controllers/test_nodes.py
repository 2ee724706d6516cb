"""A node falls silent and comes back, or goes for good: over HTTP, with played leases."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from pervade.kube.resources import NODES, PODS

JSON = dict[str, Any]


@pytest.fixture
def grace() -> float:
    return 1.5


@pytest.fixture
async def beating(world: Any) -> AsyncIterator[set[str]]:
    """The nodes whose leases are renewed all the time."""
    names = {"node-1", "node-2"}

    async def beat() -> None:
        second = 0
        while True:
            for name in sorted(names):
                second += 1
                await world.beat(name, second % 60)
            await asyncio.sleep(0.3)

    task = asyncio.create_task(beat())
    yield names
    task.cancel()


def taints(node: JSON) -> set[tuple[str, str]]:
    return {(t["key"], t["effect"]) for t in node["spec"].get("taints") or ()}


AWAY = {("node.kubernetes.io/unreachable", e) for e in ("NoSchedule", "NoExecute")}


async def pod(world: Any, name: str, seconds: int | None, node: str = "node-1") -> None:
    tolerations = [{"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute"}]
    if seconds is not None:
        tolerations[0]["tolerationSeconds"] = seconds  # type: ignore[assignment]
    spec = {"nodeName": node, "tolerations": tolerations, "containers": [{"name": "c", "image": "one"}]}
    await world.client.create(PODS, {"metadata": {"name": name, "namespace": "default"}, "spec": spec})


def ready(held: dict[str, JSON], name: str) -> str:
    rows = (held[name].get("status") or {}).get("conditions") or ()
    return next((c["status"] for c in rows if c["type"] == "Ready"), "")


async def test_a_silent_node_loses_its_pods_in_time_and_comes_back(world: Any, beating: set[str]) -> None:
    await pod(world, "short", 1)
    await pod(world, "long", None)
    await pod(world, "elsewhere", 1, "node-2")
    await world.seen(PODS, lambda held: all(ready(held, n) == "True" for n in ("short", "long", "elsewhere")))
    beating.discard("node-1")
    held = await world.seen(
        NODES, lambda held: ready(held, "node-1") == "Unknown" and taints(held["node-1"]) == AWAY and held
    )
    row = next(c for c in held["node-1"]["status"]["conditions"] if c["type"] == "Ready")
    assert row["reason"] == "NodeStatusUnknown"
    assert ready(held, "node-2") == "True" and not taints(held["node-2"])
    held = await world.seen(
        PODS, lambda held: "short" not in held and ready(held, "long") == "False" and held
    )
    assert "elsewhere" in held
    beating.add("node-1")
    # What a kubelet writes when it is back.
    body = {"status": {"conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "",
                                       "lastHeartbeatTime": "2026-01-01T00:01:00Z", "lastTransitionTime": "2026-01-01T00:01:00Z"}]}}  # fmt: skip
    await world.client.patch(NODES, "node-1", body, subresource="status")
    await world.seen(NODES, lambda held: not taints(held["node-1"]) and ready(held, "node-1") == "True")
    assert "long" in {p["metadata"]["name"] for p in (await world.client.list(PODS, "default"))[0]}


async def test_pods_of_a_deleted_node_go(world: Any, beating: set[str]) -> None:
    await pod(world, "left", None)
    await pod(world, "right", None, "node-2")
    await world.seen(PODS, lambda held: len(held) == 2)
    beating.discard("node-1")
    await world.client.delete(NODES, "node-1")
    await world.seen(PODS, lambda held: list(held) == ["right"])


async def test_a_node_that_says_it_is_not_ready_is_tainted_until_it_is(world: Any, beating: set[str]) -> None:
    async def say(status: str, at: str) -> None:
        row = {
            "type": "Ready",
            "status": status,
            "reason": "",
            "message": "",
            "lastHeartbeatTime": at,
            "lastTransitionTime": at,
        }
        await world.client.patch(NODES, "node-1", {"status": {"conditions": [row]}}, subresource="status")

    await say("False", "2026-01-01T00:01:00Z")
    wanted = {("node.kubernetes.io/not-ready", e) for e in ("NoSchedule", "NoExecute")}
    await world.seen(NODES, lambda held: taints(held["node-1"]) == wanted)
    own = {"key": "own", "value": "x", "effect": "NoSchedule"}
    node = await world.client.get(NODES, "node-1")
    await world.client.patch(NODES, "node-1", {"spec": {"taints": [*node["spec"]["taints"], own]}})
    await say("True", "2026-01-01T00:02:00Z")
    await world.seen(NODES, lambda held: taints(held["node-1"]) == {("own", "NoSchedule")})


async def test_of_ended_pods_only_so_many_are_kept(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pervade.cluster.controllers.nodes._MOST_ENDED", 2)
    spec = {"containers": [{"name": "c", "image": "one"}]}
    for number in range(4):
        meta = {"name": f"p{number}", "namespace": "default", "labels": {"plays": "end"}}
        await world.client.create(PODS, {"metadata": meta, "spec": spec})
        await world.seen(
            PODS,
            lambda held, n=number: (
                f"p{n}" in held and held[f"p{n}"].get("status", {}).get("phase") == "Succeeded"
            ),
        )
    held = await world.seen(PODS, lambda held: len(held) == 2 and held)
    assert sorted(held) == ["p2", "p3"]
