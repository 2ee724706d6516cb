"""`pervade images`."""

from __future__ import annotations

from pathlib import Path

import click

from pervade.cli import options, show


@click.group(epilog="Examples:  pervade images build   ·   pervade images list -o json")
def command() -> None:
    """The images that every node has without a registry, and what upstream names stand for."""


@command.command(epilog="Example:  pervade images build --cache-dir /var/cache/pervade")
@options.cache_dir
def build(cache_dir: str | None) -> None:
    """Build what is missing from Debian packages and this project; seconds when nothing changed."""
    from pervade.cluster.images import store

    options.need_root("images build")
    with show.phase("images") as note:
        note.text = str(store.build(Path(cache_dir or options.CACHE), lambda text: click.echo(f"  {text}")))


@command.command("list", epilog="Example:  pervade images list")
@options.cache_dir
@options.output
def list_(cache_dir: str | None, output: str) -> None:
    """Images with their digests, and which image an upstream name really runs."""
    from pervade.base.errors import OperatorError
    from pervade.cluster.images import names, store

    cache = Path(cache_dir or options.CACHE)
    ready = store.ready(cache)
    if ready is None:
        raise OperatorError(
            f"no images in {cache}", fix=f"pervade images build --cache-dir {cache}", where=str(cache)
        )
    digests = store.manifest(ready)
    rows = [{"image": n, "digest": d, "stands for": ""} for n, d in sorted(digests.items())]
    rows += [
        {"image": r.match, "digest": digests.get(r.image, "-"), "stands for": r.image} for r in names.RULES
    ]
    if output == "table":
        show.table(
            ("IMAGE", "RUNS", "DIGEST"),
            [
                (r["image"], r["stands for"] or "itself", r["digest"].removeprefix("sha256:")[:12])
                for r in rows
            ],
        )
    else:
        show.data(rows, output)


@command.command("import", epilog="Example:  docker save shop:1 -o shop.tar; pervade images import shop.tar")
@click.argument("archive", type=click.Path(path_type=Path))
@options.cache_dir
def import_(archive: Path, cache_dir: str | None) -> None:
    """Give an OCI or Docker archive to all nodes, those that run and those to come."""
    from pervade.cluster.images import transfer

    options.need_root("images import")
    cache = Path(cache_dir or options.CACHE)
    with show.phase("import") as note:
        found = transfer.take(
            cache, archive, lambda text: click.echo(f"  {text}"), run_root=Path(options.RUN)
        )
        note.text = ", ".join(found) or "nothing new"


@command.command("export", epilog="Example:  pervade images export pervade.tar pervade.local/pervade:dev")
@click.argument("archive", type=click.Path(path_type=Path))
@click.argument("names", nargs=-1)
@options.cache_dir
def export(archive: Path, names: tuple[str, ...], cache_dir: str | None) -> None:
    """Write images (all, or those named) as one OCI archive, for other clusters."""
    from pervade.cluster.images import transfer

    cache = Path(cache_dir or options.CACHE)
    found = transfer.give_out(cache, archive, names, lambda text: click.echo(f"  {text}"))
    show.table(("IMAGE", "DIGEST"), [(n, d.removeprefix("sha256:")[:12]) for n, d in sorted(found.items())])


@command.command(epilog="Examples:  pervade images prune   ·   pervade images prune --all")
@click.option("--all", "everything", is_flag=True, help="Remove the whole image cache.")
@options.cache_dir
def prune(everything: bool, cache_dir: str | None) -> None:
    """Remove images and layers that are not in use; running clusters keep theirs."""
    from pervade.cluster.images import transfer

    options.need_root("images prune")
    freed = transfer.prune(Path(cache_dir or options.CACHE), everything=everything)
    click.echo(f"{show.size(freed)} freed")
