"""Contents of volumes: all of a change or nothing, and never outside the volume."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path
from typing import Any

import pytest

from pervade.cluster.kubelet.volumes import Sources, VolumeError, Volumes, write_atomically


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


def test_a_group_does_not_make_it_write_again_and_leftovers_go(tmp_path: Path) -> None:
    (tmp_path / "..123").mkdir()
    group = os.getgid()
    assert write_atomically(tmp_path, {"a": (b"1", 0o600)}, group)
    assert not write_atomically(tmp_path, {"a": (b"1", 0o600)}, group), "nothing changed"
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640
    assert not (tmp_path / "..123").exists(), "what a killed process left half written"


async def test_a_token_is_new_at_four_fifths_of_its_life_and_old_while_the_api_is_away(
    tmp_path: Path,
) -> None:
    lives = [100.0, 100.0, OSError("away"), 100.0]
    made: list[str] = []

    async def token(_pod: dict[str, Any], _projection: dict[str, Any]) -> tuple[str, float]:
        life = lives.pop(0)
        if isinstance(life, OSError):
            raise life
        made.append(f"token-{len(made)}")
        return made[-1], time.time() + life

    async def fetch(_kind: str, _namespace: str, _name: str) -> None:
        return None

    volumes = Volumes(tmp_path, "/x", lambda: "1")
    sources = Sources(fetch, token, lambda _pod: {})
    body = {"sources": [{"serviceAccountToken": {"path": "t"}}]}
    pod = {
        "metadata": {"name": "p", "namespace": "n"},
        "spec": {"volumes": [{"name": "v", "projected": body}]},
    }

    async def shown() -> str:
        await volumes.prepare(pod, sources)
        return (tmp_path / "volumes/projected/v/t").read_text()

    assert [await shown(), await shown()] == ["token-0", "token-0"]
    _age(volumes, 81)
    assert await shown() == "token-1"
    _age(volumes, 81)
    assert await shown() == "token-1", "the API is away, the old one still holds"
    assert await shown() == "token-2"


def _age(volumes: Volumes, seconds: float) -> None:
    for key, (token, expiry, renew) in list(volumes._tokens.items()):
        volumes._tokens[key] = (token, expiry - seconds, renew - seconds)
