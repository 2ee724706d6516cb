"""The kubelet's HTTPS API, at the paths of the upstream kubelet: logs, exec, attach, port-forward, stats.

Listens inside the node's namespace on 10250; a client certificate of the cluster's CA is required.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from pervade.cluster.kubelet import logs, relay, rotation
from pervade.cluster.kubelet.cri import CriError
from pervade.cluster.kubelet.node import Node
from pervade.cluster.kubelet.status import RUNNING, Container
from pervade.cluster.kubelet.worker import PodWorker
from pervade.wire.hijack import Hijacked, take
from pervade.wire.http import web

JSON = dict[str, Any]
CALLER = "kube-apiserver-kubelet-client"
Find = Callable[[str, str], PodWorker | None]


class KubeletServer:
    """Handlers over the pods of one node; `find(namespace, name)` gives a pod's worker."""

    def __init__(self, node: Node, find: Find, pods: Callable[[], list[JSON]]) -> None:
        self.node, self.find, self.pods = node, find, pods

    def application(self) -> web.Application:
        app = web.Application(middlewares=[only_the_server])
        app.router.add_get("/containerLogs/{ns}/{pod}/{container}", self.logs)
        for verb in ("exec", "attach"):
            app.router.add_route("*", f"/{verb}/{{ns}}/{{pod}}/{{container}}", self.stream)
        app.router.add_route("*", "/portForward/{ns}/{pod}", self.port_forward)
        app.router.add_get("/healthz", self.healthz)
        app.router.add_get("/pods", self.list_pods)
        app.router.add_get("/stats/summary", self.stats)
        return app

    async def healthz(self, _request: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def list_pods(self, _request: web.Request) -> web.Response:
        return web.json_response(
            {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": self.pods()}
        )

    def _container(self, request: web.Request) -> tuple[PodWorker, Container | None, list[Container]]:
        worker = self.find(request.match_info["ns"], request.match_info["pod"])
        if worker is None:
            raise web.HTTPNotFound(
                text=f'pod "{request.match_info["pod"]}" does not exist on node {self.node.name}\n'
            )
        attempts = worker._seen.containers.get(request.match_info["container"], [])
        return worker, attempts[-1] if attempts else None, attempts

    async def logs(self, request: web.Request) -> web.StreamResponse:
        worker, last, attempts = self._container(request)
        name, query = request.match_info["container"], request.query
        if last is None:
            waiting = worker._seen.waiting.get(name)
            why = waiting.reason if waiting else "ContainerCreating"
            text = f'container "{name}" in pod "{request.match_info["pod"]}" is waiting to start: {why}\n'
            raise web.HTTPBadRequest(text=text)
        chosen = last
        if query.get("previous") == "true":
            ended = [c for c in attempts if c.id != last.id]
            if not ended:
                text = (
                    f'previous terminated container "{name}" in pod "{request.match_info["pod"]}" not found\n'
                )
                raise web.HTTPBadRequest(text=text)
            chosen = ended[-1]
        since: float | None = None
        try:
            if query.get("sinceSeconds"):
                since = time.time() - float(query["sinceSeconds"])
            elif query.get("sinceTime"):
                since = self.node.epoch(query["sinceTime"])
            options = logs.Options(
                follow=query.get("follow") == "true",
                timestamps=query.get("timestamps") == "true",
                tail=int(query["tailLines"]) if query.get("tailLines") else None,
                limit=int(query["limitBytes"]) if query.get("limitBytes") else None,
                since=since,
            )
        except ValueError as error:
            raise web.HTTPBadRequest(text=f"log options: {error}\n") from None
        folder = self.node.log_folder(worker.pod)

        def files() -> list[Path]:
            return rotation.files(folder / name / f"{chosen.attempt}.log")

        def ended_now() -> bool:
            now = worker._seen.containers.get(name, [])
            return worker.gone or not any(c.id == chosen.id and c.state == RUNNING for c in now)

        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        async for chunk in logs.read(files, options, ended_now):
            await response.write(chunk)
        await response.write_eof()
        return response

    async def stream(self, request: web.Request) -> web.StreamResponse:
        """exec and attach."""
        _, last, _ = self._container(request)
        name = request.match_info["container"]
        if last is None or last.state != RUNNING:
            raise web.HTTPBadRequest(text=f'container "{name}" is not running\n')
        query = request.query
        tty = query.get("tty") in ("1", "true")
        fields: JSON = {
            "container_id": last.id,
            "tty": tty,
            "stdin": query.get("input") in ("1", "true"),
            "stdout": query.get("output") in ("1", "true"),
            "stderr": query.get("error") in ("1", "true") and not tty,
        }
        method = "Attach" if request.path.startswith("/attach/") else "Exec"
        if method == "Exec":
            fields["cmd"] = query.getall("command", [])
        return await self._relay(request, method, fields)

    async def port_forward(self, request: web.Request) -> web.StreamResponse:
        worker = self.find(request.match_info["ns"], request.match_info["pod"])
        if worker is None or worker._sandbox is None:
            raise web.HTTPNotFound(
                text=f'pod "{request.match_info["pod"]}" does not run on node {self.node.name}\n'
            )
        ports = [int(p) for p in request.query.getall("port", []) if p.isdigit()]
        return await self._relay(request, "PortForward", {"pod_sandbox_id": worker._sandbox, "port": ports})

    async def _relay(self, request: web.Request, method: str, fields: JSON) -> web.StreamResponse:
        try:
            url = (await self.node.cri.call(method, **fields)).url
        except CriError as error:
            raise web.HTTPInternalServerError(text=f"{error.text}\n") from None
        near = take(request)
        try:
            far = await relay.dial(self.node.plan.netns(self.node.name), url, request.method, request.headers)
            await relay.both_ways(near, far)
        except OSError as error:
            text = f"the node's container runtime could not be reached: {error}\n".encode()
            head = f"HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/plain\r\nContent-Length: {len(text)}\r\nConnection: close\r\n\r\n"
            near[1].write(head.encode() + text)
        finally:
            with contextlib.suppress(ConnectionError):
                near[1].close()
        return Hijacked()

    async def stats(self, _request: web.Request) -> web.Response:
        """The summary API: CPU and memory of every container."""
        found = (await self.node.cri.call("ListContainerStats")).stats
        pods: dict[str, JSON] = {}
        for one in found:
            mark = one.attributes.labels
            uid = mark.get("io.kubernetes.pod.uid", "")
            ref = {
                "name": mark.get("io.kubernetes.pod.name", ""),
                "namespace": mark.get("io.kubernetes.pod.namespace", ""),
                "uid": uid,
            }
            pod = pods.setdefault(uid, {"podRef": ref, "containers": []})
            pod["containers"].append(
                {
                    "name": one.attributes.metadata.name,
                    "cpu": {"usageCoreNanoSeconds": one.cpu.usage_core_nano_seconds.value},
                    "memory": {
                        "workingSetBytes": one.memory.working_set_bytes.value,
                        "rssBytes": one.memory.rss_bytes.value,
                    },
                }
            )
        return web.json_response({"node": {"nodeName": self.node.name}, "pods": list(pods.values())})


def admitted(certificate: Any) -> bool:
    """Whether a peer's certificate (as `ssl` decodes it) is the API server's: nobody else may run things in pods."""
    subject = [pair for part in (certificate or {}).get("subject", ()) for pair in part]
    return ("commonName", CALLER) in subject


@web.middleware
async def only_the_server(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """403 for every other holder of one of the cluster's certificates, another node's kubelet among them."""
    transport = request.transport
    if transport is None or not admitted(transport.get_extra_info("peercert")):
        return web.Response(status=403, text=f"this kubelet serves {CALLER} only\n")
    return await handler(request)


def tls(pki: Path, node: str) -> ssl.SSLContext:
    """Server side with the node's certificate; clients must show one of the cluster's CA."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki / f"kubelet-{node}.crt", pki / f"kubelet-{node}.key")
    context.load_verify_locations(pki / "ca.crt")
    context.verify_mode = ssl.CERT_REQUIRED
    return context


async def serve(application: web.Application, sock: Any, context: ssl.SSLContext) -> web.AppRunner:
    runner = web.AppRunner(application, access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
    await runner.setup()
    await web.SockSite(runner, sock, ssl_context=context).start()
    await asyncio.sleep(0)
    return runner
