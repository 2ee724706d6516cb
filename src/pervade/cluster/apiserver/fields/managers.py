"""managedFields: one entry for each manager, operation, version and subresource."""

from __future__ import annotations

from typing import Any

import msgspec

from pervade.cluster.apiserver.fields import sets
from pervade.cluster.apiserver.fields.sets import SELF, FieldSet
from pervade.cluster.apiserver.kinds.kind import JSON

APPLY, UPDATE = "Apply", "Update"
_MOST_UPDATES = 10
_ANCIENT = "ancient-changes"
# Nobody manages what says which object this is, and what the server alone writes.
_NEVER_META = ("name", "namespace", "creationTimestamp", "selfLink", "uid", "generation", "managedFields", "resourceVersion")  # fmt: skip


class Manager(msgspec.Struct, frozen=True):
    """The identity of an entry."""

    name: str
    operation: str
    version: str
    subresource: str = ""


class Entry(msgspec.Struct):
    """What a manager owns, and since when."""

    fields: FieldSet
    time: str = ""


Managers = dict[Manager, Entry]


def decode(rows: Any) -> Managers:
    """Entries of an object; ValueError for what is no list of entries."""
    out: Managers = {}
    for row in rows or ():
        if not isinstance(row, dict):
            raise ValueError("an entry of managedFields must be an object")
        if not row:
            continue
        operation = row.get("operation")
        if operation not in (APPLY, UPDATE):
            raise ValueError(f"operation of a managedFields entry must be Apply or Update, not {operation!r}")
        if row.get("fieldsType", "FieldsV1") != "FieldsV1":
            raise ValueError("fieldsType of a managedFields entry must be FieldsV1")
        who = Manager(
            str(row.get("manager") or ""),
            operation,
            str(row.get("apiVersion") or ""),
            str(row.get("subresource") or ""),
        )
        out[who] = Entry(sets.decode(row.get("fieldsV1") or {}), str(row.get("time") or ""))
    return out


def encode(held: Managers) -> list[JSON]:
    """Entries with fields, those that applied first, then by time and name."""
    rows = []
    order = sorted(
        held.items(), key=lambda one: (one[0].operation, one[1].time, one[0].name, one[0].subresource)
    )
    for who, entry in order:
        if not entry.fields:
            continue
        row: JSON = {
            "manager": who.name,
            "operation": who.operation,
            "apiVersion": who.version,
            "time": entry.time,
            "fieldsType": "FieldsV1",
            "fieldsV1": sets.encode(entry.fields),
        }
        if who.subresource:
            row["subresource"] = who.subresource
        rows.append(row)
    return rows


def stripped(fields: FieldSet) -> FieldSet:
    """Without the fields that nobody manages."""
    out = {k: v for k, v in fields.items() if k not in ("f:apiVersion", "f:kind", "f:metadata", SELF)}
    meta = {
        k: v
        for k, v in fields.get("f:metadata", {}).items()
        if k != SELF and k.removeprefix("f:") not in _NEVER_META
    }
    if meta:
        out["f:metadata"] = meta
    return out


def as_one(held: Managers, who: Manager) -> Managers:
    """`held` with the entries of the applier `who` under that one identity: its API version is no part of it."""
    out: Managers = {}
    for other, entry in held.items():
        same = who.operation == other.operation == APPLY
        same = same and (who.name, who.subresource) == (other.name, other.subresource)
        key = who if same else other
        have = out.get(key)
        if have is not None:
            entry = Entry(sets.union(have.fields, entry.fields), max(have.time, entry.time))
        out[key] = entry
    return out


def owned(held: Managers, but: Manager | None = None) -> FieldSet:
    """What all managers own together, one left out."""
    out: FieldSet = {}
    for who, entry in held.items():
        if who != but:
            out = sets.union(out, entry.fields)
    return out


def updated(held: Managers, who: Manager, changed: FieldSet, removed: FieldSet, now: str) -> Managers:
    """After a plain write: the writer owns what it changed, nobody owns what is gone."""
    out: Managers = {}
    lost = sets.union(changed, removed)
    for other, entry in held.items():
        if other == who:
            continue
        left = sets.difference(entry.fields, lost)
        if left:
            out[other] = entry if left == entry.fields else Entry(left, entry.time)
    mine = held.get(who)
    fields = sets.difference(sets.union(mine.fields if mine else {}, changed), removed)
    if fields:
        out[who] = mine if mine is not None and mine.fields == fields and not changed else Entry(fields, now)
    return _bounded(out)


def _bounded(held: Managers) -> Managers:
    """Entries of writers beyond ten become one: the oldest lose their names, never their fields."""
    updates = sorted((w for w in held if w.operation == UPDATE), key=lambda w: held[w].time)
    extra = updates[: max(0, len(updates) - _MOST_UPDATES)]
    for who in extra:
        old = Manager(_ANCIENT, UPDATE, who.version)
        entry = held.pop(who)
        have = held.get(old)
        held[old] = Entry(sets.union(have.fields if have else {}, entry.fields), entry.time)
    return held
