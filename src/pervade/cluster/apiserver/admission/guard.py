"""The checks of who writes what, around the chain: NodeRestriction, and no escalation through roles and bindings."""

from __future__ import annotations

from pervade.cluster.apiserver.admission import nodes
from pervade.cluster.apiserver.auth.escalation import Escalation
from pervade.cluster.apiserver.auth.nodes import name_of
from pervade.cluster.apiserver.kinds.kind import JSON
from pervade.cluster.apiserver.rest import status
from pervade.cluster.apiserver.rest.context import Admission, Request


class Guard:
    """An Admission: `inner`, and before its validation what no caller may do; raises StatusError 403."""

    def __init__(self, inner: Admission, escalation: Escalation) -> None:
        self.inner, self.escalation = inner, escalation

    async def mutate(
        self, request: Request, operation: str, obj: JSON | None, old: JSON | None
    ) -> JSON | None:
        return await self.inner.mutate(request, operation, obj, old)

    async def validate(self, request: Request, operation: str, obj: JSON | None, old: JSON | None) -> None:
        """After all mutation, so that nothing slips in behind the checks."""
        kind = request.kind
        node = name_of(request.user)
        if node is not None:
            why = nodes.refusal(node, kind.table, request.info.subresource, operation, obj, old)
            if why:
                raise status.forbidden(kind, (obj or old or {}).get("metadata", {}).get("name", ""), why)
        if obj is not None:
            self.escalation.check(request.user, kind, obj, old)
        await self.inner.validate(request, operation, obj, old)
