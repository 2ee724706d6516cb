"""Which admission webhooks a request concerns, and what their answers mean. Pure.

Source: Kubernetes, "Dynamic Admission Control"; API admission.k8s.io/v1.
"""

from __future__ import annotations

import base64
import binascii
import functools
from typing import Any

import msgspec

from pervade.cluster.apiserver.kinds.kind import JSON
from pervade.cluster.apiserver.kinds.webhooks import VARIABLES
from pervade.cluster.apiserver.patch import PatchError, json_patch
from pervade.cluster.apiserver.rest import selectors
from pervade.cluster.apiserver.rest.context import Request
from pervade.cluster.apiserver.rest.status import StatusError
from pervade.cluster.apiserver.rest.subresources import selector_text
from pervade.cluster.apiserver.schema import cel_library

_ALL = "*"
# Webhooks on the objects that say which webhooks there are could lock everybody out.
_NEVER = frozenset({"validatingwebhookconfigurations", "mutatingwebhookconfigurations"})


class Hook(msgspec.Struct, frozen=True):
    """One webhook of a configuration."""

    configuration: str
    body: JSON

    @property
    def name(self) -> str:
        return str(self.body.get("name", ""))

    @property
    def ignores(self) -> bool:
        """Whether a call that fails lets the request pass."""
        return bool(self.body.get("failurePolicy", "Fail") == "Ignore")

    @property
    def seconds(self) -> float:
        return float(self.body.get("timeoutSeconds") or 10)


def hooks_of(configurations: list[JSON]) -> list[Hook]:
    """All webhooks, by the name of their configuration, then in its order."""
    ordered = sorted(configurations, key=lambda c: str(c["metadata"]["name"]))
    return [Hook(c["metadata"]["name"], w) for c in ordered for w in c.get("webhooks") or ()]


def _resource(rule: JSON, plural: str, subresource: str) -> bool:
    for one in rule.get("resources") or ():
        name, _, sub = str(one).partition("/")
        if name in (_ALL, plural) and sub in (_ALL, subresource):
            return True
    return False


def concerns(
    hook: Hook, request: Request, operation: str, obj: JSON | None, old: JSON | None, namespace: JSON | None
) -> bool:
    """Rules, namespaceSelector and objectSelector of a webhook against a request."""
    kind, info = request.kind, request.info
    if kind.group == "admissionregistration.k8s.io" and kind.plural in _NEVER:
        return False
    loose = hook.body.get("matchPolicy", "Equivalent") == "Equivalent"
    for rule in hook.body.get("rules") or ():
        scope = rule.get("scope") or _ALL
        if (
            (_ALL in rule.get("operations", ()) or operation in rule.get("operations", ()))
            and (_ALL in rule.get("apiGroups", ()) or kind.group in rule.get("apiGroups", ()))
            # All versions of a kind are one object here, so an equivalent version is the same request.
            and (loose or _ALL in rule.get("apiVersions", ()) or kind.version in rule.get("apiVersions", ()))
            and scope in (_ALL, "Namespaced" if kind.namespaced else "Cluster")
            and _resource(rule, kind.plural, info.subresource)
        ):
            break
    else:
        return False
    if kind.namespaced or kind.table == "/namespaces":
        held = (obj or old) if kind.table == "/namespaces" else namespace
        if not _selected(hook.body.get("namespaceSelector"), held):
            return False
    return _selected(hook.body.get("objectSelector"), obj) or _selected(hook.body.get("objectSelector"), old)


def _selected(selector: JSON | None, obj: JSON | None) -> bool:
    if not selector:
        return True
    if obj is None:
        return False
    return bool(selectors.labels(selector_text(selector))((obj.get("metadata") or {}).get("labels")))


@functools.lru_cache(maxsize=256)
def _condition(text: str) -> Any:
    return cel_library.environment(*VARIABLES).compile(cel_library.readable(text))


def condition(hook: Hook, review: JSON) -> bool:
    """matchConditions: all must be true; ValueError for one that cannot be evaluated."""
    asked = review["request"]
    data = {"object": asked["object"], "oldObject": asked["oldObject"], "request": asked}
    for one in hook.body.get("matchConditions") or ():
        try:
            result = _condition(str(one.get("expression", ""))).eval(data=data)
        except RuntimeError as error:
            raise ValueError(f"matchCondition {one.get('name')!r}: {error}") from None
        if result.type().name() != "BOOL":
            raise ValueError(f"matchCondition {one.get('name')!r}: {result.value()}")
        if not result.value():
            return False
    return True


