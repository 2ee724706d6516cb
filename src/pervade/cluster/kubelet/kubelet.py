"""The pods of one node: a worker for each, fed by the API and by containerd."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from pervade.cluster.kubelet import rotation
from pervade.cluster.kubelet.node import Node
from pervade.cluster.kubelet.pleg import Pleg
from pervade.cluster.kubelet.register import keep_alive
from pervade.cluster.kubelet.volumes import Volumes
from pervade.cluster.kubelet.worker import PodWorker
from pervade.kube.reflector import Reflector
from pervade.kube.resources import PODS

log = logging.getLogger(__name__)
JSON = dict[str, Any]
_ROTATE_EVERY = 10.0


class Kubelet:
    """Composition of the node's parts; `run()` ends only by cancellation."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.pods = Reflector(node.client, PODS, field_selector=f"spec.nodeName={node.name}")
        self.workers: dict[str, PodWorker] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def find(self, namespace: str, name: str) -> PodWorker | None:
        """The worker of a pod by name (the newest when a name was used again)."""
        found = [
            w
            for w in self.workers.values()
            if (w.pod["metadata"]["namespace"], w.pod["metadata"]["name"]) == (namespace, name)
        ]
        return found[-1] if found else None

    async def run(self) -> None:
        await self.node.cri.ready()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(keep_alive(self.node))
            tasks.create_task(self.pods.run())
            tasks.create_task(self.node.services.run())
            await self.node.services.synced()
            await self.pods.synced()
            await self._remove_orphans()
            self.pods.on_change(self._changed)
            tasks.create_task(self._rotate_logs())
            tasks.create_task(Pleg(self.node.cri, self.node.cri.socket, self._runtime).run())

    def _changed(self, _kind: str, old: JSON | None, new: JSON | None) -> None:
        pod = new or old
        if pod is None:
            return
        uid = pod["metadata"]["uid"]
        if old is not None and new is not None and old["metadata"]["uid"] != uid:
            self._vanished(old["metadata"]["uid"])
        if new is None:
            self._vanished(uid)
        elif uid in self.workers:
            self.workers[uid].update(new)
        else:
            worker = self.workers[uid] = PodWorker(self.node, new)
            task = self._tasks[uid] = asyncio.create_task(worker.run())
            task.add_done_callback(lambda done, uid=uid: self._done(uid, done))  # type: ignore[misc]

    def _vanished(self, uid: str) -> None:
        if uid in self.workers:
            self.workers[uid].vanish()

    def _done(self, uid: str, task: asyncio.Task[None]) -> None:
        worker = self.workers.pop(uid, None)
        self._tasks.pop(uid, None)
        if not task.cancelled() and (error := task.exception()) is not None and worker is not None:
            log.error(
                "a pod's task failed; it starts again",
                extra={"pod": worker.name, "error": repr(error)},
                exc_info=error,
            )
            asyncio.get_running_loop().call_later(2.0, self._changed, "ADDED", None, worker.pod)

    def _runtime(self, identity: str | None) -> None:
        """containerd reported: wake the pod it concerns, or all."""
        for worker in self.workers.values():
            known = {c.id for held in worker._seen.containers.values() for c in held} | {worker._sandbox}
            # A container that is being started may end before its worker knows its identity.
            if identity is None or worker.busy or identity in known:
                worker.wake.set()

    async def _rotate_logs(self) -> None:
        while True:
            await asyncio.sleep(_ROTATE_EVERY)
            for worker in list(self.workers.values()):
                folder = self.node.log_folder(worker.pod)
                for one in worker.running():
                    await rotation.rotate(self.node.cri, one.id, folder / one.name / f"{one.attempt}.log")

    async def _remove_orphans(self) -> None:
        """Remove sandboxes and folders of pods the API does not know: deleted while this process was away."""
        known = {p["metadata"]["uid"] for p in self.pods.items()}
        for box in (await self.node.cri.call("ListPodSandbox")).items:
            uid = box.metadata.uid
            if uid and uid not in known:
                log.info(
                    "removing a pod that the API does not know",
                    extra={"pod": f"{box.metadata.namespace}/{box.metadata.name}"},
                )
                meta = {"name": box.metadata.name, "namespace": box.metadata.namespace, "uid": uid}
                worker = PodWorker(self.node, {"metadata": meta, "spec": {"containers": []}, "status": {}})
                worker.gone = True
                await worker.run()
        pods = self.node.kubelet_folder / "pods"
        for folder in sorted(pods.iterdir()) if pods.is_dir() else ():
            if folder.name not in known:
                seen = f"/var/lib/kubelet/pods/{folder.name}"
                await asyncio.to_thread(Volumes(folder, seen, self.node.init_pid).remove)
