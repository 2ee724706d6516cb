"""Which upstream names resolve to images made here (the form of the rules: `cluster.references`)."""

from __future__ import annotations

from pervade.cluster.references import Rule

PERVADE = "pervade.local/pervade:dev"
PAUSE = "pervade.local/pause:1"
NETSHOOT = "pervade.local/netshoot:dev"
SAMPLES = "pervade.local/samples"


def _bookinfo(service: str, version: str = "") -> Rule:
    suffix = f"-{version}" if version else "*"
    return Rule(
        f"docker.io/istio/examples-bookinfo-{service}{suffix}",
        f"{SAMPLES}-{service}{'-' + version if version else ''}:dev",
    )


RULES = (
    _bookinfo("productpage"),
    _bookinfo("details"),
    _bookinfo("ratings"),
    _bookinfo("reviews", "v1"),
    _bookinfo("reviews", "v2"),
    _bookinfo("reviews", "v3"),
    Rule("docker.io/curlimages/curl", PERVADE),
    Rule("docker.io/governmentpaas/curl-ssl", PERVADE),
    Rule("docker.io/library/busybox", "docker.io/library/busybox:latest"),
    Rule("docker.io/nicolaka/netshoot", NETSHOOT),
    Rule("registry.k8s.io/pause", PAUSE),
    Rule("docker.io/istio/*", PERVADE),
)
