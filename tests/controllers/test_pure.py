"""What the workload controllers compute without a cluster."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pervade.cluster.controllers.deployment import DESIRED, MOST, scaling_plan
from pervade.cluster.controllers.job import numbers, pause, ranges
from pervade.cluster.controllers.nodes import stays, wanted_taints

GONE = {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute", "timeAdded": "2026-01-01T00:00:00Z"}
ADDED = 1767225600.0


def _pod(*tolerations: dict[str, object]) -> dict[str, object]:
    return {"spec": {"tolerations": list(tolerations)}}


@pytest.mark.parametrize(
    ("tolerations", "left"),
    [
        ([], 0.0),
        ([{"operator": "Exists"}], None),
        (
            [{"key": GONE["key"], "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}],
            290.0,
        ),
        ([{"key": GONE["key"], "operator": "Exists", "tolerationSeconds": 5}], 0.0),
        ([{"key": "other", "operator": "Exists"}], 0.0),
        ([{"key": GONE["key"], "operator": "Equal", "value": "x"}], 0.0),
        ([{"operator": "Exists", "effect": "NoSchedule"}], 0.0),
    ],
)
def test_how_long_a_pod_may_stay_on_a_silent_node(
    tolerations: list[dict[str, object]], left: float | None
) -> None:
    assert stays(_pod(*tolerations), [GONE], ADDED + 10) == left


def test_taints_follow_readiness() -> None:
    assert wanted_taints("True") == set()
    assert {k for k, _ in wanted_taints("False")} == {"node.kubernetes.io/not-ready"}
    assert {k for k, _ in wanted_taints("Unknown")} == {"node.kubernetes.io/unreachable"}


def test_completed_indexes_are_written_as_ranges() -> None:
    assert ranges(set()) == ""
    assert ranges({0, 2, 3, 4, 7}) == "0,2-4,7"


def test_failed_pods_are_followed_by_growing_pauses() -> None:
    assert [pause(n, 100.0, 100.0) for n in (0, 1, 2, 3, 20)] == [0.0, 10.0, 20.0, 40.0, 360.0]
    assert pause(1, 100.0, 111.0) == 0.0


@given(st.sets(st.integers(0, 40)))
def test_ranges_are_read_as_they_are_written(found: set[int]) -> None:
    assert numbers(ranges(found)) == found


def _set(name: str, replicas: int, most: int, born: str = "2026-01-01T00:00:00Z") -> dict[str, Any]:
    notes = {DESIRED: "0", MOST: str(most)}
    return {
        "metadata": {"name": name, "annotations": notes, "creationTimestamp": born},
        "spec": {"replicas": replicas},
    }


@given(
    parts=st.lists(st.integers(0, 20), min_size=1, max_size=5),
    wanted=st.integers(0, 60),
    surge=st.integers(0, 10),
    most=st.integers(1, 60),
)
def test_a_scaled_deployment_never_exceeds_its_surge_and_loses_no_share(
    parts: list[int], wanted: int, surge: int, most: int
) -> None:
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge}}
    deployment = {"spec": {"replicas": wanted, "strategy": strategy}}
    new, *olds = (_set(f"s{i}", n, most) for i, n in enumerate(parts))
    plan = scaling_plan(deployment, new, olds)
    active = sum(bool(n) for n in parts)
    if active <= 1:
        assert list(plan.values()) == [wanted]
        return
    assert all(n >= 0 for n in plan.values())
    assert sum(plan.values()) == (wanted + surge if wanted else 0)
