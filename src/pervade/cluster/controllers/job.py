"""Jobs: pods until enough of them succeeded."""

from __future__ import annotations

import time
from typing import Any

from pervade.cluster.controllers import objects as ob
from pervade.cluster.controllers.hub import Hub
from pervade.cluster.controllers.objects import JSON
from pervade.cluster.controllers.owned import OwnedPods, write_status
from pervade.cluster.controllers.queue import WorkQueue
from pervade.cluster.controllers.replicaset import pod_from
from pervade.kube.errors import ApiError
from pervade.kube.resources import JOBS

_INDEX = "batch.kubernetes.io/job-completion-index"
_FIRST_PAUSE, _MOST = 10.0, 360.0


def index_of(pod: JSON) -> int:
    return int((pod["metadata"].get("annotations") or {}).get(_INDEX, -1))


def ranges(numbers: set[int]) -> str:
    """Numbers as `completedIndexes` has them: 0,2-5."""
    out: list[list[int]] = []
    for n in sorted(numbers):
        if out and out[-1][1] == n - 1:
            out[-1][1] = n
        else:
            out.append([n, n])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in out)


def pause(failures: int, last: float, now: float) -> float:
    """Seconds until the next try after `failures` failed pods, the last at `last` (10 s, doubling to six minutes)."""
    return max(last + min(_FIRST_PAUSE * 2 ** (failures - 1), _MOST) - now, 0.0) if failures else 0.0


def _ended_at(pod: JSON) -> float:
    times = [
        ob.epoch(c["state"]["terminated"]["finishedAt"])
        for c in (pod.get("status") or {}).get("containerStatuses") or ()
        if ((c.get("state") or {}).get("terminated") or {}).get("finishedAt")
    ]
    return max(times, default=ob.epoch(pod["metadata"]["creationTimestamp"]))


