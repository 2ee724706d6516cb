"""From a pod to what containerd wants: sandbox and container configurations as dictionaries. Pure.

Field names are CRI's (runtime.v1). Namespace modes: POD 0, CONTAINER 1, NODE 2, TARGET 3.
"""

from __future__ import annotations

import re
from typing import Any

from pervade.cluster.kubelet import environment, quantity

JSON = dict[str, Any]
POD, CONTAINER, NODE, TARGET = 0, 1, 2, 3
_PROPAGATION = {"None": 0, "HostToContainer": 1, "Bidirectional": 2}
IMAGE = "pervade.dev/image"
"""Annotation of a container: the image as the pod named it when the container was made."""
_WRITTEN_BY_THE_NODE = {"configMap", "secret", "downwardAPI", "projected"}
_SECCOMP = {"RuntimeDefault": 0, "Unconfined": 1, "Localhost": 2}


def labels(pod: JSON, container: str | None = None) -> dict[str, str]:
    """How our sandboxes and containers are found again after a restart."""
    meta = pod["metadata"]
    out = {
        "io.kubernetes.pod.name": meta["name"],
        "io.kubernetes.pod.namespace": meta["namespace"],
        "io.kubernetes.pod.uid": meta["uid"],
    }
    return out | ({"io.kubernetes.container.name": container} if container else {})


def namespaces(pod: JSON, target: str | None = None) -> JSON:
    """The namespace options that sandbox and containers must both be given."""
    spec = pod["spec"]
    pid = NODE if spec.get("hostPID") else POD if spec.get("shareProcessNamespace") else CONTAINER
    out: JSON = {
        "network": NODE if spec.get("hostNetwork") else POD,
        "pid": pid,
        "ipc": NODE if spec.get("hostIPC") else POD,
    }
    if target:
        out |= {"pid": TARGET, "target_id": target}
    return out


def qos_group(pod: JSON) -> str:
    """The folder of the pod's quality of service below `kubepods`."""
    return {"Guaranteed": "", "Burstable": "/burstable"}.get(
        (pod.get("status") or {}).get("qosClass", ""), "/besteffort"
    )


def pod_cgroup(pod: JSON, root: str) -> str:
    return f"{root}/kubepods{qos_group(pod)}/pod{pod['metadata']['uid']}"


def hostname(pod: JSON) -> str:
    return str(pod["spec"].get("hostname") or pod["metadata"]["name"])[:63].rstrip("-.")


def dns(pod: JSON, *, server: str, domain: str, node_servers: list[str]) -> JSON:
    """The pod's resolv.conf by dnsPolicy and dnsConfig."""
    spec, namespace = pod["spec"], pod["metadata"]["namespace"]
    policy = spec.get("dnsPolicy", "ClusterFirst")
    cluster = policy == "ClusterFirstWithHostNet" or (
        policy == "ClusterFirst" and not spec.get("hostNetwork")
    )
    out: JSON = {"servers": [], "searches": [], "options": []}
    if cluster:
        searches = [f"{namespace}.svc.{domain}", f"svc.{domain}", domain]
        out = {"servers": [server], "searches": searches, "options": ["ndots:5"]}
    elif policy != "None":
        out["servers"] = node_servers
    config = spec.get("dnsConfig") or {}
    options = {o.partition(":")[0]: o for o in out["options"]}
    for option in config.get("options") or ():
        value = option.get("value")
        options[option["name"]] = f"{option['name']}:{value}" if value else option["name"]
    return {
        "servers": [*out["servers"], *(config.get("nameservers") or ())][:3],
        "searches": [*out["searches"], *(config.get("searches") or ())],
        "options": list(options.values()),
    }


def privileged(pod: JSON) -> bool:
    spec = pod["spec"]
    groups = ("containers", "initContainers", "ephemeralContainers")
    return any((c.get("securityContext") or {}).get("privileged") for g in groups for c in spec.get(g) or ())


