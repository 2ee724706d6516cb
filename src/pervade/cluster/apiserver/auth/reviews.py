"""Reviews: who am I, whose token is this, may they do that; and tokens on request."""

from __future__ import annotations

from typing import Any

import msgspec

from pervade.cluster.apiserver.auth.rbac import Authorizer, Rule
from pervade.cluster.apiserver.auth.tokens import TokenError, Tokens, moment
from pervade.cluster.apiserver.auth.user import User
from pervade.cluster.apiserver.kinds.kind import JSON, Cause
from pervade.cluster.apiserver.rest import present, status
from pervade.cluster.apiserver.rest.context import Request
from pervade.cluster.apiserver.rest.info import Info
from pervade.cluster.apiserver.rest.status import StatusError, bad_request
from pervade.cluster.apiserver.store.state import State

_LEAST, _MOST, _DEFAULT = 600, 1 << 32, 3600


class Reviews:
    """Answers by name of the resource, as `Api.reviews` wants them."""

    def __init__(self, state: State, tokens: Tokens, authorizer: Authorizer) -> None:
        self.state, self.tokens, self.authorizer = state, tokens, authorizer

    def table(self) -> dict[str, Any]:
        return {
            "tokenreviews": self.token_review,
            "selfsubjectreviews": self.self_review,
            "subjectaccessreviews": self.access_review,
            "localsubjectaccessreviews": self.access_review,
            "selfsubjectaccessreviews": self.self_access_review,
            "selfsubjectrulesreviews": self.rules_review,
            "serviceaccounts/token": self.token,
        }

    async def token_review(self, _request: Request, obj: JSON) -> JSON:
        spec = _spec(obj)
        token, audiences = str(spec.get("token") or ""), spec.get("audiences") or None
        if not token:
            raise StatusError(422, "TokenReview is invalid: spec.token: Required value")
        try:
            user, good = self.tokens.check(token, audiences)
        except TokenError as error:
            return {
                **obj,
                "status": {"authenticated": False, "user": {}, "error": f"invalid bearer token: {error}"},
            }
        return {**obj, "status": {"authenticated": True, "user": user.info(), "audiences": good}}

    async def self_review(self, request: Request, obj: JSON) -> JSON:
        return {**obj, "status": {"userInfo": _info(request.user)}}

    async def access_review(self, request: Request, obj: JSON) -> JSON:
        spec = _spec(obj)
        if not spec.get("user") and not spec.get("groups"):
            raise StatusError(
                422,
                "SubjectAccessReview is invalid: spec.user: at least one of user or group must be specified",
            )
        extra = {k: tuple(v) for k, v in (spec.get("extra") or {}).items()}
        user = User(
            str(spec.get("user") or ""), str(spec.get("uid") or ""), tuple(spec.get("groups") or ()), extra
        )
        asked = _asked(spec)
        if request.info.namespace and asked.namespace != request.info.namespace:
            raise StatusError(
                422,
                "LocalSubjectAccessReview is invalid: spec.resourceAttributes.namespace must match metadata.namespace",
            )
        return {**obj, "status": self._verdict(user, asked)}

    async def self_access_review(self, request: Request, obj: JSON) -> JSON:
        return {**obj, "status": self._verdict(request.user, _asked(_spec(obj)))}

    def _verdict(self, user: User, asked: Info) -> JSON:
        why = self.authorizer.refuse(user, asked)
        return {"allowed": why is None} | ({"reason": why} if why else {})

    async def rules_review(self, request: Request, obj: JSON) -> JSON:
        rules = self.authorizer.rules(request.user, str(_spec(obj).get("namespace") or ""))
        found: JSON = {
            "incomplete": False,
            "resourceRules": [_resource_rule(r) for r in rules if not r.urls],
            "nonResourceRules": [
                {"verbs": sorted(r.verbs), "nonResourceURLs": list(r.urls)} for r in rules if r.urls
            ],
        }
        return {**obj, "status": found}

    async def token(self, request: Request, obj: JSON) -> JSON:
        """TokenRequest of `serviceaccounts/NAME/token`."""
        info, spec = request.info, obj.get("spec") or {}
        entry = self.state.get("/serviceaccounts", info.namespace, info.name)
        if entry is None:
            raise status.not_found(request.kind, info.name)
        seconds = spec.get("expirationSeconds", _DEFAULT)
        if not isinstance(seconds, int) or not _LEAST <= seconds <= _MOST:
            text = f"Invalid value: {seconds}: may not specify a duration less than 10 minutes"
            raise _invalid(info.name, Cause("spec.expirationSeconds", text))
        audiences = spec.get("audiences") or [self.tokens.issuer]
        if not isinstance(audiences, list) or not all(isinstance(a, str) for a in audiences):
            raise bad_request("spec.audiences must be a list of strings")
        pod, node = self._bound(info, spec.get("boundObjectRef") or {})
        account = present.parse(entry.value)
        if pod is not None and pod["spec"].get("serviceAccountName") != info.name:
            text = f'Invalid value: "{pod["metadata"]["name"]}": cannot bind token for serviceaccount "{info.name}" to pod'
            raise _invalid(info.name, Cause("spec.boundObjectRef", text))
        token, ends = self.tokens.mint(account, audiences, seconds, pod=pod, node=node)
        meta = {"name": info.name, "namespace": info.namespace, "creationTimestamp": moment(ends - seconds)}
        made = {
            "audiences": audiences,
            "expirationSeconds": seconds,
            "boundObjectRef": spec.get("boundObjectRef"),
        }
        return {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "metadata": meta,
            "spec": made,
            "status": {"token": token, "expirationTimestamp": moment(ends)},
        }

    def _bound(self, info: Info, ref: JSON) -> tuple[JSON | None, JSON | None]:
        if not ref:
            return None, None
        kind, name = ref.get("kind"), str(ref.get("name") or "")
        if kind not in ("Pod", "Node"):
            raise _invalid(
                info.name,
                Cause(
                    "spec.boundObjectRef.kind",
                    f'Unsupported value: "{kind}": supported values: "Pod", "Node"',
                ),
            )
        table, namespace = ("/pods", info.namespace) if kind == "Pod" else ("/nodes", "")
        entry = self.state.get(table, namespace, name)
        if entry is None:
            raise StatusError(
                404, f'{table[1:]} "{name}" not found', details={"name": name, "kind": table[1:]}
            )
        obj: JSON = present.parse(entry.value)
        if ref.get("uid") and ref["uid"] != obj["metadata"]["uid"]:
            why = f"the UID in the bound object reference ({ref['uid']}) does not match the UID in record"
            raise StatusError(409, f'Operation cannot be fulfilled on {table[1:]} "{name}": {why}')
        if kind == "Node":
            return None, obj
        node_entry = self.state.get("/nodes", "", obj["spec"].get("nodeName") or "")
        return obj, present.parse(node_entry.value) if node_entry else None


