"""The functions that Kubernetes adds to CEL: URLs, addresses, regular expressions, quantities, named formats.

Source: Kubernetes, "Common Expression Language in Kubernetes".
"""

from __future__ import annotations

import datetime
import functools
import ipaddress
import itertools
import re
import urllib.parse
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Any

from cel_expr_python import cel
from cel_expr_python.ext import ext_bindings, ext_math, ext_optional, ext_strings

_S, _B, _I, _D = cel.Type.STRING, cel.Type.BOOL, cel.Type.INT, cel.Type.DYN
_DURATION = re.compile(r"(-?\d+(?:\.\d+)?)(h|ms|us|ns|m|s)")
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_SCALE = {"": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18, "m": -3, "u": -6, "n": -9}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_FORMATS: dict[str, Callable[[str], bool]] = {
    "dns1123Label": lambda s: len(s) <= 63 and re.fullmatch(_LABEL, s) is not None,
    "dns1123Subdomain": lambda s: len(s) <= 253 and re.fullmatch(rf"{_LABEL}(\.{_LABEL})*", s) is not None,
    "dns1035Label": lambda s: len(s) <= 63 and re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", s) is not None,
    "qualifiedName": lambda s: (
        re.fullmatch(rf"({_LABEL}(\.{_LABEL})*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{{0,61}}[A-Za-z0-9])?", s)
        is not None
    ),
    "labelValue": lambda s: re.fullmatch(r"(([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9])?", s) is not None,
    "uri": lambda s: is_url(s),
    "uuid": lambda s: re.fullmatch(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", s) is not None,
    "date": lambda s: _parses(datetime.date.fromisoformat, s),
    "datetime": lambda s: _parses(datetime.datetime.fromisoformat, s),
}


_CHECK = "k8s_format_"
_VALIDATE = re.compile(r"\bformat\.(\w+)\(\)\.validate\(")


def _parses(read: Callable[[str], Any], text: str) -> bool:
    try:
        read(text)
    except ValueError:
        return False
    return True


def duration(text: str) -> datetime.timedelta:
    """A Go duration; ValueError for something else."""
    rest = text.removeprefix("-")
    parts = _DURATION.findall(rest)
    if not parts or "".join(a + b for a, b in parts) != rest:
        raise ValueError(f"{text!r} is no duration")
    seconds = sum(float(a) * _UNITS[b] for a, b in parts)
    return datetime.timedelta(seconds=-seconds if text.startswith("-") else seconds)


def is_url(text: str) -> bool:
    found = urllib.parse.urlsplit(text) if _parses(urllib.parse.urlsplit, text) else None
    return found is not None and (bool(found.scheme and (found.netloc or found.path)) or text.startswith("/"))


def _url(part: Callable[[urllib.parse.SplitResult], str]) -> Callable[[str], str]:
    return lambda text: part(urllib.parse.urlsplit(text))


def quantity(text: str) -> Decimal:
    """A resource quantity; ValueError for something else."""
    match = re.fullmatch(r"([+-]?[0-9.]+)(?:e([+-]?\d+)|([KMGTPE]i)|([numkMGTPE]?))", text)
    try:
        if match is None:
            raise ValueError(f"{text!r} is no quantity")
        number, exponent, binary, scale = match.groups()
        if binary:
            return Decimal(number) * Decimal(2 ** _BINARY[binary])
        return Decimal(number).scaleb(int(exponent) if exponent else _SCALE[scale or ""])
    except InvalidOperation:
        raise ValueError(f"{text!r} is no quantity") from None


def _plain(number: Decimal) -> str:
    """A quantity as expressions carry it: the same text for the same number."""
    text = format(number, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An address without zone, and no IPv4 address in IPv6 form; ValueError for something else."""
    found = ipaddress.ip_address(text)
    if "%" in text or (found.version == 6 and found.ipv4_mapped is not None):
        raise ValueError(f"{text!r} is no address without zone and mapping")
    return found


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    """An address with a prefix length; ValueError for something else."""
    address, slash, length = text.partition("/")
    if not slash or not length.isascii() or not length.isdigit():
        raise ValueError(f"{text!r} is no address with a prefix length")
    _address(address)
    return ipaddress.ip_network(text, strict=False)


def _inside(network: str, other: str) -> bool:
    a, b = _network(network), _network(other)
    return a.version == b.version and a.supernet_of(b)  # type: ignore[arg-type]


def _local_multicast(text: str) -> bool:
    found = _address(text)
    return found in ipaddress.ip_network("224.0.0.0/24" if found.version == 4 else "ff02::/16")


def _global_unicast(text: str) -> bool:
    one = _address(text)
    return not (
        one.is_unspecified
        or one.is_loopback
        or one.is_multicast
        or one.is_link_local
        or text == "255.255.255.255"
    )


def _declared(
    name: str, result: Any, parameters: list[Any], impl: Callable[..., Any], *, member: bool = False
) -> tuple[str, Any]:
    mark = f"k8s_{name}_{len(parameters)}_{'member' if member else 'global'}_{'_'.join(p.name() for p in parameters)}"
    return name, cel.Overload(mark, return_type=result, parameters=parameters, is_member=member, impl=impl)


def _compared(test: Callable[[Decimal, Decimal], Any]) -> Callable[[str, str], Any]:
    return lambda a, b: test(quantity(a), quantity(b))


def _check(name: str, text: str) -> list[str]:
    return [] if _FORMATS[name](text) else [f"must be a {name}"]


def readable(rule: str) -> str:
    """A rule with `format.NAME().validate(X)` written out, since our functions cannot return an optional."""
    while match := _VALIDATE.search(rule):
        at, depth = match.end(), 1
        while at < len(rule) and depth:
            depth += {"(": 1, ")": -1}.get(rule[at], 0)
            at += 1
        call = f"{_CHECK}{match.group(1)}({rule[match.end() : at - 1]})"
        optional = f"({call}.size() == 0 ? optional.none() : optional.of({call}))"
        rule = rule[: match.start()] + optional + rule[at:]
    return rule


def _functions() -> list[Any]:
    texts, anything = cel.Type.List(_S), cel.Type.List(_D)
    rows = [
        _declared("isURL", _B, [_S], is_url),
        _declared("url", _S, [_S], lambda s: s),
        _declared("getScheme", _S, [_S], _url(lambda u: u.scheme), member=True),
        _declared("getHost", _S, [_S], _url(lambda u: u.netloc.rpartition("@")[2]), member=True),
        _declared("getHostname", _S, [_S], _url(lambda u: u.hostname or ""), member=True),
        _declared("getPort", _S, [_S], _url(lambda u: str(u.port or "")), member=True),
        _declared("getEscapedPath", _S, [_S], _url(lambda u: u.path), member=True),
        _declared("getQuery", cel.Type.Map(_S, texts), [_S], lambda s: urllib.parse.parse_qs(urllib.parse.urlsplit(s).query), member=True),
        _declared("isIP", _B, [_S], lambda s: _parses(_address, s)),
        _declared("ip", _S, [_S], lambda s: str(_address(s))),
        _declared("ip.isCanonical", _B, [_S], lambda s: str(_address(s)) == s),
        _declared("family", _I, [_S], lambda s: _address(s).version, member=True),
        _declared("isLoopback", _B, [_S], lambda s: _address(s).is_loopback, member=True),
        _declared("isUnspecified", _B, [_S], lambda s: _address(s).is_unspecified, member=True),
        _declared("isLinkLocalMulticast", _B, [_S], _local_multicast, member=True),
        _declared("isLinkLocalUnicast", _B, [_S], lambda s: _address(s).is_link_local, member=True),
        _declared("isGlobalUnicast", _B, [_S], _global_unicast, member=True),
        _declared("isCIDR", _B, [_S], lambda s: _parses(_network, s)),
        _declared("cidr", _S, [_S], lambda s: s if _network(s) else ""),
        _declared("containsIP", _B, [_S, _S], lambda c, a: _address(a) in _network(c), member=True),
        _declared("containsCIDR", _B, [_S, _S], _inside, member=True),
        _declared("ip", _S, [_S], lambda s: str(_address(s.partition("/")[0])), member=True),
        _declared("masked", _S, [_S], lambda s: str(_network(s)), member=True),
        _declared("prefixLength", _I, [_S], lambda s: _network(s).prefixlen, member=True),
        _declared("find", _S, [_S, _S], lambda s, p: (m.group(0) if (m := re.search(p, s)) else ""), member=True),
        _declared("findAll", texts, [_S, _S], lambda s, p: [m.group(0) for m in re.finditer(p, s)], member=True),
        _declared("isQuantity", _B, [_S], lambda s: _parses(quantity, s)),
        _declared("quantity", _S, [_S], lambda s: _plain(quantity(s))),
        _declared("isInteger", _B, [_S], lambda s: quantity(s) == int(quantity(s)), member=True),
        _declared("asInteger", _I, [_S], lambda s: int(quantity(s)), member=True),
        _declared("asApproximateFloat", cel.Type.DOUBLE, [_S], lambda s: float(quantity(s)), member=True),
        _declared("sign", _I, [_S], lambda s: (quantity(s) > 0) - (quantity(s) < 0), member=True),
        _declared("add", _S, [_S, _S], lambda a, b: _plain(quantity(a) + quantity(b)), member=True),
        _declared("add", _S, [_S, _I], lambda a, b: _plain(quantity(a) + b), member=True),
        _declared("sub", _S, [_S, _S], lambda a, b: _plain(quantity(a) - quantity(b)), member=True),
        _declared("sub", _S, [_S, _I], lambda a, b: _plain(quantity(a) - b), member=True),
        _declared("isGreaterThan", _B, [_S, _S], _compared(lambda a, b: a > b), member=True),
        _declared("isLessThan", _B, [_S, _S], _compared(lambda a, b: a < b), member=True),
        _declared("compareTo", _I, [_S, _S], _compared(lambda a, b: (a > b) - (a < b)), member=True),
        _declared("isSorted", _B, [anything], lambda v: all(a <= b for a, b in itertools.pairwise(v)), member=True),
        _declared("sum", _D, [anything], lambda v: sum(v[1:], v[0]) if v else 0, member=True),
        _declared("min", _D, [anything], min, member=True),
        _declared("max", _D, [anything], max, member=True),
        _declared("sets.contains", _B, [anything, anything], lambda a, b: all(one in a for one in b)),
        _declared("sets.intersects", _B, [anything, anything], lambda a, b: any(one in a for one in b)),
        _declared("sets.equivalent", _B, [anything, anything], lambda a, b: all(x in a for x in b) and all(x in b for x in a)),
        *(_declared(f"{_CHECK}{name}", texts, [_S], functools.partial(_check, name)) for name in _FORMATS),
    ]  # fmt: skip
    grouped: dict[str, list[Any]] = {}
    for name, overload in rows:
        grouped.setdefault(name, []).append(overload)
    return [cel.FunctionDecl(name, overloads) for name, overloads in grouped.items()]


@functools.cache
def environment(*variables: str) -> Any:
    """The environment that expressions over `variables` (of any type) are compiled in; made once for each set."""
    extensions = [
        ext_strings.ExtStrings(),
        ext_optional.ExtOptional(),
        ext_bindings.ExtBindings(),
        ext_math.ExtMath(),
    ]
    return cel.NewEnv(variables=dict.fromkeys(variables, _D), extensions=extensions, functions=_functions())
