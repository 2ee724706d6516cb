"""What all pods of a node share: containerd, the API, addresses, cgroups, logs, events."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
import os
import shutil
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from pervade.cluster.kubelet import configs, environment, volumes
from pervade.cluster.kubelet.cri import Cri
from pervade.cluster.kubelet.images import Images
from pervade.cluster.kubelet.probes import Prober
from pervade.cluster.plan import Plan
from pervade.host import cgroups
from pervade.kube.client import Client
from pervade.kube.errors import ApiError
from pervade.kube.reflector import Reflector
from pervade.kube.resources import CONFIG_MAPS, EVENTS, PODS, SECRETS, SERVICE_ACCOUNTS
from pervade.wire.http import ClientError

log = logging.getLogger(__name__)
JSON = dict[str, Any]
_KINDS = {"ConfigMap": CONFIG_MAPS, "Secret": SECRETS}
_STARTS = 4
_PATIENCE = 2.0


class Node:
    """One node's shared parts; `services` is a reflector of all Services (for environment variables)."""

    def __init__(self, plan: Plan, name: str, cri: Cri, client: Client, services: Reflector) -> None:
        self.plan, self.name, self.cri, self.client, self.services = plan, name, cri, client, services
        spec = plan.node(name)
        self.addresses = [spec.address, spec.address6]
        self.cgroup_root = f"/pervade/{plan.name}/{name}"
        self.images = Images(cri, plan.node_state(name) / "image-map.json")
        self.prober = Prober(cri, plan.netns(name))
        self.starts = asyncio.Semaphore(_STARTS)
        self.memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        self.capacity = {
            "cpu": str(os.cpu_count() or 1),
            "memory": f"{self.memory // 1024}Ki",
            "pods": "110",
            "ephemeral-storage": "10Gi",
        }
        self._held: dict[tuple[str, str, str], tuple[float, JSON | None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    # Places.

    @property
    def kubelet_folder(self) -> Path:
        return self.plan.node_state(self.name) / "kubelet"

    def init_pid(self) -> str:
        """The pid of the node's init, whose namespaces are the node's."""
        return self.plan.init_pid(self.name).read_text().strip()

    def hosts(self) -> str:
        """The node's own /etc/hosts."""
        return Path(f"/proc/{self.init_pid()}/root/etc/hosts").read_text()

    def log_folder(self, pod: JSON) -> Path:
        """The pod's logs as this process reaches them."""
        return self.plan.node_state(self.name) / "log" / configs.log_folder(pod).removeprefix("/var/log/")

    def make_cgroup(self, pod: JSON) -> None:
        """The pod's folder in every hierarchy that takes it.

        Without limits of its own: on cgroup v1 an OOM against the pod's limit marks every container of the pod
        as OOMKilled, also the innocent ones; the containers' own limits hold.
        """
        path = configs.pod_cgroup(pod, self.cgroup_root).lstrip("/")
        for root in cgroups.hierarchies():
            if root.name in ("cpuset",):
                # A cpuset without cpus takes no process; runc fills it in for its own folders.
                continue
            (root / path).mkdir(parents=True, exist_ok=True)

    def remove_cgroup(self, pod: JSON) -> None:
        # A pod that only containerd still knows has no quality of service to go by.
        for group in ("", "/burstable", "/besteffort"):
            cgroups.remove(f"{self.cgroup_root}/kubepods{group}/pod{pod['metadata']['uid']}".lstrip("/"))

    def remove_logs(self, pod: JSON) -> None:
        shutil.rmtree(self.log_folder(pod), ignore_errors=True)

    def termination_file(self, uid: str, container: str, attempt: int) -> str:
        """A fresh file for a container's last words; its path as the node sees it."""
        folder = self.kubelet_folder / "pods" / uid / "containers" / container
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / str(attempt)
        path.write_text("")
        path.chmod(0o666)
        return f"/var/lib/kubelet/pods/{uid}/containers/{container}/{attempt}"

    def termination_message(self, uid: str, container: str, full: Any, spec: JSON) -> str:
        """What an ended container left to say: its file, or by policy the end of its log."""
        path = self.kubelet_folder / "pods" / uid / "containers" / container / str(full.metadata.attempt)
        try:
            with path.open("rb") as file:  # of any size: the container writes it
                said = file.read(4096).decode(errors="replace")
        except OSError:
            said = ""
        if said or spec.get("terminationMessagePolicy") != "FallbackToLogsOnError" or full.exit_code == 0:
            return said
        from pervade.cluster.kubelet import logs

        shown = Path(full.log_path.replace("/var/log", str(self.plan.node_state(self.name) / "log"), 1))
        return logs.tail_text(shown, 80)[-2048:]

    # Contents.

    async def fetch(self, kind: str, namespace: str, name: str, since: float) -> JSON | None:
        """A ConfigMap or Secret as it was at the loop's time `since` or later; None when it does not exist.

        While the API is away the last one known is given.
        """
        now = asyncio.get_running_loop().time()
        key = (kind, namespace, name)
        held = self._held.get(key)
        if held and held[0] >= since and held[1] is not None:
            return held[1]
        try:
            # An API that hangs must not keep a container from its restart when we know enough.
            async with asyncio.timeout(_PATIENCE if held and held[1] is not None else None):
                found: JSON | None = await self.client.get(_KINDS[kind], name, namespace)
        except (ClientError, OSError, TimeoutError):
            if held is None or held[1] is None:
                raise
            return held[1]
        except ApiError as error:
            if not error.not_found:
                raise
            found = None
        if len(self._held) > 200:
            self._held.clear()
        self._held[key] = (now, found)
        return found

    async def token(self, pod: JSON, projection: JSON) -> tuple[str, float]:
        """A token of the pod's service account, bound to the pod."""
        meta = pod["metadata"]
        spec: JSON = {
            "audiences": [projection["audience"]] if projection.get("audience") else [],
            "expirationSeconds": projection.get("expirationSeconds", 3600),
            "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": meta["name"], "uid": meta["uid"]},
        }
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        account = pod["spec"].get("serviceAccountName") or "default"
        made = await self.client.create(
            SERVICE_ACCOUNTS, body, meta["namespace"], name=account, subresource="token"
        )
        return made["status"]["token"], self.epoch(made["status"]["expirationTimestamp"])

    def downward(self, pod: JSON) -> JSON:
        held = [i["ip"] for i in (pod.get("status") or {}).get("podIPs") or ()]
        return {"pod_ips": held, "host_ips": self.addresses, "capacity": self.capacity}

    async def variables(self, pod: JSON, spec: JSON, pod_ips: list[str]) -> dict[str, str]:
        """The environment of a container as of now; environment.Missing when a reference leads nowhere."""
        now = asyncio.get_running_loop().time()
        namespace = pod["metadata"]["namespace"]
        needed: dict[tuple[str, str], dict[str, str] | None] = {}
        for one in [
            *(spec.get("envFrom") or ()),
            *((e.get("valueFrom") or {}) for e in spec.get("env") or ()),
        ]:
            for kind, fields in (
                ("ConfigMap", ("configMapRef", "configMapKeyRef")),
                ("Secret", ("secretRef", "secretKeyRef")),
            ):
                for field in fields:
                    if ref := one.get(field):
                        found = await self.fetch(kind, namespace, ref.get("name", ""), now)
                        data = None if found is None else volumes.data_of(found)
                        text = (
                            None if data is None else {k: v.decode(errors="replace") for k, v in data.items()}
                        )
                        needed[kind.lower(), ref.get("name", "")] = text
        linked = [s for s in self.services.items() if s["metadata"]["namespace"] == namespace]
        api = [
            s
            for s in self.services.items()
            if (s["metadata"]["namespace"], s["metadata"]["name"]) == ("default", "kubernetes")
        ]
        wanted = [*api, *(linked if pod["spec"].get("enableServiceLinks", True) else [])]
        ips = pod_ips or [i["ip"] for i in (pod.get("status") or {}).get("podIPs") or ()]
        return environment.variables(
            spec,
            pod,
            lookup=lambda kind, name: needed.get((kind, name)),
            services=environment.service_variables(wanted),
            pod_ips=ips,
            host_ips=self.addresses,
            capacity=self.capacity,
        )

    def check_user(self, spec: JSON, pod: JSON, image: JSON) -> None:
        """runAsNonRoot against what would run; environment.Missing with the reason."""
        merged = {**(pod["spec"].get("securityContext") or {}), **(spec.get("securityContext") or {})}
        if not merged.get("runAsNonRoot"):
            return
        user = merged.get("runAsUser")
        if user is None:
            user = image["uid"] if image["uid"] is not None else 0 if configs.is_root(image["user"]) else 1
        if int(user) == 0:
            raise environment.Missing("container has runAsNonRoot and image will run as root")

    # The API.

    async def put_status(self, pod: JSON, new: JSON) -> JSON:
        """Write a pod's status if the pod is as we know it; ApiError (conflict) when it has changed since.

        Others write conditions too (readiness gates), and a list is replaced as a whole.
        """
        meta = pod["metadata"]
        namespace, name = meta["namespace"], meta["name"]
        body = {"metadata": {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"]}, "status": new}
        return await self.client.patch(
            PODS, name, body, namespace, subresource="status", field_manager="kubelet"
        )

    async def delete_pod(self, pod: JSON) -> None:
        """Tell the API that nothing of the pod is left."""
        meta = pod["metadata"]
        try:
            await self.client.delete(PODS, meta["name"], meta["namespace"], grace_seconds=0, uid=meta["uid"])
        except ApiError as error:
            if not (error.not_found or error.conflict):
                raise

    def event(self, obj: JSON, kind: str, reason: str, message: str, name: str, count: int) -> None:
        """Record an event about `obj`, or its `count`th time; never waits, and a failure is only logged."""
        self.spawn(self._event(obj, kind, reason, message, name, count))

    async def _event(self, obj: JSON, kind: str, reason: str, message: str, name: str, count: int) -> None:
        meta, now = obj["metadata"], self.now()
        namespace = meta.get("namespace") or "default"
        body = {
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": {
                "apiVersion": obj.get("apiVersion", "v1"), "kind": obj.get("kind", "Pod"), "name": meta["name"],
                "namespace": meta.get("namespace", ""), "uid": meta["uid"], "resourceVersion": meta.get("resourceVersion", ""),
            },
            "reason": reason, "message": message[:1000], "type": kind, "count": count,
            "firstTimestamp": now, "lastTimestamp": now, "source": {"component": "kubelet", "host": self.name},
            "reportingComponent": "kubelet", "reportingInstance": self.name,
        }  # fmt: skip
        try:
            if count > 1:
                again = {"count": count, "lastTimestamp": now}
                with contextlib.suppress(ApiError):  # the old one has been forgotten by the API: a new one
                    await self.client.patch(EVENTS, name, again, namespace)
                    return
            await self.client.create(EVENTS, body, namespace)
        except (ApiError, ClientError, OSError) as error:
            log.debug("event not recorded", extra={"reason": reason, "error": str(error)})

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @staticmethod
    def now() -> str:
        return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    @staticmethod
    def epoch(text: str) -> float:
        return datetime.datetime.fromisoformat(text).timestamp()
