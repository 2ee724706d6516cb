"""The life of definitions: names, approval, versions, subresources, selectable fields, what kubectl does with them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

JSON = dict[str, Any]
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
MERGE = "application/merge-patch+json"
SCHEMA: JSON = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "properties": {"crew": {"type": "integer", "default": 1}, "flag": {"type": "string"}},
        },
        "status": {
            "type": "object",
            "properties": {"crew": {"type": "integer"}, "selector": {"type": "string"}},
        },
    },
}
SCALE = {
    "specReplicasPath": ".spec.crew",
    "statusReplicasPath": ".status.crew",
    "labelSelectorPath": ".status.selector",
}


def version(name: str = "v1", **more: Any) -> JSON:
    return {"name": name, "served": True, "storage": True, "schema": {"openAPIV3Schema": SCHEMA}, **more}


def definition(plural: str = "ships", kind: str = "Ship", group: str = "example.com", **spec: Any) -> JSON:
    made = {
        "group": group,
        "scope": "Namespaced",
        "names": {"plural": plural, "kind": kind},
        "versions": [version()],
    }
    return {"metadata": {"name": f"{plural}.{group}"}, "spec": made | spec}


def conditions(obj: JSON) -> dict[str, str]:
    return {c["type"]: f"{c['status']} {c['reason']}" for c in obj["status"]["conditions"]}


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ({"plural": "boats", "kind": "Ship", "singular": "boat"}, "KindConflict"),
        ({"plural": "boats", "kind": "Boat", "singular": "ship"}, "SingularConflict"),
        ({"plural": "boats", "kind": "Boat", "shortNames": ["ships"]}, "ShortNamesConflict"),
        ({"plural": "boats", "kind": "Boat", "listKind": "ShipList"}, "ListKindConflict"),
    ],
)
async def test_names_that_are_taken_wait_until_they_are_free(
    apiserver: Any, names: JSON, reason: str
) -> None:
    call = apiserver.call
    await call("POST", CRDS, definition())
    made = await call("POST", CRDS, definition("boats", names=names))
    assert conditions(made.body) == {"NamesAccepted": f"False {reason}", "Established": "False NotAccepted"}
    assert (await call("GET", "/apis/example.com/v1/boats")).status == 404
    at = made.body["metadata"]["resourceVersion"]
    await call("DELETE", f"{CRDS}/ships.example.com")
    async with asyncio.timeout(10):
        async for event in apiserver.watch(f"{CRDS}?watch=true&resourceVersion={at}"):
            obj = event["object"]
            if obj["metadata"]["name"] == "boats.example.com" and "True" in conditions(obj)["Established"]:
                break
    assert (await call("GET", "/apis/example.com/v1/boats")).status == 200


async def test_new_names_that_are_taken_do_not_end_what_is_served(call: Any) -> None:
    await call("POST", CRDS, definition())
    await call("POST", CRDS, definition("boats", "Boat"))
    names = {"plural": "boats", "kind": "Boat", "shortNames": ["ship"]}
    changed = await call("PATCH", f"{CRDS}/boats.example.com", {"spec": {"names": names}}, content_type=MERGE)
    assert conditions(changed.body) == {
        "NamesAccepted": "False ShortNamesConflict",
        "Established": "True InitialNamesAccepted",
    }
    assert "shortNames" not in changed.body["status"]["acceptedNames"]
    assert (await call("GET", "/apis/example.com/v1/boats")).status == 200


async def test_protected_groups_need_an_approval(call: Any) -> None:
    made = definition(group="things.k8s.io")
    refused = await call("POST", CRDS, made)
    assert refused.status == 422 and "protected groups must have approval" in refused.body["message"]
    made["metadata"]["annotations"] = {"api-approved.kubernetes.io": "https://example.com/pull/1"}
    accepted = await call("POST", CRDS, made)
    assert accepted.status == 201
    assert conditions(accepted.body)["KubernetesAPIApprovalPolicyConformant"] == "True ApprovedAnnotation"


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"names": {"plural": "ships", "kind": "Ship", "listKind": "Ship"}}, "kind and listKind may not be the same"),
        ({"names": {"plural": "ships", "kind": "Ship", "shortNames": ["S!"]}}, "spec.names.shortNames[0]: Invalid value"),
        ({"versions": [version("1")]}, "spec.versions[0].name: Invalid value"),
        ({"versions": [version(), version(storage=False)]}, "spec.versions[1].name: Duplicate value"),
    ],
)  # fmt: skip
async def test_names_have_a_form(call: Any, spec: JSON, said: str) -> None:
    refused = await call("POST", CRDS, definition(**spec))
    assert refused.status == 422 and said in refused.body["message"], refused.body


async def test_a_version_with_objects_in_it_cannot_be_dropped(call: Any) -> None:
    await call("POST", CRDS, definition())
    both = [version(storage=False), version("v2")]
    changed = await call(
        "PATCH", f"{CRDS}/ships.example.com", {"spec": {"versions": both}}, content_type=MERGE
    )
    assert changed.body["status"]["storedVersions"] == ["v1", "v2"]
    only = {"spec": {"versions": [version("v2")]}}
    refused = await call("PATCH", f"{CRDS}/ships.example.com", only, content_type=MERGE)
    assert refused.status == 422 and "status.storedVersions[0]" in refused.body["message"]
    migrated = {"status": {"storedVersions": ["v2"]}}
    await call("PATCH", f"{CRDS}/ships.example.com/status", migrated, content_type=MERGE)
    assert (await call("PATCH", f"{CRDS}/ships.example.com", only, content_type=MERGE)).status == 200
    assert (await call("GET", "/apis/example.com/v1/ships")).status == 404


async def test_scale_of_a_custom_kind(call: Any) -> None:
    await call("POST", CRDS, definition(versions=[version(subresources={"scale": SCALE, "status": {}})]))
    ships = "/apis/example.com/v1/namespaces/default/ships"
    await call("POST", ships, {"metadata": {"name": "a"}, "spec": {}})
    state = {"status": {"crew": 2, "selector": "app=a"}}
    assert (await call("PATCH", f"{ships}/a/status", state, content_type=MERGE)).status == 200
    scale = (await call("GET", f"{ships}/a/scale")).body
    assert (scale["apiVersion"], scale["kind"]) == ("autoscaling/v1", "Scale")
    assert (scale["spec"], scale["status"]) == ({"replicas": 1}, {"replicas": 2, "selector": "app=a"})
    done = await call("PATCH", f"{ships}/a/scale", {"spec": {"replicas": 5}}, content_type=MERGE)
    assert done.status == 200, done.body
    stored = (await call("GET", f"{ships}/a")).body
    assert (stored["spec"]["crew"], stored["metadata"]["generation"]) == (5, 2)
    resources = (await call("GET", "/apis/example.com/v1")).body["resources"]
    assert sorted(r["name"] for r in resources) == ["ships", "ships/scale", "ships/status"]


async def test_status_is_its_own_subresource_only_when_the_definition_says_so(call: Any) -> None:
    await call("POST", CRDS, definition())
    await call("POST", CRDS, definition("boats", "Boat", versions=[version(subresources={"status": {}})]))
    for plural, kept in (("ships", 3), ("boats", None)):
        path = f"/apis/example.com/v1/namespaces/default/{plural}"
        made = await call("POST", path, {"metadata": {"name": "a"}, "status": {"crew": 3}})
        assert (made.body.get("status") or {}).get("crew") == kept
        wanted = 404 if kept else 200
        assert (await call("GET", f"{path}/a/status")).status == wanted
        wrong = await call(
            "PATCH",
            f"{path}/a" + ("" if kept else "/status"),
            {"status": {"crew": "many"}},
            content_type=MERGE,
        )
        assert wrong.status == 422 and "status.crew" in wrong.body["message"]


async def test_selectable_fields_select(call: Any) -> None:
    fields = [{"jsonPath": ".spec.flag"}, {"jsonPath": ".spec.crew"}]
    await call("POST", CRDS, definition(versions=[version(selectableFields=fields)]))
    ships = "/apis/example.com/v1/namespaces/default/ships"
    for name, flag in (("a", "x"), ("b", "y")):
        await call("POST", ships, {"metadata": {"name": name}, "spec": {"flag": flag}})
    found = (await call("GET", f"{ships}?fieldSelector=spec.flag%3Dx,spec.crew%3D1")).body["items"]
    assert [i["metadata"]["name"] for i in found] == ["a"]
    assert (await call("GET", f"{ships}?fieldSelector=spec.gone%3Dx")).status == 400


async def test_discovery_and_openapi_follow_a_definition_at_once(call: Any) -> None:
    await call("POST", CRDS, definition())
    first = (await call("GET", "/openapi/v3")).body["paths"]["apis/example.com/v1"]["serverRelativeURL"]
    document = (await call("GET", first)).body
    (name,) = [n for n in document["components"]["schemas"] if n.endswith(".Ship")]
    assert (
        document["components"]["schemas"][name]["properties"]["spec"]["properties"]["crew"]["type"]
        == "integer"
    )
    newer = {**SCHEMA, "description": "It floats."}
    await call(
        "PATCH",
        f"{CRDS}/ships.example.com",
        {"spec": {"versions": [version(schema={"openAPIV3Schema": newer})]}},
        content_type=MERGE,
    )
    second = (await call("GET", "/openapi/v3")).body["paths"]["apis/example.com/v1"]["serverRelativeURL"]
    assert second != first
    assert (await call("GET", second)).body["components"]["schemas"][name]["description"] == "It floats."
    await call("DELETE", f"{CRDS}/ships.example.com")


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a": {"type": "string", "enum": []}}},
        {"type": "object", "properties": {"a": {"type": "string", "pattern": "(?=x)"}}},
        {"type": "object", "properties": {"a": {"type": "integer", "minimum": "low"}}},
        {"type": "object", "properties": {"a": None}},
        {"type": "object", "properties": {"a": {"type": "string", "x-kubernetes-validations": "all"}}},
        {"type": "object", "properties": {"a": {"type": "string", "x-kubernetes-validations": [{"rule": "(" * 4000}]}}},
        {"type": "object", "required": "a"},
        {"type": "object", "anyOf": [3]},
        {"type": "object", "properties": {"a": {"type": "object", "default": 2**80}}},
        3,
    ],
)  # fmt: skip
async def test_odd_definitions_are_the_callers_fault(call: Any, schema: Any) -> None:
    made = definition(versions=[version(schema={"openAPIV3Schema": schema})])
    answer = await call("POST", CRDS, made)
    assert answer.status in (201, 400, 422), answer.body
    deep: JSON = {"type": "object"}
    for _ in range(150):
        deep = {"type": "object", "properties": {"a": deep}}
    assert (
        await call(
            "POST", CRDS, definition("deeps", "Deep", versions=[version(schema={"openAPIV3Schema": deep})])
        )
    ).status == 422