def sandbox(pod: JSON, attempt: int, *, cgroup: str, dns_config: JSON) -> JSON:
    """PodSandboxConfig."""
    meta, spec = pod["metadata"], pod["spec"]
    ports = [
        {
            "protocol": {"TCP": 0, "UDP": 1, "SCTP": 2}[p.get("protocol", "TCP")],
            "container_port": p["containerPort"],
            "host_port": p["hostPort"],
            "host_ip": p.get("hostIP", ""),
        }
        for c in spec["containers"]
        for p in c.get("ports") or ()
        if p.get("hostPort") and not spec.get("hostNetwork")
    ]
    security = spec.get("securityContext") or {}
    context: JSON = {"namespace_options": namespaces(pod), "privileged": privileged(pod)}
    context["seccomp"] = _seccomp(security.get("seccompProfile"))
    return {
        "metadata": {
            "name": meta["name"],
            "uid": meta["uid"],
            "namespace": meta["namespace"],
            "attempt": attempt,
        },
        "hostname": "" if spec.get("hostNetwork") else hostname(pod),
        "log_directory": log_folder(pod),
        "dns_config": dns_config,
        "port_mappings": ports,
        "labels": labels(pod),
        "linux": {
            "cgroup_parent": cgroup,
            "security_context": context,
            "sysctls": {s["name"]: s["value"] for s in security.get("sysctls") or ()},
        },
    }


def log_folder(pod: JSON) -> str:
    """The pod's log folder as the node sees it."""
    meta = pod["metadata"]
    return f"/var/log/pods/{meta['namespace']}_{meta['name']}_{meta['uid']}"


def _seccomp(profile: JSON | None) -> JSON:
    kind = (profile or {}).get("type", "Unconfined")
    out: JSON = {"profile_type": _SECCOMP.get(kind, 1)}
    if kind == "Localhost":
        out["localhost_ref"] = f"/var/lib/kubelet/seccomp/{(profile or {}).get('localhostProfile', '')}"
    return out


def resources(container: JSON, pod: JSON, node_memory: int) -> JSON:
    """LinuxContainerResources: shares, quota, memory and the OOM score by quality of service."""
    held = container.get("resources") or {}
    limits, requests = held.get("limits") or {}, held.get("requests") or {}
    out: JSON = {"cpu_period": 100_000, "cpu_shares": 2}
    if "cpu" in requests:
        out["cpu_shares"] = max(2, quantity.milli_cpu(requests["cpu"]) * 1024 // 1000)
    if "cpu" in limits:
        out["cpu_quota"] = max(1000, quantity.milli_cpu(limits["cpu"]) * 100)
    if "memory" in limits:
        out["memory_limit_in_bytes"] = quantity.in_bytes(limits["memory"])
    quality = (pod.get("status") or {}).get("qosClass", "BestEffort")
    out["oom_score_adj"] = {"Guaranteed": -997, "BestEffort": 1000}.get(quality, 999)
    if quality == "Burstable" and "memory" in requests and node_memory:
        share = 1000 - 1000 * quantity.in_bytes(requests["memory"]) // node_memory
        out["oom_score_adj"] = min(max(share, 3), 999)
    return out


def security(container: JSON, pod: JSON, target: str | None = None, image_uid: int | None = None) -> JSON:
    """LinuxContainerSecurityContext from the container's and the pod's settings; `image_uid` is the image's user."""
    whole, own = pod["spec"].get("securityContext") or {}, container.get("securityContext") or {}
    merged = {**whole, **own}
    out: JSON = {"namespace_options": namespaces(pod, target), "privileged": bool(own.get("privileged"))}
    if (caps := own.get("capabilities")) is not None:
        out["capabilities"] = {
            "add_capabilities": caps.get("add") or [],
            "drop_capabilities": caps.get("drop") or [],
        }
    if merged.get("runAsUser") is not None:
        out["run_as_user"] = {"value": int(merged["runAsUser"])}
    if merged.get("runAsGroup") is not None:
        # containerd takes a group only together with a user.
        out.setdefault("run_as_user", {"value": image_uid or 0})
        out["run_as_group"] = {"value": int(merged["runAsGroup"])}
    groups = list(whole.get("supplementalGroups") or [])
    if whole.get("fsGroup") is not None:
        groups.append(whole["fsGroup"])
    out["supplemental_groups"] = [int(g) for g in groups]
    out["readonly_rootfs"] = bool(own.get("readOnlyRootFilesystem"))
    out["no_new_privs"] = own.get("allowPrivilegeEscalation") is False
    out["seccomp"] = _seccomp(merged.get("seccompProfile"))
    if out["privileged"]:
        out["seccomp"] = {"profile_type": 1}
    else:
        hidden = ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats",
                  "/proc/sched_debug", "/proc/scsi", "/sys/firmware"]  # fmt: skip
        if own.get("procMount") != "Unmasked":
            out["masked_paths"] = hidden
            out["readonly_paths"] = [
                "/proc/asound",
                "/proc/bus",
                "/proc/fs",
                "/proc/irq",
                "/proc/sys",
                "/proc/sysrq-trigger",
            ]
    return {k: v for k, v in out.items() if v is not None}


