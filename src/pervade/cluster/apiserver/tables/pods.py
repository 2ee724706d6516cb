"""Rows of pods: the STATUS word is what an operator looks at first."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import msgspec

from pervade.cluster.apiserver.kinds.kind import JSON
from pervade.cluster.apiserver.tables import human
from pervade.cluster.apiserver.tables.column import printer

_LOST = "NodeLost"


class Summary(msgspec.Struct):
    """What a pod's row says of its containers."""

    ready: int
    total: int
    word: str
    restarts: int
    last_restart: str
    """When the youngest of the ended containers ended; empty when none is known."""


def summary(pod: JSON) -> Summary:
    """Ready containers, restarts and the STATUS word; pure, O(containers).

    As long as a pod initialises only its init containers are told of; after that the others and the sidecars.
    """
    spec, state = pod.get("spec") or {}, pod.get("status") or {}
    true = _true(state)
    inits = {c.get("name"): c for c in spec.get("initContainers") or ()}
    sidecars = {name for name, c in inits.items() if c.get("restartPolicy") == "Always"}
    begun = [*(state.get("initContainerStatuses") or ())]
    stuck, first = _init_word(begun, sidecars, len(inits))
    # A sidecar of a pod that is initialised may stumble without taking the pod back to Init.
    initialising = bool(stuck) and "Initialized" not in true
    ready = sum(bool(c.get("ready")) for c in begun[:first] if c.get("name") in sidecars and not _ended_of(c))
    word = str(state.get("reason") or state.get("phase") or "Unknown")
    if _gated(state):
        word = "SchedulingGated"
    if initialising:
        counted, word = begun[: first + 1], stuck
    else:
        mains = [*(state.get("containerStatuses") or ())]
        running = [c for c in mains if c.get("ready") and (c.get("state") or {}).get("running") is not None]
        ready += len(running)
        counted = [*mains, *(c for c in begun if c.get("name") in sidecars)]
        word = _main_word(mains, word)
        if word == "Completed" and running:
            word = "Running" if "Ready" in true else "NotReady"
    return Summary(
        ready,
        len(spec.get("containers") or ()) + len(sidecars),
        _end_word(pod, state, word),
        sum(int(c.get("restartCount") or 0) for c in counted),
        max((_ended_of(c, "lastState").get("finishedAt") or "" for c in counted), default=""),
    )


def cells(pod: JSON, now: datetime) -> list[Any]:
    spec, state, meta = pod.get("spec") or {}, pod.get("status") or {}, pod["metadata"]
    seen = summary(pod)
    restarts = str(seen.restarts)
    if seen.restarts and seen.last_restart:
        restarts += f" ({human.age(seen.last_restart, now)} ago)"
    gates = spec.get("readinessGates") or ()
    true = _true(state)
    return [
        meta["name"],
        f"{seen.ready}/{seen.total}",
        seen.word,
        restarts,
        human.age(meta.get("creationTimestamp"), now),
        state.get("podIP") or "<none>",
        spec.get("nodeName") or "<none>",
        state.get("nominatedNodeName") or "<none>",
        f"{sum(g.get('conditionType') in true for g in gates)}/{len(gates)}" if gates else "<none>",
    ]


def _true(state: JSON) -> set[Any]:
    return {c.get("type") for c in state.get("conditions") or () if c.get("status") == "True"}


def _gated(state: JSON) -> bool:
    return any(
        c.get("type") == "PodScheduled" and c.get("reason") == "SchedulingGated"
        for c in state.get("conditions") or ()
    )


def _ended_of(container: JSON, field: str = "state") -> JSON:
    found: JSON = (container.get(field) or {}).get("terminated") or {}
    return found


def _ended(ended: JSON) -> str:
    if ended.get("reason"):
        return str(ended["reason"])
    if ended.get("signal"):
        return f"Signal:{ended['signal']}"
    return f"ExitCode:{ended.get('exitCode', 0)}"


def _init_word(begun: Iterable[JSON], sidecars: set[Any], total: int) -> tuple[str, int]:
    """The word for the first init container that holds the pod up, and its place; no word when none does."""
    at = 0
    for at, one in enumerate(begun):
        now = one.get("state") or {}
        ended, waiting = now.get("terminated"), (now.get("waiting") or {}).get("reason")
        if ended is not None and not ended.get("exitCode"):
            continue
        if one.get("name") in sidecars and one.get("started"):
            continue
        if ended is not None:
            return f"Init:{_ended(ended)}", at
        if waiting and waiting != "PodInitializing":
            return f"Init:{waiting}", at
        return f"Init:{at}/{total}", at
    return "", at + 1


def _main_word(containers: list[JSON], word: str) -> str:
    """The word of the first container that does not run, else `word`."""
    for one in containers:
        now = one.get("state") or {}
        ended, waiting = now.get("terminated"), (now.get("waiting") or {}).get("reason")
        if waiting:
            return str(waiting)
        if ended is not None:
            return _ended(ended)
    return word


def _end_word(pod: JSON, state: JSON, word: str) -> str:
    if not pod["metadata"].get("deletionTimestamp"):
        return word
    if state.get("reason") == _LOST:
        return "Unknown"
    return word if state.get("phase") in ("Succeeded", "Failed") else "Terminating"


PODS = printer(
    cells,
    ("Name", "Ready", "Status", "Restarts", "Age"),
    ("IP", "Node", "Nominated Node", "Readiness Gates"),
)
