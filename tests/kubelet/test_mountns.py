"""Opening beneath a folder: links within it are followed, no way leads out of it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from pervade.cluster.kubelet import mountns


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "secret").write_text("x")
    base = tmp_path / "volume"
    (base / "real").mkdir(parents=True)
    (base / "real" / "f").write_text("in")
    (base / "in").symlink_to("real")
    (base / "deep").symlink_to("in/f")
    (base / "up").symlink_to("../secret")
    (base / "abs").symlink_to("/etc")
    (base / "magic").symlink_to("/proc/self/root/etc")
    (base / "dangling").symlink_to("../made")
    fd = os.open(base, os.O_PATH | os.O_DIRECTORY)
    yield fd
    os.close(fd)


@pytest.mark.parametrize(
    "path", ["up", "abs", "abs/passwd", "magic", "../secret", "in/../../secret", "dangling/x"]
)
def test_no_way_out(volume: int, path: str, tmp_path: Path) -> None:
    with pytest.raises(mountns.Outside):
        mountns.make_beneath(volume, path, 0o755)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("path", ["real/f", "in/f", "deep", "./in//f"])
def test_links_within(volume: int, path: str) -> None:
    fd = mountns.make_beneath(volume, path, 0o755)
    assert stat.S_ISREG(os.fstat(fd).st_mode)
    os.close(fd)


def test_missing_folders_are_made_where_they_belong(volume: int, tmp_path: Path) -> None:
    os.close(mountns.make_beneath(volume, "in/a/b", 0o755))
    assert (tmp_path / "volume" / "real" / "a" / "b").is_dir()
