"""OpenAPI v3 documents of what is served, made when asked for and kept compressed.

Enough for `kubectl explain`, `apply` and validation by the server: component schemas with descriptions,
and for each resource the operations with their group, version and kind and the `fieldValidation` option.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable
from typing import Any

import msgspec

from pervade.cluster.apiserver.kinds.kind import JSON, Kind
from pervade.cluster.apiserver.kinds.registry import Registry
from pervade.cluster.apiserver.schema import builtin, openapi_v2

_GVK = "x-kubernetes-group-version-kind"
_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
_SAMPLE = "io.k8s.api.core.v1.ConfigMap"
_LIST_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta"
_OPTIONS = ("dryRun", "fieldManager", "fieldValidation", "force", "pretty")
_VERBS = {"create": ("post", "post"), "update": ("put", "put"), "patch": ("patch", "patch")}
_VERBS |= {"get": ("get", "get"), "list": ("get", "list"), "delete": ("delete", "delete")}


def _path(kind: Kind) -> str:
    return f"apis/{kind.group}/{kind.version}" if kind.group else f"api/{kind.version}"


class Documents:
    """The index and the documents, by the registry's revision."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self._kept: dict[str, tuple[str, bytes]] = {}

    def index(self) -> JSON:
        """`/openapi/v3`: the address of each group version's document, with a hash of what it is made of."""
        groups: dict[str, list[Kind]] = {}
        for kind in self.registry:
            groups.setdefault(_path(kind), []).append(kind)
        paths = {
            p: {"serverRelativeURL": f"/openapi/v3/{p}?hash={_hash(kinds)}"} for p, kinds in groups.items()
        }
        return {"paths": paths}

    def document(self, path: str) -> bytes | None:
        """The encoded document of `api/v1` or `apis/GROUP/VERSION`; None when it is not served."""
        kinds = [k for k in self.registry if _path(k) == path]
        if not kinds:
            return None
        mark = _hash(kinds)
        kept = self._kept.get(path)
        if kept is None or kept[0] != mark:
            encoded = msgspec.json.encode(document(kinds))
            kept = self._kept[path] = mark, zlib.compress(encoded, 6)
        return zlib.decompress(kept[1])

    def version_2(self) -> bytes:
        """`/openapi/v2` as protobuf: the definitions of every kind; about 0.4 s when it is made."""
        kinds = list(self.registry)
        mark = _hash(kinds)
        kept = self._kept.get("v2")
        if kept is None or kept[0] != mark:
            all_ = builtin.definitions()
            components: dict[str, JSON] = {}
            for kind in kinds:
                _component(kind, all_, components)
            kept = self._kept["v2"] = mark, zlib.compress(openapi_v2.encode(components), 6)
        return zlib.decompress(kept[1])


def _hash(kinds: Iterable[Kind]) -> str:
    text = repr([(k.plural, k.kind, k.verbs, _mark(k)) for k in kinds])
    return hashlib.sha256(text.encode()).hexdigest()[:32].upper()


def _mark(kind: Kind) -> Any:
    if kind.custom is None:
        return ""
    return getattr(kind.custom.compiled, "mark", "") or kind.custom.schema


def document(kinds: list[Kind]) -> JSON:
    """The document of one group version; about 20 ms."""
    all_ = builtin.definitions()
    components: dict[str, JSON] = {}
    paths: dict[str, JSON] = {}
    for kind in kinds:
        name = _component(kind, all_, components)
        base = f"/{_path(kind)}/" + ("namespaces/{namespace}/" if kind.namespaced else "") + kind.plural
        reference = {"$ref": f"#/components/schemas/{name}"} if name else {"type": "object"}
        collection = {
            _VERBS[v][0]: _operation(kind, _VERBS[v][1], reference)
            for v in ("list", "create")
            if v in kind.verbs
        }
        single = {
            _VERBS[v][0]: _operation(kind, _VERBS[v][1], reference)
            for v in ("get", "update", "patch", "delete")
            if v in kind.verbs
        }
        if collection:
            paths[base] = collection
        if single:
            paths[base + "/{name}"] = single
    version = kinds[0].version
    info = {"title": "Kubernetes", "version": version}
    return {"openapi": "3.0.0", "info": info, "paths": paths, "components": {"schemas": components}}


