"""`pervade up`."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import click

from pervade.cli import options, show

_RANGES = ("fabric_cidr", "pod_cidr", "service_cidr", "api_port", "cluster_domain")


@click.command(
    epilog="Examples:  pervade up   ·   pervade up --nodes 3   ·   pervade up --name b --api-port 7443"
    " --fabric-cidr 172.31.10.0/24 --pod-cidr 10.78.0.0/16 --service-cidr 10.97.0.0/16"
)
@click.option("--nodes", type=click.IntRange(1, 100), help="How many nodes. [default: 2, or as it is]")
@options.name
@click.option("--api-port", type=click.IntRange(1, 65535), help="Port on 127.0.0.1. [default: 6443]")
@click.option("--fabric-cidr", metavar="CIDR", help="Addresses of nodes. [default: 172.31.9.0/24]")
@click.option("--pod-cidr", metavar="CIDR", help="Addresses of pods. [default: 10.77.0.0/16]")
@click.option("--service-cidr", metavar="CIDR", help="Addresses of Services. [default: 10.96.0.0/16]")
@click.option("--cluster-domain", metavar="NAME", help="DNS domain of Services. [default: cluster.local]")
@options.cache_dir
@options.state_dir
@click.option("--no-kubeconfig", is_flag=True, help="Leave the user's kubeconfig alone.")
def command(
    name: str,
    nodes: int | None,
    cache_dir: str | None,
    state_dir: str | None,
    no_kubeconfig: bool,
    **ranges: Any,
) -> None:
    """Bring a local cluster up: an API server, controllers and nodes with real containers.

    Running it again mends what is broken, and adds or removes nodes when --nodes is another number.
    """
    from pervade.cluster.node.up import up

    options.need_root("up")
    plan = _plan(name, nodes, cache_dir, state_dir, {k: v for k, v in ranges.items() if v is not None})
    begun = time.monotonic()
    asyncio.run(up(plan, show.phase, merge_kubeconfig=not no_kubeconfig))
    context = "" if no_kubeconfig else "; try: kubectl get nodes"
    click.echo(f"cluster {plan.name} is up ({time.monotonic() - begun:.1f} s){context}")


def _plan(name: str, nodes: int | None, cache: str | None, state: str | None, chosen: dict[str, Any]) -> Any:
    from pervade.base.errors import OperatorError
    from pervade.cluster import plan as plans

    found = options.known_plan(options.checked_name(name), state)
    file = Path(state or options.STATE) / name / "plan.json"
    if found is None and file.exists():
        # Guessing other addresses than those in the cluster's store would break every Service.
        raise OperatorError(
            f"the plan of cluster {name} cannot be read",
            where=str(file),
            fix=f"restore the file, or pervade down --purge --name {name} and start afresh",
        )
    base: dict[str, Any] = {
        "name": name,
        "nodes": 2,
        "state_root": state or options.STATE,
        "run_root": options.RUN,
        "cache_dir": cache or options.CACHE,
    }
    if found is not None:
        base |= {field: getattr(found, field) for field in _RANGES}
        base |= {"nodes": len(found.nodes), "state_root": found.state_root}
        base["cache_dir"] = cache or found.cache_dir
        fixed = {f: v for f, v in chosen.items() if f != "api_port" and v != base[f]}
        if fixed:
            flags = ", ".join(f"--{f.replace('_', '-')}" for f in fixed)
            raise OperatorError(
                f"cluster {name} has other addresses already: {flags} cannot be changed",
                where=str(found.file),
                fix=f"pervade down --purge --name {name}, then pervade up with the new ranges",
            )
    base |= chosen
    if nodes is not None:
        base["nodes"] = nodes
    try:
        return plans.make(**base)
    except ValueError as error:
        raise OperatorError(str(error), fix="pervade up --help") from error
