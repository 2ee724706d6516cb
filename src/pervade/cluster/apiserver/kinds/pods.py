"""Pods and pod templates: defaults, the fields a change may touch, and the common mistakes."""

from __future__ import annotations

import re
from typing import Any

from pervade.cluster.apiserver.kinds.kind import JSON, Cause

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_REQUIRED = "FieldValueRequired"
_KINDS_OF_CONTAINER = ("initContainers", "containers", "ephemeralContainers")


def default_pod(new: JSON) -> None:
    default_spec(new.setdefault("spec", {}))
    new["spec"].setdefault("enableServiceLinks", True)


def default_spec(spec: JSON) -> None:
    """The defaults of a PodSpec (core/v1)."""
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("schedulerName", "default-scheduler")
    spec.setdefault("securityContext", {})
    if spec.get("serviceAccountName") and not spec.get("serviceAccount"):
        spec["serviceAccount"] = spec["serviceAccountName"]
    if spec.get("serviceAccount") and not spec.get("serviceAccountName"):
        spec["serviceAccountName"] = spec["serviceAccount"]
    for group in _KINDS_OF_CONTAINER:
        for container in spec.get(group) or ():
            _default_container(container, host_network=bool(spec.get("hostNetwork")))
    for volume in spec.get("volumes") or ():
        _default_volume(volume)
    for toleration in spec.get("tolerations") or ():
        if toleration.get("key") is None and toleration.get("operator") is None:
            toleration["operator"] = "Exists"


def _default_container(container: JSON, *, host_network: bool) -> None:
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    container.setdefault("terminationMessagePolicy", "File")
    container.setdefault("resources", {})
    if "imagePullPolicy" not in container:
        image = str(container.get("image", ""))
        tag = image.rsplit("/", 1)[-1].partition("@")
        latest = not tag[1] and tag[0].partition(":")[2] in ("", "latest")
        container["imagePullPolicy"] = "Always" if latest else "IfNotPresent"
    for port in container.get("ports") or ():
        port.setdefault("protocol", "TCP")
        if host_network:
            port.setdefault("hostPort", port.get("containerPort"))
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        probe = container.get(name)
        if probe:
            probe.setdefault("timeoutSeconds", 1)
            probe.setdefault("periodSeconds", 10)
            probe.setdefault("successThreshold", 1)
            probe.setdefault("failureThreshold", 3)
            _default_http(probe.get("httpGet"))
    for hook in (container.get("lifecycle") or {}).values():
        if isinstance(hook, dict):
            _default_http(hook.get("httpGet"))
    for env in container.get("env") or ():
        ref = (env.get("valueFrom") or {}).get("fieldRef")
        if ref:
            ref.setdefault("apiVersion", "v1")
    resources = container["resources"]
    for name, limit in (resources.get("limits") or {}).items():
        resources.setdefault("requests", {}).setdefault(name, limit)


def _default_http(action: JSON | None) -> None:
    if action is not None:
        action.setdefault("path", "/")
        action.setdefault("scheme", "HTTP")


def _default_volume(volume: JSON) -> None:
    for name in ("configMap", "secret", "downwardAPI", "projected"):
        if isinstance(volume.get(name), dict):
            volume[name].setdefault("defaultMode", 0o644)
    if isinstance(volume.get("hostPath"), dict):
        volume["hostPath"].setdefault("type", "")
    for source in (volume.get("projected") or {}).get("sources") or ():
        if isinstance(source.get("serviceAccountToken"), dict):
            source["serviceAccountToken"].setdefault("expirationSeconds", 3600)
    downward = [volume.get("downwardAPI") or {}]
    downward += [s.get("downwardAPI") or {} for s in (volume.get("projected") or {}).get("sources") or ()]
    for one in downward:
        for item in one.get("items") or ():
            if item.get("fieldRef"):
                item["fieldRef"].setdefault("apiVersion", "v1")
    if len(volume) == 1:
        volume["emptyDir"] = {}


def qos_class(spec: JSON) -> str:
    """Guaranteed, Burstable or BestEffort (Kubernetes, "Pod Quality of Service Classes")."""
    requests: list[JSON] = []
    limits: list[JSON] = []
    for container in [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]:
        resources = container.get("resources") or {}
        requests.append(
            {k: v for k, v in (resources.get("requests") or {}).items() if k in ("cpu", "memory")}
        )
        limits.append({k: v for k, v in (resources.get("limits") or {}).items() if k in ("cpu", "memory")})
    if not any(requests) and not any(limits):
        return "BestEffort"
    full = all(
        set(lim) == {"cpu", "memory"} and req == lim for req, lim in zip(requests, limits, strict=True)
    )
    return "Guaranteed" if full else "Burstable"


def create_pod(new: JSON) -> None:
    new["status"] = {"phase": "Pending", "qosClass": qos_class(new["spec"])}


def update_pod(new: JSON, old: JSON) -> None:
    if "ephemeralContainers" in old["spec"]:
        new["spec"]["ephemeralContainers"] = old["spec"]["ephemeralContainers"]


def validate_pod(new: JSON, old: JSON | None) -> list[Cause]:
    causes = validate_spec(new["spec"], "spec")
    if old is not None:
        causes += _changed(new["spec"], old["spec"])
    return causes


