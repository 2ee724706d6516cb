"""How the parts of the API server fit together: store, kinds, addresses, patches, verbs, HTTP.

`assemble` builds them from values; the composition root adds sockets, TLS and the process.
"""

from __future__ import annotations

import asyncio
import dataclasses
import socket
import ssl
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pervade.cluster.apiserver import typed
from pervade.cluster.apiserver.admission.chain import Chain
from pervade.cluster.apiserver.admission.guard import Guard
from pervade.cluster.apiserver.admission.webhooks import Webhooks
from pervade.cluster.apiserver.auth import default_roles
from pervade.cluster.apiserver.auth.authenticate import Authenticator
from pervade.cluster.apiserver.auth.escalation import Escalation
from pervade.cluster.apiserver.auth.rbac import Authorizer
from pervade.cluster.apiserver.auth.reviews import AccessReviews, Reviews
from pervade.cluster.apiserver.auth.tokens import Tokens
from pervade.cluster.apiserver.fields.apply import applier, tracker
from pervade.cluster.apiserver.kinds.addresses import Addresses
from pervade.cluster.apiserver.kinds.kind import JSON, Kind
from pervade.cluster.apiserver.kinds.registry import Registry
from pervade.cluster.apiserver.rest import bootstrap, expiry, present, status
from pervade.cluster.apiserver.rest.context import Api, Request, Undo
from pervade.cluster.apiserver.rest.definitions import TABLE, Definitions
from pervade.cluster.apiserver.rest.metrics import Metrics
from pervade.cluster.apiserver.rest.plain import Plain
from pervade.cluster.apiserver.rest.server import Server
from pervade.cluster.apiserver.schema import check as schemas
from pervade.cluster.apiserver.schema.openapi import Documents
from pervade.cluster.apiserver.store.state import State
from pervade.cluster.apiserver.streams.kubelet import Kubelets
from pervade.cluster.plan import KUBELET_PORT, KUBERNETES_VERSION
from pervade.host import netns


@dataclasses.dataclass(frozen=True)
class Everyone:
    """The caller in the insecure development mode, and the server itself: an administrator."""

    name: str = "system:apiserver"
    uid: str = ""
    groups: tuple[str, ...] = ("system:masters", "system:authenticated")
    extra: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Settings:
    """What a cluster's plan says about its API server; the defaults are those of the development mode."""

    store: Path
    service_cidr: str = "10.96.0.0/16"
    service_cidr6: str | None = None
    node_ports: range = range(30000, 32768)
    kubernetes_address: str = "10.96.0.1"
    dns_address: str = "10.96.0.10"
    api_address: str | None = None
    server_address: str = "127.0.0.1:6443"
    pki: Path | None = None
    """Keys and certificates; without them (development) every caller is an administrator."""
    fabric: Path | None = None
    """Network namespace from which kubelets are dialled."""
    nodes: dict[str, str] = dataclasses.field(default_factory=dict)
    """Node name → address."""


@dataclasses.dataclass(slots=True)
class Parts:
    """A whole API server without its sockets."""

    settings: Settings
    state: State
    api: Api
    server: Server
    stoppers: list[Callable[[], None]] = dataclasses.field(default_factory=list)
    tasks: list[asyncio.Task[None]] = dataclasses.field(default_factory=list)

    async def start(self) -> None:
        """Open the store, learn what is in it, make what has to exist."""
        self.state.open()
        services = self.api.registry.find("", "v1", "services")
        assert services is not None
        self.addresses.load(present.parse(e.value) for e in self.state.entries(services.table))
        self.definitions.start()
        self.tasks.append(asyncio.get_running_loop().create_task(expiry.run(self.state), name="expiry"))
        where = self.settings.api_address
        await bootstrap.bootstrap(
            self.api,
            Everyone(),
            address=where,
            service_ip=self.settings.kubernetes_address if where else None,
        )
        if self.settings.pki is not None:
            for plural, obj in default_roles.objects():
                await bootstrap.put(
                    self.api,
                    Everyone(),
                    plural,
                    obj,
                    group="rbac.authorization.k8s.io",
                    replace=default_roles.renewed(obj),
                )

    addresses: Addresses = dataclasses.field(kw_only=True)
    definitions: Definitions = dataclasses.field(kw_only=True)

    async def stop(self) -> None:
        """End watches, commit what is queued."""
        self.server.stop()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.definitions.stop()
        for one in self.stoppers:
            one()
        self.state.close()


