"""What containerd shows of a pod, as PodStatus. Pure.

Observed values are plain structs, filled by the rim. Semantics: Kubernetes "Pod Lifecycle" (phase,
conditions, container states).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

JSON = dict[str, Any]
CREATED, RUNNING, EXITED, UNKNOWN = 0, 1, 2, 3


class Container(msgspec.Struct):
    """One container as containerd has it; times in nanoseconds since the epoch."""

    id: str
    name: str
    attempt: int
    state: int
    image: str = ""
    image_id: str = ""
    created: int = 0
    started: int = 0
    finished: int = 0
    exit_code: int = 0
    reason: str = ""
    message: str = ""
    sandbox: str = ""


class Waiting(msgspec.Struct):
    """Why a container does not run yet, or again."""

    reason: str
    message: str = ""


class Observed(msgspec.Struct):
    """Everything known about one pod on this node."""

    containers: dict[str, list[Container]] = {}
    """By name, newest attempt last."""
    waiting: dict[str, Waiting] = {}
    addresses: list[str] = []
    sandbox: bool = False
    ready: dict[str, bool] = {}
    """Results of readiness probes; absent = no probe."""
    started: dict[str, bool] = {}
    """Results of startup probes; absent = no probe."""


def moment(nanoseconds: int) -> str | None:
    """RFC 3339 in seconds; None for 0."""
    if not nanoseconds:
        return None
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _state(one: Container) -> JSON:
    if one.state == RUNNING:
        return {"running": {"startedAt": moment(one.started)}}
    if one.state == EXITED:
        reason = one.reason or ("Completed" if one.exit_code == 0 else "Error")
        if reason == "Unknown":
            reason = "ContainerStatusUnknown"
        found: JSON = {
            "exitCode": one.exit_code,
            "reason": reason,
            "startedAt": moment(one.started) or moment(one.created),
            "finishedAt": moment(one.finished),
            "containerID": f"containerd://{one.id}",
        }
        if one.message:
            found["message"] = one.message
        return {"terminated": found}
    return {"waiting": {"reason": "ContainerCreating"}}


def container_status(spec: JSON, seen: Observed, *, init: bool = False) -> JSON:
    """ContainerStatus of one container of the spec."""
    name = spec["name"]
    attempts = seen.containers.get(name, [])
    last = attempts[-1] if attempts else None
    out: JSON = {
        "name": name,
        "image": spec["image"],
        "imageID": "",
        "restartCount": 0,
        "ready": False,
        "started": False,
        "state": {},
    }
    if last is None:
        waiting = seen.waiting.get(name) or Waiting(
            "PodInitializing" if not init and seen.sandbox else "ContainerCreating"
        )
        out["state"] = {
            "waiting": {"reason": waiting.reason} | ({"message": waiting.message} if waiting.message else {})
        }
        return out
    out |= {
        "restartCount": last.attempt,
        "containerID": f"containerd://{last.id}",
        "imageID": last.image_id,
        "image": last.image or spec["image"],
    }
    state = _state(last)
    ended = [c for c in attempts if c.state == EXITED]
    if last.state == EXITED and name in seen.waiting:
        waiting = seen.waiting[name]
        out["state"] = {
            "waiting": {"reason": waiting.reason} | ({"message": waiting.message} if waiting.message else {})
        }
        out["lastState"] = state
    else:
        out["state"] = state
        if last.state == RUNNING and ended:
            out["lastState"] = _state(ended[-1])
    running = last.state == RUNNING
    out["started"] = running and seen.started.get(name, True)
    if init and spec.get("restartPolicy") != "Always":
        out["ready"] = last.state == EXITED and last.exit_code == 0
    else:
        out["ready"] = running and out["started"] and seen.ready.get(name, True)
    return out


def latest(seen: Observed, name: str) -> Container | None:
    """The newest attempt of a container, if there is one."""
    attempts = seen.containers.get(name)
    return attempts[-1] if attempts else None


def phase(pod: JSON, seen: Observed) -> str:
    """Pending, Running, Succeeded or Failed."""
    spec = pod["spec"]
    policy = spec.get("restartPolicy", "Always")
    inits = [c for c in spec.get("initContainers") or () if c.get("restartPolicy") != "Always"]
    for one in inits:
        last = latest(seen, one["name"])
        if last is None or last.state != EXITED or last.exit_code != 0:
            failed = last is not None and last.state == EXITED and last.exit_code != 0 and policy == "Never"
            return "Failed" if failed else "Pending"
    mains = [latest(seen, c["name"]) for c in spec["containers"]]
    if any(one is None or one.state == CREATED for one in mains):
        return "Pending" if not any(one is not None and one.state == RUNNING for one in mains) else "Running"
    if any(one.state == RUNNING for one in mains if one):
        return "Running"
    if policy == "Always":
        return "Running"
    codes = [one.exit_code for one in mains if one]
    if all(code == 0 for code in codes):
        return "Succeeded"
    return "Failed" if policy == "Never" else "Running"


def pod_status(pod: JSON, seen: Observed, *, host_ips: list[str], now: str) -> JSON:
    """The whole PodStatus; conditions keep their transition times while they do not change."""
    spec, old = pod["spec"], pod.get("status") or {}
    found = phase(pod, seen)
    if old.get("phase") in ("Succeeded", "Failed"):
        found = old["phase"]
    mains = [container_status(c, seen) for c in spec["containers"]]
    inits = [container_status(c, seen, init=True) for c in spec.get("initContainers") or ()]
    extras = [container_status(c, seen) for c in spec.get("ephemeralContainers") or ()]
    done = found in ("Succeeded", "Failed")
    waiting_init = [
        c["name"]
        for c, s in zip(spec.get("initContainers") or (), inits, strict=True)
        if not _initialised(c, s)
    ]
    unready = [s["name"] for s in mains if not s["ready"]]
    unready += [
        c["name"]
        for c, s in zip(spec.get("initContainers") or (), inits, strict=True)
        if c.get("restartPolicy") == "Always" and not s["ready"]
    ]
    gates = [g["conditionType"] for g in spec.get("readinessGates") or ()]
    held = {c["type"]: c for c in old.get("conditions") or ()}
    open_gates = [g for g in gates if held.get(g, {}).get("status") != "True"]
    all_ready = not unready and not done and not waiting_init
    reason = "PodCompleted" if found == "Succeeded" else "ContainersNotReady"
    text = f"containers with unready status: [{' '.join(unready)}]"
    conditions = {
        "PodReadyToStartContainers": (seen.sandbox, "", ""),
        "Initialized": (
            not waiting_init,
            "ContainersNotInitialized",
            f"containers with incomplete status: [{' '.join(waiting_init)}]",
        ),
        "Ready": (
            all_ready and not open_gates,
            reason if not open_gates or unready else "ReadinessGatesNotReady",
            text,
        ),
        "ContainersReady": (all_ready, reason, text),
        "PodScheduled": (True, "", ""),
    }
    listed = []
    for kind, (true, why, words) in conditions.items():
        row: JSON = {"type": kind, "status": "True" if true else "False"}
        if not true and why:
            row |= {"reason": why} | ({} if why == "PodCompleted" else {"message": words})
        before = held.get(kind)
        same = before is not None and before.get("status") == row["status"]
        row["lastTransitionTime"] = before["lastTransitionTime"] if same and before else now
        listed.append(row)
    listed += [c for t, c in held.items() if t not in conditions]
    out: JSON = {
        "phase": found,
        "conditions": listed,
        "hostIP": host_ips[0],
        "hostIPs": [{"ip": ip} for ip in host_ips],
        "startTime": old.get("startTime") or now,
        "qosClass": old.get("qosClass", "BestEffort"),
        "containerStatuses": mains,
    }
    if inits:
        out["initContainerStatuses"] = inits
    if extras:
        out["ephemeralContainerStatuses"] = extras
    addresses = seen.addresses or [i["ip"] for i in old.get("podIPs") or ()]
    if addresses:
        out |= {"podIP": addresses[0], "podIPs": [{"ip": ip} for ip in addresses]}
    for field in ("reason", "message", "nominatedNodeName"):
        if old.get(field):
            out[field] = old[field]
    return out


def _initialised(spec: JSON, found: JSON) -> bool:
    return bool(found["started"]) if spec.get("restartPolicy") == "Always" else bool(found["ready"])
