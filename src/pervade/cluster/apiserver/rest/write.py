"""create and update of objects, their status and their other parts: one way through for every write.

Each write starts from the latest version (also one in flight) and ends with `State.write` without an
await in between; when another write came first, an unconditional one starts over and a conditional one
is refused with 409.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator

from pervade.cluster.apiserver.kinds.kind import JSON, Kind
from pervade.cluster.apiserver.rest import metadata, present, status
from pervade.cluster.apiserver.rest.context import Api, Request
from pervade.cluster.apiserver.rest.metadata import now
from pervade.cluster.apiserver.rest.status import StatusError, bad_request
from pervade.cluster.apiserver.store.log import Entry

__all__ = ["create", "finished", "modify", "now", "update"]
log = logging.getLogger(__name__)
_TRIES = 20
Change = Callable[[JSON], JSON]
_STATUS_META = ("labels", "annotations", "finalizers", "ownerReferences")


async def create(api: Api, request: Request, obj: JSON) -> JSON:
    """The object as stored. 409 AlreadyExists, 404/403 for the namespace, 422 with causes."""
    kind = request.kind
    obj = metadata.typed(kind, obj)
    metadata.place(kind, request.info.namespace, request.info.name, obj["metadata"])
    api.fields(kind, obj, request)
    prefix = obj["metadata"].get("generateName")
    if obj["metadata"].get("name") or not isinstance(prefix, str) or not prefix:
        return await _create(api, request, obj)
    sample = present.encode(obj)
    for _ in range(_TRIES):
        attempt = present.parse(sample)
        attempt["metadata"]["name"] = metadata.generated(prefix)
        try:
            return await _create(api, request, attempt)
        except StatusError as error:
            if error.reason != "AlreadyExists":
                raise
    raise status.already_exists(kind, prefix)


async def _create(api: Api, request: Request, obj: JSON) -> JSON:
    kind, meta = request.kind, obj["metadata"]
    name, namespace = meta.get("name", ""), meta.get("namespace", "")
    if kind.custom is not None and kind.custom.terminating:
        raise StatusError(
            405,
            f"create not allowed while custom resource definition {kind.custom.definition} is terminating",
        )
    _namespace_open(api, kind, namespace)
    metadata.begin(kind, meta)
    with _readable(kind):
        obj = present.stored(obj, kind)
    managed = obj["metadata"].pop("managedFields", None)
    with _readable(kind):
        api.complete(kind, obj, None, request)
        if kind.strategy.create:
            kind.strategy.create(obj)
        elif kind.status:
            obj.pop("status", None)
    if api.admission:
        obj = await api.admission.mutate(request, "CREATE", obj, None) or obj
        api.complete(kind, obj, None, request)
    with _readable(kind):
        _check(api, request, name, obj, None)
    if api.admission:
        await api.admission.validate(request, "CREATE", obj, None)
    if kind.strategy.warn:
        request.warnings += kind.strategy.warn(obj)
    if api.state.latest(kind.table, namespace, name) is not None:
        raise status.already_exists(kind, name)
    if managed:
        obj["metadata"]["managedFields"] = managed
    with _readable(kind):
        undo = api.prepare(kind, obj, None, request)
    try:
        obj = api.track(kind, None, obj, request, "")
        if not request.dry_run:
            done = await api.state.write(kind.table, namespace, name, obj)
            undo = None
            return present.shown(done, kind)
    finally:
        if undo is not None:
            undo()
    return present.shown(obj, kind)


@contextlib.contextmanager
def _readable(kind: Kind) -> Iterator[None]:
    """Second line behind the check of types: a value that the kind's functions cannot read is the caller's."""
    try:
        yield
    except (TypeError, AttributeError, KeyError, IndexError, ValueError) as error:
        log.warning("an object could not be read", extra={"kind": kind.kind}, exc_info=True)
        text = f"{kind.kind} in version {kind.version!r} cannot be handled as a {kind.kind}: a field has the wrong type"
        raise bad_request(text) from error


def _namespace_open(api: Api, kind: Kind, namespace: str) -> None:
    """404 when the namespace does not exist, 403 while it is terminating."""
    if not kind.namespaced:
        return
    entry = api.state.latest("/namespaces", "", namespace)
    if entry is None:
        details = {"name": namespace, "kind": "namespaces"}
        raise StatusError(404, f'namespaces "{namespace}" not found', details=details)
    if b'"deletionTimestamp"' not in entry.value:
        return
    if present.parse(entry.value)["metadata"].get("deletionTimestamp"):
        why = f"unable to create new content in namespace {namespace} because it is being terminated"
        error = status.forbidden(kind, "", why)
        cause = {
            "reason": "NamespaceTerminating",
            "message": f"namespace {namespace} is being terminated",
            "field": "metadata.namespace",
        }
        error.details = (error.details or {}) | {"causes": [cause]}
        raise error


def _check(api: Api, request: Request, name: str, obj: JSON, old: JSON | None) -> None:
    """Validation of metadata and of the kind; raises 422."""
    kind = request.kind
    causes = metadata.causes(kind, obj["metadata"], old["metadata"] if old else None)
    if not causes:
        causes = api.validate(kind, obj, old, request.info.subresource)
    if causes:
        raise status.invalid(kind, name, causes)


async def update(api: Api, request: Request, obj: JSON) -> JSON:
    """Replace an object (or its status). A resourceVersion in the object makes it conditional."""
    obj = metadata.typed(request.kind, obj)
    metadata.place(request.kind, request.info.namespace, request.info.name, obj["metadata"])
    api.fields(request.kind, obj, request)
    body = present.encode(obj)
    return await modify(api, request, lambda _old: present.parse(body))


async def modify(
    api: Api, request: Request, change: Change, *, part: str | None = None, manager_done: bool = False
) -> JSON:
    """Replace the latest object by `change(object)`, again until nobody else came first.

    `part` says what may change: "" all but status, "status" only that, "whole" both (an action of the
    server's own, such as a binding); by default the request's subresource. The object is in its stored
    version inside, the answer in the request's.
    """
    kind, info = request.kind, request.info
    scope = info.subresource if part is None else part
    for _ in range(_TRIES):
        entry = api.state.latest(kind.table, info.namespace, info.name)
        if entry is None:
            raise status.not_found(kind, info.name)
        old = present.parse(entry.value)
        new = present.stored(change(present.decoded(entry.value, kind)), kind)
        asked = new.get("metadata") or {}
        metadata.precondition(kind, info.name, asked, old["metadata"])
        new = _merged(kind, new, old, scope)
        new = await _admitted(api, request, new, old, scope)
        latest = api.state.latest(kind.table, info.namespace, info.name)
        if latest is not None and latest.rev == entry.rev:
            stored = await _store(api, request, entry, new, old, scope, manager_done)
            return present.shown(stored, kind)
        if request.info.verb == "update" and asked.get("resourceVersion"):
            raise status.conflict(kind, info.name, status.MODIFIED)
    raise status.conflict(kind, info.name, status.MODIFIED)


def _merged(kind: Kind, new: JSON, old: JSON, scope: str) -> JSON:
    """`new` limited to what its subresource may change."""
    before = old["metadata"]
    if scope == "status":
        meta = dict(before)
        asked = new.get("metadata") or {}
        for field in (*_STATUS_META, "managedFields") if kind.custom is None else ("managedFields",):
            if field in asked:
                meta[field] = asked[field]
        out = {k: v for k, v in old.items() if k not in ("status", "metadata")}
        if "status" in new:
            out["status"] = new["status"]
        metadata.carry(meta, before)
        return {**out, "metadata": meta}
    meta = dict(new.get("metadata") or {})
    metadata.carry(meta, before)
    meta["name"] = before["name"]
    if "namespace" in before:
        meta["namespace"] = before["namespace"]
    meta["resourceVersion"] = before["resourceVersion"]
    out = {**new, "metadata": meta, "apiVersion": old["apiVersion"], "kind": old["kind"]}
    if kind.status and scope != "whole":
        out.pop("status", None)
        if "status" in old:
            out["status"] = old["status"]
    return out


async def _admitted(api: Api, request: Request, new: JSON, old: JSON, scope: str) -> JSON:
    kind = request.kind
    managed = new["metadata"].pop("managedFields", None)
    with _readable(kind):
        api.complete(kind, new, old, request)
        if kind.strategy.update and scope == "":
            kind.strategy.update(new, old)
    if api.admission:
        new = await api.admission.mutate(request, "UPDATE", new, old) or new
    with _readable(kind):
        _check(api, request, request.info.name, new, old)
    if kind.strategy.warn and scope == "" and new.get("spec") != old.get("spec"):
        request.warnings += kind.strategy.warn(new)
    if api.admission:
        await api.admission.validate(request, "UPDATE", new, old)
    if managed is not None:
        new["metadata"]["managedFields"] = managed
    return new


def same(a: JSON, b: JSON) -> bool:
    """Whether two versions differ in nothing a caller could see."""
    if any(a.get(k) != b.get(k) for k in {*a, *b} if k != "metadata"):
        return False
    hidden = ("managedFields", "resourceVersion")
    x, y = ({k: v for k, v in o["metadata"].items() if k not in hidden} for o in (a, b))
    return x == y


async def _store(
    api: Api, request: Request, entry: Entry, new: JSON, old: JSON, scope: str, manager_done: bool
) -> JSON:
    kind = request.kind
    if kind.generation and scope != "status" and _wanted(new) != _wanted(old):
        new["metadata"]["generation"] = int(old["metadata"].get("generation", 0)) + 1
    with _readable(kind):
        undo = api.prepare(kind, new, old, request)
    try:
        managed = old["metadata"].get("managedFields")
        if same(new, old) and (not manager_done or new["metadata"].get("managedFields") == managed):
            given = new["metadata"].get("managedFields")
            if manager_done or not given or given == managed:
                return old
        if not manager_done:
            # None given, or an empty list: what was there. Only a list with one empty entry resets it.
            if not new["metadata"].get("managedFields") and managed is not None:
                new["metadata"]["managedFields"] = managed
            new = api.track(kind, old, new, request, scope if scope != "whole" else request.info.subresource)
        if request.dry_run:
            return new
        gone = finished(kind, new)
        done = await api.state.write(kind.table, entry.namespace, entry.name, None if gone else new, last=new)
        undo = None
        api.settled(kind, old, None if gone else done)
        return done
    finally:
        if undo is not None:
            undo()


def _wanted(obj: JSON) -> JSON:
    """What `metadata.generation` counts changes of."""
    return {k: v for k, v in obj.items() if k not in ("metadata", "status", "kind", "apiVersion")}


def finished(kind: Kind, obj: JSON) -> bool:
    """Whether an object that is being deleted has nothing left to wait for."""
    meta = obj["metadata"]
    if not meta.get("deletionTimestamp") or meta.get("finalizers"):
        return False
    if kind.table == "/namespaces":
        return not (obj.get("spec") or {}).get("finalizers")
    return not meta.get("deletionGracePeriodSeconds")
