"""Service addresses: unique, kept, given back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pervade.cluster.apiserver.kinds.addresses import Addresses

DUAL = {"IPv4": "10.96.0.0/16", "IPv6": "fd00:a60:0::/112"}


def addresses(**more: Any) -> Addresses:
    return Addresses(more.get("families", DUAL), range(30000, 32768), reserved=("10.96.0.1", "10.96.0.10"))


def service(name: str, **spec: Any) -> dict[str, Any]:
    ports = [{"port": 80, "protocol": "TCP"}]
    return {
        "metadata": {"namespace": "a", "name": name},
        "spec": {"type": "ClusterIP", "ports": ports} | spec,
    }


def test_a_plain_service_gets_one_address_of_the_first_family() -> None:
    new = service("web")
    causes, _undo = addresses().assign(new)
    spec = new["spec"]
    assert not causes and spec["clusterIP"].startswith("10.96.") and spec["clusterIPs"] == [spec["clusterIP"]]
    assert (spec["ipFamilies"], spec["ipFamilyPolicy"]) == (["IPv4"], "SingleStack")


def test_headless_and_external_services_get_none() -> None:
    pool = addresses()
    headless, away = service("h", clusterIP="None", selector={"a": "b"}), service("e", type="ExternalName")
    pool.assign(headless)
    pool.assign(away)
    assert headless["spec"]["clusterIPs"] == ["None"] and "clusterIP" not in away["spec"]


def test_dual_stack_gets_both() -> None:
    new = service("web", ipFamilyPolicy="PreferDualStack")
    addresses().assign(new)
    assert [":" in ip for ip in new["spec"]["clusterIPs"]] == [False, True]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"clusterIP": "10.1.1.1"}, "not in the valid range"),
        ({"clusterIP": "ten"}, "must be a valid IP address"),
        ({"clusterIP": "10.96.0.1"}, "already allocated"),
        ({"type": "NodePort", "ports": [{"port": 1, "nodePort": 80}]}, "not in the valid range"),
        ({"ipFamilies": ["IPv6"], "families": {"IPv4": "10.96.0.0/16"}}, "not configured"),
    ],
)
def test_what_cannot_be_had_is_said_and_nothing_is_kept(spec: dict[str, Any], said: str) -> None:
    pool = addresses(**({"families": spec.pop("families")} if "families" in spec else {}))
    before = pool.figures()
    causes, _undo = pool.assign(service("web", **spec))
    assert said in causes[0].message
    assert pool.figures() == before


def test_two_protocols_of_one_port_share_a_node_port() -> None:
    new = service(
        "dns", type="NodePort", ports=[{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]
    )
    addresses().assign(new)
    assert len({p["nodePort"] for p in new["spec"]["ports"]}) == 1


def test_the_service_of_the_api_server_may_have_its_reserved_address() -> None:
    new = service("kubernetes", clusterIP="10.96.0.1")
    new["metadata"]["namespace"] = "default"
    assert addresses().assign(new)[0] == []


@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.sampled_from(["ClusterIP", "NodePort", "LoadBalancer", ""])),
        max_size=60,
    )
)
def test_no_two_services_ever_share_and_everything_comes_back(steps: list[tuple[int, str]]) -> None:
    pool = addresses(families={"IPv4": "10.96.0.0/28"})
    empty = pool.figures()
    live: dict[str, dict[str, Any]] = {}
    for number, kind in steps:
        name = f"s{number}"
        old = live.pop(name, None)
        if old is not None:
            pool.release(old)
        if kind:
            new = service(name, type=kind)
            causes, undo = pool.assign(new)
            if causes:
                undo()
            else:
                live[name] = new
        ips = [s["spec"]["clusterIP"] for s in live.values()]
        ports = [s["spec"]["ports"][0].get("nodePort") for s in live.values()]
        given_ports = [p for p in ports if p]
        assert len(set(ips)) == len(ips) and len(set(given_ports)) == len(given_ports)
    for one in live.values():
        pool.release(one)
    assert pool.figures() == empty
