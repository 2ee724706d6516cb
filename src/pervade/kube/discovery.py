"""Which resources a server serves, as values."""

from __future__ import annotations

from typing import Any

from pervade.kube.client import Client
from pervade.kube.resources import Resource

_V2 = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


async def served(client: Client, *verbs: str) -> list[Resource]:
    """The resources that know all `verbs`, one version of each (the group's preferred). Two calls.

    Source: Kubernetes aggregated discovery, v2.
    """
    found: dict[tuple[str, str], Resource] = {}
    for path in ("/api", "/apis"):
        answer: dict[str, Any] = await client.raw("GET", path, accept=_V2)
        for group in answer.get("items") or ():
            name = group["metadata"].get("name") or ""
            for version in group.get("versions") or ():
                for one in version.get("resources") or ():
                    if set(verbs) <= set(one.get("verbs") or ()):
                        res = Resource(
                            name,
                            version["version"],
                            one["resource"],
                            one["responseKind"]["kind"],
                            one.get("scope") == "Namespaced",
                        )
                        found.setdefault((name, res.plural), res)
    return list(found.values())
