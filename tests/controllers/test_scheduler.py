"""Where pods go: pure placement, and bursts over HTTP."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from pervade.cluster.controllers.placement import Room, choose
from pervade.kube.resources import PODS

JSON = dict[str, Any]


def room(name: str, *pods: JSON, **spec: Any) -> Room:
    meta = {"name": name, "labels": {"kubernetes.io/hostname": name, "zone": name[0]}}
    allocatable = {"cpu": "2", "memory": "1Gi", "pods": "3"}
    return Room({"metadata": meta, "spec": spec, "status": {"allocatable": allocatable}}, list(pods))


def pod(name: str = "p", cpu: str = "", port: int = 0, **spec: Any) -> JSON:
    container: JSON = {"name": "c", "resources": {"requests": {"cpu": cpu} if cpu else {}}}
    if port:
        container["ports"] = [{"containerPort": 80, "hostPort": port}]
    meta = {"name": name, "namespace": "default", "labels": {"app": name}}
    return {"metadata": meta, "spec": {"containers": [container], **spec}}


def apart(app: str, key: str = "kubernetes.io/hostname") -> JSON:
    term = {"topologyKey": key, "labelSelector": {"matchLabels": {"app": app}}}
    return {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (pod(cpu="1500m"), "Insufficient cpu"),
        (pod(port=80), "free ports"),
        (pod(nodeSelector={"zone": "x"}), "node affinity/selector"),
        (pod(affinity=apart("held")), "anti-affinity rules"),
        (pod("shy"), "existing pods anti-affinity"),
    ],
)
def test_a_node_that_does_not_suit_is_passed_over_and_named(asked: JSON, why: str) -> None:
    held = pod("held", cpu="1", port=80, affinity=apart("shy"))
    node, reason = choose(asked, [room("a1", held)])
    assert node is None and "0/1 nodes are available" in reason and why in reason
    if "zone" not in str(asked):
        assert choose(asked, [room("a1", held), room("b1")])[0] == "b1"


def test_anti_affinity_reaches_as_far_as_its_topology() -> None:
    held = pod("held", affinity=apart("shy", "zone"))
    assert choose(pod("shy"), [room("a1", held), room("a2"), room("b1")])[0] == "b1"
    # A node without the label belongs to no topology.
    assert choose(pod("shy"), [room("a1", pod("held", affinity=apart("shy", "rack")))])[0] == "a1"


def test_the_emptier_node_is_preferred_and_a_full_one_refused() -> None:
    full = room("a1", pod("1"), pod("2"), pod("3"))
    assert choose(pod(), [full, room("b1", pod("1"))])[0] == "b1"
    assert "Too many pods" in choose(pod(), [full])[1]


async def test_a_burst_fills_the_nodes_evenly_and_never_beyond_what_they_have(world: Any) -> None:
    """Two nodes with 8 CPUs each, twenty pods that want one."""

    async def make(number: int) -> None:
        body = pod(f"p{number}", cpu="1")
        body["spec"]["containers"][0]["image"] = "one"
        await world.client.create(PODS, body)

    await asyncio.gather(*(make(n) for n in range(20)))

    def placed(held: dict[str, JSON]) -> Counter[str]:
        return Counter(p["spec"]["nodeName"] for p in held.values() if p["spec"].get("nodeName"))

    def refused(held: dict[str, JSON]) -> int:
        rows = [(p.get("status") or {}).get("conditions") or () for p in held.values()]
        return sum(c.get("reason") == "Unschedulable" for r in rows for c in r)

    held = await world.seen(PODS, lambda held: refused(held) == 4 and held)
    assert placed(held) == {"node-1": 8, "node-2": 8}
    first = next(n for n, p in held.items() if p["spec"].get("nodeName"))
    await world.client.delete(PODS, first, "default", grace_seconds=0)
    held = await world.seen(PODS, lambda held: len(held) == 19 and sum(placed(held).values()) == 16 and held)
    assert placed(held) == {"node-1": 8, "node-2": 8}
