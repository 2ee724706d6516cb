"""Built-in types behind the seams of the verbs: checks of fields, strategic merge patch, OpenAPI pages."""

from __future__ import annotations

import asyncio
import re
from typing import Any

from pervade.cluster.apiserver.kinds.kind import JSON, Kind
from pervade.cluster.apiserver.patch import PatchError, json_patch, strategic
from pervade.cluster.apiserver.rest import answer
from pervade.cluster.apiserver.rest.context import Request
from pervade.cluster.apiserver.rest.status import StatusError, bad_request
from pervade.cluster.apiserver.schema import builtin, openapi_v2, strict
from pervade.cluster.apiserver.schema.openapi import Documents
from pervade.cluster.apiserver.schema.tree import ANY, Node
from pervade.wire.http import web


def fields(kind: Kind, obj: JSON, request: Request) -> None:
    """Bring a body into the form of its type, in place; unknown and duplicate fields by fieldValidation.

    400 for values of a wrong type, and for unknown and duplicate fields when they are not allowed.
    """
    found = strict.Findings()
    node = None if kind.custom is not None else builtin.type_for(kind.group, kind.version, kind.kind)
    if kind.custom is not None and kind.custom.compiled is not None:
        found.unknown += kind.custom.compiled.prune(obj)
    if node is not None:
        made = strict.conform(node, obj, found)
        obj.clear()
        obj.update(made)
        obj.setdefault("metadata", {})
    if found.wrong:
        text = "; ".join(found.wrong[:5])
        raise bad_request(
            f"{kind.kind} in version {kind.version!r} cannot be handled as a {kind.kind}: json: {text}"
        )
    mode = request.field_validation
    if mode == "Ignore":
        return
    said = [f'duplicate field "{name}"' for name in request.duplicates] + [
        f'unknown field "{p}"' for p in found.unknown
    ]
    if said and mode == "Strict":
        text = ", ".join(said)
        raise bad_request(
            f"{kind.kind} in version {kind.version!r} cannot be handled as a {kind.kind}: strict decoding error: {text}"
        )
    request.warnings += said


def type_of(kind: Kind) -> Node:
    """The type tree of a kind; of a custom kind that of its schema."""
    if kind.custom is not None:
        node: Node = getattr(kind.custom.compiled, "node", ANY)
        return node
    return builtin.type_for(kind.group, kind.version, kind.kind) or ANY


def patch_strategic(kind: Kind, old: JSON, change: JSON) -> JSON:
    """A strategic merge patch of an object of `kind`."""
    try:
        return strategic.apply(type_of(kind), old, change)
    except PatchError as error:
        raise StatusError(error.code, str(error)) from None


def patch_json(old: JSON, patch: Any) -> JSON:
    """A JSON patch of an object."""
    try:
        made: JSON = json_patch.apply(old, patch)
    except PatchError as error:
        raise StatusError(error.code, str(error)) from None
    return made


class OpenApi:
    """The pages below `/openapi`."""

    def __init__(self, documents: Documents) -> None:
        self.documents = documents

    async def page(self, http: web.BaseRequest) -> web.StreamResponse:
        path = http.path.rstrip("/")
        if path == "/openapi/v3":
            return answer.body(self.documents.index())
        if path.startswith("/openapi/v3/"):
            made = self.documents.document(path.removeprefix("/openapi/v3/"))
            if made is not None:
                response = web.Response(body=made, content_type=answer.JSON_TYPE)
                if "hash" in http.query:
                    response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
                return response
        if path == "/openapi/v2":
            if not {openapi_v2.MEDIA, openapi_v2.SAID} & set(
                re.split(r"[,; ]+", http.headers.get("Accept", ""))
            ):
                return web.Response(status=406, text=f"this document is served as {openapi_v2.MEDIA}\n")
            whole = await asyncio.to_thread(self.documents.version_2)
            return web.Response(body=whole, content_type=openapi_v2.SAID)
        return web.Response(status=404, text="404 page not found\n")
