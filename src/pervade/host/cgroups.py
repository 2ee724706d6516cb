"""Control groups of ours in every hierarchy (v1, hybrid and v2): find, empty, remove."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")


def hierarchies() -> list[Path]:
    """Roots of all mounted hierarchies; [ROOT] on a pure v2 host."""
    if (ROOT / "cgroup.controllers").exists():
        return [ROOT]
    return [p for p in ROOT.iterdir() if p.is_dir() and not p.is_symlink()]


def remove(name: str) -> int:
    """Remove the group `name` (a path below the root) with all its descendants; gives how many folders went.

    Groups that still hold processes stay; O(folders).
    """
    gone = 0
    for root in hierarchies():
        top = root / name
        if not top.is_dir():
            continue
        for folder, _, _ in os.walk(top, topdown=False):
            try:
                Path(folder).rmdir()
                gone += 1
            except OSError:
                continue
    return gone


def exists(name: str) -> bool:
    """Whether any hierarchy has the group `name`."""
    return any((root / name).is_dir() for root in hierarchies())


def remove_if_empty(name: str) -> None:
    """Remove the group `name` where it has no groups and no processes of its own."""
    for root in hierarchies():
        with contextlib.suppress(OSError):
            (root / name).rmdir()
