"""Images of one node: which one a reference means, and whether it is there.

A reference that is present wins; else the node's image map (made here, no registry needed); else a pull.
Source of the pull policies: Kubernetes "Images". Images are never removed by us (no image garbage collection).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from pervade.cluster.kubelet.cri import Cri, CriError
from pervade.cluster.references import ImageMap, full, resolve

JSON = dict[str, Any]
_PULL_TIMEOUT = 600.0
_OFFLINE = 60.0


class Images:
    """Answers `ensure`; `map_file` is the node's image-map.json."""

    def __init__(self, cri: Cri, map_file: Path) -> None:
        self.cri = cri
        self.rules = (
            msgspec.json.decode(map_file.read_bytes(), type=ImageMap).rules if map_file.exists() else ()
        )
        self._pulls: dict[str, asyncio.Task[str | None]] = {}
        self._unreachable: dict[str, float] = {}

    async def ensure(
        self, reference: str, policy: str, pulling: Callable[[], None]
    ) -> tuple[JSON | None, str, str]:
        """(image, "", what to tell) or (None, reason, why it is not there). `image` has `id`, `user`, `uid`.

        `pulling()` is called before a registry is asked.
        """
        found = await self.present(reference)
        mapped = resolve(reference, self.rules)
        if found is None and mapped is not None:
            found = await self.present(mapped)
            if found is not None:
                # The map exists because the registry cannot be relied on: it stands for the name under every policy.
                return found, "", f'Container image "{reference}" is served by "{mapped}" on this machine'
        if policy == "Never" and found is None:
            return (
                None,
                "ErrImageNeverPull",
                f'Container image "{reference}" is not present with pull policy of Never',
            )
        if found is not None and (
            policy != "Always" or mapped is not None or full(reference).startswith("pervade.local/")
        ):
            return found, "", f'Container image "{reference}" already present on machine'
        pulling()
        failure = await self._pull(reference)
        if failure is None:
            return await self.present(reference), "", f'Successfully pulled image "{reference}"'
        if found is not None:
            return (
                found,
                "",
                f'Container image "{reference}" already present on machine; the registry did not answer: {failure}',
            )
        fix = "put it on the nodes with: pervade images import ARCHIVE"
        return None, "ErrImagePull", f'failed to pull image "{reference}": {failure}; {fix}'

    async def present(self, reference: str) -> JSON | None:
        """The image if the node has it."""
        found = (await self.cri.call("ImageStatus", image={"image": reference})).image
        if not found.id:
            return None
        uid = found.uid.value if found.HasField("uid") else None
        return {
            "id": found.id,
            "user": found.username,
            "uid": uid,
            "digests": list(found.repo_digests),
            "tags": list(found.repo_tags),
        }

    async def _pull(self, reference: str) -> str | None:
        """None when pulled, else why not; at most one pull per reference, and a registry that was away rests a minute."""
        host = full(reference).split("/")[0]
        if time.monotonic() < self._unreachable.get(host, 0.0):
            return f"registry {host} could not be reached a moment ago"
        if reference not in self._pulls:
            self._pulls[reference] = asyncio.create_task(self._pull_once(reference, host))
        try:
            return await self._pulls[reference]
        finally:
            self._pulls.pop(reference, None)

    async def _pull_once(self, reference: str, host: str) -> str | None:
        try:
            await self.cri.call("PullImage", image={"image": reference}, timeout=_PULL_TIMEOUT)
        except CriError as error:
            if any(
                word in error.text
                for word in ("dial tcp", "no such host", "i/o timeout", "connection refused")
            ):
                self._unreachable[host] = time.monotonic() + _OFFLINE
            return error.text[:500]
        return None

    async def listing(self) -> list[JSON]:
        """Images for the node's status."""
        found = (await self.cri.call("ListImages")).images
        return [{"names": list(i.repo_tags) or list(i.repo_digests), "sizeBytes": i.size} for i in found][:50]
