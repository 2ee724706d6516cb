"""May I, may they, who am I: the reviews, and kubectl's commands over them."""

from __future__ import annotations

import subprocess
import uuid
from typing import Any

import pytest

from pervade.testing.cluster import CACHE
from pervade.testing.guarded import Guarded

AUTHZ = "/apis/authorization.k8s.io/v1"


def may(server: Guarded, user: str, groups: list[str] | None = None, **what: str) -> Any:
    spec: Any = {"user": user, "groups": groups or []}
    field = "nonResourceAttributes" if "path" in what else "resourceAttributes"
    answer = server.call("admin", "POST", f"{AUTHZ}/subjectaccessreviews", {"spec": spec | {field: what}})
    assert answer.status == 201, answer.body
    return answer.body["status"]


def test_subject_access_reviews_decide_as_requests_do(guarded: Guarded) -> None:
    nodes = ["system:nodes", "system:authenticated"]
    assert may(guarded, "x", ["system:masters"], verb="*", group="*", resource="*")["allowed"]
    assert not may(guarded, "x", verb="get", resource="pods")["allowed"]
    assert may(guarded, "system:node:node-1", nodes, verb="list", resource="services")["allowed"]
    refused = may(
        guarded, "system:node:node-1", nodes, verb="get", resource="secrets", namespace="a", name="b"
    )
    assert not refused["allowed"] and "no relationship found" in refused["reason"]
    assert may(guarded, "x", ["system:unauthenticated"], verb="get", path="/version")["allowed"]
    assert not may(guarded, "x", ["system:unauthenticated"], verb="get", path="/api")["allowed"]
    assert may(guarded, "x", ["system:authenticated"], verb="get", path="/api/v1")["allowed"]


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"user": "a"},
        {"resourceAttributes": {"verb": "get"}},
        {"user": "a", "resourceAttributes": {"verb": "get"}, "nonResourceAttributes": {"path": "/"}},
    ],
)
def test_a_review_of_nothing_is_invalid(guarded: Guarded, spec: Any) -> None:
    assert guarded.call("admin", "POST", f"{AUTHZ}/subjectaccessreviews", {"spec": spec}).status == 422


def test_a_local_review_is_about_its_namespace(guarded: Guarded) -> None:
    path = f"{AUTHZ}/namespaces/default/localsubjectaccessreviews"
    spec = {"user": "a", "resourceAttributes": {"verb": "get", "resource": "pods", "namespace": "default"}}
    assert guarded.call("admin", "POST", path, {"spec": spec}).body["status"] == {"allowed": False}
    spec["resourceAttributes"]["namespace"] = "kube-system"  # type: ignore[index]
    assert guarded.call("admin", "POST", path, {"spec": spec}).status == 422


