"""What is special about single kinds: defaults as Kubernetes sets them, fields callers may not touch, validation."""

from __future__ import annotations

import base64
import re
from typing import Any

from pervade.cluster.apiserver.kinds import custom, pods, webhooks
from pervade.cluster.apiserver.kinds.kind import JSON, Cause, Strategy

LABEL_VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")
REQUIRED = "FieldValueRequired"


def _drop_status(new: JSON) -> None:
    new.pop("status", None)


def immutable(path: str, new: Any, old: Any) -> list[Cause]:
    """One cause when `new` differs from `old`."""
    if new == old:
        return []
    return [Cause(path, f"Invalid value: {_short(new)}: field is immutable")]


def _short(value: Any) -> str:
    text = f'"{value}"' if isinstance(value, str) else str(value)
    return text[:200]


def _namespace_default(new: JSON) -> None:
    new["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = new["metadata"].get("name", "")
    spec = new.setdefault("spec", {})
    spec.setdefault("finalizers", ["kubernetes"])


def _namespace_create(new: JSON) -> None:
    new["status"] = {"phase": "Active"}


NAMESPACE = Strategy(default=_namespace_default, create=_namespace_create)
NODE = Strategy()
POD = Strategy(
    default=pods.default_pod,
    create=pods.create_pod,
    update=pods.update_pod,
    validate=pods.validate_pod,
    warn=pods.warn_pod,
)


def _template_default(spec: JSON) -> None:
    template = spec.setdefault("template", {})
    template.setdefault("metadata", {})
    pods.default_spec(template.setdefault("spec", {}))


def _workload_causes(new: JSON, old: JSON | None, *, immutable_selector: bool = True) -> list[Cause]:
    spec = new.get("spec") or {}
    causes: list[Cause] = []
    selector = spec.get("selector")
    labels = (spec.get("template", {}).get("metadata") or {}).get("labels") or {}
    if not selector or not (selector.get("matchLabels") or selector.get("matchExpressions")):
        causes.append(Cause("spec.selector", "Required value", REQUIRED))
    elif any(labels.get(k) != v for k, v in (selector.get("matchLabels") or {}).items()):
        causes.append(
            Cause(
                "spec.template.metadata.labels",
                f"Invalid value: {labels}: `selector` does not match template `labels`",
            )
        )
    if isinstance(spec.get("replicas"), int) and spec["replicas"] < 0:
        causes.append(
            Cause("spec.replicas", f"Invalid value: {spec['replicas']}: must be greater than or equal to 0")
        )
    if old is not None and immutable_selector:
        causes += immutable("spec.selector", selector, (old.get("spec") or {}).get("selector"))
    causes += pods.validate_spec(spec.get("template", {}).get("spec") or {}, "spec.template.spec")
    return causes


def _always_restarts(new: JSON) -> list[Cause]:
    policy = new["spec"]["template"]["spec"].get("restartPolicy")
    if policy == "Always":
        return []
    field = "spec.template.spec.restartPolicy"
    return [
        Cause(field, f'Unsupported value: "{policy}": supported values: "Always"', "FieldValueNotSupported")
    ]


def _deployment_default(new: JSON) -> None:
    spec = new.setdefault("spec", {})
    spec.setdefault("replicas", 1)
    spec.setdefault("revisionHistoryLimit", 10)
    spec.setdefault("progressDeadlineSeconds", 600)
    strategy = spec.setdefault("strategy", {})
    strategy.setdefault("type", "RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        rolling = strategy.get("rollingUpdate") or {}
        strategy["rollingUpdate"] = {"maxUnavailable": "25%", "maxSurge": "25%"} | rolling
    _template_default(spec)


def _deployment_validate(new: JSON, old: JSON | None) -> list[Cause]:
    causes = _workload_causes(new, old) + _always_restarts(new)
    rolling = new["spec"]["strategy"].get("rollingUpdate") or {}
    if new["spec"]["strategy"]["type"] == "Recreate" and rolling:
        causes.append(
            Cause(
                "spec.strategy.rollingUpdate",
                "Forbidden: may not be specified when strategy `type` is 'Recreate'",
                "FieldValueForbidden",
            )
        )
    if rolling and all(str(rolling.get(k)) in ("0", "0%") for k in ("maxSurge", "maxUnavailable")):
        causes.append(
            Cause(
                "spec.strategy.rollingUpdate.maxUnavailable",
                "Invalid value: 0: may not be 0 when `maxSurge` is 0",
            )
        )
    return causes


DEPLOYMENT = Strategy(default=_deployment_default, create=_drop_status, validate=_deployment_validate)


def _replica_set_default(new: JSON) -> None:
    spec = new.setdefault("spec", {})
    spec.setdefault("replicas", 1)
    _template_default(spec)


def _replica_set_validate(new: JSON, old: JSON | None) -> list[Cause]:
    return _workload_causes(new, old) + _always_restarts(new)


REPLICA_SET = Strategy(
    default=_replica_set_default,
    create=lambda o: o.__setitem__("status", {"replicas": 0}),
    validate=_replica_set_validate,
)


def _daemon_set_default(new: JSON) -> None:
    spec = new.setdefault("spec", {})
    spec.setdefault("revisionHistoryLimit", 10)
    strategy = spec.setdefault("updateStrategy", {})
    strategy.setdefault("type", "RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        strategy["rollingUpdate"] = {"maxUnavailable": 1, "maxSurge": 0} | (
            strategy.get("rollingUpdate") or {}
        )
    _template_default(spec)


def _daemon_set_create(new: JSON) -> None:
    names = ("currentNumberScheduled", "numberMisscheduled", "desiredNumberScheduled", "numberReady")
    new["status"] = dict.fromkeys(names, 0)


def _daemon_set_validate(new: JSON, old: JSON | None) -> list[Cause]:
    causes = _replica_set_validate(new, old)
    rolling = new["spec"]["updateStrategy"].get("rollingUpdate")
    if rolling:
        none = [str(rolling.get(k, 0)) in ("0", "0%") for k in ("maxUnavailable", "maxSurge")]
        field = "spec.updateStrategy.rollingUpdate"
        if all(none):
            text = f"Invalid value: {_short(rolling.get('maxUnavailable'))}: cannot be 0 when maxSurge is 0"
            causes.append(Cause(f"{field}.maxUnavailable", text))
        elif not any(none):
            text = f"Invalid value: {_short(rolling['maxSurge'])}: may not be set when maxUnavailable is non-zero"
            causes.append(Cause(f"{field}.maxSurge", text))
    return causes


DAEMON_SET = Strategy(default=_daemon_set_default, create=_daemon_set_create, validate=_daemon_set_validate)


def _stateful_set_default(new: JSON) -> None:
    spec = new.setdefault("spec", {})
    spec.setdefault("replicas", 1)
    spec.setdefault("podManagementPolicy", "OrderedReady")
    spec.setdefault("revisionHistoryLimit", 10)
    spec.setdefault("persistentVolumeClaimRetentionPolicy", {"whenDeleted": "Retain", "whenScaled": "Retain"})
    strategy = spec.setdefault("updateStrategy", {})
    strategy.setdefault("type", "RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        strategy["rollingUpdate"] = {"partition": 0} | (strategy.get("rollingUpdate") or {})
    _template_default(spec)


_STATEFUL_MUTABLE = (
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
)


def _stateful_set_validate(new: JSON, old: JSON | None) -> list[Cause]:
    causes = _replica_set_validate(new, old)
    if old is not None:
        before, after = (
            {k: v for k, v in o["spec"].items() if k not in _STATEFUL_MUTABLE and v} for o in (old, new)
        )
        if before != after:
            listed = ", ".join(f"'{name}'" for name in _STATEFUL_MUTABLE[:-1])
            text = f"updates to statefulset spec for fields other than {listed} and '{_STATEFUL_MUTABLE[-1]}' are forbidden"
            causes.append(Cause("spec", f"Forbidden: {text}", "FieldValueForbidden"))
    return causes


STATEFUL_SET = Strategy(
    default=_stateful_set_default,
    create=lambda o: o.__setitem__("status", {"replicas": 0, "availableReplicas": 0}),
    validate=_stateful_set_validate,
)


def _job_default(new: JSON) -> None:
    spec = new.setdefault("spec", {})
    if "completions" not in spec and "parallelism" not in spec:
        spec["completions"] = 1
    spec.setdefault("parallelism", 1)
    spec.setdefault("backoffLimit", 6)
    spec.setdefault("completionMode", "NonIndexed")
    spec.setdefault("suspend", False)
    spec.setdefault("manualSelector", False)
    spec.setdefault("podReplacementPolicy", "TerminatingOrFailed")
    _template_default(spec)


def _job_create(new: JSON) -> None:
    new["status"] = {}
    if new["spec"].get("manualSelector"):
        return
    labels = new["spec"]["template"]["metadata"].setdefault("labels", {})
    name, uid = new["metadata"]["name"], new["metadata"]["uid"]
    labels |= {
        "batch.kubernetes.io/controller-uid": uid,
        "batch.kubernetes.io/job-name": name,
        "controller-uid": uid,
        "job-name": name,
    }
    new["spec"]["selector"] = {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}


def _job_validate(new: JSON, old: JSON | None) -> list[Cause]:
    policy = new["spec"]["template"]["spec"].get("restartPolicy")
    causes = []
    if policy not in ("OnFailure", "Never"):
        causes.append(
            Cause(
                "spec.template.spec.restartPolicy",
                f'Unsupported value: "{policy}": supported values: "OnFailure", "Never"',
                "FieldValueNotSupported",
            )
        )
    if new["spec"].get("completionMode") == "Indexed" and new["spec"].get("completions") is None:
        text = "Required value: when completion mode is Indexed"
        causes.append(Cause("spec.completions", text, REQUIRED))
    if old is not None:
        causes += immutable(
            "spec.completions", new["spec"].get("completions"), old["spec"].get("completions")
        )
        causes += immutable("spec.template", new["spec"]["template"], old["spec"]["template"])
    return causes + pods.validate_spec(new["spec"]["template"]["spec"], "spec.template.spec")


JOB = Strategy(default=_job_default, create=_job_create, validate=_job_validate)


def _cron_job_default(new: JSON) -> None:
    spec = new.setdefault("spec", {})
    spec.setdefault("concurrencyPolicy", "Allow")
    spec.setdefault("suspend", False)
    spec.setdefault("successfulJobsHistoryLimit", 3)
    spec.setdefault("failedJobsHistoryLimit", 1)
    job = spec.setdefault("jobTemplate", {}).setdefault("spec", {})
    _template_default(job)


CRON_JOB = Strategy(default=_cron_job_default, create=lambda o: o.__setitem__("status", {}))


def _service_default(new: JSON) -> None:
    spec = new.setdefault("spec", {})
    spec.setdefault("type", "ClusterIP")
    spec.setdefault("sessionAffinity", "None")
    if spec["sessionAffinity"] == "ClientIP":
        config = spec.setdefault("sessionAffinityConfig", {}).setdefault("clientIP", {})
        config.setdefault("timeoutSeconds", 10800)
    for port in spec.get("ports") or ():
        port.setdefault("protocol", "TCP")
        if port.get("targetPort") in (None, "", 0):
            port["targetPort"] = port.get("port")
    if spec["type"] != "ExternalName":
        spec.setdefault("internalTrafficPolicy", "Cluster")
    if spec["type"] in ("NodePort", "LoadBalancer"):
        spec.setdefault("externalTrafficPolicy", "Cluster")
    if spec["type"] == "LoadBalancer":
        spec.setdefault("allocateLoadBalancerNodePorts", True)


def _service_create(new: JSON) -> None:
    new["status"] = {"loadBalancer": {}}


def _service_update(new: JSON, old: JSON) -> None:
    """What a client leaves out on an update is kept: addresses and node ports were given by the server."""
    spec, before = new["spec"], old["spec"]
    if spec["type"] == "ExternalName":
        return
    for field in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
        if not spec.get(field) and before.get(field) and before["type"] != "ExternalName":
            spec[field] = before[field]
    if spec["type"] in ("NodePort", "LoadBalancer"):
        known = {(p.get("protocol"), p["port"]): p.get("nodePort") for p in before.get("ports") or ()}
        for port in spec.get("ports") or ():
            kept = known.get((port.get("protocol"), port["port"]))
            if not port.get("nodePort") and kept:
                port["nodePort"] = kept
    else:
        spec.pop("externalTrafficPolicy", None)
        spec.pop("allocateLoadBalancerNodePorts", None)
        for port in spec.get("ports") or ():
            port.pop("nodePort", None)


def _service_validate(new: JSON, old: JSON | None) -> list[Cause]:
    spec = new["spec"]
    causes: list[Cause] = []
    if not re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", new["metadata"].get("name", "")):
        name = new["metadata"].get("name", "")
        causes.append(
            Cause("metadata.name", f'Invalid value: "{name}": a DNS-1035 label must start with a letter')
        )
    ports = spec.get("ports") or []
    headless = spec.get("clusterIP") == "None"
    if not ports and not headless and spec["type"] != "ExternalName":
        causes.append(Cause("spec.ports", "Required value", REQUIRED))
    if spec["type"] == "ExternalName" and not spec.get("externalName"):
        causes.append(Cause("spec.externalName", "Required value", REQUIRED))
    if spec["type"] not in ("ClusterIP", "NodePort", "LoadBalancer", "ExternalName"):
        kinds = '"ClusterIP", "ExternalName", "LoadBalancer", "NodePort"'
        causes.append(
            Cause(
                "spec.type",
                f'Unsupported value: "{spec["type"]}": supported values: {kinds}',
                "FieldValueNotSupported",
            )
        )
    seen: set[tuple[Any, Any]] = set()
    names: set[str] = set()
    for i, port in enumerate(ports):
        number = port.get("port")
        if not isinstance(number, int) or not 1 <= number <= 65535:
            causes.append(
                Cause(
                    f"spec.ports[{i}].port",
                    f"Invalid value: {number}: must be between 1 and 65535, inclusive",
                )
            )
        if len(ports) > 1 and not port.get("name"):
            causes.append(Cause(f"spec.ports[{i}].name", "Required value", REQUIRED))
        if port.get("name") and port["name"] in names:
            causes.append(
                Cause(f"spec.ports[{i}].name", f'Duplicate value: "{port["name"]}"', "FieldValueDuplicate")
            )
        names.add(port.get("name") or "")
        if (port.get("protocol"), number) in seen:
            causes.append(
                Cause(
                    f"spec.ports[{i}]",
                    f"Duplicate value: {port.get('protocol')}/{number}",
                    "FieldValueDuplicate",
                )
            )
        seen.add((port.get("protocol"), number))
    before = old["spec"] if old else None
    if (
        before
        and before.get("clusterIP")
        and spec["type"] != "ExternalName"
        and before["type"] != "ExternalName"
    ):
        causes += immutable("spec.clusterIP", spec.get("clusterIP"), before.get("clusterIP"))
    return causes


SERVICE = Strategy(
    default=_service_default, create=_service_create, update=_service_update, validate=_service_validate
)


def _secret_default(new: JSON) -> None:
    new.setdefault("type", "Opaque")
    plain = new.pop("stringData", None)
    if plain:
        data = new.setdefault("data", {})
        for key, value in plain.items():
            data[key] = base64.b64encode(str(value).encode()).decode()


def _secret_validate(new: JSON, old: JSON | None) -> list[Cause]:
    causes = []
    for key, value in (new.get("data") or {}).items():
        try:
            base64.b64decode(value or "", validate=True)
        except (ValueError, TypeError):
            causes.append(Cause(f"data[{key}]", "Invalid value: must be base64"))
    if old and old.get("immutable") and (new.get("data") != old.get("data")):
        causes.append(
            Cause("data", "Forbidden: field is immutable when `immutable` is set", "FieldValueForbidden")
        )
    if old:
        causes += immutable("type", new.get("type"), old.get("type"))
    return causes


def _slice_default(new: JSON) -> None:
    for port in new.get("ports") or ():
        port.setdefault("name", "")
        port.setdefault("protocol", "TCP")


ENDPOINT_SLICE = Strategy(default=_slice_default)
SECRET = Strategy(default=_secret_default, validate=_secret_validate)


def _config_map_validate(new: JSON, old: JSON | None) -> list[Cause]:
    if (
        old
        and old.get("immutable")
        and (new.get("data"), new.get("binaryData")) != (old.get("data"), old.get("binaryData"))
    ):
        return [Cause("data", "Forbidden: field is immutable when `immutable` is set", "FieldValueForbidden")]
    return [
        Cause(f"data[{k}]", "Invalid value: must be a string")
        for k, v in (new.get("data") or {}).items()
        if not isinstance(v, str)
    ]


CONFIG_MAP = Strategy(validate=_config_map_validate)


def _role_binding_validate(new: JSON, old: JSON | None) -> list[Cause]:
    ref = new.get("roleRef") or {}
    causes = [] if ref.get("name") else [Cause("roleRef.name", "Required value", REQUIRED)]
    if old is not None and ref != old.get("roleRef"):
        causes.append(Cause("roleRef", f"Invalid value: {ref}: cannot change roleRef"))
    return causes


def _role_binding_default(new: JSON) -> None:
    new.setdefault("roleRef", {}).setdefault("apiGroup", "rbac.authorization.k8s.io")
    for subject in new.get("subjects") or ():
        if subject.get("kind") in ("User", "Group"):
            subject.setdefault("apiGroup", "rbac.authorization.k8s.io")


ROLE_BINDING = Strategy(default=_role_binding_default, validate=_role_binding_validate)


WEBHOOKS = webhooks.STRATEGY


def _crd_default(new: JSON) -> None:
    spec = new.setdefault("spec", {})
    names = spec.setdefault("names", {})
    if names.get("kind"):
        names.setdefault("singular", names["kind"].lower())
        names.setdefault("listKind", names["kind"] + "List")
    spec.setdefault("conversion", {"strategy": "None"})


CRD = Strategy(default=_crd_default, create=_drop_status, validate=custom.validate)

_NOBODY = {
    "HorizontalPodAutoscaler": "stored, but this cluster scales nothing by itself",
    "NetworkPolicy": "stored, but this cluster enforces no NetworkPolicy",
    "Ingress": "stored, but this cluster runs no ingress controller; use a Gateway or a LoadBalancer Service",
    "PersistentVolumeClaim": "stored, but this cluster has no volume provisioner; it stays Pending",
    "LimitRange": "stored, but not enforced by this cluster",
    "ResourceQuota": "stored, but not enforced by this cluster",
    "ReplicationController": "stored, but no controller serves it; use a Deployment",
    "CertificateSigningRequest": "stored, but no signer serves it",
    "ValidatingAdmissionPolicy": "stored, but not evaluated by this cluster",
    "ValidatingAdmissionPolicyBinding": "stored, but not evaluated by this cluster",
}


def _stored_default(new: JSON) -> None:
    """Fields that every client may rely on, in kinds no controller here serves."""
    spec = new.get("spec") or {}
    if new["kind"] == "HorizontalPodAutoscaler":
        new["spec"] = {"minReplicas": 1} | spec
    elif new["kind"] == "PersistentVolumeClaim":
        new["spec"] = {"volumeMode": "Filesystem"} | spec
        new["status"] = {"phase": "Pending"} | (new.get("status") or {})
    elif new["kind"] == "PersistentVolume":
        new["spec"] = {"volumeMode": "Filesystem", "persistentVolumeReclaimPolicy": "Retain"} | spec
        new["status"] = {"phase": "Pending"} | (new.get("status") or {})


VOLUME = Strategy(default=_stored_default)
UNSERVED = Strategy(default=_stored_default, warn=lambda new: [f"{new['kind']}: {_NOBODY[new['kind']]}"])
