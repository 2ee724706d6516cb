"""The Node object and its heartbeat. Sources: Kubernetes "Nodes" (conditions, leases)."""

from __future__ import annotations

import asyncio
import logging
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pervade.cluster.kubelet.cri import CriError
from pervade.cluster.kubelet.node import Node
from pervade.cluster.plan import KUBELET_PORT, KUBERNETES_VERSION
from pervade.kube.errors import ApiError
from pervade.kube.resources import LEASES, NODES
from pervade.wire.http import ClientError

log = logging.getLogger(__name__)
JSON = dict[str, Any]
_BEAT, _LEASE, _STATUS_EVERY = 10.0, 40, 300.0
# containerd is started again in less than a second: a node is not given up, with all its pods, for that.
_PATIENCE = 10.0


def node_labels(node: Node) -> dict[str, str]:
    zone = node.plan.node(node.name).zone
    return {
        "kubernetes.io/hostname": node.name,
        "kubernetes.io/arch": "amd64",
        "kubernetes.io/os": "linux",
        "topology.kubernetes.io/region": "local",
        "topology.kubernetes.io/zone": zone,
    }


async def node_status(node: Node, ready: tuple[bool, str], old: JSON) -> JSON:
    """NodeStatus; `ready` is (state, words)."""
    now = node.now()
    held = {c["type"]: c for c in old.get("conditions") or ()}
    rows = [
        ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        (
            "Ready",
            "True" if ready[0] else "False",
            "KubeletReady" if ready[0] else "KubeletNotReady",
            ready[1],
        ),
    ]
    conditions = []
    for kind, state, reason, text in rows:
        before = held.get(kind)
        same = before is not None and before["status"] == state
        since = before["lastTransitionTime"] if before and same else now
        conditions.append(
            {
                "type": kind,
                "status": state,
                "reason": reason,
                "message": text,
                "lastHeartbeatTime": now,
                "lastTransitionTime": since,
            }
        )
    release = platform.freedesktop_os_release()
    runtime = ""
    if ready[0]:
        version = await node.cri.call("Version", timeout=5)
        runtime = f"{version.runtime_name}://{version.runtime_version}"
    return {
        "addresses": [{"type": "InternalIP", "address": a} for a in node.addresses]
        + [{"type": "Hostname", "address": node.name}],
        "capacity": node.capacity,
        "allocatable": node.capacity,
        "conditions": conditions,
        "daemonEndpoints": {"kubeletEndpoint": {"Port": KUBELET_PORT}},
        "images": await node.images.listing() if ready[0] else [],
        "nodeInfo": {
            "architecture": "amd64",
            "bootID": _read("/proc/sys/kernel/random/boot_id"),
            "containerRuntimeVersion": runtime,
            "kernelVersion": platform.release(),
            "kubeProxyVersion": "",
            "kubeletVersion": f"{KUBERNETES_VERSION}+pervade",
            "machineID": _read("/etc/machine-id"),
            "operatingSystem": "linux",
            "osImage": release.get("PRETTY_NAME", "Linux"),
            "systemUUID": _read("/etc/machine-id"),
        },
    }


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii").strip()
    except OSError:
        return ""


async def register(node: Node) -> JSON:
    """The Node object, made or brought up to date (labels, pod ranges)."""
    plan = node.plan.node(node.name)
    spec = {
        "podCIDR": plan.pod_cidr,
        "podCIDRs": [plan.pod_cidr, plan.pod_cidr6],
        "providerID": f"pervade://{node.plan.name}/{node.name}",
    }
    body: JSON = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": node.name, "labels": node_labels(node)},
        "spec": spec,
    }
    body["metadata"]["annotations"] = {"node.alpha.kubernetes.io/ttl": "0"}
    try:
        return await node.client.create(NODES, body)
    except ApiError as error:
        if not error.already_exists:
            raise
    return await node.client.patch(
        NODES, node.name, {"metadata": {"labels": node_labels(node)}, "spec": spec}
    )


async def keep_alive(node: Node) -> None:
    """Register, then renew lease and status until cancelled."""
    lease: JSON | None = None
    last_status, last_beat, well = 0.0, 0.0, 0.0
    last_ready: tuple[bool, str] | None = None
    old: JSON = {}
    registered = False
    while True:
        try:
            if not registered:
                made = await register(node)
                old, registered = made.get("status") or {}, True
            ready = await _runtime(node)
            now = asyncio.get_running_loop().time()
            well = now if ready[0] else well
            away = not ready[0]
            if away and last_ready is not None and last_ready[0] and now - well < _PATIENCE:
                ready = last_ready
            # A node that was silent for long may have been given up: it says itself that it is back.
            silent = now - last_beat > _LEASE / 2
            if ready != last_ready or silent or now - last_status > _STATUS_EVERY:
                status = await node_status(node, ready, old)
                made = await node.client.patch(
                    NODES, node.name, {"status": status}, subresource="status", field_manager="kubelet"
                )
                old, last_ready, last_status = made["status"], ready, now
            lease = await _renew(node, lease)
            last_beat = asyncio.get_running_loop().time()
            wait = 0.5 if away else _BEAT
        except (ApiError, ClientError, OSError, CriError) as error:
            registered = registered and not (isinstance(error, ApiError) and error.not_found)
            lease = None
            log.warning("heartbeat failed", extra={"node": node.name, "error": str(error)})
            wait = 1.0
        await asyncio.sleep(wait)


async def _runtime(node: Node) -> tuple[bool, str]:
    try:
        found = await node.cri.call("Status", timeout=5)
    except CriError as error:
        return False, f"container runtime is down: {error.text[:200]}"
    for condition in found.status.conditions:
        if not condition.status:
            return False, f"{condition.type}: {condition.reason} {condition.message}"[:300]
    return True, "kubelet is posting ready status"


async def _renew(node: Node, lease: JSON | None) -> JSON:
    stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    if lease is None:
        try:
            lease = await node.client.get(LEASES, node.name, "kube-node-lease")
        except ApiError as error:
            if not error.not_found:
                raise
            meta = {"name": node.name, "namespace": "kube-node-lease"}
            spec = {"holderIdentity": node.name, "leaseDurationSeconds": _LEASE, "renewTime": stamp}
            return await node.client.create(LEASES, {"metadata": meta, "spec": spec})
    lease["spec"]["renewTime"] = stamp
    return await node.client.update(LEASES, lease)
