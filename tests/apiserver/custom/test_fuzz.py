"""Whatever a definition or an object holds: an answer, never an exception."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pervade.cluster.apiserver.kinds import webhooks
from pervade.cluster.apiserver.schema import check
from pervade.cluster.apiserver.schema.structural import Structural

QUICK = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
SCALAR = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6)
KEYS = st.sampled_from(["a", "b", "apiVersion", "kind", "metadata", "labels", "name", ""])
VALUE = st.recursive(
    SCALAR, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3)
)
TYPES = st.sampled_from(["object", "array", "string", "integer", "number", "boolean"])


def schemas(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Schemas that are mostly well-formed in type (the decoder of definitions sees to that), rarely in sense."""
    return st.fixed_dictionaries(
        {},
        optional={
            "type": TYPES,
            "properties": st.dictionaries(KEYS, inner, max_size=3),
            "additionalProperties": inner | st.booleans(),
            "items": inner,
            "required": st.lists(KEYS, max_size=2),
            "default": VALUE,
            "nullable": st.booleans(),
            "enum": st.lists(SCALAR, max_size=2),
            "pattern": st.sampled_from(["^a$", "(", "[a-z]+", "(?=a)"]),
            "minimum": st.integers(),
            "exclusiveMinimum": st.booleans(),
            "maxLength": st.integers(-1, 5),
            "format": st.sampled_from(["date-time", "byte", "duration", "x"]),
            "oneOf": st.lists(inner, max_size=2),
            "not": inner,
            "x-kubernetes-int-or-string": st.booleans(),
            "x-kubernetes-preserve-unknown-fields": st.booleans(),
            "x-kubernetes-embedded-resource": st.booleans(),
            "x-kubernetes-list-type": st.sampled_from(["map", "set", "atomic"]),
            "x-kubernetes-list-map-keys": st.lists(KEYS, max_size=2),
            "x-kubernetes-validations": st.lists(
                st.fixed_dictionaries(
                    {
                        "rule": st.sampled_from(
                            ["self == oldSelf", "self.a > 1", "size(self) > 1", "self(", "true"]
                        )
                    }
                ),
                max_size=1,
            ),
        },
    )


SCHEMA = st.recursive(st.fixed_dictionaries({"type": TYPES}), schemas, max_leaves=8)


@QUICK
@given(SCHEMA, VALUE, VALUE)
def test_any_schema_is_served_or_refused_and_any_object_answered(schema: Any, new: Any, old: Any) -> None:
    version = {"name": "v1", "schema": {"openAPIV3Schema": {"type": "object", "properties": {"f": schema}}}}
    if check.check(version, "x.schema.openAPIV3Schema"):
        return
    made = Structural(version["schema"]["openAPIV3Schema"])
    obj = {"kind": "A", "apiVersion": "b/v1", "metadata": {"name": "c"}, "f": new}
    made.prune(obj)
    made.complete(obj)
    assert made.prune(dict(obj)) == []
    for cause in made.causes(obj, None) + made.causes(obj, {**obj, "f": old}):
        assert cause.message and cause.field
    assert made.causes(obj, obj) == []


TEXT = st.sampled_from(["", "*", "a", "v1", "In", "https://[", "a.b.c", "object.x > 1", "object.", "/p"])
RULE = st.dictionaries(
    st.sampled_from(["operations", "apiGroups", "apiVersions", "resources"]), st.lists(TEXT, max_size=2)
)
SELECTOR = st.fixed_dictionaries(
    {},
    optional={
        "matchLabels": st.dictionaries(TEXT, TEXT, max_size=2),
        "matchExpressions": st.lists(
            st.fixed_dictionaries(
                {}, optional={"key": TEXT, "operator": TEXT, "values": st.lists(TEXT, max_size=2)}
            ),
            max_size=2,
        ),
    },
)
HOOK = st.fixed_dictionaries(
    {},
    optional={
        "name": TEXT,
        "clientConfig": st.fixed_dictionaries(
            {}, optional={"url": TEXT, "service": st.fixed_dictionaries({}, optional={"name": TEXT, "path": TEXT, "port": st.integers()})}
        ),
        "rules": st.lists(RULE, max_size=2),
        "namespaceSelector": SELECTOR,
        "matchConditions": st.lists(st.fixed_dictionaries({}, optional={"name": TEXT, "expression": TEXT}), max_size=2),
        "timeoutSeconds": st.integers(),
        "sideEffects": TEXT,
        "admissionReviewVersions": st.lists(TEXT, max_size=2),
    },
)  # fmt: skip


@QUICK
@given(st.lists(HOOK, max_size=2))
def test_any_webhook_configuration_is_taken_or_refused(found: list[Any]) -> None:
    obj = {"kind": "MutatingWebhookConfiguration", "webhooks": found}
    webhooks.default(obj)
    assert isinstance(webhooks.validate(obj, None), list)
