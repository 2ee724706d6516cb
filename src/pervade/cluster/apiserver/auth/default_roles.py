"""The roles and bindings that exist from the start (Kubernetes, "Default roles and role bindings")."""

from __future__ import annotations

from pervade.cluster.apiserver.auth.rbac import GROUP
from pervade.cluster.apiserver.kinds.kind import JSON

_READ = ["get", "list", "watch"]
_WRITE = ["create", "delete", "deletecollection", "patch", "update"]
_WORKLOADS = [
    "daemonsets",
    "deployments",
    "deployments/scale",
    "replicasets",
    "replicasets/scale",
    "statefulsets",
]
_WORKLOADS += ["statefulsets/scale", "controllerrevisions"]
_CORE = [
    "configmaps",
    "endpoints",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "serviceaccounts",
]
_CORE += ["services", "events", "pods/log", "pods/status", "namespaces", "limitranges", "resourcequotas"]


def _rule(groups: str, resources: list[str], verbs: list[str]) -> JSON:
    return {"apiGroups": groups.split(",") if groups else [""], "resources": resources, "verbs": verbs}


def _urls(*urls: str) -> JSON:
    return {"nonResourceURLs": list(urls), "verbs": ["get"]}


_VIEW = [
    _rule("", _CORE, _READ),
    _rule("apps", [*_WORKLOADS, "deployments/status", "replicasets/status"], _READ),
    _rule("batch", ["jobs", "cronjobs"], _READ),
    _rule("autoscaling", ["horizontalpodautoscalers", "horizontalpodautoscalers/status"], _READ),
    _rule("policy", ["poddisruptionbudgets", "poddisruptionbudgets/status"], _READ),
    _rule("networking.k8s.io", ["ingresses", "ingresses/status", "networkpolicies"], _READ),
    _rule("discovery.k8s.io", ["endpointslices"], _READ),
]
_EDIT = [
    _rule(
        "",
        [
            *_CORE[:7],
            "secrets",
            "pods/attach",
            "pods/exec",
            "pods/portforward",
            "pods/proxy",
            "pods/eviction",
        ],
        _WRITE,
    ),
    _rule(
        "", ["secrets", "pods/attach", "pods/exec", "pods/portforward", "pods/proxy", "services/proxy"], _READ
    ),
    _rule("", ["serviceaccounts/token"], ["create"]),
    _rule("", ["serviceaccounts"], ["impersonate"]),
    _rule("apps", _WORKLOADS, _WRITE),
    _rule("batch", ["jobs", "cronjobs"], _WRITE),
    _rule("autoscaling", ["horizontalpodautoscalers"], _WRITE),
    _rule("policy", ["poddisruptionbudgets"], _WRITE),
    _rule("networking.k8s.io", ["ingresses", "networkpolicies"], _WRITE),
]
_ADMIN = [
    _rule(GROUP, ["roles", "rolebindings"], [*_READ, *_WRITE]),
    _rule("authorization.k8s.io", ["localsubjectaccessreviews"], ["create"]),
]
# For reference and for other bindings: kubelets themselves have their rights from `auth.nodes`, which knows
# whose pod is whose, and this role has no binding (upstream since 1.8).
_NODE = [
    _rule("authentication.k8s.io", ["tokenreviews"], ["create"]),
    _rule("authorization.k8s.io", ["subjectaccessreviews", "localsubjectaccessreviews"], ["create"]),
    _rule(
        "",
        ["nodes", "nodes/status", "events", "pods", "pods/status"],
        ["create", "delete", "get", "patch", "update"],
    ),
    _rule("", ["nodes", "pods", "services", "secrets", "configmaps", "serviceaccounts"], _READ),
    _rule("", ["pods/eviction", "serviceaccounts/token"], ["create"]),
    _rule("coordination.k8s.io", ["leases"], ["create", "delete", "get", "patch", "update"]),
    _rule("node.k8s.io", ["runtimeclasses"], _READ),
    _rule("discovery.k8s.io", ["endpointslices"], _READ),
]
_CONTROLLERS = [
    # Garbage and ending namespaces reach objects of every kind, custom ones included: owners are looked up,
    # finalizers and references taken off. No `escalate`, `bind`, `impersonate`, and no create but these.
    _rule("*", ["*"], ["delete", "deletecollection", "get", "list", "patch", "update", "watch"]),
    _rule(
        "",
        ["configmaps", "endpoints", "events", "pods", "pods/binding", "pods/eviction", "serviceaccounts"],
        ["create"],
    ),
    _rule("events.k8s.io", ["events"], ["create"]),
    _rule("apps", ["controllerrevisions", "replicasets"], ["create"]),
    _rule("batch", ["jobs"], ["create"]),
    _rule("discovery.k8s.io", ["endpointslices"], ["create"]),
    _rule("coordination.k8s.io", ["leases"], ["create"]),
    _urls("*"),
]
_PROXIER = [
    _rule("", ["services", "endpoints", "nodes"], _READ),
    _rule("discovery.k8s.io", ["endpointslices"], _READ),
    _rule(",events.k8s.io", ["events"], ["create", "patch", "update"]),
]
_PATHS = ["/healthz", "/livez", "/readyz", "/version", "/version/"]
_DISCOVERY = ["/api", "/api/*", "/apis", "/apis/*", "/openapi", "/openapi/*", *_PATHS]
_DNS = [
    _rule("", ["services", "endpoints", "pods", "namespaces"], _READ),
    _rule("discovery.k8s.io", ["endpointslices"], _READ),
]

