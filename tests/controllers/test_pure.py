"""What the workload controllers compute without a cluster."""

from __future__ import annotations

import pytest

from pervade.cluster.controllers.job import pause, ranges
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
