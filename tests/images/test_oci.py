"""Archives and layers: valid by the OCI image format, and the same bytes for the same input."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest

from pervade.cluster.images import oci, recipes


def _tar(path: Path, files: dict[str, bytes], **attributes: Any) -> Path:
    with tarfile.open(path, "w") as out:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), time.time()
            for key, value in attributes.items():
                setattr(info, key, value)
            out.addfile(info, io.BytesIO(data))
    return path


def _members(path: Path) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(path) as tar:
        return {m.name: m for m in tar}


def test_a_layer_is_the_same_bytes_whatever_the_order_and_the_time(tmp_path: Path) -> None:
    one, two = tmp_path / "1.tar", tmp_path / "2.tar"
    oci.layer(one, {"b/x": b"1", "a": b"2", "l": "b/x"}, executable=["a"])
    oci.layer(two, {"l": "b/x", "a": b"2", "b/x": b"1"}, executable=["a"])
    assert one.read_bytes() == two.read_bytes()
    found = _members(one)
    assert found["b"].isdir() and found["l"].linkname == "b/x"
    assert (found["a"].mode, found["b/x"].mode) == (0o755, 0o644)
    assert {(m.uid, m.gid, m.mtime) for m in found.values()} == {(0, 0, oci.EPOCH)}


def test_normalised_drops_what_tells_of_the_machine(tmp_path: Path) -> None:
    source = _tar(tmp_path / "s.tar", {"./etc/hostname": b"mine", "./etc/passwd": b"root"})
    oci.normalised(tmp_path / "n.tar", source, without={"etc/hostname"})
    found = _members(tmp_path / "n.tar")
    assert list(found) == ["./etc/passwd"] and found["./etc/passwd"].mtime == oci.EPOCH


def test_a_difference_holds_what_is_new_or_changed(tmp_path: Path) -> None:
    lower = _tar(tmp_path / "l.tar", {"same": b"1", "changed": b"1"})
    upper = _tar(tmp_path / "u.tar", {"same": b"1", "changed": b"2", "new": b"3"})
    oci.difference(tmp_path / "d.tar", upper, lower)
    assert sorted(_members(tmp_path / "d.tar")) == ["changed", "new"]


def _image(folder: Path, content: bytes) -> oci.Image:
    layer = folder / "layer.tar"
    oci.layer(layer, {"f": content})
    return oci.Image(("a.local/x:1", "a.local/x:2"), (layer,), command=("/f",), user="1000")


def test_an_archive_is_consistent_from_index_to_layer(tmp_path: Path) -> None:
    image = _image(tmp_path, b"1")
    found = oci.archive(tmp_path / "a.tar", [image])
    again = oci.archive(tmp_path / "b.tar", [image])
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes() and found == again
    with tarfile.open(tmp_path / "a.tar") as tar:

        def read(name: str) -> bytes:
            file = tar.extractfile(name)
            assert file is not None
            return file.read()

        def blob(described: dict[str, Any]) -> bytes:
            data = read("blobs/" + described["digest"].replace(":", "/"))
            assert len(data) == described["size"]
            assert f"sha256:{hashlib.sha256(data).hexdigest()}" == described["digest"]
            return data

        assert json.loads(read("oci-layout")) == {"imageLayoutVersion": "1.0.0"}
        index = json.loads(read("index.json"))["manifests"]
        assert {m["annotations"]["io.containerd.image.name"]: m["digest"] for m in index} == found
        manifest = json.loads(blob(index[0]))
        config = json.loads(blob(manifest["config"]))
        assert config["config"]["Cmd"] == ["/f"] and config["config"]["User"] == "1000"
        assert config["rootfs"]["diff_ids"] == [d["digest"] for d in manifest["layers"]]
        blob(manifest["layers"][0])


def test_blobs_that_the_reader_has_are_left_out(tmp_path: Path) -> None:
    image = _image(tmp_path, b"1")
    oci.archive(tmp_path / "a.tar", [image], known={oci.digest(image.layers[0])})
    assert f"blobs/sha256/{oci.digest(image.layers[0])}" not in _members(tmp_path / "a.tar")


@pytest.mark.parametrize("change", ["content", "name", "mode"])
def test_a_folders_key_changes_with_it(tmp_path: Path, change: str) -> None:
    folder = tmp_path / "src"
    folder.mkdir()
    (folder / "a").write_text("1")
    (folder / "__pycache__").mkdir()
    before = recipes.tree_key(folder)
    (folder / "__pycache__" / "a.pyc").write_text("not part of it")
    assert recipes.tree_key(folder) == before
    match change:
        case "content":
            (folder / "a").write_text("2")
        case "name":
            (folder / "a").rename(folder / "b")
        case "mode":
            (folder / "a").chmod(0o755)
    assert recipes.tree_key(folder) != before


def test_images_that_share_layers_share_them(dry: list[oci.Image]) -> None:
    stacks = {i.names[0]: i.layers for i in dry}
    base = stacks["pervade.local/pervade:dev"][0]
    assert sum(layers[0] == base for layers in stacks.values()) == len(stacks) - 2
