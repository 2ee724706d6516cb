"""Volumes of a pod as folders of the node: made before its containers, kept current, removed after it.

Files of configMap, secret, downwardAPI and projected volumes are written into a fresh folder which the
link `..data` then names (one rename), so a reader sees all of a change or nothing. Source: Kubernetes'
atomic writer. All paths are below the node's /var/lib/kubelet; what is looked at or mounted by path is so inside
the node's mount namespace, where a link means what it means to the node.
"""

from __future__ import annotations

import base64
import contextlib
import logging
import os
import shutil
import stat
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from pervade.cluster.kubelet import environment, mountns, quantity
from pervade.kube.errors import ApiError
from pervade.wire.http import ClientError

log = logging.getLogger(__name__)
JSON = dict[str, Any]
T = TypeVar("T")
Files = dict[str, tuple[bytes, int]]
_HOST_TYPES = {
    "Directory": stat.S_ISDIR, "File": stat.S_ISREG, "Socket": stat.S_ISSOCK, "CharDevice": stat.S_ISCHR, "BlockDevice": stat.S_ISBLK,
}  # fmt: skip


class VolumeError(Exception):
    """The volume cannot be made: FailedMount with this text."""


class Sources:
    """Where contents come from: objects by name, and tokens."""

    def __init__(
        self,
        fetch: Callable[[str, str, str], Awaitable[JSON | None]],
        token: Callable[[JSON, JSON], Awaitable[tuple[str, float]]],
        context: Callable[[JSON], JSON],
    ) -> None:
        self.fetch, self.token, self.context = fetch, token, context
        """`fetch(kind, namespace, name)`; `token(pod, projection)` → (token, expiry); `context(pod)` → keyword
        arguments of the downward API."""


