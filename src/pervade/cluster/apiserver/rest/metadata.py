"""Object metadata: what the server sets, what callers may not touch, and what is valid. Pure.

Rules: Kubernetes API conventions, "Metadata", and "Object Names and IDs".
"""

from __future__ import annotations

import re
import secrets
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime

from pervade.cluster.apiserver.kinds.kind import JSON, Cause, Kind
from pervade.cluster.apiserver.rest import status
from pervade.cluster.apiserver.rest.status import bad_request

_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_QUALIFIED = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_PATH_NAMED = frozenset({"roles", "clusterroles", "rolebindings", "clusterrolebindings"})
_LABEL_NAMED = frozenset({"namespaces", "services"})
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
_ANNOTATIONS_MOST = 256 * 1024
SERVER_SET = ("uid", "creationTimestamp", "generation", "deletionTimestamp", "deletionGracePeriodSeconds")
_SUBDOMAIN_RULE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.',"
    " and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is"
    " '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_LABEL_RULE = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end"
    " with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is"
    " '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)


def now() -> str:
    """The time as metadata carries it: RFC 3339, seconds, UTC."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def generated(prefix: str) -> str:
    """A name out of `generateName`: the prefix and five random characters."""
    return prefix[:58] + "".join(secrets.choice(_ALPHABET) for _ in range(5))


def typed(kind: Kind, obj: JSON) -> JSON:
    """`obj` with the kind and version of the URL; 400 when it says something else."""
    said = obj.get("apiVersion") or kind.api_version, obj.get("kind") or kind.kind
    if said[1] != kind.kind or said[0] != kind.api_version:
        text = (
            f"the API version in the data ({said[0]}) does not match the expected API version ({kind.api_version})"
            if said[1] == kind.kind
            else f"the kind in the data ({said[1]}) does not match the expected kind ({kind.kind})"
        )
        raise bad_request(
            f"{kind.kind} in version {kind.version!r} cannot be handled as a {kind.kind}: {text}"
        )
    meta = obj.get("metadata")
    if meta is not None and not isinstance(meta, dict):
        raise bad_request(
            f"{kind.kind} in version {kind.version!r} cannot be handled as a {kind.kind}: metadata must be an object"
        )
    return {**obj, "apiVersion": kind.api_version, "kind": kind.kind, "metadata": dict(meta or {})}


def place(kind: Kind, namespace: str, name: str, meta: JSON) -> None:
    """Name and namespace of URL and object agree; the URL fills in what the object leaves out."""
    if not kind.namespaced:
        meta.pop("namespace", None)
    elif not meta.get("namespace"):
        meta["namespace"] = namespace
    elif namespace and meta["namespace"] != namespace:
        raise bad_request(
            "the namespace of the provided object does not match the namespace sent on the request"
            f" ({meta['namespace']} is not {namespace})"
        )
    if kind.namespaced and not meta.get("namespace"):
        raise bad_request("an empty namespace may not be set during creation")
    if name and not meta.get("name"):
        meta["name"] = name
    elif name and meta["name"] != name:
        raise bad_request(
            f"the name of the object ({meta['name']}) does not match the name on the URL ({name})"
        )


def begin(kind: Kind, meta: JSON) -> None:
    """The fields of a new object that only the server may set."""
    if meta.get("resourceVersion"):
        raise bad_request("resourceVersion should not be set on objects to be created")
    for field in (*SERVER_SET, "resourceVersion", "selfLink"):
        meta.pop(field, None)
    meta["uid"] = str(uuid.uuid4())
    meta["creationTimestamp"] = now()
    if kind.generation:
        meta["generation"] = 1
    _tidy(meta)


def carry(new: JSON, old: JSON) -> None:
    """What no update may change is taken from the stored metadata."""
    for field in SERVER_SET:
        if field in old:
            new[field] = old[field]
        else:
            new.pop(field, None)
    new.pop("selfLink", None)
    if "generateName" in old and "generateName" not in new:
        new["generateName"] = old["generateName"]
    _tidy(new)


def _tidy(meta: JSON) -> None:
    """Empty collections and nulls have no place in stored metadata."""
    for field in [f for f, v in meta.items() if v is None or v in ({}, [], "")]:
        if field != "managedFields":
            del meta[field]


def precondition(kind: Kind, name: str, asked: JSON, stored: JSON) -> None:
    """409 when `asked` names another version or object than the stored one."""
    version = asked.get("resourceVersion")
    if version and version != stored["resourceVersion"]:
        raise status.conflict(kind, name, status.MODIFIED)
    uid = asked.get("uid")
    if uid and uid != stored["uid"]:
        why = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {stored['uid']}"
        raise status.conflict(kind, name, why)


def causes(kind: Kind, meta: JSON, old: JSON | None) -> list[Cause]:
    """Why metadata is invalid."""
    found = _shape(meta)
    if found:
        return found
    name = meta.get("name") or ""
    if not name:
        return [
            Cause("metadata.name", "Required value: name or generateName is required", "FieldValueRequired")
        ]
    if old is None:
        rule = _name_rule(kind, name)
        if rule:
            found.append(Cause("metadata.name", f'Invalid value: "{name}": {rule}'))
    for key, value in (meta.get("labels") or {}).items():
        if problem := key_problem(key):
            found.append(Cause("metadata.labels", f'Invalid value: "{key}": {problem}'))
        if not _VALUE.fullmatch(value):
            text = (
                "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must"
                " start and end with an alphanumeric character, and be at most 63 characters"
            )
            found.append(Cause("metadata.labels", f'Invalid value: "{value}": {text}'))
    total = 0
    for key, value in (meta.get("annotations") or {}).items():
        total += len(key) + len(value)
        if problem := key_problem(key.lower()):
            found.append(Cause("metadata.annotations", f'Invalid value: "{key}": {problem}'))
    if total > _ANNOTATIONS_MOST:
        found.append(
            Cause(
                "metadata.annotations",
                f"Too long: may not be more than {_ANNOTATIONS_MOST} bytes",
                "FieldValueTooLong",
            )
        )
    found += _finalizer_causes(meta, old)
    found += _owner_causes(meta)
    return found


def _shape(meta: JSON) -> list[Cause]:
    out = []
    for field in ("labels", "annotations"):
        value = meta.get(field)
        if value is not None and not (
            isinstance(value, dict) and all(isinstance(v, str) for v in value.values())
        ):
            out.append(Cause(f"metadata.{field}", "Invalid value: must be a map of strings"))
    for field in ("finalizers", "ownerReferences", "managedFields"):
        if not isinstance(meta.get(field) or [], list):
            out.append(Cause(f"metadata.{field}", "Invalid value: must be a list"))
    for field in ("name", "namespace", "generateName"):
        if not isinstance(meta.get(field) or "", str):
            out.append(Cause(f"metadata.{field}", "Invalid value: must be a string"))
    return out


def _name_rule(kind: Kind, name: str) -> str:
    """What is wrong with a name, "" when nothing is."""
    if kind.plural in _PATH_NAMED:
        bad = [c for c in ("/", "%") if c in name]
        return (
            f"may not contain '{bad[0]}'" if bad else "may not be '.' or '..'" if name in (".", "..") else ""
        )
    if kind.plural in _LABEL_NAMED:
        if len(name) > 63:
            return "must be no more than 63 characters"
        return "" if _LABEL.fullmatch(name) else _LABEL_RULE
    if len(name) > 253:
        return "must be no more than 253 characters"
    return "" if _SUBDOMAIN.fullmatch(name) else _SUBDOMAIN_RULE


def key_problem(key: str) -> str:
    """What is wrong with a label or annotation key, "" when nothing is."""
    prefix, slash, name = key.rpartition("/")
    if slash and (not _SUBDOMAIN.fullmatch(prefix) or len(prefix) > 253):
        return f"prefix part {_SUBDOMAIN_RULE}"
    if not _QUALIFIED.fullmatch(name):
        return (
            "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an"
            " alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc')"
        )
    return ""


def _finalizer_causes(meta: JSON, old: JSON | None) -> Iterable[Cause]:
    wanted = meta.get("finalizers") or []
    for one in wanted:
        if not isinstance(one, str) or key_problem(one):
            yield Cause("metadata.finalizers", f'Invalid value: "{one}": name part must be a qualified name')
    if {"orphan", "foregroundDeletion"} <= set(wanted):
        yield Cause(
            "metadata.finalizers",
            f"Invalid value: {wanted}: finalizer orphan and foregroundDeletion cannot be both set",
        )
    if old is not None and old.get("deletionTimestamp"):
        added = [f for f in wanted if f not in (old.get("finalizers") or ())]
        if added:
            text = (
                "Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers"
                f" {added}"
            )
            yield Cause("metadata.finalizers", text, "FieldValueForbidden")


def _owner_causes(meta: JSON) -> Iterable[Cause]:
    controllers = 0
    for i, one in enumerate(meta.get("ownerReferences") or ()):
        path = f"metadata.ownerReferences[{i}]"
        if not isinstance(one, dict):
            yield Cause(path, "Invalid value: must be an object")
            continue
        for field in ("apiVersion", "kind", "name", "uid"):
            if not one.get(field):
                yield Cause(f"{path}.{field}", 'Invalid value: "": must not be empty')
        controllers += bool(one.get("controller"))
    if controllers > 1:
        yield Cause(
            "metadata.ownerReferences", "Invalid value: Only one reference can have Controller set to true"
        )
