"""create, update, patch and delete of whole objects and their status.

Each write starts from the latest version (also one in flight) and ends with `State.write` without an
await in between; when another write came first, an unconditional one starts over and a conditional one
is refused with 409.
"""

from __future__ import annotations

import copy
import re
import secrets
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from pervade.cluster.apiserver.kinds.kind import JSON, Cause, Kind
from pervade.cluster.apiserver.rest import present, status
from pervade.cluster.apiserver.rest.context import RESERVED_NAMESPACES, Api, Request
from pervade.cluster.apiserver.rest.status import StatusError, bad_request
from pervade.cluster.apiserver.store.log import Entry

_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_PATH_NAMED = ("roles", "clusterroles", "rolebindings", "clusterrolebindings")
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
_TRIES = 8
Change = Callable[[JSON], JSON]


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# create


async def create(api: Api, request: Request, obj: JSON) -> JSON:
    """The object as stored. 409 AlreadyExists, 404/403 for the namespace, 422 with causes."""
    kind = request.kind
    obj = _typed(kind, obj)
    meta = obj["metadata"]
    generated = bool(meta.get("generateName")) and not meta.get("name")
    _place(request, meta)
    for _ in range(_TRIES if generated else 1):
        attempt = copy.deepcopy(obj)
        if generated:
            prefix = meta["generateName"][:58]
            attempt["metadata"]["name"] = prefix + "".join(secrets.choice(_ALPHABET) for _ in range(5))
        try:
            return await _create(api, request, attempt)
        except StatusError as error:
            if not (generated and error.reason == "AlreadyExists"):
                raise
    raise status.already_exists(kind, meta["generateName"] + "…")


