"""Kubernetes' protobuf, decoded: known objects, zero values, special types, broken bytes."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pervade.cluster.apiserver.protobuf import MAGIC, ProtobufError, decode


def varint(number: int) -> bytes:
    number &= (1 << 64) - 1
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def field(number: int, value: int | bytes | str) -> bytes:
    """One field on the wire."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def envelope(api_version: str, kind: str, raw: bytes) -> bytes:
    return MAGIC + field(1, field(1, api_version) + field(2, kind)) + field(2, raw)


def decoded(api_version: str, kind: str, *fields: bytes) -> dict[str, Any]:
    return decode(envelope(api_version, kind, b"".join(fields)))


def test_a_secret() -> None:
    meta = field(1, field(1, "s") + field(3, "default") + field(11, field(1, "app") + field(2, "web")))
    found = decoded("v1", "Secret", meta, field(2, field(1, "a") + field(2, b"\x00\xff")), field(3, "Opaque"))
    assert found == {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "s", "namespace": "default", "labels": {"app": "web"}},
        "data": {"a": "AP8="},
        "type": "Opaque",
    }


def test_zero_values_stay_only_where_json_would_have_them() -> None:
    """replicas is a pointer, paused is not: only the former can be 0 on purpose."""
    spec = field(2, field(1, 0) + field(7, 0) + field(9, 600))
    assert decoded("apps/v1", "Deployment", spec)["spec"] == {"replicas": 0, "progressDeadlineSeconds": 600}


def test_inlined_structs_are_part_of_their_parent() -> None:
    volume = field(1, field(1, "v") + field(2, field(2, b"")))
    assert decoded("v1", "Pod", field(2, volume))["spec"]["volumes"] == [{"name": "v", "emptyDir": {}}]


@pytest.mark.parametrize(
    ("target", "json_form"), [(field(1, 0) + field(2, 8080), 8080), (field(1, 1) + field(3, "http"), "http")]
)
def test_a_number_or_a_string(target: bytes, json_form: Any) -> None:
    port = field(1, field(3, 80) + field(4, target))
    assert decoded("v1", "Service", field(2, port))["spec"]["ports"] == [
        {"port": 80, "targetPort": json_form}
    ]


def test_times_quantities_and_negative_numbers() -> None:
    lease = field(2, field(3, field(1, 1_700_000_000) + field(2, 5000)))
    assert (
        decoded("coordination.k8s.io/v1", "Lease", lease)["spec"]["acquireTime"]
        == "2023-11-14T22:13:20.000005Z"
    )
    quota = field(2, field(1, field(1, "pods") + field(2, field(1, "3"))))
    assert decoded("v1", "ResourceQuota", quota)["spec"]["hard"] == {"pods": "3"}
    assert decoded("scheduling.k8s.io/v1", "PriorityClass", field(2, -5))["value"] == -5


def test_options_of_every_group_are_those_of_meta() -> None:
    options = decoded("policy/v1", "DeleteOptions", field(1, 0), field(4, "Background"))
    assert options == {
        "apiVersion": "policy/v1",
        "kind": "DeleteOptions",
        "gracePeriodSeconds": 0,
        "propagationPolicy": "Background",
    }


def test_schemas_with_their_odd_types() -> None:
    items = field(24, field(1, field(5, "string")))
    extra = field(30, field(1, 1))
    enum = field(20, field(1, json.dumps("a").encode()))
    version = field(7, field(1, "v1") + field(4, field(1, items + extra + enum + field(40, 1))))
    found = decoded("apiextensions.k8s.io/v1", "CustomResourceDefinition", field(2, version))
    assert found["spec"]["versions"][0]["schema"]["openAPIV3Schema"] == {
        "items": {"type": "string"},
        "additionalProperties": True,
        "enum": ["a"],
        "x-kubernetes-int-or-string": True,
    }


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "magic"),
        (b"{}", "magic"),
        (MAGIC, "no kind"),
        (MAGIC + b"\xff", "cut off"),
        (MAGIC + b"\xff" * 12, "longer than 64 bits"),
        (envelope("v1", "Nonsense", b""), "no known protobuf form"),
        (envelope("../../etc/passwd", "Pod", b""), "no known protobuf form"),
        (envelope("v1", "Pod", b"\x0a\x7f"), "cut off"),
        (envelope("v1", "Pod", b"\x0b"), "wire type 3"),
        (envelope("v1", "Pod", field(1, 5)), "wrong wire type"),
        (envelope("v1", "Secret", field(3, b"\xff")), "utf-8"),
    ],
)
def test_broken_bytes_are_refused_with_the_reason(body: bytes, said: str) -> None:
    with pytest.raises(ProtobufError, match=said):
        decode(body)


def test_messages_may_not_nest_for_ever() -> None:
    schema = b""
    for _ in range(300):
        schema = field(28, schema)
    deep = field(7, field(4, field(1, schema)))
    with pytest.raises(ProtobufError, match="too deep"):
        decoded("apiextensions.k8s.io/v1", "CustomResourceDefinition", field(2, deep))


SAMPLE = envelope(
    "apps/v1",
    "Deployment",
    field(1, field(1, "web") + field(8, field(1, 1_700_000_000)))
    + field(
        2,
        field(1, 2)
        + field(3, field(2, field(2, field(1, "c") + field(2, "image") + field(6, field(3, 80))))),
    ),
)


@given(st.integers(0, len(SAMPLE)))
def test_a_truncated_object_is_decoded_or_refused(size: int) -> None:
    try:
        assert isinstance(decode(SAMPLE[:size]), dict)
    except ProtobufError as error:
        assert str(error)


