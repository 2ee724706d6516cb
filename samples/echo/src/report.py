"""What the echo server says about a connection and a request: plain values, made in one place."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from typing import Any

# The variables a manifest fills from the downward API.
POD = {
    "name": "POD_NAME",
    "ip": "POD_IP",
    "namespace": "POD_NAMESPACE",
    "node": "NODE_NAME",
    "serviceAccount": "SERVICE_ACCOUNT",
    "version": "VERSION",
}
SHOWN = 1024


def pod() -> dict[str, str]:
    """Who answers, from the environment; HOSTNAME stands in for a name that nobody gave."""
    found = {key: os.environ.get(variable, "") for key, variable in POD.items()}
    found["name"] = found["name"] or os.environ.get("HOSTNAME", "")
    return {key: value for key, value in found.items() if value}


def address(name: Any) -> str:
    """`ip:port` of a socket name; IPv4 inside IPv6 is shown as IPv4."""
    if not name:
        return ""
    host, port = str(name[0]).removeprefix("::ffff:"), name[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class Body:
    """The size, hash and beginning of a request's body, without keeping it."""

    def __init__(self) -> None:
        self.size, self.head, self._hash = 0, b"", hashlib.sha256()

    def add(self, data: bytes) -> None:
        self.size += len(data)
        self.head += data[: SHOWN - len(self.head)]
        self._hash.update(data)

    def seen(self) -> dict[str, Any]:
        return {
            "bytes": self.size,
            "sha256": self._hash.hexdigest(),
            "text": self.head.decode(errors="replace"),
        }


class Connection:
    """One connection: its number, both addresses, TLS, and how many requests it carried."""

    _count = 0

    def __init__(self, peer: Any, local: Any, tls: Any = None) -> None:
        Connection._count += 1
        self.number, self.requests = Connection._count, 0
        self.peer, self.local, self.tls = address(peer), address(local), _tls(tls)

    def report(self, protocol: str, **more: Any) -> dict[str, Any]:
        """What was seen; `more` are the fields of the protocol."""
        self.requests += 1
        found = {
            "protocol": protocol,
            "peer": self.peer,
            "local": self.local,
            "tls": self.tls,
            "connection": self.number,
            "request": self.requests,
        }
        return {**found, **more, "pod": pod()}


def _tls(session: Any) -> dict[str, Any] | None:
    if session is None:
        return None
    return {
        "version": session.version(),
        "cipher": session.cipher()[0],
        "alpn": session.selected_alpn_protocol(),
        "serverName": getattr(session, "asked_name", None),
    }


def merged(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Headers by lower-case name, those that came several times joined as RFC 9110 5.3 does."""
    found: dict[str, str] = {}
    for name, value in headers:
        key = name.lower()
        found[key] = f"{found[key]}, {value}" if key in found else value
    return found


def line(report: dict[str, Any]) -> bytes:
    """One line of JSON."""
    return json.dumps(report).encode() + b"\n"


def page(report: dict[str, Any]) -> bytes:
    """JSON for a reader."""
    return json.dumps(report, indent=2).encode() + b"\n"
