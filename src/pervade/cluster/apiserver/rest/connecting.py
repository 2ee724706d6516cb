"""The options of a stream as an object, as admission sees it (operation CONNECT). Pure.

Source: Kubernetes API, PodExecOptions, PodAttachOptions, PodPortForwardOptions, PodProxyOptions and their kin.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pervade.cluster.apiserver.kinds.kind import JSON, Kind

_NAMES = {"exec": "Exec", "attach": "Attach", "portforward": "PortForward", "proxy": "Proxy"}
_FLAGS = ("stdin", "stdout", "stderr", "tty")


def judged(subresource: str) -> bool:
    """Whether admission is asked before a stream of this kind begins; logs are only read."""
    return subresource in _NAMES


def options(kind: Kind, subresource: str, query: Mapping[str, Any]) -> JSON:
    """The options object of a stream that `judged` names."""
    made: JSON = {"kind": f"{kind.kind}{_NAMES[subresource]}Options", "apiVersion": "v1"}
    if subresource in ("exec", "attach"):
        made |= {flag: True for flag in _FLAGS if str(query.get(flag, "")).lower() in ("true", "1")}
        if query.get("container"):
            made["container"] = query["container"]
    if subresource == "exec":
        every = getattr(query, "getall", None)
        made["command"] = (
            list(every("command", [])) if every else [query["command"]] if query.get("command") else []
        )
    if subresource == "proxy" and query.get("path"):
        made["path"] = query["path"]
    return made
