"""Calls to a Kubernetes API, any Kubernetes API (D1): objects are plain dictionaries in JSON form.

One connection pool per client; each watch holds one connection. A 401 with a token from a file reads
the file again (bound tokens rotate). Cost per call: one round trip, JSON by msgspec.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from pervade.kube import kubeconfig
from pervade.kube.errors import ApiError
from pervade.kube.resources import Resource
from pervade.wire.http import ClientResponse, ClientSession, ClientTimeout, TCPConnector

JSON = dict[str, Any]
PATCH_TYPES = {
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "apply": "application/apply-patch+yaml",
}
_IN_CLUSTER = Path("/var/run/secrets/kubernetes.io/serviceaccount")
# Servers that know no such form answer with whole objects.
_PARTIAL, _PARTIAL_LIST = (
    f"application/json;as={kind};g=meta.k8s.io;v=v1,application/json"
    for kind in ("PartialObjectMetadata", "PartialObjectMetadataList")
)
_decode = msgspec.json.Decoder().decode


class Client:
    """A caller of the API at `server`; use as an async context manager."""

    def __init__(
        self,
        server: str,
        ssl_context: ssl.SSLContext | None = None,
        token: str | None = None,
        *,
        token_file: Path | None = None,
        user_agent: str = "pervade",
    ) -> None:
        self.server = server.rstrip("/")
        self._ssl, self._token, self._token_file, self._agent = ssl_context, token, token_file, user_agent
        self._session: ClientSession | None = None

    @classmethod
    def from_kubeconfig(cls, path: str | Path | None = None, context: str | None = None, **more: Any) -> Self:
        """From a kubeconfig file (default: $KUBECONFIG, then ~/.kube/config) and context (default: current)."""
        found = kubeconfig.read(path, context)
        return cls(found.server, found.ssl_context(), found.token, **more)

    @classmethod
    def in_cluster(cls, **more: Any) -> Self:
        """From the service account of the pod this runs in."""
        server = kubeconfig.in_cluster_server()
        context = ssl.create_default_context(cafile=str(_IN_CLUSTER / "ca.crt"))
        return cls(server, context, token_file=_IN_CLUSTER / "token", **more)

    async def __aenter__(self) -> Self:
        connector = TCPConnector(limit=0, ssl=self._ssl if self._ssl is not None else True)
        self._session = ClientSession(
            connector=connector,
            timeout=ClientTimeout(total=None, connect=10, sock_read=60),
            headers={"User-Agent": self._agent},
            read_bufsize=1 << 18,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    def _headers(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        headers = {"Accept": "application/json", **(more or {})}
        token = self._token_file.read_text().strip() if self._token_file else self._token
        if token:
            headers["Authorization"] = f"Bearer {token}"
        return headers

    async def open(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: ClientTimeout | None = None,
    ) -> ClientResponse:
        """The open answer to a call (the caller closes it); raises ApiError from 400 on, OSError-like ClientError below."""
        if self._session is None:
            raise RuntimeError("use the client as an async context manager")
        response = await self._session.request(
            method,
            self.server + path,
            params=dict(params or {}),
            data=body,
            headers=self._headers(headers),
            timeout=timeout or self._session.timeout,
        )
        if response.status >= 400:
            async with response:
                raw = await response.read()
            try:
                said: Any = _decode(raw)
            except msgspec.DecodeError:
                said = raw.decode(errors="replace")
            raise ApiError.of(response.status, said)
        return response

    async def raw(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        accept: str = "application/json",
    ) -> Any:
        """One call with a JSON body and a JSON answer (text when the answer is not JSON)."""
        data = None if body is None else body if isinstance(body, bytes) else msgspec.json.encode(body)
        headers = {"Accept": accept} | ({"Content-Type": content_type} if data is not None else {})
        async with await self.open(method, path, params=params, body=data, headers=headers) as response:
            found = await response.read()
            return _decode(found) if "json" in response.content_type else found.decode(errors="replace")

    async def get(
        self, res: Resource, name: str, namespace: str | None = None, *, subresource: str | None = None
    ) -> JSON:
        found: JSON = await self.raw("GET", res.path(namespace, name, subresource))
        return found

    async def list(
        self,
        res: Resource,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
        limit: int = 500,
        resource_version: str | None = None,
        metadata_only: bool = False,
    ) -> tuple[list[JSON], str]:
        """All items, page by page, and the version of the list; kind and apiVersion are put into each item."""
        accept = _PARTIAL_LIST if metadata_only else "application/json"
        items: list[JSON] = []
        token = ""
        while True:
            params = _selectors(label_selector, field_selector) | {"limit": str(limit)}
            if token:
                params["continue"] = token
            elif resource_version:
                params["resourceVersion"] = resource_version
            page = await self.raw("GET", res.path(namespace), params=params, accept=accept)
            for item in page.get("items") or ():
                item.setdefault("apiVersion", res.api_version)
                item.setdefault("kind", res.kind)
                items.append(item)
            token = page["metadata"].get("continue") or ""
            if not token:
                return items, page["metadata"]["resourceVersion"]

    async def create(
        self,
        res: Resource,
        obj: JSON,
        namespace: str | None = None,
        *,
        subresource: str | None = None,
        name: str | None = None,
    ) -> JSON:
        namespace = namespace or obj.get("metadata", {}).get("namespace")
        made: JSON = await self.raw(
            "POST", res.path(namespace, name, subresource), body=_typed(res, obj, subresource)
        )
        return made

    async def update(self, res: Resource, obj: JSON, *, subresource: str | None = None) -> JSON:
        meta = obj["metadata"]
        path = res.path(meta.get("namespace"), meta["name"], subresource)
        made: JSON = await self.raw("PUT", path, body=_typed(res, obj, None))
        return made

    async def patch(
        self,
        res: Resource,
        name: str,
        body: Any,
        namespace: str | None = None,
        *,
        kind: str = "merge",
        subresource: str | None = None,
        field_manager: str | None = None,
        force: bool = False,
    ) -> JSON:
        """Patch of `kind` merge, json, strategic or apply (which needs `field_manager`)."""
        params = {"fieldManager": field_manager} if field_manager else {}
        if force:
            params["force"] = "true"
        path = res.path(namespace, name, subresource)
        made: JSON = await self.raw("PATCH", path, params=params, body=body, content_type=PATCH_TYPES[kind])
        return made

    async def apply(self, res: Resource, obj: JSON, *, field_manager: str, force: bool = True) -> JSON:
        """Server-side apply of a whole object."""
        meta = obj["metadata"]
        return await self.patch(
            res,
            meta["name"],
            obj,
            meta.get("namespace"),
            kind="apply",
            field_manager=field_manager,
            force=force,
        )

    async def delete(
        self,
        res: Resource,
        name: str,
        namespace: str | None = None,
        *,
        propagation: str | None = None,
        grace_seconds: int | None = None,
        uid: str | None = None,
    ) -> JSON:
        options: JSON = {"kind": "DeleteOptions", "apiVersion": "v1"}
        if propagation:
            options["propagationPolicy"] = propagation
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        if uid:
            options["preconditions"] = {"uid": uid}
        made: JSON = await self.raw("DELETE", res.path(namespace, name), body=options)
        return made

    async def watch(
        self,
        res: Resource,
        namespace: str | None = None,
        *,
        resource_version: str,
        label_selector: str | None = None,
        field_selector: str | None = None,
        bookmarks: bool = True,
        timeout_seconds: int = 300,
        headers: Mapping[str, str] | None = None,
        metadata_only: bool = False,
    ) -> AsyncIterator[tuple[str, JSON]]:
        """Changes after `resource_version`: (ADDED | MODIFIED | DELETED | BOOKMARK, object). Ends when the server ends it.

        Raises ApiError for an ERROR event (410 when the version is too old).
        """
        params = _selectors(label_selector, field_selector)
        params |= {
            "watch": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(timeout_seconds),
        }
        if metadata_only:
            headers = {**(headers or {}), "Accept": _PARTIAL}
        if bookmarks:
            params["allowWatchBookmarks"] = "true"
        patience = ClientTimeout(total=None, connect=10, sock_read=timeout_seconds + 30)
        async with await self.open(
            "GET", res.path(namespace), params=params, headers=headers, timeout=patience
        ) as response:
            async for line in lines(response):
                event = _decode(line)
                if event["type"] == "ERROR":
                    raise ApiError.of(event["object"].get("code") or 500, event["object"])
                yield event["type"], event["object"]


async def lines(response: ClientResponse) -> AsyncIterator[bytes]:
    """The lines of a stream, of any length; linear in the bytes read."""
    parts: list[bytes] = []
    async for chunk in response.content.iter_any():
        head, *rest = chunk.split(b"\n")
        parts.append(head)
        for nxt in rest:
            line = b"".join(parts)
            parts = [nxt]
            if line:
                yield line
    if last := b"".join(parts):
        yield last


def _selectors(label: str | None, field: str | None) -> dict[str, str]:
    found = {"labelSelector": label, "fieldSelector": field}
    return {k: v for k, v in found.items() if v}


def _typed(res: Resource, obj: JSON, subresource: str | None) -> JSON:
    """`obj` with apiVersion and kind, which the server demands; a subresource body brings its own."""
    if subresource or ("kind" in obj and "apiVersion" in obj):
        return obj
    return {"apiVersion": res.api_version, "kind": res.kind, **obj}
