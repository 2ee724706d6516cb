"""Contents of volumes: all of a change or nothing, and never outside the volume."""

from __future__ import annotations

from pathlib import Path

import pytest

from pervade.cluster.kubelet.volumes import VolumeError, write_atomically


def test_a_change_is_seen_whole_and_removed_files_go(tmp_path: Path) -> None:
    assert write_atomically(tmp_path, {"a": (b"1", 0o644), "sub/b": (b"2", 0o600)})
    assert not write_atomically(tmp_path, {"a": (b"1", 0o644), "sub/b": (b"2", 0o600)}), "nothing changed"
    assert write_atomically(tmp_path, {"a": (b"3", 0o644)})
    assert (tmp_path / "a").read_bytes() == b"3"
    assert not (tmp_path / "sub").exists()


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x"])
def test_a_path_cannot_leave_the_volume(tmp_path: Path, path: str) -> None:
    with pytest.raises(VolumeError, match="leaves the volume"):
        write_atomically(tmp_path / "v", {path: (b"x", 0o644)})
    assert not (tmp_path / "x").exists()
