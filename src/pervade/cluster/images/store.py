"""The prepared image store: everything imported and unpacked once, then given to each node by hard links.

A throwaway containerd (no CRI, private mounts) imports the archive; a node gets links to its content and
snapshots and real copies of its two databases (0.2 s, 4 MB). Store and state must share a file system.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import msgspec

from pervade.base.errors import OperatorError
from pervade.cluster.images import names, oci, recipes
from pervade.cluster.references import ImageMap
from pervade.host.run import command

_MARK = "store.json"
_BLOBS = "io.containerd.content.v1.content/blobs/sha256"
_DATABASES = ("io.containerd.metadata.v1.bolt/meta.db", "io.containerd.snapshotter.v1.overlayfs/metadata.db")


def folder(cache: Path) -> Path:
    """Where prepared stores live."""
    return cache / "images"


def ready(cache: Path) -> Path | None:
    """The newest prepared store, or None when nothing was built yet."""
    current = folder(cache) / "current"
    return current.resolve() if (current / _MARK).exists() else None


def manifest(store: Path) -> dict[str, str]:
    """Reference → digest of every image in a store."""
    found: dict[str, str] = json.loads((store / _MARK).read_text())["images"]
    return found


def missing(store: Path) -> list[str]:
    """Images that the map leads to and a store does not hold: it was built by an older version."""
    return sorted({rule.image for rule in names.RULES} - manifest(store).keys())


def build(cache: Path, say: recipes.Progress = lambda _text: None) -> Path:
    """Build what is missing and prepare the store; gives its folder. A look at the sources when nothing changed.

    One build at a time per cache; a second one waits and then finds everything done.
    """
    folder(cache).mkdir(parents=True, exist_ok=True)
    with (folder(cache) / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _build(cache, say)


def _build(cache: Path, say: recipes.Progress) -> Path:
    layers = recipes.Layers(folder(cache), say)
    foreign = imported(cache)
    # Without a checkout, what was exported elsewhere and imported here is all there is.
    made = recipes.images(layers) if recipes.has_checkout() or not foreign else []
    mark = recipes.key(
        *[(i.names, [p.name for p in i.layers], i.command, i.entrypoint, i.env, i.user) for i in made],
        *[p.name for p in foreign],
    )
    target = folder(cache) / f"store-{mark}"
    if not (target / _MARK).exists():
        say("preparing the store")
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        held = _start_from(ready(cache), target, foreign)
        whole = target / "images.tar"
        digests = oci.archive(whole, made, known=held)
        digests |= _import(target, [whole, *foreign] if made else foreign)
        whole.unlink()
        marks = {"images": digests, "imported": [p.name for p in foreign]}
        (target / _MARK).write_text(json.dumps(marks, indent=1))
    current = folder(cache) / "current"
    fresh = folder(cache) / f".current-{os.getpid()}"
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target.name)
    fresh.replace(current)
    _forget_old(cache, target, layers.used)
    return target


def _start_from(previous: Path | None, target: Path, foreign: list[Path]) -> set[str]:
    """Begin `target` with the unpacked images of the present store, so that only new layers cost time.

    Gives the blobs that are there to stay. Files are shared by hard links: containerd adds and unlinks
    content, it never writes into what is there.
    """
    if previous is None or json.loads((previous / _MARK).read_text()).get("imported") != [
        p.name for p in foreign
    ]:
        return set()
    _link(previous / "root", target / "root")
    return _held(previous)


def _held(store: Path) -> set[str]:
    """Digests (in hex) of what the images of a store consist of.

    Not all that lies in the folder: what an older image left behind is removed as soon as containerd runs.
    """
    found: set[str] = set()
    waiting = [digest.removeprefix("sha256:") for digest in manifest(store).values()]
    while waiting:
        name = waiting.pop()
        blob = store / "root" / _BLOBS / name
        if name in found or not blob.exists():
            continue
        found.add(name)
        about = json.loads(blob.read_bytes())
        waiting += [one["digest"].removeprefix("sha256:") for one in about.get("manifests", ())]
        for part in (*about.get("layers", ()), about.get("config")):
            if (
                part
                and (store / "root" / _BLOBS / (digest := part["digest"].removeprefix("sha256:"))).exists()
            ):
                found.add(digest)
    return found


def _link(source: Path, root: Path) -> None:
    """A containerd root that shares all content with `source` and has its own databases."""
    command(["cp", "-al", str(source), str(root)])
    for name in _DATABASES:
        linked = root / name
        fresh = linked.with_suffix(".fresh")
        shutil.copy2(source / name, fresh)
        fresh.replace(linked)


def _forget_old(cache: Path, keep: Path, layers: list[Path]) -> None:
    """Remove stores and layers that the current recipes do not use; nodes keep their links."""
    for old in folder(cache).glob("store-*"):
        if old != keep:
            shutil.rmtree(old, ignore_errors=True)
    for tar in (folder(cache) / "layers").glob("*.tar"):
        if tar not in layers:
            tar.unlink()


def imported(cache: Path) -> list[Path]:
    """Archives that a user gave (`pervade images import`), named by content, the oldest first."""
    return sorted(folder(cache).glob("imported/*.tar"), key=lambda p: p.stat().st_mtime)


def _import(target: Path, archives: list[Path]) -> dict[str, str]:
    """Import `archives` in order into the store's containerd root; gives every name with its digest."""
    with tempfile.TemporaryDirectory(prefix="pervade-import-") as work:
        socket = Path(work) / "c.sock"
        config = Path(work) / "containerd.toml"
        config.write_text(
            f'version = 2\nroot = "{target / "root"}"\nstate = "{work}/state"\n'
            'disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt",'
            ' "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",'
            ' "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs"]\n'
            f'[grpc]\n  address = "{socket}"\n[ttrpc]\n  address = "{socket}.ttrpc"\n'
        )
        log = (Path(work) / "log").open("wb")
        server = subprocess.Popen(
            # No fork in between, so that SIGTERM reaches containerd and it closes its databases.
            ["unshare", "-m", "--propagation", "private", "setpriv", "--pdeathsig", "KILL",
             "containerd", "-c", str(config), "-l", "warn"],
            stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
        try:
            limit = time.monotonic() + 20
            while not socket.exists():
                if server.poll() is not None or time.monotonic() > limit:
                    said = (Path(work) / "log").read_text()[-800:]
                    raise OperatorError(f"containerd did not start: {said}", fix="pervade doctor")
                time.sleep(0.05)
            ctr = ["ctr", "-a", str(socket), "-n", "k8s.io", "images"]
            for archive in archives:
                command([*ctr, "import", str(archive)], timeout=600)
            # REF TYPE DIGEST SIZE …
            rows = [line.split() for line in command([*ctr, "list"]).splitlines()[1:]]
            return {row[0]: row[2] for row in rows if not row[0].startswith("sha256:")}
        finally:
            server.send_signal(signal.SIGTERM)
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
            log.close()


def give(store: Path, node_state: Path) -> bool:
    """Make `node_state/root` a containerd root with all images; False when it has them already.

    For a node that does not run. Another store than last time replaces everything: containers are made anew.
    """
    root, mark = node_state / "root", node_state / "image-store"
    (node_state / "image-map.json").write_bytes(
        msgspec.json.format(msgspec.json.encode(ImageMap(names.RULES)), indent=1)
    )
    if mark.exists() and mark.read_text() == store.name and root.is_dir():
        return False
    shutil.rmtree(root, ignore_errors=True)
    if store.stat().st_dev != node_state.stat().st_dev:
        raise OperatorError(
            "the image cache and the cluster's state are on different file systems",
            where=f"{store} and {node_state}",
            cause="images are given to nodes by hard links",
            fix="choose --cache-dir and --state-dir on one file system",
        )
    _link(store / "root", root)
    mark.write_text(store.name)
    return True
