"""The rim of the service rules: watch Services and EndpointSlices, keep one node's nftables in step.

A change costs one transaction over the chains of the services that changed; changes that arrive
within 20 ms share it. The whole table is rebuilt at start, after a refused transaction and when
somebody else removed it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

from pervade.base.errors import OperatorError
from pervade.cluster.plan import Plan
from pervade.cluster.services import ruleset
from pervade.cluster.services.ports import JSON, PortView, service_key, slice_owner, views
from pervade.host import nft
from pervade.kube.client import Client
from pervade.kube.reflector import Reflector
from pervade.kube.resources import ENDPOINT_SLICES, SERVICES

log = logging.getLogger(__name__)
_GATHER = 0.02
_CHECK = 60.0


class ServiceRules:
    """Desired and applied fragments of one node; `dump()` shows them."""

    def __init__(self, node: str, netns: str, pod_cidrs: tuple[str, ...]) -> None:
        self.node, self.netns, self.pod_cidrs = node, netns, pod_cidrs
        self._services: dict[str, JSON] = {}
        self._slices: dict[str, dict[str, JSON]] = {}
        self._views: dict[str, tuple[PortView, ...]] = {}
        self._applied: dict[str, ruleset.Fragment] | None = None
        self._dirty: set[str] = set()
        self.wake = asyncio.Event()

    def service_changed(self, _event: str, old: JSON | None, new: JSON | None) -> None:
        obj = new or old
        if obj is None:
            return
        key = service_key(obj)
        if new is None:
            self._services.pop(key, None)
        else:
            self._services[key] = new
        self._touch(key)

    def slice_changed(self, _event: str, old: JSON | None, new: JSON | None) -> None:
        for obj, present in ((old, False), (new, True)):
            owner = slice_owner(obj) if obj else None
            if obj is None or owner is None:
                continue
            held = self._slices.setdefault(owner, {})
            if present:
                held[obj["metadata"]["name"]] = obj
            else:
                held.pop(obj["metadata"]["name"], None)
            if not held:
                self._slices.pop(owner)
            self._touch(owner)

    def _touch(self, key: str) -> None:
        self._dirty.add(key)
        self.wake.set()

    async def apply(self) -> None:
        """Bring the kernel in step with what was seen; on a refusal the next call rebuilds everything."""
        self.wake.clear()
        dirty, self._dirty = self._dirty, set()
        stale: list[tuple[str, str, int]] = []
        old: dict[str, ruleset.Fragment] = {}
        new: dict[str, ruleset.Fragment] = {}
        for key in dirty:
            before = self._views.pop(key, ())
            after = (
                views(self._services[key], self._slices.get(key, {}).values(), self.node)
                if key in self._services
                else ()
            )
            if after:
                self._views[key] = after
            stale += _stale_udp(before, after)
            new |= {v.key: ruleset.fragment(v, self.pod_cidrs) for v in after}
            if self._applied is not None:
                old |= {v.key: self._applied[v.key] for v in before if v.key in self._applied}
        if self._applied is None:
            everything = {
                v.key: ruleset.fragment(v, self.pod_cidrs) for held in self._views.values() for v in held
            }
            text = ruleset.base(self.pod_cidrs) + ruleset.script({}, everything)
        else:
            text = ruleset.script(old, new)
            everything = {k: f for k, f in self._applied.items() if k not in old} | new
        try:
            if text:
                await nft.run(text, netns=self.netns)
        except OperatorError:
            self._applied = None
            raise
        self._applied = everything
        await asyncio.gather(*(self._forget_udp(*flow) for flow in stale))

    async def _forget_udp(self, address: str, endpoint: str, port: int) -> None:
        """Drop conntrack entries that still lead UDP of a service port to an endpoint that is gone."""
        command = ["conntrack", "-D", "-p", "udp", "-d", address, "--dport", str(port), "-r", endpoint]
        process = await asyncio.create_subprocess_exec(
            "nsenter",
            f"--net={self.netns}",
            "--",
            *command,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        _, err = await process.communicate()
        if process.returncode and b"0 flow entries" not in err:
            log.warning(
                "conntrack refused to forget UDP flows", extra={"service": address, "said": err.decode()}
            )

    async def present(self) -> bool:
        """Whether our table is still in the kernel."""
        listing = await nft.run("list tables\n", netns=self.netns)
        return f"table inet {ruleset.TABLE}" in listing

    def rebuild(self) -> None:
        """Forget what was applied, so that the next `apply` writes the whole table."""
        self._applied = None
        self.wake.set()

    def dump(self) -> dict[str, Any]:
        """What this node serves: service port to endpoints."""
        return {
            v.key: [f"{e.address}:{e.port}{' (local)' if e.local else ''}" for e in v.endpoints]
            for held in self._views.values()
            for v in held
        }


def _stale_udp(before: tuple[PortView, ...], after: tuple[PortView, ...]) -> list[tuple[str, str, int]]:
    now = {(v.key, e.address) for v in after for e in v.endpoints}
    return [
        (address, e.address, v.port)
        for v in before
        if v.protocol == "udp"
        for e in v.endpoints
        if (v.key, e.address) not in now
        for address in (*v.cluster_ips, *v.external)
    ]


async def run(client: Client, plan: Plan, node: str) -> None:
    """Serve the Services of the cluster on `node` until cancelled."""
    rules = ServiceRules(node, str(plan.netns(node)), plan.pod_cidrs)
    services = Reflector(client, SERVICES)
    slices = Reflector(client, ENDPOINT_SLICES)
    services.on_change(rules.service_changed)
    slices.on_change(rules.slice_changed)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(services.run())
        tasks.create_task(slices.run())
        await services.synced()
        await slices.synced()
        await _keep(rules)


async def _keep(rules: ServiceRules) -> None:
    delay = 0.5
    rules.wake.set()
    while True:
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(rules.wake.wait(), _CHECK)
            if rules.wake.is_set():
                await asyncio.sleep(_GATHER)
                await rules.apply()
            elif not await rules.present():
                log.warning(
                    "the services table was removed by somebody else; written again",
                    extra={"node": rules.node},
                )
                rules.rebuild()
            delay = 0.5
        except OperatorError as error:
            log.error(
                "service rules not applied",
                extra={"node": rules.node, "error": error.text(), "retry_s": delay},
            )
            await asyncio.sleep(delay)
            delay = min(delay * 2, 30)
            rules.rebuild()
