"""Owners and their dependents, namespaces and what is in them: over HTTP, without nodes."""

from __future__ import annotations

from typing import Any

import pytest

from pervade.kube.errors import ApiError
from pervade.kube.resources import (
    CONFIG_MAPS,
    CUSTOM_RESOURCE_DEFINITIONS,
    EVENTS,
    NAMESPACES,
    SECRETS,
    Resource,
)

JSON = dict[str, Any]
WIDGETS = Resource("example.com", "v1", "widgets", "Widget")


def owned(
    owner: JSON, called: str, *, blocks: bool = False, finalizers: tuple[str, ...] = (), **more: str
) -> JSON:
    meta = owner["metadata"]
    ref = {"apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": meta["name"], "uid": meta["uid"]}
    ref |= more | ({"blockOwnerDeletion": True} if blocks else {})
    return {
        "metadata": {
            "name": called,
            "namespace": "default",
            "ownerReferences": [ref],
            "finalizers": list(finalizers),
        }
    }


async def root(world: Any, name: str = "root") -> JSON:
    return await world.client.create(CONFIG_MAPS, {"metadata": {"name": name, "namespace": "default"}})


async def test_a_chain_goes_with_its_first_owner(world: Any) -> None:
    first = await root(world)
    second = await world.client.create(SECRETS, owned(first, "second"))
    await world.client.create(CONFIG_MAPS, owned(second, "third"))
    await world.client.delete(CONFIG_MAPS, "root", "default", propagation="Background")
    await world.seen(SECRETS, lambda held: "second" not in held)
    await world.seen(CONFIG_MAPS, lambda held: "third" not in held)


async def test_in_the_foreground_the_owner_waits_for_those_that_block_it(world: Any) -> None:
    first = await root(world)
    await world.client.create(
        SECRETS, owned(first, "blocking", blocks=True, finalizers=("example.com/kept",))
    )
    await world.client.create(SECRETS, owned(first, "free"))
    await world.client.delete(CONFIG_MAPS, "root", "default", propagation="Foreground")
    await world.seen(
        SECRETS, lambda held: "free" not in held and held["blocking"]["metadata"].get("deletionTimestamp")
    )
    assert (await world.client.get(CONFIG_MAPS, "root", "default"))["metadata"]["finalizers"] == [
        "foregroundDeletion"
    ]
    await world.client.patch(SECRETS, "blocking", {"metadata": {"finalizers": None}}, "default")
    await world.seen(CONFIG_MAPS, lambda held: "root" not in held)


async def test_orphans_stay_without_their_reference(world: Any) -> None:
    first = await root(world)
    await world.client.create(SECRETS, owned(first, "kept"))
    await world.client.delete(CONFIG_MAPS, "root", "default", propagation="Orphan")
    await world.seen(CONFIG_MAPS, lambda held: "root" not in held)
    kept = await world.client.get(SECRETS, "kept", "default")
    assert "ownerReferences" not in kept["metadata"] and "deletionTimestamp" not in kept["metadata"]


async def test_an_owner_that_never_was_is_no_owner(world: Any) -> None:
    """Another uid, another name; of two owners the living one keeps the object, and the dead reference goes."""
    first = await root(world)
    await world.client.create(SECRETS, owned(first, "other-uid", uid="0-0-0"))
    await world.client.create(SECRETS, owned(first, "other-name", name="nobody"))
    both = owned(first, "both")
    both["metadata"]["ownerReferences"].append(
        {**both["metadata"]["ownerReferences"][0], "uid": "1-1-1", "name": "gone"}
    )
    await world.client.create(SECRETS, both)
    await world.client.create(
        SECRETS, owned(first, "unknown-kind", kind="Nothing", apiVersion="nowhere.io/v1", uid="2-2-2")
    )
    await world.seen(SECRETS, lambda held: not {"other-uid", "other-name"} & set(held))
    held = await world.seen(
        SECRETS, lambda held: len(held["both"]["metadata"]["ownerReferences"]) == 1 and held
    )
    assert held["both"]["metadata"]["ownerReferences"][0]["uid"] == first["metadata"]["uid"]
    assert "unknown-kind" in held


