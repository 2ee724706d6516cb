"""A `default` ServiceAccount and the ConfigMap `kube-root-ca.crt` in every namespace."""

from __future__ import annotations

from typing import Any

from pervade.cluster.controllers import objects as ob
from pervade.cluster.controllers.hub import Hub
from pervade.cluster.controllers.objects import JSON
from pervade.cluster.controllers.queue import WorkQueue
from pervade.kube.errors import ApiError
from pervade.kube.resources import CONFIG_MAPS, NAMESPACES, SERVICE_ACCOUNTS

ROOT_CA = "kube-root-ca.crt"


class Accounts:
    """Puts back what is deleted or changed."""

    def __init__(self, hub: Hub, ca: str) -> None:
        self.hub, self.ca = hub, ca
        self.namespaces = hub.watch(NAMESPACES)
        self.accounts, self.maps = hub.watch(SERVICE_ACCOUNTS), hub.watch(CONFIG_MAPS)
        self.queue = WorkQueue("accounts", self.sync, workers=2)
        self.namespaces.on_change(lambda _k, old, new: self.queue.add((new or old)["metadata"]["name"]))
        self.accounts.on_change(self._named("default"))
        self.maps.on_change(self._named(ROOT_CA))

    def _named(self, name: str) -> Any:
        def changed(_kind: str, old: JSON | None, new: JSON | None) -> None:
            meta = (new or old or {})["metadata"]
            if meta["name"] == name:
                self.queue.add(meta["namespace"])

        return changed

    async def sync(self, name: Any) -> None:
        namespace = self.namespaces.get("", name)
        if namespace is None or ob.terminating(namespace):
            return
        try:
            if self.accounts.get(name, "default") is None:
                await self.hub.client.create(
                    SERVICE_ACCOUNTS, {"metadata": {"name": "default", "namespace": name}}
                )
        except ApiError as error:
            if not error.already_exists:
                raise
        wanted = {"ca.crt": self.ca}
        held = self.maps.get(name, ROOT_CA)
        if held is None:
            note = {
                "kubernetes.io/description": "Contains a CA bundle that can be used to verify the kube-apiserver."
            }
            meta = {"name": ROOT_CA, "namespace": name, "annotations": note}
            try:
                await self.hub.client.create(CONFIG_MAPS, {"metadata": meta, "data": wanted})
            except ApiError as error:
                if not error.already_exists:
                    raise
        elif held.get("data") != wanted:
            await self.hub.client.patch(CONFIG_MAPS, ROOT_CA, {"data": wanted}, name)
