"""Composition root of one node's agent: the kubelet, its HTTPS API, and the node's service rules."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import signal
from pathlib import Path

from pervade.base import log as logs
from pervade.cluster.kubelet.cri import Cri
from pervade.cluster.kubelet.kubelet import Kubelet
from pervade.cluster.kubelet.node import Node
from pervade.cluster.kubelet.server import KubeletServer, serve, tls
from pervade.cluster.plan import KUBELET_PORT, Plan, load
from pervade.cluster.services import proxy
from pervade.host import netns
from pervade.kube.client import Client
from pervade.kube.reflector import Reflector
from pervade.kube.resources import SERVICES

log = logging.getLogger("pervade.kubelet")


async def main(plan: Plan, name: str) -> None:
    cri = Cri(plan.cri_socket(name))
    # Two identities in one process: a node may see its own pods only, its service rules all Services.
    async with (
        Client.from_kubeconfig(plan.kubeconfig(f"kubelet-{name}"), user_agent="kubelet") as client,
        Client.from_kubeconfig(plan.kubeconfig(f"services-{name}"), user_agent="services") as services,
    ):
        node = Node(plan, name, cri, client, Reflector(client, SERVICES))
        kubelet = Kubelet(node)
        server = KubeletServer(node, kubelet.find, lambda: [w.pod for w in kubelet.workers.values()])
        sock = netns.listen(plan.netns(name), "0.0.0.0", KUBELET_PORT)
        runner = await serve(server.application(), sock, tls(plan.pki, name))
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        work = [asyncio.create_task(kubelet.run()), asyncio.create_task(proxy.run(services, plan, name))]
        gc.collect()
        gc.freeze()
        ended = asyncio.create_task(stop.wait())
        await asyncio.wait([*work, ended], return_when=asyncio.FIRST_COMPLETED)
        failed = [task.exception() for task in work if task.done()]
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
        await runner.cleanup()
        await cri.close()
        for error in failed:
            if error is not None:
                raise error


if __name__ == "__main__":
    logs.set_up()
    parser = argparse.ArgumentParser(prog="pervade-kubelet", description="Runs the pods of one node.")
    parser.add_argument("--plan", type=Path, required=True)
    parser.add_argument("--node", required=True)
    options = parser.parse_args()
    asyncio.run(main(load(options.plan), options.node))
