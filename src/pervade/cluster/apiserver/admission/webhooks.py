"""Admission webhooks: asked in order when they may change an object, all at once when they may only refuse."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import functools
import logging
import ssl
import time
import uuid
from collections.abc import Callable
from typing import Any

import msgspec

from pervade.cluster.apiserver.admission import hooks
from pervade.cluster.apiserver.admission.hooks import Hook
from pervade.cluster.apiserver.kinds.kind import JSON, Kind
from pervade.cluster.apiserver.rest import present
from pervade.cluster.apiserver.rest.context import Request
from pervade.cluster.apiserver.rest.status import StatusError
from pervade.cluster.apiserver.store.state import State
from pervade.wire.http import ClientError, ClientSession, ClientTimeout, TCPConnector

log = logging.getLogger(__name__)
_GROUP = "admissionregistration.k8s.io"
MUTATING, VALIDATING = f"{_GROUP}/mutatingwebhookconfigurations", f"{_GROUP}/validatingwebhookconfigurations"
_MOST = 8 << 20
SocketFactory = Callable[[Any], Any]
Conform = Callable[[Kind, JSON, Request], None]
"""Brings an object into the form of its type, as for the body of a request."""


@functools.lru_cache(maxsize=64)
def _context(bundle: str) -> ssl.SSLContext:
    """Trust in a caBundle, or in the machine's authorities without one; made once, it takes 10 ms."""
    if not bundle:
        return ssl.create_default_context()
    return ssl.create_default_context(cadata=base64.b64decode(bundle).decode())


