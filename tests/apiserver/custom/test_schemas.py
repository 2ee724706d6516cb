"""Custom kinds with schemas: pruned, completed, validated, printed; and definitions that cannot be served."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pervade.testing.cluster import CACHE

JSON = dict[str, Any]
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
WIDGETS = "/apis/example.com/v1/namespaces/default/widgets"
SPEC: JSON = {
    "type": "object",
    "description": "What a widget shall be.",
    "required": ["size"],
    "x-kubernetes-validations": [
        {"rule": "self.size <= self.limit", "messageExpression": "'size ' + string(self.size) + ' is over the limit'"},
        {"rule": "self.colour == oldSelf.colour", "message": "colour is immutable", "reason": "FieldValueForbidden"},
        {"rule": "self.hosts.all(h, format.dns1123Subdomain().validate(h) == optional.none())", "fieldPath": ".hosts"},
    ],
    "properties": {
        "size": {"type": "integer", "minimum": 1},
        "limit": {"type": "integer", "default": 10},
        "colour": {"type": "string", "enum": ["red", "blue"], "default": "red"},
        "hosts": {"type": "array", "default": [], "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
        "port": {"x-kubernetes-int-or-string": True},
        "note": {"type": "string", "nullable": True},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        "rows": {
            "type": "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"],
            "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}, "v": {"type": "integer"}}},
        },
    },
}  # fmt: skip


def definition(spec: JSON = SPEC, **version: Any) -> JSON:
    schema = {
        "type": "object",
        "properties": {
            "spec": spec,
            "status": {"type": "object", "properties": {"phase": {"type": "string"}}},
        },
    }
    one = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}},
        "additionalPrinterColumns": [
            {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
            {"name": "Hosts", "type": "string", "jsonPath": ".spec.hosts", "priority": 1},
            {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
        ],
        **version,
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "shortNames": ["wd"]},
            "versions": [one],
        },
    }


def widget(name: str = "w", **spec: Any) -> JSON:
    return {
        "apiVersion": "example.com/v1",
        "kind": "Widget",
        "metadata": {"name": name},
        "spec": {"size": 1, **spec},
    }


@pytest.fixture
async def widgets(call: Any) -> Any:
    answer = await call("POST", DEFINITIONS, definition())
    assert answer.status == 201, answer.body
    return call


async def test_an_object_is_pruned_and_completed(widgets: Any) -> None:
    answer = await widgets("POST", WIDGETS, widget(junk=1, free={"any": 1}, port="http", note=None))
    assert answer.status == 201, answer.body
    assert answer.headers.getall("Warning") == ['299 - "unknown field \\"spec.junk\\""']
    assert answer.body["spec"] == {
        "size": 1, "limit": 10, "colour": "red", "hosts": [], "free": {"any": 1}, "port": "http", "note": None
    }  # fmt: skip
    answer = await widgets("POST", WIDGETS + "?fieldValidation=Strict", widget("x", junk=1))
    assert (answer.status, answer.body["reason"]) == (400, "BadRequest")
    assert 'strict decoding error: unknown field "spec.junk"' in answer.body["message"]


@pytest.mark.parametrize(
    ("spec", "field", "text"),
    [
        (
            {"size": "big"},
            "spec.size",
            'Invalid value: "string": spec.size in body must be of type integer: "string"',
        ),
        (
            {"size": 0},
            "spec.size",
            "Invalid value: 0: spec.size in body should be greater than or equal to 1",
        ),
        ({"colour": "green"}, "spec.colour", 'Unsupported value: "green": supported values: "red", "blue"'),
        ({"size": None}, "spec.size", "Required value"),
        ({"port": True}, "spec.port", "must be of type"),
        ({"hosts": ["a", "a"]}, "spec.hosts[1]", 'Duplicate value: "a"'),
        ({"rows": [{"name": "a"}, {"name": "a"}]}, "spec.rows[1]", 'Duplicate value: {"name":"a"}'),
        ({"rows": [{"v": 1}]}, "spec.rows[0].name", "Required value"),
        ({"size": 11}, "spec", "size 11 is over the limit"),
        ({"hosts": ["a_b"]}, "spec.hosts", "failed rule"),
    ],
)
async def test_a_wrong_object_is_refused_with_field_and_reason(
    widgets: Any, spec: JSON, field: str, text: str
) -> None:
    answer = await widgets("POST", WIDGETS, widget(**spec))
    assert (answer.status, answer.body["reason"]) == (422, "Invalid"), answer.body
    causes = {c["field"]: c["message"] for c in answer.body["details"]["causes"]}
    assert text in causes.get(field, ""), causes


async def test_rules_compare_with_the_object_before(widgets: Any) -> None:
    await widgets("POST", WIDGETS, widget())
    media = "application/merge-patch+json"
    answer = await widgets("PATCH", WIDGETS + "/w", {"spec": {"colour": "blue"}}, content_type=media)
    assert answer.status == 422
    assert answer.body["details"]["causes"][0]["message"] == "Forbidden: colour is immutable"
    answer = await widgets("PATCH", WIDGETS + "/w", {"spec": {"size": 5}}, content_type=media)
    assert answer.status == 200
    assert answer.body["metadata"]["generation"] == 2


async def test_what_was_wrong_before_may_stay(widgets: Any) -> None:
    """Ratcheting: a schema that became stricter does not lock its objects."""
    await widgets("POST", WIDGETS, widget(size=8))
    stricter = json.loads(json.dumps(SPEC))
    stricter["properties"]["size"]["maximum"] = 5
    media = "application/merge-patch+json"
    answer = await widgets(
        "PATCH",
        f"{DEFINITIONS}/widgets.example.com",
        {"spec": definition(stricter)["spec"]},
        content_type=media,
    )
    assert answer.status == 200, answer.body
    answer = await widgets("PATCH", WIDGETS + "/w", {"metadata": {"labels": {"a": "b"}}}, content_type=media)
    assert answer.status == 200, answer.body
    answer = await widgets("PATCH", WIDGETS + "/w", {"spec": {"size": 9}}, content_type=media)
    assert answer.status == 422


async def test_a_new_default_shows_on_old_objects(widgets: Any) -> None:
    await widgets("POST", WIDGETS, widget())
    newer = json.loads(json.dumps(SPEC))
    newer["properties"]["depth"] = {"type": "integer", "default": 3}
    media = "application/merge-patch+json"
    await widgets(
        "PATCH", f"{DEFINITIONS}/widgets.example.com", {"spec": definition(newer)["spec"]}, content_type=media
    )
    assert (await widgets("GET", WIDGETS + "/w")).body["spec"]["depth"] == 3
    assert (await widgets("GET", WIDGETS)).body["items"][0]["spec"]["depth"] == 3


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"properties": {"a": {}}}, "must not be empty for specified object fields"),
        ({"properties": {"a": {"type": "array"}}}, "must be specified"),
        ({"x-kubernetes-validations": [{"rule": "self.size <"}]}, "compilation failed"),
        ({"properties": {"a": {"type": "integer", "default": "x"}}}, "must be of type integer"),
        ({"properties": {"a": {"type": "string", "pattern": "("}}}, "the schema cannot be used"),
        ({"anyOf": [{"type": "object"}]}, "must be empty to be structural"),
    ],
)
async def test_a_schema_that_cannot_be_served_is_refused(call: Any, change: JSON, text: str) -> None:
    answer = await call("POST", DEFINITIONS, definition({"type": "object", **change}))
    assert answer.status == 422, answer.body
    assert text in answer.body["message"]


@pytest.mark.parametrize("client", ["kubectl-1.32", "kubectl-1.36"])
async def test_kubectl_applies_a_definition_and_its_object(
    apiserver: Any, tmp_path: Path, client: str
) -> None:
    program = CACHE / "bin" / client
    if not program.exists():
        pytest.skip(f"{client} is not built: make kubectl")

    async def run(*words: str) -> str:
        done = await asyncio.create_subprocess_exec(
            program,
            "-s",
            apiserver.url,
            f"--cache-dir={tmp_path}/c",
            *words,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        out, _ = await done.communicate()
        return out.decode()

    for name, obj in (("crd", definition()), ("cr", widget(size=2, hosts=["a.example"]))):
        (tmp_path / f"{name}.json").write_text(json.dumps(obj))
        assert "created" in await run("apply", "-f", str(tmp_path / f"{name}.json"))
    row = (await run("get", "wd")).splitlines()
    assert row[0].split() == ["NAME", "SIZE", "AGE"]
    assert row[1].split()[:2] == ["w", "2"]
    assert '["a.example"]' in await run("get", "wd", "-o", "wide")
    assert "What a widget shall be." in await run("explain", "widget.spec")
    assert "colour" in await run("explain", "widget", "--recursive")
    assert "Kind is a string value" in await run("explain", "widget.kind")
    (tmp_path / "cr.json").write_text(json.dumps(widget(size=2, colr="red")))
    assert 'unknown field "spec.colr"' in await run("apply", "-f", str(tmp_path / "cr.json"))
    (tmp_path / "cr.json").write_text(json.dumps(widget(size=0)))
    assert "spec.size: Invalid value: 0" in await run("apply", "-f", str(tmp_path / "cr.json"))
    assert "spec.size in body should be greater than" in await run("apply", "-f", str(tmp_path / "cr.json"))
    (tmp_path / "cr.json").write_text(json.dumps(widget(size=3)))
    assert "configured" in await run("apply", "-f", str(tmp_path / "cr.json"))
    (tmp_path / "cr.json").write_text(json.dumps(widget("s", rows=[{"name": "a", "v": 1}])))
    assert "serverside-applied" in await run("apply", "--server-side", "-f", str(tmp_path / "cr.json"))
    (tmp_path / "cr.json").write_text(json.dumps(widget("s", rows=[{"name": "b", "v": 2}])))
    assert "serverside-applied" in await run(
        "apply", "--server-side", "--field-manager=b", "-f", str(tmp_path / "cr.json")
    )
    assert "a b" in await run("get", "wd", "s", "-o", "jsonpath={.spec.rows[*].name}")