class Jobs:
    """Counts what the pods say; ended pods stay until the job goes, so the count needs no other memory."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.queue = WorkQueue("job", self.sync)
        self.jobs = hub.watch(JOBS)
        self.owned = OwnedPods(hub, JOBS, self.queue, "job-controller")
        self.jobs.on_change(lambda _k, old, new: self.queue.add(ob.key_of(new or old)))

    async def sync(self, key: Any) -> float | None:
        job = self.jobs.get(*key)
        if job is None:
            self.owned.forget(key)
            return None
        if ob.terminating(job):
            return None
        if self._finished(job):
            return await self._expire(job)
        pods = self.owned.of(job)
        if not self.owned.settled(job):
            return 1.0
        return await self._advance(job, pods)

    def _finished(self, job: JSON) -> bool:
        return any((ob.condition(job, c) or {}).get("status") == "True" for c in ("Complete", "Failed"))

    async def _expire(self, job: JSON) -> float | None:
        """ttlSecondsAfterFinished."""
        ttl = job["spec"].get("ttlSecondsAfterFinished")
        if ttl is None:
            return None
        ended = max(
            ob.epoch(c["lastTransitionTime"])
            for c in job["status"]["conditions"]
            if c["type"] in ("Complete", "Failed")
        )
        left = ended + float(ttl) - time.time()
        if left > 0:
            return left + 0.05
        meta = job["metadata"]
        try:
            await self.hub.client.delete(
                JOBS, meta["name"], meta["namespace"], propagation="Background", uid=meta["uid"]
            )
        except ApiError as error:
            if not error.not_found:
                raise
        return None

    async def _advance(self, job: JSON, pods: list[JSON]) -> float | None:
        spec, now = job["spec"], time.time()
        state: JSON = dict(job.get("status") or {})
        live = [p for p in pods if ob.active(p)]
        good = [p for p in pods if (p.get("status") or {}).get("phase") == "Succeeded"]
        bad = [p for p in pods if (p.get("status") or {}).get("phase") == "Failed"]
        indexed = spec.get("completionMode") == "Indexed"
        done = {index_of(p) for p in good} if indexed else set()
        count = len(done) if indexed else len(good)
        wanted = spec.get("completions")
        conditions = list(state.get("conditions") or [])
        wish: float | None = None
        if spec.get("suspend"):
            for pod in live:
                await self.owned.drop(job, pod)
            conditions = ob.set_condition(conditions, "Suspended", "True", "JobSuspended", "Job suspended")
            state.pop("startTime", None)
            live = []
        else:
            if any(c["type"] == "Suspended" and c["status"] == "True" for c in conditions):
                conditions = ob.set_condition(conditions, "Suspended", "False", "JobResumed", "Job resumed")
            state.setdefault("startTime", ob.now())
            why = self._given_up(job, state, bad, now)
            enough = count >= int(wanted) if wanted is not None else bool(good) and not live
            if why is not None:
                for pod in live:
                    await self.owned.drop(job, pod)
                live = []
                conditions = ob.set_condition(conditions, "Failed", "True", *why)
                self.owned.say(job, why[0], why[1], warn=True)
            elif enough:
                for pod in live:
                    await self.owned.drop(job, pod)
                live = []
                text = "Reached expected number of succeeded pods"
                conditions = ob.set_condition(conditions, "Complete", "True", "CompletionsReached", text)
                state["completionTime"] = ob.now()
                self.owned.say(job, "Completed", "Job completed")
            else:
                wish = await self._start(job, live, good, bad, done)
            if spec.get("activeDeadlineSeconds") is not None and not enough and why is None:
                left = ob.epoch(state["startTime"]) + float(spec["activeDeadlineSeconds"]) - now + 0.05
                wish = left if wish is None else min(wish, left)
        found: JSON = {
            "active": len(live),
            "ready": sum(ob.ready(p) for p in live),
            "succeeded": count,
            "failed": len(bad),
            "terminating": sum(ob.terminating(p) for p in pods),
            "conditions": conditions,
            "startTime": state.get("startTime"),
        }
        if indexed:
            found["completedIndexes"] = ranges(done)
        if state.get("completionTime"):
            found["completionTime"] = state["completionTime"]
        empty: JSON = {"conditions": [], "startTime": None, "completedIndexes": "", "completionTime": None}
        await write_status(self.hub, JOBS, job, found, lambda f: empty.get(f, 0))
        return wish

    def _given_up(self, job: JSON, state: JSON, bad: list[JSON], now: float) -> tuple[str, str] | None:
        spec = job["spec"]
        limit = spec.get("activeDeadlineSeconds")
        if limit is not None and now >= ob.epoch(state["startTime"]) + float(limit):
            return "DeadlineExceeded", "Job was active longer than specified deadline"
        restarts = 0
        if (spec["template"]["spec"].get("restartPolicy")) == "OnFailure":
            for pod in self.owned.of(job):
                rows = (pod.get("status") or {}).get("containerStatuses") or ()
                restarts += sum(int(c.get("restartCount") or 0) for c in rows)
        if len(bad) + restarts > int(spec.get("backoffLimit", 6)):
            return "BackoffLimitExceeded", "Job has reached the specified backoff limit"
        return None

    async def _start(
        self, job: JSON, live: list[JSON], good: list[JSON], bad: list[JSON], done: set[int]
    ) -> float | None:
        """Start what is missing; the seconds to wait after a failure."""
        spec = job["spec"]
        wanted = spec.get("completions")
        room = int(spec.get("parallelism", 1))
        if wanted is not None:
            room = min(
                room, int(wanted) - (len(done) if spec.get("completionMode") == "Indexed" else len(good))
            )
        elif good:
            # Without a number of completions, one success means that no more pods are started.
            room = len(live)
        for pod in sorted(live, key=lambda p: p["metadata"]["creationTimestamp"], reverse=True)[
            : max(len(live) - room, 0)
        ]:
            await self.owned.drop(job, pod)
        if len(live) >= room:
            return None
        left = pause(len(bad), max((_ended_at(p) for p in bad), default=0.0), time.time())
        if left > 0:
            return left + 0.05
        busy = {index_of(p) for p in live}
        free = [i for i in range(int(wanted or 0)) if i not in busy and i not in done]
        for turn in range(room - len(live)):
            pod = pod_from(job, "batch/v1", "Job")
            if spec.get("completionMode") == "Indexed":
                if turn >= len(free):
                    break
                number = str(free[turn])
                pod["metadata"]["annotations"][_INDEX] = number
                pod["metadata"]["labels"][_INDEX] = number
                pod["metadata"]["generateName"] = f"{job['metadata']['name']}-{number}-"
                pod["spec"] = _with_index(pod["spec"], number)
            await self.owned.make(job, pod)
        return None


def _with_index(spec: JSON, number: str) -> JSON:
    """Each container learns its index by JOB_COMPLETION_INDEX."""
    row = {"name": "JOB_COMPLETION_INDEX", "value": number}
    out = dict(spec)
    for part in ("containers", "initContainers"):
        if spec.get(part):
            out[part] = [{**c, "env": [*(c.get("env") or []), row]} for c in spec[part]]
    return out
