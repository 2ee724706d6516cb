"""Reviews: who am I, whose token is this, may they do that; and tokens on request."""

from __future__ import annotations

from typing import Any

import msgspec

from pervade.cluster.apiserver.admission.nodes import token_refusal
from pervade.cluster.apiserver.auth.nodes import name_of
from pervade.cluster.apiserver.auth.rbac import Authorizer, Rule
from pervade.cluster.apiserver.auth.tokens import TokenError, Tokens, moment
from pervade.cluster.apiserver.auth.user import User
from pervade.cluster.apiserver.kinds.kind import JSON, Cause
from pervade.cluster.apiserver.rest import present, status
from pervade.cluster.apiserver.rest.context import Request
from pervade.cluster.apiserver.rest.info import Info
from pervade.cluster.apiserver.rest.metadata import typed
from pervade.cluster.apiserver.rest.status import StatusError, bad_request
from pervade.cluster.apiserver.store.state import State

_LEAST, _MOST, _DEFAULT = 600, 1 << 32, 3600
_TOKENS_API = "authentication.k8s.io/v1"


class AccessReviews:
    """Who am I, may they do that: answers by name of the resource, as `Api.reviews` wants them."""

    def __init__(self, authorizer: Authorizer) -> None:
        self.authorizer = authorizer

    def table(self) -> dict[str, Any]:
        return {
            "selfsubjectreviews": self.self_review,
            "subjectaccessreviews": self.access_review,
            "localsubjectaccessreviews": self.access_review,
            "selfsubjectaccessreviews": self.self_access_review,
            "selfsubjectrulesreviews": self.rules_review,
        }

    async def self_review(self, request: Request, obj: JSON) -> JSON:
        return {**typed(request.kind, obj), "status": {"userInfo": _info(request.user)}}

    async def access_review(self, request: Request, obj: JSON) -> JSON:
        obj = typed(request.kind, obj)
        spec = _spec(obj)
        name, uid, groups = _string(spec, "user"), _string(spec, "uid"), _strings(spec, "groups")
        if not name and not groups:
            raise StatusError(
                422,
                "SubjectAccessReview is invalid: spec.user: at least one of user or group must be specified",
            )
        held = _mapping(spec, "extra")
        user = User(name, uid, tuple(groups), {k: tuple(_strings(held, k)) for k in held})
        asked = _asked(spec)
        if request.info.namespace and asked.namespace != request.info.namespace:
            raise StatusError(
                422,
                "LocalSubjectAccessReview is invalid: spec.resourceAttributes.namespace must match metadata.namespace",
            )
        return {**obj, "status": self._verdict(user, asked)}

    async def self_access_review(self, request: Request, obj: JSON) -> JSON:
        obj = typed(request.kind, obj)
        return {**obj, "status": self._verdict(request.user, _asked(_spec(obj)))}

    def _verdict(self, user: User, asked: Info) -> JSON:
        why = self.authorizer.refuse(user, asked)
        return {"allowed": why is None} | ({"reason": why} if why else {})

    async def rules_review(self, request: Request, obj: JSON) -> JSON:
        obj = typed(request.kind, obj)
        rules = self.authorizer.rules(request.user, _string(_spec(obj), "namespace"))
        found: JSON = {
            # What a kubelet may do depends on its pods, which is no rule.
            "incomplete": name_of(request.user) is not None,
            "resourceRules": [_resource_rule(r) for r in rules if not r.urls],
            "nonResourceRules": [
                {"verbs": sorted(r.verbs), "nonResourceURLs": list(r.urls)} for r in rules if r.urls
            ],
        }
        return {**obj, "status": found}


