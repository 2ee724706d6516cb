"""How long stock kubectl takes to list 5,000 pods (JSON Table, pages of 500), and what the server's part of it is."""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from bench.guard import Guard
from bench.row import Row
from bench.servers import apiserver
from bench.writes import post_all
from pervade.host import processes

_PODS, _RUNS = 5000, 5
_TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"


def pod(number: int) -> bytes:
    return msgspec.json.encode(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"p{number:05}", "labels": {"app": f"a{number % 50}", "version": "v1"}},
            "spec": {
                "nodeName": f"node-{number % 2 + 1}",
                "containers": [
                    {
                        "name": "c",
                        "image": "busybox",
                        "command": ["sleep", "3600"],
                        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
                        "ports": [{"containerPort": 8080}],
                    }
                ],
            },
        }
    )


def timed(work: Callable[[], Any]) -> float:
    """Seconds of `work`, median of five."""
    seen = []
    for _ in range(_RUNS):
        begin = time.perf_counter()
        work()
        seen.append(time.perf_counter() - begin)
    return statistics.median(seen)


def _get(url: str, accept: str) -> bytes:
    request = urllib.request.Request(url, headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=60) as answer:
        found: bytes = answer.read()
        return found


def rows(guard: Guard, folder: Path, kubectl: Path) -> list[Row]:
    """kubectl's list; the server's own answers; its memory with 5,000 pods."""
    with apiserver(guard, folder / "lists") as (url, pid):
        path = f"{url}/api/v1/namespaces/default/pods"
        rate = asyncio.run(post_all(path, [pod(n) for n in range(_PODS)]))
        (folder / "none.yaml").write_text("apiVersion: v1\nkind: Config\n")
        common: list[str | Path] = [
            kubectl,
            "--kubeconfig",
            folder / "none.yaml",
            "-s",
            url,
            "--cache-dir",
            folder / "cache",
        ]

        def listed(*words: str) -> int:
            done = subprocess.run([*common, *words], capture_output=True, text=True, check=True, timeout=120)
            return len(done.stdout.splitlines())

        if (count := listed("get", "pods")) != _PODS + 1:
            raise RuntimeError(f"kubectl listed {count} lines for {_PODS} pods")
        whole = timed(lambda: listed("get", "pods"))
        empty = timed(lambda: listed("get", "namespaces"))
        items = msgspec.json.decode(_get(path, "application/json"))
        table = msgspec.json.decode(_get(path, _TABLE))
        by_json = timed(lambda: json.dumps(items).encode())
        table_json = timed(lambda: json.dumps(table).encode())
        as_list = timed(lambda: _get(path, "application/json"))
        as_table = timed(lambda: _get(path, _TABLE))
        resident = processes.resident(pid) / 1e6
    return [
        Row(
            "kubectl lists 5,000 pods",
            whole,
            "s",
            2,
            True,
            empty,
            "kubectl get namespaces",
            f"median of {_RUNS}, discovery cached",
        ),
        Row(
            "… the server's Table in one answer",
            as_table,
            "s",
            baseline=table_json,
            baseline_name="json.dumps of it",
        ),
        Row("… the same as a List", as_list, "s", baseline=by_json, baseline_name="json.dumps of it"),
        Row("API server's memory with them", resident, "MB", note="RSS; another 5,000 pods' tables answered"),
        Row("pods made", rate, "/s", 500, False, note="32 connections"),
    ]
