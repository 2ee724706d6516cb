"""nft(8) inside a network namespace: one script is one transaction; errors name the failing command."""

from __future__ import annotations

import asyncio
import os

from pervade.base.errors import OperatorError


async def run(script: str, *, netns: str | os.PathLike[str] | None = None) -> str:
    """Apply `script` (nft syntax) atomically in `netns` (a path; None = here) and give nft's output.

    Raises OperatorError with nft's own words. About 10 ms for a small script.
    """
    command = ["nft", "-f", "-"]
    if netns is not None:
        command = ["nsenter", f"--net={os.fspath(netns)}", "--", *command]
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate(script.encode())
    if process.returncode:
        raise OperatorError(
            f"nft refused the rules: {err.decode(errors='replace').strip()[:2000]}",
            where=f"network namespace {netns or 'of this process'}",
            cause="a kernel without the nf_tables feature named above, or a foreign change to our table",
            fix="pervade doctor",
        )
    return out.decode()