def review_of(request: Request, operation: str, obj: JSON | None, old: JSON | None, uid: str) -> JSON:
    """The AdmissionReview that asks."""
    kind, info, user = request.kind, request.info, request.user
    name = ((obj or old or {}).get("metadata") or {}).get("name") or info.name
    what = {"group": kind.group, "version": kind.version, "kind": kind.kind}
    if operation == "CONNECT" and obj is not None:
        # The object is the options of the stream, and so is the kind.
        what = {"group": "", "version": "v1", "kind": obj["kind"]}
    where = {"group": kind.group, "version": kind.version, "resource": kind.plural}
    asked: JSON = {
        "uid": uid,
        "kind": what,
        "resource": where,
        "requestKind": what,
        "requestResource": where,
        "name": name,
        "operation": operation,
        "userInfo": {
            "username": user.name,
            "uid": user.uid,
            "groups": list(user.groups),
            "extra": {k: list(v) for k, v in user.extra.items()},
        },
        "object": obj,
        "oldObject": old,
        "dryRun": request.dry_run,
        "options": None if operation == "CONNECT" else _options(request, operation),
    }
    if info.namespace:
        asked["namespace"] = info.namespace
    if info.subresource:
        asked["subResource"] = asked["requestSubResource"] = info.subresource
    return {"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": asked}


_OPTIONS = {"CREATE": "CreateOptions", "UPDATE": "UpdateOptions", "DELETE": "DeleteOptions"}


def _options(request: Request, operation: str) -> JSON:
    """The options of a request as the object that clients could have sent."""
    kind = "PatchOptions" if request.info.verb == "patch" else _OPTIONS[operation]
    made: JSON = {"kind": kind, "apiVersion": "meta.k8s.io/v1"}
    for field in ("fieldManager", "fieldValidation"):
        if request.query.get(field) and operation != "DELETE":
            made[field] = request.query[field]
    if request.query.get("force") and kind == "PatchOptions":
        made["force"] = request.query["force"] == "true"
    return made | ({"dryRun": ["All"]} if request.dry_run else {})


def answer_of(hook: Hook, review: JSON, answer: Any, uid: str) -> JSON:
    """The response part of an answer; ValueError when it is none to this review."""
    if (
        not isinstance(answer, dict)
        or answer.get("kind") != "AdmissionReview"
        or answer.get("apiVersion") != review["apiVersion"]
    ):
        raise ValueError("expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview")
    found = answer.get("response")
    if not isinstance(found, dict) or found.get("uid") != uid or not isinstance(found.get("allowed"), bool):
        raise ValueError(
            "webhook response needs a response with the uid of the request and allowed true or false"
        )
    response: JSON = found
    return response


def refusal(hook: Hook, response: JSON) -> StatusError:
    """The Status of a request that a webhook denied."""
    said = response.get("status") or {}
    code = said.get("code")
    text = said.get("message") or said.get("reason")
    why = f": {text}" if text else " without explanation"
    code = code if isinstance(code, int) and 400 <= code < 600 else 403
    return StatusError(
        code, f'admission webhook "{hook.name}" denied the request{why}', reason=said.get("reason")
    )


def patched(obj: JSON, response: JSON) -> JSON:
    """The object after a mutating webhook's JSON patch; ValueError for a patch that cannot be applied."""
    if not response.get("patch"):
        return obj
    if response.get("patchType") != "JSONPatch":
        raise ValueError(f"patchType must be JSONPatch, not {response.get('patchType')!r}")
    try:
        change = msgspec.json.decode(base64.b64decode(response["patch"], validate=True))
        # A patch works in place: one that fails half-way must leave the object alone.
        made = json_patch.apply(msgspec.json.decode(msgspec.json.encode(obj)), change)
    except (binascii.Error, TypeError, msgspec.DecodeError, PatchError) as error:
        raise ValueError(f"the patch cannot be applied: {error}") from None
    if not isinstance(made, dict) or not isinstance(made.get("metadata"), dict):
        raise ValueError("the patch leaves no object")
    for field in ("apiVersion", "kind"):
        if made.get(field) != obj.get(field):
            raise ValueError(f"the patch must not change {field}")
    for field in ("name", "namespace", "uid"):
        if made["metadata"].get(field) != obj["metadata"].get(field):
            raise ValueError(f"the patch must not change metadata.{field}")
    return made
