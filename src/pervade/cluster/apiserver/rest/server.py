"""The HTTP rim: from an aiohttp request to a verb and back.

One catch-all handler; Kubernetes paths are data, not routes. Whatever goes wrong ends as a `Status`,
a fault of ours as 500 with an id that the log explains, never as a stack trace.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from pervade.cluster.apiserver.kinds.kind import JSON, Kind
from pervade.cluster.apiserver.rest import (
    codec,
    discovery,
    info,
    negotiate,
    patching,
    present,
    read,
    scale,
    status,
    write,
)
from pervade.cluster.apiserver.rest.context import Api, Request
from pervade.cluster.apiserver.rest.status import StatusError, bad_request
from pervade.cluster.apiserver.rest.watching import Watch
from pervade.cluster.apiserver.store.state import StoreFailed
from pervade.wire.http import web

log = logging.getLogger(__name__)
BODY_MOST = 3 * 1024 * 1024
_JSON = "application/json"
Plain = Callable[[web.Request], Awaitable[web.StreamResponse]]
Authenticate = Callable[[web.Request], Any]
Authorize = Callable[[Any, info.Info], str | None]
Connect = Callable[[web.Request, Request, JSON], Awaitable[web.StreamResponse]]


class Server:
    """Answers requests with the parts it is given.

    `authenticate(request)` gives the user (StatusError 401); `authorize(user, info)` gives None or the reason
    for 403; `connect[(table, subresource)]` serves streams (exec, log, proxy …) of an object; `plain[path]`
    serves what is no resource.
    """

    def __init__(
        self,
        api: Api,
        *,
        authenticate: Authenticate,
        authorize: Authorize,
        connect: dict[tuple[str, str], Connect] | None = None,
        plain: dict[str, Plain] | None = None,
        version: JSON,
        address: str = "",
    ) -> None:
        self.api, self.authenticate, self.authorize = api, authenticate, authorize
        self.connect, self.plain = connect or {}, plain or {}
        self.version, self.address = version, address
        self.requests: dict[tuple[str, str, int], int] = {}

    def application(self) -> web.Application:
        app = web.Application(client_max_size=BODY_MOST)
        app.router.add_route("*", "/{tail:.*}", self.handle)
        return app

    async def handle(self, http: web.Request) -> web.StreamResponse:
        begin = time.perf_counter()
        said = info.parse(http.method, http.path, http.query)
        try:
            response = await self._handle(http, said)
        except StatusError as error:
            response = self._refusal(error)
        except negotiate.NotAcceptable:
            served = ", ".join(negotiate.SUPPORTED)
            text = f"only the following media types are accepted: {served}"
            response = self._refusal(StatusError(406, text))
        except web.HTTPRequestEntityTooLarge:
            response = self._refusal(StatusError(413, f"the request is larger than {BODY_MOST} bytes"))
        except StoreFailed as error:
            response = self._refusal(
                StatusError(500, f"the store refused the write: {error}; nothing was changed")
            )
        except (ConnectionError, TimeoutError) as error:
            log.debug("client went away", extra={"path": http.path, "error": str(error)})
            raise
        except Exception:
            mark = secrets.token_hex(4)
            log.exception("a request failed", extra={"id": mark, "method": http.method, "path": http.path})
            response = self._refusal(
                StatusError(500, f"Internal error occurred: see the API server's log for {mark}")
            )
        key = said.verb, said.resource or "-", response.status
        self.requests[key] = self.requests.get(key, 0) + 1
        if log.isEnabledFor(logging.DEBUG):
            ms = round((time.perf_counter() - begin) * 1000, 1)
            log.debug(
                "request",
                extra={"verb": said.verb, "path": http.path_qs, "status": response.status, "ms": ms},
            )
        return response

    def _refusal(self, error: StatusError) -> web.Response:
        headers = {}
        if error.code == 401:
            headers["WWW-Authenticate"] = "Bearer"
        if retry := (error.details or {}).get("retryAfterSeconds"):
            headers["Retry-After"] = str(retry)
        return web.Response(
            status=error.code, body=msgspec.json.encode(error.body()), content_type=_JSON, headers=headers
        )

    async def _handle(self, http: web.Request, said: info.Info) -> web.StreamResponse:
        user = self.authenticate(http)
        why = self.authorize(user, said)
        if why is not None:
            raise self._forbidden(user, said, why)
        if not said.resource:
            return await self._not_a_resource(http, said)
        kind = self.api.registry.find(said.group, said.version, said.resource)
        if kind is None:
            return self._unknown(said)
        if not kind.namespaced:
            # Authorization sees /namespaces/NAME as inside NAME; the store keeps it at the cluster's scope.
            said = msgspec.structs.replace(said, namespace="")
        body = await http.read() if http.can_read_body and said.subresource not in _STREAMS else b""
        request = Request(
            info=said,
            kind=kind,
            query=http.query,
            user=user,
            body=body,
            content_type=http.headers.get("Content-Type", ""),
            user_agent=http.headers.get("User-Agent", ""),
        )
        if kind.namespaced and said.name and not said.namespace:
            raise StatusError(404, "the server could not find the requested resource")
        if (field := request.query.get("fieldValidation")) not in (None, "Strict", "Warn", "Ignore"):
            raise StatusError(
                422,
                f'fieldValidation: Unsupported value: "{field}": supported values: "Ignore", "Strict", "Warn"',
            )
        response = await self._resource(http, request)
        for name, value in status.warnings(request.warnings):
            response.headers.add(name, value)
        return response

    def _forbidden(self, user: Any, said: info.Info, why: str) -> StatusError:
        if not said.resource:
            return StatusError(403, f'forbidden: User "{user.name}" cannot {said.verb} path "{said.path}"')
        what = f"{said.resource}/{said.subresource}" if said.subresource else said.resource
        where = f' in the namespace "{said.namespace}"' if said.namespace else " at the cluster scope"
        group = f"{said.resource}.{said.group}" if said.group else said.resource
        name = f' "{said.name}"' if said.name else ""
        text = (
            f'{group}{name} is forbidden: User "{user.name}" cannot {said.verb} resource "{what}"'
            f' in API group "{said.group}"{where}{": " + why if why else ""}'
        )
        details = {"name": said.name, "group": said.group, "kind": said.resource}
        return StatusError(403, text, details={k: v for k, v in details.items() if v})

    def _unknown(self, said: info.Info) -> web.StreamResponse:
        if said.group and said.group not in self.api.registry.groups():
            return web.Response(status=404, text="404 page not found\n")
        raise StatusError(404, "the server could not find the requested resource", details={})

    async def _resource(self, http: web.Request, request: Request) -> web.StreamResponse:
        kind, said = request.kind, request.info
        key = kind.table, said.subresource
        if said.subresource and key in self.connect:
            entry = self.api.state.get(kind.table, said.namespace, said.name)
            if entry is None:
                raise status.not_found(kind, said.name)
            return await self.connect[key](http, request, present.decoded(entry.value, kind))
        if said.subresource:
            return await self._subresource(http, request)
        if said.verb not in kind.verbs:
            raise StatusError(405, "the server does not allow this method on the requested resource")
        match said.verb:
            case "watch":
                return await self._watch(http, request)
            case "list":
                return await self._list(http, request)
            case "get":
                return self._object(http, request, read.get(self.api, request))
            case "create":
                return await self._create(http, request)
            case "update":
                made = await write.update(self.api, request, self._body(request))
                return self._object(http, request, msgspec.json.encode(made))
            case "patch":
                made = await patching.patch(self.api, request)
                return self._object(http, request, msgspec.json.encode(made))
            case "delete":
                options = self._options(request)
                made, gone = await write.delete(self.api, request, options)
                del gone
                return web.Response(body=msgspec.json.encode(made), content_type=_JSON)
            case "deletecollection":
                return await self._delete_collection(request)
        raise StatusError(405, "the server does not allow this method on the requested resource")

    async def _subresource(self, http: web.Request, request: Request) -> web.StreamResponse:
        kind, said = request.kind, request.info
        if said.subresource == "scale" and kind.scale:
            return web.Response(
                body=msgspec.json.encode(await scale.serve(self.api, request)), content_type=_JSON
            )
        name = f"{kind.table.lstrip('/')}/{said.subresource}"
        if name in self.api.reviews and said.verb == "create":
            made = await self.api.reviews[name](request, self._body(request))
            return web.Response(status=201, body=msgspec.json.encode(made), content_type=_JSON)
        known = said.subresource == "status" and kind.status
        known = known or said.subresource in [s[0] for s in kind.subresources]
        if not known:
            raise StatusError(404, "the server could not find the requested resource")
        match said.verb:
            case "get":
                return self._object(http, request, read.get(self.api, request))
            case "update":
                made = await write.update(self.api, request, self._body(request))
                return self._object(http, request, msgspec.json.encode(made))
            case "patch":
                made = await patching.patch(self.api, request)
                return self._object(http, request, msgspec.json.encode(made))
        raise StatusError(405, "the server does not allow this method on the requested resource")

    def _body(self, request: Request) -> JSON:
        if not request.body:
            raise bad_request("the request needs a body")
        return codec.read_object(request.body, request.content_type)

    def _options(self, request: Request) -> JSON:
        body = codec.read_object(request.body, request.content_type) if request.body else {}
        options = write.options_of(body)
        for name in ("propagationPolicy", "gracePeriodSeconds"):
            if name in request.query:
                value = request.query[name]
                options[name] = int(value) if name.startswith("grace") and value.isdigit() else value
        return options

    async def _create(self, http: web.Request, request: Request) -> web.StreamResponse:
        if request.kind.review:
            made = await self.api.reviews[request.kind.plural](request, self._body(request))
            return web.Response(status=201, body=msgspec.json.encode(made), content_type=_JSON)
        made = await write.create(self.api, request, self._body(request))
        return self._object(http, request, msgspec.json.encode(made), code=201)

    def _object(self, http: web.Request, request: Request, value: bytes, code: int = 200) -> web.Response:
        asked = negotiate.choose(http.headers.get("Accept", ""))
        if asked.kind == "json" or (asked.kind == "partial-list"):
            return web.Response(status=code, body=value, content_type=_JSON)
        obj = msgspec.json.decode(value)
        if asked.kind == "table":
            meta = {"resourceVersion": obj["metadata"]["resourceVersion"]}
            shown = present.table(
                request.kind, [obj], meta, include=request.query.get("includeObject", "Metadata")
            )
        else:
            shown = present.partial(obj)
        return web.Response(status=code, body=msgspec.json.encode(shown), content_type=_JSON)

    async def _list(self, http: web.Request, request: Request) -> web.StreamResponse:
        asked = negotiate.choose(http.headers.get("Accept", ""))
        found = read.page(self.api, request)
        kind: Kind = request.kind
        if asked.kind == "json":
            return web.Response(body=read.list_body(kind, found), content_type=_JSON)
        objects = [msgspec.json.decode(v) for v in found.values]
        shell = present.listing(kind, [], str(found.version), token=found.token, remaining=found.remaining)
        if asked.kind == "table":
            include = request.query.get("includeObject", "Metadata")
            shown = present.table(kind, objects, shell["metadata"], include=include)
        else:
            shown = {
                "kind": "PartialObjectMetadataList",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": shell["metadata"],
                "items": [present.partial(o) for o in objects],
            }
        return web.Response(body=msgspec.json.encode(shown), content_type=_JSON)

    async def _watch(self, http: web.Request, request: Request) -> web.StreamResponse:
        asked = negotiate.choose(http.headers.get("Accept", ""))
        form = {"table": "table", "partial": "partial", "partial-list": "partial"}.get(asked.kind, "json")
        watch = Watch(self.api, request, form, request.query.get("includeObject", "Metadata"))
        response = web.StreamResponse(headers={"Content-Type": _JSON, "Cache-Control": "no-cache"})
        await response.prepare(http)
        async for line in watch.lines():
            await response.write(line)
        await response.write_eof()
        return response

    async def _delete_collection(self, request: Request) -> web.StreamResponse:
        options = self._options(request)
        found = read.page(self.api, request)
        out: list[Any] = []
        for value in found.values:
            obj = msgspec.json.decode(value)
            meta = obj["metadata"]
            place = {"name": meta["name"], "namespace": meta.get("namespace", ""), "verb": "delete"}
            one = Request(
                msgspec.structs.replace(request.info, **place), request.kind, request.query, request.user
            )
            try:
                await write.delete(self.api, one, options)
            except StatusError as error:
                if error.code != 404:
                    raise
                continue
            out.append(obj)
        return web.Response(
            body=msgspec.json.encode(present.listing(request.kind, out, str(found.version))),
            content_type=_JSON,
        )

    # What is no resource.

    async def _not_a_resource(self, http: web.Request, said: info.Info) -> web.StreamResponse:
        path = said.path.rstrip("/") or "/"
        if path in self.plain:
            return await self.plain[path](http)
        if path == "/version":
            return web.json_response(self.version)
        if path in ("/healthz", "/livez", "/readyz") or path.startswith(("/healthz/", "/livez/", "/readyz/")):
            return web.Response(text="ok")
        if path in ("/api", "/apis"):
            return self._discovery(http, core=path == "/api")
        parts = path.strip("/").split("/")
        if parts[0] == "openapi":
            return await self.plain["/openapi"](http)
        found: JSON | None = None
        if parts[0] == "api" and len(parts) == 2:
            found = discovery.resource_list(self.api.registry, "", parts[1])
        elif parts[0] == "apis" and len(parts) == 2 and parts[1] in self.api.registry.groups():
            found = discovery.group(self.api.registry, parts[1]) | {"kind": "APIGroup", "apiVersion": "v1"}
        elif parts[0] == "apis" and len(parts) == 3:
            found = discovery.resource_list(self.api.registry, parts[1], parts[2])
        elif path == "/":
            groups = [
                f"/apis/{g}/{v}" for g in self.api.registry.groups() for v in self.api.registry.versions(g)
            ]
            found = {
                "paths": [
                    "/api",
                    "/api/v1",
                    "/apis",
                    *groups,
                    "/healthz",
                    "/livez",
                    "/openapi/v3",
                    "/readyz",
                    "/version",
                ]
            }
        if found is None:
            return web.Response(status=404, text="404 page not found\n")
        return web.json_response(found)

    def _discovery(self, http: web.Request, *, core: bool) -> web.Response:
        version = negotiate.wants_aggregated(http.headers.get("Accept", ""))
        if version is None:
            found = discovery.api_versions(self.address) if core else discovery.group_list(self.api.registry)
            return web.json_response(found)
        shown = discovery.aggregated(self.api.registry, core=core) | {
            "apiVersion": f"apidiscovery.k8s.io/{version}"
        }
        content = discovery.AGGREGATED.replace("v=v2;", f"v={version};")
        return web.Response(body=msgspec.json.encode(shown), headers={"Content-Type": content})


_STREAMS = ("exec", "attach", "portforward", "proxy", "log")
