"""What a request asks for: verb, resource, namespace, name and subresource out of method and path. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

_VERBS = {
    "GET": "get",
    "HEAD": "get",
    "POST": "create",
    "PUT": "update",
    "PATCH": "patch",
    "DELETE": "delete",
}


class Info(msgspec.Struct, frozen=True):
    """A request in the words of authorization. `resource` "" = not about a resource (`path` counts then)."""

    path: str
    verb: str
    group: str = ""
    version: str = ""
    resource: str = ""
    namespace: str = ""
    name: str = ""
    subresource: str = ""
    rest: str = ""
    """What follows the subresource `proxy`."""
    fields: str = ""
    """The field selector: some callers may list only what it chooses."""


def parse(method: str, path: str, query: Mapping[str, str]) -> Info:
    """The Info of one request; paths that are no resource paths give one without a resource."""
    parts = [p for p in path.split("/") if p]
    plain = Info(path, _VERBS.get(method, method).lower())
    if len(parts) >= 3 and parts[0] == "api":
        group, version, left = "", parts[1], parts[2:]
    elif len(parts) >= 4 and parts[0] == "apis":
        group, version, left = parts[1], parts[2], parts[3:]
    else:
        return plain
    namespace = ""
    if left[0] == "namespaces" and len(left) > 2 and left[2] not in ("status", "finalize"):
        namespace, left = left[1], left[2:]
    elif left[0] == "namespaces" and len(left) > 1:
        namespace = left[1]
    name = left[1] if len(left) > 1 else ""
    verb = _VERBS.get(method, method.lower())
    if method in ("GET", "HEAD") and len(left) <= 2:
        watch = _true(query.get("watch"))
        verb = "watch" if watch else verb if name else "list"
    elif method == "DELETE" and not name:
        verb = "deletecollection"
    return Info(
        path=path,
        verb=verb,
        group=group,
        version=version,
        resource=left[0],
        namespace=namespace,
        name=name,
        subresource=left[2] if len(left) > 2 else "",
        rest="/".join(left[3:]),
        fields=query.get("fieldSelector", ""),
    )


def _true(text: str | None) -> bool:
    return text in ("true", "1", "True", "t", "T")
