"""Who may use a kubelet's API."""

from __future__ import annotations

from typing import Any

import pytest

from pervade.cluster.kubelet.server import admitted


def certificate(name: str, group: str) -> dict[str, Any]:
    return {"subject": ((("organizationName", group),), (("commonName", name),))}


@pytest.mark.parametrize(
    ("peer", "good"),
    [
        (certificate("kube-apiserver-kubelet-client", "system:masters"), True),
        (certificate("system:node:node-2", "system:nodes"), False),
        (certificate("kubernetes-admin", "system:masters"), False),
        (certificate("system:kube-proxy", ""), False),
        ({}, False),
        (None, False),
    ],
)
def test_only_the_api_server_is_admitted(peer: Any, good: bool) -> None:
    assert admitted(peer) is good
