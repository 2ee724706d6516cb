"""The objects that run the cluster's DNS as a pod (Service `kube-dns`, as every cluster names it)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

JSON = dict[str, Any]
_NAME = "cluster-dns"
_NAMESPACE = "kube-system"
_LABELS = {"k8s-app": "kube-dns"}


def objects(
    *, image: str, addresses: Sequence[str], domain: str, cidrs: Sequence[str], forward: Sequence[str]
) -> list[JSON]:
    """ServiceAccount, role, binding, Service and Deployment, in the order to apply them.

    `addresses` are the Service's cluster IPs (one per family), `cidrs` the Service and pod ranges whose
    reverse names are answered, `forward` resolvers outside (`address` or `address:port`; none = SERVFAIL).
    """
    meta = {"name": _NAME, "namespace": _NAMESPACE, "labels": _LABELS}
    role = {"name": "system:cluster-dns", "labels": {"kubernetes.io/bootstrapping": "dns"}}
    families = ["IPv6" if ":" in a else "IPv4" for a in addresses]
    args = ["-m", "pervade.app.dns", "--domain", domain, "--port", "53"]
    args += [part for c in cidrs for part in ("--reverse", c)] + [
        part for f in forward for part in ("--forward", f)
    ]
    ports = [
        {"name": "dns", "protocol": "UDP", "port": 53},
        {"name": "dns-tcp", "protocol": "TCP", "port": 53},
    ]
    container = {
        "name": "dns",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", *args],
        "ports": [
            {"name": "dns", "containerPort": 53, "protocol": "UDP"},
            {"name": "dns-tcp", "containerPort": 53, "protocol": "TCP"},
            {"name": "health", "containerPort": 8181, "protocol": "TCP"},
        ],
        "readinessProbe": {
            "httpGet": {"path": "/ready", "port": "health"},
            "periodSeconds": 5,
            "failureThreshold": 1,
        },
        "livenessProbe": {
            "httpGet": {"path": "/health", "port": "health"},
            "periodSeconds": 20,
            "timeoutSeconds": 5,
        },
        "resources": {"requests": {"cpu": "50m", "memory": "60Mi"}, "limits": {"memory": "250Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
        },
    }
    pod = {
        "serviceAccountName": _NAME,
        "priorityClassName": "system-cluster-critical",
        # The cluster's own DNS must not ask itself: no cluster search list, its resolvers come as arguments.
        "dnsPolicy": "None",
        "dnsConfig": {
            "nameservers": [f.rsplit(":", 1)[0] if f.count(":") == 1 else f for f in forward] or ["127.0.0.1"]
        },
        "tolerations": [{"key": "CriticalAddonsOnly", "operator": "Exists"}],
        "containers": [container],
    }
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta},
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": role,
            "rules": [
                {"apiGroups": [""], "resources": ["services"], "verbs": ["list", "watch"]},
                {
                    "apiGroups": ["discovery.k8s.io"],
                    "resources": ["endpointslices"],
                    "verbs": ["list", "watch"],
                },
            ],
        },
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": role,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role["name"]},
            "subjects": [{"kind": "ServiceAccount", "name": _NAME, "namespace": _NAMESPACE}],
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": "kube-dns",
                "namespace": _NAMESPACE,
                "labels": _LABELS
                | {"kubernetes.io/cluster-service": "true", "kubernetes.io/name": "ClusterDNS"},
            },
            "spec": {
                "selector": _LABELS,
                "clusterIP": addresses[0],
                "clusterIPs": list(addresses),
                "ipFamilies": families,
                "ipFamilyPolicy": "SingleStack" if len(families) == 1 else "RequireDualStack",
                "ports": ports,
            },
        },
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": meta,
            "spec": {
                "replicas": 1,
                "selector": {"matchLabels": _LABELS},
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
                "template": {"metadata": {"labels": _LABELS}, "spec": pod},
            },
        },
    ]
