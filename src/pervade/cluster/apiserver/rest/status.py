"""Refusals as `Status` objects (Kubernetes API conventions, "Response Status Kind")."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from pervade.cluster.apiserver.kinds.kind import JSON, Cause, Kind

REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    406: "NotAcceptable",
    409: "Conflict",
    410: "Expired",
    413: "RequestEntityTooLarge",
    415: "UnsupportedMediaType",
    422: "Invalid",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}


class StatusError(Exception):
    """Ends a request with the Status it carries."""

    def __init__(
        self, code: int, message: str, *, reason: str | None = None, details: JSON | None = None
    ) -> None:
        super().__init__(message)
        self.code, self.message = code, message
        self.reason = reason or REASONS.get(code, "Unknown")
        self.details = details
        self.token = ""
        """`metadata.continue` of an expired page: where a list may go on, inconsistently."""

    def body(self) -> JSON:
        """The Status object."""
        out: JSON = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
        }
        out["reason"] = self.reason
        if self.token:
            out["metadata"] = {"continue": self.token}
        if self.details:
            out["details"] = self.details
        out["code"] = self.code
        return out


def _details(kind: Kind, name: str | None, **more: Any) -> JSON:
    found = {"name": name, "group": kind.group, "kind": kind.plural} | more
    return {k: v for k, v in found.items() if v}


def not_found(kind: Kind, name: str) -> StatusError:
    return StatusError(404, f'{kind.group_resource} "{name}" not found', details=_details(kind, name))


def already_exists(kind: Kind, name: str) -> StatusError:
    text = f'{kind.group_resource} "{name}" already exists'
    return StatusError(409, text, reason="AlreadyExists", details=_details(kind, name))


def conflict(kind: Kind, name: str, why: str) -> StatusError:
    text = f'Operation cannot be fulfilled on {kind.group_resource} "{name}": {why}'
    return StatusError(409, text, details=_details(kind, name))


MODIFIED = "the object has been modified; please apply your changes to the latest version and try again"


def invalid(kind: Kind, name: str, causes: Sequence[Cause]) -> StatusError:
    """422 with one cause per field, worded as upstream words it."""
    said = [f"{c.field}: {c.message}" for c in causes]
    text = said[0] if len(said) == 1 else "[" + ", ".join(said) + "]"
    group = f"{kind.kind}.{kind.group}" if kind.group else kind.kind
    listed = [{"reason": c.reason, "message": c.message, "field": c.field} for c in causes]
    details = {"name": name, "group": kind.group, "kind": kind.kind, "causes": listed}
    return StatusError(
        422, f'{group} "{name}" is invalid: {text}', details={k: v for k, v in details.items() if v}
    )


def forbidden(kind: Kind, name: str, why: str) -> StatusError:
    target = f'{kind.group_resource} "{name}"' if name else kind.group_resource
    return StatusError(403, f"{target} is forbidden: {why}", details=_details(kind, name))


def bad_request(message: str) -> StatusError:
    return StatusError(400, message)


def success(kind: Kind, name: str, uid: str) -> JSON:
    """The answer to a deletion that is complete."""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": _details(kind, name, uid=uid),
    }


def warnings(texts: Iterable[str]) -> list[tuple[str, str]]:
    """`Warning` headers (RFC 7234 5.5, code 299) for `texts`."""
    out = []
    for text in texts:
        quoted = (
            text.replace("\\", "\\\\")
            .replace('"', '\\"')
            .replace("\n", " ")
            .encode("latin-1", "replace")
            .decode("latin-1")
        )
        out.append(("Warning", f'299 - "{quoted[:512]}"'))
    return out
