"""Composition root of the API server: parts → TLS → sockets, on the host and inside the fabric."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import signal
import ssl
import sys
from pathlib import Path

from pervade.base import log as logs
from pervade.cluster import plan as plans
from pervade.cluster.apiserver.parts import Parts, Settings, assemble
from pervade.cluster.plan import Plan
from pervade.wire.http import web

log = logging.getLogger(__name__)
_STOP_SECONDS = 2.0


def settings_of(plan: Plan) -> Settings:
    """What a cluster's plan says about its API server."""
    return Settings(
        store=plan.state / "apiserver" / "store.db",
        service_cidr=plan.service_cidr,
        service_cidr6=plan.service_cidr6,
        node_ports=range(plan.node_port_first, plan.node_port_last + 1),
        kubernetes_address=plan.kubernetes_address,
        dns_address=plan.dns_address,
        api_address=plan.api_address,
        server_address=f"{plan.api_address}:6443",
        pki=plan.pki,
        fabric=plan.netns("fabric"),
        nodes={n.name: n.address for n in plan.nodes},
    )


def tls(plan: Plan) -> ssl.SSLContext:
    """TLS 1.2 and up with the cluster's serving certificate; client certificates are asked for, tokens serve too."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(plan.pki / "ca.crt"))
    context.load_cert_chain(plan.pki / "apiserver.crt", plan.pki / "apiserver.key")
    context.verify_mode = ssl.CERT_OPTIONAL
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


async def serve(parts: Parts, plan: Plan | None, insecure_port: int | None) -> web.ServerRunner:
    """Listen; the caller cleans the runner up."""
    runner = web.ServerRunner(
        parts.server.connections(), handle_signals=False, shutdown_timeout=_STOP_SECONDS
    )
    await runner.setup()
    if plan is not None:
        from pervade.host import netns

        context = tls(plan)
        await web.TCPSite(runner, "127.0.0.1", plan.api_port, ssl_context=context, backlog=1024).start()
        inner = netns.listen(plan.netns("fabric"), plan.api_address, 6443)
        await web.SockSite(runner, inner, ssl_context=context, backlog=1024).start()
    if insecure_port is not None:
        await web.TCPSite(runner, "127.0.0.1", insecure_port, backlog=1024).start()
    return runner


async def main(options: argparse.Namespace) -> None:
    plan = plans.load(options.plan) if options.plan else None
    settings = settings_of(plan) if plan else Settings(store=options.state_dir / "apiserver" / "store.db")
    parts = assemble(settings)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await parts.start()
    runner = await serve(parts, plan, options.insecure_port)
    # What start-up made lives as long as the process: collections need not look at it again.
    gc.collect()
    gc.freeze()
    log.info(
        "serving",
        extra={"version": parts.state.head, "port": options.insecure_port or (plan and plan.api_port)},
    )
    await stop.wait()
    parts.server.stop()
    await runner.cleanup()
    await parts.stop()


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="pervade-apiserver", description="A server of the Kubernetes API.")
    parser.add_argument(
        "--plan", type=Path, help="plan.json of a cluster: TLS on the host and inside the fabric"
    )
    parser.add_argument("--state-dir", type=Path, help="without a plan: where the store is")
    parser.add_argument(
        "--insecure-port",
        type=int,
        help="plain HTTP on loopback, for development; every caller is an administrator",
    )
    return parser


if __name__ == "__main__":
    logs.set_up()
    # The store's writer thread must not wait long for the interpreter.
    sys.setswitchinterval(0.001)
    chosen = arguments().parse_args()
    if (chosen.plan is None) == (chosen.state_dir is None or chosen.insecure_port is None):
        arguments().error("either --plan, or --state-dir with --insecure-port")
    asyncio.run(main(chosen))