async def _create(api: Api, request: Request, obj: JSON) -> JSON:
    kind, meta = request.kind, obj["metadata"]
    name, namespace = meta.get("name", ""), meta.get("namespace", "")
    if meta.get("resourceVersion"):
        raise bad_request("resourceVersion should not be set on objects to be created")
    if api.state.latest(kind.table, namespace, name) is not None:
        raise status.already_exists(kind, name)
    _namespace_open(api, request, namespace)
    meta |= {"uid": str(uuid.uuid4()), "creationTimestamp": now()}
    for field in ("resourceVersion", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"):
        meta.pop(field, None)
    if kind.generation:
        meta["generation"] = 1
    else:
        meta.pop("generation", None)
    strategy = kind.strategy
    if strategy.default:
        strategy.default(obj)
    if api.admission:
        obj = await api.admission.mutate(request, "CREATE", obj, None) or obj
        if strategy.default:
            strategy.default(obj)
    if strategy.create:
        strategy.create(obj)
    elif kind.status and "custom" not in kind.group and kind.custom is None:
        pass
    check(kind, name, obj, None)
    if api.admission:
        await api.admission.validate(request, "CREATE", obj, None)
    if strategy.warn:
        request.warnings += strategy.warn(obj)
    if api.state.latest(kind.table, namespace, name) is not None:
        raise status.already_exists(kind, name)
    api.prepare(kind, obj, None, request)
    obj = api.track(kind, None, obj, request, "")
    if request.dry_run:
        return obj
    return await api.state.write(kind.table, namespace, name, obj)


def check(kind: Kind, name: str, obj: JSON, old: JSON | None) -> None:
    """Validation of metadata and of the kind; raises 422."""
    causes = _metadata_causes(kind, obj["metadata"])
    if kind.strategy.validate:
        causes += kind.strategy.validate(obj, old)
    if causes:
        raise status.invalid(kind, name, causes)


def _metadata_causes(kind: Kind, meta: JSON) -> list[Cause]:
    name = meta.get("name") or ""
    if not name:
        return [
            Cause("metadata.name", "Required value: name or generateName is required", "FieldValueRequired")
        ]
    if kind.plural in _PATH_NAMED:
        valid = "/" not in name and "%" not in name and name not in (".", "..")
    elif kind.plural == "namespaces":
        valid = bool(_SUBDOMAIN.fullmatch(name)) and len(name) <= 63 and "." not in name
    else:
        valid = bool(_SUBDOMAIN.fullmatch(name)) and len(name) <= 253
    out = []
    if not valid:
        rule = (
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.',"
            " and must start and end with an alphanumeric character"
        )
        out.append(Cause("metadata.name", f'Invalid value: "{name}": {rule}'))
    for field in ("labels", "annotations"):
        for key, value in (meta.get(field) or {}).items():
            if not isinstance(value, str):
                out.append(Cause(f"metadata.{field}", f"Invalid value: {key}: must be a string"))
            elif field == "labels" and not re.fullmatch(
                r"(([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9])?", value
            ):
                text = "a valid label must be an empty string or consist of at most 63 alphanumeric characters, '-', '_' or '.'"
                out.append(Cause("metadata.labels", f'Invalid value: "{value}": {text}'))
    return out


def _typed(kind: Kind, obj: JSON) -> JSON:
    """`obj` with the kind and version of the URL; 400 when it says something else."""
    said = obj.get("apiVersion") or kind.api_version, obj.get("kind") or kind.kind
    if said != (kind.api_version, kind.kind):
        raise bad_request(
            f"the object's apiVersion and kind ({said[0]}, {said[1]}) do not match the URL's ({kind.api_version}, {kind.kind})"
        )
    if not isinstance(obj.get("metadata") or {}, dict):
        raise bad_request("metadata must be an object")
    typed = {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        **obj,
        "metadata": dict(obj.get("metadata") or {}),
    }
    if kind.table == "/events" and kind.group:
        typed = present.convert(typed, kind) | {}
    return typed


def _place(request: Request, meta: JSON) -> None:
    """Name and namespace of URL and object agree; the URL fills in what the object leaves out."""
    info = request.info
    if not request.kind.namespaced:
        meta.pop("namespace", None)
    elif not meta.get("namespace"):
        meta["namespace"] = info.namespace
    elif info.namespace and meta["namespace"] != info.namespace:
        raise bad_request(
            f"the namespace of the provided object does not match the namespace sent on the request ({meta['namespace']!r}"
            f" is not {info.namespace!r})"
        )
    if request.kind.namespaced and not meta.get("namespace"):
        raise bad_request("an object of a namespaced kind needs a namespace")
    if info.name and not meta.get("name"):
        meta["name"] = info.name
    elif info.name and meta["name"] != info.name:
        raise bad_request(
            f"the name of the object ({meta['name']}) does not match the name on the URL ({info.name})"
        )


def _namespace_open(api: Api, request: Request, namespace: str) -> None:
    """404 when the namespace does not exist, 403 while it is terminating."""
    if not request.kind.namespaced:
        return
    entry = api.state.latest("/namespaces", "", namespace)
    if entry is None:
        raise StatusError(
            404, f'namespaces "{namespace}" not found', details={"name": namespace, "kind": "namespaces"}
        )
    found = present._decode(entry.value)
    if found["metadata"].get("deletionTimestamp"):
        why = f"unable to create new content in namespace {namespace} because it is being terminated"
        error = status.forbidden(request.kind, "", why)
        error.details = (error.details or {}) | {
            "causes": [{"reason": "NamespaceTerminating", "message": why}]
        }
        raise error


# update


async def update(api: Api, request: Request, obj: JSON) -> JSON:
    """Replace an object (or its status). A resourceVersion in the object makes it conditional."""
    obj = _typed(request.kind, obj)
    _place(request, obj["metadata"])
    return await modify(api, request, lambda _old: copy.deepcopy(obj))


async def modify(api: Api, request: Request, change: Change, *, manager_done: bool = False) -> JSON:
    """Replace the latest object by `change(object)`, again and again until nobody else came first."""
    kind, info = request.kind, request.info
    for _ in range(_TRIES):
        entry = api.state.latest(kind.table, info.namespace, info.name)
        if entry is None:
            raise status.not_found(kind, info.name)
        old = present.decoded(entry.value, kind)
        new = change(copy.deepcopy(old))
        asked = new.get("metadata", {}).get("resourceVersion")
        if asked and asked != str(entry.rev):
            raise status.conflict(kind, info.name, status.MODIFIED)
        uid = new["metadata"].get("uid")
        if uid and uid != old["metadata"]["uid"]:
            why = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {old['metadata']['uid']}"
            raise status.conflict(kind, info.name, why)
        new = _merge_meta(kind, new, old, info.subresource)
        new = await _checked(api, request, new, old)
        latest = api.state.latest(kind.table, info.namespace, info.name)
        if latest is None or latest.rev != entry.rev:
            if asked and asked == str(entry.rev) and request.info.verb == "update":
                raise status.conflict(kind, info.name, status.MODIFIED)
            continue
        return await _store(api, request, entry, new, old, manager_done)
    raise status.conflict(kind, info.name, status.MODIFIED)


def _merge_meta(kind: Kind, new: JSON, old: JSON, subresource: str) -> JSON:
    """What no caller may change is taken from `old`; a subresource changes only its part."""
    if subresource == "status":
        kept = {k: v for k, v in old.items() if k not in ("status", "metadata")}
        out = kept | ({"status": new["status"]} if "status" in new else {})
        out["metadata"] = dict(old["metadata"])
        if "managedFields" in new["metadata"]:
            out["metadata"]["managedFields"] = new["metadata"]["managedFields"]
        for field in ("labels", "annotations", "finalizers", "ownerReferences"):
            if (
                kind.plural in ("nodes", "pods")
                and field in ("labels", "annotations")
                and field in new["metadata"]
            ):
                out["metadata"][field] = new["metadata"][field]
        return out
    meta, before = new["metadata"], old["metadata"]
    for field in (
        "uid",
        "creationTimestamp",
        "generation",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "resourceVersion",
    ):
        if field in before:
            meta[field] = before[field]
        else:
            meta.pop(field, None)
    meta["name"] = before["name"]
    if kind.status:
        new.pop("status", None)
        if "status" in old:
            new["status"] = old["status"]
    return new


async def _checked(api: Api, request: Request, new: JSON, old: JSON) -> JSON:
    kind, strategy = request.kind, request.kind.strategy
    whole = request.info.subresource == ""
    if whole:
        if strategy.default:
            strategy.default(new)
        if strategy.update:
            strategy.update(new, old)
    if api.admission:
        new = await api.admission.mutate(request, "UPDATE", new, old) or new
    if whole:
        check(kind, request.info.name, new, old)
        if strategy.warn and new.get("spec") != old.get("spec"):
            request.warnings += strategy.warn(new)
    if api.admission:
        await api.admission.validate(request, "UPDATE", new, old)
    return new


def _same(a: JSON, b: JSON) -> bool:
    def bare(obj: JSON) -> JSON:
        hidden = ("managedFields", "resourceVersion")
        return {
            **obj,
            "metadata": {
                k: v for k, v in obj["metadata"].items() if k not in hidden and v not in ({}, [], None)
            },
        }

    return bare(a) == bare(b)


async def _store(api: Api, request: Request, entry: Entry, new: JSON, old: JSON, manager_done: bool) -> JSON:
    kind = request.kind
    if kind.generation and request.info.subresource == "" and _spec_of(new) != _spec_of(old):
        new["metadata"]["generation"] = int(old["metadata"].get("generation", 0)) + 1
    api.prepare(kind, new, old, request)
    if not manager_done:
        new = api.track(kind, old, new, request, request.info.subresource)
    same = _same(new, old)
    if same and new["metadata"].get("managedFields") == old["metadata"].get("managedFields"):
        return old
    if same and not manager_done:
        return old
    if request.dry_run:
        return new
    if finished(kind, new):
        return await api.state.write(kind.table, entry.namespace, entry.name, None, last=new)
    return await api.state.write(kind.table, entry.namespace, entry.name, new)


def _spec_of(obj: JSON) -> JSON:
    return {k: v for k, v in obj.items() if k not in ("metadata", "status", "kind", "apiVersion")}


def finished(kind: Kind, obj: JSON) -> bool:
    """Whether an object that is being deleted has nothing left to wait for."""
    meta = obj["metadata"]
    if not meta.get("deletionTimestamp") or meta.get("finalizers"):
        return False
    if kind.table == "/namespaces":
        return not (obj.get("spec") or {}).get("finalizers")
    return not meta.get("deletionGracePeriodSeconds")


# delete


async def delete(api: Api, request: Request, options: JSON) -> tuple[JSON, bool]:
    """The Status of a finished deletion, or the object that waits; the second value says whether it is gone."""
    kind, info = request.kind, request.info
    for _ in range(_TRIES):
        entry = api.state.latest(kind.table, info.namespace, info.name)
        if entry is None:
            raise status.not_found(kind, info.name)
        old = present.decoded(entry.value, kind)
        _preconditions(kind, info.name, old, options.get("preconditions") or {})
        if kind.table == "/namespaces" and info.name in RESERVED_NAMESPACES:
            raise status.forbidden(kind, info.name, "this namespace may not be deleted")
        if api.admission:
            await api.admission.validate(request, "DELETE", None, old)
        latest = api.state.latest(kind.table, info.namespace, info.name)
        if latest is None or latest.rev != entry.rev:
            continue
        new, waits = marked(kind, old, options)
        done = status.success(kind, info.name, old["metadata"]["uid"])
        if request.dry_run:
            return (new, False) if waits else (done, True)
        if waits:
            if new == old:
                return old, False
            return await api.state.write(kind.table, entry.namespace, entry.name, new), False
        await api.state.write(kind.table, entry.namespace, entry.name, None, last=new)
        return done, True
    raise status.conflict(kind, info.name, status.MODIFIED)


def _preconditions(kind: Kind, name: str, old: JSON, wanted: JSON) -> None:
    for field, label in (("uid", "UID"), ("resourceVersion", "ResourceVersion")):
        asked, found = wanted.get(field), old["metadata"].get(field)
        if asked and asked != found:
            why = f"Precondition failed: {label} in precondition: {asked}, {label} in object meta: {found}"
            raise status.conflict(kind, name, why)


def marked(kind: Kind, old: JSON, options: JSON) -> tuple[JSON, bool]:
    """The object as a deletion leaves it, and whether something (grace, finalizers) still has to happen. Pure."""
    new: JSON = {**old, "metadata": dict(old["metadata"])}
    meta = new["metadata"]
    finalizers = list(meta.get("finalizers") or [])
    policy = options.get("propagationPolicy")
    if options.get("orphanDependents") is not None and policy is None:
        policy = "Orphan" if options["orphanDependents"] else "Background"
    for name, wanted in (("orphan", policy == "Orphan"), ("foregroundDeletion", policy == "Foreground")):
        if wanted and name not in finalizers:
            finalizers.append(name)
        elif policy and not wanted and name in finalizers:
            finalizers.remove(name)
    if finalizers:
        meta["finalizers"] = finalizers
    else:
        meta.pop("finalizers", None)
    grace = _grace(kind, old, options)
    if "deletionTimestamp" not in meta:
        when = datetime.now(UTC) + timedelta(seconds=grace)
        meta["deletionTimestamp"] = when.strftime("%Y-%m-%dT%H:%M:%SZ")
        meta["deletionGracePeriodSeconds"] = grace
        if kind.generation:
            meta["generation"] = int(meta.get("generation", 0)) + 1
    elif grace < int(meta.get("deletionGracePeriodSeconds") or 0):
        when = datetime.now(UTC) + timedelta(seconds=grace)
        meta["deletionTimestamp"] = when.strftime("%Y-%m-%dT%H:%M:%SZ")
        meta["deletionGracePeriodSeconds"] = grace
    if kind.table == "/namespaces":
        new["status"] = {**(new.get("status") or {}), "phase": "Terminating"}
    return new, not finished(kind, new)


def _grace(kind: Kind, obj: JSON, options: JSON) -> int:
    if kind.table != "/pods":
        return 0
    spec = obj["spec"]
    phase = (obj.get("status") or {}).get("phase")
    if not spec.get("nodeName") or phase in ("Succeeded", "Failed"):
        return 0
    asked = options.get("gracePeriodSeconds")
    if asked is None:
        asked = spec.get("terminationGracePeriodSeconds", 30)
    return max(int(asked), 0)


def options_of(body: Any) -> JSON:
    """DeleteOptions out of a decoded body; 400 when it is something else."""
    if not body:
        return {}
    if not isinstance(body, dict) or body.get("kind") not in (None, "DeleteOptions"):
        raise bad_request("the body of a DELETE must be DeleteOptions")
    return body
