"""Kinds served in two versions from one store: events (core/v1, events.k8s.io/v1), autoscalers (v1, v2).

`to_stored` and `from_stored` are pure and lose nothing a client of either version can see; the stored
versions are core/v1 and autoscaling/v2.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from pervade.cluster.apiserver.kinds.kind import JSON

_EVENT = (
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
)
_METRICS = "autoscaling.alpha.kubernetes.io/metrics"
_BEHAVIOR = "autoscaling.alpha.kubernetes.io/behavior"


def _event_to_core(obj: JSON) -> JSON:
    names = {new: old for old, new in _EVENT}
    out = {names.get(k, k): v for k, v in obj.items()}
    out["apiVersion"] = "v1"
    out.setdefault("involvedObject", {})
    out.setdefault("source", {})
    return out


def _event_to_events(obj: JSON) -> JSON:
    names = dict(_EVENT)
    out = {names.get(k, k): v for k, v in obj.items()}
    out["apiVersion"] = "events.k8s.io/v1"
    out.setdefault("eventTime", None)
    return out


def _hpa_to_v2(obj: JSON) -> JSON:
    spec = dict(obj.get("spec") or {})
    meta = dict(obj["metadata"])
    annotations = dict(meta.get("annotations") or {})
    metrics: list[JSON] = json.loads(annotations.pop(_METRICS, "[]"))
    behavior = annotations.pop(_BEHAVIOR, None)
    if annotations:
        meta["annotations"] = annotations
    else:
        meta.pop("annotations", None)
    percent = spec.pop("targetCPUUtilizationPercentage", None)
    if percent is not None:
        target = {"type": "Utilization", "averageUtilization": percent}
        metrics.insert(0, {"type": "Resource", "resource": {"name": "cpu", "target": target}})
    if metrics:
        spec["metrics"] = metrics
    if behavior:
        spec["behavior"] = json.loads(behavior)
    return {**obj, "apiVersion": "autoscaling/v2", "metadata": meta, "spec": spec}


def _hpa_to_v1(obj: JSON) -> JSON:
    spec = dict(obj.get("spec") or {})
    meta = dict(obj["metadata"])
    annotations = dict(meta.get("annotations") or {})
    others = []
    for metric in spec.pop("metrics", None) or ():
        resource = metric.get("resource") or {}
        percent = (resource.get("target") or {}).get("averageUtilization")
        if resource.get("name") == "cpu" and percent and "targetCPUUtilizationPercentage" not in spec:
            spec["targetCPUUtilizationPercentage"] = percent
        else:
            others.append(metric)
    if others:
        annotations[_METRICS] = json.dumps(others, separators=(",", ":"))
    behavior = spec.pop("behavior", None)
    if behavior:
        annotations[_BEHAVIOR] = json.dumps(behavior, separators=(",", ":"))
    if annotations:
        meta["annotations"] = annotations
    return {**obj, "apiVersion": "autoscaling/v1", "metadata": meta, "spec": spec}


Convert = Callable[[JSON], JSON]
_TO: dict[tuple[str, str], Convert] = {
    ("events.k8s.io/v1", "Event"): _event_to_core,
    ("autoscaling/v1", "HorizontalPodAutoscaler"): _hpa_to_v2,
}
_FROM: dict[tuple[str, str], Convert] = {
    ("events.k8s.io/v1", "Event"): _event_to_events,
    ("autoscaling/v1", "HorizontalPodAutoscaler"): _hpa_to_v1,
}


def to_stored(api_version: str, kind: str) -> Convert | None:
    """How an object of this version is stored; None when it is stored as it is."""
    return _TO.get((api_version, kind))


def from_stored(api_version: str, kind: str) -> Convert | None:
    """How a stored object is shown in this version; None when it is stored in it."""
    return _FROM.get((api_version, kind))
