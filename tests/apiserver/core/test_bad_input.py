"""Bad input: every answer is a documented Status, nothing leaks, nobody is kept waiting by somebody else."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pervade.cluster.apiserver.rest import codec, info, server
from pervade.cluster.apiserver.rest.status import StatusError

MAPS = "/api/v1/namespaces/default/configmaps"
PODS = "/api/v1/namespaces/default/pods"
YAML = "application/yaml"
PROTOBUF = "application/vnd.kubernetes.protobuf"
BOMB = b"a: &a [x,x,x,x,x,x,x,x,x,x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (98 + n, 98 + n, b",".join([b"*%c" % (97 + n)] * 10)) for n in range(8)
)


@pytest.mark.parametrize(
    ("body", "content_type", "status", "reason"),
    [
        (b'{"metadata":', "application/json", 400, "BadRequest"),
        (b'{"metadata":{"name":"\xff"}}', "application/json", 400, "BadRequest"),
        (b"[" * 100_000, "application/json", 400, "BadRequest"),
        (b"null", "application/json", 400, "BadRequest"),
        (b'"text"', "application/json", 400, "BadRequest"),
        (b"a: [", YAML, 400, "BadRequest"),
        (b"a: b: c", YAML, 400, "BadRequest"),
        (b"- 1", YAML, 400, "BadRequest"),
        (b"!!python/object/apply:os.system [id]", YAML, 400, "BadRequest"),
        (BOMB, YAML, 400, "BadRequest"),
        (b"k8s\x00\xff\xff\xff", PROTOBUF, 400, "BadRequest"),
        (b"", PROTOBUF, 400, "BadRequest"),
        (b"{}", "text/plain", 415, "UnsupportedMediaType"),
        (b"x" * (4 << 20), "application/json", 413, "RequestEntityTooLarge"),
    ],
)
async def test_a_body_that_is_no_object_is_refused(
    apiserver: Any, body: bytes, content_type: str, status: int, reason: str
) -> None:
    refused = await apiserver.call("POST", MAPS, body, content_type=content_type)
    assert (refused.status, refused.body["reason"]) == (status, reason), refused.body
    assert refused.body["kind"] == "Status" and "Traceback" not in json.dumps(refused.body)


@pytest.mark.parametrize(
    ("method", "path", "accept", "status"),
    [
        ("GET", "/apis/none/v1/things", "*/*", 404),
        ("GET", "/api/v1/things", "*/*", 404),
        ("GET", "/nonsense", "*/*", 404),
        ("GET", "/api/v1/pods/x", "*/*", 404),
        ("GET", f"{PODS}/none", "*/*", 404),
        ("GET", f"{PODS}/none/log", "*/*", 404),
        ("GET", f"{PODS}/none/nonsense", "*/*", 404),
        ("GET", PODS, "text/html", 406),
        ("GET", PODS, PROTOBUF, 406),
        ("POST", f"{PODS}/x", "*/*", 405),
        ("PUT", PODS, "*/*", 405),
        ("DELETE", "/api/v1/namespaces", "*/*", 405),
        ("DELETE", "/api/v1/namespaces/kube-system", "*/*", 403),
        ("PATCH", f"{MAPS}/none", "*/*", 415),
        ("PROPFIND", PODS, "*/*", 405),
        ("GET", f"{MAPS}?fieldValidation=Sometimes", "*/*", 422),
        ("GET", f"{MAPS}?dryRun=Some", "*/*", 422),
    ],
)
async def test_a_request_for_nothing_is_refused(
    apiserver: Any, method: str, path: str, accept: str, status: int
) -> None:
    refused = await apiserver.call(method, path, accept=accept)
    assert refused.status == status, refused.body


WRONG = [None, 5, "x", [], [1], {}, {"a": 1}, True, 1.5, "", [None], [{}], {"": None}]


def _places(obj: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    inner = obj.items() if isinstance(obj, dict) else enumerate(obj) if isinstance(obj, list) else ()
    for key, value in inner:
        found += _places(value, (*path, key))
    return found


def _with(obj: Any, path: tuple[Any, ...], value: Any) -> Any:
    made = msgspec.json.decode(msgspec.json.encode(obj))
    at = made
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return made


_META = {
    "name": "x",
    "labels": {"a": "b"},
    "annotations": {"a": "b"},
    "finalizers": ["a.b/c"],
    "ownerReferences": [{"uid": "u"}],
}
_CONTAINER = {
    "name": "c",
    "image": "i",
    "ports": [{"containerPort": 1}],
    "env": [{"name": "a", "valueFrom": {"fieldRef": {"fieldPath": "x"}}}],
    "resources": {"limits": {"cpu": "1"}},
    "livenessProbe": {"httpGet": {"port": 1}},
    "volumeMounts": [{"name": "v", "mountPath": "/v"}],
}
_SPEC = {
    "containers": [_CONTAINER],
    "volumes": [{"name": "v", "projected": {"sources": [{"downwardAPI": {"items": [{}]}}]}}],
    "tolerations": [{}],
}
_TEMPLATE = {"metadata": {"labels": {"a": "b"}}, "spec": _SPEC}
_WORKLOAD = {
    "metadata": _META,
    "spec": {
        "replicas": 1,
        "selector": {"matchLabels": {"a": "b"}},
        "template": _TEMPLATE,
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}},
    },
}
_SUBJECTS = {"roleRef": {"kind": "Role", "name": "r"}, "subjects": [{"kind": "User", "name": "u"}]}
SAMPLES = {
    PODS: {"metadata": _META, "spec": _SPEC},
    "/apis/apps/v1/namespaces/default/deployments": _WORKLOAD,
    "/apis/apps/v1/namespaces/default/daemonsets": _WORKLOAD | {"spec": _WORKLOAD["spec"] | {"updateStrategy": {"type": "x"}}},
    "/apis/batch/v1/namespaces/default/jobs": {"metadata": _META, "spec": {"template": _TEMPLATE}},
    "/api/v1/namespaces/default/services": {"metadata": _META, "spec": {"type": "NodePort", "clusterIPs": [""], "ports": [{"port": 1, "nodePort": 30000}]}},
    "/api/v1/namespaces/default/secrets": {"metadata": _META, "data": {"a": "YQ=="}, "stringData": {"b": "c"}},
    "/api/v1/namespaces": {"metadata": _META, "spec": {"finalizers": ["kubernetes"]}},
    "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings": {"metadata": _META} | _SUBJECTS,
    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions": {
        "metadata": {"name": "a.b.c"},
        "spec": {
            "group": "b.c",
            "scope": "Cluster",
            "names": {"plural": "a", "kind": "A", "shortNames": ["s"]},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}],
        },
    },
    "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations": {
        "metadata": _META,
        "webhooks": [{"name": "a.b.c", "rules": [{}], "clientConfig": {"service": {"name": "s"}}}],
    },
    "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers": {"metadata": _META, "spec": {"maxReplicas": 1}},
    "/apis/events.k8s.io/v1/namespaces/default/events": {"metadata": _META, "regarding": {}, "note": "n"},
}  # fmt: skip


@pytest.mark.parametrize("path", SAMPLES)
async def test_no_wrong_type_anywhere_in_an_object_is_an_error_of_ours(apiserver: Any, path: str) -> None:
    """Each value of a sample is replaced by values of other types; the answer is never 5xx."""
    bad = []
    for place in _places(SAMPLES[path]):
        for value in WRONG:
            answer = await apiserver.call("POST", f"{path}?dryRun=All", _with(SAMPLES[path], place, value))
            if answer.status >= 500:
                bad.append((place, value, answer.body["message"]))
    assert not bad


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=300), st.sampled_from(["application/json", YAML, PROTOBUF, "", "x/y"]))
def test_any_bytes_are_an_object_or_a_refusal(body: bytes, content_type: str) -> None:
    try:
        assert isinstance(codec.read_object(body, content_type), dict)
    except StatusError as refused:
        assert refused.code in (400, 415)


@given(st.sampled_from(["GET", "POST", "DELETE", "X"]), st.text(alphabet="apis/v1nameoxlog%.", max_size=60))
def test_any_path_is_understood(method: str, path: str) -> None:
    found = info.parse(method, "/" + path, {})
    assert found.verb and (not found.resource or found.version)


async def _raw(url: str, data: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(data)
    await writer.drain()
    return reader, writer


async def test_slow_clients_are_sent_away(apiserver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that says nothing, one that stops in its headers, one that stops in its body."""
    monkeypatch.setattr(server, "SILENT_SECONDS", 0.3)
    silent, _ = await _raw(apiserver.url, b"")
    headers, _ = await _raw(apiserver.url, b"GET /version HTTP/1.1\r\nHost: x\r\n")
    head = f"POST {MAPS} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n".encode()
    body, _ = await _raw(apiserver.url, head + b'{"meta')
    async with asyncio.timeout(20):
        assert await silent.read() == b"" and await headers.read() == b""
        assert (await body.readline()).startswith(b"HTTP/1.1 408")
    assert (await apiserver.call("GET", "/version")).status == 200


