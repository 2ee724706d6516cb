"""Addresses for Services of type LoadBalancer, from the plan's pool."""

from __future__ import annotations

import ipaddress
from typing import Any

from pervade.cluster.controllers import objects as ob
from pervade.cluster.controllers.hub import Hub
from pervade.cluster.controllers.objects import JSON
from pervade.cluster.controllers.queue import WorkQueue
from pervade.kube.resources import SERVICES


class LoadBalancers:
    """One worker, so that no address is given twice. Services with a loadBalancerClass belong to others."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.services = hub.watch(SERVICES)
        self.given: dict[str, str] = {}
        self.queue = WorkQueue("loadbalancer", self.sync, workers=1)
        self.services.on_change(lambda _k, old, new: self.queue.add(ob.key_of(new or old)))

    def pool(self) -> list[str]:
        first, last = (
            int(ipaddress.IPv4Address(a))
            for a in (self.hub.plan.load_balancer_first, self.hub.plan.load_balancer_last)
        )
        return [str(ipaddress.IPv4Address(n)) for n in range(first, last + 1)]

    async def sync(self, key: Any) -> float | None:
        service = self.services.get(*key)
        if service is None:
            self.given.pop("/".join(key), None)
            return None
        spec, meta = service["spec"], service["metadata"]
        held = [
            i.get("ip")
            for i in ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
        ]
        ours = (
            spec.get("type") == "LoadBalancer"
            and not spec.get("loadBalancerClass")
            and not ob.terminating(service)
        )
        if not ours:
            self.given.pop("/".join(key), None)
            if held and spec.get("type") != "LoadBalancer":
                await self._put(meta, [])
            return None
        if held:
            self.given["/".join(key)] = str(held[0])
            return None
        taken = set(self.given.values()) | {
            str(i.get("ip"))
            for s in self.services.items()
            for i in ((s.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
        }
        free = [a for a in self.pool() if a not in taken]
        asked = spec.get("loadBalancerIP")
        if asked and asked in free:
            free = [asked]
        if not free or (asked and asked not in free):
            why = f"no free address in {self.hub.plan.load_balancer_first}-{self.hub.plan.load_balancer_last}"
            if asked:
                why = f"the asked address {asked} is taken or outside the pool"
            self.hub.event(
                service, "v1", "Service", "service-controller", "SyncLoadBalancerFailed", why, warn=True
            )
            return 30.0
        self.given["/".join(key)] = free[0]
        await self._put(meta, [{"ip": free[0], "ipMode": "VIP"}])
        self.hub.event(
            service,
            "v1",
            "Service",
            "service-controller",
            "EnsuredLoadBalancer",
            f"Ensured load balancer {free[0]}",
        )
        return None

    async def _put(self, meta: JSON, ingress: list[JSON]) -> None:
        body = {"status": {"loadBalancer": {"ingress": ingress or None}}}
        await self.hub.client.patch(SERVICES, meta["name"], body, meta["namespace"], subresource="status")
