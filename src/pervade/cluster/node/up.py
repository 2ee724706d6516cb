"""`up`: from a plan to a cluster whose nodes are Ready. Idempotent: what is there stays, what is missing comes.

Phases are told to a `Report`; each returns a word about what it found. Nothing is printed here.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import hashlib
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import msgspec

from pervade.base.errors import OperatorError
from pervade.cluster.dns import manifest
from pervade.cluster.images import names
from pervade.cluster.node import checks, credentials, fabric, locks, node, programs, supervision
from pervade.cluster.plan import Plan, load, save
from pervade.kube import kubeconfig, resources
from pervade.kube.client import Client
from pervade.kube.errors import ApiError
from pervade.wire.http import ClientError

JSON = dict[str, Any]
MADE = "made-parents"
_PATIENCE = 60.0
_STEP = 0.1
_FALLS = 6
_APPLIED = "pervade.dev/applied"


class Note:
    """What a phase has to say when it ends."""

    def __init__(self) -> None:
        self.text = ""


Report = Callable[[str], AbstractContextManager[Note]]


@contextmanager
def quiet(_phase: str) -> Iterator[Note]:
    """A Report for tests and scripts."""
    yield Note()


async def up(
    plan: Plan, report: Report, *, merge_kubeconfig: bool = True, config: Path | None = None
) -> None:
    """Bring `plan` up (about 10 s at first, 1 s when it is up); OperatorError names phase, cause and fix."""
    with report("checking the machine") as note:
        findings = checks.run(plan)
        checks.refuse(findings)
        warnings = [f.seen for f in findings if f.level == "warning"]
        note.text = "; ".join(warnings)
    _remember_parents(plan)
    with locks.held(plan):
        before = _present(plan)
        gone = [n for n in before.nodes if n.name not in {m.name for m in plan.nodes}] if before else []
        with report("plan and certificates") as note:
            plan.log_dir.mkdir(parents=True, exist_ok=True)
            plan.state.chmod(0o700)
            save(plan)
            (plan.run / "plan.json").write_bytes(plan.file.read_bytes())
            credentials.ensure(plan)
            note.text = str(plan.state)
        with report("fabric") as note:
            fabric.make(plan)
            fabric.masquerade(plan)
            for one in plan.nodes:
                fabric.connect(plan, one)
            note.text = f"{plan.fabric_cidr}, pods {plan.pod_cidr}, services {plan.service_cidr}"
        with report("processes") as note:
            way_out = shutil.which("slirp4netns") is not None and Path("/dev/net/tun").exists()
            wanted = programs.programs(plan, way_out=way_out)
            changed = supervision.write_listing(plan, wanted)
            note.text = supervision.ensure(plan, changed=changed)
            if not way_out:
                note.text += "; no way out of the cluster (slirp4netns or /dev/net/tun is missing)"
        async with Client.from_kubeconfig(plan.kubeconfig("admin")) as client:
            with report("API server") as note:
                await _until(plan, "apiserver", "the API server answers", lambda: _ready(client))
                note.text = credentials.server(plan)
            for old in gone:
                with report(f"removing {old.name}"):
                    await _remove_node(plan, client, old.name)
            with report("nodes") as note:
                await _until(
                    plan,
                    f"kubelet-{plan.nodes[0].name}",
                    "all nodes are Ready",
                    lambda: _nodes_ready(client, plan),
                )
                note.text = ", ".join(f"{n.name} {n.address}" for n in plan.nodes)
            with report("cluster DNS") as note:
                note.text = await _dns(plan, client, forward=way_out)
        if merge_kubeconfig:
            with report("kubeconfig") as note:
                note.text = _merge(plan, config)


def _remember_parents(plan: Plan) -> None:
    """Folders above the cluster's own that do not exist yet are ours to remove in the end."""
    made = []
    for top in (plan.state.parent, plan.run.parent):
        path = top
        while not path.exists():
            made.append(str(path))
            path = path.parent
    plan.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    plan.run.mkdir(parents=True, exist_ok=True)
    if made:
        file = plan.state / MADE
        known = file.read_text().splitlines() if file.exists() else []
        file.write_text("\n".join(dict.fromkeys([*known, *made])) + "\n")


def _present(plan: Plan) -> Plan | None:
    with contextlib.suppress(OSError, ValueError):
        return load(plan.file)
    return None


async def _until(plan: Plan, program: str, what: str, ask: Callable[[], Any]) -> None:
    """Wait until `ask` gives True; on time-out its last answer and the end of the program's log are the message."""
    limit, last = time.monotonic() + _PATIENCE, "no answer"
    while time.monotonic() < limit:
        try:
            answer = await ask()
        except (ApiError, ClientError, OSError, TimeoutError) as error:
            answer = str(error) or type(error).__name__
        if answer is True:
            return
        last = str(answer)
        if supervision.supervisor_pid(plan) is None:
            last = "the supervisor is gone"
            break
        if supervision.falls(plan, program) >= _FALLS:
            last = f"{program} ends as often as it is started"
            break
        await asyncio.sleep(_STEP)
    log = plan.log_dir / f"{program}.log"
    raise OperatorError(
        f"waited until {what}, in vain: {last}",
        where=str(log),
        cause=_tail(log),
        fix="pervade doctor; pervade status; then pervade up again",
    )


