"""Service rules as text: what a fragment says, and that the incremental script equals a rebuild in the kernel."""

from __future__ import annotations

import json
import os
import random
import subprocess
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from pervade.cluster.services import ruleset
from pervade.cluster.services.ports import Endpoint, views

PODS = ("10.77.0.0/16", "fd00:77::/48")


def service(name: str = "web", **spec: Any) -> dict[str, Any]:
    base = {
        "clusterIPs": ["10.96.0.50"],
        "ports": [{"port": 80, "protocol": "TCP", "name": "http"}],
        "type": "ClusterIP",
    }
    return {"metadata": {"namespace": "default", "name": name}, "spec": base | spec}


def slice_of(
    name: str = "web",
    *endpoints: dict[str, Any],
    port: int = 8080,
    port_name: str = "http",
    family: str = "IPv4",
) -> dict[str, Any]:
    return {
        "metadata": {
            "namespace": "default",
            "name": f"{name}-1",
            "labels": {"kubernetes.io/service-name": name},
        },
        "addressType": family,
        "ports": [{"name": port_name, "port": port, "protocol": "TCP"}],
        "endpoints": list(endpoints),
    }


def endpoint(address: str, node: str = "node-1", **conditions: bool) -> dict[str, Any]:
    return {"addresses": [address], "nodeName": node, "conditions": conditions}


def test_ready_endpoints_are_served_and_draining_ones_only_when_alone() -> None:
    ready, draining = (
        endpoint("10.77.1.3"),
        endpoint("10.77.1.4", ready=False, serving=True, terminating=True),
    )
    (view,) = views(service(), [slice_of("web", ready, draining)], "node-1")
    assert view.endpoints == (Endpoint("10.77.1.3", 8080, True),)
    (view,) = views(service(), [slice_of("web", draining)], "node-2")
    assert view.endpoints == (Endpoint("10.77.1.4", 8080, False),)


def test_headless_and_external_names_need_no_rules() -> None:
    assert views(service(clusterIPs=["None"]), [], "node-1") == ()
    assert views(service(type="ExternalName", clusterIPs=[]), [], "node-1") == ()


def test_port_without_endpoints_is_refused_and_local_without_local_is_dropped() -> None:
    (view,) = views(service(), [], "node-1")
    assert ruleset.fragment(view, PODS).elements == {("refused4", "10.96.0.50 . tcp . 80"): "goto refuse"}
    (view,) = views(
        service(internalTrafficPolicy="Local"), [slice_of("web", endpoint("10.77.2.2", "node-2"))], "node-1"
    )
    assert ruleset.fragment(view, PODS).elements == {("refused4", "10.96.0.50 . tcp . 80"): "goto discard"}


def test_each_family_has_its_own_view() -> None:
    both = service(clusterIPs=["10.96.0.50", "fd00:96::50"])
    found = views(both, [slice_of("web", endpoint("fd00:77:1::2"), family="IPv6")], "node-1")
    assert [(v.family, len(v.endpoints)) for v in found] == [(4, 0), (6, 1)]


@pytest.fixture
def netns() -> Iterator[str]:
    if os.geteuid() != 0:
        pytest.skip("needs root: nftables in a network namespace of its own")
    name = f"t-{uuid.uuid4().hex[:8]}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    yield name
    subprocess.run(["ip", "netns", "del", name], check=True)


def load(netns: str, text: str) -> None:
    done = subprocess.run(
        ["ip", "netns", "exec", netns, "nft", "-f", "-"], input=text, text=True, capture_output=True
    )
    assert done.returncode == 0, f"{done.stderr}\n{text}"


def listing(netns: str) -> list[str]:
    out = subprocess.run(
        ["ip", "netns", "exec", netns, "nft", "-j", "list", "table", "inet", ruleset.TABLE],
        check=True,
        capture_output=True,
    )
    rows = []
    for row in json.loads(out.stdout)["nftables"]:
        for body in row.values():
            body.pop("handle", None)
            if isinstance(body.get("elem"), list):
                body["elem"].sort(key=json.dumps)
        rows.append(json.dumps(row, sort_keys=True))
    # Rules of one chain keep their order; chains and sets themselves have none that matters.
    return sorted(rows, key=lambda r: (json.loads(r).get("rule") or {}).get("chain", r))


@pytest.mark.live
def test_incremental_scripts_equal_a_rebuild(netns: str) -> None:
    """Two hundred random edits of five services: the kernel's table equals one written from zero."""
    rng = random.Random(7)

    def random_views(n: int) -> list[Any]:
        ips = [f"10.96.0.{n}", f"fd00:96::{n}"]
        spec: dict[str, Any] = {"clusterIPs": ips[: rng.choice((1, 2))]}
        if rng.random() < 0.5:
            spec |= {"ports": [{"name": "http", "port": 80, "protocol": "TCP", "nodePort": 30000 + n}]}
            spec |= {
                "externalTrafficPolicy": rng.choice(("Local", "Cluster")),
                "externalIPs": [f"172.31.9.{200 + n}"],
            }
        if rng.random() < 0.3:
            spec |= {"sessionAffinity": "ClientIP", "loadBalancerSourceRanges": ["10.0.0.0/8"]}
        if rng.random() < 0.3:
            spec["internalTrafficPolicy"] = "Local"
        endpoints = [
            endpoint(f"10.77.{rng.choice((1, 2))}.{i}", rng.choice(("node-1", "node-2")))
            for i in range(2, 2 + rng.randrange(5))
        ]
        six = [endpoint(f"fd00:77:1::{i}") for i in range(2, 2 + rng.randrange(3))]
        found = [slice_of(f"s{n}", *endpoints), slice_of(f"s{n}", *six, family="IPv6")]
        return list(views(service(f"s{n}", **spec), found, "node-1"))

    state: dict[int, list[Any]] = {}
    applied: dict[str, ruleset.Fragment] = {}
    load(netns, ruleset.base(PODS))
    for step in range(200):
        n = rng.randrange(1, 6)
        state[n] = [] if rng.random() < 0.2 else random_views(n)
        wanted = {v.key: ruleset.fragment(v, PODS) for held in state.values() for v in held}
        load(netns, ruleset.script(applied, wanted))
        applied = wanted
        if step % 20 == 19:
            incremental = listing(netns)
            load(netns, ruleset.base(PODS) + ruleset.script({}, wanted))
            assert listing(netns) == incremental
