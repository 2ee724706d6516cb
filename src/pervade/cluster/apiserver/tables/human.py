"""Times, selectors and lists as kubectl's users know them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any


def duration(seconds: float) -> str:
    """An age in two units at most: 5s, 2m30s, 5h, 3d4h, 2y10d."""
    s = int(seconds)
    if s < -1:
        return "<invalid>"
    if s < 0:
        return "0s"
    minutes, hours, days = s // 60, s // 3600, s // 86400
    if s < 120:
        return f"{s}s"
    if minutes < 10:
        return f"{minutes}m{s % 60}s" if s % 60 else f"{minutes}m"
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return f"{days}d{hours % 24}h" if hours % 24 else f"{days}d"
    if days < 730:
        return f"{days}d"
    years = days // 365
    if years < 8:
        return f"{years}y{days % 365}d" if days % 365 else f"{years}y"
    return f"{years}y"


def moment(stamp: Any) -> datetime | None:
    """The time of an RFC 3339 stamp; None for a text that is none."""
    try:
        found = datetime.fromisoformat(stamp)
    except (TypeError, ValueError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def age(stamp: Any, now: datetime) -> str:
    """The time since an RFC 3339 stamp; `<unknown>` without one, `<invalid>` for what is no time."""
    if not stamp:
        return "<unknown>"
    at = moment(stamp)
    return "<invalid>" if at is None else duration((now - at).total_seconds())


def listed(values: Iterable[Any], limit: int = 0) -> str:
    """Values by comma, `<none>` for no value; after `limit` of them `+ N more...`."""
    found = [str(v) for v in values]
    if limit and len(found) > limit:
        return f"{','.join(found[:limit])} + {len(found) - limit} more..."
    return ",".join(found) or "<none>"


def labels(chosen: Mapping[str, Any] | None) -> str:
    return listed(f"{k}={v}" for k, v in sorted((chosen or {}).items()))


def selector(chosen: Mapping[str, Any] | None) -> str:
    """A LabelSelector in the short form."""
    chosen = chosen or {}
    parts = [f"{k}={v}" for k, v in sorted((chosen.get("matchLabels") or {}).items())]
    for one in chosen.get("matchExpressions") or ():
        key, operator = one.get("key", ""), one.get("operator", "")
        values = ",".join(one.get("values") or ())
        forms = {"In": f"{key} in ({values})", "NotIn": f"{key} notin ({values})"}
        parts.append(forms.get(operator, key if operator == "Exists" else f"!{key}"))
    return listed(parts)
