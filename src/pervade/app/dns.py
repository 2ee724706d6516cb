"""Composition root of the cluster's DNS pod: Services and EndpointSlices → zone → UDP and TCP 53, health on 8181."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
from collections import defaultdict
from typing import Any

from pervade.base import log as logs
from pervade.cluster.dns.zone import ClusterZone
from pervade.dns.server import Resolver, serve
from pervade.kube.client import Client
from pervade.kube.reflector import Reflector
from pervade.kube.resources import ENDPOINT_SLICES, SERVICES
from pervade.wire.http import web

log = logging.getLogger(__name__)
JSON = dict[str, Any]
_OWNER = "kubernetes.io/service-name"


class Source:
    """Keeps a zone in step with what the reflectors see; a change costs O(endpoints of its service)."""

    def __init__(self, zone: ClusterZone) -> None:
        self.zone = zone
        self._services: dict[str, JSON] = {}
        self._slices: dict[str, dict[str, JSON]] = defaultdict(dict)

    def service(self, _event: str, old: JSON | None, new: JSON | None) -> None:
        meta = (new or old or {})["metadata"]
        key = f"{meta['namespace']}/{meta['name']}"
        if new is None:
            self._services.pop(key, None)
            self.zone.replace(key, ())
        else:
            self._services[key] = new
            self._put(key)

    def slice(self, _event: str, old: JSON | None, new: JSON | None) -> None:
        for obj, present in ((old, False), (new, True)):
            owner = ((obj or {}).get("metadata", {}).get("labels") or {}).get(_OWNER)
            if obj is None or not owner:
                continue
            key = f"{obj['metadata']['namespace']}/{owner}"
            if present:
                self._slices[key][obj["metadata"]["name"]] = obj
            else:
                self._slices[key].pop(obj["metadata"]["name"], None)
            if not self._slices[key]:
                del self._slices[key]
            self._put(key)

    def _put(self, key: str) -> None:
        if key in self._services:
            self.zone.put(self._services[key], self._slices.get(key, {}).values())


def _health(resolver: Resolver, ready: asyncio.Event) -> web.Application:
    async def health(_request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readiness(_request: web.Request) -> web.Response:
        if ready.is_set():
            return web.Response(text="ok\n")
        return web.Response(status=503, text="waiting for the first list of Services and EndpointSlices\n")

    async def dump(_request: web.Request) -> web.Response:
        return web.json_response({"counts": resolver.counts, "names": resolver.zone.dump()})

    app = web.Application()
    app.add_routes([web.get("/health", health), web.get("/ready", readiness), web.get("/debug/zone", dump)])
    return app


def _address(text: str) -> tuple[str, int]:
    if text.count(":") == 1:
        host, port = text.split(":")
        return host, int(port)
    return text, 53


async def main(options: argparse.Namespace) -> None:
    zone = ClusterZone(options.domain, options.reverse)
    resolver = Resolver(zone, [_address(a) for a in options.forward])
    source, ready, stop = Source(zone), asyncio.Event(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    health = web.AppRunner(_health(resolver, ready), access_log=None)
    await health.setup()
    await web.TCPSite(health, options.address, options.health_port).start()
    client = Client.from_kubeconfig(options.kubeconfig) if options.kubeconfig else Client.in_cluster()
    async with client:
        services, slices = Reflector(client, SERVICES), Reflector(client, ENDPOINT_SLICES)
        services.on_change(source.service)
        slices.on_change(source.slice)
        tasks = [asyncio.create_task(r.run()) for r in (services, slices)]
        # Answering before the first list would say NXDOMAIN about names that exist.
        await services.synced()
        await slices.synced()
        transport, server = await serve(resolver, options.address, options.port)
        ready.set()
        log.info("serving", extra={"domain": options.domain, "names": len(zone.dump())})
        await stop.wait()
        ready.clear()
        server.close()
        transport.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    await health.cleanup()


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pervade-dns", description="DNS of the cluster's Services and pods."
    )
    parser.add_argument("--domain", default="cluster.local")
    parser.add_argument("--address", default="0.0.0.0", help="address to listen on")
    parser.add_argument("--port", type=int, default=53)
    parser.add_argument("--health-port", type=int, default=8181)
    parser.add_argument(
        "--reverse", action="append", default=[], metavar="CIDR", help="range whose reverse names are ours"
    )
    parser.add_argument(
        "--forward", action="append", default=[], metavar="ADDRESS[:PORT]", help="resolver for other names"
    )
    parser.add_argument("--kubeconfig", help="instead of the pod's own service account")
    return parser


if __name__ == "__main__":
    logs.set_up()
    asyncio.run(main(arguments().parse_args()))
