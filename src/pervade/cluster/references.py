"""Image references, and the map from upstream names to images that are on every node. Pure.

The file `image-map.json` in a node's state folder holds `{"rules": [{"match": NAME, "image": REFERENCE}]}`.
`match` is a full reference without tag or digest, a trailing `*` matches any end. A kubelet first looks
for the exact reference among the node's images, then for the first rule, then asks a registry.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec


class Rule(msgspec.Struct, frozen=True):
    """`match` (reference without tag, may end in `*`) → `image` (a reference that is on every node)."""

    match: str
    image: str


class ImageMap(msgspec.Struct, frozen=True):
    """The rules, first match wins."""

    rules: tuple[Rule, ...]


def full(reference: str) -> str:
    """A reference with its registry and path spelled out (`curl` → `docker.io/library/curl`), tag kept."""
    head, _, rest = reference.partition("/")
    if not rest:
        return f"docker.io/library/{reference}"
    if "." not in head and ":" not in head and head != "localhost":
        return f"docker.io/{reference}"
    return reference


def without_tag(reference: str) -> str:
    """A reference without tag and digest."""
    name = reference.partition("@")[0]
    head, slash, last = name.rpartition("/")
    return head + slash + last.partition(":")[0]


def resolve(reference: str, rules: Sequence[Rule]) -> str | None:
    """The image made here for `reference`, or None."""
    name = without_tag(full(reference))
    for rule in rules:
        if rule.match == name or (rule.match.endswith("*") and name.startswith(rule.match[:-1])):
            return rule.image
    return None
