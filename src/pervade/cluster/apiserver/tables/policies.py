"""Rows of what limits, scales, signs and checks other objects."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pervade.cluster.apiserver.kinds.kind import JSON
from pervade.cluster.apiserver.tables import human
from pervade.cluster.apiserver.tables.column import printer
from pervade.cluster.apiserver.tables.core import simple

_TARGETS = 2


def _spec(obj: JSON) -> JSON:
    found: JSON = obj.get("spec") or {}
    return found


def _priority(obj: JSON, now: datetime) -> list[Any]:
    return [
        obj["metadata"]["name"],
        obj.get("value", 0),
        str(bool(obj.get("globalDefault"))).lower(),
        human.age(obj["metadata"].get("creationTimestamp"), now),
        obj.get("preemptionPolicy", "PreemptLowerPriority"),
    ]


def _request(obj: JSON, now: datetime) -> list[Any]:
    spec, state = _spec(obj), obj.get("status") or {}
    lasts = spec.get("expirationSeconds")
    words = [c.get("type", "") for c in state.get("conditions") or ()] or ["Pending"]
    if state.get("certificate"):
        words.append("Issued")
    return [
        obj["metadata"]["name"],
        human.age(obj["metadata"].get("creationTimestamp"), now),
        spec.get("signerName") or "<none>",
        spec.get("username", ""),
        human.duration(lasts) if lasts is not None else "<none>",
        ",".join(words),
    ]


def _scaled(obj: JSON) -> str:
    found = _spec(obj).get("scaleTargetRef") or {}
    return f"{found.get('kind', '')}/{found.get('name', '')}"


def _metric(wanted: JSON, current: JSON) -> str:
    """One target as `cpu: 12%/80%`; a value nobody measured yet is `<unknown>`."""
    kind = str(wanted.get("type", ""))
    part = kind[:1].lower() + kind[1:]
    about, now = wanted.get(part) or {}, (current.get(part) or {}).get("current") or {}
    target = about.get("target") or {}
    name = f"{about.get('name')}: " if kind in ("Resource", "ContainerResource") else ""
    if target.get("averageUtilization") is not None:
        seen = now.get("averageUtilization")
        return f"{name}{'<unknown>' if seen is None else f'{seen}%'}/{target['averageUtilization']}%"
    if target.get("averageValue") is not None:
        return f"{name}{now.get('averageValue') or '<unknown>'}/{target['averageValue']}" + (
            "" if name or kind == "Pods" else " (avg)"
        )
    return f"{name}{now.get('value') or '<unknown>'}/{target.get('value', '<auto>')}"


def _targets(obj: JSON) -> str:
    spec = _spec(obj)
    wanted = spec.get("metrics") or []
    if not wanted and spec.get("targetCPUUtilizationPercentage") is not None:
        # autoscaling/v1 knows one metric only.
        seen = (obj.get("status") or {}).get("currentCPUUtilizationPercentage")
        return f"cpu: {'<unknown>' if seen is None else f'{seen}%'}/{spec['targetCPUUtilizationPercentage']}%"
    current = [*((obj.get("status") or {}).get("currentMetrics") or ())]
    texts = [_metric(one, current[i] if i < len(current) else {}) for i, one in enumerate(wanted)]
    more = len(texts) - _TARGETS
    shown = ", ".join(texts[:_TARGETS])
    return (f"{shown} + {more} more..." if more > 0 else shown) or "<none>"


def _kind_of(found: JSON | None) -> str:
    return f"{found.get('apiVersion', '')}/{found.get('kind', '')}" if found else "<unset>"


def _parameters(found: JSON | None) -> str:
    if not found:
        return "<unset>"
    if found.get("name"):
        return f"{found['namespace']}/{found['name']}" if found.get("namespace") else str(found["name"])
    return human.selector(found.get("selector"))


BUDGETS = simple(
    ("Min Available", "Max Unavailable", "#Allowed Disruptions"),
    lambda o: str(_spec(o).get("minAvailable", "N/A")),
    lambda o: str(_spec(o).get("maxUnavailable", "N/A")),
    lambda o: (o.get("status") or {}).get("disruptionsAllowed", 0),
)
SCALERS = simple(
    ("Reference", "Targets", "MinPods", "MaxPods", "#Replicas"),
    _scaled,
    _targets,
    lambda o: str(_spec(o).get("minReplicas", "<unset>")),
    lambda o: str(_spec(o).get("maxReplicas", "")),
    lambda o: (o.get("status") or {}).get("currentReplicas", 0),
)
PRIORITIES = printer(_priority, ("Name", "#Value", "Global-Default", "Age", "PreemptionPolicy"))
REQUESTS = printer(_request, ("Name", "Age", "SignerName", "Requestor", "RequestedDuration", "Condition"))
WEBHOOKS = simple(("#Webhooks",), lambda o: len(o.get("webhooks") or ()))
ADMISSION_POLICIES = simple(
    ("#Validations", "ParamKind"),
    lambda o: len(_spec(o).get("validations") or ()),
    lambda o: _kind_of(_spec(o).get("paramKind")),
)
ADMISSION_BINDINGS = simple(
    ("PolicyName", "ParamRef"),
    lambda o: _spec(o).get("policyName", ""),
    lambda o: _parameters(_spec(o).get("paramRef")),
)
