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
from pervade.kube.resources import JOBS, PODS

_NAME = "kubernetes.io/job-controller"
_UNSERVED = ("podFailurePolicy", "successPolicy", "backoffLimitPerIndex", "maxFailedIndexes")
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


def numbers(text: str) -> set[int]:
    """The inverse of `ranges`."""
    out: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        out |= set(range(int(first), int(last or first) + 1))
    return out


def pause(failures: int, last: float, now: float) -> float:
    """Seconds until the next try after `failures` failed pods, the last at `last` (10 s, doubling to six minutes)."""
    return max(last + min(_FIRST_PAUSE * 2 ** (failures - 1), _MOST) - now, 0.0) if failures else 0.0


def _set(held: list[JSON], kind: str, status: str, reason: str, message: str) -> list[JSON]:
    return ob.set_condition(held, kind, status, reason, message, update_time=False)


def _ended_at(pod: JSON) -> float:
    times = [
        ob.epoch(c["state"]["terminated"]["finishedAt"])
        for c in (pod.get("status") or {}).get("containerStatuses") or ()
        if ((c.get("state") or {}).get("terminated") or {}).get("finishedAt")
    ]
    return max(times, default=ob.epoch(pod["metadata"]["creationTimestamp"]))


class Jobs:
    """Counts what the pods say; those that are deleted before the job ends are remembered here and in its status."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.queue = WorkQueue("job", self.sync)
        self.jobs = hub.watch(JOBS)
        self.owned = OwnedPods(hub, JOBS, self.queue, "job-controller")
        self.lost: dict[str, dict[str, set[str]]] = {}
        """uid of a job → phase → pods that ended and were deleted while it runs (by a user, or with their node)."""
        self.jobs.on_change(self._job)
        hub.watch(PODS).on_change(self._pod)

    def _job(self, _kind: str, old: JSON | None, new: JSON | None) -> None:
        self.queue.add(ob.key_of(new or old or {}))
        if old is not None and (new is None or new["metadata"]["uid"] != old["metadata"]["uid"]):
            self.lost.pop(old["metadata"]["uid"], None)

    def _pod(self, _kind: str, old: JSON | None, new: JSON | None) -> None:
        if old is None or (new is not None and new["metadata"]["uid"] == old["metadata"]["uid"]):
            return
        ref, phase = ob.owner(old), (old.get("status") or {}).get("phase")
        if ref is None or ref["kind"] != "Job" or phase is None:
            return
        job = self.jobs.get(old["metadata"]["namespace"], ref["name"])
        counts = phase == "Succeeded" or (phase == "Failed" and not ob.terminating(old))
        if counts and job is not None and job["metadata"]["uid"] == ref["uid"]:
            self.lost.setdefault(ref["uid"], {}).setdefault(phase, set()).add(old["metadata"]["uid"])

    def _ended(self, job: JSON, phase: str, pods: list[JSON], counted: int) -> int:
        """How many pods of a job ended so; never fewer than were `counted` before."""
        return max(len(pods) + len(self.lost.get(job["metadata"]["uid"], {}).get(phase, ())), counted)

    async def sync(self, key: Any) -> float | None:
        job = self.jobs.get(*key)
        if job is None:
            self.owned.forget(key)
            return None
        if ob.terminating(job) or job["spec"].get("managedBy", _NAME) != _NAME:
            return None
        if self._finished(job):
            return await self._expire(job)
        pods = await self.owned.claim(job)
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
        # A pod that failed because it was deleted (suspended, superfluous) is no failure of the job.
        bad = [p for p in pods if (p.get("status") or {}).get("phase") == "Failed" and not ob.terminating(p)]
        failed = self._ended(job, "Failed", bad, int(state.get("failed") or 0))
        indexed = spec.get("completionMode") == "Indexed"
        done: set[int] = set()
        if indexed:
            done = {index_of(p) for p in good} | numbers(state.get("completedIndexes") or "")
            count = len(done)
        else:
            count = self._ended(job, "Succeeded", good, int(state.get("succeeded") or 0))
        wanted = spec.get("completions")
        conditions = list(state.get("conditions") or [])
        wish: float | None = None
        if spec.get("suspend"):
            for pod in live:
                await self.owned.drop(job, pod)
            conditions = _set(conditions, "Suspended", "True", "JobSuspended", "Job suspended")
            state.pop("startTime", None)
            live = []
        else:
            if any(c["type"] == "Suspended" and c["status"] == "True" for c in conditions):
                conditions = _set(conditions, "Suspended", "False", "JobResumed", "Job resumed")
            if "startTime" not in state and (unserved := [f for f in _UNSERVED if spec.get(f) is not None]):
                self.owned.say(
                    job, "NotServed", f"not served by this cluster: {', '.join(unserved)}", warn=True
                )
            state.setdefault("startTime", ob.now())
            decided = {c["type"]: c for c in conditions if c["status"] == "True"}
            enough = "FailureTarget" not in decided and (
                count >= int(wanted) if wanted is not None else bool(count) and not live
            )
            target = decided.get("FailureTarget")
            why = (target["reason"], target["message"]) if target else None
            if why is None and not enough:
                why = self._given_up(job, state, failed, now)
            if why is not None:
                conditions = _set(conditions, "FailureTarget", "True", *why)
                if not await self._end(job, pods):
                    conditions = _set(conditions, "Failed", "True", *why)
                    self.owned.say(job, why[0], why[1], warn=True)
                live = []
            elif enough:
                reached = "CompletionsReached", "Reached expected number of succeeded pods"
                conditions = _set(conditions, "SuccessCriteriaMet", "True", *reached)
                if not await self._end(job, pods):
                    conditions = _set(conditions, "Complete", "True", *reached)
                    state["completionTime"] = ob.now()
                    self.owned.say(job, "Completed", "Job completed")
                live = []
            else:
                wish = await self._start(job, live, count, failed, bad, done)
            if spec.get("activeDeadlineSeconds") is not None and not enough and why is None:
                left = ob.epoch(state["startTime"]) + float(spec["activeDeadlineSeconds"]) - now + 0.05
                wish = left if wish is None else min(wish, left)
        found: JSON = {
            "active": len(live),
            "ready": sum(ob.ready(p) for p in live),
            "succeeded": count,
            "failed": failed,
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

    async def _end(self, job: JSON, pods: list[JSON]) -> bool:
        """Stop a job's pods; whether there are some that have not ended yet (its last condition waits for them)."""
        for pod in pods:
            if ob.active(pod):
                await self.owned.drop(job, pod)
        return any((p.get("status") or {}).get("phase") not in ("Succeeded", "Failed") for p in pods)

    def _given_up(self, job: JSON, state: JSON, failed: int, now: float) -> tuple[str, str] | None:
        spec = job["spec"]
        limit = spec.get("activeDeadlineSeconds")
        if limit is not None and now >= ob.epoch(state["startTime"]) + float(limit):
            return "DeadlineExceeded", "Job was active longer than specified deadline"
        restarts = 0
        if (spec["template"]["spec"].get("restartPolicy")) == "OnFailure":
            for pod in self.owned.of(job):
                rows = (pod.get("status") or {}).get("containerStatuses") or ()
                restarts += sum(int(c.get("restartCount") or 0) for c in rows)
        if failed + restarts > int(spec.get("backoffLimit", 6)):
            return "BackoffLimitExceeded", "Job has reached the specified backoff limit"
        return None

    async def _start(
        self, job: JSON, live: list[JSON], count: int, failed: int, bad: list[JSON], done: set[int]
    ) -> float | None:
        """Start what is missing; the seconds to wait after a failure."""
        spec = job["spec"]
        wanted = spec.get("completions")
        room = int(spec.get("parallelism", 1))
        if wanted is not None:
            room = min(room, int(wanted) - count)
        elif count:
            # Without a number of completions, one success means that no more pods are started.
            room = len(live)
        for pod in sorted(live, key=lambda p: p["metadata"]["creationTimestamp"], reverse=True)[
            : max(len(live) - room, 0)
        ]:
            await self.owned.drop(job, pod)
        if len(live) >= room:
            return None
        left = pause(failed, max((_ended_at(p) for p in bad), default=0.0), time.time())
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
                pod["spec"] = {"hostname": f"{job['metadata']['name']}-{number}"} | _with_index(
                    pod["spec"], number
                )
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
