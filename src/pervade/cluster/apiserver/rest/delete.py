"""delete and deletecollection: grace, finalizers and propagation, then gone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from pervade.cluster.apiserver.kinds.kind import JSON, Kind
from pervade.cluster.apiserver.rest import codec, present, read, status, write
from pervade.cluster.apiserver.rest.context import RESERVED_NAMESPACES, Api, Request
from pervade.cluster.apiserver.rest.status import StatusError, bad_request

_TRIES = 20
_POLICIES = ("Orphan", "Background", "Foreground")


async def delete(api: Api, request: Request, options: JSON) -> tuple[JSON, bool]:
    """The Status of a finished deletion, or the object that waits; the second value says whether it is gone."""
    kind, info = request.kind, request.info
    for _ in range(_TRIES):
        entry = api.state.latest(kind.table, info.namespace, info.name)
        if entry is None:
            raise status.not_found(kind, info.name)
        old = present.parse(entry.value)
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
            return (present.shown(new, kind), False) if waits else (done, True)
        if waits:
            if new == old:
                return present.shown(old, kind), False
            api.prepare(kind, new, old, request)
            made = await api.state.write(kind.table, entry.namespace, entry.name, new)
            return present.shown(made, kind), False
        await api.state.write(kind.table, entry.namespace, entry.name, None, last=new)
        api.settled(kind, old, None)
        # The answer to a pod that went at once is the pod, as upstream.
        return (present.shown(new, kind), True) if kind.table == "/pods" else (done, True)
    raise status.conflict(kind, info.name, status.MODIFIED)


async def collection(api: Api, request: Request, options: JSON) -> JSON:
    """Delete everything the selectors choose; the list of what was there. O(objects)."""
    found = await read.page(api, request)
    items: list[Any] = []
    for value in found.values:
        obj = present.parse(value)
        meta = obj["metadata"]
        place = {"name": meta["name"], "namespace": meta.get("namespace", ""), "verb": "delete"}
        info = msgspec.structs.replace(request.info, **place)
        one = Request(info, request.kind, request.query, request.user, user_agent=request.user_agent)
        try:
            await delete(api, one, options)
        except StatusError as error:
            if error.code != 404:
                raise
            continue
        items.append(obj)
    return present.listing(request.kind, items, str(found.version))


def _preconditions(kind: Kind, name: str, old: JSON, wanted: JSON) -> None:
    for field, label in (("uid", "UID"), ("resourceVersion", "ResourceVersion")):
        asked, found = wanted.get(field), old["metadata"].get(field)
        if asked and asked != found:
            why = f"Precondition failed: {label} in precondition: {asked}, {label} in object meta: {found}"
            raise status.conflict(kind, name, why)


def marked(kind: Kind, old: JSON, options: JSON) -> tuple[JSON, bool]:
    """The object as a deletion leaves it, and whether something (grace, finalizers) still has to happen. Pure."""
    meta = dict(old["metadata"])
    new: JSON = {**old, "metadata": meta}
    finalizers = list(meta.get("finalizers") or [])
    policy = options.get("propagationPolicy")
    if policy is None and options.get("orphanDependents") is not None:
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
    first = "deletionTimestamp" not in meta
    if first or grace < int(meta.get("deletionGracePeriodSeconds") or 0):
        begun = datetime.now(UTC)
        if not first:
            # A shorter grace counts from when the deletion began.
            before = datetime.strptime(meta["deletionTimestamp"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
            begun = before - timedelta(seconds=int(meta.get("deletionGracePeriodSeconds") or 0))
        meta["deletionTimestamp"] = (begun + timedelta(seconds=grace)).strftime("%Y-%m-%dT%H:%M:%SZ")
        meta["deletionGracePeriodSeconds"] = grace
        if first and kind.generation:
            meta["generation"] = int(meta.get("generation", 0)) + 1
    if kind.table == "/namespaces":
        new["status"] = {**(new.get("status") or {}), "phase": "Terminating"}
    return new, not write.finished(kind, new)


def _grace(kind: Kind, obj: JSON, options: JSON) -> int:
    """Seconds a pod on a node is given; everything else goes at once."""
    if kind.table != "/pods":
        return 0
    spec = obj.get("spec") or {}
    if not spec.get("nodeName") or (obj.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return 0
    asked = options.get("gracePeriodSeconds")
    if asked is None:
        asked = spec.get("terminationGracePeriodSeconds", 30)
    return max(int(asked), 0)


def options_of(request: Request) -> JSON:
    """DeleteOptions out of body and query; 400 or 422 when they are something else."""
    body = codec.read_object(request.body, request.content_type) if request.body else {}
    if body.get("kind") not in (None, "DeleteOptions"):
        raise bad_request("the body of a DELETE must be DeleteOptions")
    options = dict(body)
    query = request.query
    if "propagationPolicy" in query:
        options["propagationPolicy"] = query["propagationPolicy"]
    if "gracePeriodSeconds" in query:
        try:
            options["gracePeriodSeconds"] = int(query["gracePeriodSeconds"])
        except ValueError:
            raise bad_request("gracePeriodSeconds must be a number") from None
    grace = options.get("gracePeriodSeconds")
    if grace is not None and (not isinstance(grace, int) or isinstance(grace, bool)):
        raise bad_request("gracePeriodSeconds must be a number")
    policy = options.get("propagationPolicy")
    if policy is not None and policy not in _POLICIES:
        listed = ", ".join(f'"{p}"' for p in _POLICIES)
        raise StatusError(
            422,
            f'DeleteOptions.meta.k8s.io is invalid: propagationPolicy: Unsupported value: "{policy}": supported values: {listed}',
        )
    if policy is not None and options.get("orphanDependents") is not None:
        raise StatusError(
            422,
            "DeleteOptions.meta.k8s.io is invalid: orphanDependents and propagationPolicy cannot be both set",
        )
    if not isinstance(options.get("preconditions") or {}, dict):
        raise bad_request("preconditions must be an object")
    if "All" in (options.get("dryRun") or ()):
        request.force_dry_run = True
    return options
