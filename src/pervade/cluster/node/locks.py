"""One `up` or `down` of a cluster at a time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from pervade.base.errors import OperatorError
from pervade.cluster.plan import Plan


@contextmanager
def held(plan: Plan) -> Iterator[None]:
    """Hold the cluster's lock; OperatorError when another command holds it. It ends with the process."""
    plan.run.mkdir(parents=True, exist_ok=True)
    fd = os.open(plan.run / "command.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise OperatorError(
            f"another pervade command changes cluster {plan.name} right now",
            where=str(plan.run / "command.lock"),
            fix="wait for it, then try again",
        ) from None
    try:
        yield
    finally:
        os.close(fd)