@given(st.integers(0, len(SAMPLE) - 1), st.integers(0, 255))
def test_a_changed_byte_is_decoded_or_refused(at: int, byte: int) -> None:
    try:
        assert isinstance(decode(SAMPLE[:at] + bytes([byte]) + SAMPLE[at + 1 :]), dict)
    except ProtobufError as error:
        assert str(error)


_NUMBER_FOR_BYTES = field(1, b"x")
_FIXED = varint(1 << 3 | 5) + b"\0\0\0\0"


@pytest.mark.parametrize(
    ("api_version", "kind", "raw"),
    [
        ("v1", "Pod", field(1, field(8, _NUMBER_FOR_BYTES))),
        ("v1", "Pod", field(1, field(8, _FIXED))),
        ("v1", "Pod", field(1, field(8, field(1, 1) + field(2, b"x")))),
        ("v1", "Pod", field(1, field(8, field(1, 1) + field(2, 1 << 40)))),
        ("v1", "Pod", field(1, field(8, field(1, 1 << 60)))),
        ("coordination.k8s.io/v1", "Lease", field(2, field(3, _NUMBER_FOR_BYTES))),
        ("v1", "Service", field(2, field(1, field(4, field(1, b"x"))))),
        ("v1", "Service", field(2, field(1, field(4, field(1, 0) + field(2, b"x"))))),
        ("v1", "Service", field(2, field(1, field(4, field(1, 1) + field(3, 5))))),
        ("v1", "ResourceQuota", field(2, field(1, field(1, "pods") + field(2, field(1, 3))))),
    ],
)
def test_a_wrong_wire_type_inside_a_special_type_is_the_callers_fault(
    api_version: str, kind: str, raw: bytes
) -> None:
    with pytest.raises(ProtobufError):
        decode(envelope(api_version, kind, raw))


@pytest.mark.parametrize("schema", [field(24, field(1, 7)), field(24, field(2, 7)), field(30, field(2, 7)), field(30, field(1, b"x")), field(20, field(1, 7)), field(20, field(1, b"[" * 5000))])  # fmt: skip
def test_a_wrong_wire_type_inside_a_schema_is_the_callers_fault(schema: bytes) -> None:
    version = field(7, field(4, field(1, schema)))
    with pytest.raises(ProtobufError):
        decoded("apiextensions.k8s.io/v1", "CustomResourceDefinition", field(2, version))


def test_a_time_long_ago_has_a_year_of_four_digits() -> None:
    found = decoded("v1", "Pod", field(1, field(8, field(1, -60_000_000_000))))
    assert found["metadata"]["creationTimestamp"] == "0068-09-03T13:20:00Z"


KINDS = [
    ("v1", "Pod"), ("v1", "Node"), ("v1", "Service"), ("v1", "Secret"), ("v1", "Event"), ("v1", "ResourceQuota"), ("apps/v1", "Deployment"),
    ("batch/v1", "CronJob"), ("coordination.k8s.io/v1", "Lease"), ("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
    ("authentication.k8s.io/v1", "TokenRequest"), ("authorization.k8s.io/v1", "SubjectAccessReview"), ("policy/v1", "DeleteOptions"),
    ("discovery.k8s.io/v1", "EndpointSlice"), ("autoscaling/v2", "HorizontalPodAutoscaler"), ("networking.k8s.io/v1", "Ingress"),
]  # fmt: skip


def _wire(inner: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Well-formed fields with any number and wire type, so that the fuzz gets past the first byte."""
    number = st.integers(1, 45)
    one = st.one_of(
        st.builds(field, number, st.one_of(inner, st.binary(max_size=8))),
        st.builds(field, number, st.one_of(st.integers(-2, 5), st.integers(-(1 << 63), 1 << 63))),
        st.builds(lambda n, v: varint(n << 3 | 1) + v, number, st.binary(min_size=8, max_size=8)),
        st.builds(lambda n, v: varint(n << 3 | 5) + v, number, st.binary(min_size=4, max_size=4)),
    )
    return st.lists(one, max_size=5).map(b"".join)


_MESSAGES = st.recursive(st.binary(max_size=6), _wire, max_leaves=12)


def _value_or_refusal(body: bytes) -> None:
    try:
        found = decode(body)
    except ProtobufError as error:
        assert str(error)
    else:
        json.dumps(found)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(KINDS), _MESSAGES)
def test_any_fields_are_decoded_to_json_or_refused(named: tuple[str, str], raw: bytes) -> None:
    _value_or_refusal(envelope(*named, raw))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_decoded_to_json_or_refused(raw: bytes) -> None:
    _value_or_refusal(raw)
    _value_or_refusal(MAGIC + raw)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(SAMPLE) - 1), st.integers(0, 255)), max_size=6), st.integers(0, len(SAMPLE)), st.binary(max_size=5))  # fmt: skip
def test_mutated_objects_are_decoded_to_json_or_refused(changes: list[tuple[int, int]], at: int, more: bytes) -> None:  # fmt: skip
    body = bytearray(SAMPLE)
    for place, byte in changes:
        body[place] = byte
    _value_or_refusal(bytes(body[:at]) + more + bytes(body[at:]))


def test_a_deep_object_costs_its_size_once() -> None:
    """Nesting must not copy what it holds at every level: 2 MB, 90 deep, would be 180 MB."""
    schema = field(1, b"x" * (2 << 20))
    for _ in range(40):
        schema = field(28, schema)
    body = envelope("apiextensions.k8s.io/v1", "CustomResourceDefinition", field(2, field(7, field(4, field(1, schema)))))  # fmt: skip
    tracemalloc.start()
    decode(body)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 16 << 20