def _tail(log: Path, lines: int = 6) -> str:
    try:
        return "\n       ".join(log.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return "it wrote no log"


async def _ready(client: Client) -> bool:
    async with asyncio.timeout(5):
        await client.raw("GET", "/readyz")
    return True


async def _nodes_ready(client: Client, plan: Plan) -> bool | str:
    """Whether each node's present kubelet has spoken and says Ready (after a reboot the API holds old words)."""
    async with asyncio.timeout(5):
        items, _ = await client.list(resources.NODES)
        leases, _ = await client.list(resources.LEASES, "kube-node-lease")
    begun = {life.name: life.since for life in supervision.lives(plan) if life.running}
    heard = {
        lease["metadata"]["name"]: _seconds(lease["spec"].get("renewTime") or "")
        for lease in leases
        if lease.get("spec")
    }
    ready = {
        n["metadata"]["name"]
        for n in items
        for c in (n.get("status") or {}).get("conditions") or ()
        if c["type"] == "Ready" and c["status"] == "True"
    }
    waiting = [
        n.name
        for n in plan.nodes
        if n.name not in ready or heard.get(n.name, 0) < begun.get(f"kubelet-{n.name}", float("inf"))
    ]
    return True if not waiting else f"{', '.join(waiting)} not Ready"


def _seconds(stamp: str) -> float:
    """Unix time of a MicroTime; 0 when it is none."""
    try:
        return datetime.datetime.fromisoformat(stamp).timestamp()
    except ValueError:
        return 0.0


async def _dns(plan: Plan, client: Client, *, forward: bool) -> str:
    wanted = manifest.objects(
        image=names.PERVADE,
        addresses=[plan.dns_address],
        domain=plan.cluster_domain,
        cidrs=[plan.service_cidr, plan.service_cidr6, plan.pod_cidr, plan.pod_cidr6],
        forward=[plan.outside_dns] if forward else [],
    )
    known = {
        (r.api_version, r.kind): r for r in vars(resources).values() if isinstance(r, resources.Resource)
    }
    for obj in wanted:
        await _put(client, known[(obj["apiVersion"], obj["kind"])], obj)
    deployment = wanted[-1]["metadata"]

    async def available() -> bool | str:
        found = await client.get(resources.DEPLOYMENTS, deployment["name"], deployment["namespace"])
        status = found.get("status") or {}
        if status.get("observedGeneration", 0) < found["metadata"].get("generation", 0):
            return "the controllers have not seen it yet"
        return True if status.get("availableReplicas", 0) >= 1 else "no pod of it is Ready"

    await _until(plan, "controllers", "the cluster's DNS is available", available)
    return plan.dns_address


async def _put(client: Client, kind: resources.Resource, wanted: JSON) -> None:
    """Create `wanted`, or bring it to what we want when an earlier `up` wanted something else."""
    mark = hashlib.sha256(msgspec.json.encode(wanted, order="deterministic")).hexdigest()[:16]
    meta = wanted["metadata"]
    meta = meta | {"annotations": {**meta.get("annotations", {}), _APPLIED: mark}}
    wanted = wanted | {"metadata": meta}
    try:
        found = await client.get(kind, meta["name"], meta.get("namespace"))
    except ApiError as error:
        if not error.not_found:
            raise
        await client.create(kind, wanted, meta.get("namespace"))
        return
    if (found["metadata"].get("annotations") or {}).get(_APPLIED) != mark:
        await client.patch(kind, meta["name"], wanted, meta.get("namespace"), kind="merge")


async def _remove_node(plan: Plan, client: Client, name: str) -> None:
    limit = time.monotonic() + 20
    pids = programs.pids(plan)
    while any((pids / f"{p}.json").exists() for p in (name, f"kubelet-{name}")):
        if time.monotonic() > limit:
            raise OperatorError(f"{name} did not stop", where=str(pids), fix="pervade up again")
        await asyncio.sleep(_STEP)
    node.remove(plan, name)
    for one in (f"kubelet-{name}", f"services-{name}"):
        plan.kubeconfig(one).unlink(missing_ok=True)
    pods, _ = await client.list(resources.PODS, field_selector=f"spec.nodeName={name}")
    for pod in pods:
        with contextlib.suppress(ApiError):
            meta = pod["metadata"]
            await client.delete(resources.PODS, meta["name"], meta["namespace"], grace_seconds=0)
    with contextlib.suppress(ApiError):
        await client.delete(resources.NODES, name)
    shutil.rmtree(plan.node_state(name), ignore_errors=True)


def _merge(plan: Plan, config: Path | None) -> str:
    path = config or kubeconfig.default_path()
    kubeconfig.merge(path, context=plan.name, **credentials.parts(plan, "admin"))
    # `sudo pervade up` writes into root's file unless KUBECONFIG says otherwise; say which it was.
    return f"context {plan.name} in {path}"
