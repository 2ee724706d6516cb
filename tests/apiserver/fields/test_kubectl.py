"""Server-side apply as kubectl does it, with both clients."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from pervade.testing.cluster import CACHE

Run = Callable[..., Awaitable[tuple[int, str]]]


@pytest.fixture(params=["kubectl-1.32", "kubectl-1.36"])
def kubectl(request: pytest.FixtureRequest, apiserver: Any, tmp_path: Path) -> Run:
    """`kubectl(*words, obj=…)`: exit status and all output."""
    program = CACHE / "bin" / request.param
    if not program.exists():
        pytest.skip(f"{request.param} is not built: make kubectl")

    async def run(*words: str, obj: Any = None) -> tuple[int, str]:
        more = []
        if obj is not None:
            (tmp_path / "obj.json").write_text(json.dumps(obj))
            more = ["-f", str(tmp_path / "obj.json")]
        done = await asyncio.create_subprocess_exec(
            program, "-s", apiserver.url, f"--cache-dir={tmp_path}/cache", *words, *more,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        out, _ = await done.communicate()
        assert done.returncode is not None
        return done.returncode, out.decode()

    return run


def deployment(replicas: int | None = 1, image: str = "busybox") -> dict[str, Any]:
    spec: dict[str, Any] = {
        "selector": {"matchLabels": {"app": "web"}},
        "template": {
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{"name": "c", "image": image, "ports": [{"containerPort": 80}]}]},
        },
    }
    if replicas is not None:
        spec["replicas"] = replicas
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec}


async def test_apply_create_repeat_conflict_force(kubectl: Run) -> None:
    assert await kubectl("apply", "--server-side", obj=deployment()) == (
        0,
        "deployment.apps/web serverside-applied\n",
    )
    _, before = await kubectl("get", "deployment", "web", "-o", "jsonpath={.metadata.resourceVersion}")
    assert (await kubectl("apply", "--server-side", obj=deployment()))[0] == 0
    _, after = await kubectl("get", "deployment", "web", "-o", "jsonpath={.metadata.resourceVersion}")
    assert before == after
    assert (await kubectl("scale", "deployment/web", "--replicas=4"))[0] == 0
    code, said = await kubectl("apply", "--server-side", obj=deployment(2))
    assert code == 1
    assert "Apply failed with 1 conflict: conflict with" in said, said
    assert 'with subresource "scale" using apps/v1: .spec.replicas' in said
    code, said = await kubectl("apply", "--server-side", "--force-conflicts", obj=deployment(2))
    assert (code, said) == (0, "deployment.apps/web serverside-applied\n")
    code, said = await kubectl("get", "deployment", "web", "-o", "yaml", "--show-managed-fields")
    assert "operation: Apply" in said
    assert 'k:{"containerPort":80,"protocol":"TCP"}' in said
    assert (await kubectl("get", "deployment", "web", "-o", "jsonpath={.spec.replicas}"))[1] == "2"


async def test_a_field_that_is_no_longer_applied_goes(kubectl: Run) -> None:
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "m"},
        "data": {"a": "1", "b": "2"},
    }
    assert (await kubectl("apply", "--server-side", obj=config))[0] == 0
    assert (
        await kubectl("apply", "--server-side", "--field-manager=other", obj={**config, "data": {"a": "1"}})
    )[0] == 0
    assert (await kubectl("apply", "--server-side", obj={**config, "data": {"c": "3"}}))[0] == 0
    assert (await kubectl("get", "cm", "m", "-o", "jsonpath={.data}"))[1] == '{"a":"1","c":"3"}'


async def test_an_object_applied_by_the_client_moves_over(kubectl: Run) -> None:
    """kubectl rewrites managedFields by JSON patch, and then owns what it owned before."""
    assert (await kubectl("apply", obj=deployment(3)))[0] == 0
    code, said = await kubectl("apply", "--server-side", obj=deployment(None, "busybox:2"))
    assert (code, said) == (0, "deployment.apps/web serverside-applied\n")
    _, yaml = await kubectl("get", "deployment", "web", "-o", "yaml", "--show-managed-fields")
    assert "image: busybox:2" in yaml
    assert "kubectl-client-side-apply" not in yaml
    # Nobody applies replicas any more: the default is back.
    assert (await kubectl("get", "deployment", "web", "-o", "jsonpath={.spec.replicas}"))[1] == "1"


async def test_diff_shows_what_an_apply_would_change(kubectl: Run) -> None:
    assert (await kubectl("apply", "--server-side", obj=deployment()))[0] == 0
    code, said = await kubectl("diff", "--server-side", obj=deployment(5))
    assert code == 1
    assert "+  replicas: 5" in said, said
    assert (await kubectl("get", "deployment", "web", "-o", "jsonpath={.spec.replicas}"))[1] == "1"


async def test_an_apply_says_who_it_is(call: Any) -> None:
    path = "/api/v1/namespaces/default/configmaps/x"
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}}
    media = "application/apply-patch+yaml"
    answer = await call("PATCH", path, body, content_type=media)
    assert (answer.status, answer.body["reason"]) == (422, "Invalid")
    assert "fieldManager: Required value" in answer.body["message"]
    with_fields = {**body, "metadata": {"name": "x", "managedFields": [{"manager": "x"}]}}
    answer = await call("PATCH", path + "?fieldManager=m", with_fields, content_type=media)
    assert (answer.status, answer.body["message"]) == (400, "metadata.managedFields must be nil")
    answer = await call(
        "PATCH",
        path + "?fieldManager=m",
        b"kind: ConfigMap\napiVersion: v1\ndata: {a: '1'}\n",
        content_type=media,
    )
    assert answer.status == 201
    assert answer.body["metadata"]["managedFields"][0]["fieldsV1"] == {"f:data": {"f:a": {}}}


async def test_writers_are_recorded_by_what_they_changed(call: Any) -> None:
    base = "/api/v1/namespaces/default/pods"
    pod = {
        "metadata": {"name": "p", "labels": {"a": "1"}},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    }
    await call("POST", base + "?fieldManager=maker", pod)
    media = "application/merge-patch+json"
    await call(
        "PATCH", base + "/p?fieldManager=labeller", {"metadata": {"labels": {"b": "2"}}}, content_type=media
    )
    answer = await call(
        "PATCH", base + "/p/status?fieldManager=kubelet", {"status": {"phase": "Running"}}, content_type=media
    )
    rows = {r["manager"]: r for r in answer.body["metadata"]["managedFields"]}
    assert rows["labeller"]["fieldsV1"] == {"f:metadata": {"f:labels": {"f:b": {}}}}
    assert rows["kubelet"]["subresource"] == "status"
    assert rows["kubelet"]["fieldsV1"] == {"f:status": {"f:phase": {}}}
    assert "f:a" in rows["maker"]["fieldsV1"]["f:metadata"]["f:labels"]
    answer = await call(
        "PATCH",
        base + "/p?fieldManager=labeller",
        {"metadata": {"labels": {"b": None, "a": "9"}}},
        content_type=media,
    )
    rows = {r["manager"]: r for r in answer.body["metadata"]["managedFields"]}
    assert rows["labeller"]["fieldsV1"] == {"f:metadata": {"f:labels": {"f:a": {}}}}
    assert "f:a" not in rows["maker"]["fieldsV1"]["f:metadata"].get("f:labels", {})
