"""Custom resources: served from the moment of their definition, gone with it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

Call = Callable[..., Awaitable[Any]]
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
SHIPS = "/apis/example.com/v1/namespaces/default/ships"
MERGE = "application/merge-patch+json"


def definition(**spec: Any) -> dict[str, Any]:
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": schema,
        "subresources": {"status": {}},
    }
    names = {"plural": "ships", "kind": "Ship", "shortNames": ["sh"]}
    spec = {"group": "example.com", "scope": "Namespaced", "names": names, "versions": [version]} | spec
    return {"metadata": {"name": "ships.example.com"}, "spec": spec}


async def test_a_new_kind_is_served_and_discovered_at_once(call: Call) -> None:
    assert (await call("GET", SHIPS)).status == 404
    made = await call("POST", CRDS, definition())
    assert made.status == 201, made.body
    conditions = {c["type"]: c["status"] for c in made.body["status"]["conditions"]}
    assert conditions == {"NamesAccepted": "True", "Established": "True"}
    assert made.body["spec"]["names"]["listKind"] == "ShipList"
    assert (await call("GET", SHIPS)).body["kind"] == "ShipList"
    resources = (await call("GET", "/apis/example.com/v1")).body["resources"]
    assert [r["name"] for r in resources] == ["ships", "ships/status"]
    groups = (await call("GET", "/apis")).body["groups"]
    assert "example.com" in [g["name"] for g in groups]


async def test_custom_objects_live_like_others(call: Call) -> None:
    await call("POST", CRDS, definition())
    made = await call("POST", SHIPS, {"metadata": {"name": "a"}, "spec": {"sails": 3}, "status": {"x": 1}})
    assert made.status == 201 and "status" not in made.body and made.body["metadata"]["generation"] == 1
    changed = await call("PATCH", f"{SHIPS}/a", {"spec": {"sails": 4}}, content_type=MERGE)
    assert changed.body["metadata"]["generation"] == 2
    strategic = await call("PATCH", f"{SHIPS}/a", {}, content_type="application/strategic-merge-patch+json")
    assert strategic.status == 415


async def test_two_served_versions_share_their_objects(call: Call) -> None:
    schema = definition()["spec"]["versions"][0]["schema"]
    versions = [
        {"name": "v1", "served": True, "storage": True, "schema": schema},
        {"name": "v1beta1", "served": True, "storage": False, "schema": schema},
    ]
    await call("POST", CRDS, definition(versions=versions))
    old = "/apis/example.com/v1beta1/namespaces/default/ships"
    body = {"apiVersion": "example.com/v1beta1", "kind": "Ship", "metadata": {"name": "a"}}
    assert (await call("POST", old, body)).body["apiVersion"] == "example.com/v1beta1"
    assert (await call("GET", f"{SHIPS}/a")).body["apiVersion"] == "example.com/v1"
    assert (await call("GET", old)).body["items"][0]["apiVersion"] == "example.com/v1beta1"


async def test_names_in_use_are_not_accepted(call: Call) -> None:
    await call("POST", CRDS, definition())
    other = definition(names={"plural": "boats", "kind": "Ship"})
    other["metadata"]["name"] = "boats.example.com"
    made = (await call("POST", CRDS, other)).body
    assert [c["status"] for c in made["status"]["conditions"]] == ["False", "False"]
    assert (await call("GET", "/apis/example.com/v1/boats")).status == 404


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"group": ""}, "spec.group: Required value"),
        ({"versions": []}, "spec.versions: Required value"),
        ({"names": {"plural": "boats", "kind": "Ship"}}, "metadata.name: Invalid value"),
        ({"scope": "Galaxy"}, "spec.scope: Unsupported value"),
        (
            {
                "versions": [
                    {
                        "name": "v1",
                        "served": True,
                        "storage": False,
                        "schema": {"openAPIV3Schema": {"type": "object"}},
                    }
                ]
            },
            "exactly one version",
        ),
        ({"conversion": {"strategy": "Webhook"}}, "strategy None only"),
    ],
)
async def test_a_wrong_definition_is_refused(call: Call, spec: dict[str, Any], said: str) -> None:
    refused = await call("POST", CRDS, definition(**spec))
    assert refused.status == 422 and said in refused.body["message"]


async def test_a_deleted_definition_takes_its_objects_along(apiserver: Any) -> None:
    call = apiserver.call
    await call("POST", CRDS, definition())
    for name in ("a", "b"):
        await call("POST", SHIPS, {"metadata": {"name": name}})
    held = {"metadata": {"name": "held", "finalizers": ["example.com/wait"]}}
    version = (await call("POST", SHIPS, held)).body["metadata"]["resourceVersion"]
    gone = await call("DELETE", f"{CRDS}/ships.example.com")
    assert gone.body["metadata"]["deletionTimestamp"]
    assert (await call("POST", SHIPS, {"metadata": {"name": "late"}})).status == 405
    async with asyncio.timeout(10):
        seen = 0
        async for event in apiserver.watch(f"{SHIPS}?watch=true&resourceVersion={version}"):
            seen += event["type"] == "DELETED"
            if seen == 2:
                break
    left = (await call("GET", SHIPS)).body["items"]
    assert [i["metadata"]["name"] for i in left] == ["held"]
    watching = apiserver.watch(f"{CRDS}?watch=true&fieldSelector=metadata.name%3Dships.example.com")
    await anext(watching)
    await call("PATCH", f"{SHIPS}/held", {"metadata": {"finalizers": None}}, content_type=MERGE)
    async with asyncio.timeout(10):
        async for event in watching:
            if event["type"] == "DELETED":
                break
    assert (await call("GET", SHIPS)).status == 404


async def test_definitions_are_served_again_after_a_restart(tmp_path: Any, start_server: Any) -> None:
    from pervade.wire.http import ClientSession

    async with ClientSession() as session:
        parts, runner, url = await start_server(tmp_path)
        async with session.post(url + CRDS, json=definition()) as response:
            assert response.status == 201
        await runner.cleanup()
        await parts.stop()
        parts, runner, url = await start_server(tmp_path)
        async with session.get(url + SHIPS) as response:
            assert response.status == 200
        await runner.cleanup()
        await parts.stop()
