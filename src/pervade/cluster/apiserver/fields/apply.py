"""Server-side apply, and the bookkeeping of every other write.

Source: Kubernetes, "Server-Side Apply". Cost: O(object) a write.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pervade.cluster.apiserver.fields import managers, sets, walk
from pervade.cluster.apiserver.fields.managers import APPLY, UPDATE, Entry, Manager, Managers
from pervade.cluster.apiserver.kinds.kind import JSON, Kind
from pervade.cluster.apiserver.rest import metadata, present, status, write
from pervade.cluster.apiserver.rest.context import Api, Request
from pervade.cluster.apiserver.rest.patching import APPLY as APPLY_MEDIA
from pervade.cluster.apiserver.rest.patching import media_type
from pervade.cluster.apiserver.rest.status import StatusError, bad_request
from pervade.cluster.apiserver.schema.tree import Node

TypeOf = Callable[[Kind], Node]
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_MOST_NOTED = 256 * 1024  # of all annotations together, as validation has it
# They change all the time and nobody applies them: keeping books over them would cost more than they do.
_UNTRACKED = frozenset({"/events", "coordination.k8s.io/leases"})


def tracker(type_of: TypeOf) -> Callable[[Kind, JSON | None, JSON, Request, str], JSON]:
    """The function that brings managedFields up to date when an object is created or changed."""

    def track(kind: Kind, old: JSON | None, new: JSON, request: Request, subresource: str) -> JSON:
        if kind.table in _UNTRACKED or media_type(request) == APPLY_MEDIA:
            return new
        given = new["metadata"].pop("managedFields", None)
        before = (old or {}).get("metadata", {}).get("managedFields")
        try:
            held = managers.decode(given if given is not None else before)
        except ValueError as error:
            if old is None or given != before:
                raise bad_request(f"metadata.managedFields: {error}") from None
            held = {}
        node = type_of(kind)
        found = walk.compare(node, _visible(old) if old else {}, _visible(new))
        who = Manager(request.field_manager, UPDATE, kind.api_version, subresource)
        changed, removed = managers.stripped(found.changed), managers.stripped(found.removed)
        rows = managers.encode(managers.updated(held, who, changed, removed, metadata.now()))
        if rows:
            new["metadata"]["managedFields"] = rows
        return new

    return track


def _visible(obj: JSON) -> JSON:
    if "managedFields" not in obj["metadata"]:
        return obj
    return {**obj, "metadata": {k: v for k, v in obj["metadata"].items() if k != "managedFields"}}


def applier(api: Callable[[], Api], type_of: TypeOf) -> Callable[[Request, JSON], Any]:
    """The verb: the object after the apply, and whether it was created."""

    async def apply(request: Request, obj: JSON) -> tuple[JSON, bool]:
        kind, info = request.kind, request.info
        manager = request.query.get("fieldManager")
        if not manager:
            raise _invalid("fieldManager: Required value: is required for apply patch")
        if len(manager) > 128 or not manager.isprintable():
            raise _invalid(
                f"fieldManager: Invalid value: {manager[:140]!r}: at most 128 printable characters"
            )
        config = metadata.typed(kind, obj)
        if config["metadata"].get("managedFields") is not None:
            raise bad_request("metadata.managedFields must be nil")
        metadata.place(kind, info.namespace, info.name, config["metadata"])
        api().fields(kind, config, request)
        config = _bare(config)
        if info.subresource == "status":
            config = {k: v for k, v in config.items() if k in ("apiVersion", "kind", "metadata", "status")}
            config["metadata"] = {
                k: v for k, v in config["metadata"].items() if k not in ("labels", "annotations")
            }
        elif kind.status:
            config.pop("status", None)
        node = type_of(kind)
        twice = walk.duplicates(node, config)
        if twice:
            text = "; ".join(f"duplicate entries for {sets.spelled(p)}" for p in twice[:5])
            raise bad_request(
                f"failed to create typed patch object ({info.name}; {kind.api_version}): {text}"
            )
        who = Manager(manager, APPLY, kind.api_version, info.subresource)
        fields = managers.stripped(walk.fields_of(node, config))
        if api().state.latest(kind.table, info.namespace, info.name) is None:
            if info.subresource:
                raise status.not_found(kind, info.name)
            if config["metadata"].get("uid"):
                why = f"uid mismatch: the provided object specified uid {config['metadata']['uid']}, and no existing object was found"
                raise status.conflict(kind, info.name, why)
            config["metadata"].pop("resourceVersion", None)
            first: Managers = {who: Entry(fields, metadata.now())}
            config["metadata"]["managedFields"] = managers.encode(first)
            return await write.create(api(), request, config), True
        sample = present.encode(config)
        force = request.query.get("force") in ("true", "1")

        def change(live: JSON) -> JSON:
            return merged(kind, node, live, present.parse(sample), who, force=force)

        return await write.modify(api(), request, change, manager_done=True), False

    return apply


def merged(kind: Kind, node: Node, live: JSON, config: JSON, who: Manager, *, force: bool) -> JSON:
    """`live` with `config` applied by `who`, managedFields included. 409 with the managers it conflicts with. Pure."""
    rows = live["metadata"].get("managedFields")
    try:
        held = managers.decode(rows)
    except ValueError:
        held = {}
    held = managers.as_one(held, who)
    live = _visible(live)
    if not rows:
        # Nobody kept books so far: what is there belongs to whoever wrote it before.
        before_us = Manager("before-first-apply", UPDATE, kind.api_version)
        held = {before_us: Entry(managers.stripped(walk.fields_of(node, live)), metadata.now())}
    fields = managers.stripped(walk.fields_of(node, config))
    new: JSON = walk.merge(node, live, config)
    before = held[who].fields if who in held else {}
    others = managers.owned(held, who)
    gone = sets.difference(before, fields)
    if gone:
        new = walk.without(node, new, gone, sets.union(others, fields))
    found = walk.compare(node, live, new)
    changed, removed = managers.stripped(found.changed), managers.stripped(found.removed)
    lost = sets.intersection(changed, fields)
    conflicts = [
        (other, both)
        for other, entry in held.items()
        if other != who and (both := sets.intersection(entry.fields, lost))
    ]
    if conflicts and not force and who.name == "kubectl":
        # Fields the same user applied by the client before are theirs already.
        mine = _applied_by_client(node, live)
        conflicts = [(other, left) for other, both in conflicts if (left := sets.difference(both, mine))]
    if conflicts and not force:
        raise _conflict(kind, str(live["metadata"].get("name", "")), conflicts)
    noted = _noted(new, config, who)
    if not changed and not removed and before == fields:
        return _with_rows(noted, rows)
    out: Managers = {}
    for other, entry in held.items():
        left = sets.difference(entry.fields, sets.union(lost, removed)) if other != who else {}
        if left:
            out[other] = Entry(left, entry.time)
    out[who] = Entry(fields, metadata.now())
    return _with_rows(noted, managers.encode(out))


def _with_rows(obj: JSON, rows: list[JSON] | None) -> JSON:
    return {**obj, "metadata": {**obj["metadata"], "managedFields": rows}} if rows else obj


def _noted(new: JSON, config: JSON, who: Manager) -> JSON:
    """`new` with what kubectl applied noted where its client-side apply looks for it, if that has been used before.

    Otherwise a later `kubectl apply` would compare with an old state. The note changes nobody's ownership.
    """
    notes = new["metadata"].get("annotations") or {}
    if who.name != "kubectl" or who.subresource or not notes.get(_LAST_APPLIED):
        return new
    meta = dict(config["metadata"])
    if own := {k: v for k, v in (meta.pop("annotations", None) or {}).items() if k != _LAST_APPLIED}:
        meta["annotations"] = own
    text = present.encode({**config, "metadata": meta}).decode()
    others = sum(len(k) + len(str(v)) for k, v in notes.items() if k != _LAST_APPLIED)
    if len(text.encode()) + others + len(_LAST_APPLIED) > _MOST_NOTED:
        text = ""
    return {**new, "metadata": {**new["metadata"], "annotations": {**notes, _LAST_APPLIED: text}}}


def _applied_by_client(node: Node, live: JSON) -> sets.FieldSet:
    """The fields in the annotation that `kubectl apply` leaves when it merges on its own side."""
    text = (live["metadata"].get("annotations") or {}).get(_LAST_APPLIED)
    try:
        found = present.parse(text.encode()) if isinstance(text, str) else None
    except ValueError:
        return {}
    return managers.stripped(walk.fields_of(node, found)) if isinstance(found, dict) else {}


def _bare(config: JSON) -> JSON:
    """Without nulls: an apply says what shall be, never what shall not."""

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: clean(v) for k, v in value.items() if v is not None}
        return [clean(v) for v in value] if isinstance(value, list) else value

    found: JSON = clean(config)
    return found


def _invalid(text: str) -> StatusError:
    cause = {
        "reason": "FieldValueRequired",
        "message": text.partition(": ")[2],
        "field": text.partition(":")[0],
    }
    details = {"group": "meta.k8s.io", "kind": "PatchOptions", "causes": [cause]}
    return StatusError(422, f'PatchOptions.meta.k8s.io "" is invalid: {text}', details=details)


def _conflict(kind: Kind, name: str, conflicts: list[tuple[Manager, sets.FieldSet]]) -> StatusError:
    causes: list[JSON] = []
    lines: list[tuple[str, list[str]]] = []
    for who, both in conflicts:
        by = f'"{who.name}"' + (f' with subresource "{who.subresource}"' if who.subresource else "")
        if who.operation == UPDATE:
            by += f" using {who.version}"
        spelled = [sets.spelled(p) for p in sets.paths(both)]
        causes += [
            {"reason": "FieldManagerConflict", "message": f"conflict with {by}", "field": path}
            for path in spelled
        ]
        lines.append((by, spelled))
    count = len(causes)
    if count == 1:
        text = f"Apply failed with 1 conflict: conflict with {lines[0][0]}: {lines[0][1][0]}"
    else:
        said = (
            "\n".join([f"conflicts with {by}:", *(f"- {p}" for p in found)]) for by, found in sorted(lines)
        )
        text = f"Apply failed with {count} conflicts: " + "\n".join(said)
    details = {"name": name, "group": kind.group, "kind": kind.plural, "causes": causes}
    return StatusError(409, text, details=details)
