"""Deployments: ReplicaSets by template, rolled over within maxSurge and maxUnavailable."""

from __future__ import annotations

import time
from typing import Any

from pervade.cluster.controllers import objects as ob
from pervade.cluster.controllers.hub import Hub
from pervade.cluster.controllers.objects import JSON
from pervade.cluster.controllers.queue import WorkQueue
from pervade.kube.errors import ApiError
from pervade.kube.resources import DEPLOYMENTS, REPLICA_SETS

REVISION = "deployment.kubernetes.io/revision"
HASH = "pod-template-hash"
DESIRED, MOST = "deployment.kubernetes.io/desired-replicas", "deployment.kubernetes.io/max-replicas"
_COPIED_NOT = ("kubectl.kubernetes.io/last-applied-configuration", REVISION, DESIRED, MOST,
               "deployment.kubernetes.io/revision-history")  # fmt: skip


def same_template(rs: JSON, deployment: JSON) -> bool:
    """Whether a ReplicaSet has the deployment's template (but for the hash label)."""

    def bare(template: JSON) -> JSON:
        meta = dict(template.get("metadata") or {})
        labels = {k: v for k, v in (meta.get("labels") or {}).items() if k != HASH}
        meta.pop("creationTimestamp", None)
        return {
            "metadata": {k: v for k, v in meta.items() if k != "labels" and v} | {"labels": labels},
            "spec": template["spec"],
        }

    return bare(rs["spec"]["template"]) == bare(deployment["spec"]["template"])


def _replicas(rs: JSON) -> int:
    return int(rs["spec"].get("replicas", 0))


def _number(rs: JSON, annotation: str) -> int | None:
    """An annotation of ours as a number; None when a user has made something else of it."""
    text = (rs["metadata"].get("annotations") or {}).get(annotation, "")
    return int(text) if text.isdigit() else None


def sizes(deployment: JSON) -> dict[str, str]:
    """Annotations that say for which size of the deployment a ReplicaSet's number was computed."""
    wanted = int(deployment["spec"].get("replicas", 1))
    rolling = deployment["spec"]["strategy"].get("rollingUpdate") or {}
    return {
        DESIRED: str(wanted),
        MOST: str(wanted + ob.amount(rolling.get("maxSurge"), wanted, up=True) if wanted else 0),
    }


def resized(deployment: JSON, sets: list[JSON]) -> bool:
    """Whether the deployment got another size since the numbers of its ReplicaSets were computed."""
    wanted = int(deployment["spec"].get("replicas", 1))
    return any(_number(rs, DESIRED) not in (None, wanted) for rs in sets if _replicas(rs))


def scaling_plan(deployment: JSON, new: JSON | None, olds: list[JSON]) -> dict[str, int]:
    """ReplicaSet name → replicas after the deployment's size changed: in the midst of a rollout each gets its share.

    Pure. Source: Kubernetes, "Deployments", "Proportional scaling". The remainder goes to the largest.
    """
    wanted = int(deployment["spec"].get("replicas", 1))
    active = [rs for rs in [*([new] if new else []), *olds] if _replicas(rs)]
    latest = active[0] if active else new
    if len(active) <= 1:
        return {latest["metadata"]["name"]: wanted} if latest else {}
    status = (new or {}).get("status") or {}
    if new is not None and _replicas(new) == wanted == int(status.get("availableReplicas") or 0):
        return {new["metadata"]["name"]: wanted} | {rs["metadata"]["name"]: 0 for rs in olds if _replicas(rs)}
    total = sum(_replicas(rs) for rs in active)
    change = int(sizes(deployment)[MOST]) - total
    age = sorted(active, key=lambda rs: str(rs["metadata"]["creationTimestamp"]), reverse=change > 0)
    ordered = sorted(age, key=lambda rs: -_replicas(rs))
    out: dict[str, int] = {}
    given = 0
    for rs in ordered:
        have = _replicas(rs)
        before = _number(rs, MOST) or total
        share = round(have * (total + change) / before) - have
        share = min(share, change - given) if change > 0 else max(share, change - given)
        if (share > 0) != (change > 0):
            share = 0
        out[rs["metadata"]["name"]] = max(have + share, 0)
        given += share
    rest = change - given
    for rs in ordered:
        # What rounding left; a set gives no more than it has.
        name = rs["metadata"]["name"]
        step = max(rest, -out[name])
        out[name] += step
        rest -= step
    return out