def test_the_default_roles_of_people(guarded: Guarded) -> None:
    """view reads no secrets, edit makes no roles, admin makes roles of its namespace but no quota of rights beyond it."""
    namespace = f"ns-{uuid.uuid4().hex[:8]}"
    made = guarded.call("admin", "POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
    assert made.status == 201
    api = "/apis/rbac.authorization.k8s.io/v1"
    for role in ("view", "edit", "admin"):
        group = "rbac.authorization.k8s.io"
        body = {
            "metadata": {"name": role},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": group, "kind": "User", "name": f"{role}-{namespace}"}],
        }
        assert guarded.call("admin", "POST", f"{api}/namespaces/{namespace}/rolebindings", body).status == 201

    def allowed(
        role: str, verb: str, resource: str, group: str = "", sub: str = "", where: str = namespace
    ) -> bool:
        user = f"{role}-{namespace}"
        return bool(
            may(guarded, user, verb=verb, resource=resource, group=group, subresource=sub, namespace=where)[
                "allowed"
            ]
        )

    rbac = "rbac.authorization.k8s.io"
    for role, expected in {
        "view": (True, False, False, False, False),
        "edit": (True, True, True, True, False),
        "admin": (True, True, True, True, True),
    }.items():
        assert (
            allowed(role, "list", "pods"),
            allowed(role, "create", "deployments", "apps"),
            allowed(role, "get", "secrets"),
            allowed(role, "create", "pods", "", "exec"),
            allowed(role, "create", "rolebindings", rbac),
        ) == expected, role
        assert not allowed(role, "list", "pods", where="kube-system")
        assert not allowed(role, "get", "nodes") and not allowed(role, "escalate", "roles", rbac)
        assert allowed(role, "get", "ingresses", "networking.k8s.io")


def test_nothing_but_the_administrators_role_holds_everything() -> None:
    from pervade.cluster.apiserver.auth.default_roles import CLUSTER_ROLES

    wide = {
        name
        for name, rules in CLUSTER_ROLES.items()
        for rule in rules
        if "*" in rule["verbs"] or "*" in rule.get("resources", ()) or "*" in rule.get("apiGroups", ())
    }
    assert wide == {"cluster-admin", "system:kube-controller-manager"}
    verbs = {v for rule in CLUSTER_ROLES["system:kube-controller-manager"] for v in rule["verbs"]}
    assert not verbs & {"*", "escalate", "bind", "impersonate"}


@pytest.mark.parametrize("path", ["/healthz", "/livez", "/readyz", "/version"])
def test_anonymous_gets_health_and_version(guarded: Guarded, path: str) -> None:
    assert guarded.call("", "GET", path).status == 200


@pytest.mark.parametrize("path", ["/", "/api", "/apis", "/openapi/v3", "/metrics", "/debug/store", "/healthz/ping", "/api/v1/namespaces", "/api/v1/nodes", "/none", "//api", "/version/../api", "/%61pi", "/api/v1/namespaces/default/pods/x/exec"])  # fmt: skip
def test_anonymous_gets_nothing_else(guarded: Guarded, path: str) -> None:
    refused = guarded.call("", "GET", path)
    assert (refused.status, refused.body["reason"]) == (403, "Forbidden"), refused.body
    assert guarded.call("", "POST", path, {}).status in (403, 405)


@pytest.fixture(params=["kubectl-1.32", "kubectl-1.36"])
def kubectl(request: pytest.FixtureRequest, guarded: Guarded, tmp_path: Any) -> Any:
    """`kubectl(who, *words)`: exit status and all output."""
    program = CACHE / "bin" / request.param
    if not program.exists():
        pytest.skip(f"{request.param} is not built: make kubectl")

    def run(who: str, *words: str) -> tuple[int, str]:
        config = guarded.kubeconfig(who)
        done = subprocess.run(
            [program, f"--kubeconfig={config}", f"--cache-dir={tmp_path}/cache", *words],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    return run


def test_kubectl_auth_and_create_token(kubectl: Any, guarded: Guarded) -> None:
    namespace = f"ns-{uuid.uuid4().hex[:8]}"
    assert kubectl("admin", "create", "namespace", namespace)[0] == 0
    assert kubectl("admin", "auth", "can-i", "*", "*") == (0, "yes\n")
    code, said = kubectl("services-node-1", "auth", "can-i", "get", "secrets")
    assert code == 1 and said.startswith("no")
    assert kubectl("services-node-1", "auth", "can-i", "list", "services", "-A") == (0, "yes\n")
    code, said = kubectl("services-node-1", "auth", "can-i", "--list")
    assert code == 0 and "endpointslices.discovery.k8s.io" in said and "[get list watch]" in said
    code, said = kubectl("kubelet-node-1", "auth", "whoami")
    assert code == 0 and "system:node:node-1" in said and "system:nodes" in said
    code, said = kubectl("admin", "auth", "can-i", "get", "pods", "--as=nobody")
    assert code == 1 and said.startswith("no")
    assert kubectl("admin", "create", "serviceaccount", "robot", "-n", namespace)[0] == 0
    code, token = kubectl(
        "admin", "create", "token", "robot", "-n", namespace, "--audience=ca", "--duration=20m"
    )
    assert code == 0, token
    spec = {"token": token.strip(), "audiences": ["ca"]}
    review = guarded.call("admin", "POST", "/apis/authentication.k8s.io/v1/tokenreviews", {"spec": spec})
    assert review.body["status"]["user"]["username"] == f"system:serviceaccount:{namespace}:robot"
    code, said = kubectl("admin", "create", "token", "robot", "-n", namespace, "--duration=1m")
    assert code == 1 and "may not specify a duration less than 10 minutes" in said
    code, said = kubectl(
        "services-node-1", "create", "role", "r", "--verb=get", "--resource=secrets", "-n", namespace
    )
    assert code == 1 and "forbidden" in said.lower()
