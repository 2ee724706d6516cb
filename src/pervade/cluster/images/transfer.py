"""Images in and out as archives, and the removal of what nobody needs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from pervade.base.errors import OperatorError
from pervade.cluster import references
from pervade.cluster.images import oci, recipes, store
from pervade.cluster.plan import load
from pervade.host.run import command


def take(cache: Path, archive: Path, say: recipes.Progress, *, run_root: Path) -> list[str]:
    """Give an OCI or Docker archive to the store and to all nodes that run; names that are new or changed.

    Kept in the cache by content, so later builds carry it too. Seconds per 100 MB.
    """
    if not archive.is_file():
        raise OperatorError("no such archive", where=str(archive), fix="docker save IMAGE -o ARCHIVE")
    before = store.manifest(found) if (found := store.ready(cache)) else {}
    kept = store.folder(cache) / "imported" / f"{oci.digest(archive)[:16]}.tar"
    fresh = not kept.exists()
    if fresh:
        kept.parent.mkdir(parents=True, exist_ok=True)
        partial = kept.with_suffix(".fresh")
        shutil.copyfile(archive, partial)
        partial.replace(kept)
    try:
        after = store.manifest(store.build(cache, say))
    except OperatorError:
        # What containerd refuses must not spoil every later build.
        if fresh:
            kept.unlink(missing_ok=True)
        raise
    for socket in _running(run_root):
        say(f"giving it to {socket.parent.parent.name}")
        command(["ctr", "-a", str(socket), "-n", "k8s.io", "images", "import", str(kept)], timeout=600)
    return sorted(name for name, found in after.items() if before.get(name) != found)


def _running(run_root: Path) -> list[Path]:
    """CRI sockets of all nodes of all clusters that run here."""
    found = []
    for file in sorted(run_root.glob("*/plan.json")):
        plan = load(file)
        found += [plan.cri_socket(n.name) for n in plan.nodes if plan.init_pid(n.name).exists()]
    return [socket for socket in found if socket.exists()]


def give_out(cache: Path, archive: Path, wanted: Sequence[str], say: recipes.Progress) -> dict[str, str]:
    """Write an OCI archive of the images made here (all, or those `wanted`); name → digest.

    The archive is there whole or not at all.
    """
    if not archive.parent.is_dir():
        raise OperatorError("no such folder", where=str(archive.parent), fix=f"mkdir -p {archive.parent}")
    made = recipes.images(recipes.Layers(store.folder(cache), say))
    known = {name for image in made for name in image.names}
    full = [references.full(w) for w in wanted]
    if missing := [w for w in full if w not in known]:
        raise OperatorError(f"not made here: {', '.join(missing)}", fix="pervade images list")
    chosen = [i for i in made if not full or any(n in full for n in i.names)]
    partial = archive.with_name(f".{archive.name}.{os.getpid()}")
    try:
        found = oci.archive(partial, chosen)
        partial.replace(archive)
    finally:
        partial.unlink(missing_ok=True)
    return found


def prune(cache: Path, *, everything: bool = False) -> int:
    """Remove stores and layers that are not in use (with `everything` the whole image cache); bytes freed.

    Clusters keep what they have: their nodes hold links of their own.
    """
    top = store.folder(cache)
    before = _size(top)
    if everything:
        shutil.rmtree(top, ignore_errors=True)
        return before
    current = store.ready(cache)
    for old in top.glob("store-*"):
        if current is None or old.resolve() != current:
            shutil.rmtree(old, ignore_errors=True)
    for partial in (*top.glob(".current-*"), *top.glob("imported/*.fresh"), *top.glob("layers/tmp*")):
        shutil.rmtree(partial) if partial.is_dir() and not partial.is_symlink() else partial.unlink()
    return before - _size(top)


def _size(folder: Path) -> int:
    """Bytes on disk, files with several links counted once."""
    seen: dict[tuple[int, int], int] = {}
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            found = path.lstat()
            seen[found.st_dev, found.st_ino] = found.st_blocks * 512
    return sum(seen.values())
