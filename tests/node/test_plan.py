"""The plan: one source of names and addresses, the same after a round trip, without overlaps."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pervade.cluster import plan as plans


@given(
    nodes=st.integers(1, 100),
    fabric=st.integers(0, 255),
    pods=st.integers(0, 255),
    services=st.integers(0, 255),
)
def test_every_address_lies_in_its_range_and_is_nobody_elses(
    nodes: int, fabric: int, pods: int, services: int
) -> None:
    plan = plans.make(
        nodes=nodes,
        fabric_cidr=f"172.30.{fabric}.0/24",
        pod_cidr=f"10.{pods}.0.0/16",
        service_cidr=f"100.{services}.0.0/16",
    )
    addresses = [plan.api_address, *(n.address for n in plan.nodes)]
    first, last = (ipaddress.ip_address(a) for a in (plan.load_balancer_first, plan.load_balancer_last))
    assert len(set(addresses)) == len(addresses)
    for address in addresses:
        assert ipaddress.ip_address(address) in ipaddress.ip_network(plan.fabric_cidr)
        assert not first <= ipaddress.ip_address(address) <= last
    for family, whole in (("pod_cidr", plan.pod_cidr), ("pod_cidr6", plan.pod_cidr6)):
        ranges = [ipaddress.ip_network(getattr(n, family)) for n in plan.nodes]
        assert all(r.subnet_of(ipaddress.ip_network(whole)) for r in ranges)
        assert len(set(ranges)) == len(ranges)
    six = [ipaddress.ip_network(r) for r in (plan.fabric_cidr6, plan.pod_cidr6, plan.service_cidr6)]
    assert not any(a.overlaps(b) for i, a in enumerate(six) for b in six[i + 1 :])


def test_a_plan_is_the_same_after_its_file(tmp_path: Path) -> None:
    plan = plans.make(nodes=3, state_root=str(tmp_path))
    plans.save(plan)
    assert plans.load(plan.file) == plan


def test_more_nodes_change_nothing_for_those_that_are_there() -> None:
    two, five = plans.make(nodes=2), plans.make(nodes=5)
    assert five.nodes[:2] == two.nodes


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ({"nodes": 0}, "--nodes"),
        ({"fabric_cidr": "172.31.9.0/26"}, "fabric"),
        ({"pod_cidr": "10.77.0.1/16"}, "pod range"),
        ({"service_cidr": "nonsense"}, "service range"),
    ],
)
def test_a_plan_that_cannot_be_is_refused_by_the_field(chosen: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        plans.make(**chosen)  # type: ignore[arg-type]
