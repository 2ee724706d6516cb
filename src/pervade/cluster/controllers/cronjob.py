"""CronJobs: a Job at every time of a schedule. Source: Kubernetes, "CronJob"."""

from __future__ import annotations

import zoneinfo
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

from pervade.cluster.controllers import objects as ob
from pervade.cluster.controllers.hub import Hub
from pervade.cluster.controllers.objects import JSON
from pervade.cluster.controllers.owned import write_status
from pervade.cluster.controllers.queue import WorkQueue
from pervade.cluster.controllers.schedule import Schedule, following, latest, parse
from pervade.kube.errors import ApiError
from pervade.kube.resources import CRON_JOBS, JOBS

_AT = "batch.kubernetes.io/cronjob-scheduled-timestamp"
_LOOK = 3600.0
"""A clock that was set is noticed after this many seconds."""


def ended(job: JSON) -> str:
    """Complete or Failed; "" for a job that is not done."""
    kinds = ("Complete", "Failed")
    return next((k for k in kinds if (ob.condition(job, k) or {}).get("status") == "True"), "")


def _stamp(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def superfluous(owner: JSON, jobs: list[JSON]) -> list[JSON]:
    """Ended jobs beyond the history limits, the oldest. Pure."""
    out = []
    for kind, field, default in (
        ("Complete", "successfulJobsHistoryLimit", 3),
        ("Failed", "failedJobsHistoryLimit", 1),
    ):
        held = sorted(
            (j for j in jobs if ended(j) == kind),
            key=lambda j: (j.get("status") or {}).get("startTime") or j["metadata"]["creationTimestamp"],
        )
        out += held[: max(len(held) - int(owner["spec"].get(field, default)), 0)]
    return out


def job_for(owner: JSON, at: datetime, zone: tzinfo) -> JSON:
    """The Job of one time; its name is the same however often it is asked for."""
    template, meta = owner["spec"]["jobTemplate"], owner["metadata"]
    held = template.get("metadata") or {}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": f"{meta['name']}-{int(at.timestamp()) // 60}",
            "namespace": meta["namespace"],
            "labels": dict(held.get("labels") or {}),
            "annotations": {**(held.get("annotations") or {}), _AT: at.astimezone(zone).isoformat()},
            "ownerReferences": [ob.reference(owner, "batch/v1", "CronJob")],
        },
        "spec": template["spec"],
    }


