"""A container's log files: which there are, and a new one when the present one is large.

`ATTEMPT.log` is written by containerd; at 10 MiB it is renamed to `ATTEMPT.log.TIME` and containerd is told to
open a new one (ReopenContainerLog). Five files are kept. Source: Kubernetes "Logging Architecture". Cost: one
stat per running container and look.
"""

from __future__ import annotations

import datetime
import logging
from pathlib import Path

from pervade.cluster.kubelet.cri import Cri, CriError

log = logging.getLogger(__name__)
LARGEST, FILES = 10 << 20, 5


def files(current: Path) -> list[Path]:
    """The files of one container's log that exist, the oldest first."""
    old = sorted(current.parent.glob(f"{current.name}.*")) if current.parent.is_dir() else []
    return [*old, *([current] if current.exists() else [])]


def forget(current: Path) -> None:
    """Delete a log with its rotated files."""
    for one in files(current):
        one.unlink(missing_ok=True)


async def rotate(cri: Cri, container: str, current: Path, *, largest: int = LARGEST) -> bool:
    """Rotate when the file has reached `largest`; True when it did. A refusal of containerd leaves all as it was."""
    try:
        if current.stat().st_size < largest:
            return False
    except FileNotFoundError:
        return False
    stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S.%f")
    old = current.with_name(f"{current.name}.{stamp}")
    current.rename(old)
    try:
        await cri.call("ReopenContainerLog", container_id=container)
    except CriError as error:
        if not current.exists():
            old.rename(current)
        log.warning("log not rotated", extra={"container": container, "error": error.text})
        return False
    for one in files(current)[:-FILES]:
        one.unlink(missing_ok=True)
    return True
