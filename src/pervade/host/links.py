"""Pinned network namespaces and what is in them, by iproute2 batches: one process per namespace and change."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path

from pervade.host.run import command


def pin(path: Path) -> bool:
    """Make a network namespace pinned at `path`; False when one is there already."""
    if is_pinned(path):
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    command(["unshare", f"--net={path}", "true"])
    return True


def is_pinned(path: Path) -> bool:
    """Whether a namespace is mounted at `path`."""
    try:
        return path.exists() and path.stat().st_dev != path.parent.stat().st_dev
    except OSError:
        return False


def unpin(path: Path) -> None:
    """Let go of the namespace at `path`; the kernel removes it with its links when nobody else holds it."""
    if is_pinned(path):
        command(["umount", str(path)])
    path.unlink(missing_ok=True)


def ip(netns: Path | None, lines: Iterable[str]) -> None:
    """An `ip -batch` inside `netns`; the first refused line ends it with OperatorError."""
    argv = ["ip", "-batch", "-"]
    if netns is not None:
        argv = ["nsenter", f"--net={netns}", "--", *argv]
    command(argv, text="\n".join(lines) + "\n")


def sysctl(netns: Path, settings: dict[str, str]) -> None:
    """Kernel settings of a network namespace."""
    command(["nsenter", f"--net={netns}", "--", "sysctl", "-qw", *(f"{k}={v}" for k, v in settings.items())])


def link_names(netns: Path) -> set[str]:
    """Names of the links in `netns`."""
    out = subprocess.run(
        ["nsenter", f"--net={netns}", "--", "ip", "-o", "link"], capture_output=True, text=True, check=False
    ).stdout
    return {line.split(":")[1].strip().split("@")[0] for line in out.splitlines()}
