"""PATCH: the four patch types by content type, on objects and their status."""

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


async def patch(api: Api, request: Request) -> JSON:
    """The object after the patch."""
    kind = request.content_type.split(";")[0].strip().lower()
    served = (
        [JSON_PATCH, MERGE, STRATEGIC, APPLY] if request.kind.custom is None else [JSON_PATCH, MERGE, APPLY]
    )
    if kind not in served:
        text = f"the body of the request was in an unknown format - accepted media types include: {', '.join(served)}"
        raise StatusError(415, text)
    if kind == APPLY:
        return await api.apply(request, codec.read_object(request.body, APPLY))
    return await write.modify(api, request, _change(api, request, kind, codec.read_json(request.body)))


def _change(api: Api, request: Request, kind: str, body: Any) -> Callable[[JSON], JSON]:
    if kind == JSON_PATCH:
        return lambda old: api.json_patch(old, body)
    if not isinstance(body, dict):
        raise bad_request(f"a patch of type {kind} must be an object")
    if kind == STRATEGIC:
        return lambda old: api.strategic_patch(request.kind, old, body)
    return lambda old: merge(old, body)


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
