"""Counters of the API server in the Prometheus text format (0.0.4), without a client library.

Names are those of kube-apiserver where it has one, so that existing dashboards read them.
"""

from __future__ import annotations

import resource
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from pervade.cluster.apiserver.store.state import State

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """Requests by verb, resource and code, their duration, and what is running. O(1) an observation."""

    def __init__(self) -> None:
        self.started = time.time()
        self.inflight: dict[str, int] = defaultdict(int)
        self._requests: dict[tuple[str, str, str, int], int] = defaultdict(int)
        self._durations: dict[str, list[int]] = defaultdict(lambda: [0] * (len(_BUCKETS) + 1))
        self._sums: dict[str, float] = defaultdict(float)

    def observe(self, verb: str, group: str, resource_name: str, code: int, seconds: float) -> None:
        """One finished request; watches are counted without their duration."""
        self._requests[verb, group, resource_name, code] += 1
        if verb in ("watch", "connect"):
            return
        self._sums[verb] += seconds
        buckets = self._durations[verb]
        for i, bound in enumerate(_BUCKETS):
            if seconds <= bound:
                buckets[i] += 1
        buckets[-1] += 1

    def text(self, state: State, kinds: int) -> str:
        """All metrics; O(series + stored resources)."""
        return "\n".join(self._lines(state, kinds)) + "\n"

    def _lines(self, state: State, kinds: int) -> Iterable[str]:
        yield from _head("apiserver_request_total", "counter", "Requests answered.")
        for (verb, group, name, code), count in sorted(self._requests.items()):
            yield f'apiserver_request_total{{verb="{verb}",group="{group}",resource="{name}",code="{code}"}} {count}'
        yield from _head(
            "apiserver_request_duration_seconds", "histogram", "Time to answer, watches left out."
        )
        for verb, buckets in sorted(self._durations.items()):
            for bound, count in zip([*_BUCKETS, "+Inf"], buckets, strict=True):
                yield f'apiserver_request_duration_seconds_bucket{{verb="{verb}",le="{bound}"}} {count}'
            yield f'apiserver_request_duration_seconds_sum{{verb="{verb}"}} {self._sums[verb]:.6f}'
            yield f'apiserver_request_duration_seconds_count{{verb="{verb}"}} {buckets[-1]}'
        yield from _head("apiserver_current_inflight_requests", "gauge", "Requests being answered.")
        for kind in ("mutating", "readOnly", "watch"):
            yield f'apiserver_current_inflight_requests{{request_kind="{kind}"}} {self.inflight[kind]}'
        dump = state.dump()
        yield from _head("apiserver_storage_objects", "gauge", "Objects held, by resource.")
        for name, row in dump["resources"].items():
            yield f'apiserver_storage_objects{{resource="{_dotted(name)}"}} {row["objects"]}'
        yield from _head("pervade_apiserver_object_bytes", "gauge", "Encoded bytes held, by resource.")
        for name, row in dump["resources"].items():
            yield f'pervade_apiserver_object_bytes{{resource="{_dotted(name)}"}} {row["bytes"]}'
        yield from _head("apiserver_longrunning_requests", "gauge", "Open watches, by resource.")
        for name, row in dump["resources"].items():
            yield f'apiserver_longrunning_requests{{verb="WATCH",resource="{_dotted(name)}"}} {row["watchers"]}'
        for metric, kind, text, value in (
            ("apiserver_resource_version", "counter", "Position of the log.", dump["head"]),
            ("apiserver_storage_size_bytes", "gauge", "Database and WAL on disk.", dump["file_bytes"]),
            ("pervade_apiserver_commits_total", "counter", "Transactions committed.", dump["commits"]),
            (
                "pervade_apiserver_compacted_rows_total",
                "counter",
                "Rows dropped by compaction.",
                dump["compacted_rows"],
            ),
            ("pervade_apiserver_kinds", "gauge", "Resources served.", kinds),
            ("process_start_time_seconds", "gauge", "Start of the process.", f"{self.started:.3f}"),
            ("process_resident_memory_bytes", "gauge", "Resident memory.", resident_bytes()),
            (
                "process_cpu_seconds_total",
                "counter",
                "User and system time.",
                f"{sum(resource.getrusage(resource.RUSAGE_SELF)[:2]):.3f}",
            ),
            ("process_open_fds", "gauge", "Open descriptors.", open_descriptors()),
        ):
            yield from _head(metric, kind, text)
            yield f"{metric} {value}"


def _head(name: str, kind: str, text: str) -> tuple[str, str]:
    return f"# HELP {name} {text}", f"# TYPE {name} {kind}"


def _dotted(table: str) -> str:
    """`apps/deployments` as group resources are written: `deployments.apps`."""
    group, _, plural = table.rpartition("/")
    return f"{plural}.{group}" if group else plural


def resident_bytes() -> int:
    """Resident memory of this process (Linux /proc/self/statm)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())
