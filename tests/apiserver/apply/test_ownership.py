"""Who owns which field, seen over HTTP: applies, plain writes, subresources, resets, dry runs, custom kinds."""

from __future__ import annotations

from typing import Any

import pytest

APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
MAP = "/api/v1/namespaces/default/configmaps/x"
WEB = "/apis/apps/v1/namespaces/default/deployments/web"
JSON = dict[str, Any]


def config(**data: str) -> JSON:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": data}


def deployment(*containers: JSON, **spec: Any) -> JSON:
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": list(containers)}}
    spec = {"selector": {"matchLabels": {"a": "b"}}, "template": template, **spec}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec}


def rows(answer: Any) -> dict[tuple[str, str, str], JSON]:
    """managedFields by manager, operation and subresource."""
    found = answer.body["metadata"].get("managedFields", [])
    return {(r["manager"], r["operation"], r.get("subresource", "")): r for r in found}


async def apply(call: Any, path: str, body: JSON, manager: str, more: str = "") -> Any:
    return await call("PATCH", f"{path}?fieldManager={manager}{more}", body, content_type=APPLY)


async def rewrite(call: Any, value: Any) -> Any:
    change = {"metadata": {"managedFields": value}}
    return await call("PATCH", MAP + "?fieldManager=z", change, content_type=MERGE)


async def test_a_field_two_apply_goes_when_the_second_lets_go(call: Any) -> None:
    await apply(call, MAP, config(a="1"), "m1")
    assert (await apply(call, MAP, config(a="1"), "m2")).status == 200
    refused = await apply(call, MAP, config(a="2"), "m1")
    assert (refused.status, refused.body["reason"]) == (409, "Conflict")
    assert refused.body["message"] == 'Apply failed with 1 conflict: conflict with "m2": .data.a'
    assert refused.body["details"]["causes"] == [
        {"reason": "FieldManagerConflict", "message": 'conflict with "m2"', "field": ".data.a"}
    ]
    assert (await apply(call, MAP, config(), "m1")).body["data"] == {"a": "1"}
    assert not (await apply(call, MAP, config(), "m2")).body.get("data")


async def test_force_takes_the_field_from_its_owners(call: Any) -> None:
    await apply(call, MAP, config(a="1", b="1"), "m1")
    taken = await apply(call, MAP, config(a="2"), "m2", "&force=true")
    assert taken.body["data"] == {"a": "2", "b": "1"}
    assert rows(taken)["m1", "Apply", ""]["fieldsV1"] == {"f:data": {"f:b": {}}}
    assert rows(taken)["m2", "Apply", ""]["fieldsV1"] == {"f:data": {"f:a": {}}}
    assert rows(taken)["m2", "Apply", ""]["fieldsType"] == "FieldsV1"


async def test_force_is_for_applies_only(call: Any) -> None:
    await apply(call, MAP, config(a="1"), "m1")
    for media, body in ((MERGE, {"data": {"a": "2"}}), (JSON_PATCH, [])):
        answer = await call("PATCH", MAP + "?force=true", body, content_type=media)
        assert answer.status == 422
        assert "force: Forbidden: may not be specified for non-apply patch" in answer.body["message"]


async def test_an_apply_that_changes_nothing_writes_nothing(call: Any) -> None:
    """Also with nulls, defaults spelled out, empty objects and a status, as generated manifests have them."""
    container = {
        "name": "a",
        "image": "i",
        "resources": {"requests": {"cpu": "1000m", "memory": "1Gi"}},
        "ports": [{"containerPort": 80}],
        "securityContext": {},
    }
    body = deployment(container, replicas=2, strategy={})
    body["metadata"]["creationTimestamp"] = None
    body["status"] = {}
    made = await apply(call, WEB, body, "m")
    assert made.status == 201
    again = await apply(call, WEB, body, "m")
    assert (again.status, again.body) == (200, made.body)


