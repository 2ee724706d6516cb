"""Who calls: client certificates, tokens of service accounts, impersonation. Anything bad is 401, never anonymous."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

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
        if http.headers.get("Impersonate-User"):
            return self._impersonated(http, found)
        if any(h.lower().startswith("impersonate-") for h in http.headers):
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
        uid = http.headers.get("Impersonate-Uid", "")
        extra: dict[str, tuple[str, ...]] = {}
        for header in http.headers:
            if header.lower().startswith("impersonate-extra-"):
                # Keys may hold what a header's name may not: percent-encoded.
                extra[unquote(header[18:].lower())] = tuple(http.headers.getall(header))
        blank = Info(http.path, "impersonate", version="v1")
        change = msgspec.structs.replace
        asked = [change(blank, resource="users", name=name)]
        asked += [change(blank, resource="groups", name=g) for g in groups]
        if name.startswith(_ACCOUNT) and name.count(":") == 3:
            namespace, account = name.removeprefix(_ACCOUNT).split(":")
            asked[0] = change(blank, resource="serviceaccounts", name=account, namespace=namespace)
            groups = groups or ("system:serviceaccounts", f"system:serviceaccounts:{namespace}")
        of_authn = change(blank, group="authentication.k8s.io")
        if uid:
            asked.append(change(of_authn, resource="uids", name=uid))
        asked += [
            change(of_authn, resource="userextras", subresource=key, name=value)
            for key, values in extra.items()
            for value in values
        ]
        for wanted in asked:
            if self.allowed(real, wanted) is not None:
                raise _may_not(real, wanted)
        more = UNAUTHENTICATED if name == ANONYMOUS.name else AUTHENTICATED
        if not {AUTHENTICATED, UNAUTHENTICATED} & set(groups):
            groups = (*groups, more)
        return User(name, uid, groups, extra)


def _may_not(real: User, wanted: Info) -> StatusError:
    what = f"{wanted.resource}/{wanted.subresource}" if wanted.subresource else wanted.resource
    group = f"{wanted.resource}.{wanted.group}" if wanted.group else wanted.resource
    where = f'in the namespace "{wanted.namespace}"' if wanted.namespace else "at the cluster scope"
    text = (
        f'{group} "{wanted.name}" is forbidden: User "{real.name}" cannot impersonate resource "{what}"'
        f' in API group "{wanted.group}" {where}'
    )
    details = {"name": wanted.name, "group": wanted.group, "kind": wanted.resource}
    return StatusError(403, text, details={k: v for k, v in details.items() if v})