class Volumes:
    """The volumes of one pod. `root` is the pod's folder as the host sees it, `seen` as the node sees it."""

    def __init__(self, root: Path, seen: str, init: Callable[[], str]) -> None:
        self.root, self.seen, self._init = root, seen, init
        """`init()` is the pid of a process that lives in the node's namespaces."""
        self._tokens: dict[str, tuple[str, float, float]] = {}

    def _inside(self, act: Callable[[], T]) -> T:
        return mountns.inside(Path(f"/proc/{self._init()}/ns/mnt"), act)

    async def prepare(self, pod: JSON, sources: Sources) -> dict[str, str]:
        """Make what is missing and bring contents up to date; volume name → folder as the node sees it.

        Raises VolumeError.
        """
        out = {}
        for volume in pod["spec"].get("volumes") or ():
            out[volume["name"]] = await self._one(pod, volume, sources)
        return out

    async def _one(self, pod: JSON, volume: JSON, sources: Sources) -> str:
        name = volume["name"]
        if "hostPath" in volume:
            return self._host_path(volume["hostPath"])
        kind = next(
            (k for k in ("emptyDir", "configMap", "secret", "downwardAPI", "projected") if k in volume), None
        )
        if kind is None:
            others = ", ".join(k for k in volume if k != "name")
            raise VolumeError(f"volume {name!r}: {others} volumes are not served by this node")
        folder = self.root / "volumes" / kind / name
        group = (pod["spec"].get("securityContext") or {}).get("fsGroup")
        if not folder.is_dir():
            folder.mkdir(parents=True)
            if kind == "emptyDir":
                if (volume["emptyDir"] or {}).get("medium") == "Memory":
                    size = (volume["emptyDir"] or {}).get("sizeLimit")
                    self._tmpfs(f"{self.seen}/volumes/{kind}/{name}", size, group)
                elif group is not None:
                    os.chown(folder, -1, int(group))
                    folder.chmod(0o2777)
                else:
                    folder.chmod(0o777)
        if kind != "emptyDir":
            try:
                files = await self._files(pod, volume, kind, sources)
            except (ApiError, ClientError, OSError) as error:
                # A container that is started again while the API is away gets what the volume held.
                if not (folder / "..data").is_symlink():
                    raise
                log.debug("volume not refreshed", extra={"volume": name, "error": str(error)})
                return f"{self.seen}/volumes/{kind}/{name}"
            write_atomically(folder, files, int(group) if group is not None else None)
        return f"{self.seen}/volumes/{kind}/{name}"

    def _tmpfs(self, target: str, size: object, group: object) -> None:
        options = "mode=0777" if group is None else f"mode=2777,gid={int(str(group))}"
        if size:
            options += f",size={quantity.in_bytes(size)}"
        try:
            self._inside(lambda: mountns.tmpfs(target, options))
        except OSError as error:
            raise VolumeError(f"tmpfs at {target}: {error}") from None

    def _host_path(self, source: JSON) -> str:
        path, kind = str(source["path"]), source.get("type") or ""
        if ".." in path.split("/"):
            raise VolumeError(f"hostPath {path!r} must not contain '..'")
        if kind:
            try:
                self._inside(lambda: check_host_path(Path(path), kind))
            except OSError as error:
                raise VolumeError(f"hostPath {path}: {error}") from None
        return path

    def bind(self, source: str, sub: str, name: str) -> str:
        """Mount `sub` within the volume folder `source`; the path to give a container. Raises VolumeError.

        Links within the volume are followed, a link out of it is refused by the kernel. Made anew for each
        start of a container, so that it sees the present file of a volume whose files are exchanged.
        """
        target = f"{self.seen}/volume-subpaths/{name}"
        try:
            self._inside(lambda: mountns.bind_beneath(source, sub, target))
        except mountns.Outside:
            raise VolumeError(f"subPath {sub!r} leaves the volume") from None
        except OSError as error:
            raise VolumeError(f"subPath {sub!r}: {error}") from None
        return target

    def beyond_limit(self, pod: JSON) -> str | None:
        """Why the pod must go: an emptyDir on disk that holds more than its sizeLimit. O(files)."""
        for volume in pod["spec"].get("volumes") or ():
            source = volume.get("emptyDir") or {}
            if not limited(volume):
                continue
            folder = self.root / "volumes" / "emptyDir" / volume["name"]
            used = 0
            for base, _, names in os.walk(folder):
                for name in names:
                    with contextlib.suppress(OSError):
                        used += (Path(base) / name).lstat().st_blocks * 512
            if used > quantity.in_bytes(source["sizeLimit"]):
                return (
                    f'Usage of EmptyDir volume "{volume["name"]}" exceeds the limit "{source["sizeLimit"]}".'
                )
        return None

    async def _files(self, pod: JSON, volume: JSON, kind: str, sources: Sources) -> Files:
        body = volume[kind]
        default = int(body.get("defaultMode", 0o644))
        if kind != "projected":
            return await self._source(pod, volume["name"], kind, body, default, sources)
        out: Files = {}
        for one in body.get("sources") or ():
            for what, source in one.items():
                out |= await self._source(pod, volume["name"], what, source, default, sources)
        return out

    async def _source(
        self, pod: JSON, volume: str, kind: str, body: JSON, mode: int, sources: Sources
    ) -> Files:
        if kind == "serviceAccountToken":
            return {body["path"]: ((await self._token(pod, volume, body, sources)).encode(), mode)}
        if kind == "downwardAPI":
            return self._downward(pod, body, mode, sources)
        name = body.get("secretName") if kind == "secret" and "secretName" in body else body.get("name", "")
        found = await sources.fetch(
            "Secret" if kind == "secret" else "ConfigMap", pod["metadata"]["namespace"], str(name)
        )
        if found is None:
            if body.get("optional"):
                return {}
            raise VolumeError(f'{"secret" if kind == "secret" else "configmap"} "{name}" not found')
        data = data_of(found)
        if not body.get("items"):
            return {k: (v, mode) for k, v in data.items()}
        out: Files = {}
        for item in body["items"]:
            if item["key"] in data:
                out[item["path"]] = (data[item["key"]], int(item.get("mode", mode)))
            elif not body.get("optional"):
                raise VolumeError(f'"{name}" has no key {item["key"]!r}')
        return out

    def _downward(self, pod: JSON, body: JSON, mode: int, sources: Sources) -> Files:
        out: Files = {}
        context = sources.context(pod)
        for item in body.get("items") or ():
            try:
                if ref := item.get("fieldRef"):
                    text = environment.field_value(
                        pod, ref["fieldPath"], pod_ips=context["pod_ips"], host_ips=context["host_ips"]
                    )
                else:
                    ref = item["resourceFieldRef"]
                    container = next(
                        c for c in pod["spec"]["containers"] if c["name"] == ref.get("containerName")
                    )
                    text = environment.resource_value(
                        container, ref["resource"], str(ref.get("divisor") or "1"), context["capacity"]
                    )
            except (environment.Missing, StopIteration, KeyError) as error:
                raise VolumeError(f"downwardAPI item {item.get('path')!r}: {error}") from None
            out[item["path"]] = (text.encode(), int(item.get("mode", mode)))
        return out

    async def _token(self, pod: JSON, volume: str, body: JSON, sources: Sources) -> str:
        """The token of a projection, a new one at 80 % of its life."""
        key = f"{volume}/{body['path']}"
        held = self._tokens.get(key)
        if held and time.time() < held[2]:
            return held[0]
        try:
            token, expiry = await sources.token(pod, body)
        except Exception as error:
            if held and time.time() < held[1]:
                log.warning(
                    "token not renewed; the old one is kept",
                    extra={"pod": pod["metadata"]["name"], "error": str(error)},
                )
                return held[0]
            raise VolumeError(f"no service-account token: {error}") from error
        now = time.time()
        self._tokens[key] = (token, expiry, now + 0.8 * (expiry - now))
        return token

    def remove(self) -> None:
        """Unmount and delete everything of the pod."""
        points = mountns.mounted_below(self._init(), self.seen)
        if points:
            self._inside(lambda: mountns.unmount_all(points))
        shutil.rmtree(self.root, ignore_errors=True)


