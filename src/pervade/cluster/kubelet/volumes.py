"""Volumes of a pod as folders of the node: made before its containers, kept current, removed after it.

Files of configMap, secret, downwardAPI and projected volumes are written into a fresh folder which the
link `..data` then names (one rename), so a reader sees all of a change or nothing. Source: Kubernetes'
atomic writer. All paths are below the node's /var/lib/kubelet.
"""

from __future__ import annotations

import base64
import contextlib
import logging
import os
import shutil
import stat
import subprocess
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from pervade.cluster.kubelet import environment

log = logging.getLogger(__name__)
JSON = dict[str, Any]
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

    def __init__(
        self, root: Path, seen: str, enter: Callable[[list[str]], list[str]], host: Callable[[str], Path]
    ) -> None:
        self.root, self.seen, self._enter, self._host = root, seen, enter, host
        self._tokens: dict[str, tuple[str, float, float]] = {}

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
                folder.chmod(0o777)
                if (volume["emptyDir"] or {}).get("medium") == "Memory":
                    size = (volume["emptyDir"] or {}).get("sizeLimit")
                    self._tmpfs(f"{self.seen}/volumes/{kind}/{name}", size)
                elif group is not None:
                    os.chown(folder, -1, int(group))
                    folder.chmod(0o2777)
        if kind != "emptyDir":
            files = await self._files(pod, volume, kind, sources)
            write_atomically(folder, files, int(group) if group is not None else None)
        return f"{self.seen}/volumes/{kind}/{name}"

    def _tmpfs(self, target: str, size: object) -> None:
        from pervade.cluster.kubelet import quantity

        options = f"mode=1777,size={quantity.in_bytes(size)}" if size else "mode=1777"
        done = subprocess.run(
            self._enter(["mount", "-t", "tmpfs", "-o", options, "tmpfs", target]),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise VolumeError(f"tmpfs at {target}: {done.stderr.strip()}")

    def _host_path(self, source: JSON) -> str:
        path, kind = source["path"], source.get("type") or ""
        if ".." in path.split("/"):
            raise VolumeError(f"hostPath {path!r} must not contain '..'")
        real = self._host(path)
        if kind in ("DirectoryOrCreate", "FileOrCreate") and not real.exists():
            real.parent.mkdir(parents=True, exist_ok=True)
            if kind == "FileOrCreate":
                real.touch()
            else:
                real.mkdir(mode=0o755)
        elif kind in _HOST_TYPES:
            try:
                fits = _HOST_TYPES[kind](real.stat().st_mode)
            except OSError:
                fits = False
            if not fits:
                raise VolumeError(f"hostPath type check failed: {path} is not a {kind}")
        return str(path)

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
            return {
                body["path"]: (
                    (await self._token(pod, volume, body, sources)).encode(),
                    0o600 if _private(pod) else mode,
                )
            }
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
        with contextlib.suppress(OSError):
            for folder in (self.root / "volumes" / "emptyDir").iterdir():
                subprocess.run(
                    self._enter(["umount", "-l", f"{self.seen}/volumes/emptyDir/{folder.name}"]),
                    capture_output=True,
                    check=False,
                )
        shutil.rmtree(self.root, ignore_errors=True)


def _private(pod: JSON) -> bool:
    """Whether every container runs as one known user, so that a token can be its own alone: never assumed here."""
    del pod
    return False


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
    current = folder / "..data"
    if current.is_symlink() and _contents(current) == files:
        return False
    fresh = folder / f"..{time.time_ns()}"
    for path, (content, mode) in files.items():
        target = fresh / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        target.chmod(mode | (0o440 if group is not None else 0))
        if group is not None:
            os.chown(target, -1, group)
    fresh.mkdir(exist_ok=True)
    fresh.chmod(0o755)
    old = current.readlink() if current.is_symlink() else None
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
    if old is not None:
        shutil.rmtree(folder / old, ignore_errors=True)
    return True


def _contents(folder: Path) -> Files:
    base = folder.resolve()
    return {
        str(p.relative_to(base)): (p.read_bytes(), stat.S_IMODE(p.stat().st_mode))
        for p in base.rglob("*")
        if p.is_file()
    }
