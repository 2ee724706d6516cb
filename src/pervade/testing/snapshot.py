"""What of a machine a cluster could leave behind, as comparable sets: the proof of the "clean" row.

Each part is a set of lines; what changes by itself (counters, times, pids of unrelated work) is left out.
Processes are those that were not there before or carry a cluster's mark; files are those below the folders
that a cluster may write to.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path

FOLDERS = ("/run", "/var/lib", "/var/run", "/etc", "/tmp", "/opt", "/root/.kube")
# Written by anyone at any time: other tests, the shell that runs this one, package tools.
_NOISE = (
    "/tmp/bash_",
    "/tmp/mmdebstrap.",
    "/tmp/pytest",
    "/tmp/pervade-import",
    "/tmp/pervade-walk-",
    "/run/utmp",
    "/tmp/hsperfdata",
)


@dataclass(frozen=True)
class Snapshot:
    """One look at the machine."""

    processes: frozenset[str]
    links: frozenset[str]
    namespaces: frozenset[str]
    mounts: frozenset[str]
    cgroups: frozenset[str]
    nft: frozenset[str]
    routes: frozenset[str]
    rules: frozenset[str]
    addresses: frozenset[str]
    files: frozenset[str]

    def difference(self, later: Snapshot) -> dict[str, tuple[list[str], list[str]]]:
        """Part → (gone, new) for every part that is not equal."""
        found = {}
        for part in (f.name for f in fields(self)):
            before, after = getattr(self, part), getattr(later, part)
            if before != after:
                found[part] = (sorted(before - after), sorted(after - before))
        return found


def take(folders: Iterable[str] = FOLDERS, *, of: str | None = None) -> Snapshot:
    """Look at everything; 0.3 s. With `of` (a cluster's name) what belongs to other clusters is left out."""
    return Snapshot(
        processes=frozenset(_processes(of)),
        links=frozenset(line.split(":")[1].strip() for line in _lines("ip", "-o", "link")),
        namespaces=frozenset(_namespaces(of)),
        mounts=frozenset(m for m in _mounts() if not m.startswith(_NOISE) and not _foreign(m.split()[0], of)),
        cgroups=frozenset(c for c in _cgroups() if not _foreign(c, of)),
        nft=frozenset(_lines("nft", "list", "ruleset")),
        routes=frozenset(
            line for family in ("-4", "-6") for line in _lines("ip", family, "route", "show", "table", "all")
        ),
        rules=frozenset(line for family in ("-4", "-6") for line in _lines("ip", family, "rule")),
        addresses=frozenset(" ".join(line.split()[1:4]) for line in _lines("ip", "-o", "address")),
        files=frozenset(f for f in _files(folders) if not _foreign(f, of)),
    )


def _foreign(path: str, of: str | None) -> bool:
    """Whether a path is another cluster's, or of the folders that all clusters share."""
    if of is None:
        return False
    _, mark, rest = f"{path}/".partition("/pervade/")
    return bool(mark) and rest.split("/")[0] != of


def _cluster_of(process: Path) -> str | None:
    """The cluster a process belongs to, by its control group or its environment. OSError when it ended."""
    for line in (process / "cgroup").read_text().splitlines():
        _, mark, rest = line.partition("/pervade/")
        if mark:
            return rest.split("/")[0]
    for word in (process / "environ").read_bytes().split(b"\0"):
        if word.startswith(b"PERVADE_CLUSTER="):
            return word.decode(errors="replace").rpartition("/")[2]
    return None


def _lines(*argv: str) -> list[str]:
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=20)
    return [line.strip() for line in done.stdout.splitlines() if line.strip()]


def _processes(of: str | None) -> Iterable[str]:
    """Long-lived processes by command and pid: those that are in a session of their own or carry a mark."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            cluster = _cluster_of(entry)
        except OSError:
            continue
        tells = ("pervade", "containerd", "slirp4netns", "/pause", "unshare")
        if of is not None and cluster not in (None, of):
            continue
        if cluster or (words and words.split()[0].rpartition("/")[2].startswith(tells)):
            yield f"{entry.name} {words}"


def _namespaces(of: str | None) -> Iterable[str]:
    """Namespaces that some process is in or that are pinned by a mount."""
    for entry in Path("/proc").iterdir():
        # A zombie that its parent has not asked about yet still names its pid namespace.
        if entry.name.isdigit() and not _zombie(entry):
            try:
                if of is not None and _cluster_of(entry) not in (None, of):
                    continue
            except OSError:
                continue
            for kind in ("net", "mnt", "pid", "uts", "ipc", "cgroup"):
                try:
                    yield str((entry / "ns" / kind).readlink())
                except OSError:
                    continue


def _zombie(entry: Path) -> bool:
    try:
        return (entry / "stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def _mounts() -> Iterable[str]:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        yield f"{left.split()[4]} {' '.join(right.split()[:2])}"


def _cgroups() -> Iterable[str]:
    for folder, _, _ in os.walk("/sys/fs/cgroup"):
        yield folder


def _files(folders: Iterable[str]) -> Iterable[str]:
    for top in folders:
        if Path(top).is_symlink():
            continue
        for folder, inner, names in os.walk(top):
            # Byte code of a checkout below one of the folders is the interpreter's cache.
            inner[:] = [i for i in inner if i != "__pycache__" and not f"{folder}/{i}".startswith(_NOISE)]
            for name in (*inner, *names):
                path = f"{folder}/{name}"
                if not path.startswith(_NOISE):
                    yield path
