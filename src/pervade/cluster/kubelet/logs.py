"""Container logs in CRI's form (`TIME STREAM F|P text`), read over rotated files, filtered and followed.

Cost: a tail reads blocks from the end; following waits for growth by polling the file's size four times a
second while a reader is there, and only then. Files that ended before `since` are not opened.
"""

from __future__ import annotations

import asyncio
import datetime
import os
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec

_BLOCK = 1 << 16
_POLL = 0.25
_CHUNK_LINES = 500


class Options(msgspec.Struct, frozen=True):
    """What `kubectl logs` asked for."""

    follow: bool = False
    timestamps: bool = False
    tail: int | None = None
    limit: int | None = None
    since: float | None = None
    """Seconds since the epoch."""


def start_of_tail(path: Path, lines: int) -> tuple[int, int]:
    """(offset of the last `lines` lines, how many there are); O(bytes of them)."""
    size = path.stat().st_size
    if lines <= 0 or not size:
        return size, 0
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
                    return begin + at + 1, found
            end = begin
    return 0, found + 1


def tail_text(path: Path, lines: int) -> str:
    """The last lines as text, without their marks; empty when there is no log."""
    if not path.exists():
        return ""
    with path.open("rb") as file:
        file.seek(start_of_tail(path, lines)[0])
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
    return datetime.datetime.fromisoformat(stamp.decode()).timestamp()


def _begin(paths: Sequence[Path], options: Options) -> tuple[int, int]:
    """(index of the first file to read, offset in it)."""
    first = 0
    if options.since is not None:
        while first < len(paths) - 1 and paths[first].stat().st_mtime < options.since:
            first += 1
    if options.tail is None:
        return first, 0
    wanted = options.tail
    for index in range(len(paths) - 1, first - 1, -1):
        offset, found = start_of_tail(paths[index], wanted)
        wanted -= found
        if wanted <= 0:
            return index, offset
    return first, 0


def _next(paths: Sequence[Path], inode: int) -> Path | None:
    """The file after the one with `inode`; the newest when that one is gone; None when it is the newest."""
    inodes = [p.stat().st_ino for p in paths]
    if not inodes:
        return None
    if inode not in inodes:
        return paths[-1]
    at = inodes.index(inode)
    return paths[at + 1] if at + 1 < len(paths) else None


async def read(
    files: Callable[[], Sequence[Path]], options: Options, ended: Callable[[], bool]
) -> AsyncIterator[bytes]:
    """Chunks of a container's log; `files()` names its files, oldest first, and `ended()` tells its end."""
    paths = files()
    if not paths:
        return
    left = options.limit
    index, offset = _begin(paths, options)
    file: BinaryIO = paths[index].open("rb")
    closing = False
    try:
        file.seek(offset)
        while True:
            finished = ended()
            out, seen = [], 0
            while line := file.readline():
                if not line.endswith(b"\n") and options.follow and not finished:
                    file.seek(-len(line), 1)
                    break
                seen += 1
                shown = render(line, options)
                if shown is not None:
                    if left is not None:
                        shown = shown[:left]
                        left -= len(shown)
                    out.append(shown)
                if left == 0 or seen >= _CHUNK_LINES:
                    break
            if out:
                yield b"".join(out)
                if left == 0:
                    return
            if seen:
                # Lines that are not shown are work too: let others have their turn.
                await asyncio.sleep(0)
                continue
            newer = _next(files(), os.fstat(file.fileno()).st_ino)
            if newer is not None:
                if not closing:
                    # What was written between our last read and the rotation is read first.
                    closing = True
                    continue
                file.close()
                file, closing = newer.open("rb"), False
                continue
            if not options.follow or finished:
                return
            await asyncio.sleep(_POLL)
    finally:
        file.close()