class Webhooks:
    """Configurations are read again after a change only; without any, a request costs two look-ups.

    Services are reached by sockets of `sockets` (inside the cluster), URLs from where the server runs.
    """

    def __init__(self, state: State, sockets: SocketFactory | None, conform: Conform | None = None) -> None:
        self.state, self.sockets, self.conform = state, sockets, conform
        self._held: dict[str, tuple[int, list[Hook]]] = {}

    def _hooks(self, table: str) -> list[Hook]:
        seen = self.state.changed.get(table, 0)
        held = self._held.get(table)
        if held is None or held[0] != seen:
            found = [present.parse(e.value) for e in self.state.entries(table)]
            held = self._held[table] = seen, hooks.hooks_of(found)
        return held[1]

    def _namespace(self, request: Request) -> JSON | None:
        entry = self.state.get("/namespaces", "", request.info.namespace) if request.kind.namespaced else None
        found: JSON | None = present.parse(entry.value) if entry is not None else None
        return found

    def _concerned(
        self, table: str, request: Request, operation: str, obj: JSON | None, old: JSON | None
    ) -> list[Hook]:
        known = self._hooks(table)
        if not known:
            return []
        namespace = self._namespace(request)
        found = []
        for hook in known:
            try:
                if hooks.concerns(hook, request, operation, obj, old, namespace):
                    found.append(hook)
            except ValueError as error:
                # A selector that nobody can read: it may concern the request, so it counts as a failure.
                self._failed(hook, str(error))
        return found

    async def mutate(
        self, request: Request, operation: str, obj: JSON | None, old: JSON | None
    ) -> JSON | None:
        """The object after all that change it; those that ask for it are called again when a later one did."""
        asked: list[tuple[Hook, JSON | None]] = []
        for hook in self._concerned(MUTATING, request, operation, obj, old):
            obj = await self._change(hook, request, operation, obj, old)
            asked.append((hook, obj))
        for hook, before in asked:
            if hook.body.get("reinvocationPolicy") == "IfNeeded" and before != obj:
                obj = await self._change(hook, request, operation, obj, old)
        return obj

    async def _change(
        self, hook: Hook, request: Request, operation: str, obj: JSON | None, old: JSON | None
    ) -> JSON | None:
        response = await self._ask(hook, request, operation, obj, old)
        if response is None or obj is None:
            return obj
        try:
            made = hooks.patched(obj, response)
            if self.conform is not None and made != obj and made["apiVersion"] == request.kind.api_version:
                query = {**request.query, "fieldValidation": "Ignore"}
                self.conform(request.kind, made, dataclasses.replace(request, query=query))
        except (ValueError, StatusError) as error:
            self._failed(hook, str(error))
            return obj
        return made

    async def validate(self, request: Request, operation: str, obj: JSON | None, old: JSON | None) -> None:
        concerned = self._concerned(VALIDATING, request, operation, obj, old)
        if concerned:
            asked = (self._ask(h, request, operation, obj, old) for h in concerned)
            # All are waited for, so that the same refusal wins whoever is quickest.
            for found in await asyncio.gather(*asked, return_exceptions=True):
                if isinstance(found, BaseException):
                    raise found

    async def _ask(
        self, hook: Hook, request: Request, operation: str, obj: JSON | None, old: JSON | None
    ) -> JSON | None:
        """An answer that allows; None when the webhook need not or could not be asked and may be ignored."""
        uid = str(uuid.uuid4())
        # A stream is asked about by its options, which say their own kind.
        kind = request.kind
        typed = {"apiVersion": kind.api_version, "kind": kind.kind} if operation != "CONNECT" else {}
        review = hooks.review_of(request, operation, obj and {**obj, **typed}, old and {**old, **typed}, uid)
        try:
            if not hooks.condition(hook, review):
                return None
        except ValueError as error:
            self._failed(hook, str(error))
            return None
        begin = time.monotonic()
        try:
            async with asyncio.timeout(hook.seconds):
                answer = await self._call(hook, review)
            response = hooks.answer_of(hook, review, answer, uid)
        except TimeoutError:
            self._failed(hook, f"context deadline exceeded: no answer within {hook.seconds:.0f} s")
            return None
        except (ClientError, OSError, ValueError, ssl.SSLError) as error:
            self._failed(hook, str(error)[:500] or type(error).__name__)
            return None
        finally:
            log.debug("webhook", extra={"name": hook.name, "ms": round((time.monotonic() - begin) * 1000)})
        request.warnings += [str(w)[:256] for w in response.get("warnings") or ()]
        if not response["allowed"]:
            raise hooks.refusal(hook, response)
        return response

    def _failed(self, hook: Hook, why: str) -> None:
        """Fail closed unless the configuration says otherwise."""
        if hook.ignores:
            log.warning("a webhook failed and is ignored", extra={"webhook": hook.name, "why": why})
            return
        text = f'Internal error occurred: failed calling webhook "{hook.name}": failed to call webhook: {why}'
        raise StatusError(500, text, reason="InternalError", details={"causes": [{"message": text}]})

    async def _call(self, hook: Hook, review: JSON) -> Any:
        client = hook.body.get("clientConfig") or {}
        url, host = self._address(client)
        sockets = self.sockets if client.get("service") else None
        connector = TCPConnector(
            ssl=_context(client.get("caBundle") or ""), socket_factory=sockets, force_close=True
        )
        async with (
            ClientSession(connector=connector, timeout=ClientTimeout(total=hook.seconds)) as session,
            session.post(
                f"{url}?timeout={hook.seconds:.0f}s",
                data=msgspec.json.encode(review),
                headers={"Content-Type": "application/json", "Accept": "application/json"},
                server_hostname=host,
                allow_redirects=False,
            ) as response,
        ):
            body = bytearray()
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > _MOST:
                    raise ValueError(f"the answer is longer than {_MOST} bytes")
            if response.status != 200:
                said = bytes(body[:200]).decode(errors="replace")
                raise ValueError(f"the server answered {response.status}: {said}")
            return msgspec.json.decode(body)

    def _address(self, client: JSON) -> tuple[str, str | None]:
        """The URL to call, and the name its certificate must have when that is not the URL's."""
        service = client.get("service")
        if not service:
            return str(client.get("url", "")), None
        namespace, name = str(service.get("namespace", "")), str(service.get("name", ""))
        port, path = int(service.get("port") or 443), str(service.get("path") or "")
        entry = self.state.get("/services", namespace, name)
        if entry is None:
            raise ValueError(f'service "{name}" not found in namespace "{namespace}"')
        spec = present.parse(entry.value).get("spec") or {}
        address = spec.get("clusterIP")
        if not address or address == "None":
            raise ValueError(f'service "{namespace}/{name}" has no cluster address')
        if port not in {p.get("port") for p in spec.get("ports") or ()}:
            raise ValueError(f'service "{namespace}/{name}" has no port {port}')
        host = f"[{address}]" if ":" in address else address
        return f"https://{host}:{port}/{path.lstrip('/')}", f"{name}.{namespace}.svc"