def mounts(
    container: JSON, pod: JSON, folders: dict[str, str], env: dict[str, str]
) -> list[tuple[JSON, str]]:
    """(mount, subPath or "") of the container's volumes; `folders` maps a volume to its folder on the node.

    What the node writes (configMap, secret, downwardAPI, projected) is read-only whatever the container asks.
    """
    out = []
    fixed = {v["name"] for v in pod["spec"].get("volumes") or () if _WRITTEN_BY_THE_NODE.intersection(v)}
    for one in container.get("volumeMounts") or ():
        sub = environment.expand(one["subPathExpr"], env) if one.get("subPathExpr") else one.get("subPath")
        if sub and (sub.startswith("/") or ".." in sub.split("/")):
            raise environment.Missing(f"subPath {sub!r} leaves the volume")
        mount = {
            "container_path": one["mountPath"],
            "host_path": folders[one["name"]],
            "readonly": bool(one.get("readOnly")) or one["name"] in fixed,
            "propagation": _PROPAGATION[one.get("mountPropagation") or "None"],
        }
        out.append((mount, sub or ""))
    return out


def container_config(
    container: JSON,
    pod: JSON,
    *,
    attempt: int,
    image: str,
    env: dict[str, str],
    mount_list: list[JSON],
    node_memory: int,
    target: str | None = None,
    image_uid: int | None = None,
) -> JSON:
    """ContainerConfig."""
    name = container["name"]
    out: JSON = {
        "metadata": {"name": name, "attempt": attempt},
        "image": {"image": image},
        "command": [environment.expand(c, env) for c in container.get("command") or ()],
        "args": [environment.expand(a, env) for a in container.get("args") or ()],
        "working_dir": container.get("workingDir") or "",
        "envs": [{"key": k, "value": v} for k, v in env.items()],
        "mounts": mount_list,
        "labels": labels(pod, name),
        "annotations": {IMAGE: container["image"]},
        "log_path": f"{name}/{attempt}.log",
        "stdin": bool(container.get("stdin")),
        "stdin_once": bool(container.get("stdinOnce")),
        "tty": bool(container.get("tty")),
        "linux": {
            "resources": resources(container, pod, node_memory),
            "security_context": security(container, pod, target, image_uid),
        },
    }
    return out


def hosts_file(pod: JSON, addresses: list[str], domain: str) -> str:
    """The pod's /etc/hosts."""
    lines = [
        "# Kubernetes-managed hosts file.",
        "127.0.0.1\tlocalhost",
        "::1\tlocalhost ip6-localhost ip6-loopback",
    ]
    name, spec = hostname(pod), pod["spec"]
    full = (
        f"{name}.{spec['subdomain']}.{pod['metadata']['namespace']}.svc.{domain}"
        if spec.get("subdomain")
        else ""
    )
    lines += [f"{a}\t{full + chr(9) if full else ''}{name}" for a in addresses]
    if spec.get("hostAliases"):
        lines.append("# Entries added by HostAliases.")
        lines += [f"{a['ip']}\t{chr(9).join(a.get('hostnames') or ())}" for a in spec["hostAliases"]]
    return "\n".join(lines) + "\n"


def is_root(user: str) -> bool:
    """Whether an image's user text means root (or a name we cannot tell from it)."""
    return not re.fullmatch(r"[1-9]\d*(:.*)?", user)
