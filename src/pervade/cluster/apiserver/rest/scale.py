"""The scale subresource: one number of an object, as autoscaling/v1 Scale."""

from __future__ import annotations

import msgspec

from pervade.cluster.apiserver.kinds.kind import JSON, Cause, Kind
from pervade.cluster.apiserver.rest import codec, patching, status, write
from pervade.cluster.apiserver.rest.context import Api, Request
from pervade.cluster.apiserver.rest.present import decoded


def selector_text(selector: JSON | None) -> str:
    """A label selector as text (`a=b,c in (d)`)."""
    parts = [f"{k}={v}" for k, v in sorted(((selector or {}).get("matchLabels") or {}).items())]
    for one in (selector or {}).get("matchExpressions") or ():
        values = ",".join(one.get("values") or ())
        form = {"In": f"{one['key']} in ({values})", "NotIn": f"{one['key']} notin ({values})"}
        form |= {"Exists": one["key"], "DoesNotExist": f"!{one['key']}"}
        parts.append(form[one["operator"]])
    return ",".join(parts)


def scale_of(kind: Kind, obj: JSON) -> JSON:
    """The Scale of an object."""
    meta = {
        k: obj["metadata"][k]
        for k in ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
        if k in obj["metadata"]
    }
    spec, found = obj.get("spec") or {}, obj.get("status") or {}
    paths = (kind.custom and kind.custom.scale_paths) or {}
    if paths:
        replicas, seen = _at(obj, paths["specReplicasPath"]), _at(obj, paths["statusReplicasPath"])
        label = _at(obj, paths.get("labelSelectorPath", "")) or ""
    else:
        replicas, seen = spec.get("replicas", 0), found.get("replicas", 0)
        label = selector_text(spec.get("selector"))
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": meta,
        "spec": {"replicas": replicas or 0},
        "status": {"replicas": seen or 0, "selector": label},
    }


def _at(obj: JSON, path: str) -> object:
    found: object = obj
    for part in path.strip(".").split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def _with_replicas(kind: Kind, obj: JSON, replicas: int) -> JSON:
    path = (
        kind.custom.scale_paths["specReplicasPath"]
        if kind.custom and kind.custom.scale_paths
        else ".spec.replicas"
    )
    holder = obj
    *parents, last = path.strip(".").split(".")
    for part in parents:
        holder = holder.setdefault(part, {})
    holder[last] = replicas
    return obj


async def serve(api: Api, request: Request) -> JSON:
    """get, update and patch of the Scale of one object."""
    kind, info = request.kind, request.info
    if info.verb == "get":
        entry = api.state.get(kind.table, info.namespace, info.name)
        if entry is None:
            raise status.not_found(kind, info.name)
        return scale_of(kind, decoded(entry.value, kind))
    body = None if info.verb == "patch" else codec.read_object(request.body, request.content_type)

    def change(old: JSON) -> JSON:
        scale = scale_of(kind, old)
        if body is not None:
            new = body
        elif request.content_type.startswith(patching.JSON_PATCH):
            new = api.json_patch(scale, codec.read_json(request.body))
        else:
            new = patching.merge(scale, codec.read_object(request.body, "application/yaml"))
        replicas = (new.get("spec") or {}).get("replicas", 0)
        if not isinstance(replicas, int) or isinstance(replicas, bool) or replicas < 0:
            cause = Cause("spec.replicas", f"Invalid value: {replicas}: must be greater than or equal to 0")
            raise status.invalid(kind, info.name, [cause])
        made = _with_replicas(kind, old, replicas)
        asked = (new.get("metadata") or {}).get("resourceVersion")
        if asked:
            made["metadata"]["resourceVersion"] = asked
        return made

    whole = Request(
        msgspec.structs.replace(info, subresource=""),
        kind,
        request.query,
        request.user,
        user_agent=request.user_agent,
    )
    return scale_of(kind, await write.modify(api, whole, change))
