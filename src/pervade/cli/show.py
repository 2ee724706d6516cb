"""How verbs print: phases with their times, tables, JSON and YAML. Colours only on a terminal without NO_COLOR."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pervade.cluster.node.up import Note


def _fancy() -> bool:
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ


def style(text: str, **how: Any) -> str:
    """`text` in colour when somebody can see it."""
    return click.style(text, **how) if _fancy() else text


@contextmanager
def phase(name: str) -> Iterator[Note]:
    """One phase of a long verb: its name at once on a terminal, then a tick or a cross, its note and its time."""
    from pervade.cluster.node.up import Note

    note, begun = Note(), time.monotonic()
    if _fancy():
        click.echo(f"  {name} …", nl=False)
    try:
        yield note
    except BaseException:
        _end(click.style("✗", fg="red") if _fancy() else "✗", name, "", time.monotonic() - begun)
        raise
    _end(click.style("✓", fg="green") if _fancy() else "✓", name, note.text, time.monotonic() - begun)


def _end(sign: str, name: str, note: str, seconds: float) -> None:
    back = "\r\x1b[K" if _fancy() else ""
    click.echo(f"{back}{sign} {name:<24} {seconds:5.1f} s  {note}".rstrip())
    sys.stdout.flush()


def data(value: Any, form: str) -> None:
    """A value as JSON or YAML."""
    if form == "json":
        import json

        click.echo(json.dumps(value, indent=2))
    else:
        import yaml

        click.echo(yaml.safe_dump(value, sort_keys=False), nl=False)


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Columns as wide as their widest cell, three spaces apart, as kubectl prints them."""
    cells = [[str(c) for c in row] for row in (head, *rows)]
    widths = [max(len(r[i]) for r in cells) for i in range(len(head))]
    for row in cells:
        click.echo("   ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip())


def age(seconds: float) -> str:
    """A duration as kubectl writes it: 12s, 5m, 3h, 2d."""
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size or (unit != "m" and seconds >= size):
            return f"{int(seconds // size)}{unit}"
    return f"{int(seconds)}s"


def size(octets: float) -> str:
    """Bytes as MiB."""
    return f"{octets / (1 << 20):.0f} MiB"
