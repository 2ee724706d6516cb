"""A world without nodes: a real API server, real controllers, played kubelets."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from pervade.app.controllers import serve
from pervade.cluster import plan as plans
from pervade.cluster.apiserver.parts import Settings, assemble
from pervade.cluster.controllers.hub import Hub
from pervade.kube.client import Client
from pervade.kube.errors import ApiError
from pervade.kube.reflector import Reflector
from pervade.kube.resources import LEASES, NODES, PODS, Resource
from pervade.wire.http import web

JSON = dict[str, Any]
AT = "2026-01-01T00:00:00Z"


class World:
    """A cluster whose kubelets are played: a pod on a node becomes Ready at once, or what its label `plays` says.

    `plays`: `wait` (stays Pending), `end` (Succeeded), `break` (Failed), `stay` (is not let go when deleted).
    """

    def __init__(self, client: Client, serve: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self.client, self._serve = client, serve
        self.controllers = asyncio.create_task(serve())

    async def stop(self) -> None:
        """End the controllers, as a signal does."""
        self.controllers.cancel()
        await asyncio.gather(self.controllers, return_exceptions=True)

    def start(self) -> None:
        """Start them again, knowing nothing."""
        self.controllers = asyncio.create_task(self._serve())

    async def seen(
        self,
        res: Resource,
        wanted: Callable[[dict[str, JSON]], Any],
        namespace: str = "default",
        seconds: float = 15,
    ) -> Any:
        """The first true answer of `wanted` to the objects by name, asked at every change. AssertionError when none comes."""
        store = Reflector(self.client, res, namespace=namespace if res.namespaced else None)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def look(*_change: Any) -> None:
            found = wanted({o["metadata"]["name"]: o for o in store.items()})
            if found and not answer.done():
                answer.set_result(found)

        task = asyncio.create_task(store.run())
        try:
            await store.synced()
            store.on_change(look)
            look()
            done, _ = await asyncio.wait([answer], timeout=seconds)
            held = {o["metadata"]["name"]: (o.get("spec"), o.get("status")) for o in store.items()}
            assert done, f"after {seconds:.0f} s still {held}"
            return answer.result()
        finally:
            task.cancel()

    async def node(self, name: str, **labels: str) -> None:
        """A Ready node."""
        meta = {"name": name, "labels": {"kubernetes.io/hostname": name, **labels}}
        await self.client.create(NODES, {"metadata": meta, "spec": {}})
        status = {
            "allocatable": {"cpu": "8", "memory": "8Gi", "pods": "110"},
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "",
                            "lastHeartbeatTime": AT, "lastTransitionTime": AT}],
        }  # fmt: skip
        await self.client.patch(NODES, name, {"status": status}, subresource="status")

    async def beat(self, name: str, second: int = 0) -> None:
        """Renew a node's lease."""
        meta = {"name": name, "namespace": "kube-node-lease"}
        spec = {"holderIdentity": name, "renewTime": f"2026-01-01T00:00:{second:02d}.000000Z"}
        body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": meta, "spec": spec}
        await self.client.apply(LEASES, body, field_manager="kubelet")

    async def play(self) -> None:
        """Be the kubelet of all nodes."""
        async with asyncio.TaskGroup() as tasks:
            pods = Reflector(self.client, PODS)
            pods.on_change(lambda _k, _old, new: new and tasks.create_task(self._act(new)))
            await pods.run()

    async def _act(self, pod: JSON) -> None:
        meta, status = pod["metadata"], pod.get("status") or {}
        plays = (meta.get("labels") or {}).get("plays", "")
        with contextlib.suppress(ApiError):  # the pod has moved on; its next event comes here too
            if meta.get("deletionTimestamp"):
                if plays != "stay":
                    await self.client.delete(
                        PODS, meta["name"], meta["namespace"], grace_seconds=0, uid=meta["uid"]
                    )
            elif pod["spec"].get("nodeName") and status.get("phase") == "Pending" and plays != "wait":
                phase = {"end": "Succeeded", "break": "Failed"}.get(plays, "Running")
                ready = "True" if phase == "Running" else "False"
                row = {"type": "Ready", "status": ready, "lastTransitionTime": AT}
                body = {"metadata": {"uid": meta["uid"]}, "status": {"phase": phase, "conditions": [row]}}
                await self.client.patch(PODS, meta["name"], body, meta["namespace"], subresource="status")


@pytest.fixture
def grace() -> float:
    """Seconds a node may be silent; a story about nodes says less."""
    return 60.0


@pytest.fixture
async def world(tmp_path: Path, grace: float) -> AsyncIterator[World]:
    """Two nodes, the API server and all controllers, in this process but over HTTP."""
    parts = assemble(Settings(store=tmp_path / "store.db"))
    await parts.start()
    runner = web.ServerRunner(parts.server.connections(), handle_signals=False, shutdown_timeout=0.1)
    await runner.setup()
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    await web.SockSite(runner, listener).start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    plan = plans.make(state_root=str(tmp_path), run_root=str(tmp_path), cache_dir=str(tmp_path))
    async with Client(url) as client, Client(url) as own:
        made = World(own, lambda: serve(Hub(client, plan), "CA", grace=grace))
        for name in ("node-1", "node-2"):
            await made.node(name)
            await made.beat(name)
        kubelets = asyncio.create_task(made.play())
        yield made
        broken = [t for t in (made.controllers, kubelets) if t.done() and not t.cancelled()]
        kubelets.cancel()
        await made.stop()
        await asyncio.gather(kubelets, return_exceptions=True)
    parts.server.stop()
    await runner.cleanup()
    await parts.stop()
    assert not broken, broken