CLUSTER_ROLES: dict[str, list[JSON]] = {
    "cluster-admin": [_rule("*", ["*"], ["*"]), {"nonResourceURLs": ["*"], "verbs": ["*"]}],
    "system:aggregate-to-admin": _ADMIN,
    "system:aggregate-to-edit": _EDIT,
    "system:aggregate-to-view": _VIEW,
    "system:basic-user": [
        _rule("authorization.k8s.io", ["selfsubjectaccessreviews", "selfsubjectrulesreviews"], ["create"]),
        _rule("authentication.k8s.io", ["selfsubjectreviews"], ["create"]),
    ],
    "system:discovery": [_urls(*_DISCOVERY)],
    "system:public-info-viewer": [_urls(*_PATHS)],
    "system:service-account-issuer-discovery": [
        _urls("/.well-known/openid-configuration", "/openid/v1/jwks")
    ],
    "system:monitoring": [
        _urls("/metrics", "/healthz", "/healthz/*", "/livez", "/livez/*", "/readyz", "/readyz/*")
    ],
    "system:auth-delegator": [
        _rule("authentication.k8s.io", ["tokenreviews"], ["create"]),
        _rule("authorization.k8s.io", ["subjectaccessreviews"], ["create"]),
    ],
    "system:node": _NODE,
    "system:node-proxier": _PROXIER,
    "system:kube-dns": _DNS,
    "system:kube-controller-manager": _CONTROLLERS,
}
_AGGREGATED = {"admin": ("admin", "edit", "view"), "edit": ("edit", "view"), "view": ("view",)}
_GROUPS, _USERS = "Group", "User"
BINDINGS = (
    ("cluster-admin", "cluster-admin", _GROUPS, "system:masters"),
    ("system:basic-user", "system:basic-user", _GROUPS, "system:authenticated"),
    ("system:discovery", "system:discovery", _GROUPS, "system:authenticated"),
    ("system:public-info-viewer", "system:public-info-viewer", _GROUPS, "system:authenticated,system:unauthenticated"),
    ("system:service-account-issuer-discovery", "system:service-account-issuer-discovery", _GROUPS, "system:serviceaccounts"),
    ("system:monitoring", "system:monitoring", _GROUPS, "system:monitoring"),
    ("system:node", "system:node", _GROUPS, ""),
    ("system:node-proxier", "system:node-proxier", _USERS, "system:kube-proxy"),
    ("system:kube-controller-manager", "system:kube-controller-manager", _USERS, "system:kube-controller-manager"),
)  # fmt: skip
_API = f"{GROUP}/v1"


def _meta(name: str, **labels: str) -> JSON:
    annotations = {"rbac.authorization.kubernetes.io/autoupdate": "true"}
    return {
        "name": name,
        "labels": {"kubernetes.io/bootstrapping": "rbac-defaults", **labels},
        "annotations": annotations,
    }


def renewed(obj: JSON) -> bool:
    """Whether an object of an earlier run is brought to its present form at start-up: what only the system uses."""
    return obj["metadata"]["name"] in ("system:node", "system:node-proxier", "system:kube-controller-manager")


def objects() -> list[tuple[str, JSON]]:
    """(plural, object) of everything that has to exist."""
    found: list[tuple[str, JSON]] = []
    for name, rules in CLUSTER_ROLES.items():
        labels = {}
        if name.startswith("system:aggregate-to-"):
            labels = {f"{GROUP}/aggregate-to-{name.rpartition('-')[2]}": "true"}
        found.append(
            (
                "clusterroles",
                {
                    "apiVersion": _API,
                    "kind": "ClusterRole",
                    "metadata": _meta(name, **labels),
                    "rules": rules,
                },
            )
        )
    for name, parts in _AGGREGATED.items():
        chosen = [{"matchLabels": {f"{GROUP}/aggregate-to-{p}": "true"}} for p in parts]
        body = {"apiVersion": _API, "kind": "ClusterRole", "metadata": _meta(name)}
        found.append(
            ("clusterroles", body | {"aggregationRule": {"clusterRoleSelectors": chosen}, "rules": []})
        )
    for name, role, kind, subjects in BINDINGS:
        listed = [{"kind": kind, "name": s, "apiGroup": GROUP} for s in subjects.split(",") if s]
        ref = {"apiGroup": GROUP, "kind": "ClusterRole", "name": role}
        body = {"apiVersion": _API, "kind": "ClusterRoleBinding", "metadata": _meta(name)}
        found.append(("clusterrolebindings", body | {"roleRef": ref, "subjects": listed}))
    return found
