"""Composition root of the controllers: one client, one reflector per kind, one queue per controller."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
from pathlib import Path
from typing import Protocol

from pervade.base import log as logs
from pervade.cluster.controllers.accounts import Accounts
from pervade.cluster.controllers.balancers import LoadBalancers
from pervade.cluster.controllers.cronjob import CronJobs
from pervade.cluster.controllers.daemonset import DaemonSets
from pervade.cluster.controllers.deployment import Deployments
from pervade.cluster.controllers.endpoints import EndpointSlices
from pervade.cluster.controllers.garbage import Garbage
from pervade.cluster.controllers.hub import Hub
from pervade.cluster.controllers.job import Jobs
from pervade.cluster.controllers.namespaces import NamespaceEnd
from pervade.cluster.controllers.nodes import GRACE, Nodes
from pervade.cluster.controllers.queue import WorkQueue
from pervade.cluster.controllers.replicaset import ReplicaSets
from pervade.cluster.controllers.scheduler import Scheduler
from pervade.cluster.controllers.statefulset import StatefulSets
from pervade.cluster.plan import Plan, load
from pervade.kube.client import Client

log = logging.getLogger("pervade.controllers")


class Controller(Protocol):
    """What a controller is to this process."""

    @property
    def queue(self) -> WorkQueue: ...


async def main(plan: Plan) -> None:
    async with Client.from_kubeconfig(plan.kubeconfig("controllers"), user_agent="controllers") as client:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        work = asyncio.create_task(serve(Hub(client, plan), (plan.pki / "ca.crt").read_text()))
        ended = asyncio.create_task(stop.wait())
        await asyncio.wait([work, ended], return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            work.result()
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


async def serve(hub: Hub, ca: str, *, grace: float = GRACE) -> None:
    """Run every controller, until cancelled. `ca` is what pods trust, `grace` how long a node may be silent."""
    running: list[Controller] = [
        Accounts(hub, ca),
        Scheduler(hub),
        ReplicaSets(hub),
        Deployments(hub),
        EndpointSlices(hub),
        LoadBalancers(hub),
        DaemonSets(hub),
        StatefulSets(hub),
        Jobs(hub),
        CronJobs(hub),
        NamespaceEnd(hub),
        nodes := Nodes(hub, grace),
        garbage := Garbage(hub),
    ]
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(hub.run())
        # Acting on half a list would make pods a second time.
        await hub.synced()
        log.info("serving", extra={"controllers": len(running)})
        for one in running:
            tasks.create_task(one.queue.run())
        tasks.create_task(nodes.evictions.run())
        tasks.create_task(garbage.follow())


if __name__ == "__main__":
    logs.set_up()
    parser = argparse.ArgumentParser(
        prog="pervade-controllers", description="Controllers and scheduler of the cluster."
    )
    parser.add_argument("--plan", type=Path, required=True)
    asyncio.run(main(load(parser.parse_args().plan)))
