"""An OCI image archive, written reproducibly: the same input gives the same bytes.

Source: OCI image format specification 1.0 (image layout, manifest, configuration). Layers are plain
tar, so a layer's digest is its diff id. Cost: one pass over each layer for its digest.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

EPOCH = 1_700_000_000
_CREATED = "2023-11-14T22:13:20Z"
_TYPES = "application/vnd.oci.image"


class Image(msgspec.Struct, frozen=True):
    """One image: all its names (full references), its layers bottom up, and how it starts."""

    names: tuple[str, ...]
    layers: tuple[Path, ...]
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    env: tuple[str, ...] = ("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",)
    user: str = ""
    workdir: str = "/"
    ports: tuple[str, ...] = ()
    labels: dict[str, str] = {}


def digest(path: Path) -> str:
    """sha256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def entry(
    name: str, *, mode: int = 0o644, size: int = 0, kind: bytes = tarfile.REGTYPE, link: str = ""
) -> tarfile.TarInfo:
    """A tar header with fixed owner and time."""
    info = tarfile.TarInfo(name)
    info.mode, info.size, info.type, info.linkname = mode, size, kind, link
    info.uid = info.gid = 0
    info.mtime = EPOCH
    return info


def layer(path: Path, files: Mapping[str, bytes | Path | str], *, executable: Iterable[str] = ()) -> None:
    """Write a layer of regular files (bytes or a file's content) and links (text = target); parents are made."""
    runnable = set(executable)
    folders: set[str] = set()
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as out:
        for name in sorted(files):
            for i in range(1, len(Path(name).parts)):
                folder = str(Path(*Path(name).parts[:i]))
                if folder not in folders:
                    folders.add(folder)
                    out.addfile(entry(folder, mode=0o755, kind=tarfile.DIRTYPE))
            content = files[name]
            if isinstance(content, str):
                out.addfile(entry(name, mode=0o777, kind=tarfile.SYMTYPE, link=content))
                continue
            data = content if isinstance(content, bytes) else content.read_bytes()
            is_program = name in runnable or (
                isinstance(content, Path) and bool(content.stat().st_mode & 0o100)
            )
            out.addfile(entry(name, mode=0o755 if is_program else 0o644, size=len(data)), io.BytesIO(data))


def difference(path: Path, upper: Path, lower: Path) -> None:
    """Write the layer that turns the root file system tar `lower` into `upper` (removals are left out)."""
    known = {}
    with tarfile.open(lower) as tar:
        for member in tar:
            known[member.name] = _mark(tar, member)
    with tarfile.open(upper) as tar, tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as out:
        for member in tar:
            if known.get(member.name) == _mark(tar, member):
                continue
            data = tar.extractfile(member) if member.isreg() else None
            out.addfile(member, data)


def _mark(tar: tarfile.TarFile, member: tarfile.TarInfo) -> tuple[Any, ...]:
    content = b""
    if member.isreg() and (file := tar.extractfile(member)):
        content = hashlib.file_digest(file, "sha1").digest()  # type: ignore[arg-type]
    return member.type, member.mode, member.uid, member.gid, member.linkname, member.size, content


def normalised(path: Path, source: Path, *, without: Collection[str] = ()) -> None:
    """Copy a root file system tar with fixed times, sorted by name, without device nodes and files `without`."""
    with tarfile.open(source) as tar, tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as out:
        for member in tar:
            if member.isdev() or member.name.removeprefix("./") in without:
                continue
            member.mtime = EPOCH
            member.pax_headers = {}
            out.addfile(member, tar.extractfile(member) if member.isreg() else None)


def archive(path: Path, images: Sequence[Image], *, known: Collection[str] = ()) -> dict[str, str]:
    """Write an archive of `images`, layers shared once; gives name → manifest digest.

    Blobs whose digest (in hex) is in `known` are left out: the reader has them.
    """
    blobs: dict[str, bytes | Path] = {}
    index: list[dict[str, Any]] = []
    found: dict[str, str] = {}
    digests: dict[Path, str] = {}
    for image in images:
        layers = []
        for one in image.layers:
            if one not in digests:
                digests[one] = digest(one)
            blobs[digests[one]] = one
            layers.append(
                {
                    "mediaType": f"{_TYPES}.layer.v1.tar",
                    "digest": f"sha256:{digests[one]}",
                    "size": one.stat().st_size,
                }
            )
        config = _blob(blobs, _config(image, [digests[one] for one in image.layers]))
        manifest = {
            "schemaVersion": 2,
            "mediaType": f"{_TYPES}.manifest.v1+json",
            "config": {"mediaType": f"{_TYPES}.config.v1+json", **config},
            "layers": layers,
        }
        described = {"mediaType": f"{_TYPES}.manifest.v1+json", **_blob(blobs, manifest)}
        for name in image.names:
            marks = {
                "io.containerd.image.name": name,
                "org.opencontainers.image.ref.name": name.rpartition(":")[2],
            }
            index.append(
                {**described, "platform": {"architecture": "amd64", "os": "linux"}, "annotations": marks}
            )
            found[name] = str(described["digest"])
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as out:
        _add(out, "oci-layout", msgspec.json.encode({"imageLayoutVersion": "1.0.0"}))
        _add(out, "index.json", msgspec.json.encode({"schemaVersion": 2, "manifests": index}))
        for name in sorted(blobs):
            if name in known:
                continue
            _add(out, f"blobs/sha256/{name}", blobs[name])
    return found


def _config(image: Image, diff_ids: Sequence[str]) -> dict[str, Any]:
    run: dict[str, Any] = {"Env": list(image.env), "WorkingDir": image.workdir}
    optional = {
        "Entrypoint": list(image.entrypoint),
        "Cmd": list(image.command),
        "User": image.user,
        "Labels": image.labels,
    }
    optional["ExposedPorts"] = {p: {} for p in image.ports}
    run |= {k: v for k, v in optional.items() if v}
    return {
        "created": _CREATED,
        "architecture": "amd64",
        "os": "linux",
        "config": run,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{d}" for d in diff_ids]},
        "history": [{"created": _CREATED} for _ in diff_ids],
    }


def _blob(blobs: dict[str, bytes | Path], content: dict[str, Any]) -> dict[str, Any]:
    data = msgspec.json.encode(content, order="sorted")
    name = hashlib.sha256(data).hexdigest()
    blobs[name] = data
    return {"digest": f"sha256:{name}", "size": len(data)}


def _add(out: tarfile.TarFile, name: str, content: bytes | Path) -> None:
    if isinstance(content, bytes):
        out.addfile(entry(name, size=len(content)), io.BytesIO(content))
        return
    with content.open("rb") as file:
        out.addfile(entry(name, size=content.stat().st_size), file)
