"""Admission webhooks against a real HTTPS server: asked, obeyed, and what happens when they fail."""

from __future__ import annotations

import asyncio
import base64
import json
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
        self.url = self.ca = ""

    async def serve(self, http: web.Request) -> web.Response:
        review = await http.json()
        self.asked.append(review["request"])
        await asyncio.sleep(self.pause)
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


async def test_a_dry_run_asks_only_webhooks_without_side_effects(call: Any, hook: Hook) -> None:
    await register(call, hook)
    answer = await call("POST", MAPS + "?dryRun=All", {"metadata": {"name": "a"}})
    assert (answer.status, hook.asked[0]["dryRun"]) == (201, True)
    await call("DELETE", f"{BASE}/validatingwebhookconfigurations/check")
    await register(call, hook, sideEffects="Unknown")
    answer = await call("POST", MAPS + "?dryRun=All", {"metadata": {"name": "a"}})
    assert (answer.status, answer.body["message"]) == (
        400, 'admission webhook "check.example.com" does not support dry run'
    )  # fmt: skip


async def test_webhooks_never_judge_webhook_configurations(call: Any, hook: Hook) -> None:
    hook.response = {"allowed": False}
    everything = {"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"]}
    await register(call, hook, rules=[everything])
    assert (await call("DELETE", f"{BASE}/validatingwebhookconfigurations/check")).status == 200
