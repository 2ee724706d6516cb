"""What makes a definition's schema structural, what values it lets in, and what it says about the others."""

from __future__ import annotations

from typing import Any

import pytest

from pervade.cluster.apiserver.schema import check, formats, jsonpath
from pervade.cluster.apiserver.schema.structural import Structural, compiled

JSON = dict[str, Any]
TEXT: JSON = {"type": "string"}


def checked(field: JSON, **version: Any) -> dict[str, str]:
    """What is said about a version whose `spec` has the field `f`: path below the schema of spec to text."""
    spec = {"type": "object", "properties": {"f": field, "n": {"type": "integer"}}}
    schema = {"type": "object", "properties": {"spec": spec, "status": {"type": "object"}}}
    one = {"name": "v1", "schema": {"openAPIV3Schema": schema}, **version}
    found = check.check(one, "v.schema.openAPIV3Schema")
    return {
        c.field.removeprefix("v.").removeprefix("schema.openAPIV3Schema.properties[spec]."): c.message
        for c in found
    }


@pytest.mark.parametrize(
    ("field", "path", "text"),
    [
        ({"type": "text"}, "properties[f].type", 'Unsupported value: "text"'),
        ({"type": "integer", "x-kubernetes-int-or-string": True}, "properties[f].type", "must be empty if x-kubernetes-int-or-string"),
        ({"type": "object", "x-kubernetes-preserve-unknown-fields": False}, "properties[f].x-kubernetes-preserve-unknown-fields", "must be true or undefined"),
        ({"type": "object", "x-kubernetes-embedded-resource": True}, "properties[f].properties", "Required value"),
        ({"type": "string", "x-kubernetes-embedded-resource": True, "x-kubernetes-preserve-unknown-fields": True}, "properties[f].type", "must be object"),
        ({"type": "array", "items": TEXT, "x-kubernetes-list-type": "bag"}, "properties[f].x-kubernetes-list-type", 'Unsupported value: "bag": supported values: "atomic", "map", "set"'),
        ({"type": "string", "x-kubernetes-list-type": "set"}, "properties[f].type", "must be array"),
        ({"type": "array", "items": TEXT, "x-kubernetes-map-type": "atomic"}, "properties[f].type", "must be object"),
        ({"type": "array", "items": {"type": "object", "properties": {"k": TEXT}}, "x-kubernetes-list-type": "map"}, "properties[f].x-kubernetes-list-map-keys", "Required value"),
        ({"type": "array", "items": {"type": "object", "properties": {"k": TEXT}}, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"]}, "properties[f].items.properties[k].default", "must have a default or be a required property"),
        ({"type": "array", "items": {"type": "object"}, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"]}, "properties[f].x-kubernetes-list-map-keys[0]", "must be the name of a property"),
        ({"type": "array", "items": TEXT, "uniqueItems": True}, "properties[f].uniqueItems", "Forbidden"),
        ({"type": "object", "properties": {"a": TEXT}, "additionalProperties": TEXT}, "properties[f].additionalProperties", "mutual exclusive"),
        ({"type": "object", "$ref": "#/x"}, "properties[f].$ref", "Forbidden"),
        ({"type": "object", "anyOf": [{"properties": {"a": {"minLength": 1}}}]}, "properties[f].properties[a]", "because it is defined in"),
        ({"type": "object", "oneOf": [{"default": {}}]}, "properties[f].oneOf[0].default", "must be empty to be structural"),
        ({"type": "string", "default": 3}, "properties[f].default", "must be of type string"),
        ({"type": "string", "default": None}, "properties[f].default", "must not be null"),
        ({"type": "array", "items": {"type": "string", "x-kubernetes-validations": [{"rule": "self == oldSelf"}]}}, "properties[f].items.x-kubernetes-validations[0].rule", "uncorrelatable"),
        ({"type": "string", "x-kubernetes-validations": [{"rule": "self == 'a'", "optionalOldSelf": True}]}, "properties[f].x-kubernetes-validations[0].optionalOldSelf", "oldSelf is not used"),
        ({"type": "string", "x-kubernetes-validations": [{"rule": "self == 'a'", "reason": "Because"}]}, "properties[f].x-kubernetes-validations[0].reason", "Unsupported value"),
        ({"type": "object", "x-kubernetes-validations": [{"rule": "true", "fieldPath": ".nowhere"}]}, "properties[f].x-kubernetes-validations[0].fieldPath", "must be a valid path"),
        ({"type": "string", "x-kubernetes-validations": [{"rule": "self.unknownFunction()"}]}, "properties[f].x-kubernetes-validations[0].rule", "compilation failed"),
    ],
)  # fmt: skip
def test_a_schema_that_is_not_structural_says_where(field: JSON, path: str, text: str) -> None:
    said = checked(field)
    found = {k: v for k, v in said.items() if k.endswith(path)}
    assert found, said
    assert text in next(iter(found.values()))


@pytest.mark.parametrize(
    ("version", "path", "text"),
    [
        ({"additionalPrinterColumns": [{"name": "A", "type": "string", "jsonPath": "spec.f"}]}, "additionalPrinterColumns[0].jsonPath", "must start with"),
        ({"additionalPrinterColumns": [{"name": "A", "type": "colour", "jsonPath": ".spec.f"}]}, "additionalPrinterColumns[0].type", "Unsupported value"),
        ({"subresources": {"scale": {"specReplicasPath": ".spec.n", "statusReplicasPath": ".spec.n"}}}, "subresources.scale.statusReplicasPath", "under .status."),
        ({"subresources": {"scale": {"statusReplicasPath": ".status.n"}}}, "subresources.scale.specReplicasPath", "Required value"),
        ({"selectableFields": [{"jsonPath": ".spec.gone"}]}, "selectableFields[0].jsonPath", "must point to a field"),
        ({"selectableFields": [{"jsonPath": ".spec.f"}, {"jsonPath": ".spec.f"}]}, "selectableFields[1].jsonPath", "Duplicate value"),
        ({"selectableFields": [{"jsonPath": ".spec.f"}] * 9}, "selectableFields", "Too many: 9"),
    ],
)  # fmt: skip
def test_columns_scale_and_selectable_fields_are_checked(version: JSON, path: str, text: str) -> None:
    assert text in checked(TEXT, **version).get(path, "")


def test_a_good_version_has_nothing_said_about_it() -> None:
    rule = {"rule": "!oldSelf.hasValue() || self == oldSelf.value()", "optionalOldSelf": True}
    rows = {
        "type": "array",
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["k"],
        "items": {"type": "object", "required": ["k"], "properties": {"k": {**TEXT, "x-kubernetes-validations": [rule]}}},
    }  # fmt: skip
    scale = {
        "specReplicasPath": ".spec.n",
        "statusReplicasPath": ".status.n",
        "labelSelectorPath": ".status.s",
    }
    column = {"name": "A", "type": "string", "jsonPath": '.status.conditions[?(@.type=="Ready")].status'}
    more = {
        "subresources": {"scale": scale},
        "additionalPrinterColumns": [column],
        "selectableFields": [{"jsonPath": ".spec.n"}],
    }
    assert checked(rows, **more) == {}


def of(field: JSON) -> Structural:
    return Structural({"type": "object", "properties": {"f": field}})


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ({"type": "integer", "maximum": 5}, 6, "Invalid value: 6: f in body should be less than or equal to 5"),
        ({"type": "integer", "minimum": 5, "exclusiveMinimum": True}, 5, "Invalid value: 5: f in body should be greater than 5"),
        ({"type": "integer", "multipleOf": 2}, 3, "Invalid value: 3: f in body should be a multiple of 2"),
        ({"type": "string", "pattern": "^a$"}, "b", "Invalid value: \"b\": f in body should match '^a$'"),
        ({"type": "string", "maxLength": 2}, "abc", "Too long: may not be more than 2 bytes"),
        ({"type": "string", "minLength": 2}, "a", 'Invalid value: "a": f in body should be at least 2 chars long'),
        ({"type": "string", "format": "date-time"}, "noon", 'Invalid value: "noon": f in body must be of type date-time: "noon"'),
        ({"type": "array", "items": TEXT, "maxItems": 1}, ["a", "b"], "Too many: 2: must have at most 1 items"),
        ({"type": "array", "items": TEXT, "minItems": 1}, [], "Invalid value: 0: f in body should have at least 1 items"),
        ({"type": "object", "additionalProperties": TEXT, "maxProperties": 1}, {"a": "", "b": ""}, "Too many: 2: must have at most 1 items"),
        ({"x-kubernetes-int-or-string": True}, 1.5, 'Invalid value: "number": f in body must be of type integer,string: "number"'),
        ({"type": "string", "nullable": True, "enum": ["a"]}, "b", 'Unsupported value: "b": supported values: "a"'),
        ({"type": "object", "properties": {"a": TEXT, "b": TEXT}, "oneOf": [{"required": ["a"]}, {"required": ["b"]}]}, {"a": "", "b": ""}, 'Invalid value: "": "f" must validate one and only one schema (oneOf). Found 2 valid alternatives'),
        ({"type": "object", "properties": {"a": TEXT, "b": TEXT}, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]}, {}, 'Invalid value: "": "f" must validate at least one schema (anyOf)'),
        ({"type": "object", "x-kubernetes-embedded-resource": True, "x-kubernetes-preserve-unknown-fields": True}, {"kind": "A"}, "Required value: must not be empty"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_told_in_known_words(field: JSON, value: Any, text: str) -> None:
    causes = of(field).causes({"f": value}, None)
    assert [c.message for c in causes] == [text]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ({"type": "integer"}, 1.0),
        ({"type": "string", "nullable": True, "enum": ["a"]}, None),
        ({"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]}, "80%"),
        ({"type": "string", "format": "colour-of-my-own"}, "x"),
        ({"type": "string", "pattern": r"^[a-z]+(\.[a-z]+)*\/[A-Za-z0-9\/\-._~%!$&'()*+,;=:]+$"}, "a.b/c"),
        ({"type": "object", "x-kubernetes-preserve-unknown-fields": True}, {"a": {"b": [1, None]}}),
    ],
)
def test_a_right_value_passes(field: JSON, value: Any) -> None:
    assert of(field).causes({"f": value}, None) == []


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("byte", "YQ==", "%"), ("cidr", "10.0.0.0/8", "10.0.0.0"), ("date", "2026-01-31", "2026-02-31"),
        ("date-time", "2026-01-01T00:00:00.123456789Z", "2026-01-01T00:00:00"), ("duration", "1h30m", "1x"),
        ("email", "a@b.c", "a"), ("hostname", "a.b-c.d", "-a"), ("ipv4", "1.2.3.4", "1.2.3"), ("ipv6", "::1", "1.2.3.4"),
        ("mac", "00:11:22:33:44:55", "00:11"), ("uri", "https://a/b", "a b"), ("uuid", "6ba7b810-9dad-11d1-80b4-00c04fd430c8", "6ba7"),
        ("uuid4", "6ba7b810-9dad-41d1-80b4-00c04fd430c8", "6ba7b810-9dad-11d1-80b4-00c04fd430c8"),
        ("hexcolor", "#fff", "#ggg"),
    ],
)  # fmt: skip
def test_formats(name: str, good: str, bad: str) -> None:
    assert formats.TESTS[name](good)
    assert not formats.TESTS[name](bad)


def test_ratcheting_knows_items_by_their_keys_only() -> None:
    item = {
        "type": "object",
        "required": ["k"],
        "properties": {"k": TEXT, "v": {"type": "integer", "maximum": 5}},
    }
    keyed = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"]}
    old = {"f": [{"k": "a", "v": 9}, {"k": "b", "v": 1}]}
    moved = {"f": [{"k": "b", "v": 2}, {"k": "a", "v": 9}]}
    assert of({"type": "array", "items": item, **keyed}).causes(moved, old) == []
    worse = {"f": [{"k": "b", "v": 8}, {"k": "a", "v": 9}]}
    assert [c.field for c in of({"type": "array", "items": item, **keyed}).causes(worse, old)] == ["f[0].v"]
    # Nobody can say which item of an atomic list is which: a list that changed is checked as a whole.
    assert [c.field for c in of({"type": "array", "items": item}).causes(moved, old)] == ["f[1].v"]
    assert of({"type": "array", "items": item}).causes({**old, "g": 1}, old) == []


def test_pruning_knows_metadata_and_embedded_resources() -> None:
    made = of(
        {"type": "object", "x-kubernetes-embedded-resource": True, "properties": {"spec": {"type": "object"}}}
    )
    obj = {
        "kind": "A", "metadata": {"name": "x", "colour": "red"},
        "f": {"kind": "B", "apiVersion": "v1", "metadata": {"name": "y", "size": 1}, "spec": {"a": 1}, "junk": 1},
        "junk": 1,
    }  # fmt: skip
    assert made.prune(obj) == ["metadata.colour", "f.metadata.size", "f.spec.a", "f.junk", "junk"]
    assert obj["f"] == {"kind": "B", "apiVersion": "v1", "metadata": {"name": "y"}, "spec": {}}


def test_defaults_reach_below_what_they_made_and_replace_nulls() -> None:
    made = of({"type": "object", "default": {}, "properties": {"a": {"type": "integer", "default": 1}, "b": TEXT, "c": {**TEXT, "nullable": True}}})  # fmt: skip
    empty: JSON = {}
    made.complete(empty)
    assert empty == {"f": {"a": 1}}
    nulls: JSON = {"f": {"a": None, "b": None, "c": None}}
    made.complete(nulls)
    assert nulls == {"f": {"a": 1, "c": None}}


def test_a_schema_is_compiled_once() -> None:
    schema = {"type": "object", "properties": {"f": {"type": "string", "maxLength": 4711}}}
    assert compiled(schema) is compiled({**schema})


@pytest.mark.parametrize(
    ("rule", "value", "holds"),
    [
        ("isURL(self) && url(self).getScheme() == 'https' && url(self).getHostname() == '::1'", "https://[::1]:80/a?q=1", True),
        ("url(self).getPort() == '80' && url(self).getHost() == '[::1]:80'", "https://[::1]:80/a", True),
        ("isIP(self) && ip(self).family() == 6 && !ip(self).isGlobalUnicast()", "fe80::1", True),
        ("isIP(self)", "fe80::1%eth0", False),
        ("isIP(self)", "010.0.0.1", False),
        ("isCIDR(self) && cidr(self).containsIP('10.1.2.3') && cidr(self).prefixLength() == 8", "10.0.0.0/8", True),
        ("cidr(self).containsCIDR('10.1.0.0/16') && !cidr(self).containsCIDR('11.0.0.0/16')", "10.0.0.0/8", True),
        ("quantity(self) == quantity('1') && quantity(self).isLessThan(quantity('1Ki'))", "1000m", True),
        ("quantity(self).add(quantity('1')).compareTo(quantity('3')) == 0", "2", True),
        ("self.split(',').size() == 3 && self.substring(0, 1) == 'a'", "a,b,c", True),
        ("self.find('[0-9]+') == '12' && self.findAll('[a-z]') == ['a', 'b']", "a12b", True),
        ("!format.dns1123Label().validate(self).hasValue()", "a-b", True),
        ("!format.dns1123Label().validate(self).hasValue()", "a.b", False),
        ("duration(self) > duration('1m') && self.matches('^[0-9]+h$')", "2h", True),
        ("sets.contains(self, ['a']) && self.isSorted() && self.exists_one(x, x == 'b')", ["a", "b"], True),
    ],
)  # fmt: skip
def test_functions_of_rules(rule: str, value: Any, holds: bool) -> None:
    kind = {"type": "array", "items": TEXT} if isinstance(value, list) else TEXT
    causes = of({**kind, "x-kubernetes-validations": [{"rule": rule}]}).causes({"f": value}, None)
    assert [c.message.partition(": failed rule")[1] for c in causes] == ([] if holds else [": failed rule"])


def test_a_rule_that_takes_too_long_refuses_instead_of_hanging() -> None:
    loop = {"rule": "self.all(a, self.all(b, self.all(c, true)))"}
    made = of({"type": "array", "items": {"type": "integer"}, "x-kubernetes-validations": [loop]})
    assert made.causes({"f": [1, 2, 3]}, None) == []
    (cause,) = made.causes({"f": list(range(500))}, None)
    assert "budget exceeded" in cause.message


@pytest.mark.parametrize(
    ("form", "rule", "good", "bad"),
    [
        ("date-time", "self > timestamp('2026-01-01T00:00:00Z')", "2026-01-01T00:00:00.5+00:00", "2026-01-01T01:00:00+02:00"),
        ("date", "self.getFullYear() == 2026", "2026-05-06", "2025-05-06"),
        ("duration", "self >= duration('1h')", "60m", "59m"),
        ("byte", "size(self) == 2", "YWI=", "YQ=="),
    ],
)  # fmt: skip
def test_rules_see_times_durations_and_bytes_as_such(form: str, rule: str, good: str, bad: str) -> None:
    made = of({"type": "string", "format": form, "x-kubernetes-validations": [{"rule": rule}]})
    assert made.causes({"f": good}, None) == []
    assert [c.message for c in made.causes({"f": bad}, None)] == [
        f'Invalid value: "{bad}": failed rule: {rule}'
    ]


def test_names_that_are_no_identifiers_are_escaped_in_rules() -> None:
    made = of({"type": "object", "properties": {"a-b": TEXT, "in": TEXT, "x__y": TEXT}, "x-kubernetes-validations": [
        {"rule": "self.a__dash__b == 'p' && self.__in__ == 'q' && self.x__underscores__y == 'r'"}]})  # fmt: skip
    assert made.causes({"f": {"a-b": "p", "in": "q", "x__y": "r"}}, None) == []


@pytest.mark.parametrize("value", [2**70, -(2**70), 1e308, "\U0001f600", [[[]]], {"": None}, None, True])
def test_odd_values_are_refused_or_let_in_but_never_raise(value: Any) -> None:
    rule = {"rule": "self > 3"}
    for field in ({"type": "integer", "x-kubernetes-validations": [rule]}, {"x-kubernetes-preserve-unknown-fields": True, "x-kubernetes-validations": [rule]}, TEXT):  # fmt: skip
        made = of(field)
        obj = {"f": value}
        made.prune(obj)
        made.complete(obj)
        assert isinstance(made.causes(obj, None), list)


def test_names_of_plain_paths() -> None:
    assert jsonpath.names(".spec.a") == ["spec", "a"]
    assert jsonpath.names(".spec['a.b/c']") == ["spec", "a.b/c"]
    assert jsonpath.names(".spec[0]") is None
    assert jsonpath.names(".spec.*") is None
