"""CustomResourceDefinitions as kinds: what a definition makes the server serve, and its conditions. Pure."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Any

from pervade.cluster.apiserver.kinds.kind import JSON, Cause, Kind, Strategy

FINALIZER = "customresourcecleanup.apiextensions.k8s.io"
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_REQUIRED = "FieldValueRequired"


@dataclasses.dataclass(frozen=True)
class Custom:
    """One served version of a custom resource. `schema` is what the definition says, `compiled` what is made of it."""

    definition: str
    schema: JSON | None
    columns: tuple[JSON, ...]
    scale: JSON | None
    compiled: Any = None
    terminating: bool = False


Compile = Callable[[JSON, JSON], Any]
"""(definition, version) to the compiled schema of that version."""


def kinds_of(definition: JSON, compile_version: Compile | None = None) -> list[Kind]:
    """The kinds that a definition which is Established serves, newest version first; [] when it is not."""
    if not established(definition):
        return []
    spec = definition["spec"]
    names = (definition.get("status") or {}).get("acceptedNames") or spec["names"]
    group, plural = spec["group"], names["plural"]
    storage = next(v["name"] for v in spec["versions"] if v.get("storage"))
    found = []
    for version in spec["versions"]:
        if not version.get("served"):
            continue
        parts = version.get("subresources") or {}
        custom = Custom(
            definition=definition["metadata"]["name"],
            schema=(version.get("schema") or {}).get("openAPIV3Schema"),
            columns=tuple(version.get("additionalPrinterColumns") or ()),
            scale=parts.get("scale"),
            compiled=compile_version(definition, version) if compile_version else None,
            terminating=bool(definition["metadata"].get("deletionTimestamp")),
        )
        warning = _deprecation(group, names["kind"], version)
        found.append(
            Kind(
                group,
                version["name"],
                plural,
                names["kind"],
                spec.get("scope") == "Namespaced",
                singular=names.get("singular", ""),
                short=tuple(names.get("shortNames") or ()),
                categories=tuple(names.get("categories") or ()),
                status="status" in parts,
                scale="scale" in parts,
                generation=True,
                fields=tuple(f["jsonPath"].lstrip(".") for f in version.get("selectableFields") or ()),
                storage=f"{group}/{storage}",
                strategy=Strategy(
                    default=custom.compiled.complete if custom.compiled is not None else None,
                    validate=custom.compiled.causes if custom.compiled is not None else None,
                    warn=_warner(warning) if warning else None,
                ),
                custom=custom,
            )
        )
    return found


def _warner(text: str) -> Callable[[JSON], list[str]]:
    return lambda _new: [text]


def _deprecation(group: str, kind: str, version: JSON) -> str:
    if not version.get("deprecated"):
        return ""
    return str(version.get("deprecationWarning") or f"{group}/{version['name']} {kind} is deprecated")


def established(definition: JSON) -> bool:
    """Whether the definition's kinds are served."""
    return any(
        c.get("type") == "Established" and c.get("status") == "True"
        for c in (definition.get("status") or {}).get("conditions") or ()
    )


