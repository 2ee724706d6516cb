"""Which kinds are served right now: the built-in ones and those of CustomResourceDefinitions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pervade.cluster.apiserver.kinds.builtin import BUILTIN
from pervade.cluster.apiserver.kinds.kind import Kind

_PREFERRED = {"autoscaling": "v2"}


class Registry:
    """Look-ups by group, version and plural; `custom` kinds come and go with their definition."""

    def __init__(self, builtin: Iterable[Kind] = BUILTIN) -> None:
        self._kinds: dict[tuple[str, str, str], Kind] = {(k.group, k.version, k.plural): k for k in builtin}
        self._custom: dict[str, tuple[tuple[str, str, str], ...]] = {}
        self.revision = 0
        """Counts changes; caches of discovery and OpenAPI follow it."""

    def find(self, group: str, version: str, plural: str) -> Kind | None:
        return self._kinds.get((group, version, plural))

    def by_kind(self, api_version: str, kind: str) -> Kind | None:
        """The resource of an object's apiVersion and kind; O(kinds)."""
        for one in self._kinds.values():
            if one.kind == kind and one.api_version == api_version and not one.review:
                return one
        return None

    def put_custom(self, definition: str, kinds: Iterable[Kind]) -> None:
        """Serve `kinds` for the definition of that name, instead of what it served before."""
        self.drop_custom(definition)
        made = {(k.group, k.version, k.plural): k for k in kinds}
        self._kinds |= made
        self._custom[definition] = tuple(made)
        self.revision += 1

    def drop_custom(self, definition: str) -> None:
        for key in self._custom.pop(definition, ()):
            self._kinds.pop(key, None)
        self.revision += 1

    def __iter__(self) -> Iterator[Kind]:
        return iter(self._kinds.values())

    def versions(self, group: str) -> list[str]:
        """Served versions, the preferred one first (then GA before beta before alpha, higher first)."""
        found = {k.version for k in self._kinds.values() if k.group == group}
        return sorted(found, key=lambda v: (v != _PREFERRED.get(group), *_priority(v)))

    def groups(self) -> list[str]:
        """Named groups that are served, built-in ones first."""
        return list(dict.fromkeys(k.group for k in self._kinds.values() if k.group))


def _priority(version: str) -> tuple[int, int, int, str]:
    import re

    match = re.fullmatch(r"v(\d+)(?:(alpha|beta)(\d+))?", version)
    if not match:
        return (3, 0, 0, version)
    major, stage, minor = match.groups()
    return ({None: 0, "beta": 1, "alpha": 2}[stage], -int(major), -int(minor or 0), version)
