"""Who calls: client certificates, tokens of service accounts, impersonation. Anything bad is 401, never anonymous."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from pervade.cluster.apiserver.auth.tokens import TokenError, Tokens
from pervade.cluster.apiserver.auth.user import ANONYMOUS, AUTHENTICATED, UNAUTHENTICATED, User
from pervade.cluster.apiserver.rest.info import Info
from pervade.cluster.apiserver.rest.status import StatusError
from pervade.wire.http import web

Allowed = Callable[[User, Info], str | None]
_ACCOUNT = "system:serviceaccount:"


def certificate_user(certificate: Any) -> User | None:
    """The user that a verified peer certificate (as `ssl` decodes it) names: CN, and O as groups."""
    if not certificate:
        return None
    parts = [pair for group in certificate.get("subject", ()) for pair in group]
    names = [v for k, v in parts if k == "commonName"]
    groups = tuple(v for k, v in parts if k == "organizationName")
    return User(names[0], groups=(*groups, AUTHENTICATED)) if names else None


class Authenticator:
    """`user(request)`; StatusError 401 for a credential that is not good, 403 for impersonation that is not allowed."""

    def __init__(self, tokens: Tokens, allowed: Allowed) -> None:
        self.tokens, self.allowed = tokens, allowed

    def user(self, http: web.BaseRequest) -> User:
        transport = http.transport
        found = certificate_user(transport.get_extra_info("peercert")) if transport is not None else None
        authorization = http.headers.get("Authorization")
        if found is None and authorization is not None:
            found = self._bearer(authorization)
        found = found or ANONYMOUS
        if "Impersonate-User" in http.headers:
            return self._impersonated(http, found)
        if any(h.startswith("Impersonate-") for h in http.headers):
            raise StatusError(400, "requested impersonation without a user")
        return found

    def _bearer(self, header: str) -> User:
        scheme, _, token = header.partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token or not token.isascii() or len(token) > 16384:
            raise StatusError(401, "Unauthorized")
        try:
            return self.tokens.check(token)[0]
        except TokenError:
            raise StatusError(401, "Unauthorized") from None

    def _impersonated(self, http: web.BaseRequest, real: User) -> User:
        name = http.headers["Impersonate-User"]
        groups = tuple(http.headers.getall("Impersonate-Group", ()))
        extra: dict[str, tuple[str, ...]] = {}
        for header in http.headers:
            if header.lower().startswith("impersonate-extra-"):
                extra[header[18:].lower()] = tuple(http.headers.getall(header))
        asked = [("", "users", name, "")] + [("", "groups", g, "") for g in groups]
        if name.startswith(_ACCOUNT) and name.count(":") == 3:
            namespace, account = name.removeprefix(_ACCOUNT).split(":")
            asked[0] = ("", "serviceaccounts", account, namespace)
            groups = groups or ("system:serviceaccounts", f"system:serviceaccounts:{namespace}")
        asked += [("authentication.k8s.io", "userextras", v, "") for vs in extra.values() for v in vs]
        blank = Info(http.path, "impersonate", version="v1")
        for group, resource, who, namespace in asked:
            wanted = msgspec.structs.replace(
                blank, group=group, resource=resource, name=who, namespace=namespace
            )
            why = self.allowed(real, wanted)
            if why is not None:
                text = f'{resource} "{who}" is forbidden: User "{real.name}" cannot impersonate resource "{resource}"'
                raise StatusError(
                    403, f'{text} in API group "{group}" at the cluster scope', details={"kind": resource}
                )
        if name != ANONYMOUS.name and UNAUTHENTICATED not in groups:
            groups = (*groups, AUTHENTICATED)
        return User(name, http.headers.get("Impersonate-Uid", ""), groups, extra)