async def test_a_watcher_that_reads_nothing_costs_a_bounded_amount(
    apiserver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "REQUEST_SECONDS", 0.5)
    head = apiserver.parts.state.head
    ask = f"GET {MAPS}?watch=true&resourceVersion={head} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    _reader, writer = await _raw(apiserver.url, ask)
    writer.transport.pause_reading()
    big = {"metadata": {"name": "big"}, "data": {"a": "x" * 500_000}}
    await apiserver.call("POST", MAPS, big)
    for n in range(40):
        await apiserver.call("PUT", f"{MAPS}/big", big | {"data": {"a": str(n) + "x" * 500_000}})
    held = apiserver.parts.state.dump()["resources"]["/configmaps"]
    assert held["recent_bytes"] < 24 << 20
    async with asyncio.timeout(20):
        await apiserver.parts.server.quiet()
    writer.close()


@pytest.mark.parametrize(
    "data", [b"\x16\x03\x01\x02\x00", b"GET / HTTP/9\r\n\r\n", b"GET /\x00 HTTP/1.1\r\n\r\n", b"A" * 70_000]
)
async def test_bytes_that_are_no_http_get_no_stack_trace(apiserver: Any, data: bytes) -> None:
    reader, _writer = await _raw(apiserver.url, data)
    async with asyncio.timeout(40):
        answer = await reader.read(2000)
    assert b" 400 " in answer[:20] and b"Traceback" not in answer
