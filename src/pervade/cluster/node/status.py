"""What of a cluster runs, as one plain value: processes from the kernel, nodes and pods from the API."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from pervade.base.errors import OperatorError
from pervade.cluster.node import node, supervision
from pervade.cluster.plan import KUBERNETES_VERSION, Plan
from pervade.host import processes
from pervade.kube.client import Client
from pervade.kube.errors import ApiError
from pervade.kube.resources import NODES, PODS
from pervade.wire.http import ClientError

JSON = dict[str, Any]
_PATIENCE = 3.0


async def status(plan: Plan) -> JSON:
    """Everything `pervade status` shows; the API's part has `error` instead when it does not answer in 3 s."""
    now = time.time()
    lives = [
        {
            "name": life.name,
            "pid": life.pid,
            "running": life.running,
            "rssBytes": processes.resident(life.pid) if life.running else 0,
            "uptimeSeconds": round(now - life.since) if life.running else 0,
            "restarts": life.restarts,
        }
        for life in supervision.lives(plan)
    ]
    found: JSON = {
        "name": plan.name,
        "server": f"https://127.0.0.1:{plan.api_port}",
        "kubernetes": KUBERNETES_VERSION,
        "state": str(plan.state),
        "ranges": {
            "fabric": [plan.fabric_cidr, plan.fabric_cidr6],
            "pods": [plan.pod_cidr, plan.pod_cidr6],
            "services": [plan.service_cidr, plan.service_cidr6],
            "dns": plan.dns_address,
        },
        "processes": lives,
        "nodes": [_planned(plan, n.name) for n in plan.nodes],
    }
    try:
        async with asyncio.timeout(_PATIENCE), Client.from_kubeconfig(plan.kubeconfig("admin")) as client:
            nodes, _ = await client.list(NODES)
            pods, _ = await client.list(PODS)
    except (ApiError, ClientError, OSError, TimeoutError, OperatorError) as error:
        found["error"] = f"the API server does not answer: {error or type(error).__name__}"
        return found
    seen = {n["metadata"]["name"]: n for n in nodes}
    for row in found["nodes"]:
        row |= _observed(seen.get(row["name"]), [p for p in pods if p["spec"].get("nodeName") == row["name"]])
    return found


def _planned(plan: Plan, name: str) -> JSON:
    one, pid = plan.node(name), node.init_pid(plan, name)
    return {
        "name": name,
        "address": one.address,
        "pods": [one.pod_cidr, one.pod_cidr6],
        "zone": one.zone,
        "init": pid,
    }


def _observed(found: JSON | None, pods: list[JSON]) -> JSON:
    conditions = ((found or {}).get("status") or {}).get("conditions") or ()
    ready = next((c["status"] for c in conditions if c["type"] == "Ready"), "Unknown")
    running = sum((p.get("status") or {}).get("phase") == "Running" for p in pods)
    return {"ready": ready, "podsRunning": running, "podsTotal": len(pods)}
