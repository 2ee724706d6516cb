"""Objects as rows: meta.k8s.io/v1 Table, the columns by kind."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pervade.cluster.apiserver.kinds.kind import JSON, Kind
from pervade.cluster.apiserver.tables import core, custom, network, pods, policies, storage, workloads
from pervade.cluster.apiserver.tables.column import Printer

_PRINTERS: dict[str, Printer] = {
    "pods": pods.PODS,
    "nodes": core.NODES,
    "namespaces": core.NAMESPACES,
    "configmaps": core.CONFIGMAPS,
    "secrets": core.SECRETS,
    "serviceaccounts": core.ACCOUNTS,
    "events": core.EVENTS,
    "events.events.k8s.io": core.EVENTS,
    "persistentvolumes": storage.VOLUMES,
    "persistentvolumeclaims": storage.CLAIMS,
    "podtemplates": workloads.TEMPLATES,
    "services": network.SERVICES,
    "endpoints": network.ENDPOINTS,
    "endpointslices.discovery.k8s.io": network.SLICES,
    "ingresses.networking.k8s.io": network.INGRESSES,
    "ingressclasses.networking.k8s.io": network.INGRESS_CLASSES,
    "networkpolicies.networking.k8s.io": network.NETWORK_POLICIES,
    "deployments.apps": workloads.DEPLOYMENTS,
    "replicasets.apps": workloads.REPLICASETS,
    "daemonsets.apps": workloads.DAEMONSETS,
    "statefulsets.apps": workloads.STATEFULSETS,
    "controllerrevisions.apps": core.REVISIONS,
    "jobs.batch": workloads.JOBS,
    "cronjobs.batch": workloads.CRONJOBS,
    "leases.coordination.k8s.io": core.LEASES,
    "roles.rbac.authorization.k8s.io": core.CREATED,
    "clusterroles.rbac.authorization.k8s.io": core.CREATED,
    "rolebindings.rbac.authorization.k8s.io": core.BINDINGS,
    "clusterrolebindings.rbac.authorization.k8s.io": core.BINDINGS,
    "customresourcedefinitions.apiextensions.k8s.io": core.CREATED,
    "validatingwebhookconfigurations.admissionregistration.k8s.io": policies.WEBHOOKS,
    "mutatingwebhookconfigurations.admissionregistration.k8s.io": policies.WEBHOOKS,
    "validatingadmissionpolicies.admissionregistration.k8s.io": policies.ADMISSION_POLICIES,
    "validatingadmissionpolicybindings.admissionregistration.k8s.io": policies.ADMISSION_BINDINGS,
    "runtimeclasses.node.k8s.io": storage.RUNTIMES,
    "priorityclasses.scheduling.k8s.io": policies.PRIORITIES,
    "poddisruptionbudgets.policy": policies.BUDGETS,
    "horizontalpodautoscalers.autoscaling": policies.SCALERS,
    "storageclasses.storage.k8s.io": storage.CLASSES,
    "certificatesigningrequests.certificates.k8s.io": policies.REQUESTS,
}


def printer_for(kind: Kind) -> Printer:
    """A kind's columns; name and age for a kind without its own."""
    if kind.custom is not None and kind.custom.columns:
        return custom.printer_of(kind.custom.columns)
    return _PRINTERS.get(kind.group_resource, core.PLAIN)


def table(
    kind: Kind, objects: list[JSON], *, include_object: str = "Metadata", now: datetime | None = None
) -> JSON:
    """Rows of `objects`; each carries the object's metadata, the object or nothing. O(objects)."""
    at = now or datetime.now(UTC)
    form = printer_for(kind)
    rows = []
    for obj in objects:
        row: JSON = {"cells": form.cells(obj, at)}
        shown = _carried(obj, include_object)
        if shown is not None:
            row["object"] = shown
        rows.append(row)
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {},
        "columnDefinitions": [c.definition() for c in form.columns],
        "rows": rows,
    }


def _carried(obj: JSON, include: str) -> Any:
    if include == "Object":
        return obj
    if include == "None":
        return None
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]}
