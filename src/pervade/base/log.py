"""Log lines of every process: standard logging, one line a record, `key=value` or JSON.

`log = logging.getLogger(__name__)`, then `log.info("pod ready", extra={"pod": "default/web"})`.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import TextIO

_PLAIN = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class LineFormatter(logging.Formatter):
    """One record as `TIME LEVEL logger message key=value …`, or as a JSON object; O(fields)."""

    def __init__(self, *, as_json: bool = False) -> None:
        super().__init__()
        self.as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        fields = {k: v for k, v in vars(record).items() if k not in _PLAIN}
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        name = record.name.removeprefix("pervade.")
        if self.as_json:
            head = {
                "time": when,
                "level": record.levelname.lower(),
                "scope": name,
                "msg": record.getMessage(),
            }
            return json.dumps(head | fields, default=str)
        tail = "".join(f" {k}={_value(v)}" for k, v in fields.items())
        return f"{when} {record.levelname.lower()} {name} {record.getMessage()}{tail}"


def _value(value: object) -> str:
    text = str(value)
    return json.dumps(text) if not text or any(c in text for c in ' "=\n') else text


def set_up(*, level: str = "info", as_json: bool = False, stream: TextIO | None = None) -> None:
    """Point the root logger at `stream` (default stderr); call once, from a composition root."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(LineFormatter(as_json=as_json))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