class Reviews(AccessReviews):
    """Those, and what needs the keys of tokens."""

    def __init__(self, state: State, tokens: Tokens, authorizer: Authorizer) -> None:
        super().__init__(authorizer)
        self.state, self.tokens = state, tokens

    def table(self) -> dict[str, Any]:
        return super().table() | {
            "tokenreviews": self.token_review,
            "serviceaccounts/token": self.token,
        }

    async def token_review(self, request: Request, obj: JSON) -> JSON:
        obj = typed(request.kind, obj)
        spec = _spec(obj)
        token, audiences = _string(spec, "token"), _strings(spec, "audiences")
        if not token:
            raise StatusError(422, "TokenReview is invalid: spec.token: Required value")
        try:
            user, good = self.tokens.check(token, audiences or None)
        except TokenError as error:
            said = f"invalid bearer token: {error}"
            return {**obj, "status": {"authenticated": False, "user": {}, "error": said}}
        return {**obj, "status": {"authenticated": True, "user": user.info(), "audiences": good}}

    async def token(self, request: Request, obj: JSON) -> JSON:
        """TokenRequest of `serviceaccounts/NAME/token`."""
        info, spec = request.info, _spec(obj)
        said = obj.get("kind") or "TokenRequest", obj.get("apiVersion") or _TOKENS_API
        if said != ("TokenRequest", _TOKENS_API):
            raise bad_request(
                f"the body must be a TokenRequest of {_TOKENS_API}, it is {said[0]} of {said[1]}"
            )
        entry = self.state.get("/serviceaccounts", info.namespace, info.name)
        if entry is None:
            raise status.not_found(request.kind, info.name)
        seconds = spec.get("expirationSeconds", _DEFAULT)
        if seconds is None:
            seconds = _DEFAULT
        if not isinstance(seconds, int) or isinstance(seconds, bool):
            raise bad_request("spec.expirationSeconds must be a number")
        if not _LEAST <= seconds <= _MOST:
            limit = "less than 10 minutes" if seconds < _LEAST else "larger than 2^32 seconds"
            text = f"Invalid value: {seconds}: may not specify a duration {limit}"
            raise _invalid(info.name, Cause("spec.expirationSeconds", text))
        audiences = _strings(spec, "audiences") or [self.tokens.issuer]
        pod, node = self._bound(info, _mapping(spec, "boundObjectRef"))
        account = present.parse(entry.value)
        if kubelet := name_of(request.user):
            why = token_refusal(kubelet, info.name, pod, audiences, self.tokens.issuer)
            if why:
                raise status.forbidden(request.kind, info.name, why)
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
            "apiVersion": _TOKENS_API,
            "kind": "TokenRequest",
            "metadata": meta,
            "spec": made,
            "status": {"token": token, "expirationTimestamp": moment(ends)},
        }

    def _bound(self, info: Info, ref: JSON) -> tuple[JSON | None, JSON | None]:
        if not ref:
            return None, None
        kind, name, uid = _string(ref, "kind"), _string(ref, "name"), _string(ref, "uid")
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
        if uid and uid != obj["metadata"]["uid"]:
            why = f"the UID in the bound object reference ({uid}) does not match the UID in record"
            raise StatusError(409, f'Operation cannot be fulfilled on {table[1:]} "{name}": {why}')
        if kind == "Node":
            return None, obj
        node_entry = self.state.get("/nodes", "", obj["spec"].get("nodeName") or "")
        return obj, present.parse(node_entry.value) if node_entry else None


def _spec(obj: JSON) -> JSON:
    return _mapping(obj, "spec")


def _mapping(obj: JSON, field: str) -> JSON:
    found = {} if obj.get(field) is None else obj[field]
    if not isinstance(found, dict):
        raise bad_request(f"{field} must be an object")
    return found


def _string(obj: JSON, field: str) -> str:
    found = "" if obj.get(field) is None else obj[field]
    if not isinstance(found, str):
        raise bad_request(f"{field} must be a string")
    return found


def _strings(obj: JSON, field: str) -> list[str]:
    found = [] if obj.get(field) is None else obj[field]
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise bad_request(f"{field} must be a list of strings")
    return found


def _info(user: Any) -> JSON:
    found: JSON = {"username": user.name, "groups": list(user.groups)}
    if user.uid:
        found["uid"] = user.uid
    if user.extra:
        found["extra"] = {k: list(v) for k, v in user.extra.items()}
    return found


def _asked(spec: JSON) -> Info:
    """What an access review asks about, as a request would be seen."""
    resource, other = _mapping(spec, "resourceAttributes"), _mapping(spec, "nonResourceAttributes")
    if resource and not other:
        texts = {
            k: _string(resource, k)
            for k in ("verb", "group", "version", "resource", "subresource", "namespace", "name")
        }
        return msgspec.structs.replace(Info("", ""), **texts)
    if other and not resource:
        return Info(_string(other, "path"), _string(other, "verb"))
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
