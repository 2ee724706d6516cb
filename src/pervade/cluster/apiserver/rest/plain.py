"""What is no resource: version, health, discovery, metrics and the dump of the server's state."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from pervade.cluster.apiserver.kinds.kind import JSON
from pervade.cluster.apiserver.rest import answer, discovery, negotiate
from pervade.cluster.apiserver.rest.context import Api
from pervade.cluster.apiserver.rest.metrics import Metrics
from pervade.wire.http import web

Page = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
Check = Callable[[], str]
"""Gives "" when all is well, else what is wrong."""


class Plain:
    """Serves the paths outside of resources. `pages` maps first path parts (`openapi`) to further pages."""

    def __init__(
        self,
        api: Api,
        metrics: Metrics,
        *,
        version: JSON,
        address: str = "",
        pages: dict[str, Page] | None = None,
        checks: dict[str, Check] | None = None,
        dumps: dict[str, Callable[[], JSON]] | None = None,
    ) -> None:
        self.api, self.metrics, self.version, self.address = api, metrics, version, address
        self.pages, self.checks, self.dumps = pages or {}, checks or {}, dumps or {}
        self._cached: dict[object, tuple[int, bytes]] = {}

    async def serve(self, http: web.BaseRequest, path: str) -> web.StreamResponse:
        path = path.rstrip("/") or "/"
        first, _, rest = path.lstrip("/").partition("/")
        if first in self.pages:
            return await self.pages[first](http)
        if first in ("healthz", "livez", "readyz"):
            return self._health(first, rest, verbose="verbose" in http.query)
        match path:
            case "/version":
                return answer.body(self.version)
            case "/metrics":
                text = self.metrics.text(self.api.state, sum(1 for _ in self.api.registry))
                return web.Response(
                    text=text, headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
                )
            case "/debug/store":
                return answer.body(
                    self.api.state.dump() | {name: make() for name, make in self.dumps.items()}
                )
            case "/api" | "/apis":
                return self._groups(http, core=path == "/api")
        found = self._document(path)
        if found is None:
            return web.Response(status=404, text="404 page not found\n")
        return answer.body(found, answer.asked(http))

    def _health(self, page: str, only: str, *, verbose: bool) -> web.Response:
        """The state of the server, as text: `ok`, or one line a check."""
        checks: dict[str, Check] = {"ping": lambda: "", **self.checks}
        if only:
            if only not in checks:
                return web.Response(status=404, text="404 page not found\n")
            checks = {only: checks[only]}
        elif page == "livez":
            checks.pop("shutdown", None)
        found = {name: check() for name, check in checks.items()}
        bad = any(found.values())
        if not bad and not verbose:
            return web.Response(text="ok")
        lines = [f"[-]{n} failed: {why}" if why else f"[+]{n} ok" for n, why in found.items()]
        lines.append(f"{page} check {'failed' if bad else 'passed'}")
        return web.Response(status=500 if bad else 200, text="\n".join(lines) + "\n")

    def _groups(self, http: web.BaseRequest, *, core: bool) -> web.Response:
        accept = http.headers.get("Accept", "")
        version = negotiate.wants_aggregated(accept)
        if version is None:
            form = negotiate.choose(accept)
            found = discovery.api_versions(self.address) if core else discovery.group_list(self.api.registry)
            return answer.body(found, form)
        revision = self.api.registry.revision
        cached = self._cached.get((version, core))
        if cached is None or cached[0] != revision:
            shown = discovery.aggregated(self.api.registry, core=core)
            shown["apiVersion"] = f"apidiscovery.k8s.io/{version}"
            cached = self._cached[version, core] = revision, msgspec.json.encode(shown)
        content = discovery.AGGREGATED.replace("v=v2;", f"v={version};")
        return web.Response(body=cached[1], headers={"Content-Type": content})

    def _document(self, path: str) -> JSON | None:
        registry = self.api.registry
        parts = path.strip("/").split("/")
        match parts:
            case ["api", version]:
                return discovery.resource_list(registry, "", version)
            case ["apis", group] if group in registry.groups():
                return discovery.group(registry, group)
            case ["apis", group, version]:
                return discovery.resource_list(registry, group, version)
            case [""]:
                groups = registry.groups()
                paths = [f"/apis/{g}" for g in groups]
                paths += [f"/apis/{g}/{v}" for g in groups for v in registry.versions(g)]
                fixed = ["/api", "/api/v1", "/apis", "/healthz", "/livez", "/metrics", "/readyz", "/version"]
                return {"paths": sorted([*fixed, *paths, *(f"/{p}" for p in self.pages)])}
        return None
