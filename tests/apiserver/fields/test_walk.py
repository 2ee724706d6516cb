"""Sets of fields, typed merge and comparison."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pervade.cluster.apiserver.fields import sets, walk
from pervade.cluster.apiserver.fields.apply import merged
from pervade.cluster.apiserver.fields.managers import APPLY, Manager, decode
from pervade.cluster.apiserver.kinds.builtin import CORE
from pervade.cluster.apiserver.schema import builtin

POD = builtin.type_for("", "v1", "Pod")
CONFIG_MAP = next(k for k in CORE if k.plural == "configmaps")
assert POD is not None


def pod(*containers: dict[str, Any], **meta: Any) -> dict[str, Any]:
    return {"metadata": meta, "spec": {"containers": list(containers)}}


def test_items_of_lists_by_keys_are_fields_of_their_own() -> None:
    held = walk.fields_of(
        POD, pod({"name": "a", "image": "x", "ports": [{"containerPort": 80}]}, labels={"l": "1"})
    )
    assert sets.encode(held) == {
        "f:metadata": {"f:labels": {"f:l": {}}},
        "f:spec": {
            "f:containers": {
                'k:{"name":"a"}': {
                    ".": {},
                    "f:image": {},
                    "f:name": {},
                    "f:ports": {'k:{"containerPort":80,"protocol":"TCP"}': {".": {}, "f:containerPort": {}}},
                }
            }
        },
    }
    assert sets.decode(sets.encode(held)) == held


def test_merge_keeps_what_only_the_live_object_has() -> None:
    live = pod({"name": "a", "image": "x"}, {"name": "b", "image": "y"}, labels={"old": "1"})
    made = walk.merge(POD, live, pod({"name": "b", "image": "z"}, {"name": "c"}, labels={"new": "2"}))
    assert made["spec"]["containers"] == [
        {"name": "a", "image": "x"},
        {"name": "b", "image": "z"},
        {"name": "c"},
    ]
    assert made["metadata"]["labels"] == {"old": "1", "new": "2"}


def test_a_path_is_spelled_as_messages_have_it() -> None:
    path = ("f:spec", "f:containers", 'k:{"name":"a"}', "f:image")
    assert sets.spelled(path) == '.spec.containers[name="a"].image'


@pytest.mark.parametrize("wrong", ["x", {"x:a": {}}, {"f:a": 1}])
def test_what_is_no_set_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match="fieldsV1"):
        sets.decode(wrong)


keys = st.sampled_from("abcde")
data = st.dictionaries(keys, st.sampled_from(["1", "2"]), max_size=5)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["m1", "m2", "m3"]), data), min_size=1, max_size=8))
def test_the_object_is_the_union_of_what_its_managers_applied(
    steps: list[tuple[str, dict[str, str]]],
) -> None:
    """Forced applies in any order: each key has the value of its last applier, and is there while somebody owns it."""
    node = builtin.type_for("", "v1", "ConfigMap")
    assert node is not None
    live: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "x", "managedFields": []},
    }
    live["metadata"]["managedFields"] = [{}]
    owners: dict[str, dict[str, str]] = {}
    values: dict[str, str] = {}
    for name, wanted in steps:
        config: dict[str, Any] = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}}
        config |= {"data": wanted} if wanted else {}
        live = merged(CONFIG_MAP, node, live, config, Manager(name, APPLY, "v1"), force=True)
        for other in owners:
            if other != name:
                owners[other] = {
                    k: v for k, v in owners[other].items() if k not in wanted or values.get(k) == wanted[k]
                }
        owners[name] = dict(wanted)
        values = {k: v for k, v in {**values, **wanted}.items() if any(k in o for o in owners.values())}
        assert live.get("data", {}) == values
        held = decode(live["metadata"].get("managedFields"))
        assert {w.name: {p[1][2:] for p in sets.paths(e.fields)} for w, e in held.items()} == {
            n: set(o) for n, o in owners.items() if o
        }
        again = merged(CONFIG_MAP, node, live, config, Manager(name, APPLY, "v1"), force=True)
        assert again == live