def version() -> dict[str, str]:
    """What `/version` says: the level of the API, and in its build metadata whose server this is."""
    major, minor = KUBERNETES_VERSION.removeprefix("v").split(".")[:2]
    return {
        "major": major,
        "minor": minor,
        "gitVersion": f"{KUBERNETES_VERSION}+pervade",
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": f"cpython-{sys.version_info.major}.{sys.version_info.minor}",
        "platform": "linux/amd64",
    }


def assemble(settings: Settings) -> Parts:
    """All parts for `settings`; nothing is opened yet."""
    state = State(settings.store)
    registry = Registry()
    families = {"IPv4": settings.service_cidr}
    if settings.service_cidr6:
        families["IPv6"] = settings.service_cidr6
    addresses = Addresses(
        families, settings.node_ports, reserved=(settings.kubernetes_address, settings.dns_address)
    )
    metrics = Metrics()
    api = Api(
        state,
        registry,
        settled=_settled(addresses),
        fields=typed.fields,
        json_patch=typed.patch_json,
        strategic_patch=typed.patch_strategic,
        apply=applier(lambda: api, typed.type_of),
        track=tracker(typed.type_of),
    )
    definitions = Definitions(
        api, Everyone(), compile_version=schemas.compile_version, check_schema=schemas.check
    )
    api.prepare = _prepare(addresses, definitions)
    plain = Plain(
        api,
        metrics,
        version=version(),
        pages={"openapi": typed.OpenApi(Documents(registry)).page},
        address=settings.server_address,
        dumps={"addresses": lambda: dict(addresses.figures())},
    )
    server = _guarded(settings, api, plain, metrics) if settings.pki else _open(api, plain, metrics)
    plain.checks["shutdown"] = lambda: "stopping" if server.stopping else ""
    return Parts(settings, state, api, server, addresses=addresses, definitions=definitions)


def _open(api: Api, plain: Plain, metrics: Metrics) -> Server:
    """The development mode: no credentials, everything allowed."""
    api.admission = Webhooks(api.state, None, typed.fields)
    api.reviews = AccessReviews(Authorizer(api.state)).table()
    return Server(
        api,
        plain,
        authenticate=lambda _http: Everyone(),
        authorize=lambda _user, _info: None,
        metrics=metrics,
    )


def _guarded(settings: Settings, api: Api, plain: Plain, metrics: Metrics) -> Server:
    """Certificates and tokens say who calls, RBAC what they may; pods get their account, streams their kubelet."""
    assert settings.pki is not None
    tokens = Tokens(api.state, (settings.pki / "sa.key").read_bytes(), "https://kubernetes.default.svc")
    authorizer = Authorizer(api.state)
    authenticator = Authenticator(tokens, authorizer.refuse)
    api.reviews = Reviews(api.state, tokens, authorizer).table()
    context = ssl.create_default_context(cafile=str(settings.pki / "ca.crt"))
    client = settings.pki / "apiserver-kubelet-client"
    context.load_cert_chain(f"{client}.crt", f"{client}.key")

    def dial(_address: str, _port: int) -> socket.socket:
        assert settings.fabric is not None
        return netns.inside(settings.fabric, lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM))

    def dial_family(address: tuple[Any, ...]) -> socket.socket:
        assert settings.fabric is not None
        return netns.inside(settings.fabric, lambda: socket.socket(address[0], socket.SOCK_STREAM))

    api.admission = Guard(
        Chain(api.state, Webhooks(api.state, dial_family, typed.fields)), Escalation(authorizer)
    )
    plain.pages |= {".well-known": tokens.page, "openid": tokens.page}

    def address_of(node: str) -> tuple[str, int] | None:
        found = settings.nodes.get(node)
        return (found, KUBELET_PORT) if found else None

    return Server(
        api,
        plain,
        authenticate=authenticator.user,
        authorize=authorizer.request,
        connect=Kubelets(context, dial, address_of).table(),
        metrics=metrics,
    )


def _prepare(
    addresses: Addresses, definitions: Definitions
) -> Callable[[Kind, JSON, JSON | None, Request], Undo | None]:
    """Services get their addresses, definitions their status, as the last step before they are stored."""

    def prepare(kind: Kind, new: JSON, old: JSON | None, request: Request) -> Undo | None:
        if kind.table == TABLE and request.info.subresource != "status":
            definitions.prepare(new, old)
        if kind.table != "/services" or request.info.subresource == "status":
            return None
        causes, undo = addresses.assign(new)
        if causes:
            raise status.invalid(kind, new["metadata"].get("name", ""), causes)
        return undo

    return prepare


def _settled(addresses: Addresses) -> Callable[[Kind, JSON, JSON | None], None]:
    def settled(kind: Kind, old: JSON, new: JSON | None) -> None:
        if kind.table == "/services":
            addresses.release(old, new)

    return settled
