"""Nobody gives away what they do not hold: roles, bindings, impersonation. Over TLS, against a process."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pervade.cluster.apiserver.auth.escalation import missing
from pervade.cluster.apiserver.auth.rbac import Rule
from pervade.testing.guarded import Guarded

RBAC = "/apis/rbac.authorization.k8s.io/v1"
GROUP = "rbac.authorization.k8s.io"
JSON = dict[str, Any]


def rule(groups: str, resources: str, verbs: str, **more: Any) -> JSON:
    return {
        "apiGroups": groups.split(","),
        "resources": resources.split(","),
        "verbs": verbs.split(","),
    } | more


class Room:
    """A namespace and a user in it that holds what the test gives it."""

    def __init__(self, server: Guarded) -> None:
        self.server, self.id = server, uuid.uuid4().hex[:8]
        self.namespace, self.user = f"ns-{self.id}", f"user-{self.id}"
        self.roles = f"{RBAC}/namespaces/{self.namespace}/roles"
        self.bindings = f"{RBAC}/namespaces/{self.namespace}/rolebindings"
        made = server.call("admin", "POST", "/api/v1/namespaces", {"metadata": {"name": self.namespace}})
        assert made.status == 201, made.body

    def admin(self, method: str, path: str, body: Any = None) -> None:
        done = self.server.call("admin", method, path, body)
        assert done.status in (200, 201), done.body

    def give(self, *rules: JSON, whole: bool = False) -> None:
        """Let the user have `rules`, in the namespace or (`whole`) everywhere."""
        name = f"held-{uuid.uuid4().hex[:8]}"
        kind = "ClusterRole" if whole else "Role"
        self.admin(
            "POST",
            f"{RBAC}/clusterroles" if whole else self.roles,
            {"metadata": {"name": name}, "rules": list(rules)},
        )
        self.admin(
            "POST",
            f"{RBAC}/clusterrolebindings" if whole else self.bindings,
            self.binding(name, kind, self.user),
        )

    def binding(self, role: str, kind: str = "Role", subject: str = "somebody") -> JSON:
        return {
            "metadata": {"name": f"b-{uuid.uuid4().hex[:8]}"},
            "roleRef": {"apiGroup": GROUP, "kind": kind, "name": role},
            "subjects": [{"apiGroup": GROUP, "kind": "User", "name": subject}],
        }

    def call(self, method: str, path: str, body: Any = None, **more: Any) -> Any:
        return self.server.call("admin", method, path, body, Impersonate_User=self.user, **more)


@pytest.fixture
def room(guarded: Guarded) -> Room:
    return Room(guarded)


WRITE_ROLES = rule(GROUP, "roles,rolebindings", "create,update,patch,get")


def test_a_role_may_hold_only_what_its_author_holds(room: Room) -> None:
    room.give(WRITE_ROLES, rule("", "pods", "get,list"))
    allowed = {"metadata": {"name": "mine"}, "rules": [rule("", "pods", "get")]}
    assert room.call("POST", room.roles, allowed).status == 201
    for name, bad in (
        ("verb", rule("", "pods", "get,delete")),
        ("resource", rule("", "pods,secrets", "get")),
        ("every-resource", rule("", "*", "get")),
        ("every-verb", rule("", "pods", "*")),
        ("group", rule(",apps", "pods", "get")),
        ("part", rule("", "pods/exec", "get")),
    ):
        refused = room.call("POST", room.roles, {"metadata": {"name": name}, "rules": [bad]})
        assert (refused.status, refused.body["reason"]) == (403, "Forbidden"), (name, refused.body)
        assert "attempting to grant RBAC permissions not currently held" in refused.body["message"]
    named = rule("", "pods", "get", resourceNames=["one"])
    assert room.call("POST", room.roles, {"metadata": {"name": "named"}, "rules": [named]}).status == 201


def test_an_update_escalates_as_little_as_a_creation(room: Room) -> None:
    room.give(WRITE_ROLES)
    wide = {"metadata": {"name": "wide"}, "rules": [rule("", "secrets", "get")]}
    room.admin("POST", room.roles, wide)
    kept = room.call(
        "PATCH",
        f"{room.roles}/wide",
        {"metadata": {"labels": {"a": "b"}}},
        content_type="application/merge-patch+json",
    )
    assert kept.status == 200, kept.body
    body = {"rules": [rule("", "secrets", "get,list")]}
    for kind in ("application/merge-patch+json", "application/strategic-merge-patch+json"):
        assert room.call("PATCH", f"{room.roles}/wide", body, content_type=kind).status == 403
    applied = body | {"apiVersion": f"{GROUP}/v1", "kind": "Role", "metadata": {"name": "wide"}}
    path = f"{room.roles}/wide?fieldManager=t&force=true"
    assert room.call("PATCH", path, applied, content_type="application/apply-patch+yaml").status == 403
    assert room.call("PUT", f"{room.roles}/wide", wide | body).status == 403
    assert room.server.call("admin", "GET", f"{room.roles}/wide").body["rules"] == wide["rules"]


def test_the_verb_escalate_allows_it(room: Room) -> None:
    room.give(WRITE_ROLES, rule(GROUP, "roles", "escalate"))
    assert (
        room.call("POST", room.roles, {"metadata": {"name": "wide"}, "rules": [rule("*", "*", "*")]}).status
        == 201
    )


def test_a_namespace_is_no_ground_for_a_cluster_role(room: Room) -> None:
    room.give(rule("", "pods", "get"))
    room.give(rule(GROUP, "clusterroles", "create"), whole=True)
    body = {"metadata": {"name": f"c-{room.id}"}, "rules": [rule("", "pods", "get")]}
    assert room.call("POST", f"{RBAC}/clusterroles", body).status == 403
    room.give(rule("", "pods", "get"), whole=True)
    assert room.call("POST", f"{RBAC}/clusterroles", body).status == 201


def test_an_aggregated_role_needs_everything(room: Room) -> None:
    room.give(rule(GROUP, "clusterroles", "create"), whole=True)
    selectors = [{"matchLabels": {f"{GROUP}/aggregate-to-admin": "true"}}]
    body = {
        "metadata": {"name": f"a-{room.id}"},
        "aggregationRule": {"clusterRoleSelectors": selectors},
        "rules": [],
    }
    assert room.call("POST", f"{RBAC}/clusterroles", body).status == 403


def test_a_binding_hands_out_only_what_its_author_holds_or_may_bind(room: Room) -> None:
    room.give(WRITE_ROLES, rule("", "pods", "get"))
    room.admin("POST", room.roles, {"metadata": {"name": "small"}, "rules": [rule("", "pods", "get")]})
    room.admin("POST", room.roles, {"metadata": {"name": "large"}, "rules": [rule("", "secrets", "get")]})
    assert room.call("POST", room.bindings, room.binding("small")).status == 201
    for role, kind in (("large", "Role"), ("cluster-admin", "ClusterRole"), ("admin", "ClusterRole")):
        refused = room.call("POST", room.bindings, room.binding(role, kind))
        assert (refused.status, refused.body["reason"]) == (403, "Forbidden"), (role, refused.body)
    assert room.call("POST", room.bindings, room.binding("none")).status == 404
    bound = room.binding("large")
    room.admin("POST", room.bindings, bound)
    path = f"{room.bindings}/{bound['metadata']['name']}"
    more = {"subjects": [*bound["subjects"], {"apiGroup": GROUP, "kind": "User", "name": room.user}]}
    assert room.call("PATCH", path, more, content_type="application/merge-patch+json").status == 403
    room.give(rule(GROUP, "roles", "bind", resourceNames=["large"]))
    assert room.call("POST", room.bindings, room.binding("large")).status == 201
    assert room.call("POST", room.bindings, room.binding("cluster-admin", "ClusterRole")).status == 403


def test_a_cluster_binding_to_a_role_finds_no_cluster_role(room: Room) -> None:
    made = room.server.call(
        "admin", "POST", f"{RBAC}/clusterrolebindings", room.binding("cluster-admin", "Role", room.user)
    )
    assert made.status in (201, 422)
    assert room.call("GET", "/api/v1/secrets").status == 403


def test_every_part_of_an_impersonation_is_authorised(room: Room, guarded: Guarded) -> None:
    """The controllers' certificate has no `impersonate`; parts are given to it one by one."""
    who = "controllers"

    def give(*rules: JSON) -> None:
        name = f"imp-{uuid.uuid4().hex[:8]}"
        room.admin("POST", f"{RBAC}/clusterroles", {"metadata": {"name": name}, "rules": list(rules)})
        room.admin(
            "POST",
            f"{RBAC}/clusterrolebindings",
            room.binding(name, "ClusterRole", "system:kube-controller-manager"),
        )

    def whoami(**headers: str) -> Any:
        path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
        return guarded.call(who, "POST", path, {}, Impersonate_User=room.user, **headers)

    parts = {
        "groups": (
            {"Impersonate_Group": f"g-{room.id}"},
            rule("", "groups", "impersonate", resourceNames=[f"g-{room.id}"]),
        ),
        "uids": (
            {"Impersonate_Uid": f"u-{room.id}"},
            rule("authentication.k8s.io", "uids", "impersonate", resourceNames=[f"u-{room.id}"]),
        ),
        "userextras": (
            {"Impersonate_Extra_Scopes%2fa": "view"},
            rule("authentication.k8s.io", "userextras/scopes/a", "impersonate", resourceNames=["view"]),
        ),
    }
    assert whoami().status == 403
    give(rule("", "users", "impersonate", resourceNames=[room.user]))
    assert whoami().body["status"]["userInfo"]["username"] == room.user
    for headers, _ in parts.values():
        assert whoami(**headers).status == 403, headers
    for what, (headers, right) in parts.items():
        give(right)
        assert whoami(**headers).status == 201, what
    every = {k: v for headers, _ in parts.values() for k, v in headers.items()}
    assert whoami(**every).body["status"]["userInfo"] == {
        "username": room.user,
        "uid": f"u-{room.id}",
        "groups": [f"g-{room.id}", "system:authenticated"],
        "extra": {"scopes/a": ["view"]},
    }
    assert whoami(Impersonate_Group="system:masters").status == 403
    assert whoami(Impersonate_Uid="another").status == 403
    assert guarded.call(who, "GET", "/version", Impersonate_Uid="x").status == 400
    assert guarded.call(who, "GET", "/version", **{"impersonate-group": "x"}).status == 400


_NAMES = st.frozensets(st.sampled_from(["a", "b", "*"]), min_size=1, max_size=2)
_RULES = st.builds(
    Rule,
    _NAMES,
    _NAMES,
    st.frozensets(st.sampled_from(["x", "y", "x/p", "*/p", "*"]), min_size=1, max_size=2),
    st.frozensets(st.sampled_from(["n", "m"]), max_size=2),
    st.just(()),
)


@given(st.lists(_RULES, max_size=3), st.lists(_RULES, max_size=3))
def test_what_is_not_missing_allows_nothing_new(wanted: list[Rule], held: list[Rule]) -> None:
    """If no atom is missing, each request that `wanted` allows is allowed by `held`."""
    from pervade.cluster.apiserver.rest.info import Info

    if missing(wanted, held):
        return
    for verb in ("a", "b", "c"):
        for group in ("a", "b", "c"):
            for resource, part in (("x", ""), ("y", ""), ("z", ""), ("x", "p"), ("y", "p"), ("z", "q")):
                for name in ("n", "m", "o", ""):
                    info = Info("", verb, group, "v1", resource, "", name, part)
                    if any(r.allows(info) for r in wanted):
                        assert any(r.allows(info) for r in held), info
