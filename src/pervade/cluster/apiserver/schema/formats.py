"""The string formats that schemas of custom resources may name; a format that is not here is not checked.

Source: Kubernetes, "Extend the Kubernetes API with CustomResourceDefinitions", validation (formats).
"""

from __future__ import annotations

import base64
import binascii
import datetime
import ipaddress
import re
import urllib.parse
from collections.abc import Callable
from typing import Any

_PART = r"[A-Za-z0-9]([-A-Za-z0-9]{0,61}[A-Za-z0-9])?"
_HOST = re.compile(rf"(?=.{{1,255}}$){_PART}(\.{_PART})*")
_UUID = r"[0-9a-fA-F]{8}-?[0-9a-fA-F]{4}-?%s[0-9a-fA-F]{3}-?%s[0-9a-fA-F]{3}-?[0-9a-fA-F]{12}"
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:?\d\d)")
_UNIT = "h|hr|hours?|m|min|minutes?|s|sec|seconds?|ms|milliseconds?|us|µs|ns|d|days?|w|weeks?"
_DURATION = re.compile(rf"-?(\d+(\.\d+)?\s?({_UNIT}))+")


def _parses(read: Callable[[str], Any]) -> Callable[[str], bool]:
    def test(text: str) -> bool:
        try:
            read(text)
        except (ValueError, binascii.Error):
            return False
        return True

    return test


def _full(pattern: str) -> Callable[[str], bool]:
    compiled = re.compile(pattern)
    return lambda text: compiled.fullmatch(text) is not None


def _date_time(text: str) -> bool:
    return _TIME.fullmatch(text) is not None and _parses(datetime.date.fromisoformat)(text[:10])


def _uri(text: str) -> bool:
    try:
        found = urllib.parse.urlsplit(text)
    except ValueError:
        return False
    return bool(found.scheme or text.startswith("/"))


def _email(text: str) -> bool:
    local, at, host = text.rpartition("@")
    return bool(at and local and host and not re.search(r"\s", text))


_ANY = "[0-9a-fA-F]"
TESTS: dict[str, Callable[[str], bool]] = {
    "byte": _parses(lambda text: base64.b64decode(text, validate=True)),
    "cidr": lambda text: "/" in text and _parses(lambda t: ipaddress.ip_network(t, strict=False))(text),
    "date": lambda text: len(text) == 10 and _parses(datetime.date.fromisoformat)(text),
    "date-time": _date_time,
    "datetime": _date_time,
    "duration": lambda text: _DURATION.fullmatch(text) is not None,
    "email": _email,
    "hexcolor": _full(r"#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})"),
    "hostname": lambda text: _HOST.fullmatch(text) is not None,
    "ipv4": _parses(ipaddress.IPv4Address),
    "ipv6": _parses(ipaddress.IPv6Address),
    "mac": _full(r"([0-9a-fA-F]{2}[:-]){5}[0-9a-fA-F]{2}"),
    "rgbcolor": _full(r"rgb\(\s*\d{1,3}\s*,\s*\d{1,3}\s*,\s*\d{1,3}\s*\)"),
    "uri": _uri,
    "uuid": _full(_UUID % (_ANY, _ANY)),
    "uuid3": _full(_UUID % ("3", _ANY)),
    "uuid4": _full(_UUID % ("4", "[89abAB]")),
    "uuid5": _full(_UUID % ("5", "[89abAB]")),
}
"""Format to its test; each is linear in the text."""
