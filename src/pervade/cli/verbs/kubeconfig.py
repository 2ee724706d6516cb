"""`pervade kubeconfig`."""

from __future__ import annotations

import click

from pervade.cli import options


@click.command(
    epilog="Examples:  pervade kubeconfig > cluster.yaml   ·   export KUBECONFIG=$(pervade kubeconfig --path)"
    "   ·   pervade kubeconfig --merge"
)
@options.name
@options.state_dir
@click.option("--path", "what", flag_value="path", help="Print the path of the cluster's own file.")
@click.option("--raw", "what", flag_value="raw", default=True, help="Print the file itself (the default).")
@click.option(
    "--merge", "what", flag_value="merge", help="Put the context into the user's file, as `up` does."
)
@click.option("--remove", "what", flag_value="remove", help="Take the context out of the user's file.")
def command(name: str, state_dir: str | None, what: str) -> None:
    """The cluster's kubeconfig (administrator): print it, or put it into or take it out of the user's file."""
    from pervade.kube import kubeconfig

    if what == "remove":
        file = kubeconfig.default_path()
        done = kubeconfig.remove(file, options.checked_name(name))
        click.echo(f"context {name} {'removed from' if done else 'is not in'} {file}")
        return
    plan = options.existing_plan(name, state_dir)
    if what == "merge":
        from pervade.cluster.node import credentials

        kubeconfig.merge(kubeconfig.default_path(), context=plan.name, **credentials.parts(plan, "admin"))
        click.echo(f"context {plan.name} in {kubeconfig.default_path()}")
    elif what == "path":
        click.echo(plan.kubeconfig("admin"))
    else:
        click.echo(plan.kubeconfig("admin").read_text(), nl=False)
