"""CustomResourceDefinitions as kinds: what a definition makes the server serve, and its conditions. Pure."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Any

from pervade.cluster.apiserver.kinds.kind import JSON, Cause, Kind, Strategy

FINALIZER = "customresourcecleanup.apiextensions.k8s.io"
APPROVAL = "api-approved.kubernetes.io"
_LABEL = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
_GROUP = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)+")
_PROTECTED = re.compile(r"(.*\.)?(k8s|kubernetes)\.io")
_DNS_1035 = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character,"
    " and end with an alphanumeric character (e.g. 'my-name', or 'abc-123', regex used for validation is"
    " '[a-z]([-a-z0-9]*[a-z0-9])?')"
)
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
    causes += _name_causes(spec["group"], names)
    causes += _version_causes(versions)
    said = (new["metadata"].get("annotations") or {}).get(APPROVAL, "")
    # Definitions that were there before the rule, or that have it already, are not asked again.
    if _PROTECTED.fullmatch(spec["group"]) and not said and (old is None or approved(old)):
        text = f'protected groups must have approval annotation "{APPROVAL}", see https://github.com/kubernetes/enhancements/pull/1111'
        causes.append(Cause(f"metadata.annotations[{APPROVAL}]", f"Required value: {text}", _REQUIRED))
    known = {v.get("name") for v in versions}
    for i, name in enumerate(((old or {}).get("status") or {}).get("storedVersions") or ()):
        if name not in known:
            text = (
                f'Invalid value: "{name}": missing from spec.versions; {name} was previously a storage version, and must'
                " remain in spec.versions until its objects are migrated and it is removed from status.storedVersions"
            )
            causes.append(Cause(f"status.storedVersions[{i}]", text))
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


def approved(definition: JSON) -> bool:
    """Whether a definition carries the approval that protected groups (k8s.io, kubernetes.io) ask for."""
    return bool((definition["metadata"].get("annotations") or {}).get(APPROVAL))


def _name_causes(group: str, names: JSON) -> list[Cause]:
    causes = []
    if not _GROUP.fullmatch(group) or len(group) > 253:
        text = f'Invalid value: "{group}": should be a domain with at least one dot'
        causes.append(Cause("spec.group", text))
    said = [(f, str(names.get(f) or "")) for f in ("plural", "singular")]
    said += [(f, str(names.get(f) or "").lower()) for f in ("kind", "listKind")]
    for field in ("shortNames", "categories"):
        said += [(f"{field}[{i}]", str(one)) for i, one in enumerate(names.get(field) or ())]
    for field, name in said:
        if name and not _LABEL.fullmatch(name):
            causes.append(Cause(f"spec.names.{field}", f'Invalid value: "{name}": {_DNS_1035}'))
    if names.get("listKind") and names["listKind"] == names.get("kind"):
        text = f'Invalid value: "{names["listKind"]}": kind and listKind may not be the same'
        causes.append(Cause("spec.names.listKind", text))
    return causes


def clash(names: JSON, other: Kind) -> tuple[str, str]:
    """(reason, message) when names of a definition are in use by another kind of its group; ("", "") otherwise."""
    resources = {other.plural, other.name_singular, *other.short}
    for reason, field in (("PluralConflict", "plural"), ("SingularConflict", "singular")):
        if names.get(field) and names[field] in resources:
            return reason, f'"{names[field]}" is already in use'
    for name in names.get("shortNames") or ():
        if name in resources:
            return "ShortNamesConflict", f'"{name}" is already in use'
    for reason, field in (("KindConflict", "kind"), ("ListKindConflict", "listKind")):
        if names.get(field) and names[field] in (other.kind, other.list_kind):
            return reason, f'"{names[field]}" is already in use'
    return "", ""


def _version_causes(versions: list[JSON]) -> list[Cause]:
    causes = []
    seen: set[str] = set()
    for i, version in enumerate(versions):
        name = str(version.get("name") or "")
        path = f"spec.versions[{i}]"
        if not _LABEL.fullmatch(name):
            causes.append(Cause(f"{path}.name", f'Invalid value: "{name}": {_DNS_1035}'))
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


Clash = Callable[[str, JSON], tuple[str, str]]
"""(group, names) to the reason and message why they are in use by somebody else, ("", "") when they are not."""


def complete_status(new: JSON, old: JSON | None, taken: Clash, now: str) -> None:
    """Set the status a definition gets when it is stored: accepted names, conditions, stored versions."""
    spec = new["spec"]
    names = spec["names"]
    state: JSON = dict(new.get("status") or (old or {}).get("status") or {})
    reason, why = taken(spec["group"], names)
    before = {c["type"]: c for c in state.get("conditions") or ()}

    def condition(kind: str, status: str, reason: str, message: str) -> JSON:
        made = {"type": kind, "status": status, "reason": reason, "message": message}
        known = before.get(kind)
        same = known is not None and known["status"] == status
        made["lastTransitionTime"] = known["lastTransitionTime"] if known is not None and same else now
        return made

    conditions = []
    if why:
        conditions.append(condition("NamesAccepted", "False", reason, why))
        if old is not None and established(old):
            # What is served stays served, under the names that were accepted.
            conditions.append(before["Established"])
        else:
            conditions.append(condition("Established", "False", "NotAccepted", "not all names are accepted"))
    else:
        state["acceptedNames"] = dict(names)
        conditions = [
            condition("NamesAccepted", "True", "NoConflicts", "no conflicts found"),
            condition("Established", "True", "InitialNamesAccepted", "the initial names have been accepted"),
        ]
    if _PROTECTED.fullmatch(spec["group"]):
        said = (new["metadata"].get("annotations") or {}).get(APPROVAL, "")
        kind = "KubernetesAPIApprovalPolicyConformant"
        if said.startswith("https://"):
            conditions.append(condition(kind, "True", "ApprovedAnnotation", f"approved in {said}"))
        else:
            text = f'not approved: "{APPROVAL}" says {said!r}'
            conditions.append(
                condition(kind, "False", "UnapprovedAnnotation" if said else "MissingAnnotation", text)
            )
        before.pop(kind, None)
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
