"""`pervade`: the verbs by name, each loaded only when it is used, so that `--help` stays quick."""

from __future__ import annotations

import importlib
import sys

import click

# verb → (module, one line of help). The line is repeated here so that the overview loads no verb.
VERBS = {
    "up": ("pervade.cli.verbs.up", "Bring a local cluster up (as root); again: mend or resize it."),
    "down": ("pervade.cli.verbs.down", "Stop a local cluster and remove what it made."),
    "status": ("pervade.cli.verbs.status", "Processes, nodes, addresses and pods of a cluster."),
    "kubeconfig": ("pervade.cli.verbs.kubeconfig", "Print, merge or remove the cluster's kubeconfig."),
    "images": ("pervade.cli.verbs.images", "The images that nodes have: list, build, import, export, prune."),
    "doctor": ("pervade.cli.verbs.doctor", "Check that this machine can run a cluster."),
    "completion": ("pervade.cli.verbs.completion", "Shell completion for bash, zsh or fish."),
    "version": ("pervade.cli.verbs.version", "Versions of Pervade and of the Kubernetes API it serves."),
}


class Verbs(click.Group):
    """A group whose commands are imported on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        found: click.Command = importlib.import_module(VERBS[cmd_name][0]).command
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in VERBS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib

            near = difflib.get_close_matches(args[0], VERBS, n=1) if args else []
            if near:
                raise click.UsageError(f"{error.message} Did you mean {near[0]!r}?", ctx) from error
            raise


@click.command(
    cls=Verbs,
    name="pervade",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Examples:  pervade up   ·   pervade status -o json   ·   pervade down --purge",
)
def root() -> None:
    """An ambient service mesh, and a small Kubernetes on one machine to run it on."""


def main() -> None:
    """The console script: errors for the operator go to standard error as text, exit status 1."""
    try:
        root(prog_name="pervade")
    except Exception as error:
        from pervade.base.errors import OperatorError

        # ApiError is named by its text, so that the overview need not import an HTTP client.
        if not isinstance(error, OperatorError) and type(error).__name__ != "ApiError":
            raise
        said = error.text() if isinstance(error, OperatorError) else f"the API server refused: {error}"
        click.echo(f"{click.style('error', fg='red', bold=True)}: {said}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
