"""Applies and plain writes in any order: who owns what, and what is there because of it."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pervade.cluster.apiserver.fields import managers, sets, walk
from pervade.cluster.apiserver.fields.apply import merged
from pervade.cluster.apiserver.fields.managers import APPLY, UPDATE, Manager
from pervade.cluster.apiserver.kinds.builtin import CORE
from pervade.cluster.apiserver.schema import builtin
from pervade.cluster.apiserver.schema.tree import ANY

POD = next(k for k in CORE if k.plural == "pods")
NODE = builtin.type_for("", "v1", "Pod") or ANY

value = st.sampled_from(["1", "2"])
env = st.dictionaries(st.sampled_from("EF"), value, min_size=1, max_size=2).map(
    lambda d: [{"name": k, "value": v} for k, v in d.items()]
)
ports = st.lists(st.sampled_from([80, 81]), unique=True, min_size=1, max_size=2).map(
    lambda found: [{"containerPort": p} for p in found]
)
container = st.fixed_dictionaries(
    {}, optional={"image": value, "env": env, "ports": ports, "command": st.lists(value)}
)
containers = st.dictionaries(st.sampled_from("abc"), container, max_size=3).map(
    lambda d: [{"name": k, **v} for k, v in d.items()]
)
labels = st.dictionaries(st.sampled_from("xyz"), value, max_size=3)
finalizers = st.lists(st.sampled_from(["f/1", "f/2"]), unique=True, max_size=2)
steps = st.lists(
    st.tuples(st.sampled_from(["m1", "m2", "m3", "u1", "u2"]), labels, finalizers, containers),
    min_size=1,
    max_size=7,
)


def pod(marks: dict[str, str], ends: list[str], boxes: list[dict[str, Any]]) -> dict[str, Any]:
    meta: dict[str, Any] = {"name": "p"}
    meta |= {"labels": marks} if marks else {}
    meta |= {"finalizers": ends} if ends else {}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta} | (
        {"spec": {"containers": boxes}} if boxes else {}
    )


def without_rows(obj: dict[str, Any]) -> dict[str, Any]:
    return {**obj, "metadata": {k: v for k, v in obj["metadata"].items() if k != "managedFields"}}


def written(old: dict[str, Any], new: dict[str, Any], who: Manager) -> dict[str, Any]:
    """A plain write, kept book of as the server does."""
    found = walk.compare(NODE, without_rows(old), new)
    changed, removed = managers.stripped(found.changed), managers.stripped(found.removed)
    held = managers.updated(managers.decode(old["metadata"].get("managedFields")), who, changed, removed, "t")
    return {**new, "metadata": {**new["metadata"], "managedFields": managers.encode(held)}}


@settings(max_examples=150, deadline=None)
@given(steps)
def test_whoever_owns_a_field_it_is_there_and_what_is_there_is_owned(steps: list[Any]) -> None:
    live: dict[str, Any] = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}}
    for name, marks, ends, boxes in steps:
        wanted = pod(marks, ends, boxes)
        if name[0] == "u":
            live = written(live, wanted, Manager(name, UPDATE, "v1"))
            assert without_rows(live) == wanted
        else:
            who = Manager(name, APPLY, "v1")
            live = merged(POD, NODE, live, wanted, who, force=True)
            # What is applied has the applied value: laying it over once more changes nothing.
            assert walk.merge(NODE, without_rows(live), wanted) == without_rows(live)
            assert merged(POD, NODE, live, wanted, who, force=False) == live
            mine = managers.decode(live["metadata"].get("managedFields")).get(who)
            assert (mine.fields if mine else {}) == managers.stripped(walk.fields_of(NODE, wanted))
        assert all("name" in one for one in live.get("spec", {}).get("containers", []))
        there = managers.stripped(walk.compare(NODE, {}, without_rows(live)).changed)
        held = managers.decode(live["metadata"].get("managedFields"))
        for who, entry in held.items():
            assert sets.difference(entry.fields, there) == {}, who
        leaves = managers.stripped(walk.fields_of(NODE, without_rows(live)))
        nobodys = sets.paths(sets.difference(leaves, managers.owned(held)))
        # The keys of an item stay for as long as anything in it does, whoever put them there.
        assert [p for p in nobodys if not is_key(p)] == []


def is_key(path: tuple[str, ...]) -> bool:
    """Whether a path is an item of a list by keys, or one of the keys of an item."""
    return path[-1].startswith("k:") or (
        len(path) > 1 and path[-2].startswith("k:") and f'"{path[-1][2:]}"' in path[-2]
    )


@settings(max_examples=100, deadline=None)
@given(labels, containers, labels, containers, st.sampled_from(["m1", "m2"]))
def test_what_one_no_longer_applies_stays_for_the_other(
    marks: dict[str, str],
    boxes: list[dict[str, Any]],
    other_marks: dict[str, str],
    other: list[dict[str, Any]],
    who: str,
) -> None:
    """m1 applies A, m2 applies B, then one of them nothing: what is left is what the other applied."""
    first, second = pod(marks, [], boxes), pod(other_marks, [], other)
    live: dict[str, Any] = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}}
    live = merged(POD, NODE, live, first, Manager("m1", APPLY, "v1"), force=True)
    live = merged(POD, NODE, live, second, Manager("m2", APPLY, "v1"), force=True)
    live = merged(POD, NODE, live, pod({}, [], []), Manager(who, APPLY, "v1"), force=False)
    left = walk.fields_of(NODE, without_rows(live))
    if who == "m1":
        assert left == walk.fields_of(NODE, second)
    else:
        assert sets.difference(left, walk.fields_of(NODE, first)) == {}
