"""Who calls, as authorization and admission see it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

AUTHENTICATED, UNAUTHENTICATED = "system:authenticated", "system:unauthenticated"
MASTERS = "system:masters"


@dataclasses.dataclass(frozen=True, slots=True)
class User:
    """A caller: name, unique id, groups and what else is known of the credential."""

    name: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)

    def info(self) -> dict[str, object]:
        """The `UserInfo` of reviews."""
        found: dict[str, object] = {"username": self.name, "groups": list(self.groups)}
        if self.uid:
            found["uid"] = self.uid
        if self.extra:
            found["extra"] = {k: list(v) for k, v in self.extra.items()}
        return found


ANONYMOUS = User("system:anonymous", groups=(UNAUTHENTICATED,))
ITSELF = User("system:apiserver", groups=(MASTERS, AUTHENTICATED))
"""The server's own writes, and everyone in the insecure development mode."""