def _operation(kind: Kind, action: str, reference: JSON) -> JSON:
    gvk = {"group": kind.group, "version": kind.version, "kind": kind.kind}
    made: JSON = {
        "operationId": f"{action}{kind.kind}",
        "x-kubernetes-action": action,
        _GVK: gvk,
        "responses": {"200": {"description": "OK", "content": {"application/json": {"schema": reference}}}},
    }
    if action in ("post", "put", "patch"):
        made["parameters"] = [
            {
                "name": n,
                "in": "query",
                "schema": {"type": "boolean" if n == "force" else "string", "uniqueItems": True},
            }
            for n in _OPTIONS
            if n != "force" or action == "patch"
        ]
        media = ["application/json"]
        if action == "patch":
            media = [
                "application/json-patch+json",
                "application/merge-patch+json",
                "application/apply-patch+yaml",
            ]
        made["requestBody"] = {"content": {m: {"schema": reference} for m in media}}
    return made


def _component(kind: Kind, all_: dict[str, JSON], components: dict[str, JSON]) -> str | None:
    if kind.custom is not None:
        name = ".".join([*reversed(kind.group.split(".")), kind.version, kind.kind])
        schema = _plain(dict(kind.custom.schema or {"type": "object"}))
        _collect(_META, all_, components)
        own = schema.get("properties", {})
        # Every kind describes these two in the same words.
        common = all_[_SAMPLE]["properties"]
        fields = {
            f: {"type": "string", "description": common[f]["description"]} for f in ("apiVersion", "kind")
        }
        fields |= {f: own[f] for f in fields if own.get(f, {}).get("description")}
        meta = {"allOf": [{"$ref": f"#/components/schemas/{_META}"}], "default": {}}
        meta |= {"description": common["metadata"].get("description", "")}
        schema["properties"] = {**own, **fields, "metadata": meta}
        schema[_GVK] = [{"group": kind.group, "version": kind.version, "kind": kind.kind}]
        components[name] = schema
        return name
    found = builtin.name_of(kind.group, kind.version, kind.kind)
    if found is None:
        return None
    _collect(found, all_, components)
    return found


def _collect(name: str, all_: dict[str, JSON], components: dict[str, JSON]) -> None:
    """A definition and everything it refers to."""
    if name in components or name not in all_:
        return
    schema = components[name] = _plain(all_[name])
    for reference in _references(schema):
        _collect(reference, all_, components)


def _references(value: Any) -> Iterable[str]:
    if isinstance(value, dict):
        ref = value.get("$ref")
        if isinstance(ref, str):
            yield ref.rpartition("/")[2]
        for inner in value.values():
            yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)


def _plain(value: Any) -> Any:
    """A schema of the definitions as OpenAPI 3.0 has it: no null types, references to components."""
    if isinstance(value, list):
        return [_plain(v) for v in value]
    if not isinstance(value, dict):
        return value
    if (
        "oneOf" in value
        and "type" not in value
        and all("type" in o for o in value["oneOf"] if isinstance(o, dict))
    ):
        kinds = {
            t for o in value["oneOf"] for t in (o["type"] if isinstance(o["type"], list) else [o["type"]])
        }
        text = {"description": value["description"]} if "description" in value else {}
        form = {"format": "int-or-string"} if "integer" in kinds else {}
        return {**text, "type": "string", **form}
    out: JSON = {}
    for key, inner in value.items():
        if key == "type" and isinstance(inner, list):
            out[key] = next((t for t in inner if t != "null"), "object")
        elif key == "$ref" and isinstance(inner, str):
            out[key] = "#/components/schemas/" + inner.rpartition("/")[2]
        elif key == "enum" and isinstance(inner, list):
            out[key] = [v for v in inner if v is not None]
        else:
            out[key] = _plain(inner)
    ref = out.get("$ref")
    # A map of properties may name one "$ref" (JSONSchemaProps does); then it is no reference.
    if isinstance(ref, str):
        del out["$ref"]
        return {"$ref": ref} if not out else {**out, "allOf": [{"$ref": ref}]}
    return out
