"""The log's writer: one thread, group commit, compaction between commits.

Everything queued while a commit runs goes into the next one. Compaction runs on the same thread, so it
never meets a lock, in slices bounded by time; an error in it is logged and the next turn tries again.
"""

from __future__ import annotations

import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

from pervade.base.errors import OperatorError
from pervade.cluster.apiserver.store import sql
from pervade.cluster.apiserver.store.sql import CREATED, DELETED, UPDATED, Entry

__all__ = ["CREATED", "DELETED", "UPDATED", "Entry", "Log"]
log = logging.getLogger(__name__)
Done = Callable[[list[Entry], Exception | None], None]
_GROUP = 1000
_SLICE_ROWS = 1000
_SLICE_SECONDS = 0.05


class Log:
    """The log in `path`. `start` begins the writer; `append` queues; `done(entries, error)` is called in its thread.

    `short` names resources (Leases, Events) of which only `keep_short` versions of the log are kept, of all
    others `keep`.
    """

    def __init__(
        self,
        path: Path,
        done: Done,
        *,
        keep: int = 20_000,
        keep_short: int = 500,
        short: frozenset[str] = frozenset(),
    ) -> None:
        self.path, self._done = path, done
        self.keep, self.keep_short, self.short = keep, keep_short, short
        self._queue: queue.SimpleQueue[Entry | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._failed: set[int] = set()
        self.floors: dict[str, int] = {}
        """Oldest readable version per resource; replaced as a whole by the writer, read by anyone."""
        self.commits = self.dropped = 0

    def open(self) -> tuple[list[Entry], int]:
        """The living objects (their last entries) and the highest revision; O(objects).

        Raises OperatorError when the file is not a healthy log.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            db = sql.connect(self.path, write=True)
            found, head = list(sql.living(db)), sql.head(db)
            self.floors = sql.floors(db)
            db.close()
        except sqlite3.DatabaseError as error:
            raise OperatorError(
                f"the cluster's store cannot be read: {error}",
                where=str(self.path),
                cause="a damaged disk or a file of another program",
                fix="restore the file, or start anew with pervade down --purge",
            ) from error
        return found, max(head, *self.floors.values(), 0)

    def start(self) -> None:
        self._thread = threading.Thread(target=self._write, name="store-writer", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Commit what is queued and end the writer."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread = None

    def append(self, entry: Entry) -> None:
        self._queue.put(entry)

    def floor(self, resource: str) -> int:
        return self.floors.get(resource, 0)

    def size(self) -> int:
        """Bytes of the database and its WAL on disk."""
        files = (self.path, self.path.with_name(self.path.name + "-wal"))
        return sum(f.stat().st_size for f in files if f.exists())

    def read(self) -> sqlite3.Connection:
        """A connection for one short read, to be closed by the caller; for a thread."""
        return sql.connect(self.path)

    def _write(self) -> None:
        db = sql.connect(self.path, write=True)
        since = self.keep_short
        ending = False
        while not ending:
            batch = [self._queue.get()]
            while not self._queue.empty() and len(batch) < _GROUP:
                batch.append(self._queue.get())
            ending = None in batch
            entries = [e for e in batch if e is not None]
            if entries:
                self._commit(db, entries)
                since += len(entries)
            if since >= self.keep_short and not ending:
                since = 0 if self._compact(db) else since
        try:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error as error:
            log.warning("the last checkpoint failed", extra={"error": str(error)})
        db.close()

    def _commit(self, db: sqlite3.Connection, entries: list[Entry]) -> None:
        if self._failed:
            # A write that was built on one that failed must not be stored over a gap.
            orphans = []
            for entry in entries:
                if entry.prev in self._failed:
                    self._failed.add(entry.rev)
                    orphans.append(entry)
            if orphans:
                entries = [e for e in entries if e.rev not in self._failed]
                self._done(orphans, RuntimeError("the write before this one failed"))
        if not entries:
            return
        try:
            sql.append(db, entries)
        except sqlite3.Error as error:
            log.error("the store refused a write", extra={"file": str(self.path), "error": str(error)})
            self._failed.update(e.rev for e in entries)
            self._done(entries, error)
            return
        self.commits += 1
        self._done(entries, None)

    def _compact(self, db: sqlite3.Connection) -> bool:
        """One turn of at most `_SLICE_SECONDS`; true when nothing is left to do for now."""
        deadline = time.monotonic() + _SLICE_SECONDS
        try:
            newest = sql.head(db)
            for resource in sql.resources(db):
                goal = newest - (self.keep_short if resource in self.short else self.keep)
                start = self.floor(resource)
                while start < goal:
                    if time.monotonic() > deadline:
                        return False
                    upto = min(goal, start + _SLICE_ROWS)
                    # Readers must see the new floor before rows go.
                    self.floors = {**self.floors, resource: upto}
                    self.dropped += sql.compact(db, resource, start, upto)
                    start = upto
            db.execute("PRAGMA incremental_vacuum(200)").fetchall()
            db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        except sqlite3.Error as error:
            log.warning("compaction put off", extra={"error": str(error)})
        return True
