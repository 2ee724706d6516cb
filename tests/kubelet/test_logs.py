"""Reading logs over rotated files."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from pervade.cluster.kubelet import logs, rotation
from pervade.cluster.kubelet.cri import CriError


def _line(n: int, tag: str = "F") -> str:
    return f"2026-01-01T00:00:{n:02d}.000000001Z stdout {tag} line {n}\n"


def _files(folder: Path) -> Path:
    current = folder / "0.log"
    (folder / "0.log.20260101-000001.000001").write_text("".join(_line(n) for n in range(3)))
    (folder / "0.log.20260101-000002.000001").write_text("".join(_line(n) for n in range(3, 6)))
    current.write_text("".join(_line(n) for n in range(6, 9)))
    (folder / "1.log").write_text("other\n")
    return current


async def _read(current: Path, options: logs.Options) -> str:
    return b"".join(
        [c async for c in logs.read(lambda: rotation.files(current), options, lambda: True)]
    ).decode()


@pytest.mark.parametrize(("tail", "first"), [(None, 0), (0, 9), (2, 7), (3, 6), (4, 5), (9, 0), (99, 0)])
async def test_a_tail_reaches_back_over_files(tmp_path: Path, tail: int | None, first: int) -> None:
    said = await _read(_files(tmp_path), logs.Options(tail=tail))
    assert said == "".join(f"line {n}\n" for n in range(first, 9))


async def test_since_limit_timestamps_and_parts(tmp_path: Path) -> None:
    current = _files(tmp_path)
    since = logs._epoch(b"2026-01-01T00:00:04Z")
    assert await _read(current, logs.Options(since=since)) == "".join(f"line {n}\n" for n in range(4, 9))
    assert await _read(current, logs.Options(limit=10)) == "line 0\nlin"
    assert (
        await _read(current, logs.Options(tail=1, timestamps=True))
    ) == "2026-01-01T00:00:08.000000001Z line 8\n"
    current.write_text(_line(1, "P") + _line(2))
    assert await _read(current, logs.Options(tail=2)) == "line 1line 2\n"


async def test_a_follower_loses_nothing_over_a_rotation(tmp_path: Path) -> None:
    current, ended = tmp_path / "0.log", False
    current.write_text(_line(1))
    out: list[bytes] = []
    begun = asyncio.Event()

    async def follow() -> None:
        async for chunk in logs.read(
            lambda: rotation.files(current), logs.Options(follow=True), lambda: ended
        ):
            out.append(chunk)
            begun.set()

    task = asyncio.create_task(follow())
    await asyncio.wait_for(begun.wait(), 5)
    old = current.rename(tmp_path / "0.log.20260101-000001.000001")
    with old.open("a") as file:
        file.write(_line(2))
    current.write_text(_line(3)[:-3])
    await asyncio.sleep(0.3)
    with current.open("a") as file:
        file.write(_line(3)[-3:] + _line(4))
    ended = True
    await asyncio.wait_for(task, 5)
    assert b"".join(out).decode() == "".join(f"line {n}\n" for n in range(1, 5))


class _Containerd:
    """Answers ReopenContainerLog as containerd does: it makes the file."""

    def __init__(self, current: Path, refuses: bool = False) -> None:
        self.current, self.refuses = current, refuses

    async def call(self, method: str, **fields: object) -> None:
        assert (method, fields) == ("ReopenContainerLog", {"container_id": "c"})
        if self.refuses:
            raise CriError(method, "UNKNOWN", "not running")
        self.current.touch()


async def test_five_files_are_kept(tmp_path: Path) -> None:
    current = tmp_path / "0.log"
    for n in range(8):
        current.write_text(_line(n))
        assert await rotation.rotate(_Containerd(current), "c", current, largest=10)  # type: ignore[arg-type]
    kept = rotation.files(current)
    assert len(kept) == rotation.FILES and kept[-1] == current
    assert "line 7" in kept[-2].read_text() and "line 4" in kept[0].read_text()
    assert not await rotation.rotate(_Containerd(current), "c", current, largest=10)  # type: ignore[arg-type]


async def test_a_refusal_leaves_the_log_as_it_was(tmp_path: Path) -> None:
    current = tmp_path / "0.log"
    current.write_text(_line(1))
    assert not await rotation.rotate(_Containerd(current, refuses=True), "c", current, largest=1)  # type: ignore[arg-type]
    assert rotation.files(current) == [current] and current.read_text() == _line(1)
