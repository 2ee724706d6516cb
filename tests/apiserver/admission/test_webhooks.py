"""Admission webhooks against a real HTTPS server: asked, obeyed, and what happens when they fail."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from pervade.testing.certificates import self_signed
from pervade.wire.http import web

JSON = dict[str, Any]
BASE = "/apis/admissionregistration.k8s.io/v1"
MAPS = "/api/v1/namespaces/default/configmaps"
MERGE = "application/merge-patch+json"


def certificate(folder: Path) -> tuple[ssl.SSLContext, str]:
    """A serving context for localhost, and its certificate as caBundle."""
    pem, key = self_signed("localhost")
    (folder / "tls.crt").write_bytes(pem)
    (folder / "tls.key").write_bytes(key)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    return context, base64.b64encode(pem).decode()


class Hook:
    """A webhook server; `response` is what it says, `asked` what it was asked."""

    def __init__(self) -> None:
        self.asked: list[JSON] = []
        self.response: JSON = {"allowed": True}
        self.pause = 0.0
        self.changes = 0
        self.url = self.ca = ""

    async def serve(self, http: web.Request) -> web.Response:
        review = await http.json()
        self.asked.append(review["request"])
        await asyncio.sleep(self.pause)
        if self.changes and len(self.asked) == self.changes:
            step = {"op": "add", "path": f"/data/call{self.changes}", "value": "x"}
            self.response = {
                "allowed": True,
                "patchType": "JSONPatch",
                "patch": base64.b64encode(json.dumps([step]).encode()).decode(),
            }
        elif self.changes:
            self.response = {"allowed": True}
        answer = {"uid": review["request"]["uid"], **self.response}
        return web.json_response(
            {"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": answer}
        )


@pytest.fixture
async def hook(tmp_path: Path) -> AsyncIterator[Hook]:
    made = Hook()
    context, made.ca = certificate(tmp_path)
    application = web.Application()
    application.router.add_post("/check", made.serve)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    made.url = f"https://localhost:{runner.addresses[0][1]}/check"
    yield made
    await runner.cleanup()


def configuration(hook: Hook, kind: str = "Validating", **more: Any) -> JSON:
    webhook = {
        "name": "check.example.com",
        "clientConfig": {"url": hook.url, "caBundle": hook.ca},
        "rules": [
            {
                "operations": ["CREATE", "UPDATE", "DELETE"],
                "apiGroups": [""],
                "apiVersions": ["v1"],
                "resources": ["configmaps"],
            }
        ],
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "timeoutSeconds": 2,
        **more,
    }
    return {"metadata": {"name": "check"}, "webhooks": [webhook]}


async def register(call: Any, hook: Hook, kind: str = "Validating", **more: Any) -> None:
    answer = await call(
        "POST", f"{BASE}/{kind.lower()}webhookconfigurations", configuration(hook, kind, **more)
    )
    assert answer.status == 201, answer.body


async def test_a_validating_webhook_is_asked_and_obeyed(call: Any, hook: Hook) -> None:
    await register(call, hook)
    hook.response = {"allowed": True, "warnings": ["mind the gap"]}
    answer = await call("POST", MAPS, {"metadata": {"name": "a"}, "data": {"k": "v"}})
    assert answer.status == 201
    assert answer.headers["Warning"] == '299 - "mind the gap"'
    asked = hook.asked[0]
    assert (asked["operation"], asked["namespace"], asked["name"], asked["dryRun"]) == (
        "CREATE",
        "default",
        "a",
        False,
    )
    assert asked["object"]["data"] == {"k": "v"}
    assert asked["kind"] == {"group": "", "version": "v1", "kind": "ConfigMap"}
    hook.response = {"allowed": False, "status": {"message": "not today", "code": 422, "reason": "Invalid"}}
    answer = await call("PATCH", MAPS + "/a", {"data": {"k": "w"}}, content_type=MERGE)
    assert (answer.status, answer.body["reason"]) == (422, "Invalid")
    assert answer.body["message"] == 'admission webhook "check.example.com" denied the request: not today'
    assert hook.asked[-1]["oldObject"]["data"] == {"k": "v"}
    hook.response = {"allowed": False}
    answer = await call("DELETE", MAPS + "/a")
    assert (answer.status, answer.body["reason"]) == (403, "Forbidden")
    assert (hook.asked[-1]["operation"], hook.asked[-1]["object"]) == ("DELETE", None)
    assert (await call("GET", MAPS + "/a")).body["data"] == {"k": "v"}


async def test_a_mutating_webhook_changes_what_is_stored(call: Any, hook: Hook) -> None:
    await register(call, hook, "Mutating")
    patch = [{"op": "add", "path": "/data/added", "value": "1"}]
    hook.response = {
        "allowed": True,
        "patchType": "JSONPatch",
        "patch": base64.b64encode(json.dumps(patch).encode()).decode(),
    }
    answer = await call("POST", MAPS, {"metadata": {"name": "a"}, "data": {"k": "v"}})
    assert answer.body["data"] == {"k": "v", "added": "1"}
    hook.response |= {"patch": "%%%"}
    answer = await call("POST", MAPS, {"metadata": {"name": "b"}})
    assert (answer.status, answer.body["reason"]) == (500, "InternalError")
    assert 'failed calling webhook "check.example.com"' in answer.body["message"]


@pytest.mark.parametrize(
    ("more", "asked"),
    [
        ({"namespaceSelector": {"matchLabels": {"checked": "yes"}}}, 0),
        ({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "default"}}}, 1),
        ({"objectSelector": {"matchLabels": {"app": "x"}}}, 1),
        ({"objectSelector": {"matchLabels": {"app": "y"}}}, 0),
        ({"matchConditions": [{"name": "c", "expression": "object.metadata.name == 'a'"}]}, 1),
        ({"matchConditions": [{"name": "c", "expression": "request.userInfo.username == 'nobody'"}]}, 0),
        ({"rules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"]}]}, 1),
        ({"rules": [{"operations": ["UPDATE"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"]}]}, 0),
        ({"rules": [{"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"], "scope": "Cluster"}]}, 0),
    ],
)  # fmt: skip
async def test_whom_a_webhook_concerns(call: Any, hook: Hook, more: JSON, asked: int) -> None:
    await register(call, hook, **more)
    answer = await call("POST", MAPS, {"metadata": {"name": "a", "labels": {"app": "x"}}})
    assert answer.status == 201, answer.body
    assert len(hook.asked) == asked


@pytest.mark.parametrize(("policy", "status"), [("Fail", 500), ("Ignore", 201)])
@pytest.mark.parametrize("fault", ["late", "away", "foreign", "nonsense"])
async def test_a_webhook_that_fails_closes_the_door_unless_it_says_otherwise(
    call: Any, hook: Hook, policy: str, status: int, fault: str
) -> None:
    if fault == "late":
        hook.pause = 1.5
    elif fault == "away":
        hook.url = "https://localhost:1/check"
    elif fault == "foreign":
        hook.ca = ""
    else:
        hook.response = {"allowed": "perhaps"}
    await register(call, hook, failurePolicy=policy, timeoutSeconds=1)
    answer = await call("POST", MAPS, {"metadata": {"name": "a"}})
    assert answer.status == status, answer.body
    if policy == "Fail":
        assert 'failed calling webhook "check.example.com"' in answer.body["message"]


async def test_a_dry_run_is_told_to_the_webhook(call: Any, hook: Hook) -> None:
    await register(call, hook)
    answer = await call("POST", MAPS + "?dryRun=All&fieldManager=me", {"metadata": {"name": "a"}})
    asked = hook.asked[0]
    assert (answer.status, asked["dryRun"]) == (201, True)
    assert asked["options"] == {
        "kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1", "fieldManager": "me", "dryRun": ["All"]
    }  # fmt: skip
    assert (await call("GET", MAPS + "/a")).status == 404


def patching(*steps: JSON) -> JSON:
    """A response that allows and patches."""
    patch = base64.b64encode(json.dumps(steps).encode()).decode()
    return {"allowed": True, "patchType": "JSONPatch", "patch": patch}


async def test_what_a_webhook_adds_is_held_to_the_schema(call: Any, hook: Hook) -> None:
    rules = [
        {
            "operations": ["*"],
            "apiGroups": ["*"],
            "apiVersions": ["*"],
            "resources": ["widgets", "configmaps"],
        }
    ]
    schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "size": {"type": "integer", "maximum": 5}, "unit": {"type": "string", "default": "cm"}}}}}  # fmt: skip
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"plural": "widgets", "kind": "Widget"}
    spec = {"group": "example.com", "scope": "Namespaced", "names": names, "versions": [version]}
    crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    assert (
        await call("POST", crds, {"metadata": {"name": "widgets.example.com"}, "spec": spec})
    ).status == 201
    await register(call, hook, "Mutating", rules=rules)
    widgets = "/apis/example.com/v1/namespaces/default/widgets"
    hook.response = patching({"op": "add", "path": "/spec", "value": {"size": 3, "junk": 1}})
    answer = await call("POST", widgets, {"metadata": {"name": "a"}})
    assert (answer.status, answer.body["spec"]) == (201, {"size": 3, "unit": "cm"})
    hook.response = patching({"op": "add", "path": "/spec", "value": {"size": 6}})
    answer = await call("POST", widgets, {"metadata": {"name": "b"}})
    assert (answer.status, answer.body["reason"]) == (422, "Invalid")
    hook.response = patching({"op": "replace", "path": "/metadata/name", "value": "other"})
    answer = await call("POST", widgets, {"metadata": {"name": "c"}})
    assert answer.status == 500 and "must not change metadata.name" in answer.body["message"]
    hook.response = patching({"op": "add", "path": "/data", "value": "no map"})
    answer = await call("POST", MAPS, {"metadata": {"name": "d"}})
    assert answer.status == 500 and "failed calling webhook" in answer.body["message"]


async def test_a_patch_that_fails_half_way_leaves_no_trace(call: Any, hook: Hook) -> None:
    await register(call, hook, "Mutating", failurePolicy="Ignore")
    hook.response = patching(
        {"op": "add", "path": "/data", "value": {"half": "1"}}, {"op": "remove", "path": "/data/none"}
    )
    answer = await call("POST", MAPS, {"metadata": {"name": "a"}, "data": {"k": "v"}})
    assert (answer.status, answer.body["data"]) == (201, {"k": "v"})


async def test_a_webhook_is_asked_again_after_a_later_one_changed_the_object(call: Any, hook: Hook) -> None:
    first = configuration(hook, "Mutating", name="a.example.com", reinvocationPolicy="IfNeeded")["webhooks"][
        0
    ]
    second = configuration(hook, "Mutating", name="b.example.com")["webhooks"][0]
    await call(
        "POST",
        f"{BASE}/mutatingwebhookconfigurations",
        {"metadata": {"name": "two"}, "webhooks": [first, second]},
    )
    hook.response = {"allowed": True}
    await call("POST", MAPS, {"metadata": {"name": "quiet"}})
    assert len(hook.asked) == 2
    hook.asked.clear()
    hook.changes = 2
    answer = await call("POST", MAPS, {"metadata": {"name": "busy"}, "data": {}})
    assert answer.body["data"] == {"call2": "x"}
    assert len(hook.asked) == 3


async def test_an_answer_in_many_pieces_is_read_whole_and_one_without_end_is_not(
    call: Any, hook: Hook
) -> None:
    await register(call, hook)
    hook.response = {"allowed": True, "auditAnnotations": {"k": "x" * 2_000_000}}
    assert (await call("POST", MAPS, {"metadata": {"name": "a"}})).status == 201
    hook.response = {"allowed": True, "auditAnnotations": {"k": "x" * 9_000_000}}
    answer = await call("POST", MAPS, {"metadata": {"name": "b"}})
    assert answer.status == 500 and "longer than" in answer.body["message"]


@pytest.mark.parametrize(
    ("more", "field", "text"),
    [
        ({"name": "short"}, "webhooks[0].name", "at least three segments"),
        ({"admissionReviewVersions": ["v1beta1"]}, "webhooks[0].admissionReviewVersions", "must include"),
        ({"sideEffects": "Unknown"}, "webhooks[0].sideEffects", "Unsupported value"),
        ({"sideEffects": None}, "webhooks[0].sideEffects", "Required value"),
        ({"timeoutSeconds": 31}, "webhooks[0].timeoutSeconds", "between 1 and 30"),
        ({"failurePolicy": "Maybe"}, "webhooks[0].failurePolicy", "Unsupported value"),
        ({"clientConfig": {}}, "webhooks[0].clientConfig", "exactly one of url or service"),
        ({"clientConfig": {"url": "http://a/b"}}, "webhooks[0].clientConfig.url", "only allowed URL scheme"),
        ({"clientConfig": {"url": "https://u:p@a/b"}}, "webhooks[0].clientConfig.url", "user information"),
        ({"clientConfig": {"url": "https://[::1"}}, "webhooks[0].clientConfig.url", "Required value"),
        ({"clientConfig": {"service": {"name": "a", "namespace": "b", "path": "c"}}}, "webhooks[0].clientConfig.service.path", "must start with"),
        ({"clientConfig": {"service": {"name": "a"}}}, "webhooks[0].clientConfig.service.namespace", "Required value"),
        ({"rules": [{"operations": ["LOOK"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]}, "webhooks[0].rules[0].operations[0]", "Unsupported value"),
        ({"rules": [{"operations": ["*"], "apiGroups": ["*", "a"], "apiVersions": ["v1"], "resources": []}]}, "webhooks[0].rules[0].apiGroups", "must not specify others"),
        ({"namespaceSelector": {"matchExpressions": [{"key": "a", "operator": "Like"}]}}, "webhooks[0].namespaceSelector.matchExpressions[0].operator", "Unsupported value"),
        ({"objectSelector": {"matchLabels": {"a b": "c"}}}, "webhooks[0].objectSelector.matchLabels", "no label key"),
        ({"matchConditions": [{"name": "c", "expression": "object.x >"}]}, "webhooks[0].matchConditions[0].expression", "compilation failed"),
    ],
)  # fmt: skip
async def test_a_configuration_that_cannot_work_is_refused(
    call: Any, hook: Hook, more: JSON, field: str, text: str
) -> None:
    answer = await call("POST", f"{BASE}/validatingwebhookconfigurations", configuration(hook, **more))
    assert answer.status == 422, answer.body
    causes = {c["field"]: c["message"] for c in answer.body["details"]["causes"]}
    assert text in causes.get(field, ""), causes


async def test_a_service_without_a_way_to_it_fails_closed(call: Any, hook: Hook) -> None:
    service = {"namespace": "default", "name": "hook", "path": "/check"}
    await register(call, hook, clientConfig={"service": service, "caBundle": hook.ca})
    answer = await call("POST", MAPS, {"metadata": {"name": "a"}})
    assert answer.status == 500 and 'service "hook" not found' in answer.body["message"]
    await call(
        "POST",
        "/api/v1/namespaces/default/services",
        {"metadata": {"name": "hook"}, "spec": {"ports": [{"port": 8443}]}},
    )
    answer = await call("POST", MAPS, {"metadata": {"name": "a"}})
    assert answer.status == 500 and "has no port 443" in answer.body["message"]


async def test_a_stream_begins_only_when_webhooks_agree(apiserver: Any, hook: Hook) -> None:
    async def stream(_http: Any, _request: Any, _obj: JSON) -> web.Response:
        return web.Response(text="streamed")

    apiserver.parts.server.connect[("/pods", "exec")] = stream
    pods = "/api/v1/namespaces/default/pods"
    pod = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    assert (await apiserver.call("POST", pods, pod)).status == 201
    rule = {"operations": ["CONNECT"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods/exec"]}
    await register(apiserver.call, hook, rules=[rule], objectSelector={})
    path = f"{pods}/p/exec?command=ls&command=-l&stdin=true&container=c"
    assert (await apiserver.call("POST", path)).body == "streamed"
    asked = hook.asked[0]
    assert asked["object"] == {
        "kind": "PodExecOptions", "apiVersion": "v1", "stdin": True, "container": "c", "command": ["ls", "-l"]
    }  # fmt: skip
    assert (asked["operation"], asked["name"], asked["subResource"]) == ("CONNECT", "p", "exec")
    assert (asked["kind"]["kind"], asked["resource"]["resource"]) == ("PodExecOptions", "pods")
    hook.response = {"allowed": False, "status": {"message": "no shells here"}}
    answer = await apiserver.call("POST", path)
    assert (answer.status, answer.body["reason"]) == (403, "Forbidden")
    assert "denied the request: no shells here" in answer.body["message"]


async def test_a_service_is_called_at_its_cluster_address_under_its_own_name(
    apiserver: Any, hook: Hook, tmp_path: Path
) -> None:
    """The socket comes from inside the cluster; here it leads to a server on loopback, wherever it is sent."""
    pem, key = self_signed("hook.default.svc")
    (tmp_path / "s.crt").write_bytes(pem)
    (tmp_path / "s.key").write_bytes(key)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "s.crt", tmp_path / "s.key")
    application = web.Application()
    application.router.add_post("/check", hook.serve)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    there, sent = runner.addresses[0], []

    class Led(socket.socket):
        def connect(self, address: Any) -> None:
            sent.append(address)
            super().connect(there)

    apiserver.parts.api.admission.sockets = lambda info: Led(info[0], socket.SOCK_STREAM)
    service = {"metadata": {"name": "hook"}, "spec": {"ports": [{"port": 443}]}}
    made = await apiserver.call("POST", "/api/v1/namespaces/default/services", service)
    named = {"namespace": "default", "name": "hook", "path": "/check"}
    bundle = base64.b64encode(pem).decode()
    await register(apiserver.call, hook, clientConfig={"service": named, "caBundle": bundle})
    hook.response = {"allowed": False, "status": {"message": "heard"}}
    answer = await apiserver.call("POST", MAPS, {"metadata": {"name": "a"}})
    assert answer.body["message"] == 'admission webhook "check.example.com" denied the request: heard'
    assert sent == [(made.body["spec"]["clusterIP"], 443)]
    await runner.cleanup()


async def test_of_two_refusals_the_first_in_order_is_told(call: Any, hook: Hook) -> None:
    away = hook.url.replace("localhost", "127.0.0.1")
    both = [
        configuration(hook, name="a.example.com")["webhooks"][0],
        # A name the certificate does not carry: this one fails at once, long before the other has answered.
        configuration(hook, name="b.example.com", clientConfig={"url": away, "caBundle": hook.ca})[
            "webhooks"
        ][0],
    ]
    hook.pause, hook.response = 0.3, {"allowed": False, "status": {"message": "slow no"}}
    await call(
        "POST", f"{BASE}/validatingwebhookconfigurations", {"metadata": {"name": "two"}, "webhooks": both}
    )
    answer = await call("POST", MAPS, {"metadata": {"name": "a"}})
    assert answer.body["message"] == 'admission webhook "a.example.com" denied the request: slow no'
    assert len(hook.asked) == 1


async def test_webhooks_never_judge_webhook_configurations(call: Any, hook: Hook) -> None:
    hook.response = {"allowed": False}
    everything = {"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"]}
    await register(call, hook, rules=[everything])
    assert (await call("DELETE", f"{BASE}/validatingwebhookconfigurations/check")).status == 200
