"""Rows of volumes and of the classes that objects choose by name."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pervade.cluster.apiserver.kinds.kind import JSON
from pervade.cluster.apiserver.tables import human
from pervade.cluster.apiserver.tables.column import printer
from pervade.cluster.apiserver.tables.core import simple

_MODES = {
    "ReadWriteOnce": "RWO",
    "ReadOnlyMany": "ROX",
    "ReadWriteMany": "RWX",
    "ReadWriteOncePod": "RWOP",
}
_DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"


def _modes(of: JSON) -> str:
    return ",".join(_MODES.get(m, str(m)) for m in of.get("accessModes") or ())


def _phase(obj: JSON) -> str:
    if obj["metadata"].get("deletionTimestamp"):
        return "Terminating"
    return str((obj.get("status") or {}).get("phase") or "")


def _volume(obj: JSON, now: datetime) -> list[Any]:
    spec, meta = obj.get("spec") or {}, obj["metadata"]
    claim = spec.get("claimRef")
    return [
        meta["name"],
        (spec.get("capacity") or {}).get("storage", ""),
        _modes(spec),
        spec.get("persistentVolumeReclaimPolicy", ""),
        _phase(obj),
        f"{claim.get('namespace', '')}/{claim.get('name', '')}" if claim else "",
        spec.get("storageClassName", ""),
        spec.get("volumeAttributesClassName") or "<unset>",
        (obj.get("status") or {}).get("reason", ""),
        human.age(meta.get("creationTimestamp"), now),
        spec.get("volumeMode") or "<unset>",
    ]


def _claim(obj: JSON, now: datetime) -> list[Any]:
    spec, state, meta = obj.get("spec") or {}, obj.get("status") or {}, obj["metadata"]
    bound = bool(spec.get("volumeName"))
    return [
        meta["name"],
        _phase(obj),
        spec.get("volumeName", ""),
        (state.get("capacity") or {}).get("storage", "") if bound else "",
        _modes(state) if bound else "",
        spec.get("storageClassName", ""),
        spec.get("volumeAttributesClassName") or "<unset>",
        human.age(meta.get("creationTimestamp"), now),
        spec.get("volumeMode") or "<unset>",
    ]


def _storage_class(obj: JSON, now: datetime) -> list[Any]:
    meta = obj["metadata"]
    default = (meta.get("annotations") or {}).get(_DEFAULT_CLASS) == "true"
    return [
        meta["name"] + (" (default)" if default else ""),
        obj.get("provisioner", ""),
        obj.get("reclaimPolicy", "Delete"),
        obj.get("volumeBindingMode", "Immediate"),
        str(bool(obj.get("allowVolumeExpansion"))).lower(),
        human.age(meta.get("creationTimestamp"), now),
    ]


VOLUMES = printer(
    _volume,
    (
        "Name",
        "Capacity",
        "Access Modes",
        "Reclaim Policy",
        "Status",
        "Claim",
        "StorageClass",
        "VolumeAttributesClass",
        "Reason",
        "Age",
    ),
    ("VolumeMode",),
)
CLAIMS = printer(
    _claim,
    (
        "Name",
        "Status",
        "Volume",
        "Capacity",
        "Access Modes",
        "StorageClass",
        "VolumeAttributesClass",
        "Age",
    ),
    ("VolumeMode",),
)
CLASSES = printer(
    _storage_class,
    ("Name", "Provisioner", "ReclaimPolicy", "VolumeBindingMode", "AllowVolumeExpansion", "Age"),
)
RUNTIMES = simple(("Handler",), lambda o: o.get("handler", ""))
