"""`pervade doctor`."""

from __future__ import annotations

import dataclasses
import sys

import click

from pervade.cli import options, show

_SIGNS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "error": ("✗", "red")}


@click.command(epilog="Examples:  pervade doctor   ·   pervade doctor -o json")
@options.name
@options.state_dir
@options.cache_dir
@options.output
def command(name: str, state_dir: str | None, cache_dir: str | None, output: str) -> None:
    """Check that this machine can run a cluster; exit status 1 when it cannot. `up` refuses by the same list."""
    from pervade.cluster import plan as plans
    from pervade.cluster.node import checks

    plan = options.known_plan(options.checked_name(name), state_dir) or plans.make(
        name=name,
        state_root=state_dir or options.STATE,
        run_root=options.RUN,
        cache_dir=cache_dir or options.CACHE,
    )
    found = checks.run(plan)
    if output == "table":
        for one in found:
            sign, colour = _SIGNS[one.level]
            click.echo(f"{show.style(sign, fg=colour)} {one.check:<16} {one.seen}".rstrip())
            if one.fix:
                click.echo(f"  {'':<16} fix: {one.fix}")
    else:
        show.data([dataclasses.asdict(f) for f in found], output)
    if any(f.level == "error" for f in found):
        sys.exit(1)
