"""PATCH: the four patch types by content type, on objects and their subresources."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pervade.cluster.apiserver.kinds.kind import JSON
from pervade.cluster.apiserver.rest import codec, write
from pervade.cluster.apiserver.rest.context import Api, Request
from pervade.cluster.apiserver.rest.status import StatusError, bad_request

MERGE = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"


async def patch(api: Api, request: Request) -> tuple[JSON, bool]:
    """The object after the patch, and whether it was created (by apply)."""
    if media_type(request) == APPLY:
        return await api.apply(request, codec.read_object(request.body, APPLY))
    return await write.modify(api, request, change_of(api, request)), False


def media_type(request: Request) -> str:
    return request.content_type.split(";")[0].strip().lower()


def change_of(api: Api, request: Request) -> Callable[[JSON], JSON]:
    """The patch in the body as a function from an object to the patched object; 415 for other types."""
    kind = media_type(request)
    if "force" in request.query and kind != APPLY:
        why = "Forbidden: may not be specified for non-apply patch"
        cause = {"reason": "FieldValueForbidden", "message": why, "field": "force"}
        details = {"group": "meta.k8s.io", "kind": "PatchOptions", "causes": [cause]}
        raise StatusError(422, f'PatchOptions.meta.k8s.io "" is invalid: force: {why}', details=details)
    served = (
        [JSON_PATCH, MERGE, APPLY]
        if request.kind.custom is not None
        else [JSON_PATCH, MERGE, STRATEGIC, APPLY]
    )
    if kind not in served or kind == APPLY:
        text = f"the body of the request was in an unknown format - accepted media types include: {', '.join(served)}"
        raise StatusError(415, text)
    body: Any = codec.read_json(request.body)

    def change(old: JSON) -> JSON:
        if kind == JSON_PATCH:
            new = api.json_patch(old, body)
        elif not isinstance(body, dict):
            raise bad_request(f"a patch of type {kind} must be an object")
        elif kind == STRATEGIC:
            new = api.strategic_patch(request.kind, old, body)
        else:
            new = merge(old, body)
        if not isinstance(new, dict):
            raise bad_request("the patched value is no object")
        if not isinstance(new.get("metadata"), dict):
            raise bad_request("the patch leaves no metadata")
        identity = (("apiVersion", old["apiVersion"]), ("kind", old["kind"]))
        for field, value in identity:
            if new.get(field) != value:
                raise bad_request(f"the patch must not change {field} ({value})")
        for field in ("name", "namespace"):
            if new["metadata"].get(field) != old["metadata"].get(field):
                raise bad_request(f"the patch must not change metadata.{field}")
        if request.info.subresource in ("", "status"):
            api.fields(request.kind, new, request)
        return new

    return change


def merge(target: Any, change: Any) -> Any:
    """JSON merge patch (RFC 7386); O(patch)."""
    if not isinstance(change, dict):
        return change
    out = dict(target) if isinstance(target, dict) else {}
    for key, value in change.items():
        if value is None:
            out.pop(key, None)
        else:
            out[key] = merge(out.get(key), value)
    return out
