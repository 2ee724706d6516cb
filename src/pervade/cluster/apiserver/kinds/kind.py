"""One served kind, as a value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

JSON = dict[str, Any]
ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


class Cause(msgspec.Struct, frozen=True):
    """One reason why an object is invalid: `field` path, `reason` such as FieldValueRequired, text."""

    field: str
    message: str
    reason: str = "FieldValueInvalid"


class Strategy(msgspec.Struct, frozen=True):
    """What is special about a kind; every function is pure and may change the object it is given.

    `default(new)`; `create(new)` and `update(new, old)` reset what a caller may not set; `validate(new, old)`
    gives causes; `warn(new)` gives texts for the `Warning` header.
    """

    default: Callable[[JSON], None] | None = None
    create: Callable[[JSON], None] | None = None
    update: Callable[[JSON, JSON], None] | None = None
    validate: Callable[[JSON, JSON | None], list[Cause]] | None = None
    warn: Callable[[JSON], list[str]] | None = None


class Kind(msgspec.Struct, frozen=True):
    """A resource of one group and version. `store` names the table all versions share (`group/plural`).

    `generation`: metadata.generation counts changes of everything but metadata and status.
    `review`: created, answered and never stored.
    """

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    singular: str = ""
    short: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ALL_VERBS
    status: bool = False
    scale: bool = False
    subresources: tuple[tuple[str, str, tuple[str, ...]], ...] = ()
    """Further subresources: name, kind (`group/version.Kind` or plain), verbs."""
    generation: bool = False
    fields: tuple[str, ...] = ()
    """Field selectors besides metadata.name and metadata.namespace."""
    store: str = ""
    storage: str = ""
    """apiVersion objects are stored in, when it is not the kind's own."""
    strategy: Strategy = Strategy()
    review: bool = False
    custom: Any = None
    """The compiled CustomResourceDefinition version behind this kind, for custom resources."""

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def stored_version(self) -> str:
        return self.storage or self.api_version

    @property
    def table(self) -> str:
        return self.store or f"{self.group}/{self.plural}"

    @property
    def group_resource(self) -> str:
        """As messages spell it: `pods`, `deployments.apps`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def list_kind(self) -> str:
        return f"{self.kind}List"

    @property
    def name_singular(self) -> str:
        return self.singular or self.kind.lower()
