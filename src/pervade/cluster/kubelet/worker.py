"""One pod's task: brings containerd in step with the pod's object, and the object's status in step with containerd.

Started for each pod of the node; wakes when the object changed, when containerd reported something of the
pod, when a probe changed its mind, or when a back-off ends. All state that must survive a kill -9 of this
process is in containerd (labels, attempts) and in the API.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from typing import Any

from pervade.cluster.kubelet import configs, environment, rotation, status, volumes
from pervade.cluster.kubelet.backoff import Backoff
from pervade.cluster.kubelet.cri import CriError
from pervade.cluster.kubelet.node import Node
from pervade.cluster.kubelet.probes import Counter
from pervade.cluster.kubelet.status import CREATED, EXITED, RUNNING, Container, Observed, Waiting
from pervade.cluster.kubelet.volumes import VolumeError, Volumes
from pervade.kube.errors import ApiError
from pervade.wire.http import ClientError

log = logging.getLogger(__name__)
JSON = dict[str, Any]
_REFRESH, _FRESH, _MEASURE = 45.0, 30.0, 10.0
_DONE = ("Succeeded", "Failed")
_HOOK_LONGEST = 3600.0


class PodWorker:
    """Keeps one pod; `run()` is its task and ends when the pod is gone from node and API."""

    def __init__(self, node: Node, pod: JSON) -> None:
        self.node, self.pod = node, pod
        self.uid: str = pod["metadata"]["uid"]
        self.wake = asyncio.Event()
        self.gone = self.busy = False
        self._seen = Observed()
        self._sandbox: str | None = None
        self._image_waits: dict[str, tuple[float, float]] = {}
        self._backoff: dict[str, Backoff] = {}
        self._probes: dict[str, list[asyncio.Task[None]]] = {}
        self._events: dict[tuple[str, str], tuple[float, str, int]] = {}
        self._hooked: set[str] = set()
        """Containers whose preStop hook has run, and lost sandboxes that were stopped."""
        self._stale: list[str] = []
        self._attempt = -1
        self._next = 0.0
        self._born = asyncio.get_running_loop().time()
        self._sources = volumes.Sources(self._fetch, node.token, node.downward)
        root = node.plan.node_state(node.name) / "kubelet" / "pods" / self.uid
        self.volumes = Volumes(root, f"/var/lib/kubelet/pods/{self.uid}", node.init_pid)

    @property
    def name(self) -> str:
        meta = self.pod["metadata"]
        return f"{meta['namespace']}/{meta['name']}"

    def running(self) -> list[Container]:
        """Containers that run now, as far as known."""
        return [c for held in self._seen.containers.values() for c in held if c.state == RUNNING]

    def update(self, pod: JSON) -> None:
        """The object changed; an echo that is older than what we wrote ourselves is not news."""
        if int(pod["metadata"]["resourceVersion"]) < int(self.pod["metadata"].get("resourceVersion", "0")):
            return
        self.pod = pod
        self.wake.set()

    def vanish(self) -> None:
        """The object is gone from the API: stop at once, whatever grace it had."""
        self.gone = True
        self.wake.set()

    async def run(self) -> None:
        while True:
            self.wake.clear()
            self._next = time.monotonic() + _REFRESH
            self.busy = True
            try:
                if await self._sync():
                    return
            except CriError as error:
                log.warning("containerd refused", extra={"pod": self.name, "error": str(error)})
                self._again(2.0)
            except (ApiError, ClientError, OSError) as error:
                log.warning("the API could not be told", extra={"pod": self.name, "error": str(error)})
                self._again(1.0)
            finally:
                self.busy = False
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.wake.wait(), max(self._next - time.monotonic(), 0.05))

    def _again(self, seconds: float) -> None:
        self._next = min(self._next, time.monotonic() + seconds)

    async def _sync(self) -> bool:
        await self._observe()
        if self.gone or self.pod["metadata"].get("deletionTimestamp"):
            await self._end()
            return True
        if (self.pod.get("status") or {}).get("phase") in _DONE or self._phase() in _DONE:
            await self._rest()
            return False
        if await self._deadline() or await self._too_large():
            return False
        if not (self.pod.get("status") or {}).get("startTime"):
            await self._report()
        try:
            await self._bring_up()
        finally:
            await self._observe()
            await self._report()
        return False

    def _phase(self) -> str:
        return status.phase(self.pod, self._seen)

    async def _fetch(self, kind: str, namespace: str, name: str) -> JSON | None:
        """Contents of a volume: never older than this pod, and at most half a minute old."""
        since = max(self._born, asyncio.get_running_loop().time() - _FRESH)
        return await self.node.fetch(kind, namespace, name, since)

    # What there is.

    async def _observe(self) -> None:
        boxes = (
            await self.node.cri.call(
                "ListPodSandbox", filter={"label_selector": {"io.kubernetes.pod.uid": self.uid}}
            )
        ).items
        boxes = sorted(boxes, key=lambda b: (b.metadata.attempt, b.created_at))
        ready = [b.id for b in boxes if b.state == 0]
        self._sandbox = ready[-1] if ready else None
        self._stale = [b.id for b in boxes if b.id != self._sandbox]
        self._attempt = max((b.metadata.attempt for b in boxes), default=-1)
        listed = (
            await self.node.cri.call(
                "ListContainers", filter={"label_selector": {"io.kubernetes.pod.uid": self.uid}}
            )
        ).containers
        known = {c.id: c for held in self._seen.containers.values() for c in held}
        found: dict[str, list[Container]] = {}
        for one in sorted(listed, key=lambda c: (c.metadata.attempt, c.created_at)):
            old = known.get(one.id)
            if (
                old is not None
                and old.state == one.state
                and one.state in (RUNNING, EXITED)
                and (old.finished or one.state == RUNNING)
            ):
                found.setdefault(one.metadata.name, []).append(old)
                continue
            found.setdefault(one.metadata.name, []).append(await self._container(one))
        self._seen.containers = found
        self._seen.sandbox = self._sandbox is not None

    async def _container(self, one: Any) -> Container:
        full = (await self.node.cri.call("ContainerStatus", container_id=one.id)).status
        message = full.message
        if full.state == EXITED and not message:
            message = self.node.termination_message(
                self.uid, one.metadata.name, full, self._spec_of(one.metadata.name)
            )
        return Container(
            id=one.id,
            name=one.metadata.name,
            attempt=one.metadata.attempt,
            state=full.state,
            image=one.annotations.get(configs.IMAGE)
            or self._spec_of(one.metadata.name).get("image", full.image.image),
            image_id=full.image_ref,
            created=full.created_at,
            started=full.started_at,
            finished=full.finished_at,
            exit_code=full.exit_code,
            reason=full.reason,
            message=message,
            sandbox=one.pod_sandbox_id,
        )

    def _spec_of(self, name: str) -> JSON:
        spec = self.pod["spec"]
        for group in ("containers", "initContainers", "ephemeralContainers"):
            for one in spec.get(group) or ():
                if one["name"] == name:
                    found: JSON = one
                    return found
        return {}

    def _last(self, name: str) -> Container | None:
        return status.latest(self._seen, name)

    # Bringing it up.

    async def _bring_up(self) -> None:
        await self._leave_stale()
        if self._phase() in _DONE:
            # Its containers ended with their sandbox, and are not to be started again.
            self.wake.set()
            return
        if self._sandbox is None:
            async with self.node.starts:
                if not await self._make_sandbox():
                    return
        elif not self._seen.addresses:
            await self._learn_addresses()
        try:
            folders = await self.volumes.prepare(self.pod, self._sources)
        except VolumeError as error:
            self._event("Warning", "FailedMount", str(error))
            self._wait_all("ContainerCreating", "")
            self._again(2.0)
            return
        spec = self.pod["spec"]
        # Once the containers have begun, a sidecar that ends does not stand in their way.
        begun = any(self._here(self._last(c["name"])) for c in spec["containers"])
        for one in spec.get("initContainers") or ():
            sidecar = one.get("restartPolicy") == "Always"
            last = self._last(one["name"])
            ended_well = last is not None and last.state == EXITED and last.exit_code == 0
            if not sidecar and (begun or (ended_well and self._here(last))):
                continue
            kept = await self._keep(
                one, folders, policy="Always" if sidecar else self._init_policy(), init=True
            )
            last = self._last(one["name"])
            up = last is not None and last.state == RUNNING and self._seen.started.get(one["name"], True)
            if not begun and not (kept and sidecar and up):
                return
        for one in spec["containers"]:
            await self._keep(one, folders, policy=spec.get("restartPolicy", "Always"))
        for one in spec.get("ephemeralContainers") or ():
            if self._last(one["name"]) is None:
                await self._keep(one, folders, policy="Never")

    def _init_policy(self) -> str:
        return "Never" if self.pod["spec"].get("restartPolicy") == "Never" else "OnFailure"

    def _here(self, one: Container | None) -> bool:
        """Whether a container was made in the present sandbox."""
        return one is not None and one.sandbox == self._sandbox

    async def _leave_stale(self) -> None:
        """Give back what lost sandboxes hold. The newest stays listed: its containers carry counts, ends and logs."""
        new = [box for box in self._stale if box not in self._hooked]
        for box in new:
            await self.node.cri.call("StopPodSandbox", pod_sandbox_id=box)
            self._hooked.add(box)
        for box in self._stale[:-1]:
            await self.node.cri.call("RemovePodSandbox", pod_sandbox_id=box)
        if new or len(self._stale) > 1:
            await self._observe()

    async def _make_sandbox(self) -> bool:
        node, pod = self.node, self.pod
        node.make_cgroup(pod)
        dns = configs.dns(
            pod,
            server=node.plan.dns_address,
            domain=node.plan.cluster_domain,
            node_servers=[node.plan.outside_dns],
        )
        config = configs.sandbox(
            pod, self._attempt + 1, cgroup=configs.pod_cgroup(pod, node.cgroup_root), dns_config=dns
        )
        try:
            box = (await node.cri.call("RunPodSandbox", config=config, timeout=240)).pod_sandbox_id
        except CriError as error:
            self._event("Warning", "FailedCreatePodSandBox", f"Failed to create pod sandbox: {error.text}")
            self._wait_all("ContainerCreating", "")
            self._again(2.0)
            return False
        self._attempt += 1
        self._sandbox, self._seen.sandbox = box, True
        self._cancel_probes()
        await self._learn_addresses()
        return True

    async def _learn_addresses(self) -> None:
        found = (await self.node.cri.call("PodSandboxStatus", pod_sandbox_id=self._sandbox)).status.network
        if self.pod["spec"].get("hostNetwork"):
            self._seen.addresses = self.node.addresses
        else:
            self._seen.addresses = [found.ip, *(i.ip for i in found.additional_ips)] if found.ip else []
        self._write_hosts()

    def _write_hosts(self) -> None:
        path = self.volumes.root / "etc-hosts"
        path.parent.mkdir(parents=True, exist_ok=True)
        text = configs.hosts_file(self.pod, self._seen.addresses, self.node.plan.cluster_domain)
        if self.pod["spec"].get("hostNetwork"):
            text = self.node.hosts() + "".join(
                f"{a['ip']}\t{' '.join(a.get('hostnames') or ())}\n"
                for a in self.pod["spec"].get("hostAliases") or ()
            )
        # In place: a container sees a rewritten file at once, a renamed one never.
        path.write_text(text)

    def _wait_all(self, reason: str, message: str) -> None:
        for one in self.pod["spec"]["containers"]:
            if self._last(one["name"]) is None:
                self._seen.waiting[one["name"]] = Waiting(reason, message)

    async def _keep(self, spec: JSON, folders: dict[str, str], *, policy: str, init: bool = False) -> bool:
        """See to it that one container runs (or rests as it should); False when it stands in the way of the next."""
        name, last = spec["name"], self._last(spec["name"])
        if last is not None and last.state == CREATED:
            # This process was killed between making and starting it.
            await self.node.cri.call("RemoveContainer", container_id=last.id)
            await self._observe()
            await self._start(spec, folders, attempt=last.attempt)
            return self._last(name) is not None
        if last is not None and last.state == RUNNING:
            self._seen.waiting.pop(name, None)
            if last.image == spec["image"]:
                self._watch(spec, last)
                return True
            # The one thing of a running container that a user may change; whatever its restart policy.
            self._unwatch(name)
            await self._stop_container(last, spec, self._grace(), "definition changed, will be restarted")
            await self._observe()
            await self._start(spec, folders, attempt=last.attempt + 1)
            return self._here(self._last(name))
        if last is not None and last.state == EXITED:
            self._unwatch(name)
            lost = not self._here(last)
            if not (init and lost) and (policy == "Never" or (policy == "OnFailure" and last.exit_code == 0)):
                self._seen.waiting.pop(name, None)
                return last.exit_code == 0
            if not lost and not self._backoff_over(name, last):
                return False
        await self._start(spec, folders, attempt=self._next_attempt(name))
        return self._here(self._last(name))

    def _next_attempt(self, name: str) -> int:
        """One more than the last; from the API when containerd has lost it."""
        if (last := self._last(name)) is not None:
            return last.attempt + 1
        known = self._told(name)
        return int(known.get("restartCount", 0)) + 1 if known.get("containerID") else 0

    def _told(self, name: str) -> JSON:
        """What the API was last told of a container."""
        held = self.pod.get("status") or {}
        groups = ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")
        return next((s for g in groups for s in held.get(g) or () if s["name"] == name), {})

    def _backoff_over(self, name: str, last: Container) -> bool:
        kept = self._backoff.setdefault(name, Backoff())
        left = kept.left(
            # What could not be started has no start.
            started=(last.started or last.finished) / 1e9,
            finished=last.finished / 1e9,
            restarts=last.attempt,
            now=time.time(),
        )
        if left <= 0:
            self._seen.waiting.pop(name, None)
            return True
        text = f"back-off {kept.delay:.0f}s restarting failed container={name} pod={self.pod['metadata']['name']}_{self.pod['metadata']['namespace']}({self.uid})"
        self._seen.waiting[name] = Waiting("CrashLoopBackOff", text)
        self._event("Warning", "BackOff", f"Back-off restarting failed container {name} in pod {self.name}")
        self._again(left + 0.05)
        return False

    async def _start(self, spec: JSON, folders: dict[str, str], attempt: int) -> None:
        node, name = self.node, spec["name"]
        image = await self._image(spec)
        if image is None:
            return
        try:
            env = await node.variables(self.pod, spec, self._seen.addresses)
            mounts = self._mounts(spec, folders, env)
            node.check_user(spec, self.pod, image)
            target = self._target(spec)
        except VolumeError as error:
            self._seen.waiting[name] = Waiting("CreateContainerConfigError", str(error))
            self._event("Warning", "Failed", f"Error: failed to prepare subPath: {error}")
            self._again(2.0)
            return
        except environment.Missing as error:
            self._seen.waiting[name] = Waiting("CreateContainerConfigError", str(error))
            self._event("Warning", "Failed", f"Error: {error}")
            self._again(2.0)
            return
        hosts = {
            "container_path": "/etc/hosts",
            "host_path": f"{self.volumes.seen}/etc-hosts",
            "readonly": False,
        }
        if not any(m["container_path"] == "/etc/hosts" for m in mounts):
            mounts.append(hosts)
        message_path = spec.get("terminationMessagePath") or "/dev/termination-log"
        mounts.append(
            {"container_path": message_path, "host_path": node.termination_file(self.uid, name, attempt)}
        )
        config = configs.container_config(
            spec,
            self.pod,
            attempt=attempt,
            image=image["id"],
            env=env,
            mount_list=mounts,
            node_memory=node.memory,
            target=target,
            image_uid=image["uid"],
        )
        dns = configs.dns(
            self.pod,
            server=node.plan.dns_address,
            domain=node.plan.cluster_domain,
            node_servers=[node.plan.outside_dns],
        )
        box = configs.sandbox(
            self.pod,
            max(self._attempt, 0),
            cgroup=configs.pod_cgroup(self.pod, node.cgroup_root),
            dns_config=dns,
        )
        step = "CreateContainerError"
        try:
            async with node.starts:
                made = await node.cri.call(
                    "CreateContainer", pod_sandbox_id=self._sandbox, config=config, sandbox_config=box
                )
                self._event("Normal", "Created", f"Created container: {name}")
                step = "RunContainerError"
                await node.cri.call("StartContainer", container_id=made.container_id)
        except CriError as error:
            if "is reserved for" in error.text:
                self._again(0.5)
            self._seen.waiting[name] = Waiting(step, error.text)
            self._event("Warning", "Failed", f"Error: {error.text}")
            await self._observe()
            self._again(2.0)
            return
        self._seen.waiting.pop(name, None)
        self._event("Normal", "Started", f"Started container {name}")
        await self._observe()
        await self._forget(name)
        last = self._last(name)
        hook = ((spec.get("lifecycle") or {}).get("postStart")) or None
        if last is not None and hook:
            good, said = await self._post_start(hook, spec, last)
            if not good:
                self._event("Warning", "FailedPostStartHook", f"PostStartHook failed: {said}")
                await self._stop_container(last, spec, 2)
                await self._observe()
                return
        if last is not None and last.state == RUNNING:
            self._watch(spec, last)

    def _target(self, spec: JSON) -> str | None:
        """The container whose processes an ephemeral container is to see; environment.Missing when it does not run."""
        name = spec.get("targetContainerName")
        if not name:
            return None
        found = self._last(name)
        if found is None or found.state != RUNNING:
            raise environment.Missing(f'target container "{name}" does not run')
        return found.id

    def _mounts(self, spec: JSON, folders: dict[str, str], env: dict[str, str]) -> list[JSON]:
        """The container's mounts, with each subPath bound. Raises VolumeError, environment.Missing."""
        out = []
        for index, (mount, sub) in enumerate(configs.mounts(spec, self.pod, folders, env)):
            if sub:
                mount["host_path"] = self.volumes.bind(mount["host_path"], sub, f"{spec['name']}/{index}")
            out.append(mount)
        return out

    async def _post_start(self, hook: JSON, spec: JSON, last: Container) -> tuple[bool, str]:
        """The hook's outcome; given up when the pod is to go or the container has ended."""
        work = asyncio.create_task(
            self.node.prober.attempt(
                hook, container=last.id, spec=spec, address=self._address(), timeout=_HOOK_LONGEST
            )
        )
        try:
            while not work.done():
                self.wake.clear()
                waiting = asyncio.create_task(self.wake.wait())
                await asyncio.wait({work, waiting}, return_when=asyncio.FIRST_COMPLETED)
                waiting.cancel()
                if work.done() or not (self.gone or self.pod["metadata"].get("deletionTimestamp")):
                    continue
                return True, "the pod is to go"
            return work.result()
        finally:
            work.cancel()
            self.wake.set()

    async def _forget(self, name: str) -> None:
        """Remove what is older than the last run but one, with its log."""
        for old in self._seen.containers.get(name, [])[:-2]:
            await self.node.cri.call("RemoveContainer", container_id=old.id)
            rotation.forget(self.node.log_folder(self.pod) / name / f"{old.attempt}.log")
            self._seen.containers[name].remove(old)

    async def _image(self, spec: JSON) -> JSON | None:
        """The image to run; sets why it waits and gives None otherwise."""
        name, reference = spec["name"], spec["image"]
        delay, until = self._image_waits.get(name, (0.0, 0.0))
        if time.monotonic() < until:
            self._seen.waiting[name] = Waiting("ImagePullBackOff", f'Back-off pulling image "{reference}"')
            self._event("Normal", "BackOff", f'Back-off pulling image "{reference}"')
            self._again(until - time.monotonic() + 0.05)
            return None
        found, reason, text = await self.node.images.ensure(
            reference,
            spec.get("imagePullPolicy", "IfNotPresent"),
            lambda: self._event("Normal", "Pulling", f'Pulling image "{reference}"'),
        )
        if found is not None:
            if not self._here(self._last(name)):
                self._event("Normal", "Pulled", text)
            self._image_waits.pop(name, None)
            return found
        if reason == "ErrImageNeverPull":
            self._seen.waiting[name] = Waiting(reason, text)
            self._event("Warning", reason, text)
            self._again(10.0)
            return None
        delay = min(max(delay * 2, 10.0), 300.0)
        self._image_waits[name] = (delay, time.monotonic() + delay)
        self._seen.waiting[name] = Waiting(reason, text)
        self._event("Warning", "Failed", text)
        # One look at the reason itself, then the wait is shown.
        self._again(1.0)
        return None

    def _address(self) -> str:
        held = self._seen.addresses or [i["ip"] for i in (self.pod.get("status") or {}).get("podIPs") or ()]
        return held[0] if held else self.node.addresses[0]

    # Probes.

    def _watch(self, spec: JSON, last: Container) -> None:
        """Start the probes of a running container, once per container."""
        key = last.id
        if key in self._probes:
            return
        self._unwatch(spec["name"])
        name = spec["name"]
        self._seen.ready.pop(name, None)
        self._seen.started.pop(name, None)
        # A container that outlived this process's predecessor is what that one found it to be.
        told = self._told(name)
        if told.get("containerID") != f"containerd://{last.id}":
            told = {}
        if spec.get("readinessProbe"):
            self._seen.ready[name] = bool(told.get("ready"))
        if spec.get("startupProbe"):
            self._seen.started[name] = bool(told.get("started"))
        kinds = [k for k in ("startupProbe", "livenessProbe", "readinessProbe") if spec.get(k)]
        self._probes[key] = [asyncio.create_task(self._probe(kind, spec, last)) for kind in kinds]

    def _unwatch(self, name: str) -> None:
        for key in list(self._probes):
            if not any(
                c.id == key and c.state == RUNNING and c.name != name
                for held in self._seen.containers.values()
                for c in held
            ):
                for task in self._probes.pop(key):
                    task.cancel()
        self._seen.ready.pop(name, None)
        self._seen.started.pop(name, None)

    def _cancel_probes(self) -> None:
        for tasks in self._probes.values():
            for task in tasks:
                task.cancel()
        self._probes.clear()

    async def _probe(self, kind: str, spec: JSON, last: Container) -> None:
        probe, name = spec[kind], spec["name"]
        period, timeout = float(probe.get("periodSeconds", 10)), float(probe.get("timeoutSeconds", 1))
        if kind == "startupProbe" and self._seen.started.get(name):
            return
        good_before = kind == "livenessProbe" or (
            kind == "readinessProbe" and self._seen.ready.get(name, False)
        )
        if not (kind == "readinessProbe" and good_before):
            waited = time.time() - last.started / 1e9
            await asyncio.sleep(max(float(probe.get("initialDelaySeconds", 0)) - waited, 0))
        counter = Counter(probe, good=good_before)
        while True:
            if kind != "startupProbe" and self._seen.started.get(name) is False:
                await asyncio.sleep(0.2)
                continue
            good, said = await self.node.prober.attempt(
                probe, container=last.id, spec=spec, address=self._address(), timeout=timeout
            )
            verdict = counter.add(good)
            word = {"startupProbe": "Startup", "livenessProbe": "Liveness", "readinessProbe": "Readiness"}[
                kind
            ]
            if not good:
                self._event("Warning", "Unhealthy", f"{word} probe failed: {said}")
            if verdict is not None:
                if kind == "readinessProbe" and self._seen.ready.get(name) != verdict:
                    self._seen.ready[name] = verdict
                    self.wake.set()
                elif kind == "startupProbe" and verdict:
                    self._seen.started[name] = True
                    self.wake.set()
                    return
                elif kind != "readinessProbe" and not verdict:
                    held = probe.get("terminationGracePeriodSeconds")
                    grace = self._grace() if held is None else int(held)
                    why = f"failed {word.lower()} probe, will be restarted"
                    await self._stop_container(last, spec, grace, why)
                    self.wake.set()
                    return
            # Until the first success a readiness probe is tried every second, so that Ready follows start closely.
            eager = kind == "readinessProbe" and not counter.good and time.time() - last.started / 1e9 < 20
            await asyncio.sleep(min(period, 0.25) if eager else period)

    # Status.

    async def _report(self) -> None:
        new = status.pod_status(self.pod, self._seen, host_ips=self.node.addresses, now=self.node.now())
        if new == self.pod.get("status"):
            return
        try:
            made = await self.node.put_status(self.pod, new)
        except ApiError as error:
            if error.not_found:
                return
            if error.conflict:
                # The news is on its way to us and wakes this task; the time is for when it has just been here.
                self._again(0.2)
                return
            raise
        if made["metadata"]["uid"] == self.uid:
            self.pod = made

    def _event(self, kind: str, reason: str, message: str) -> None:
        """An event; the same one again is counted, at most every half minute."""
        now = time.monotonic()
        before, name, count = self._events.get((reason, message), (-60.0, "", 0))
        if now - before <= 30:
            return
        if len(self._events) > 100:
            self._events.clear()
        name = name or f"{self.pod['metadata']['name']}.{time.time_ns():x}"
        self._events[reason, message] = (now, name, count + 1)
        self.node.event(self.pod, kind, reason, message, name, count + 1)

    # Ending.

    async def _deadline(self) -> bool:
        seconds, start = (
            self.pod["spec"].get("activeDeadlineSeconds"),
            (self.pod.get("status") or {}).get("startTime"),
        )
        if seconds is None or not start:
            return False
        left = int(seconds) - (time.time() - self.node.epoch(start))
        if left > 0:
            self._again(left + 0.1)
            return False
        await self._fail("DeadlineExceeded", "Pod was active on the node longer than the specified deadline")
        return True

    async def _too_large(self) -> bool:
        if not any(volumes.limited(v) for v in self.pod["spec"].get("volumes") or ()):
            return False
        self._again(_MEASURE)
        text = await asyncio.to_thread(self.volumes.beyond_limit, self.pod)
        if text is None:
            return False
        self._event("Warning", "Evicted", text)
        await self._fail("Evicted", text)
        return True

    async def _fail(self, reason: str, message: str) -> None:
        """End the pod by this node's decision: said first, so that it stands whatever happens to this process."""
        self._cancel_probes()
        held = self.pod.get("status") or {}
        new = held | {"phase": "Failed", "reason": reason, "message": message}
        try:
            self.pod = await self.node.put_status(self.pod, new)
        except ApiError as error:
            if not (error.not_found or error.conflict):
                raise
            self._again(0.2)
            return
        self.wake.set()

    async def _rest(self) -> None:
        """All is over: stop what still runs (sidecars), give the network back; ends and logs stay readable."""
        self._cancel_probes()
        await self._stop_patiently()
        if self._sandbox is not None:
            await self.node.cri.call("StopPodSandbox", pod_sandbox_id=self._sandbox)
            await self._observe()
        self._seen.waiting.clear()
        await self._report()

    def _grace(self) -> int:
        meta = self.pod["metadata"]
        if self.gone:
            return 1
        held = meta.get("deletionGracePeriodSeconds")
        if held is None:
            return int(self.pod["spec"].get("terminationGracePeriodSeconds", 30))
        if not meta.get("deletionTimestamp") or not held:
            return int(held)
        # The time of the end was set with the request: a kubelet that was away in between does not prolong it.
        left = math.ceil(self.node.epoch(meta["deletionTimestamp"]) + 1 - time.time())
        return min(int(held), max(left, 1))

    async def _end(self) -> None:
        """Stop, remove, tell the API."""
        self._cancel_probes()
        await self._stop_patiently()
        await self._observe()
        if not self.gone:
            with contextlib.suppress(ApiError):
                await self._report()
        for box in [self._sandbox, *self._stale]:
            if box:
                await self.node.cri.call("StopPodSandbox", pod_sandbox_id=box)
                await self.node.cri.call("RemovePodSandbox", pod_sandbox_id=box)
        await asyncio.to_thread(self.volumes.remove)
        self.node.remove_cgroup(self.pod)
        self.node.remove_logs(self.pod)
        if not self.gone:
            await self.node.delete_pod(self.pod)

    async def _stop_patiently(self) -> None:
        """Stop everything within the grace period; another grace that comes meanwhile is honoured."""
        grace = self._grace()
        held = self._held_grace()
        stopping = asyncio.create_task(self._stop_all(grace))
        while not stopping.done():
            self.wake.clear()
            waiting = asyncio.create_task(self.wake.wait())
            await asyncio.wait({stopping, waiting}, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            if not stopping.done() and self._held_grace() != held:
                grace, held = self._grace(), self._held_grace()
                stopping.cancel()
                await asyncio.gather(stopping, return_exceptions=True)
                stopping = asyncio.create_task(self._stop_all(grace))
        await stopping

    def _held_grace(self) -> tuple[bool, object]:
        return self.gone, self.pod["metadata"].get("deletionGracePeriodSeconds")

    async def _stop_all(self, grace: int) -> None:
        """The containers together, then the sidecars in reverse order with what is left of the time."""
        begin = time.monotonic()
        running = self.running()
        inits = self.pod["spec"].get("initContainers") or ()
        last = [c["name"] for c in inits if c.get("restartPolicy") == "Always"]
        first = [c for c in running if c.name not in last]
        await asyncio.gather(*(self._stop_container(c, self._spec_of(c.name), grace) for c in first))
        for name in reversed(last):
            left = max(int(grace - (time.monotonic() - begin)), min(grace, 2))
            for one in (c for c in running if c.name == name):
                await self._stop_container(one, self._spec_of(name), left)

    async def _stop_container(self, one: Container, spec: JSON, grace: int, why: str = "") -> None:
        """preStop hook within the grace period, then SIGTERM, then SIGKILL; `why` is for the event."""
        begin = time.monotonic()
        text = f"Container {one.name} {why}" if why else f"Stopping container {one.name}"
        self._event("Normal", "Killing", text)
        hook = (spec.get("lifecycle") or {}).get("preStop")
        if hook and grace > 0 and one.id not in self._hooked:
            self._hooked.add(one.id)
            good, said = await self.node.prober.attempt(
                hook, container=one.id, spec=spec, address=self._address(), timeout=grace
            )
            if not good:
                self._event("Warning", "FailedPreStopHook", f"PreStopHook failed: {said}")
        left = max(int(grace - (time.monotonic() - begin)), 2 if hook else 0)
        with contextlib.suppress(CriError):
            await self.node.cri.stop(one.id, left)
