"""A zone held in memory: records by owner, answers by name.

Pure. `replace` costs O(records of that owner), `lookup` O(records of that name). Semantics: RFC 1034
(4.3.2 answers, CNAME chains within the zone), RFC 2308 (NXDOMAIN and NODATA with SOA), RFC 8020
(a name with descendants exists).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec


class Record(msgspec.Struct, frozen=True, order=True, gc=False):
    """One resource record: absolute lower-case `name` with final dot, `type`, `data` in master-file form."""

    name: str
    type: str
    data: str
    ttl: int = 5


class Answer(msgspec.Struct, frozen=True):
    """What the zone says: `rcode` NOERROR, NXDOMAIN or REFUSED (not our zone), records, additional records."""

    rcode: str
    records: tuple[Record, ...] = ()
    additional: tuple[Record, ...] = ()
    authority: tuple[Record, ...] = ()
    leaves_to: str | None = None
    """Target of a CNAME that points out of the zone: the server resolves it elsewhere and appends."""


class Zone:
    """Authority over `origins` (absolute names: a domain and the reverse zones it answers for)."""

    def __init__(self, origins: Iterable[str], ttl: int = 5) -> None:
        self.origins = tuple(o.lower() for o in origins)
        self.ttl = ttl
        self._by_owner: dict[str, tuple[Record, ...]] = {}
        self._by_name: dict[str, dict[str, list[Record]]] = {}
        self._ancestors: Counter[str] = Counter()

    def replace(self, owner: str, records: Iterable[Record]) -> None:
        """Make `records` all that `owner` (any key, e.g. `default/web`) contributes; empty removes it."""
        for record in self._by_owner.pop(owner, ()):
            types = self._by_name[record.name]
            types[record.type].remove(record)
            if not types[record.type]:
                del types[record.type]
            if not types:
                del self._by_name[record.name]
            self._count(record.name, -1)
        added = tuple(sorted(set(records)))
        if added:
            self._by_owner[owner] = added
        for record in added:
            self._by_name.setdefault(record.name, {}).setdefault(record.type, []).append(record)
            self._count(record.name, 1)

    def _count(self, name: str, by: int) -> None:
        origin = self.origin(name)
        while name != origin and "." in name:
            name = name.split(".", 1)[1] or "."
            self._ancestors[name] += by
            if not self._ancestors[name]:
                del self._ancestors[name]
            if name == ".":
                return

    def origin(self, name: str) -> str | None:
        """The origin `name` lies under, or None."""
        found = [o for o in self.origins if name == o or name.endswith("." + o)]
        return max(found, key=len) if found else None

    def lookup(self, name: str, kind: str) -> Answer:
        """The answer to `name` (absolute) and record type `kind` such as "A", "SRV", "ANY"."""
        name = name.lower()
        origin = self.origin(name)
        if origin is None:
            return Answer("REFUSED")
        found: list[Record] = []
        seen: set[str] = set()
        while True:
            types = self._by_name.get(name)
            if types is None:
                exists = name in self._ancestors or name == origin or bool(found)
                return Answer(
                    "NOERROR" if exists else "NXDOMAIN", tuple(found), authority=(self._soa(origin),)
                )
            if kind == "ANY":
                records = [r for held in types.values() for r in held]
            else:
                records = types.get(kind, [])
            if records:
                found += records
                return Answer("NOERROR", tuple(found), self._glue(records))
            alias = types.get("CNAME")
            if not alias or name in seen:
                return Answer("NOERROR", tuple(found), authority=(self._soa(origin),))
            seen.add(name)
            found += alias
            name = alias[0].data.lower()
            if self.origin(name) is None:
                return Answer("NOERROR", tuple(found), leaves_to=name)

    def _glue(self, records: Iterable[Record]) -> tuple[Record, ...]:
        targets = {r.data.split()[-1] for r in records if r.type == "SRV"}
        return tuple(
            r for t in sorted(targets) for k in ("A", "AAAA") for r in self._by_name.get(t, {}).get(k, ())
        )

    def _soa(self, origin: str) -> Record:
        return Record(
            origin, "SOA", f"ns.dns.{origin} hostmaster.{origin} 1 7200 1800 86400 {self.ttl}", self.ttl
        )

    def dump(self) -> dict[str, list[str]]:
        """Every name with its records, for people."""
        return {
            n: [f"{r.type} {r.data}" for held in t.values() for r in held]
            for n, t in sorted(self._by_name.items())
        }
