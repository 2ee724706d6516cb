"""Pods as they are admitted: service account and its token volume, priority, tolerations. Pure."""

from __future__ import annotations

import secrets

from pervade.cluster.apiserver.kinds.kind import JSON

MOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
_TOLERATED = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")


def inject_account(pod: JSON, account: JSON) -> None:
    """Give the pod its service account's projected token, root certificate and namespace, unless it wants none."""
    spec = pod["spec"]
    name = account["metadata"]["name"]
    spec["serviceAccountName"] = spec["serviceAccount"] = name
    if not spec.get("imagePullSecrets") and account.get("imagePullSecrets"):
        spec["imagePullSecrets"] = account["imagePullSecrets"]
    wanted = spec.get("automountServiceAccountToken")
    if wanted is None:
        wanted = account.get("automountServiceAccountToken", True)
    if not wanted:
        return
    containers = [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
    bare = [
        c for c in containers if not any(m.get("mountPath") == MOUNT for m in c.get("volumeMounts") or ())
    ]
    if not bare:
        return
    volume = "kube-api-access-" + "".join(secrets.choice(_ALPHABET) for _ in range(5))
    for container in bare:
        container.setdefault("volumeMounts", []).append(
            {"name": volume, "readOnly": True, "mountPath": MOUNT}
        )
    own = {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}
    sources = [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [own]}},
    ]
    spec.setdefault("volumes", []).append(
        {"name": volume, "projected": {"sources": sources, "defaultMode": 0o644}}
    )


def tolerate(pod: JSON) -> None:
    """Five minutes on a node that is away, unless the pod says otherwise (DefaultTolerationSeconds)."""
    found = pod["spec"].setdefault("tolerations", [])
    for key in _TOLERATED:
        known = any(
            t.get("key") in (key, None, "") and t.get("effect") in ("NoExecute", None, "") for t in found
        )
        if not known:
            found.append({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300})


def prioritize(pod: JSON, classes: dict[str, JSON]) -> str:
    """Set `priority` and `preemptionPolicy` from the class; the reason for refusal, "" when there is none.

    A pod that brings other values than its class has is refused, so that nobody takes a rank the
    administrator did not define.
    """
    spec = pod["spec"]
    name = spec.get("priorityClassName")
    if not name:
        default = next((c for c in classes.values() if c.get("globalDefault")), None)
        if default is not None:
            name = spec["priorityClassName"] = default["metadata"]["name"]
    found = classes.get(name, {}) if name else {}
    if name and not found:
        return f"no PriorityClass with name {name} was found"
    wanted = {
        "priority": found.get("value", 0),
        "preemptionPolicy": found.get("preemptionPolicy") or "PreemptLowerPriority",
    }
    for field, value in wanted.items():
        if spec.get(field) not in (None, value):
            return (
                f"the value of {field} ({spec[field]}) must not be provided in pod spec;"
                f" priority admission controller computed {value} from the given PriorityClass name"
            )
    spec.update(wanted)
    return ""
