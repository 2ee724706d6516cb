"""Rows of what makes pods."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pervade.cluster.apiserver.kinds.kind import JSON
from pervade.cluster.apiserver.tables import human
from pervade.cluster.apiserver.tables.column import printer


def _parts(obj: JSON) -> tuple[JSON, JSON, JSON]:
    return obj["metadata"], obj.get("spec") or {}, obj.get("status") or {}


def _template(spec: JSON) -> list[str]:
    pod = (spec.get("template") or {}).get("spec") or {}
    made = pod.get("containers") or ()
    return [human.listed(c.get("name") for c in made), human.listed(c.get("image", "") for c in made)]


def _deployment(obj: JSON, now: datetime) -> list[Any]:
    meta, spec, state = _parts(obj)
    return [
        meta["name"],
        f"{state.get('readyReplicas') or 0}/{spec.get('replicas', 1)}",
        state.get("updatedReplicas") or 0,
        state.get("availableReplicas") or 0,
        human.age(meta.get("creationTimestamp"), now),
        *_template(spec),
        human.selector(spec.get("selector")),
    ]


def _replicaset(obj: JSON, now: datetime) -> list[Any]:
    meta, spec, state = _parts(obj)
    return [
        meta["name"],
        spec.get("replicas", 1),
        state.get("replicas") or 0,
        state.get("readyReplicas") or 0,
        human.age(meta.get("creationTimestamp"), now),
        *_template(spec),
        human.selector(spec.get("selector")),
    ]


def _daemonset(obj: JSON, now: datetime) -> list[Any]:
    meta, spec, state = _parts(obj)
    return [
        meta["name"],
        state.get("desiredNumberScheduled") or 0,
        state.get("currentNumberScheduled") or 0,
        state.get("numberReady") or 0,
        state.get("updatedNumberScheduled") or 0,
        state.get("numberAvailable") or 0,
        human.labels(((spec.get("template") or {}).get("spec") or {}).get("nodeSelector")),
        human.age(meta.get("creationTimestamp"), now),
        *_template(spec),
        human.selector(spec.get("selector")),
    ]


def _statefulset(obj: JSON, now: datetime) -> list[Any]:
    meta, spec, state = _parts(obj)
    ready = f"{state.get('readyReplicas') or 0}/{spec.get('replicas', 1)}"
    return [meta["name"], ready, human.age(meta.get("creationTimestamp"), now), *_template(spec)]


def _job(obj: JSON, now: datetime) -> list[Any]:
    meta, spec, state = _parts(obj)
    wanted = spec.get("completions")
    done = state.get("succeeded") or 0
    parallel = spec.get("parallelism") or 1
    count = f"{done}/{wanted}" if wanted is not None else f"{done}/1 of {parallel}"
    if wanted is None and parallel <= 1:
        count = f"{done}/1"
    took = ""
    if state.get("startTime"):
        end = state.get("completionTime")
        took = human.age(state["startTime"], (human.moment(end) if end else now) or now)
    return [
        meta["name"],
        _job_word(obj),
        count,
        took,
        human.age(meta.get("creationTimestamp"), now),
        *_template(spec),
        human.selector(spec.get("selector")),
    ]


def _job_word(obj: JSON) -> str:
    conditions = (obj.get("status") or {}).get("conditions") or ()
    true = {c.get("type") for c in conditions if c.get("status") == "True"}
    if obj["metadata"].get("deletionTimestamp") and not true & {"Complete", "Failed"}:
        return "Terminating"
    words = ("Complete", "Failed", "Suspended", "FailureTarget", "SuccessCriteriaMet")
    return next((w for w in words if w in true), "Running")


def _cronjob(obj: JSON, now: datetime) -> list[Any]:
    meta, spec, state = _parts(obj)
    last, made = state.get("lastScheduleTime"), (spec.get("jobTemplate") or {}).get("spec") or {}
    return [
        meta["name"],
        spec.get("schedule", ""),
        spec.get("timeZone") or "<none>",
        "True" if spec.get("suspend") else "False",
        len(state.get("active") or ()),
        human.age(last, now) if last else "<none>",
        human.age(meta.get("creationTimestamp"), now),
        *_template(made),
        human.selector(made.get("selector")),
    ]


def _pod_template(obj: JSON, _now: datetime) -> list[Any]:
    labels = ((obj.get("template") or {}).get("metadata") or {}).get("labels")
    return [obj["metadata"]["name"], *_template(obj), human.labels(labels)]


_MADE = ("Containers", "Images", "Selector")
DEPLOYMENTS = printer(_deployment, ("Name", "Ready", "#Up-to-date", "#Available", "Age"), _MADE)
REPLICASETS = printer(_replicaset, ("Name", "#Desired", "#Current", "#Ready", "Age"), _MADE)
DAEMONSETS = printer(
    _daemonset,
    (
        "Name",
        "#Desired",
        "#Current",
        "#Ready",
        "#Up-to-date",
        "#Available",
        "Node Selector",
        "Age",
    ),
    _MADE,
)
STATEFULSETS = printer(_statefulset, ("Name", "Ready", "Age"), _MADE[:2])
JOBS = printer(_job, ("Name", "Status", "Completions", "Duration", "Age"), _MADE)
CRONJOBS = printer(
    _cronjob, ("Name", "Schedule", "Timezone", "Suspend", "#Active", "Last Schedule", "Age"), _MADE
)
TEMPLATES = printer(_pod_template, ("Name", "Containers", "Images", "Pod Labels"))
