"""Small questions about Kubernetes objects that every controller asks. Pure."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

import msgspec

JSON = dict[str, Any]
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"


def key_of(obj: JSON) -> tuple[str, str]:
    """(namespace, name)."""
    return obj["metadata"].get("namespace", ""), obj["metadata"]["name"]


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def epoch(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def owner(obj: JSON) -> JSON | None:
    """The owner reference with `controller: true`."""
    for ref in obj["metadata"].get("ownerReferences") or ():
        if ref.get("controller"):
            found: JSON = ref
            return found
    return None


def owned_by(obj: JSON, uid: str) -> bool:
    ref = owner(obj)
    return ref is not None and ref["uid"] == uid


def controllers_of(obj: JSON) -> list[tuple[str, str]]:
    """For an index: namespace and uid of what controls an object.

    A reference out of another namespace names nobody: one tenant's objects are not counted as another's.
    """
    ref = owner(obj)
    return [(obj["metadata"].get("namespace", ""), ref["uid"])] if ref is not None else []


def identity(obj: JSON) -> tuple[str, str]:
    """The key of an object's dependents in that index."""
    return obj["metadata"].get("namespace", ""), obj["metadata"]["uid"]


def reference(obj: JSON, api_version: str, kind: str) -> JSON:
    """An owner reference that makes `obj` the controller."""
    meta = obj["metadata"]
    return {
        "apiVersion": api_version,
        "kind": kind,
        "name": meta["name"],
        "uid": meta["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def matches(selector: JSON | None, labels: dict[str, str] | None) -> bool:
    """A LabelSelector against labels; an empty selector matches everything, None nothing."""
    if selector is None:
        return False
    held = labels or {}
    if any(held.get(k) != v for k, v in (selector.get("matchLabels") or {}).items()):
        return False
    for one in selector.get("matchExpressions") or ():
        key, values = one["key"], one.get("values") or []
        ok = {
            "In": held.get(key) in values if key in held else False,
            "NotIn": held.get(key) not in values if key in held else True,
            "Exists": key in held,
            "DoesNotExist": key not in held,
        }.get(one["operator"], False)
        if not ok:
            return False
    return True


def terminating(obj: JSON) -> bool:
    return bool(obj["metadata"].get("deletionTimestamp"))


def active(pod: JSON) -> bool:
    """Neither ended nor being deleted."""
    return not terminating(pod) and (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed")


def condition(obj: JSON, kind: str) -> JSON | None:
    for one in (obj.get("status") or {}).get("conditions") or ():
        if one["type"] == kind:
            found: JSON = one
            return found
    return None


def ready(pod: JSON) -> bool:
    found = condition(pod, "Ready")
    return found is not None and found["status"] == "True"


def ready_since(pod: JSON) -> float:
    """When the pod became Ready (epoch), 0 if it is not."""
    found = condition(pod, "Ready")
    return epoch(found["lastTransitionTime"]) if found is not None and found["status"] == "True" else 0.0


def available(pod: JSON, min_ready: int, at: float) -> bool:
    return ready(pod) and (min_ready == 0 or ready_since(pod) + min_ready <= at)


def set_condition(
    held: list[JSON], kind: str, status: str, reason: str, message: str, *, update_time: bool = True
) -> list[JSON]:
    """`held` with one condition set; its times move only when its status (or reason) does.

    `update_time`: whether this kind's conditions have `lastUpdateTime` (those of Deployments do).
    """
    old = next((c for c in held if c["type"] == kind), None)
    if old and (old["status"], old.get("reason"), old.get("message")) == (status, reason, message):
        return held
    same = old is not None and old["status"] == status
    row = {
        "type": kind,
        "status": status,
        **({"lastUpdateTime": now()} if update_time else {}),
        "lastTransitionTime": old["lastTransitionTime"] if same and old else now(),
        "reason": reason,
        "message": message,
    }
    return [row if c["type"] == kind else c for c in held] if old else [*held, row]


def short_hash(value: Any, extra: str = "") -> str:
    """Ten characters that name a template's content (the alphabet of generated names)."""
    digest = hashlib.sha256(msgspec.json.encode(value, order="sorted") + extra.encode()).digest()
    return "".join(_ALPHABET[b % len(_ALPHABET)] for b in digest[:10])


def amount(value: int | str | None, total: int, *, up: bool) -> int:
    """An int-or-percent against `total`."""
    if value is None:
        return 0
    if isinstance(value, int):
        return value
    if value.endswith("%"):
        exact = int(value[:-1]) * total
        return -(-exact // 100) if up else exact // 100
    return int(value)


def kill_rank(pod: JSON, crowd: dict[str, int]) -> tuple[Any, ...]:
    """Which pods go first when there are too many: unassigned, pending, not ready, crowded nodes, youngest."""
    status = pod.get("status") or {}
    node = pod["spec"].get("nodeName") or ""
    cost = int(
        (pod["metadata"].get("annotations") or {}).get("controller.kubernetes.io/pod-deletion-cost", 0) or 0
    )
    phase = {"Pending": 0, "Unknown": 1}.get(status.get("phase", "Pending"), 2)
    return (
        bool(node),
        phase,
        ready(pod),
        cost,
        -crowd.get(node, 0),
        [-ord(c) for c in pod["metadata"]["creationTimestamp"]],
    )