def validate(new: JSON, old: JSON | None) -> list[Cause]:
    """What is wrong with a definition, its schemas left out."""
    spec = new.get("spec") or {}
    names = spec.get("names") or {}
    causes = [
        Cause(f"spec.{field}", "Required value", _REQUIRED)
        for field in ("group", "scope")
        if not spec.get(field)
    ]
    causes += [
        Cause(f"spec.names.{f}", "Required value", _REQUIRED) for f in ("plural", "kind") if not names.get(f)
    ]
    versions = spec.get("versions") or []
    if not versions:
        causes.append(Cause("spec.versions", "Required value", _REQUIRED))
    if causes:
        return causes
    wanted = f"{names['plural']}.{spec['group']}"
    if new["metadata"].get("name") != wanted:
        text = f'Invalid value: "{new["metadata"].get("name")}": must be spec.names.plural+"."+spec.group'
        causes.append(Cause("metadata.name", text))
    if spec["scope"] not in ("Namespaced", "Cluster"):
        text = f'Unsupported value: "{spec["scope"]}": supported values: "Cluster", "Namespaced"'
        causes.append(Cause("spec.scope", text, "FieldValueNotSupported"))
    causes += _version_causes(versions)
    if (spec.get("conversion") or {}).get("strategy", "None") != "None":
        text = "Forbidden: this server converts by strategy None only"
        causes.append(Cause("spec.conversion.strategy", text, "FieldValueForbidden"))
    if spec.get("preserveUnknownFields"):
        causes.append(Cause("spec.preserveUnknownFields", "Invalid value: true: must be false"))
    if old is not None and established(old):
        before = old["spec"]
        for path, a, b in (
            ("spec.group", spec["group"], before["group"]),
            ("spec.scope", spec["scope"], before["scope"]),
            ("spec.names.plural", names["plural"], before["names"]["plural"]),
            ("spec.names.kind", names["kind"], before["names"]["kind"]),
        ):
            if a != b:
                causes.append(Cause(path, f'Invalid value: "{a}": field is immutable'))
    return causes


def _version_causes(versions: list[JSON]) -> list[Cause]:
    causes = []
    seen: set[str] = set()
    for i, version in enumerate(versions):
        name = str(version.get("name") or "")
        path = f"spec.versions[{i}]"
        if not _LABEL.fullmatch(name):
            causes.append(Cause(f"{path}.name", f'Invalid value: "{name}": must be a DNS-1035 label'))
        if name in seen:
            causes.append(Cause(f"{path}.name", f'Duplicate value: "{name}"', "FieldValueDuplicate"))
        seen.add(name)
        if not isinstance((version.get("schema") or {}).get("openAPIV3Schema"), dict):
            causes.append(
                Cause(f"{path}.schema.openAPIV3Schema", "Required value: schemas are required", _REQUIRED)
            )
    if sum(bool(v.get("storage")) for v in versions) != 1:
        causes.append(
            Cause("spec.versions", "Invalid value: must have exactly one version marked as storage version")
        )
    return causes


def complete_status(new: JSON, old: JSON | None, taken: Callable[[str, str, str], str], now: str) -> None:
    """Set the status a definition gets when it is stored: accepted names, conditions, stored versions.

    `taken(group, plural, kind)` says why names are in use by another definition ("" when they are not).
    """
    spec = new["spec"]
    names = spec["names"]
    state: JSON = dict(new.get("status") or (old or {}).get("status") or {})
    why = taken(spec["group"], names["plural"], names["kind"])
    before = {c["type"]: c for c in state.get("conditions") or ()}

    def condition(kind: str, status: str, reason: str, message: str) -> JSON:
        made = {"type": kind, "status": status, "reason": reason, "message": message}
        known = before.get(kind)
        same = known is not None and known["status"] == status
        made["lastTransitionTime"] = known["lastTransitionTime"] if known is not None and same else now
        return made

    if why:
        conditions = [
            condition("NamesAccepted", "False", "NameConflict", why),
            condition("Established", "False", "NotAccepted", "not all names are accepted"),
        ]
    else:
        state["acceptedNames"] = dict(names)
        conditions = [
            condition("NamesAccepted", "True", "NoConflicts", "no conflicts found"),
            condition("Established", "True", "InitialNamesAccepted", "the initial names have been accepted"),
        ]
    kept = [c for t, c in before.items() if t not in ("NamesAccepted", "Established", "Terminating")]
    if new["metadata"].get("deletionTimestamp"):
        text = "CustomResource deletion is in progress"
        conditions.append(condition("Terminating", "True", "InstanceDeletionInProgress", text))
    state["conditions"] = [*kept, *conditions]
    state.setdefault("acceptedNames", {"plural": "", "kind": ""})
    storage = next(v["name"] for v in spec["versions"] if v.get("storage"))
    stored = list(state.get("storedVersions") or ())
    state["storedVersions"] = stored if storage in stored else [*stored, storage]
    new["status"] = state
