"""Role-based access control: who may do what, from the stored roles and bindings.

The index is by subject and made again after a change of any role or binding, so that a check is O(rules of
the caller). Source: Kubernetes, "Using RBAC Authorization".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec

from pervade.cluster.apiserver.auth import nodes
from pervade.cluster.apiserver.auth.user import MASTERS, User
from pervade.cluster.apiserver.kinds.kind import JSON
from pervade.cluster.apiserver.rest import present, selectors
from pervade.cluster.apiserver.rest.info import Info
from pervade.cluster.apiserver.rest.subresources import selector_text
from pervade.cluster.apiserver.store.state import State

GROUP = "rbac.authorization.k8s.io"
TABLES = tuple(f"{GROUP}/{p}" for p in ("clusterroles", "roles", "clusterrolebindings", "rolebindings"))
_ALL = "*"
_ACCOUNT = "system:serviceaccount:"
_STREAMS = frozenset({"exec", "attach", "portforward"})


class Rule(NamedTuple):
    """One PolicyRule."""

    verbs: frozenset[str]
    groups: frozenset[str]
    resources: frozenset[str]
    names: frozenset[str]
    urls: tuple[str, ...]

    @classmethod
    def of(cls, rule: JSON) -> Rule:
        verbs, groups, resources, names = (
            frozenset[str](rule.get(f) or ()) for f in ("verbs", "apiGroups", "resources", "resourceNames")
        )
        return cls(verbs, groups, resources, names, tuple(rule.get("nonResourceURLs") or ()))

    def allows(self, info: Info) -> bool:
        if _ALL not in self.verbs and info.verb not in self.verbs:
            return False
        if not info.resource:
            return any(
                u in (_ALL, info.path) or (u.endswith("*") and info.path.startswith(u[:-1]))
                for u in self.urls
            )
        if _ALL not in self.groups and info.group not in self.groups:
            return False
        if self.names and info.name not in self.names:
            return False
        if _ALL in self.resources:
            return True
        if not info.subresource:
            return info.resource in self.resources
        return (
            f"{info.resource}/{info.subresource}" in self.resources
            or f"*/{info.subresource}" in self.resources
        )


class Grant(NamedTuple):
    """Rules a subject holds, in one namespace or ("") everywhere."""

    namespace: str
    rules: tuple[Rule, ...]
    binding: str


def subject_key(subject: JSON, namespace: str) -> str:
    """The name under which a binding's subject is looked up; "" for a kind that nobody is."""
    kind, name = subject.get("kind"), str(subject.get("name", ""))
    if kind == "Group":
        return f"g:{name}"
    if kind == "ServiceAccount":
        return f"u:{_ACCOUNT}{subject.get('namespace') or namespace}:{name}"
    return f"u:{name}" if kind == "User" else ""


def index(roles: dict[tuple[str, str], JSON], bindings: Iterable[JSON]) -> dict[str, list[Grant]]:
    """Grants by subject; pure. `roles` by (namespace or "", name)."""
    made: dict[tuple[str, str], tuple[Rule, ...]] = {}
    out: dict[str, list[Grant]] = {}
    for binding in bindings:
        meta, ref = binding["metadata"], binding.get("roleRef") or {}
        namespace = meta.get("namespace", "")
        whole = ref.get("kind") == "ClusterRole"
        key = ("" if whole else namespace, str(ref.get("name", "")))
        # A cluster binding to a Role means nothing; it must not find a ClusterRole of that name.
        if key not in roles or not (whole or namespace):
            continue
        if key not in made:
            made[key] = tuple(Rule.of(r) for r in rules_of(roles[key], roles))
        grant = Grant(namespace, made[key], meta["name"])
        for subject in binding.get("subjects") or ():
            if who := subject_key(subject, namespace):
                out.setdefault(who, []).append(grant)
    return out


def rules_of(role: JSON, roles: dict[tuple[str, str], JSON]) -> list[JSON]:
    """The rules of a role; those of an aggregated ClusterRole are the union of what its selectors choose."""
    aggregation = role.get("aggregationRule")
    if not aggregation:
        return list(role.get("rules") or ())
    tests = [selectors.labels(selector_text(s)) for s in aggregation.get("clusterRoleSelectors") or ()]
    found: list[JSON] = []
    for (namespace, _), other in roles.items():
        if not namespace and other is not role and any(t(other["metadata"].get("labels")) for t in tests):
            found += other.get("rules") or ()
    return found


class Authorizer:
    """`refuse(user, info)`: None when allowed, else the reason. Roles for everyone, kubelets by `auth.nodes` too."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.nodes = nodes.Nodes(state)
        self._index: dict[str, list[Grant]] = {}
        self._roles: dict[tuple[str, str], JSON] = {}
        self._seen: tuple[int, ...] = ()

    def _refresh(self) -> None:
        seen = tuple(self.state.changed.get(t, 0) for t in TABLES)
        if seen != self._seen or not self._index:
            self._index, self._seen = self._build(), seen

    def _grants(self, user: User) -> Iterator[Grant]:
        self._refresh()
        for key in (f"u:{user.name}", *(f"g:{g}" for g in user.groups)):
            yield from self._index.get(key, ())

    def _build(self) -> dict[str, list[Grant]]:
        roles: dict[tuple[str, str], JSON] = {}
        for table in TABLES[:2]:
            for entry in self.state.entries(table):
                roles[entry.namespace, entry.name] = present.parse(entry.value)
        self._roles = roles
        return index(
            roles, (present.parse(e.value) for table in TABLES[2:] for e in self.state.entries(table))
        )

    def role_rules(self, namespace: str, name: str) -> list[Rule] | None:
        """The rules of a Role, or (namespace "") of a ClusterRole; None when there is none of that name."""
        self._refresh()
        role = self._roles.get((namespace, name))
        return None if role is None else [Rule.of(r) for r in rules_of(role, self._roles)]

    def request(self, user: User, info: Info) -> str | None:
        """`refuse` for a request as it came: a stream is `create`, also when a WebSocket has to begin with GET.

        Who may only `get` pods/exec must not run commands by choosing the other protocol (upstream asks for
        `create` here since 1.35).
        """
        if info.subresource in _STREAMS and info.resource == "pods" and info.verb == "get":
            why = self.refuse(user, msgspec.structs.replace(info, verb="create"))
            return why if why is None else f"{why}{'; ' if why else ''}a stream needs the verb create"
        return self.refuse(user, info)

    def refuse(self, user: User, info: Info) -> str | None:
        if MASTERS in user.groups:
            return None
        why = ""
        if (node := nodes.name_of(user)) is not None:
            said = self.nodes.refuse(node, info)
            if said is None:
                return None
            why = said
        for grant in self._grants(user):
            if grant.namespace and grant.namespace != info.namespace:
                continue
            if any(rule.allows(info) for rule in grant.rules):
                return None
        return why

    def rules(self, user: User, namespace: str) -> list[Rule]:
        """All rules that hold for a user in a namespace."""
        if MASTERS in user.groups:
            every = frozenset({_ALL})
            return [
                Rule(every, every, every, frozenset(), ()),
                Rule(every, frozenset(), frozenset(), frozenset(), (_ALL,)),
            ]
        return [r for g in self._grants(user) if g.namespace in ("", namespace) for r in g.rules]
