"""Nobody gives away more than they hold: the checks on writes of roles and bindings.

A Role or ClusterRole may hold only what its author holds, unless the author has the verb `escalate` on it;
a binding may hand out only what its author holds, unless the author has the verb `bind` on the role.
Source: Kubernetes, "Using RBAC Authorization", privilege escalation prevention and bootstrapping.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from pervade.cluster.apiserver.auth.rbac import GROUP, Authorizer, Rule
from pervade.cluster.apiserver.auth.user import MASTERS, User
from pervade.cluster.apiserver.kinds.kind import JSON, Kind
from pervade.cluster.apiserver.rest import status
from pervade.cluster.apiserver.rest.info import Info
from pervade.cluster.apiserver.rest.status import StatusError

ROLES = (f"{GROUP}/roles", f"{GROUP}/clusterroles")
BINDINGS = (f"{GROUP}/rolebindings", f"{GROUP}/clusterrolebindings")
_SHOWN = 5


def atoms(rule: Rule) -> Iterator[Rule]:
    """A rule as rules of one verb on one resource (or path) each; O(verbs × groups × resources)."""
    for verb in sorted(rule.verbs):
        for url in rule.urls:
            yield Rule(frozenset((verb,)), frozenset(), frozenset(), frozenset(), (url,))
        for group, resource in itertools.product(sorted(rule.groups), sorted(rule.resources)):
            yield Rule(frozenset((verb,)), frozenset((group,)), frozenset((resource,)), rule.names, ())


def covered(wanted: Rule, held: Rule) -> bool:
    """Whether one rule held allows everything that the atom `wanted` would allow. Pure."""
    if "*" not in held.verbs and not wanted.verbs <= held.verbs:
        return False
    if wanted.urls:
        return all(any(_path_covered(url, one) for one in held.urls) for url in wanted.urls)
    if "*" not in held.groups and not wanted.groups <= held.groups:
        return False
    if held.names and not (wanted.names and wanted.names <= held.names):
        return False
    return all(_resource_covered(resource, held.resources) for resource in wanted.resources)


def _path_covered(wanted: str, held: str) -> bool:
    return held == wanted or (held.endswith("*") and wanted.rstrip("*").startswith(held[:-1]))


def _resource_covered(wanted: str, held: frozenset[str]) -> bool:
    if "*" in held or wanted in held:
        return True
    _, slash, part = wanted.partition("/")
    return bool(slash) and f"*/{part}" in held


def missing(wanted: Iterable[Rule], held: Sequence[Rule]) -> list[Rule]:
    """The atoms of `wanted` that nothing in `held` covers; O(atoms × held). Pure."""
    return [a for rule in wanted for a in atoms(rule) if not any(covered(a, one) for one in held)]


class Escalation:
    """`check(user, kind, new, old)` before a role or binding is stored; StatusError 403 (404 for a role that is not there)."""

    def __init__(self, authorizer: Authorizer) -> None:
        self.authorizer = authorizer

    def check(self, user: User, kind: Kind, new: JSON, old: JSON | None) -> None:
        """Raises StatusError; an update that changes neither rules, role nor subjects is everyone's."""
        if MASTERS in user.groups or kind.table not in (*ROLES, *BINDINGS):
            return
        if kind.table in ROLES:
            self._role(user, kind, new, old)
        else:
            self._binding(user, kind, new, old)

    def _role(self, user: User, kind: Kind, new: JSON, old: JSON | None) -> None:
        fields = ("rules", "aggregationRule")
        if old is not None and all((new.get(f) or None) == (old.get(f) or None) for f in fields):
            return
        meta = new["metadata"]
        namespace, name = meta.get("namespace", ""), meta.get("name", "")
        if self._may(user, "escalate", kind.plural, name, namespace):
            return
        wanted = [Rule.of(r) for r in new.get("rules") or ()]
        if new.get("aggregationRule"):
            # What it will hold is not known yet: it needs everything.
            every = frozenset("*")
            wanted += [
                Rule(every, every, every, frozenset(), ()),
                Rule(every, frozenset(), frozenset(), frozenset(), ("*",)),
            ]
        self._refuse(user, kind, name, missing(wanted, self.authorizer.rules(user, namespace)))

    def _binding(self, user: User, kind: Kind, new: JSON, old: JSON | None) -> None:
        if old is not None and all(
            (new.get(f) or None) == (old.get(f) or None) for f in ("roleRef", "subjects")
        ):
            return
        meta, ref = new["metadata"], new.get("roleRef") or {}
        namespace, name = meta.get("namespace", ""), str(ref.get("name") or "")
        plural = "clusterroles" if ref.get("kind") == "ClusterRole" else "roles"
        if self._may(user, "bind", plural, name, namespace):
            return
        rules = self.authorizer.role_rules("" if plural == "clusterroles" else namespace, name)
        if rules is None:
            raise StatusError(
                404,
                f'{plural}.{GROUP} "{name}" not found',
                details={"name": name, "group": GROUP, "kind": plural},
            )
        lacking = missing(rules, self.authorizer.rules(user, namespace))
        self._refuse(user, kind, meta.get("name", ""), lacking)

    def _may(self, user: User, verb: str, plural: str, name: str, namespace: str) -> bool:
        asked = Info("", verb, GROUP, "v1", plural, namespace, name)
        return self.authorizer.refuse(user, asked) is None

    def _refuse(self, user: User, kind: Kind, name: str, lacking: list[Rule]) -> None:
        if not lacking:
            return
        shown = [msgspec.json.encode(_plain(r)).decode() for r in lacking[:_SHOWN]]
        more = f" and {len(lacking) - _SHOWN} more" if len(lacking) > _SHOWN else ""
        groups = msgspec.json.encode(list(user.groups)).decode()
        why = (
            f'user "{user.name}" (groups={groups}) is attempting to grant RBAC permissions not currently held:'
            f" {', '.join(shown)}{more}"
        )
        raise status.forbidden(kind, name, why)


def _plain(rule: Rule) -> JSON:
    found: JSON = {"verbs": sorted(rule.verbs)}
    if rule.urls:
        return {"nonResourceURLs": list(rule.urls)} | found
    named = {"resourceNames": sorted(rule.names)} if rule.names else {}
    return {"apiGroups": sorted(rule.groups), "resources": sorted(rule.resources)} | named | found
