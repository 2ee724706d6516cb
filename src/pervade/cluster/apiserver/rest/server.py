"""The HTTP rim: from a request to a verb and back.

One handler; Kubernetes paths are data, not routes. Whatever goes wrong ends as a `Status`, a fault of
ours as 500 with an id that the log explains, never as a stack trace. Bodies, requests and idle
connections are bounded in size and time.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from pervade.cluster.apiserver.kinds.kind import JSON
from pervade.cluster.apiserver.rest import (
    answer,
    codec,
    connecting,
    delete,
    info,
    negotiate,
    patching,
    present,
    read,
    status,
    subresources,
    write,
)
from pervade.cluster.apiserver.rest.context import Api, Request
from pervade.cluster.apiserver.rest.metrics import Metrics
from pervade.cluster.apiserver.rest.plain import Plain
from pervade.cluster.apiserver.rest.status import StatusError, bad_request
from pervade.cluster.apiserver.rest.watching import Watch
from pervade.cluster.apiserver.store.state import StoreFailed
from pervade.wire.http import web

log = logging.getLogger(__name__)
# What is no HTTP is answered with 400 by aiohttp, and would fill the log with its stack traces.
_transport_log = logging.getLogger(f"{__name__}.transport")
_transport_log.setLevel(logging.CRITICAL)
BODY_MOST = 3 * 1024 * 1024
REQUEST_SECONDS = 60.0
SILENT_SECONDS = 30.0
_NEVER_WAITS = 32 * 1024
_MOST_AT_ONCE = {"mutating": 400, "readOnly": 800}
_READS = ("get", "list", "watch")
_STREAMS = frozenset({"exec", "attach", "portforward", "proxy", "log"})
_VALIDATIONS = ("Strict", "Warn", "Ignore")
Authenticate = Callable[[web.BaseRequest], Any]
Authorize = Callable[[Any, info.Info], Any]
Connect = Callable[[web.BaseRequest, Request, JSON], Awaitable[web.StreamResponse]]


class Server:
    """Answers requests with the parts it is given.

    `authenticate(request)` gives the user (StatusError 401); `authorize(user, info)` gives None or the reason
    for 403 (either may be a coroutine); `connect[(table, subresource)]` serves streams (exec, log, proxy …) of
    an object; `plain` serves what is no resource.
    """

    def __init__(
        self,
        api: Api,
        plain: Plain,
        *,
        authenticate: Authenticate,
        authorize: Authorize,
        connect: dict[tuple[str, str], Connect] | None = None,
        metrics: Metrics,
    ) -> None:
        self.api, self.plain, self.metrics = api, plain, metrics
        self.authenticate, self.authorize, self.connect = authenticate, authorize, connect or {}
        self.watches: set[Watch] = set()
        self._no_watch = asyncio.Event()
        self.stopping = False
        self.silent: dict[Any, asyncio.TimerHandle] = {}
        """Connections that have asked nothing yet, and when they are closed."""

    def connections(self) -> _Connections:
        """The connection factory for a `web.ServerRunner`."""
        return _Connections(self)

    async def quiet(self) -> None:
        """Until no watch is open."""
        while self.watches:
            self._no_watch.clear()
            await self._no_watch.wait()

    def heard(self, connection: Any) -> None:
        """A connection has asked something, or is gone."""
        if late := self.silent.pop(connection, None):
            late.cancel()

    def stop(self) -> None:
        """End all watches cleanly; their owners come back to whoever serves next."""
        self.stopping = True
        for watch in tuple(self.watches):
            watch.end()

    async def handle(self, http: web.BaseRequest) -> web.StreamResponse:
        self.heard(http.protocol)
        begin = time.perf_counter()
        said = info.parse(http.method, http.path, http.query)
        group = "watch" if said.verb == "watch" else "readOnly" if said.verb in _READS else "mutating"
        flying = self.metrics.inflight
        flying[group] += 1
        response: web.StreamResponse | None = None
        try:
            if flying[group] > _MOST_AT_ONCE.get(group, 1 << 30):
                text = "Too many requests, please try again later."
                response = answer.refusal(StatusError(429, text, details={"retryAfterSeconds": 1}))
            else:
                response = await self._answer(http, said)
            if (
                isinstance(response, web.Response)
                and response.content_length
                and response.content_length > 65536
            ):
                # A large answer is sent here, under a deadline, so that a reader that stalls cannot keep it.
                async with asyncio.timeout(REQUEST_SECONDS):
                    await response.prepare(http)
                    await response.write_eof()
            return response
        except TimeoutError:
            if http.transport is not None:
                http.transport.abort()
            raise
        finally:
            flying[group] -= 1
            code = response.status if response is not None else 499
            name = f"{said.resource}/{said.subresource}" if said.subresource else said.resource
            verb = "connect" if said.subresource in _STREAMS else said.verb
            known = code != 404 or self.api.registry.find(said.group, said.version, said.resource) is not None
            self.metrics.observe(
                verb, said.group if known else "", name if known else "", code, time.perf_counter() - begin
            )

    async def _answer(self, http: web.BaseRequest, said: info.Info) -> web.StreamResponse:
        try:
            return await self._handle(http, said)
        except StatusError as error:
            return answer.refusal(error)
        except negotiate.NotAcceptable:
            served = ", ".join(negotiate.SUPPORTED)
            return answer.refusal(StatusError(406, f"only the following media types are accepted: {served}"))
        except web.HTTPRequestEntityTooLarge:
            text = f"Request entity too large: limit is {BODY_MOST}"
            return _closing(answer.refusal(StatusError(413, text)))
        except StoreFailed as error:
            text = f"the store refused the write: {error}; nothing was changed"
            return answer.refusal(StatusError(500, text))
        except ConnectionError as error:
            log.debug("client went away", extra={"path": http.path, "error": str(error)})
            raise
        except Exception:
            mark = secrets.token_hex(4)
            log.exception("a request failed", extra={"id": mark, "method": http.method, "path": http.path})
            text = f"Internal error occurred: see the API server's log for {mark}"
            return answer.refusal(StatusError(500, text))

    async def _handle(self, http: web.BaseRequest, said: info.Info) -> web.StreamResponse:
        user = self.authenticate(http)
        if inspect.isawaitable(user):
            user = await user
        why = self.authorize(user, said)
        if inspect.isawaitable(why):
            why = await why
        if why is not None:
            raise _forbidden(user, said, why)
        if not said.resource:
            return await self.plain.serve(http, said.path)
        kind = self.api.registry.find(said.group, said.version, said.resource)
        if kind is None:
            if said.group and said.group not in self.api.registry.groups():
                return web.Response(status=404, text="404 page not found\n")
            raise _nowhere()
        if not kind.namespaced:
            # Authorization sees /namespaces/NAME as inside NAME; the store keeps it at the cluster's scope.
            said = msgspec.structs.replace(said, namespace="")
        elif said.name and not said.namespace:
            raise _nowhere()
        request = Request(
            info=said,
            kind=kind,
            query=http.query,
            user=user,
            content_type=http.headers.get("Content-Type", ""),
            user_agent=http.headers.get("User-Agent", ""),
        )
        if http.can_read_body and said.subresource not in _STREAMS:
            request.body = await _read(http)
        if (field := request.query.get("fieldValidation")) and field not in _VALIDATIONS:
            text = (
                f'fieldValidation: Unsupported value: "{field}": supported values: "Ignore", "Strict", "Warn"'
            )
            raise StatusError(422, text)
        if (dry := request.query.get("dryRun")) and dry != "All":
            raise StatusError(422, f'dryRun: Unsupported value: "{dry}": supported values: "All"')
        if said.verb == "watch":
            return await self._watch(http, request)
        if said.subresource in _STREAMS:
            response = await self._resource(http, request)
        else:
            try:
                async with asyncio.timeout(REQUEST_SECONDS):
                    response = await self._resource(http, request)
            except TimeoutError:
                text = "Timeout: request did not complete within the allotted timeout"
                raise StatusError(504, text) from None
        if request.warnings and not response.prepared:
            for name, value in status.warnings(dict.fromkeys(request.warnings)):
                response.headers.add(name, value)
        return response

    async def _resource(self, http: web.BaseRequest, request: Request) -> web.StreamResponse:
        api, kind, said = self.api, request.kind, request.info
        if said.subresource:
            return await self._subresource(http, request)
        named = said.verb in ("get", "update", "patch", "delete")
        if said.verb not in kind.verbs or named is not bool(said.name):
            raise StatusError(405, "the server does not allow this method on the requested resource")
        form = answer.asked(http)
        match said.verb:
            case "list":
                return answer.listed(request, form, await read.page(api, request))
            case "get":
                return answer.single(request, form, read.get(api, request))
            case "create" if kind.review and kind.plural not in api.reviews:
                raise StatusError(405, f"{kind.plural} need keys, which this server runs without")
            case "create" if kind.review:
                made = await api.reviews[kind.plural](request, _object(request))
                return answer.body(made, form, code=201)
            case "create":
                made = await write.create(api, request, _object(request))
                return answer.single(request, form, msgspec.json.encode(made), code=201)
            case "update" | "patch":
                return await self._changed(request, form)
            case "delete":
                options = delete.options_of(request)
                made, _gone = await delete.delete(api, request, options)
                return answer.body(made, form)
            case "deletecollection":
                return answer.body(await delete.collection(api, request, delete.options_of(request)), form)
        raise StatusError(405, "the server does not allow this method on the requested resource")

    async def _changed(self, request: Request, form: negotiate.Format) -> web.Response:
        if request.info.verb == "update":
            made, new = await write.update(self.api, request, _object(request)), False
        else:
            made, new = await patching.patch(self.api, request)
        return answer.single(request, form, msgspec.json.encode(made), code=201 if new else 200)

    async def _subresource(self, http: web.BaseRequest, request: Request) -> web.StreamResponse:
        api, kind, said = self.api, request.kind, request.info
        known = {s[0] for s in kind.subresources} | ({"status"} if kind.status else set())
        known |= {"scale"} if kind.scale else set()
        if said.subresource not in known:
            raise _nowhere()
        if said.subresource in _STREAMS:
            entry = api.state.get(kind.table, said.namespace, said.name)
            if entry is None:
                raise status.not_found(kind, said.name)
            stream = self.connect.get((kind.table, said.subresource))
            if stream is None:
                text = f"{said.subresource} is not served by this server"
                raise StatusError(501, text, reason="NotImplemented")
            if api.admission and connecting.judged(said.subresource):
                asked = connecting.options(kind, said.subresource, http.query)
                await api.admission.validate(request, "CONNECT", asked, None)
            return await stream(http, request, present.decoded(entry.value, kind))
        form = answer.asked(http)
        review = api.reviews.get(f"{kind.plural}/{said.subresource}")
        if review is not None and said.verb == "create":
            return answer.body(await review(request, _object(request)), form, code=201)
        if said.subresource in subresources.SERVED:
            code, made = await subresources.handle(api, request, http.method)
            return answer.body(made, form, code=code)
        if said.subresource == "status":
            if said.verb == "get":
                return answer.single(request, form, read.get(api, request))
            if said.verb in ("update", "patch"):
                return await self._changed(request, form)
        if said.subresource in _STREAMS:
            raise StatusError(
                501, f"{said.subresource} is not served by this server", reason="NotImplemented"
            )
        raise StatusError(405, "the server does not allow this method on the requested resource")

    async def _watch(self, http: web.BaseRequest, request: Request) -> web.StreamResponse:
        kind = request.kind
        if request.info.subresource or "watch" not in kind.verbs:
            raise StatusError(405, "the server does not allow this method on the requested resource")
        if self.stopping:
            raise StatusError(503, "the server is stopping", details={"retryAfterSeconds": 1})
        watch = Watch(self.api, request, answer.asked(http))
        response = web.StreamResponse(
            headers={"Content-Type": answer.JSON_TYPE, "Cache-Control": "no-cache, private"}
        )
        await response.prepare(http)
        # Headers go out at once: a client may wait for them before it does anything else.
        await response.write(b"")
        self.watches.add(watch)
        try:
            async for lines in watch.lines():
                await _send(http, response, lines)
            await response.write_eof()
        finally:
            self.watches.discard(watch)
            if not self.watches:
                self._no_watch.set()
        return response


async def _send(http: web.BaseRequest, response: web.StreamResponse, lines: bytes) -> None:
    """Write, and give up on a reader that takes nothing for a minute."""
    transport = http.transport
    if len(lines) <= _NEVER_WAITS and transport is not None and transport.get_write_buffer_size() == 0:
        # The reader took all it was sent: this cannot wait, and a thousand watchers need no deadline each.
        await response.write(lines)
        return
    try:
        async with asyncio.timeout(REQUEST_SECONDS):
            await response.write(lines)
    except TimeoutError:
        if http.transport is not None:
            http.transport.abort()
        raise ConnectionResetError("a watcher read nothing for a minute") from None


async def _read(http: web.BaseRequest) -> bytes:
    """The body, under a deadline; 413 when it is too large."""
    if (http.content_length or 0) > BODY_MOST:
        raise web.HTTPRequestEntityTooLarge(max_size=BODY_MOST, actual_size=http.content_length or 0)
    try:
        async with asyncio.timeout(SILENT_SECONDS):
            return await http.read()
    except TimeoutError:
        raise StatusError(408, "the body of the request did not arrive in time", reason="Timeout") from None


def _object(request: Request) -> JSON:
    if not request.body:
        raise bad_request("the request needs a body")
    return codec.read_object(request.body, request.content_type, request)


def _closing(response: web.Response) -> web.Response:
    response.force_close()
    return response


def _nowhere() -> StatusError:
    return StatusError(404, "the server could not find the requested resource", details={})


def _forbidden(user: Any, said: info.Info, why: str) -> StatusError:
    if not said.resource:
        return StatusError(
            403, f'forbidden: User "{user.name}" cannot {said.verb} path "{said.path}"', details={}
        )
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


class _Connections(web.Server):
    """aiohttp's connection factory with our limits: body size, and connections that never ask anything."""

    def __init__(self, server: Server) -> None:
        def request(message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> web.BaseRequest:
            loop = asyncio.get_running_loop()
            return web.BaseRequest(message, payload, protocol, writer, task, loop, client_max_size=BODY_MOST)

        super().__init__(
            server.handle,
            logger=_transport_log,
            request_factory=request,
            handler_cancellation=True,
            access_log=None,
            keepalive_timeout=120.0,
        )
        self._owner = server

    def connection_made(self, handler: Any, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        # A connection has to ask something soon; afterwards the keep-alive time counts.
        late = asyncio.get_running_loop().call_later(SILENT_SECONDS, transport.close)
        self._owner.silent[handler] = late

    def connection_lost(self, handler: Any, exc: BaseException | None = None) -> None:
        self._owner.heard(handler)
        super().connection_lost(handler, exc)
