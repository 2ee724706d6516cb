"""Commands of the host, with their own words when they fail."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from pervade.base.errors import OperatorError


def command(argv: Sequence[str], *, text: str | None = None, timeout: float = 60) -> str:
    """Run `argv` with `text` on its standard input and give its output; OperatorError with its complaint otherwise."""
    try:
        done = subprocess.run(argv, input=text, text=True, capture_output=True, timeout=timeout, check=False)
    except FileNotFoundError:
        raise OperatorError(
            f"the command {argv[0]} is not there", fix="pervade doctor names the Debian package"
        ) from None
    except subprocess.TimeoutExpired:
        raise OperatorError(f"{' '.join(argv)[:200]} did not end in {timeout:.0f} s") from None
    if done.returncode:
        raise OperatorError(f"{' '.join(argv)[:300]} failed: {done.stderr.strip()[:1500]}")
    return done.stdout