def rolling_plan(deployment: JSON, new: JSON, olds: list[JSON]) -> dict[str, int]:
    """ReplicaSet name → replicas for the next step of a rolling update. Pure; the arithmetic of upstream's controller."""
    spec = deployment["spec"]
    wanted = int(spec.get("replicas", 1))
    rolling = spec["strategy"].get("rollingUpdate") or {}
    surge = ob.amount(rolling.get("maxSurge"), wanted, up=True)
    unavailable = ob.amount(rolling.get("maxUnavailable"), wanted, up=False)
    if surge == 0 and unavailable == 0:
        unavailable = 1
    out: dict[str, int] = {}
    total = sum(int(r["spec"].get("replicas", 0)) for r in [new, *olds])
    have = int(new["spec"].get("replicas", 0))
    if have > wanted:
        out[new["metadata"]["name"]] = wanted
        return out
    if have < wanted:
        room = wanted + surge - total
        if room > 0:
            out[new["metadata"]["name"]] = have + min(room, wanted - have)
            return out
    new_available = int((new.get("status") or {}).get("availableReplicas") or 0)
    new_unready = have - new_available
    can_go = total - (wanted - unavailable) - new_unready
    for rs in sorted(olds, key=lambda r: r["metadata"]["creationTimestamp"]):
        # Pods that are not available serve nobody: they go first and cost nothing.
        count, good = (
            int(rs["spec"].get("replicas", 0)),
            int((rs.get("status") or {}).get("availableReplicas") or 0),
        )
        drop = min(count - good, max(can_go, 0))
        if drop > 0:
            out[rs["metadata"]["name"]] = count - drop
            can_go -= drop
    available = sum(int((r.get("status") or {}).get("availableReplicas") or 0) for r in [new, *olds])
    spare = available - (wanted - unavailable)
    for rs in sorted(olds, key=lambda r: r["metadata"]["creationTimestamp"]):
        count = out.get(rs["metadata"]["name"], int(rs["spec"].get("replicas", 0)))
        drop = min(count, max(spare, 0))
        if drop > 0:
            out[rs["metadata"]["name"]] = count - drop
            spare -= drop
    return out


