"""Act inside another mount namespace, and bind what lies beneath a volume without trusting its links.

A thread that has its own file-system state (unshare(2) CLONE_FS) may enter a mount namespace alone, so paths
mean there what they mean to the node. openat2(2) with RESOLVE_BENEATH refuses every way out of a folder in the
kernel, so a container that swaps a folder for a link between check and mount gains nothing; the descriptor
itself is then mounted (open_tree(2), move_mount(2)). Needs Linux 5.6. About 1 ms a call.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
_CLONE_FS, _CLONE_NEWNS = 0x200, 0x20000
_OPEN_TREE, _MOVE_MOUNT, _OPENAT2 = 428, 429, 437
_BENEATH, _NO_MAGIC = 0x08, 0x02
_TREE_CLONE, _AT_EMPTY, _AT_RECURSIVE = 1, 0x1000, 0x8000
_FROM_EMPTY, _TO_EMPTY = 0x04, 0x40
_NOSUID, _NODEV, _DETACH = 2, 4, 2
_libc = ctypes.CDLL(None, use_errno=True)


class _How(ctypes.Structure):
    """struct open_how of openat2(2)."""

    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


class Outside(Exception):
    """The path leads out of its folder."""


def _check(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), what)
    return result


def inside(namespace: Path, act: Callable[[], T]) -> T:
    """Run `act` in a thread that has entered the mount namespace; raises OSError and what `act` raises."""
    result: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            fd = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
            try:
                _check(_libc.unshare(_CLONE_FS), "unshare")
                _check(_libc.setns(fd, _CLONE_NEWNS), str(namespace))
            finally:
                os.close(fd)
            os.umask(0)  # of this thread alone since the unshare above
            result.append(act())
        except BaseException as error:  # noqa: BLE001 - handed to the caller below
            failure.append(error)

    thread = threading.Thread(target=run, name="mountns")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return result[0]


def open_beneath(folder: int, path: str) -> int:
    """An O_PATH descriptor of `path` below `folder`; links may lead anywhere within it. Raises Outside, OSError."""
    how = _How(os.O_PATH | os.O_CLOEXEC, 0, _BENEATH | _NO_MAGIC)
    fd: int = _libc.syscall(_OPENAT2, folder, os.fsencode(path), ctypes.byref(how), ctypes.sizeof(how))
    if fd < 0 and ctypes.get_errno() in (errno.EXDEV, errno.ELOOP):
        raise Outside(path)
    return _check(fd, path)


def make_beneath(folder: int, path: str, mode: int) -> int:
    """As `open_beneath`, with missing folders made. Raises Outside, OSError."""
    here = os.dup(folder)
    parts = [p for p in path.split("/") if p not in ("", ".")]
    if ".." in parts:
        os.close(here)
        raise Outside(path)
    try:
        for end in range(1, len(parts) + 1):
            so_far = "/".join(parts[:end])
            try:
                below = open_beneath(folder, so_far)
            except FileNotFoundError:
                os.mkdir(parts[end - 1], mode, dir_fd=here)
                below = open_beneath(folder, so_far)
            os.close(here)
            here = below
        return here
    except BaseException:
        os.close(here)
        raise


def bind_beneath(volume: str, path: str, target: str) -> None:
    """Mount what `path` means within `volume` at `target`, in the present namespace. Raises Outside, OSError."""
    root = os.open(volume, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    fds = [root]
    try:
        mode = stat.S_IMODE(os.fstat(root).st_mode)
        fds.append(make_beneath(root, path, mode))
        unmount(target)
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        if stat.S_ISDIR(os.fstat(fds[-1]).st_mode):
            Path(target).mkdir(exist_ok=True)
        else:
            Path(target).touch()
        flags = _TREE_CLONE | _AT_EMPTY | _AT_RECURSIVE | os.O_CLOEXEC
        fds.append(_check(_libc.syscall(_OPEN_TREE, fds[-1], b"", flags), path))
        fds.append(os.open(target, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC))
        _check(
            _libc.syscall(_MOVE_MOUNT, fds[-2], b"", fds[-1], b"", _FROM_EMPTY | _TO_EMPTY),
            target,
        )
    finally:
        for fd in fds:
            os.close(fd)


def tmpfs(target: str, options: str) -> None:
    """Mount a tmpfs in the present namespace."""
    done = _libc.mount(b"tmpfs", os.fsencode(target), b"tmpfs", _NOSUID | _NODEV, options.encode())
    _check(done, target)


def unmount(target: str) -> None:
    """Take every mount off `target`, also busy ones; nothing when there is none."""
    while _libc.umount2(os.fsencode(target), _DETACH | 8) == 0:  # 8: UMOUNT_NOFOLLOW
        continue


def unmount_all(targets: Iterable[str]) -> None:
    for target in targets:
        unmount(target)


def mounted_below(pid: str, folder: str) -> list[str]:
    """Mount points at or below `folder` in the namespace of process `pid`, the deepest first."""
    text = Path(f"/proc/{pid}/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    points = [line.split()[4].encode().decode("unicode_escape") for line in text.splitlines()]
    return sorted((p for p in points if p == folder or p.startswith(f"{folder}/")), key=len, reverse=True)