def limited(volume: JSON) -> bool:
    """Whether a volume's size on disk must be watched."""
    source = volume.get("emptyDir") or {}
    return bool(source.get("sizeLimit")) and source.get("medium") != "Memory"


def check_host_path(path: Path, kind: str) -> None:
    """Make or check a hostPath of a type, in the present namespace. Raises VolumeError, OSError."""
    if kind in ("DirectoryOrCreate", "FileOrCreate"):
        if not path.exists():
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            if kind == "FileOrCreate":
                path.touch(mode=0o644)
            else:
                path.mkdir(mode=0o755)
        kind = kind.removesuffix("OrCreate")
    if kind not in _HOST_TYPES:
        raise VolumeError(f"hostPath type {kind!r} is not known")
    try:
        fits = _HOST_TYPES[kind](path.stat().st_mode)
    except FileNotFoundError:
        fits = False
    if not fits:
        raise VolumeError(f"hostPath type check failed: {path} is not a {kind}")


def data_of(obj: JSON) -> dict[str, bytes]:
    """The contents of a ConfigMap or Secret."""
    if obj.get("kind") == "Secret":
        return {k: base64.b64decode(v or "") for k, v in (obj.get("data") or {}).items()}
    out = {k: str(v).encode() for k, v in (obj.get("data") or {}).items()}
    return out | {k: base64.b64decode(v or "") for k, v in (obj.get("binaryData") or {}).items()}


def write_atomically(folder: Path, files: Files, group: int | None = None) -> bool:
    """Make `folder` show exactly `files` (path → content, mode); False when it did already. O(bytes).

    Raises VolumeError for a path that would leave the folder.
    """
    for path in files:
        if path.startswith("/") or ".." in path.split("/"):
            raise VolumeError(f"path {path!r} leaves the volume")
    if group is not None:
        files = {path: (content, mode | 0o440) for path, (content, mode) in files.items()}
    current = folder / "..data"
    if current.is_symlink() and _contents(current) == files:
        return False
    fresh = folder / f"..{time.time_ns()}"
    for path, (content, mode) in files.items():
        target = fresh / path
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(target, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(content)
            if group is not None:
                os.fchown(file.fileno(), -1, group)
            os.fchmod(file.fileno(), mode)
    fresh.mkdir(exist_ok=True)
    fresh.chmod(0o755)
    link = folder / "..data_tmp"
    link.unlink(missing_ok=True)
    link.symlink_to(fresh.name)
    link.replace(current)
    tops = {Path(p).parts[0] for p in files}
    for top in tops:
        shown = folder / top
        if not shown.is_symlink():
            shown.symlink_to(f"..data/{top}")
    for shown in folder.iterdir():
        if shown.is_symlink() and not shown.name.startswith("..") and shown.name not in tops:
            shown.unlink()
    for old in folder.iterdir():
        # Also what a killed process left half written.
        if old.name.startswith("..") and not old.is_symlink() and old.name != fresh.name:
            shutil.rmtree(old, ignore_errors=True)
    return True


def _contents(folder: Path) -> Files:
    base = folder.resolve()
    return {
        str(p.relative_to(base)): (p.read_bytes(), stat.S_IMODE(p.stat().st_mode))
        for p in base.rglob("*")
        if p.is_file()
    }