class Deployments:
    """One sync = one step; the status of ReplicaSets wakes the next."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.deployments, self.sets = hub.watch(DEPLOYMENTS), hub.owned(REPLICA_SETS)
        self.queue = WorkQueue("deployment", self.sync)
        self.deployments.on_change(lambda _k, old, new: self.queue.add(ob.key_of(new or old)))
        self.sets.on_change(self._set)

    def _set(self, _kind: str, old: JSON | None, new: JSON | None) -> None:
        for rs in (old, new):
            ref = ob.owner(rs) if rs else None
            if rs is not None and ref is not None and ref["kind"] == "Deployment":
                self.queue.add((rs["metadata"]["namespace"], ref["name"]))

    async def sync(self, key: Any) -> float | None:
        deployment = self.deployments.get(*key)
        if deployment is None or ob.terminating(deployment):
            return None
        mine: list[JSON] = self.sets.by_index("controller", ob.identity(deployment))
        new = next(
            (
                r
                for r in sorted(mine, key=lambda r: r["metadata"]["creationTimestamp"])
                if same_template(r, deployment)
            ),
            None,
        )
        olds = [r for r in mine if new is None or r["metadata"]["uid"] != new["metadata"]["uid"]]
        spec = deployment["spec"]
        rolling = spec["strategy"]["type"] == "RollingUpdate"
        if spec.get("paused") or (rolling and resized(deployment, mine)):
            steps = scaling_plan(deployment, new, olds)
            for rs in mine:
                if rs["metadata"]["name"] in steps and (rolling or len(steps) == 1):
                    await self._scale(deployment, rs, steps[rs["metadata"]["name"]])
        else:
            new = await self._new_set(deployment, new, mine)
            await self._roll(deployment, new, olds)
            await self._trim(deployment, olds)
        return await self._status(deployment, new, mine)

    async def _new_set(self, deployment: JSON, found: JSON | None, mine: list[JSON]) -> JSON:
        """The ReplicaSet of the current template, made when missing, its revision the highest."""
        highest = max(
            (int((r["metadata"].get("annotations") or {}).get(REVISION, 0)) for r in mine), default=0
        )
        meta = deployment["metadata"]
        carried = {k: v for k, v in (meta.get("annotations") or {}).items() if k not in _COPIED_NOT}
        if found is not None:
            own = int((found["metadata"].get("annotations") or {}).get(REVISION, 0))
            revision = own if own == highest else highest + 1
            want = carried | {REVISION: str(revision)}
            least = deployment["spec"].get("minReadySeconds") or None
            if (found["spec"].get("minReadySeconds") or None) != least or any(
                (found["metadata"].get("annotations") or {}).get(k) != v for k, v in want.items()
            ):
                patch = {"metadata": {"annotations": want}, "spec": {"minReadySeconds": least}}
                found = await self.hub.client.patch(
                    REPLICA_SETS, found["metadata"]["name"], patch, meta["namespace"]
                )
            await self._revision(deployment, revision)
            return found
        collisions = int((deployment.get("status") or {}).get("collisionCount") or 0)
        mark = ob.short_hash(deployment["spec"]["template"], str(collisions) if collisions else "")
        template = deployment["spec"]["template"]
        labels = {**((template.get("metadata") or {}).get("labels") or {}), HASH: mark}
        selector = deployment["spec"]["selector"]
        body: JSON = {
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "metadata": {
                "name": f"{meta['name']}-{mark}",
                "namespace": meta["namespace"],
                "labels": labels,
                "annotations": carried | sizes(deployment) | {REVISION: str(highest + 1)},
                "ownerReferences": [ob.reference(deployment, "apps/v1", "Deployment")],
            },
            "spec": {
                "replicas": 0,
                "selector": {**selector, "matchLabels": {**(selector.get("matchLabels") or {}), HASH: mark}},
                "template": {**template, "metadata": {**(template.get("metadata") or {}), "labels": labels}},
            },
        }
        if deployment["spec"].get("minReadySeconds"):
            body["spec"]["minReadySeconds"] = deployment["spec"]["minReadySeconds"]
        if deployment["spec"]["strategy"]["type"] == "RollingUpdate":
            wanted = int(deployment["spec"].get("replicas", 1))
            total = sum(int(r["spec"].get("replicas", 0)) for r in mine)
            surge = ob.amount(
                (deployment["spec"]["strategy"].get("rollingUpdate") or {}).get("maxSurge"), wanted, up=True
            )
            body["spec"]["replicas"] = max(0, min(wanted, wanted + surge - total))
        elif not any(
            int(r["spec"].get("replicas", 0)) or int((r.get("status") or {}).get("replicas") or 0)
            for r in mine
        ):
            body["spec"]["replicas"] = int(deployment["spec"].get("replicas", 1))
        try:
            made = await self.hub.client.create(REPLICA_SETS, body)
        except ApiError as error:
            if not error.already_exists:
                raise
            made = await self.hub.client.get(REPLICA_SETS, body["metadata"]["name"], meta["namespace"])
            if not ob.owned_by(made, meta["uid"]) or not same_template(made, deployment):
                status = {"status": {"collisionCount": collisions + 1}}
                await self.hub.client.patch(
                    DEPLOYMENTS, meta["name"], status, meta["namespace"], subresource="status"
                )
                raise
        else:
            self._scaled(deployment, made, 0)
        await self._revision(deployment, highest + 1)
        return made

    async def _revision(self, deployment: JSON, revision: int) -> None:
        meta = deployment["metadata"]
        if (meta.get("annotations") or {}).get(REVISION) != str(revision):
            patch = {"metadata": {"annotations": {REVISION: str(revision)}}}
            await self.hub.client.patch(DEPLOYMENTS, meta["name"], patch, meta["namespace"])

    async def _roll(self, deployment: JSON, new: JSON, olds: list[JSON]) -> None:
        wanted = int(deployment["spec"].get("replicas", 1))
        if deployment["spec"]["strategy"]["type"] == "Recreate":
            for rs in olds:
                await self._scale(deployment, rs, 0)
            if not any(int((r.get("status") or {}).get("replicas") or 0) for r in olds):
                await self._scale(deployment, new, wanted)
            return
        steps = rolling_plan(deployment, new, olds)
        for rs in [new, *olds]:
            if rs["metadata"]["name"] in steps:
                await self._scale(deployment, rs, steps[rs["metadata"]["name"]])

    async def _scale(self, deployment: JSON, rs: JSON, replicas: int) -> None:
        before, meta, notes = _replicas(rs), rs["metadata"], sizes(deployment)
        held = meta.get("annotations") or {}
        if before == replicas and (not replicas or all(held.get(k) == v for k, v in notes.items())):
            return
        patch = {
            "metadata": {"resourceVersion": meta["resourceVersion"], "annotations": notes},
            "spec": {"replicas": replicas},
        }
        try:
            made = await self.hub.client.patch(REPLICA_SETS, meta["name"], patch, meta["namespace"])
        except ApiError as error:
            if error.conflict:
                # Its status moved meanwhile; the event of that wakes this deployment again.
                self.queue.later((meta["namespace"], deployment["metadata"]["name"]), 0.1)
                return
            raise
        self._scaled(deployment, made, before)

    def _scaled(self, deployment: JSON, rs: JSON, before: int) -> None:
        after = int(rs["spec"].get("replicas", 0))
        if after == before:
            return
        text = f"Scaled {'up' if after > before else 'down'} replica set {rs['metadata']['name']} from {before} to {after}"
        self.hub.event(
            deployment, "apps/v1", "Deployment", "deployment-controller", "ScalingReplicaSet", text
        )

    async def _trim(self, deployment: JSON, olds: list[JSON]) -> None:
        limit = int(deployment["spec"].get("revisionHistoryLimit", 10))
        done = [
            r
            for r in olds
            if not int(r["spec"].get("replicas", 0)) and not int((r.get("status") or {}).get("replicas") or 0)
        ]
        for rs in sorted(done, key=lambda r: r["metadata"]["creationTimestamp"])[: max(0, len(done) - limit)]:
            await self.hub.client.delete(
                REPLICA_SETS, rs["metadata"]["name"], rs["metadata"]["namespace"], uid=rs["metadata"]["uid"]
            )

    async def _status(self, deployment: JSON, new: JSON | None, mine: list[JSON]) -> float | None:
        spec, meta, old = deployment["spec"], deployment["metadata"], deployment.get("status") or {}
        fresh = {r["metadata"]["uid"]: r for r in mine} | ({new["metadata"]["uid"]: new} if new else {})

        def count(field: str, sets: list[JSON]) -> int:
            return sum(int((r.get("status") or {}).get(field) or 0) for r in sets)

        everyone = list(fresh.values())
        wanted = int(spec.get("replicas", 1))
        available, total = count("availableReplicas", everyone), count("replicas", everyone)
        updated = count("replicas", [new] if new else [])
        found: JSON = {
            "observedGeneration": meta.get("generation", 0),
            "replicas": total,
            "updatedReplicas": updated,
            "readyReplicas": count("readyReplicas", everyone),
            "availableReplicas": available,
            "unavailableReplicas": max(0, wanted - available) if total else wanted,
        }
        conditions = list(old.get("conditions") or [])
        rolling = spec["strategy"].get("rollingUpdate") or {}
        least = wanted - ob.amount(rolling.get("maxUnavailable"), wanted, up=False) if rolling else wanted
        if available >= least:
            conditions = ob.set_condition(
                conditions,
                "Available",
                "True",
                "MinimumReplicasAvailable",
                "Deployment has minimum availability.",
            )
        else:
            text = "Deployment does not have minimum availability."
            conditions = ob.set_condition(
                conditions, "Available", "False", "MinimumReplicasUnavailable", text
            )
        conditions, wish = self._progress(deployment, new, found, conditions)
        found["conditions"] = conditions
        if any(old.get(k, [] if k == "conditions" else 0) != v for k, v in found.items()):
            body = {"status": {k: v if v or k == "observedGeneration" else None for k, v in found.items()}}
            await self.hub.client.patch(
                DEPLOYMENTS, meta["name"], body, meta["namespace"], subresource="status"
            )
        return wish

    def _progress(
        self, deployment: JSON, new: JSON | None, found: JSON, held: list[JSON]
    ) -> tuple[list[JSON], float | None]:
        """The condition Progressing, and when to look again for its deadline."""
        spec, old = deployment["spec"], deployment.get("status") or {}
        wanted = int(spec.get("replicas", 1))
        name = new["metadata"]["name"] if new else ""
        if spec.get("paused"):
            if not any(c["type"] == "Progressing" and c.get("reason") == "DeploymentPaused" for c in held):
                held = ob.set_condition(
                    held, "Progressing", "Unknown", "DeploymentPaused", "Deployment is paused"
                )
            return held, None
        complete = found["updatedReplicas"] == wanted == found["replicas"] == found["availableReplicas"]
        if complete:
            text = f'ReplicaSet "{name}" has successfully progressed.'
            return ob.set_condition(held, "Progressing", "True", "NewReplicaSetAvailable", text), None
        now = next((c for c in held if c["type"] == "Progressing"), None)
        moved = any(
            int(found[k]) != int(old.get(k) or 0)
            for k in ("updatedReplicas", "readyReplicas", "availableReplicas", "replicas")
        )
        limit = int(spec.get("progressDeadlineSeconds", 600))
        if moved or now is None or now.get("reason") in ("NewReplicaSetAvailable", "DeploymentPaused"):
            held = [c for c in held if c["type"] != "Progressing"]
            held = ob.set_condition(
                held, "Progressing", "True", "ReplicaSetUpdated", f'ReplicaSet "{name}" is progressing.'
            )
            return held, float(limit)
        left = ob.epoch(now["lastUpdateTime"]) + limit - time.time()
        if left <= 0 and now["status"] == "True":
            text = f'ReplicaSet "{name}" has timed out progressing.'
            return ob.set_condition(held, "Progressing", "False", "ProgressDeadlineExceeded", text), None
        return held, max(left, 1.0) if left > 0 else None