def _spec(obj: JSON) -> JSON:
    spec = obj.get("spec") or {}
    if not isinstance(spec, dict):
        raise bad_request("spec must be an object")
    return spec


def _info(user: Any) -> JSON:
    found: JSON = {"username": user.name, "groups": list(user.groups)}
    if user.uid:
        found["uid"] = user.uid
    if user.extra:
        found["extra"] = {k: list(v) for k, v in user.extra.items()}
    return found


def _asked(spec: JSON) -> Info:
    """What an access review asks about, as a request would be seen."""
    resource, other = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    if isinstance(resource, dict):
        texts = {
            k: str(resource.get(k) or "")
            for k in ("verb", "group", "version", "resource", "subresource", "namespace", "name")
        }
        return msgspec.structs.replace(Info("", ""), **texts)
    if isinstance(other, dict):
        return Info(str(other.get("path") or ""), str(other.get("verb") or ""))
    raise StatusError(
        422,
        "SubjectAccessReview is invalid: spec: exactly one of nonResourceAttributes or resourceAttributes must be specified",
    )


def _resource_rule(rule: Rule) -> JSON:
    found = {
        "verbs": sorted(rule.verbs),
        "apiGroups": sorted(rule.groups),
        "resources": sorted(rule.resources),
    }
    return found | ({"resourceNames": sorted(rule.names)} if rule.names else {})


def _invalid(name: str, cause: Cause) -> StatusError:
    causes = [{"reason": cause.reason, "message": cause.message, "field": cause.field}]
    return StatusError(
        422, f'TokenRequest "{name}" is invalid: {cause.field}: {cause.message}', details={"causes": causes}
    )
