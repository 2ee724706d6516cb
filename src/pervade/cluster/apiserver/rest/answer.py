"""Values as HTTP responses, in the form the `Accept` header asks for."""

from __future__ import annotations

import msgspec

from pervade.cluster.apiserver.kinds.kind import JSON
from pervade.cluster.apiserver.rest import negotiate, present
from pervade.cluster.apiserver.rest.context import Request
from pervade.cluster.apiserver.rest.negotiate import Format
from pervade.cluster.apiserver.rest.read import Page, list_body
from pervade.cluster.apiserver.rest.status import StatusError
from pervade.wire.http import web

JSON_TYPE = "application/json"
_PLAIN = Format()


def asked(http: web.BaseRequest) -> Format:
    """The form of answer a request asks for; NotAcceptable when it is none of ours."""
    return negotiate.choose(http.headers.get("Accept", ""))


def body(value: bytes | JSON, form: Format = _PLAIN, *, code: int = 200) -> web.Response:
    """A response with an encoded or a plain object."""
    raw = value if isinstance(value, bytes) else msgspec.json.encode(value)
    if form.yaml:
        return web.Response(status=code, body=_yaml(raw), content_type="application/yaml")
    return web.Response(status=code, body=raw, content_type=JSON_TYPE)


def _yaml(raw: bytes) -> bytes:
    import yaml

    text: str = yaml.dump(msgspec.json.decode(raw), Dumper=yaml.CSafeDumper, sort_keys=False)
    return text.encode()


def refusal(error: StatusError) -> web.Response:
    """The Status of a request that was refused."""
    response = body(error.body(), code=error.code)
    if error.code == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    if retry := (error.details or {}).get("retryAfterSeconds"):
        response.headers["Retry-After"] = str(retry)
    return response


def single(request: Request, form: Format, value: bytes, *, code: int = 200) -> web.Response:
    """One stored object."""
    if form.kind in ("json", "partial-list"):
        return body(value, form, code=code)
    obj: JSON = msgspec.json.decode(value)
    if form.kind == "partial":
        return body(present.partial(obj, form.version), form, code=code)
    meta = {"resourceVersion": obj.get("metadata", {}).get("resourceVersion", "")}
    include = request.query.get("includeObject", "Metadata")
    shown = present.table(request.kind, [obj], meta, include=include, version=form.version)
    return body(shown, form, code=code)


def listed(request: Request, form: Format, found: Page) -> web.Response:
    """One page of a list."""
    kind = request.kind
    if form.kind == "json":
        return body(list_body(kind, found), form)
    shell = present.listing(kind, [], str(found.version), token=found.token, remaining=found.remaining)
    objects = [msgspec.json.decode(v) for v in found.values]
    if form.kind == "table":
        include = request.query.get("includeObject", "Metadata")
        return body(
            present.table(kind, objects, shell["metadata"], include=include, version=form.version), form
        )
    shown = {
        "kind": "PartialObjectMetadataList",
        "apiVersion": present.META + form.version,
        "metadata": shell["metadata"],
        "items": [present.partial(o, form.version) for o in objects],
    }
    return body(shown, form)
