"""The chain of admission steps behind `Api.admission`."""

from __future__ import annotations

import asyncio

from pervade.cluster.apiserver.admission import pods
from pervade.cluster.apiserver.admission.webhooks import Webhooks
from pervade.cluster.apiserver.kinds.kind import JSON
from pervade.cluster.apiserver.rest import present, status
from pervade.cluster.apiserver.rest.context import Request
from pervade.cluster.apiserver.store.state import State

_PATIENCE = 3.0


class Chain:
    """ServiceAccount, Priority and DefaultTolerationSeconds for pods; then the webhooks."""

    def __init__(self, state: State, webhooks: Webhooks) -> None:
        self.state, self.webhooks = state, webhooks

    async def mutate(
        self, request: Request, operation: str, obj: JSON | None, old: JSON | None
    ) -> JSON | None:
        if (
            operation == "CREATE"
            and request.kind.table == "/pods"
            and obj is not None
            and not request.info.subresource
        ):
            pods.inject_account(obj, await self._account(request, obj))
            pods.tolerate(obj)
            classes = {
                e.name: present.parse(e.value)
                for e in self.state.entries("scheduling.k8s.io/priorityclasses")
            }
            why = pods.prioritize(obj, classes)
            if why:
                raise status.forbidden(request.kind, obj["metadata"].get("name", ""), why)
        return await self.webhooks.mutate(request, operation, obj, old)

    async def validate(self, request: Request, operation: str, obj: JSON | None, old: JSON | None) -> None:
        await self.webhooks.validate(request, operation, obj, old)

    async def _account(self, request: Request, pod: JSON) -> JSON:
        """The pod's service account; that of a new namespace is waited for a little while its controller makes it."""
        namespace = pod["metadata"]["namespace"]
        name = pod["spec"].get("serviceAccountName") or "default"
        entry = self.state.get("/serviceaccounts", namespace, name)
        if entry is None:
            live = self.state.listen("/serviceaccounts")
            loop = asyncio.get_running_loop()
            deadline = loop.time() + _PATIENCE
            try:
                while entry is None and (left := deadline - loop.time()) > 0:
                    await live.next(left)
                    entry = self.state.get("/serviceaccounts", namespace, name)
            finally:
                live.close()
        if entry is None:
            why = f'error looking up service account {namespace}/{name}: serviceaccount "{name}" not found'
            raise status.forbidden(request.kind, pod["metadata"].get("name", ""), why)
        found: JSON = present.parse(entry.value)
        return found
