"""Which upstream names resolve to images made here (the form of the rules: `cluster.references`).

A name that no rule covers is asked of a registry: another program under a known name would be worse than none.
"""

from __future__ import annotations

from pervade.cluster.references import Rule

PERVADE = "pervade.local/pervade:dev"
PAUSE = "pervade.local/pause:1"
CURL = "pervade.local/curl:dev"
NETSHOOT = "pervade.local/netshoot:dev"
SAMPLES = "pervade.local/samples"
BUSYBOX = "docker.io/library/busybox:latest"


def sample(name: str) -> str:
    """The image of a sample application."""
    return f"{SAMPLES}-{name}:dev"


def _bookinfo(service: str, version: str, image: str) -> Rule:
    return Rule(f"docker.io/istio/examples-bookinfo-{service}-{version}", sample(image))


RULES = (
    _bookinfo("productpage", "v*", "productpage"),
    _bookinfo("details", "v*", "details"),
    _bookinfo("ratings", "v*", "ratings"),
    _bookinfo("reviews", "v1", "reviews-v1"),
    _bookinfo("reviews", "v2", "reviews-v2"),
    _bookinfo("reviews", "v3", "reviews-v3"),
    Rule("docker.io/curlimages/curl", CURL),
    Rule("docker.io/governmentpaas/curl-ssl", CURL),
    Rule("docker.io/kennethreitz/httpbin", sample("httpbin")),
    Rule("docker.io/mccutchen/go-httpbin", sample("httpbin")),
    Rule("ghcr.io/mccutchen/go-httpbin", sample("httpbin")),
    Rule("docker.io/library/busybox", BUSYBOX),
    Rule("docker.io/library/alpine", BUSYBOX),
    Rule("docker.io/nicolaka/netshoot", NETSHOOT),
    Rule("registry.k8s.io/pause", PAUSE),
    # The mesh's own programs, as charts and manifests of users name them.
    Rule("docker.io/istio/pilot", PERVADE),
    Rule("docker.io/istio/proxyv2", PERVADE),
    Rule("docker.io/istio/ztunnel", PERVADE),
    Rule("docker.io/istio/install-cni", PERVADE),
)
