"""Content negotiation: what form of answer an `Accept` header asks for (RFC 9110, 12.5.1).

We answer in JSON, and for objects also as Table, PartialObjectMetadata and PartialObjectMetadataList
(meta.k8s.io/v1). Protobuf and CBOR are offered by clients beside JSON and passed over.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

SUPPORTED = ("application/json", "application/yaml")


class NotAcceptable(Exception):
    """No form in the `Accept` header can be answered: 406."""


class Format(NamedTuple):
    """`kind` is json, table, partial or partial-list; `version` that of the meta.k8s.io group; `yaml` as asked."""

    kind: str = "json"
    version: str = "v1"
    yaml: bool = False


_AS = {"Table": "table", "PartialObjectMetadata": "partial", "PartialObjectMetadataList": "partial-list"}


class _Range(NamedTuple):
    media: str
    parameters: dict[str, str]
    quality: float


def _ranges(accept: str) -> list[_Range]:
    found = []
    for part in accept.split(","):
        media, *rest = (p.strip() for p in part.split(";"))
        if not media:
            continue
        parameters = {k.strip(): v.strip().strip('"') for k, _, v in (p.partition("=") for p in rest)}
        try:
            quality = float(parameters.pop("q", "1"))
        except ValueError:
            quality = 0.0
        found.append(_Range(media.lower(), parameters, quality))
    # Stable: at equal quality the client's order counts.
    return sorted((r for r in found if r.quality > 0), key=lambda r: -r.quality)


@lru_cache(maxsize=256)
def choose(accept: str) -> Format:
    """The first form asked for that we speak; an empty header means JSON. Raises NotAcceptable."""
    if not accept.strip():
        return Format()
    for wanted in _ranges(accept):
        yaml = wanted.media == "application/yaml"
        if not yaml and wanted.media not in ("application/json", "application/*", "*/*"):
            continue
        parameters = wanted.parameters
        kind = parameters.get("as")
        if kind is None:
            if "stream" in parameters and parameters["stream"] != "watch":
                continue
            return Format(yaml=yaml)
        known = (
            kind in _AS and parameters.get("g") == "meta.k8s.io" and parameters.get("v") in ("v1", "v1beta1")
        )
        if known:
            return Format(_AS[kind], parameters["v"], yaml)
    raise NotAcceptable(accept)


@lru_cache(maxsize=64)
def wants_aggregated(accept: str) -> str | None:
    """The version (v2, v2beta1) of aggregated discovery asked for before plain JSON; None for plain lists."""
    for wanted in _ranges(accept):
        if wanted.media not in ("application/json", "application/*", "*/*"):
            continue
        parameters = wanted.parameters
        if parameters.get("as") == "APIGroupDiscoveryList" and parameters.get("g") == "apidiscovery.k8s.io":
            if parameters.get("v") in ("v2", "v2beta1"):
                return parameters["v"]
            continue
        if "as" not in parameters:
            return None
    return None
