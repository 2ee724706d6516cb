"""One pod's task: brings containerd in step with the pod's object, and the object's status in step with containerd.

Started for each pod of the node; wakes when the object changed, when containerd reported something of the
pod, when a probe changed its mind, or when a back-off ends. All state that must survive a kill -9 of this
process is in containerd (labels, attempts) and in the API.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import Any

from pervade.cluster.kubelet import configs, environment, status
from pervade.cluster.kubelet.cri import CriError
from pervade.cluster.kubelet.node import Node
from pervade.cluster.kubelet.probes import Counter
from pervade.cluster.kubelet.status import EXITED, RUNNING, Container, Observed, Waiting
from pervade.cluster.kubelet.volumes import VolumeError, Volumes
from pervade.kube.errors import ApiError
from pervade.wire.http import ClientError

log = logging.getLogger(__name__)
JSON = dict[str, Any]
_BACKOFF_FIRST, _BACKOFF_MOST, _BACKOFF_FORGET = 10.0, 300.0, 600.0
_REFRESH = 45.0


class PodWorker:
    """Keeps one pod; `run()` is its task and ends when the pod is gone from node and API."""

    def __init__(self, node: Node, pod: JSON) -> None:
        self.node, self.pod = node, pod
        self.uid: str = pod["metadata"]["uid"]
        self.wake = asyncio.Event()
        self.gone = False
        self._seen = Observed()
        self._sandbox: str | None = None
        self._image_waits: dict[str, tuple[float, float]] = {}
        self._backoff: dict[str, tuple[float, float]] = {}
        self._probes: dict[str, list[asyncio.Task[None]]] = {}
        self._killed_by_probe: set[str] = set()
        self._events: dict[tuple[str, str], float] = {}
        self._next = 0.0
        root = node.plan.node_state(node.name) / "kubelet" / "pods" / self.uid
        self.volumes = Volumes(root, f"/var/lib/kubelet/pods/{self.uid}", node.enter, node.on_host)

    @property
    def name(self) -> str:
        meta = self.pod["metadata"]
        return f"{meta['namespace']}/{meta['name']}"

    def update(self, pod: JSON) -> None:
        """The object changed."""
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
            try:
                if await self._sync():
                    return
            except CriError as error:
                log.warning("containerd refused", extra={"pod": self.name, "error": str(error)})
                self._again(2.0)
            except (ApiError, ClientError, OSError) as error:
                log.warning("the API could not be told", extra={"pod": self.name, "error": str(error)})
                self._again(1.0)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.wake.wait(), max(self._next - time.monotonic(), 0.05))

    def _again(self, seconds: float) -> None:
        self._next = min(self._next, time.monotonic() + seconds)

    async def _sync(self) -> bool:
        await self._observe()
        if self.gone or self.pod["metadata"].get("deletionTimestamp"):
            await self._end()
            return True
        if (self.pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
            await self._stop_all(0)
            return False
        if await self._deadline():
            return False
        try:
            await self._bring_up()
        finally:
            await self._observe()
            await self._report()
        return False

    # What there is.

    async def _observe(self) -> None:
        boxes = (
            await self.node.cri.call(
                "ListPodSandbox", filter={"label_selector": {"io.kubernetes.pod.uid": self.uid}}
            )
        ).items
        ready = [b for b in boxes if b.state == 0]
        self._sandbox = ready[0].id if ready else None
        self._stale = [b.id for b in boxes if b.state != 0]
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
            image=self._spec_of(one.metadata.name).get("image", full.image.image),
            image_id=full.image_ref,
            created=full.created_at,
            started=full.started_at,
            finished=full.finished_at,
            exit_code=full.exit_code,
            reason=full.reason,
            message=message,
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
        if self._sandbox is None:
            async with self.node.starts:
                await self._remove_stale()
                if not await self._make_sandbox():
                    return
        else:
            await self._remove_stale()
        try:
            folders = await self.volumes.prepare(self.pod, self.node.sources)
        except VolumeError as error:
            self._event("Warning", "FailedMount", str(error))
            self._wait_all("ContainerCreating", "")
            self._again(2.0)
            return
        spec = self.pod["spec"]
        for one in spec.get("initContainers") or ():
            sidecar = one.get("restartPolicy") == "Always"
            last = self._last(one["name"])
            if not sidecar and last is not None and last.state == EXITED and last.exit_code == 0:
                continue
            if not await self._keep(one, folders, policy="Always" if sidecar else self._init_policy()):
                return
            last = self._last(one["name"])
            if (
                not sidecar
                or last is None
                or last.state != RUNNING
                or not self._seen.started.get(one["name"], True)
            ):
                return
        for one in spec["containers"]:
            await self._keep(one, folders, policy=spec.get("restartPolicy", "Always"))
        for one in spec.get("ephemeralContainers") or ():
            if self._last(one["name"]) is None:
                await self._keep(one, folders, policy="Never")

    def _init_policy(self) -> str:
        return "Never" if self.pod["spec"].get("restartPolicy") == "Never" else "OnFailure"

    async def _remove_stale(self) -> None:
        for box in self._stale:
            await self.node.cri.call("StopPodSandbox", pod_sandbox_id=box)
            # Containers of a sandbox that is gone have nothing to be restarted in, but their logs stay readable.
            await self.node.cri.call("RemovePodSandbox", pod_sandbox_id=box)
        if self._stale:
            self._stale = []
            self._cancel_probes()
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
            self._attempt += 1
            self._again(2.0)
            return False
        found = (await node.cri.call("PodSandboxStatus", pod_sandbox_id=box)).status
        addresses = (
            [found.network.ip, *(i.ip for i in found.network.additional_ips)] if found.network.ip else []
        )
        if self.pod["spec"].get("hostNetwork"):
            addresses = node.addresses
        self._sandbox, self._seen.sandbox, self._seen.addresses = box, True, addresses
        self._write_hosts()
        return True

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

    async def _keep(self, spec: JSON, folders: dict[str, str], *, policy: str) -> bool:
        """See to it that one container runs (or rests as it should); False when it stands in the way of the next."""
        name, last = spec["name"], self._last(spec["name"])
        if last is not None and last.state == RUNNING:
            self._seen.waiting.pop(name, None)
            self._watch(spec, last)
            return True
        if last is not None and last.state == EXITED:
            self._unwatch(name)
            if policy == "Never" or (policy == "OnFailure" and last.exit_code == 0):
                self._seen.waiting.pop(name, None)
                return last.exit_code == 0
            if not self._backoff_over(name, last):
                return False
        await self._start(spec, folders, attempt=last.attempt + 1 if last is not None else 0)
        return self._last(name) is not None

    def _backoff_over(self, name: str, last: Container) -> bool:
        """Crash back-off: 10 s, doubled up to 5 min, forgotten after 10 min of running."""
        delay, until = self._backoff.get(name, (0.0, 0.0))
        ended = last.finished / 1e9
        if until < ended:
            ran = (last.finished - last.started) / 1e9
            restarted = delay == 0.0 and last.attempt == 0
            delay = (
                0.0
                if restarted or ran > _BACKOFF_FORGET
                else min(max(delay * 2, _BACKOFF_FIRST), _BACKOFF_MOST)
            )
            until = ended + max(delay, 0.001)
            self._backoff[name] = (delay or _BACKOFF_FIRST / 2, until)
        left = until - time.time()
        if left <= 0:
            self._seen.waiting.pop(name, None)
            return True
        text = f"back-off {delay:.0f}s restarting failed container={name} pod={self.pod['metadata']['name']}_{self.pod['metadata']['namespace']}({self.uid})"
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
            mounts = configs.mounts(spec, folders, env)
            node.check_user(spec, self.pod, image)
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
        target = None
        if spec.get("targetContainerName"):
            found = self._last(spec["targetContainerName"])
            target = found.id if found else None
        config = configs.container_config(
            spec,
            self.pod,
            attempt=attempt,
            image=image["id"],
            env=env,
            mount_list=mounts,
            node_memory=node.memory,
            target=target,
        )
        dns = configs.dns(
            self.pod,
            server=node.plan.dns_address,
            domain=node.plan.cluster_domain,
            node_servers=[node.plan.outside_dns],
        )
        box = configs.sandbox(
            self.pod, self._attempt + 1, cgroup=configs.pod_cgroup(self.pod, node.cgroup_root), dns_config=dns
        )
        self._killed_by_probe.discard(name)
        try:
            async with node.starts:
                made = await node.cri.call(
                    "CreateContainer", pod_sandbox_id=self._sandbox, config=config, sandbox_config=box
                )
                self._event("Normal", "Created", f"Created container: {name}")
                await node.cri.call("StartContainer", container_id=made.container_id)
        except CriError as error:
            if "is reserved for" in error.text:
                self._again(0.5)
            self._seen.waiting[name] = Waiting("RunContainerError", error.text)
            self._event("Warning", "Failed", f"Error: {error.text}")
            await self._observe()
            self._again(2.0)
            return
        self._seen.waiting.pop(name, None)
        self._event("Normal", "Started", f"Started container {name}")
        await self._observe()
        last = self._last(name)
        hook = ((spec.get("lifecycle") or {}).get("postStart")) or None
        if last is not None and hook:
            good, said = await node.prober.attempt(
                hook, container=last.id, spec=spec, address=self._address(), timeout=30
            )
            if not good:
                self._event("Warning", "FailedPostStartHook", f"PostStartHook failed: {said}")
                await self._stop_container(last, spec, 2)
                await self._observe()
                return
        if last is not None and last.state == RUNNING:
            self._watch(spec, last)

    async def _image(self, spec: JSON) -> JSON | None:
        """The image to run; sets why it waits and gives None otherwise."""
        name, reference = spec["name"], spec["image"]
        delay, until = self._image_waits.get(name, (0.0, 0.0))
        if time.monotonic() < until:
            self._seen.waiting[name] = Waiting("ImagePullBackOff", f'Back-off pulling image "{reference}"')
            self._again(until - time.monotonic() + 0.05)
            return None
        found, reason, text = await self.node.images.ensure(
            reference, spec.get("imagePullPolicy", "IfNotPresent")
        )
        if found is not None:
            if delay == 0.0 and self._last(name) is None:
                self._event("Normal", "Pulled", text)
            self._image_waits.pop(name, None)
            return found
        delay = min(max(delay * 2, 10.0), 300.0)
        self._image_waits[name] = (delay, time.monotonic() + delay)
        self._seen.waiting[name] = Waiting(reason, text)
        self._event("Warning", "Failed", text)
        self._again(delay)
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
        if spec.get("readinessProbe"):
            self._seen.ready[name] = False
        if spec.get("startupProbe"):
            self._seen.started[name] = False
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
        await asyncio.sleep(float(probe.get("initialDelaySeconds", 0)))
        counter = Counter(probe, good=kind == "livenessProbe")
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
                    self._event(
                        "Normal",
                        "Killing",
                        f"Container {name} failed {word.lower()} probe, will be restarted",
                    )
                    grace = probe.get("terminationGracePeriodSeconds")
                    await self._stop_container(last, spec, self._grace() if grace is None else int(grace))
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
        meta = self.pod["metadata"]
        try:
            made = await self.node.put_status(meta["namespace"], meta["name"], self.uid, new)
        except ApiError as error:
            if error.not_found or error.conflict:
                return
            raise
        if made["metadata"]["uid"] == self.uid:
            self.pod = made

    def _event(self, kind: str, reason: str, message: str) -> None:
        """An event, the same one at most every half minute."""
        now = time.monotonic()
        if now - self._events.get((reason, message), -60.0) > 30:
            self._events[reason, message] = now
            self.node.event(self.pod, kind, reason, message)

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
        await self._stop_all(self._grace())
        await self._observe()
        new = status.pod_status(self.pod, self._seen, host_ips=self.node.addresses, now=self.node.now())
        text = "Pod was active on the node longer than the specified deadline"
        meta = self.pod["metadata"]
        new |= {"phase": "Failed", "reason": "DeadlineExceeded", "message": text}
        self.pod = await self.node.put_status(meta["namespace"], meta["name"], self.uid, new)
        return True

    def _grace(self) -> int:
        meta = self.pod["metadata"]
        if self.gone:
            return 1
        held = meta.get("deletionGracePeriodSeconds")
        return int(held if held is not None else self.pod["spec"].get("terminationGracePeriodSeconds", 30))

    async def _end(self) -> None:
        """Stop, remove, tell the API. A shorter grace that comes meanwhile is honoured."""
        self._cancel_probes()
        grace = self._grace()
        stopping = asyncio.create_task(self._stop_all(grace))
        while not stopping.done():
            self.wake.clear()
            waiting = asyncio.create_task(self.wake.wait())
            await asyncio.wait({stopping, waiting}, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            if not stopping.done() and self._grace() < grace:
                grace = self._grace()
                stopping.cancel()
                await asyncio.gather(stopping, return_exceptions=True)
                stopping = asyncio.create_task(self._stop_all(grace))
        await stopping
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

    async def _stop_all(self, grace: int) -> None:
        running = [c for held in self._seen.containers.values() for c in held if c.state == RUNNING]
        if running:
            await asyncio.gather(*(self._stop_container(c, self._spec_of(c.name), grace) for c in running))

    async def _stop_container(self, one: Container, spec: JSON, grace: int) -> None:
        """preStop hook within the grace period, then SIGTERM, then SIGKILL."""
        begin = time.monotonic()
        self._event("Normal", "Killing", f"Stopping container {one.name}")
        hook = (spec.get("lifecycle") or {}).get("preStop")
        if hook and grace > 0:
            good, said = await self.node.prober.attempt(
                hook, container=one.id, spec=spec, address=self._address(), timeout=grace
            )
            if not good:
                self._event("Warning", "FailedPreStopHook", f"PreStopHook failed: {said}")
        left = max(int(grace - (time.monotonic() - begin)), 2 if hook else 0)
        with contextlib.suppress(CriError):
            await self.node.cri.stop(one.id, left)
