"""Discovery: plain lists and the aggregated form. Pure; O(kinds)."""

from __future__ import annotations

from pervade.cluster.apiserver.kinds.kind import JSON, Kind
from pervade.cluster.apiserver.kinds.registry import Registry

AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


def _status_verbs() -> list[str]:
    return ["get", "patch", "update"]


def _subresources(kind: Kind) -> list[tuple[str, str, str, str, list[str]]]:
    """(name, group, version, kind, verbs) of each subresource; group and version "" = the kind's own."""
    out = []
    for name, target, verbs in kind.subresources:
        api, _, short = target.rpartition(".")
        group, _, version = api.rpartition("/")
        out.append((name, group, version, short or target, list(verbs)))
    if kind.scale:
        out.append(("scale", "autoscaling", "v1", "Scale", _status_verbs()))
    if kind.status:
        out.append(("status", "", "", kind.kind, _status_verbs()))
    return sorted(out)


def api_versions(address: str) -> JSON:
    return {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    }


def group_list(registry: Registry) -> JSON:
    return {
        "kind": "APIGroupList",
        "apiVersion": "v1",
        "groups": [group(registry, g) for g in registry.groups()],
    }


def group(registry: Registry, name: str) -> JSON:
    versions = [{"groupVersion": f"{name}/{v}", "version": v} for v in registry.versions(name)]
    return {
        "kind": "APIGroup",
        "apiVersion": "v1",
        "name": name,
        "versions": versions,
        "preferredVersion": versions[0],
    }


def resource_list(registry: Registry, group: str, version: str) -> JSON | None:
    """APIResourceList of one group and version; None when it is not served."""
    resources: list[JSON] = []
    for kind in registry:
        if (kind.group, kind.version) != (group, version):
            continue
        row: JSON = {
            "name": kind.plural,
            "singularName": kind.name_singular,
            "namespaced": kind.namespaced,
            "kind": kind.kind,
            "verbs": list(kind.verbs),
        }
        if kind.short:
            row["shortNames"] = list(kind.short)
        if kind.categories:
            row["categories"] = list(kind.categories)
        resources.append(row)
        for name, sub_group, sub_version, sub_kind, verbs in _subresources(kind):
            sub: JSON = {
                "name": f"{kind.plural}/{name}",
                "singularName": "",
                "namespaced": kind.namespaced,
                "kind": sub_kind,
            }
            if sub_group:
                sub |= {"group": sub_group, "version": sub_version}
            resources.append(sub | {"verbs": verbs})
    if not resources:
        return None
    name = f"{group}/{version}" if group else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": name, "resources": resources}


def aggregated(registry: Registry, *, core: bool) -> JSON:
    """APIGroupDiscoveryList (v2) of the core group or of all named groups."""
    items = []
    for name in [""] if core else registry.groups():
        versions = []
        for version in registry.versions(name):
            found = [k for k in registry if (k.group, k.version) == (name, version)]
            versions.append(
                {"version": version, "resources": [_aggregated(k) for k in found], "freshness": "Current"}
            )
        items.append(
            {"metadata": {"name": name} if name else {"creationTimestamp": None}, "versions": versions}
        )
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": items,
    }


def _aggregated(kind: Kind) -> JSON:
    row: JSON = {
        "resource": kind.plural,
        "responseKind": {"group": kind.group, "version": kind.version, "kind": kind.kind},
        "scope": "Namespaced" if kind.namespaced else "Cluster",
        "singularResource": kind.name_singular,
        "verbs": list(kind.verbs),
    }
    if kind.short:
        row["shortNames"] = list(kind.short)
    if kind.categories:
        row["categories"] = list(kind.categories)
    subs = [
        {
            "subresource": name,
            "responseKind": {
                "group": group or ("" if version else kind.group),
                "version": version or kind.version,
                "kind": sub,
            },
            "verbs": verbs,
        }
        for name, group, version, sub, verbs in _subresources(kind)
    ]
    if subs:
        row["subresources"] = subs
    return row
