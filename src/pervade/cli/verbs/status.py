"""`pervade status`."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import click

from pervade.cli import options, show


@click.command(epilog="Examples:  pervade status   ·   pervade status -o json | jq .nodes")
@options.name
@options.state_dir
@options.output
def command(name: str, state_dir: str | None, output: str) -> None:
    """Processes with memory and restarts, nodes with addresses and pods; exit status 1 when something is not well."""
    from pervade.cluster.node.status import status

    found = asyncio.run(status(options.existing_plan(name, state_dir)))
    if output == "table":
        _print(found)
    else:
        show.data(found, output)
    if not well(found):
        sys.exit(1)


def well(found: dict[str, Any]) -> bool:
    """Whether every process runs, the API answers and every node is Ready."""
    lives = found["processes"]
    supervised = any(p["name"] == "supervisor" for p in lives) and all(p["running"] for p in lives)
    return supervised and "error" not in found and all(n.get("ready") == "True" for n in found["nodes"])


def _print(found: dict[str, Any]) -> None:
    click.echo(f"cluster {found['name']}   {found['server']}   Kubernetes {found['kubernetes']}")
    ranges = found["ranges"]
    click.echo(f"pods {ranges['pods'][0]}   services {ranges['services'][0]}   dns {ranges['dns']}\n")
    rows = [
        (
            p["name"],
            p["pid"] if p["running"] else "-",
            "running" if p["running"] else "down",
            show.size(p["rssBytes"]),
            show.age(p["uptimeSeconds"]),
            p["restarts"],
        )
        for p in found["processes"]
    ]
    if rows:
        show.table(("PROCESS", "PID", "STATE", "RSS", "UP", "RESTARTS"), rows)
    else:
        click.echo("no process runs; start them: pervade up")
    click.echo()
    nodes = [
        (
            n["name"],
            {"True": "Ready", "False": "NotReady"}.get(n.get("ready", ""), "Unknown"),
            n["address"],
            n["pods"][0],
            n["zone"],
            f"{n.get('podsRunning', '?')}/{n.get('podsTotal', '?')}",
        )
        for n in found["nodes"]
    ]
    show.table(("NODE", "STATUS", "ADDRESS", "PODS", "ZONE", "RUNNING"), nodes)
    if "error" in found:
        click.echo(f"\n{show.style(found['error'], fg='red')}")
