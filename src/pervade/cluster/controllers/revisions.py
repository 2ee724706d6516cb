"""History of a template as ControllerRevisions, for DaemonSets and StatefulSets (`kubectl rollout history`, `undo`)."""

from __future__ import annotations

from pervade.cluster.controllers import objects as ob
from pervade.cluster.controllers.hub import Hub
from pervade.cluster.controllers.objects import JSON
from pervade.kube.errors import ApiError
from pervade.kube.reflector import Reflector
from pervade.kube.resources import CONTROLLER_REVISIONS

HASH = "controller-revision-hash"


def data_of(owner: JSON) -> JSON:
    """What a revision keeps: a strategic patch that puts the template back."""
    return {"spec": {"template": {**owner["spec"]["template"], "$patch": "replace"}}}


class Revisions:
    """The revisions of one owner at a time; `current` makes or promotes the one of the present template."""

    def __init__(self, hub: Hub, api_version: str, kind: str) -> None:
        self.hub, self.api_version, self.kind = hub, api_version, kind
        self.held: Reflector = hub.owned(CONTROLLER_REVISIONS)

    def of(self, owner: JSON) -> list[JSON]:
        """Oldest first."""
        mine = self.held.by_index("controller", ob.identity(owner))
        return sorted(mine, key=lambda r: int(r.get("revision") or 0))

    async def current(self, owner: JSON) -> JSON:
        """The revision of the owner's template, with the highest number."""
        mine = self.of(owner)
        wanted = data_of(owner)
        highest = int(mine[-1].get("revision") or 0) if mine else 0
        same = next((r for r in mine if r.get("data") == wanted), None)
        meta = owner["metadata"]
        if same is not None:
            if int(same.get("revision") or 0) == highest:
                return same
            return await self.hub.client.patch(
                CONTROLLER_REVISIONS, same["metadata"]["name"], {"revision": highest + 1}, meta["namespace"]
            )
        mark = ob.short_hash(wanted["spec"]["template"])
        labels = {**((owner["spec"]["template"].get("metadata") or {}).get("labels") or {}), HASH: mark}
        body: JSON = {
            "apiVersion": "apps/v1",
            "kind": "ControllerRevision",
            "metadata": {
                "name": f"{meta['name']}-{mark}",
                "namespace": meta["namespace"],
                "labels": labels,
                "annotations": dict(meta.get("annotations") or {}),
                "ownerReferences": [ob.reference(owner, self.api_version, self.kind)],
            },
            "data": wanted,
            "revision": highest + 1,
        }
        body["metadata"]["annotations"].pop("kubectl.kubernetes.io/last-applied-configuration", None)
        try:
            return await self.hub.client.create(CONTROLLER_REVISIONS, body)
        except ApiError as error:
            if not error.already_exists:
                raise
            found = await self.hub.client.get(
                CONTROLLER_REVISIONS, body["metadata"]["name"], meta["namespace"]
            )
            if ob.owned_by(found, meta["uid"]):
                return found
            if ob.owner(found) is not None or found.get("data") != wanted:
                # That of an owner that had this name before: garbage takes it away, then there is room.
                raise
            # Left behind by a deletion that orphaned it: it is taken over like the pods.
            change = {"ownerReferences": body["metadata"]["ownerReferences"], "uid": found["metadata"]["uid"]}
            patch = {"metadata": change, "revision": highest + 1}
            return await self.hub.client.patch(
                CONTROLLER_REVISIONS, found["metadata"]["name"], patch, meta["namespace"]
            )

    async def trim(self, owner: JSON, used: set[str]) -> None:
        """Delete the oldest revisions beyond `revisionHistoryLimit` whose hash or name nobody uses."""
        idle = [r for r in self.of(owner) if not used & {mark_of(r), r["metadata"]["name"]}]
        for one in idle[: max(0, len(idle) - int(owner["spec"].get("revisionHistoryLimit", 10)))]:
            meta = one["metadata"]
            try:
                await self.hub.client.delete(
                    CONTROLLER_REVISIONS, meta["name"], meta["namespace"], uid=meta["uid"]
                )
            except ApiError as error:
                if not error.not_found:
                    raise


def mark_of(pod_or_revision: JSON) -> str:
    """The hash a pod or revision carries."""
    return str((pod_or_revision["metadata"].get("labels") or {}).get(HASH, ""))
