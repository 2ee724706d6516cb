"""`pervade down`."""

from __future__ import annotations

import click

from pervade.cli import options, show


@click.command(
    epilog="Examples:  pervade down   ·   pervade down --purge   ·   pervade down --name b --purge"
)
@options.name
@click.option("--purge", is_flag=True, help="Remove the cluster's state too (images stay in the cache).")
@options.state_dir
def command(name: str, purge: bool, state_dir: str | None) -> None:
    """Stop a local cluster: its processes, namespaces, mounts, control groups and kubeconfig context go.

    Without --purge the state stays, and the next `pervade up` brings the same cluster back. Works on
    clusters that are half made, killed, rebooted or damaged.
    """
    from pervade.cluster.node.down import down

    options.need_root("down")
    plan = options.plan_or_shape(name, state_dir)
    down(plan, show.phase, purge=purge)
    click.echo(f"cluster {plan.name} is down")