class CronJobs:
    """Sleeps until the next time of each schedule; a time that was missed is made up once, the latest."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.queue = WorkQueue("cronjob", self.sync, workers=2)
        self.crons, self.jobs = hub.watch(CRON_JOBS), hub.owned(JOBS)
        self.crons.on_change(lambda _k, old, new: self.queue.add(ob.key_of(new or old)))
        self.jobs.on_change(self._job)

    def _job(self, _kind: str, old: JSON | None, new: JSON | None) -> None:
        job = new or old or {}
        ref = ob.owner(job)
        if ref is not None and ref["kind"] == "CronJob":
            self.queue.add((job["metadata"]["namespace"], ref["name"]))

    async def sync(self, key: Any) -> float | None:
        owner = self.crons.get(*key)
        if owner is None or ob.terminating(owner):
            return None
        mine: list[JSON] = self.jobs.by_index("controller", ob.identity(owner))
        for job in superfluous(owner, mine):
            await self._delete(owner, job)
        live = [j for j in mine if not ended(j) and not ob.terminating(j)]
        last = (owner.get("status") or {}).get("lastScheduleTime")
        wish: float | None = None
        if not owner["spec"].get("suspend"):
            live, last, wish = await self._start(owner, live, last)
        await self._status(owner, mine, live, last)
        return wish

    def _when(self, owner: JSON) -> tuple[Schedule, tzinfo] | None:
        """Schedule and time zone; None, and an event, when they mean nothing."""
        spec = owner["spec"]
        try:
            schedule = parse(spec.get("schedule") or "")
        except ValueError as error:
            self._say(owner, "UnparseableSchedule", f"unparseable schedule: {error}", warn=True)
            return None
        try:
            zone: tzinfo = zoneinfo.ZoneInfo(spec["timeZone"]) if spec.get("timeZone") else UTC
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
            self._say(owner, "UnknownTimeZone", f"unknown time zone {spec['timeZone']!r}", warn=True)
            return None
        return schedule, zone

    async def _start(
        self, owner: JSON, live: list[JSON], last: str | None
    ) -> tuple[list[JSON], str | None, float | None]:
        """Start the Job that is due: (jobs that run, last schedule time, seconds until the next)."""
        when = self._when(owner)
        if when is None:
            return live, last, None
        schedule, zone = when
        spec, now = owner["spec"], datetime.now(UTC)
        since = datetime.fromisoformat(last or owner["metadata"]["creationTimestamp"])
        if spec.get("startingDeadlineSeconds") is not None:
            since = max(since, now - timedelta(seconds=int(spec["startingDeadlineSeconds"])))
        due = latest(schedule, since, now, zone)
        coming = following(schedule, now, zone)
        wish = min((coming - now).total_seconds() + 0.05, _LOOK) if coming is not None else None
        if due is None:
            return live, last, wish
        policy = spec.get("concurrencyPolicy", "Allow")
        job = job_for(owner, due, zone)
        others = [j for j in live if j["metadata"]["name"] != job["metadata"]["name"]]
        if policy == "Forbid" and others:
            text = "Not starting job because prior execution is running and concurrency policy is Forbid"
            self._say(owner, "JobAlreadyActive", text)
            return live, last, wish
        if policy == "Replace":
            for other in others:
                await self._delete(owner, other)
            live = [j for j in live if j not in others]
        try:
            made = await self.hub.client.create(JOBS, job)
        except ApiError as error:
            if not error.already_exists:
                self._say(owner, "FailedCreate", f"Error creating job: {error.message}", warn=True)
                raise
            made = await self.hub.client.get(JOBS, job["metadata"]["name"], job["metadata"]["namespace"])
            if not ob.owned_by(made, owner["metadata"]["uid"]):
                raise
        else:
            self._say(owner, "SuccessfulCreate", f"Created job {made['metadata']['name']}")
        known = {j["metadata"]["uid"] for j in live}
        if made["metadata"]["uid"] not in known and not ended(made):
            live = [*live, made]
        return live, _stamp(due), wish

    async def _status(self, owner: JSON, mine: list[JSON], live: list[JSON], last: str | None) -> None:
        old = owner.get("status") or {}
        done = [j["status"]["completionTime"] for j in mine if ended(j) == "Complete"]
        found = {
            "active": [
                {"apiVersion": "batch/v1", "kind": "Job", **{k: j["metadata"][k] for k in ("name", "namespace", "uid")}}
                for j in sorted(live, key=lambda j: str(j["metadata"]["name"]))
            ],
            "lastScheduleTime": last,
            "lastSuccessfulTime": max([*done, old.get("lastSuccessfulTime") or ""]) or None,
        }  # fmt: skip
        await write_status(self.hub, CRON_JOBS, owner, found, lambda f: [] if f == "active" else None)

    async def _delete(self, owner: JSON, job: JSON) -> None:
        meta = job["metadata"]
        try:
            await self.hub.client.delete(
                JOBS, meta["name"], meta["namespace"], propagation="Background", uid=meta["uid"]
            )
        except ApiError as error:
            if not (error.not_found or error.conflict):
                raise
            return
        self._say(owner, "SuccessfulDelete", f"Deleted job {meta['name']}")

    def _say(self, owner: JSON, reason: str, message: str, *, warn: bool = False) -> None:
        self.hub.event(owner, "batch/v1", "CronJob", "cronjob-controller", reason, message, warn=warn)
