"""The type of a value as a tree of nodes; nodes of definitions are shared and may refer to themselves."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(slots=True)
class Node:
    """One type. `kind` is object, map, list, string, integer, number, boolean, intstr, quantity or any.

    `list_type` atomic, set or map with `map_keys` (server-side apply); `merge_key` and `strategies` are those
    of strategic merge patch; `atomic` objects are replaced as a whole by server-side apply.
    """

    kind: str = "any"
    properties: dict[str, Node] = dataclasses.field(default_factory=dict)
    items: Node | None = None
    list_type: str = "atomic"
    map_keys: tuple[str, ...] = ()
    atomic: bool = False
    merge_key: str = ""
    strategies: tuple[str, ...] = ()
    format: str = ""
    embedded: bool = False
    """An object that carries fields nobody declared (custom resources: x-kubernetes-preserve-unknown-fields)."""


ANY = Node()
"""Anything goes, nothing is known."""
