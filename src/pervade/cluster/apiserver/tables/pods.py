"""Rows of pods: the STATUS word is what an operator looks at first."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pervade.cluster.apiserver.kinds.kind import JSON
from pervade.cluster.apiserver.tables import human
from pervade.cluster.apiserver.tables.column import printer


def cells(pod: JSON, now: datetime) -> list[Any]:
    spec, state, meta = pod.get("spec") or {}, pod.get("status") or {}, pod["metadata"]
    containers = state.get("containerStatuses") or []
    ready = sum(bool(c.get("ready")) for c in containers)
    total = len(spec.get("containers") or ())
    for init in spec.get("initContainers") or ():
        # A sidecar counts as a container of the pod.
        if init.get("restartPolicy") == "Always":
            total += 1
            ready += any(
                c.get("name") == init.get("name") and c.get("ready")
                for c in state.get("initContainerStatuses") or ()
            )
    gates = spec.get("readinessGates") or ()
    passed = {c["type"] for c in state.get("conditions") or () if c.get("status") == "True"}
    return [
        meta["name"],
        f"{ready}/{total}",
        reason(pod),
        _restarts(pod, now),
        human.age(meta.get("creationTimestamp"), now),
        state.get("podIP") or "<none>",
        spec.get("nodeName") or "<none>",
        state.get("nominatedNodeName") or "<none>",
        f"{sum(g.get('conditionType') in passed for g in gates)}/{len(gates)}" if gates else "<none>",
    ]


def _restarts(pod: JSON, now: datetime) -> str:
    state = pod.get("status") or {}
    sidecars = {
        c.get("name")
        for c in (pod.get("spec") or {}).get("initContainers") or ()
        if c.get("restartPolicy") == "Always"
    }
    init = state.get("initContainerStatuses") or []
    initialised = any(
        c["type"] == "Initialized" and c.get("status") == "True" for c in state.get("conditions") or ()
    )
    counted = [*(state.get("containerStatuses") or ())] if initialised or not init else []
    counted += [c for c in init if not initialised or c.get("name") in sidecars]
    count = sum(int(c.get("restartCount") or 0) for c in counted)
    ended = [
        str(c["lastState"]["terminated"]["finishedAt"])
        for c in counted
        if (c.get("lastState") or {}).get("terminated", {}).get("finishedAt")
    ]
    return f"{count} ({human.age(max(ended), now)} ago)" if count and ended else str(count)


def reason(pod: JSON) -> str:
    """The STATUS column: what keeps the pod from running, else its phase."""
    state, spec = pod.get("status") or {}, pod.get("spec") or {}
    word = str(state.get("reason") or state.get("phase") or "Unknown")
    for condition in state.get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition.get("reason") == "SchedulingGated":
            word = "SchedulingGated"
    begun = _init_reason(spec, state)
    if begun:
        word = begun
    else:
        word = _main_reason(state, word)
    if pod["metadata"].get("deletionTimestamp"):
        if state.get("reason") == "NodeLost":
            return "Unknown"
        if state.get("phase") not in ("Succeeded", "Failed"):
            return "Terminating"
    return word


def _ended(ended: JSON) -> str:
    if ended.get("reason"):
        return str(ended["reason"])
    if ended.get("signal"):
        return f"Signal:{ended['signal']}"
    return f"ExitCode:{ended.get('exitCode', 0)}"


def _init_reason(spec: JSON, state: JSON) -> str:
    containers = spec.get("initContainers") or []
    sidecars = {c.get("name") for c in containers if c.get("restartPolicy") == "Always"}
    for i, one in enumerate(state.get("initContainerStatuses") or ()):
        now = one.get("state") or {}
        ended, waiting = now.get("terminated"), now.get("waiting")
        if ended is not None and not ended.get("exitCode"):
            continue
        if one.get("name") in sidecars and one.get("started"):
            continue
        if ended is not None:
            return f"Init:{_ended(ended)}"
        if waiting and waiting.get("reason") and waiting["reason"] != "PodInitializing":
            return f"Init:{waiting['reason']}"
        return f"Init:{i}/{len(containers)}"
    return ""


def _main_reason(state: JSON, word: str) -> str:
    running = False
    for one in reversed(state.get("containerStatuses") or []):
        now = one.get("state") or {}
        ended, waiting = now.get("terminated"), now.get("waiting")
        if waiting and waiting.get("reason"):
            word = str(waiting["reason"])
        elif ended is not None:
            word = _ended(ended)
        elif one.get("ready") and now.get("running") is not None:
            running = True
    if word == "Completed" and running:
        ready = any(c["type"] == "Ready" and c["status"] == "True" for c in state.get("conditions") or ())
        return "Running" if ready else "NotReady"
    return word


PODS = printer(
    cells,
    ("Name", "Ready", "Status", "Restarts", "Age"),
    ("IP", "Node", "Nominated Node", "Readiness Gates"),
)
