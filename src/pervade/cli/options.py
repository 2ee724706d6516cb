"""Options that several verbs share, and how they become a plan."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])
STATE, RUN, CACHE = "/var/lib/pervade", "/run/pervade", "/var/cache/pervade"

name = click.option(
    "--name",
    default="pervade",
    show_default=True,
    metavar="NAME",
    help="The cluster's name; also its kubeconfig context.",
)
state_dir = click.option(
    "--state-dir",
    envvar="PERVADE_STATE",
    metavar="DIR",
    help=f"Where clusters keep their state. [default: {STATE}]",
)
cache_dir = click.option(
    "--cache-dir",
    envvar="PERVADE_CACHE",
    metavar="DIR",
    help=f"Where images are kept; same file system as the state. [default: {CACHE}]",
)
output = click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json", "yaml"]),
    default="table",
    show_default=True,
    help="Form of the answer.",
)


def checked_name(text: str) -> str:
    """A cluster's name is a DNS label: it becomes folders, a context and control groups."""
    import re

    if not re.fullmatch(r"[a-z]([-a-z0-9]{0,30}[a-z0-9])?", text):
        raise click.BadParameter(
            f"{text!r} is not a name: lower-case letters, digits and '-', at most 32", param_hint="--name"
        )
    return text


def known_plan(cluster: str, state: str | None) -> Any:
    """The plan of a cluster that exists: of the given state folder, else of the running one, else the usual folder."""
    from pervade.cluster import plan as plans

    files = [Path(state or STATE) / cluster / "plan.json"]
    if state is None:
        files.insert(0, Path(RUN) / cluster / "plan.json")
    for file in files:
        try:
            return plans.load(file)
        except (OSError, ValueError):
            continue
    return None


def plan_or_shape(cluster: str, state: str | None) -> Any:
    """The known plan, or one that has at least the right name and folders (for `down` on damaged state)."""
    from pervade.cluster import plan as plans

    found = known_plan(checked_name(cluster), state)
    return found or plans.make(name=cluster, state_root=state or STATE, run_root=RUN)


def existing_plan(cluster: str, state: str | None) -> Any:
    """The known plan; OperatorError when there is no such cluster."""
    from pervade.base.errors import OperatorError

    found = known_plan(checked_name(cluster), state)
    if found is None:
        other = "" if cluster == "pervade" else f" --name {cluster}"
        raise OperatorError(
            f"there is no cluster {cluster!r}",
            where=str(Path(state or STATE) / cluster),
            fix=f"pervade up{other}",
        )
    return found


def need_root(verb: str) -> None:
    """OperatorError when not root."""
    from pervade.base.errors import OperatorError

    if os.geteuid() != 0:
        raise OperatorError(
            f"pervade {verb} needs root: it makes namespaces, mounts and containers",
            fix=f"sudo pervade {verb}",
        )
