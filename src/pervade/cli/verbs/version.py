"""`pervade version`."""

from __future__ import annotations

import click

from pervade import __version__
from pervade.cli import options, show


@click.command(epilog="Example:  pervade version -o json")
@options.output
def command(output: str) -> None:
    """Versions of Pervade and of the Kubernetes API it serves."""
    import platform

    from pervade.cluster.plan import KUBERNETES_VERSION

    found = {
        "pervade": __version__,
        "kubernetes": KUBERNETES_VERSION,
        "python": platform.python_version(),
        "kernel": platform.release(),
    }
    if output == "table":
        for name, version in found.items():
            click.echo(f"{name:<11} {version}")
    else:
        show.data(found, output)
