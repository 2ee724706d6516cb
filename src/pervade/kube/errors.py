"""What the API server refused: its `Status`, as an exception."""

from __future__ import annotations

from typing import Any


class ApiError(Exception):
    """An answer of 400 or more. `details` is the Status' own (kind, name, causes, retryAfterSeconds)."""

    def __init__(
        self, status_code: int, reason: str, message: str, details: dict[str, Any] | None = None
    ) -> None:
        super().__init__(f"{status_code} {reason}: {message}")
        self.status_code, self.reason, self.message, self.details = (
            status_code,
            reason,
            message,
            details or {},
        )

    @classmethod
    def of(cls, status_code: int, body: Any) -> ApiError:
        """From a decoded body, which may be a Status or anything a proxy in between has said."""
        if isinstance(body, dict) and body.get("kind") == "Status":
            return cls(
                int(body.get("code") or status_code),
                body.get("reason") or "",
                body.get("message") or "",
                body.get("details"),
            )
        return cls(status_code, "", str(body)[:500])

    @property
    def not_found(self) -> bool:
        return self.status_code == 404

    @property
    def already_exists(self) -> bool:
        return self.status_code == 409 and self.reason == "AlreadyExists"

    @property
    def conflict(self) -> bool:
        return self.status_code == 409 and self.reason != "AlreadyExists"

    @property
    def namespace_terminating(self) -> bool:
        """A creation was refused because its namespace is ending: trying again is of no use."""
        causes = self.details.get("causes") or ()
        return self.status_code == 403 and any(c.get("reason") == "NamespaceTerminating" for c in causes)

    @property
    def gone(self) -> bool:
        """The asked resourceVersion is too old: list again."""
        return self.status_code == 410
