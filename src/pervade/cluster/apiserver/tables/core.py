"""Rows of the kinds of a cluster itself: nodes, namespaces, configuration, accounts, events, rights."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from pervade.cluster.apiserver.kinds.kind import JSON
from pervade.cluster.apiserver.tables import human
from pervade.cluster.apiserver.tables.column import Printer, columns, printer

_ROLE = "node-role.kubernetes.io/"
_OLD_ROLE = "kubernetes.io/role"


def _age(obj: JSON, now: datetime) -> str:
    return human.age(obj["metadata"].get("creationTimestamp"), now)


def simple(names: tuple[str, ...], *cells: Callable[[JSON], Any], wide: tuple[str, ...] = ()) -> Printer:
    """Name, one cell a function, age (before the wide ones)."""
    ordinary = len(cells) - len(wide)

    def row(obj: JSON, now: datetime) -> list[Any]:
        found = [cell(obj) for cell in cells]
        return [obj["metadata"]["name"], *found[:ordinary], _age(obj, now), *found[ordinary:]]

    return printer(row, ("Name", *names, "Age"), wide)


def _node(obj: JSON, now: datetime) -> list[Any]:
    meta, spec, state = obj["metadata"], obj.get("spec") or {}, obj.get("status") or {}
    ready = {c.get("type"): c.get("status") for c in state.get("conditions") or ()}.get("Ready")
    words = ["Ready" if ready == "True" else "NotReady" if ready else "Unknown"]
    if spec.get("unschedulable"):
        words.append("SchedulingDisabled")
    labels = meta.get("labels") or {}
    roles = {k.removeprefix(_ROLE) for k in labels if k.startswith(_ROLE)} | {labels.get(_OLD_ROLE) or ""}
    info = state.get("nodeInfo") or {}

    def address(kind: str) -> str:
        found = [a.get("address") for a in state.get("addresses") or () if a.get("type") == kind]
        return str(found[0]) if found else "<none>"

    return [
        meta["name"],
        ",".join(words),
        human.listed(sorted(roles - {""})),
        _age(obj, now),
        info.get("kubeletVersion", ""),
        address("InternalIP"),
        address("ExternalIP"),
        info.get("osImage") or "<unknown>",
        info.get("kernelVersion") or "<unknown>",
        info.get("containerRuntimeVersion") or "<unknown>",
    ]


def _event(obj: JSON, now: datetime) -> list[Any]:
    about = obj.get("involvedObject") or obj.get("regarding") or {}
    series = obj.get("series") or {}
    first = obj.get("firstTimestamp") or obj.get("eventTime")
    last = (
        series.get("lastObservedTime")
        or obj.get("lastTimestamp")
        or obj.get("deprecatedLastTimestamp")
        or first
    )
    count = series.get("count") or obj.get("count") or obj.get("deprecatedCount") or 1
    source = obj.get("source") or obj.get("deprecatedSource") or {}
    since = human.age(first, now)
    seen = f"{human.age(last, now)} (x{count} over {since})" if count > 1 else human.age(last, now)
    kind = str(about.get("kind", "")).lower()
    component = (
        source.get("component") or obj.get("reportingComponent") or obj.get("reportingController") or ""
    )
    return [
        seen,
        obj.get("type", ""),
        obj.get("reason", ""),
        f"{kind}/{about.get('name', '')}",
        about.get("fieldPath", ""),
        ", ".join(part for part in (component, source.get("host", "")) if part),
        str(obj.get("message") or obj.get("note") or "").strip(),
        since,
        count,
        obj["metadata"]["name"],
    ]


def _subjects(obj: JSON, kind: str) -> str:
    found = [s for s in obj.get("subjects") or () if s.get("kind") == kind]
    if kind == "ServiceAccount":
        return ", ".join(f"{s.get('namespace', '')}/{s.get('name', '')}" for s in found)
    return ", ".join(str(s.get("name", "")) for s in found)


def _reference(obj: JSON) -> str:
    found = obj.get("roleRef") or {}
    return f"{found.get('kind', '')}/{found.get('name', '')}"


def _created(obj: JSON, _now: datetime) -> list[Any]:
    return [obj["metadata"]["name"], obj["metadata"].get("creationTimestamp", "")]


PLAIN = simple(())
NODES = printer(
    _node,
    ("Name", "Status", "Roles", "Age", "Version"),
    ("Internal-IP", "External-IP", "OS-Image", "Kernel-Version", "Container-Runtime"),
)
NAMESPACES = simple(("Status",), lambda o: (o.get("status") or {}).get("phase", ""))
CONFIGMAPS = simple(("#Data",), lambda o: len(o.get("data") or ()) + len(o.get("binaryData") or ()))
SECRETS = simple(("Type", "#Data"), lambda o: o.get("type", "Opaque"), lambda o: len(o.get("data") or ()))
ACCOUNTS = simple(("#Secrets",), lambda o: len(o.get("secrets") or ()))
EVENTS = Printer(
    (
        *columns(("Last Seen", "Type", "Reason", "Object")),
        *columns(("Subobject", "Source"), 1),
        *columns(("Message",)),
        *columns(("First Seen", "#Count", "Name"), 1),
    ),
    _event,
)
LEASES = simple(("Holder",), lambda o: (o.get("spec") or {}).get("holderIdentity") or "")
CREATED = printer(_created, ("Name", "Created At"))
BINDINGS = simple(
    ("Role",),
    _reference,
    lambda o: _subjects(o, "User"),
    lambda o: _subjects(o, "Group"),
    lambda o: _subjects(o, "ServiceAccount"),
    wide=("Users", "Groups", "ServiceAccounts"),
)
REVISIONS = simple(
    ("Controller", "#Revision"),
    lambda o: human.listed(
        f"{r.get('kind', '').lower()}.{r.get('apiVersion', '').partition('/')[0]}/{r.get('name')}"
        for r in o["metadata"].get("ownerReferences") or ()
    ),
    lambda o: o.get("revision", 0),
)