async def test_nobody_owns_what_says_which_object_it_is(call: Any) -> None:
    body = config(a="1")
    body["metadata"] |= {"namespace": "default", "generation": 4, "labels": {"q": "1"}}
    made = await apply(call, MAP, body, "m1")
    assert rows(made)["m1", "Apply", ""]["fieldsV1"] == {
        "f:data": {"f:a": {}},
        "f:metadata": {"f:labels": {"f:q": {}}},
    }


async def test_a_resource_version_makes_an_apply_conditional(call: Any) -> None:
    await apply(call, MAP, config(a="1"), "m1")
    body = config(a="2")
    body["metadata"]["resourceVersion"] = "1"
    assert (await apply(call, MAP, body, "m1")).status == 409
    assert (await call("GET", MAP)).body["data"] == {"a": "1"}


async def test_a_dry_run_answers_and_stores_nothing(call: Any) -> None:
    assert (await apply(call, MAP, config(a="1"), "m1", "&dryRun=All")).status == 201
    assert (await call("GET", MAP)).status == 404
    made = await apply(call, MAP, config(a="1"), "m1")
    assert (await apply(call, MAP, config(a="2"), "m1", "&dryRun=All")).body["data"] == {"a": "2"}
    assert (await apply(call, MAP, config(a="2"), "m2", "&dryRun=All")).status == 409
    assert (await call("GET", MAP)).body == made.body


async def test_status_is_applied_by_its_own_entry(call: Any) -> None:
    await apply(call, WEB, deployment({"name": "a", "image": "i"}, replicas=2), "m1")
    body = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "labels": {"not": "here"}},
        "spec": {"replicas": 9},
        "status": {"conditions": [{"type": "T", "status": "True"}]},
    }
    answer = await apply(call, WEB + "/status", body, "s")
    assert answer.status == 200
    assert answer.body["spec"]["replicas"] == 2
    assert "labels" not in answer.body["metadata"]
    assert rows(answer)["s", "Apply", "status"]["fieldsV1"] == {
        "f:status": {"f:conditions": {'k:{"type":"T"}': {".": {}, "f:status": {}, "f:type": {}}}}
    }
    missing = await apply(call, WEB[:-3] + "none/status", {**body, "metadata": {"name": "none"}}, "s")
    assert missing.status == 404


async def test_scaling_takes_replicas_from_the_applier(call: Any) -> None:
    await apply(call, WEB, deployment({"name": "a", "image": "i"}, replicas=2), "m1")
    scale = (await call("GET", WEB + "/scale")).body
    scale["spec"]["replicas"] = 5
    assert (await call("PUT", WEB + "/scale?fieldManager=h", scale)).status == 200
    held = rows(await call("GET", WEB))
    assert held["h", "Update", "scale"]["fieldsV1"] == {"f:spec": {"f:replicas": {}}}
    assert "f:replicas" not in held["m1", "Apply", ""]["fieldsV1"]["f:spec"]


async def test_one_empty_entry_resets_the_books(call: Any) -> None:
    await apply(call, MAP, config(a="1"), "m1")
    assert rows(await rewrite(call, [{}])) == {}
    refused = await apply(call, MAP, config(a="2"), "m2")
    assert refused.body["message"] == (
        'Apply failed with 1 conflict: conflict with "before-first-apply" using v1: .data.a'
    )


@pytest.mark.parametrize("value", [[], None])
async def test_an_empty_list_resets_nothing(call: Any, value: Any) -> None:
    made = await apply(call, MAP, config(a="1"), "m1")
    answer = await rewrite(call, value)
    assert (answer.status, answer.body) == (200, made.body)


@pytest.mark.parametrize(
    "value",
    [
        "x",
        [3],
        {"a": 1},
        [{"manager": "x", "operation": "No"}],
        [{"manager": "x", "operation": "Apply", "fieldsV1": {"f:a": 3}}],
        [{"manager": "x", "operation": "Apply", "fieldsType": "FieldsV2", "fieldsV1": {}}],
    ],
)
async def test_books_that_are_none_are_refused(call: Any, value: Any) -> None:
    made = await apply(call, MAP, config(a="1"), "m1")
    assert (await rewrite(call, value)).status == 400
    assert (await call("GET", MAP)).body == made.body


