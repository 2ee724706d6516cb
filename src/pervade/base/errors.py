"""Errors written for the operator: what was seen, where, the likely cause, the fix."""

from __future__ import annotations


class OperatorError(Exception):
    """A failure a person has to act on.

    `seen` is the fact, `where` the object, file or address, `cause` the most likely reason,
    `fix` what to type or change. Faces print all four; logs carry them as fields.
    """

    def __init__(self, seen: str, *, where: str = "", cause: str = "", fix: str = "") -> None:
        self.seen, self.where, self.cause, self.fix = seen, where, cause, fix
        super().__init__(self.text())

    def text(self) -> str:
        """The whole message, one fact a line; empty parts are left out."""
        rows = (("", self.seen), ("where", self.where), ("cause", self.cause), ("fix", self.fix))
        return "\n".join(f"{label}: {value}" if label else value for label, value in rows if value)
