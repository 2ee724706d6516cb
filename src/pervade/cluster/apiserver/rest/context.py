"""What every verb needs: the parts of the server, and one request as values."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from pervade.cluster.apiserver.kinds.kind import JSON, Cause, Kind
from pervade.cluster.apiserver.kinds.registry import Registry
from pervade.cluster.apiserver.rest.info import Info
from pervade.cluster.apiserver.store.state import State

RESERVED_NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")
Undo = Callable[[], None]


class User(Protocol):
    """Who calls."""

    @property
    def name(self) -> str: ...
    @property
    def uid(self) -> str: ...
    @property
    def groups(self) -> tuple[str, ...]: ...
    @property
    def extra(self) -> Mapping[str, tuple[str, ...]]: ...


class Admission(Protocol):
    """The chain that may change (`mutate`) and refuse (`validate`) an object; raises StatusError."""

    async def mutate(
        self, request: Request, operation: str, obj: JSON | None, old: JSON | None
    ) -> JSON | None: ...
    async def validate(
        self, request: Request, operation: str, obj: JSON | None, old: JSON | None
    ) -> None: ...


@dataclasses.dataclass(slots=True)
class Request:
    """One request, after authentication."""

    info: Info
    kind: Kind
    query: Mapping[str, str]
    user: Any
    body: bytes = b""
    content_type: str = ""
    user_agent: str = ""
    warnings: list[str] = dataclasses.field(default_factory=list)
    force_dry_run: bool = False
    duplicates: list[str] = dataclasses.field(default_factory=list)
    """Fields that the body named twice."""

    @property
    def dry_run(self) -> bool:
        return self.force_dry_run or "All" in self.query.get("dryRun", "")

    @property
    def field_manager(self) -> str:
        """The given manager, else the first word of the user agent (as upstream)."""
        given = self.query.get("fieldManager")
        return (given or self.user_agent.split("/")[0] or "unknown")[:128]

    @property
    def field_validation(self) -> str:
        return self.query.get("fieldValidation") or "Warn"


def _complete(kind: Kind, new: JSON, _old: JSON | None, _request: Request) -> None:
    if kind.strategy.default:
        kind.strategy.default(new)


def _validate(kind: Kind, new: JSON, old: JSON | None, subresource: str) -> list[Cause]:
    validate = kind.strategy.validate
    if validate is None:
        return []
    if kind.custom is not None:
        # One schema holds for all of a custom object, its status too.
        return validate(new, old)
    if subresource in ("status", "finalize", "approval"):
        return []
    # What an action such as a binding changes is not what a caller may change: no comparison with the old object.
    return validate(new, old if subresource in ("", "scale") else None)


def _no_undo(_kind: Kind, _new: JSON, _old: JSON | None, _request: Request) -> Undo | None:
    return None


def _unchanged(_kind: Kind, _old: JSON | None, new: JSON, _request: Request, _subresource: str) -> JSON:
    return new


def _nothing(_kind: Kind, _old: JSON, _new: JSON | None) -> None:
    return None


@dataclasses.dataclass(slots=True)
class Api:
    """The parts of one API server, put together by the composition root."""

    state: State
    registry: Registry
    admission: Admission | None = None
    reviews: Mapping[str, Callable[[Request, JSON], Awaitable[JSON]]] = dataclasses.field(
        default_factory=dict
    )
    """Answers of review kinds and of `kind/subresource` creations such as `serviceaccounts/token`."""
    fields: Callable[[Kind, JSON, Request], None] = lambda _kind, _obj, _request: None
    """Unknown and mistyped fields of a body: drops, warns about or refuses them (fieldValidation)."""
    complete: Callable[[Kind, JSON, JSON | None, Request], None] = _complete
    """Defaults, in place (new, old)."""
    validate: Callable[[Kind, JSON, JSON | None, str], list[Cause]] = _validate
    """What is wrong with an object of a kind (new, old, subresource)."""
    prepare: Callable[[Kind, JSON, JSON | None, Request], Undo | None] = _no_undo
    """Last step before a write, without await: addresses and ports are reserved here; the undo gives them back."""
    settled: Callable[[Kind, JSON, JSON | None], None] = _nothing
    """Called after a committed update or deletion (old, new)."""
    track: Callable[[Kind, JSON | None, JSON, Request, str], JSON] = _unchanged
    """Field management: `new` with managedFields brought up to date (old, new, request, subresource)."""
    json_patch: Callable[[JSON, Any], JSON] = dataclasses.field(kw_only=True)
    strategic_patch: Callable[[Kind, JSON, JSON], JSON] = dataclasses.field(kw_only=True)
    apply: Callable[[Request, JSON], Awaitable[tuple[JSON, bool]]] = dataclasses.field(kw_only=True)
    """Server-side apply: the object, and whether it was created."""