async def test_books_can_be_rewritten_by_json_patch(call: Any) -> None:
    """As kubectl does when it takes over what its client-side apply owned."""
    meta = (await apply(call, MAP, config(a="1"), "m1")).body["metadata"]
    meta["managedFields"][0]["manager"] = "other"
    change = [
        {"op": "replace", "path": "/metadata/managedFields", "value": meta["managedFields"]},
        {"op": "replace", "path": "/metadata/resourceVersion", "value": meta["resourceVersion"]},
    ]
    answer = await call("PATCH", MAP + "?fieldManager=z", change, content_type=JSON_PATCH)
    assert set(rows(answer)) == {("other", "Apply", "")}
    assert (await call("PATCH", MAP, change, content_type=JSON_PATCH)).status == 409


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"3",
        b"- a\n",
        b"a: [",
        b"a: &a [*a]\n",
        b"kind: Secret\napiVersion: v1\n",
        b"kind: ConfigMap\napiVersion: v1\nmetadata: 3\n",
        b"kind: ConfigMap\napiVersion: v1\nmetadata: {name: y}\n",
        b"kind: ConfigMap\napiVersion: v1\nmetadata: {managedFields: []}\n",
        b"kind: ConfigMap\napiVersion: v1\ndata: [1]\n",
        b"kind: ConfigMap\napiVersion: v1\nnope: 1\n",
    ],
)
async def test_a_body_that_is_no_such_object_is_refused(call: Any, body: bytes) -> None:
    answer = await call("PATCH", MAP + "?fieldManager=m&fieldValidation=Strict", body, content_type=APPLY)
    assert (answer.status, answer.body["kind"], answer.body["reason"]) == (400, "Status", "BadRequest")
    assert (await call("GET", MAP)).status == 404


def definition(spec: JSON) -> JSON:
    schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": spec}}}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"plural": "shelves", "singular": "shelf", "kind": "Shelf"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "shelves.example.org"},
        "spec": {"group": "example.org", "scope": "Namespaced", "names": names, "versions": [version]},
    }


async def test_the_schema_of_a_custom_kind_says_what_is_one_field(call: Any) -> None:
    text = {"type": "string"}
    book = {"type": "object", "required": ["isbn"], "properties": {"isbn": text, "title": text}}
    whole = {"type": "object", "properties": {"a": text, "b": text}, "x-kubernetes-map-type": "atomic"}
    spec = {
        "books": {
            "type": "array",
            "items": book,
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["isbn"],
        },
        "tags": {"type": "array", "items": text, "x-kubernetes-list-type": "set"},
        "plain": {"type": "array", "items": text},
        "whole": whole,
    }
    made = await call("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition(spec))
    assert made.status == 201
    path = "/apis/example.org/v1/namespaces/default/shelves/s"

    def shelf(**found: Any) -> JSON:
        return {"apiVersion": "example.org/v1", "kind": "Shelf", "metadata": {"name": "s"}, "spec": found}

    first = shelf(books=[{"isbn": "1", "title": "one"}], tags=["a"], plain=["x"], whole={"a": "1"})
    assert (await apply(call, path, first, "m1")).status == 201
    both = await apply(call, path, shelf(books=[{"isbn": "2"}, {"isbn": "1"}], tags=["b"]), "m2")
    assert both.body["spec"]["books"] == [{"isbn": "2"}, {"isbn": "1", "title": "one"}]
    assert sorted(both.body["spec"]["tags"]) == ["a", "b"]
    refused = await apply(call, path, shelf(plain=["x", "y"], whole={"b": "1"}), "m2")
    assert {c["field"] for c in refused.body["details"]["causes"]} == {".spec.plain", ".spec.whole"}
    left = await apply(call, path, shelf(), "m1")
    assert left.body["spec"] == {"books": [{"isbn": "2"}, {"isbn": "1"}], "tags": ["b"]}