async def test_a_cluster_wide_object_is_not_deleted_for_a_namespaced_owner(world: Any) -> None:
    first = await root(world)
    body = owned(first, "wide")
    del body["metadata"]["namespace"]
    await world.client.create(NAMESPACES, body)
    await world.client.delete(CONFIG_MAPS, "root", "default", propagation="Background")
    await world.seen(
        EVENTS, lambda held: any(e["reason"] == "OwnerRefInvalidNamespace" for e in held.values())
    )
    assert "deletionTimestamp" not in (await world.client.get(NAMESPACES, "wide"))["metadata"]


async def define(world: Any) -> None:
    """The custom kind Widget, served."""
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    version = {"name": "v1", "served": True, "storage": True, "schema": schema}
    names = {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"}
    spec = {"group": "example.com", "scope": "Namespaced", "names": names, "versions": [version]}
    await world.client.create(
        CUSTOM_RESOURCE_DEFINITIONS, {"metadata": {"name": "widgets.example.com"}, "spec": spec}
    )

    def established(held: dict[str, JSON]) -> bool:
        rows = (held["widgets.example.com"].get("status") or {}).get("conditions") or ()
        return any(c["type"] == "Established" and c["status"] == "True" for c in rows)

    await world.seen(CUSTOM_RESOURCE_DEFINITIONS, established)


async def test_custom_kinds_own_and_are_owned(world: Any) -> None:
    await define(world)
    first = await root(world)
    widget = await world.client.create(WIDGETS, owned(first, "middle"))
    await world.client.create(SECRETS, owned(widget, "last"))
    await world.client.delete(CONFIG_MAPS, "root", "default", propagation="Background")
    await world.seen(WIDGETS, lambda held: not held)
    await world.seen(SECRETS, lambda held: "last" not in held)


async def test_what_a_custom_kind_owned_goes_with_its_definition(world: Any) -> None:
    await define(world)
    widget = await world.client.create(WIDGETS, {"metadata": {"name": "w", "namespace": "default"}})
    await world.client.create(SECRETS, owned(widget, "last"))
    await world.client.delete(CUSTOM_RESOURCE_DEFINITIONS, "widgets.example.com")
    await world.seen(SECRETS, lambda held: "last" not in held)


async def test_a_namespace_says_what_it_waits_for_and_takes_nothing_new(world: Any) -> None:
    await define(world)
    made = await world.client.create(NAMESPACES, {"metadata": {"name": "short"}})
    assert made["spec"]["finalizers"] == ["kubernetes"]
    await world.seen(CONFIG_MAPS, lambda held: "kube-root-ca.crt" in held, "short")
    meta = {"name": "kept", "namespace": "short"}
    await world.client.create(WIDGETS, {"metadata": {**meta, "finalizers": ["example.com/kept"]}})
    await world.client.create(CONFIG_MAPS, {"metadata": meta})
    await world.client.delete(NAMESPACES, "short")

    def said(held: dict[str, JSON]) -> dict[str, JSON]:
        rows = {c["type"]: c for c in held["short"]["status"].get("conditions") or ()}
        return rows if rows.get("NamespaceFinalizersRemaining", {}).get("status") == "True" else {}

    rows = await world.seen(NAMESPACES, said)
    assert "example.com/kept in 1 resource instances" in rows["NamespaceFinalizersRemaining"]["message"]
    rows = await world.seen(NAMESPACES, lambda held: said(held).get("NamespaceContentRemaining", {}).get("message", "").endswith("remaining: widgets.example.com has 1 resource instances") and said(held))  # fmt: skip
    assert rows["NamespaceContentRemaining"]["status"] == "True"
    assert rows["NamespaceDeletionContentFailure"]["status"] == "False"
    with pytest.raises(ApiError) as refused:
        await world.client.create(CONFIG_MAPS, {"metadata": {"name": "late", "namespace": "short"}})
    assert refused.value.status_code == 403 and "being terminated" in refused.value.message
    await world.client.patch(WIDGETS, "kept", {"metadata": {"finalizers": None}}, "short")
    await world.seen(NAMESPACES, lambda held: "short" not in held)
    await world.client.create(NAMESPACES, {"metadata": {"name": "short"}})
    assert not (await world.client.list(WIDGETS, "short"))[0]
