"""Composition root of the host's relay: Services and Nodes → published addresses → listeners on loopback."""

from __future__ import annotations

import argparse
import asyncio
import signal
from pathlib import Path
from typing import Any

import msgspec

from pervade.base import log as logs
from pervade.cluster.plan import Plan
from pervade.cluster.services.published import published
from pervade.cluster.services.relay import Relay
from pervade.kube.client import Client
from pervade.kube.reflector import Reflector
from pervade.kube.resources import NODES, SERVICES


def _ready_addresses(nodes: list[dict[str, Any]]) -> list[str]:
    out = []
    for node in nodes:
        status = node.get("status") or {}
        ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions") or ())
        out += [
            a["address"]
            for a in status.get("addresses") or ()
            if ready and a["type"] == "InternalIP" and "." in a["address"]
        ]
    return out


async def main(plan: Plan, kubeconfig: Path) -> None:
    stop, changed = asyncio.Event(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with Client.from_kubeconfig(kubeconfig) as client:
        services, nodes = Reflector(client, SERVICES), Reflector(client, NODES)
        relay = Relay(plan.netns("fabric"), lambda: _ready_addresses(list(nodes.items())))
        services.on_change(lambda *_: changed.set())
        tasks = [asyncio.create_task(r.run()) for r in (services, nodes)]
        await services.synced()

        async def keep() -> None:
            while True:
                changed.clear()
                await relay.publish(published(services.items()))
                await changed.wait()

        tasks.append(asyncio.create_task(keep()))
        await stop.wait()
        relay.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


if __name__ == "__main__":
    logs.set_up()
    parser = argparse.ArgumentParser(
        prog="pervade-relay", description="NodePorts and load balancers on the host's loopback."
    )
    parser.add_argument("--plan", type=Path, required=True)
    parser.add_argument("--kubeconfig", type=Path, required=True)
    options = parser.parse_args()
    asyncio.run(main(msgspec.json.decode(options.plan.read_bytes(), type=Plan), options.kubeconfig))
