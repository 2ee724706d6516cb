"""Patches of objects, pure: JSON patch, JSON merge patch, strategic merge patch."""

from __future__ import annotations


class PatchError(ValueError):
    """A patch that cannot be applied. `code` is the HTTP status: 400 malformed, 422 not applicable."""

    def __init__(self, text: str, code: int = 400) -> None:
        super().__init__(text)
        self.code = code
