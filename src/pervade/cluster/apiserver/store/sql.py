"""The log on disk: one append-only SQLite table whose row number is the cluster's resourceVersion.

Each row names the row it supersedes (`prev`): events carry the state before them, and compaction is a
walk over new rows only. A row that a row newer than the compaction supersedes is kept, so every version
since the compaction can be read back whole.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path

import msgspec

CREATED, UPDATED, DELETED = 0, 1, 2

SCHEMA = """
CREATE TABLE IF NOT EXISTS log (
  rev INTEGER PRIMARY KEY, resource TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
  action INTEGER NOT NULL, prev INTEGER NOT NULL, value BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS by_key ON log (resource, namespace, name, rev);
CREATE TABLE IF NOT EXISTS compacted (resource TEXT PRIMARY KEY, rev INTEGER NOT NULL) WITHOUT ROWID;
"""
_COLUMNS = "rev, resource, namespace, name, action, prev, value"


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One revision: `value` is the object as of `rev` (for DELETED its last state with the deletion's version)."""

    rev: int
    resource: str
    namespace: str
    name: str
    action: int
    prev: int
    value: bytes


def connect(path: Path, *, write: bool = False) -> sqlite3.Connection:
    """A connection in WAL mode; `write` also makes the tables.

    `synchronous=NORMAL`: a commit survives kill -9 of the process at once, and a loss of power up to the
    last sync of the WAL (the file stays whole).
    """
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
    if write:
        db.execute("PRAGMA auto_vacuum=INCREMENTAL")
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA journal_size_limit=4194304")
        db.executescript(SCHEMA)
    else:
        db.execute("PRAGMA query_only=1")
    db.execute("PRAGMA synchronous=NORMAL")
    db.execute("PRAGMA cache_size=-1024")
    return db


def living(db: sqlite3.Connection) -> Iterable[Entry]:
    """The last entry of every object that exists; O(objects)."""
    rows = db.execute(
        f"SELECT {_COLUMNS} FROM log WHERE action != 2 AND rev IN"
        " (SELECT max(rev) FROM log GROUP BY resource, namespace, name) ORDER BY rev"
    )
    return (Entry(*row) for row in rows)


def head(db: sqlite3.Connection) -> int:
    (found,) = db.execute("SELECT coalesce(max(rev), 0) FROM log").fetchone()
    return int(found)


def floors(db: sqlite3.Connection) -> dict[str, int]:
    """Per resource the oldest version that can still be read."""
    return {name: int(rev) for name, rev in db.execute("SELECT resource, rev FROM compacted")}


def append(db: sqlite3.Connection, entries: list[Entry]) -> None:
    """All entries in one transaction, or none."""
    rows = [(e.rev, e.resource, e.namespace, e.name, e.action, e.prev, e.value) for e in entries]
    with transaction(db):
        db.executemany("INSERT INTO log VALUES (?, ?, ?, ?, ?, ?, ?)", rows)


class transaction:
    """`with transaction(db)`: commit at the end, roll back on an exception."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self.db = db

    def __enter__(self) -> None:
        self.db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None:
            self.db.execute("COMMIT")
        elif self.db.in_transaction:
            self.db.execute("ROLLBACK")


def changes(db: sqlite3.Connection, resource: str, after: int, upto: int) -> list[tuple[Entry, bytes | None]]:
    """Entries with `after` < rev <= `upto`, each with the value before it; O(log rows between)."""
    rows = db.execute(
        "SELECT a.rev, a.resource, a.namespace, a.name, a.action, a.prev, a.value, b.value FROM log a"
        " LEFT JOIN log b ON b.rev = a.prev WHERE a.rev > ? AND a.rev <= ? AND a.resource = ? ORDER BY a.rev",
        (after, upto, resource),
    )
    return [(Entry(*row[:7]), row[7]) for row in rows]


def state_at(
    db: sqlite3.Connection, resource: str, rev: int, namespace: str | None, after: tuple[str, str], limit: int
) -> list[Entry]:
    """Objects as they were at `rev`, in key order after `after`, at most `limit` (-1: all); O(rows of the resource)."""
    rows = db.execute(
        f"SELECT {_COLUMNS} FROM log l WHERE resource = :resource AND action != 2"
        " AND (:namespace IS NULL OR namespace = :namespace) AND (namespace, name) > (:ns, :name)"
        " AND rev = (SELECT max(rev) FROM log m WHERE m.resource = l.resource AND m.namespace = l.namespace"
        "  AND m.name = l.name AND m.rev <= :rev) ORDER BY namespace, name LIMIT :limit",
        {
            "resource": resource,
            "rev": rev,
            "namespace": namespace,
            "ns": after[0],
            "name": after[1],
            "limit": limit,
        },
    )
    return [Entry(*row) for row in rows]


def compact(db: sqlite3.Connection, resource: str, start: int, upto: int) -> int:
    """Forget what rows in (start, upto] superseded, and deletions among them; one short transaction.

    Afterwards versions before `upto` of this resource are gone. Returns the number of rows dropped.
    """
    scope = (resource, start, upto)
    with transaction(db):
        db.execute("INSERT OR REPLACE INTO compacted VALUES (?, ?)", (resource, upto))
        dropped = db.execute(
            "DELETE FROM log WHERE rev IN (SELECT prev FROM log WHERE resource = ? AND rev > ? AND rev <= ?"
            " AND prev > 0)",
            scope,
        ).rowcount
        dropped += db.execute(
            "DELETE FROM log WHERE resource = ? AND rev > ? AND rev <= ? AND action = 2", scope
        ).rowcount
    return dropped


def resources(db: sqlite3.Connection) -> list[str]:
    return [row[0] for row in db.execute("SELECT DISTINCT resource FROM log")]
