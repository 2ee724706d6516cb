"""Container logs in CRI's form (`TIME STREAM F|P text`), read, filtered and followed.

Cost: a tail reads blocks from the end; following waits for growth by polling the file's size four times a
second while a reader is there, and only then.
"""

from __future__ import annotations

import asyncio
import datetime
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec

_BLOCK = 1 << 16
_POLL = 0.25


class Options(msgspec.Struct, frozen=True):
    """What `kubectl logs` asked for."""

    follow: bool = False
    timestamps: bool = False
    tail: int | None = None
    limit: int | None = None
    since: float | None = None
    """Seconds since the epoch."""


def start_of_tail(path: Path, lines: int) -> int:
    """Offset of the last `lines` lines; O(bytes of them)."""
    size = path.stat().st_size
    if lines <= 0:
        return size
    found, end = 0, size
    with path.open("rb") as file:
        while end > 0:
            begin = max(0, end - _BLOCK)
            file.seek(begin)
            block = file.read(end - begin)
            # The newline that ends the last line does not start another.
            at = len(block) - 1 if end == size and block.endswith(b"\n") else len(block)
            while (at := block.rfind(b"\n", 0, at)) >= 0:
                found += 1
                if found == lines:
                    return begin + at + 1
            end = begin
    return 0


def tail_text(path: Path, lines: int) -> str:
    """The last lines as text, without their marks; empty when there is no log."""
    if not path.exists():
        return ""
    with path.open("rb") as file:
        file.seek(start_of_tail(path, lines))
        return b"".join(render(line, Options()) or b"" for line in file).decode(errors="replace")


def render(line: bytes, options: Options) -> bytes | None:
    """One stored line as the reader sees it; None when it is too old. Partial lines keep no newline."""
    parts = line.split(b" ", 3)
    if len(parts) < 4:
        return line
    stamp, _, tag, text = parts
    if options.since is not None and _epoch(stamp) < options.since:
        return None
    if tag.startswith(b"P"):
        text = text.rstrip(b"\n")
    return stamp + b" " + text if options.timestamps else text


def _epoch(stamp: bytes) -> float:
    text = stamp.decode()
    head, _, rest = text.partition(".")
    fraction = "".join(c for c in rest[:9] if c.isdigit())[:6].ljust(6, "0")
    zone = "+00:00" if text.endswith("Z") else text[-6:]
    return datetime.datetime.fromisoformat(f"{head}.{fraction}{zone}").timestamp()


async def read(
    current: Callable[[], Path | None], options: Options, ended: Callable[[], bool]
) -> AsyncIterator[bytes]:
    """Chunks of a container's log; `current()` names the file (it changes with a rotation), `ended()` the end."""
    path = current()
    if path is None or not path.exists():
        return
    left = options.limit
    file = path.open("rb")
    try:
        if options.tail is not None:
            file.seek(start_of_tail(path, options.tail))
        while True:
            finished = ended()
            out = []
            while line := file.readline():
                if not line.endswith(b"\n") and options.follow and not finished:
                    file.seek(-len(line), 1)
                    break
                shown = render(line, options)
                if shown is None:
                    continue
                if left is not None:
                    shown = shown[:left]
                    left -= len(shown)
                out.append(shown)
                if left == 0 or len(out) >= 500:
                    break
            if out:
                yield b"".join(out)
                if left == 0:
                    return
                continue
            if not options.follow or finished:
                return
            newer = current()
            if newer is not None and newer.exists() and newer.stat().st_ino != path_inode(file.fileno()):
                file.close()
                file = newer.open("rb")
                continue
            await asyncio.sleep(_POLL)
    finally:
        file.close()


def path_inode(fd: int) -> int:
    """The inode behind a descriptor."""
    return os.fstat(fd).st_ino
