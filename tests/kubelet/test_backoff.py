"""The crash back-off, as a table of runs."""

from __future__ import annotations

from pervade.cluster.kubelet.backoff import Backoff


def test_at_once_then_doubling_to_five_minutes() -> None:
    kept, now, waits = Backoff(), 1000.0, []
    for restarts in range(9):
        started, finished = now, now + 1
        waits.append(round(kept.left(started=started, finished=finished, restarts=restarts, now=finished)))
        now = finished + waits[-1] + 0.01
    assert waits == [0, 10, 20, 40, 80, 160, 300, 300, 300]


def test_the_time_runs_down_and_asking_again_does_not_double() -> None:
    kept = Backoff()
    assert [kept.left(started=0, finished=100, restarts=3, now=100 + n) for n in (0, 4, 10, 11)] == [
        10,
        6,
        0,
        0,
    ]


def test_ten_minutes_of_running_are_forgiven() -> None:
    kept = Backoff()
    kept.left(started=0, finished=10, restarts=5, now=10)
    assert kept.left(started=20, finished=700, restarts=6, now=700) < 0.01
    assert kept.left(started=700, finished=701, restarts=7, now=701) == 10


def test_a_container_that_never_started_waits_too() -> None:
    kept = Backoff()
    kept.left(started=1e9, finished=1e9, restarts=0, now=1e9)
    assert kept.left(started=1e9 + 1, finished=1e9 + 1, restarts=1, now=1e9 + 1) == 10