def _changed(new: JSON, old: JSON) -> list[Cause]:
    """Nothing but images, deadlines, tolerations (added) and scheduling gates (removed) may change."""

    def rest(spec: JSON, other: JSON) -> JSON:
        kept = dict(spec)
        for name in ("activeDeadlineSeconds", "tolerations", "schedulingGates", "ephemeralContainers"):
            kept.pop(name, None)
        if (
            kept.get("terminationGracePeriodSeconds") == 1
            and other.get("terminationGracePeriodSeconds", 0) < 0
        ):
            kept.pop("terminationGracePeriodSeconds")
        for group in ("containers", "initContainers"):
            kept[group] = [{k: v for k, v in c.items() if k != "image"} for c in spec.get(group) or ()]
        return kept

    a, b = rest(new, old), rest(old, new)
    if a == b:
        return []
    names = sorted(k for k in {*a, *b} if a.get(k) != b.get(k))
    return [
        Cause(
            "spec",
            "Forbidden: pod updates may not change fields other than `spec.containers[*].image`,"
            "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing"
            f" tolerations),`spec.terminationGracePeriodSeconds`; changed: {', '.join(names)}",
            "FieldValueForbidden",
        )
    ]


def validate_spec(spec: JSON, path: str) -> list[Cause]:
    """The common mistakes in a PodSpec, as upstream words them."""
    causes: list[Cause] = []
    if not spec.get("containers"):
        causes.append(Cause(f"{path}.containers", "Required value", _REQUIRED))
    volumes = {v.get("name") for v in spec.get("volumes") or ()}
    names: set[str] = set()
    for group in _KINDS_OF_CONTAINER:
        for i, container in enumerate(spec.get(group) or ()):
            causes += _container_causes(container, f"{path}.{group}[{i}]", volumes, names)
    if spec.get("restartPolicy") not in ("Always", "OnFailure", "Never"):
        causes.append(
            _unsupported(f"{path}.restartPolicy", spec.get("restartPolicy"), ("Always", "OnFailure", "Never"))
        )
    policies = ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None")
    if spec.get("dnsPolicy") not in policies:
        causes.append(_unsupported(f"{path}.dnsPolicy", spec.get("dnsPolicy"), policies))
    seen: set[str] = set()
    for i, volume in enumerate(spec.get("volumes") or ()):
        name = volume.get("name") or ""
        if not _LABEL.fullmatch(name):
            causes.append(
                Cause(f"{path}.volumes[{i}].name", f'Invalid value: "{name}": must be a DNS-1123 label')
            )
        if name in seen:
            causes.append(
                Cause(f"{path}.volumes[{i}].name", f'Duplicate value: "{name}"', "FieldValueDuplicate")
            )
        seen.add(name)
    return causes


def _unsupported(field: str, value: Any, allowed: tuple[str, ...]) -> Cause:
    listed = ", ".join(f'"{a}"' for a in allowed)
    return Cause(field, f'Unsupported value: "{value}": supported values: {listed}', "FieldValueNotSupported")


def _container_causes(container: JSON, path: str, volumes: set[Any], names: set[str]) -> list[Cause]:
    causes = []
    name = container.get("name") or ""
    if not name:
        causes.append(Cause(f"{path}.name", "Required value", _REQUIRED))
    elif not _LABEL.fullmatch(name):
        causes.append(Cause(f"{path}.name", f'Invalid value: "{name}": must be a DNS-1123 label'))
    if name in names:
        causes.append(Cause(f"{path}.name", f'Duplicate value: "{name}"', "FieldValueDuplicate"))
    names.add(name)
    if not container.get("image"):
        causes.append(Cause(f"{path}.image", "Required value", _REQUIRED))
    policy = container.get("imagePullPolicy")
    if policy not in ("Always", "IfNotPresent", "Never"):
        causes.append(_unsupported(f"{path}.imagePullPolicy", policy, ("Always", "IfNotPresent", "Never")))
    privileged = bool((container.get("securityContext") or {}).get("privileged"))
    for i, mount in enumerate(container.get("volumeMounts") or ()):
        if mount.get("name") not in volumes:
            causes.append(
                Cause(
                    f"{path}.volumeMounts[{i}].name",
                    f'Not found: "{mount.get("name")}"',
                    "FieldValueNotFound",
                )
            )
        if mount.get("mountPropagation") == "Bidirectional" and not privileged:
            text = "Forbidden: Bidirectional mount propagation is available only to privileged containers"
            causes.append(Cause(f"{path}.volumeMounts[{i}].mountPropagation", text, "FieldValueForbidden"))
    for i, port in enumerate(container.get("ports") or ()):
        number = port.get("containerPort")
        if not isinstance(number, int) or not 1 <= number <= 65535:
            text = f"Invalid value: {number}: must be between 1 and 65535, inclusive"
            causes.append(Cause(f"{path}.ports[{i}].containerPort", text))
    return causes


def warn_pod(new: JSON) -> list[str]:
    """Fields this cluster's nodes do not serve."""
    spec = new["spec"]
    out = []
    known = {"name", "emptyDir", "hostPath", "configMap", "secret", "projected", "downwardAPI"}
    for volume in spec.get("volumes") or ():
        foreign = sorted(set(volume) - known)
        if foreign:
            out.append(
                f"spec.volumes[{volume.get('name')}]: {', '.join(foreign)} volumes are not served by this cluster's nodes"
            )
    out += [
        f"spec.{f} is stored, but not served by this cluster"
        for f in ("runtimeClassName", "resourceClaims")
        if spec.get(f)
    ]
    return out
