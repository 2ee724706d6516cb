"""The log on disk: one append-only SQLite table whose key is the cluster's resourceVersion.

One writer thread, group commit: everything queued while a commit runs goes into the next one. WAL with
synchronous=NORMAL: a commit survives kill -9 of the process at once, and a power failure up to the last
WAL sync. Compaction runs on the same thread in small batches and survives its own errors.
"""

from __future__ import annotations

import logging
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec

from pervade.base.errors import OperatorError

log = logging.getLogger(__name__)
CREATED, UPDATED, DELETED = 0, 1, 2
_KEEP = 10_000
_BATCH = 500


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One revision: `value` is the object as of `rev` (for DELETED its last state with the deletion's version)."""

    rev: int
    resource: str
    namespace: str
    name: str
    action: int
    prev: int
    value: bytes


_SCHEMA = """
CREATE TABLE IF NOT EXISTS log (
  rev INTEGER PRIMARY KEY, resource TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
  action INTEGER NOT NULL, prev INTEGER NOT NULL, value BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS by_key ON log (resource, namespace, name, rev);
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL);
"""


class Log:
    """The log in `path`. `start` begins the writer; `append` queues; `done(entries, error)` is called in its thread."""

    def __init__(self, path: Path, done: Callable[[list[Entry], Exception | None], None]) -> None:
        self.path, self._done = path, done
        self._queue: queue.SimpleQueue[Entry | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self.compacted = 0
        self.commits = 0

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA cache_size=-4000")
        return connection

    def open(self) -> tuple[list[Entry], int]:
        """The living objects (their last entries) and the highest revision; O(objects).

        Raises OperatorError when the file is not a healthy log.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            reader = self._connect()
            reader.executescript(_SCHEMA)
            rows = reader.execute(
                "SELECT rev, resource, namespace, name, action, prev, value FROM log"
                " WHERE rev IN (SELECT max(rev) FROM log GROUP BY resource, namespace, name) ORDER BY rev"
            )
            living = [Entry(*row) for row in rows if row[4] != DELETED]
            (head,) = reader.execute("SELECT coalesce(max(rev), 0) FROM log").fetchone()
            meta = dict(reader.execute("SELECT key, value FROM meta"))
        except sqlite3.DatabaseError as error:
            raise OperatorError(
                f"the cluster's store cannot be read: {error}",
                where=str(self.path),
                cause="a damaged disk or a file of another program",
                fix="restore the file, or start anew with pervade down --purge",
            ) from error
        reader.close()
        self.compacted = meta.get("compacted", 0)
        return living, max(head, meta.get("head", 0))

    def start(self) -> None:
        self._thread = threading.Thread(target=self._write, name="store-writer", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Commit what is queued and end the writer."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()

    def append(self, entry: Entry) -> None:
        self._queue.put(entry)

    def _write(self) -> None:
        connection = self._connect()
        written = 0
        ending = False
        while not ending:
            batch = [self._queue.get()]
            while not self._queue.empty() and len(batch) < 1000:
                batch.append(self._queue.get())
            ending = None in batch
            entries = [e for e in batch if e is not None]
            if entries:
                self._done(entries, self._commit(connection, entries))
                written += len(entries)
            if written >= _BATCH and not ending:
                written = 0
                self._compact(connection)
        connection.close()

    def _commit(self, connection: sqlite3.Connection, entries: list[Entry]) -> Exception | None:
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(
                "INSERT INTO log VALUES (?, ?, ?, ?, ?, ?, ?)",
                [(e.rev, e.resource, e.namespace, e.name, e.action, e.prev, e.value) for e in entries],
            )
            connection.execute("COMMIT")
            self.commits += 1
            return None
        except sqlite3.Error as error:
            log.error("the store refused a write", extra={"file": str(self.path), "error": str(error)})
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            return error

    def _compact(self, connection: sqlite3.Connection) -> None:
        """Forget superseded revisions older than the newest `_KEEP`; at most a few batches a turn."""
        try:
            (head,) = connection.execute("SELECT coalesce(max(rev), 0) FROM log").fetchone()
            limit = head - _KEEP
            if limit <= self.compacted:
                return
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(
                "INSERT INTO meta VALUES ('compacted', ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                (limit,),
            )
            connection.execute(
                "INSERT INTO meta VALUES ('head', ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                (head,),
            )
            connection.execute(
                "DELETE FROM log WHERE rev IN (SELECT a.rev FROM log a WHERE a.rev <= ? AND (a.action = 2 OR EXISTS"
                " (SELECT 1 FROM log b WHERE b.resource = a.resource AND b.namespace = a.namespace"
                "  AND b.name = a.name AND b.rev > a.rev)) LIMIT ?)",
                (limit, 4 * _BATCH),
            )
            connection.execute("COMMIT")
            self.compacted = limit
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
        except sqlite3.Error as error:
            log.warning("compaction put off", extra={"error": str(error)})
            if connection.in_transaction:
                connection.execute("ROLLBACK")

    def history(self, resource: str, after: int, upto: int) -> Iterator[tuple[Entry, bytes | None]]:
        """Entries of one resource with `after` < rev <= `upto`, each with the value before it; O(entries). For a thread."""
        connection = self._connect()
        try:
            rows = connection.execute(
                "SELECT a.rev, a.resource, a.namespace, a.name, a.action, a.prev, a.value, b.value FROM log a"
                " LEFT JOIN log b ON b.rev = a.prev WHERE a.rev > ? AND a.rev <= ? AND a.resource = ? ORDER BY a.rev",
                (after, upto, resource),
            ).fetchall()
        finally:
            connection.close()
        return ((Entry(*row[:7]), row[7]) for row in rows)


def sizes(entries: Iterable[Entry]) -> int:
    """Bytes of all values, for the state page."""
    return sum(len(e.value) for e in entries)
