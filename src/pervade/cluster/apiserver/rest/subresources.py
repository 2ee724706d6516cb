"""Subresources that are views or actions on a stored object: scale, binding, eviction, ephemeral containers, finalize.

`status` is an ordinary update (`write`); streams and tokens live elsewhere. Every answer here is built on
`write.modify`, so optimistic locking, admission, field management and dry-run are those of any update.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from pervade.cluster.apiserver.kinds.kind import JSON, Cause, Kind
from pervade.cluster.apiserver.rest import codec, delete, patching, present, selectors, status, write
from pervade.cluster.apiserver.rest.context import Api, Request
from pervade.cluster.apiserver.rest.status import StatusError, bad_request

SERVED = frozenset({"scale", "binding", "eviction", "ephemeralcontainers", "finalize", "approval", "resize"})
_ALLOWED = {
    "scale": ("GET", "PUT", "PATCH"),
    "ephemeralcontainers": ("GET", "PUT", "PATCH"),
    "resize": ("GET", "PUT", "PATCH"),
    "approval": ("GET", "PUT", "PATCH"),
    "binding": ("POST",),
    "eviction": ("POST",),
    "finalize": ("PUT",),
}


async def handle(api: Api, request: Request, method: str) -> tuple[int, JSON]:
    """Answer one request on a subresource of `SERVED`: HTTP status and object."""
    name = request.info.subresource
    if method not in _ALLOWED[name]:
        raise StatusError(405, "the server does not allow this method on the requested resource")
    if name == "scale":
        return 200, await _scale(api, request, method)
    if name == "binding":
        return 201, await _bind(api, request)
    if name == "eviction":
        return 201, await _evict(api, request)
    if method == "GET":
        return 200, _stored(api, request)
    parts: dict[str, Callable[[JSON, JSON], JSON]] = {
        "ephemeralcontainers": _with_ephemeral,
        "finalize": _with_finalizers,
        "approval": _with_approval,
        "resize": _with_resources,
    }
    change = _change(api, request, method)
    # Only what the part names can have changed, so that the whole object may be written.
    made = await write.modify(
        api, request, lambda old: parts[name](old, change(copy.deepcopy(old))), part="whole"
    )
    return 200, made


def _stored(api: Api, request: Request) -> JSON:
    info, kind = request.info, request.kind
    entry = api.state.get(kind.table, info.namespace, info.name)
    if entry is None:
        raise status.not_found(kind, info.name)
    return present.decoded(entry.value, kind)


def _change(api: Api, request: Request, method: str) -> Callable[[JSON], JSON]:
    """The wanted object out of a PUT body or a patch, as a function of the present one."""
    if method == "PUT":
        body = codec.read_object(request.body, request.content_type)
        return lambda _old: body
    return patching.change_of(api, request)


# scale


def _replicas_path(kind: Kind) -> tuple[str, str, str]:
    """Dotted paths of spec replicas, status replicas and the selector text (custom resources name their own)."""
    if kind.custom is not None:
        scale = kind.custom.scale or {}
        return (
            str(scale.get("specReplicasPath", ".spec.replicas")).lstrip("."),
            str(scale.get("statusReplicasPath", ".status.replicas")).lstrip("."),
            str(scale.get("labelSelectorPath", "")).lstrip("."),
        )
    return "spec.replicas", "status.replicas", ""


def _at(obj: JSON, path: str) -> Any:
    at: Any = obj
    for step in path.split(".") if path else ():
        at = at.get(step) if isinstance(at, dict) else None
    return at


def scale_of(kind: Kind, obj: JSON) -> JSON:
    """autoscaling/v1 Scale of a workload; pure."""
    spec_path, status_path, selector_path = _replicas_path(kind)
    meta = obj["metadata"]
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    state: JSON = {"replicas": _at(obj, status_path) or 0}
    selector = (
        _at(obj, selector_path) if selector_path else selector_text((obj.get("spec") or {}).get("selector"))
    )
    if isinstance(selector, str) and selector:
        state["selector"] = selector
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {k: meta[k] for k in kept if k in meta},
        "spec": {"replicas": _at(obj, spec_path) or 0},
        "status": state,
    }


def selector_text(selector: Any) -> str:
    """A LabelSelector (or a plain map) in the grammar of label selectors."""
    if not isinstance(selector, dict):
        return ""
    if not {"matchLabels", "matchExpressions"} & set(selector):
        selector = {"matchLabels": selector}
    terms = [f"{k}={v}" for k, v in sorted((selector.get("matchLabels") or {}).items())]
    for one in selector.get("matchExpressions") or ():
        key, operator = one.get("key"), one.get("operator")
        if operator in ("In", "NotIn"):
            terms.append(f"{key} {operator.lower()} ({','.join(sorted(one.get('values') or ()))})")
        else:
            terms.append(key if operator == "Exists" else f"!{key}")
    return ",".join(terms)


async def _scale(api: Api, request: Request, method: str) -> JSON:
    kind, info = request.kind, request.info
    current = _stored(api, request)
    if method == "GET":
        return scale_of(kind, current)
    if method == "PUT":
        body = codec.read_object(request.body, request.content_type)
        wanted: Callable[[JSON], JSON] = lambda _scale: body  # noqa: E731
    else:
        wanted = patching.change_of(api, request)

    def change(old: JSON) -> JSON:
        asked = wanted(scale_of(kind, old))
        if not isinstance(asked.get("spec") or {}, dict):
            raise bad_request("Scale.spec must be an object")
        replicas = (asked.get("spec") or {}).get("replicas", 0)
        if not isinstance(replicas, int) or isinstance(replicas, bool):
            raise bad_request(f"Scale.spec.replicas must be a number, it is {replicas!r}")
        if replicas < 0:
            cause = Cause("spec.replicas", f"Invalid value: {replicas}: must be greater than or equal to 0")
            raise status.invalid(kind, info.name, [cause])
        new = copy.deepcopy(old)
        meta = asked.get("metadata") or {}
        for field in ("resourceVersion", "uid"):
            if meta.get(field):
                new["metadata"][field] = meta[field]
        *way, last = _replicas_path(kind)[0].split(".")
        at = new
        for step in way:
            at = at.setdefault(step, {})
        at[last] = replicas
        return new

    return scale_of(kind, await write.modify(api, request, change, part="whole"))


# pods


async def _bind(api: Api, request: Request) -> JSON:
    """pods/binding: give a pod its node, once."""
    body = codec.read_object(request.body, request.content_type)
    target = body.get("target") or {}
    node, info = target.get("name"), request.info
    if not node:
        cause = Cause("target.name", "Required value", "FieldValueRequired")
        raise status.invalid(request.kind, info.name, [cause])
    if target.get("kind") not in (None, "", "Node"):
        cause = Cause("target.kind", f'Unsupported value: "{target["kind"]}": supported values: "Node"')
        raise status.invalid(request.kind, info.name, [cause])
    asked = (body.get("metadata") or {}).get("uid")

    def change(old: JSON) -> JSON:
        if asked and asked != old["metadata"]["uid"]:
            raise status.conflict(request.kind, info.name, f"UID {asked} is not that of this pod")
        if old["metadata"].get("deletionTimestamp"):
            raise status.conflict(
                request.kind, info.name, f"pod {info.name} is being deleted, cannot be assigned to a host"
            )
        bound = old["spec"].get("nodeName")
        if bound:
            raise status.conflict(
                request.kind, info.name, f'pod {info.name} is already assigned to node "{bound}"'
            )
        new = copy.deepcopy(old)
        new["spec"]["nodeName"] = node
        meta = body.get("metadata") or {}
        for field in ("annotations", "labels"):
            if meta.get(field):
                new["metadata"][field] = {**(new["metadata"].get(field) or {}), **meta[field]}
        conditions = [
            c for c in (new.get("status") or {}).get("conditions") or () if c.get("type") != "PodScheduled"
        ]
        done = {
            "type": "PodScheduled",
            "status": "True",
            "lastProbeTime": None,
            "lastTransitionTime": write.now(),
        }
        new.setdefault("status", {})["conditions"] = [*conditions, done]
        return new

    await write.modify(api, request, change, part="whole")
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}


async def _evict(api: Api, request: Request) -> JSON:
    """pods/eviction: a deletion that PodDisruptionBudgets may refuse (429)."""
    body = codec.read_object(request.body, request.content_type)
    pod = _stored(api, request)
    phase = (pod.get("status") or {}).get("phase")
    waiting = phase in ("Pending", "Succeeded", "Failed") or pod["metadata"].get("deletionTimestamp")
    budgets = [] if waiting else _budgets(api, pod)
    if len(budgets) > 1:
        raise StatusError(
            500,
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
        )
    for kind, budget in budgets:
        await _spend(api, request, kind, budget, pod)
    options = {k: v for k, v in (body.get("deleteOptions") or {}).items() if k != "dryRun"}
    await delete.delete(api, request, options)
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}


def _budgets(api: Api, pod: JSON) -> list[tuple[Kind, JSON]]:
    kind = api.registry.find("policy", "v1", "poddisruptionbudgets")
    if kind is None:
        return []
    found = []
    for entry in api.state.all(kind.table, pod["metadata"]["namespace"]):
        budget = present.decoded(entry.value, kind)
        selector = (budget.get("spec") or {}).get("selector")
        if selector is not None and selectors.labels(selector_text(selector))(pod["metadata"].get("labels")):
            found.append((kind, budget))
    return found


async def _spend(api: Api, request: Request, kind: Kind, budget: JSON, pod: JSON) -> None:
    """Take one disruption out of a budget, or refuse with 429 and the reason."""
    name = budget["metadata"]["name"]
    state, spec_generation = budget.get("status") or {}, budget["metadata"].get("generation", 0)

    def refuse(why: str, **more: Any) -> StatusError:
        cause = {"reason": "DisruptionBudget", "message": why}
        return StatusError(
            429,
            "Cannot evict pod as it would violate the pod's disruption budget.",
            details={"causes": [cause]} | more,
        )

    if int(state.get("observedGeneration", 0)) < int(spec_generation):
        raise refuse(
            f"The disruption budget {name} is still being processed by the server.", retryAfterSeconds=10
        )
    healthy, wanted = state.get("currentHealthy", 0), state.get("desiredHealthy", 0)
    if int(state.get("disruptionsAllowed", 0)) < 1:
        raise refuse(f"The disruption budget {name} needs {wanted} healthy pods and has {healthy} currently")
    if request.dry_run:
        return
    latest = api.state.latest(kind.table, budget["metadata"]["namespace"], name)
    if latest is None or str(latest.rev) != budget["metadata"]["resourceVersion"]:
        raise StatusError(
            429,
            f"The disruption budget {name} has just changed; try again.",
            details={"retryAfterSeconds": 1},
        )
    new = copy.deepcopy(budget)
    new["status"]["disruptionsAllowed"] = int(state["disruptionsAllowed"]) - 1
    new["status"].setdefault("disruptedPods", {})[pod["metadata"]["name"]] = write.now()
    await api.state.write(kind.table, new["metadata"]["namespace"], name, new)


def _with_ephemeral(old: JSON, asked: JSON) -> JSON:
    """Ephemeral containers may be added, never changed or removed."""
    new = copy.deepcopy(old)
    wanted = (asked.get("spec") or {}).get("ephemeralContainers") or []
    new["spec"]["ephemeralContainers"] = wanted
    before = {c["name"]: c for c in old["spec"].get("ephemeralContainers") or ()}
    kept = {c.get("name") for c in wanted}
    causes = [
        Cause(
            "spec.ephemeralContainers",
            f'Forbidden: existing ephemeral containers "{name}" may not be removed',
            "FieldValueForbidden",
        )
        for name in before
        if name not in kept
    ]
    causes += [
        Cause(
            "spec.ephemeralContainers",
            f'Forbidden: existing ephemeral containers "{c["name"]}" may not be changed',
            "FieldValueForbidden",
        )
        for c in wanted
        if c.get("name") in before and any(before[c["name"]].get(k) != v for k, v in c.items())
    ]
    if causes:
        raise StatusError(
            422,
            f'Pod "{old["metadata"]["name"]}" is invalid: '
            + ", ".join(f"{c.field}: {c.message}" for c in causes),
            details={
                "causes": [{"reason": c.reason, "message": c.message, "field": c.field} for c in causes]
            },
        )
    _carry(new, asked)
    return new


def _with_finalizers(old: JSON, asked: JSON) -> JSON:
    """namespaces/finalize: `spec.finalizers` as asked."""
    new = copy.deepcopy(old)
    new.setdefault("spec", {})["finalizers"] = (asked.get("spec") or {}).get("finalizers") or []
    _carry(new, asked)
    return new


def _with_approval(old: JSON, asked: JSON) -> JSON:
    """certificatesigningrequests/approval: the conditions as asked."""
    new = copy.deepcopy(old)
    new.setdefault("status", {})["conditions"] = (asked.get("status") or {}).get("conditions") or []
    _carry(new, asked)
    return new


def _with_resources(old: JSON, asked: JSON) -> JSON:
    """pods/resize: the resources of containers as asked."""
    new = copy.deepcopy(old)
    wanted = {c.get("name"): c for c in (asked.get("spec") or {}).get("containers") or ()}
    for container in new["spec"]["containers"]:
        if container["name"] in wanted:
            container["resources"] = wanted[container["name"]].get("resources") or {}
    _carry(new, asked)
    return new


def _carry(new: JSON, asked: JSON) -> None:
    """Take over the preconditions that a caller put into the object."""
    for field in ("resourceVersion", "uid", "managedFields"):
        if field in (asked.get("metadata") or {}):
            new["metadata"][field] = asked["metadata"][field]
