"""Which image really runs for the names that users' manifests hold."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest
import yaml

from pervade.cluster import references
from pervade.cluster.images import names, oci, recipes

DIGEST = "@sha256:" + "ab" * 32
BOOKINFO = {
    "productpage-v1": "productpage",
    "details-v1": "details",
    "details-v2": "details",
    "ratings-v1": "ratings",
    "ratings-v2": "ratings",
    "reviews-v1": "reviews-v1",
    "reviews-v2": "reviews-v2",
    "reviews-v3": "reviews-v3",
}


@pytest.mark.parametrize(
    "tag", ["", ":1.16.2", ":1.17.0", ":1.18.0", ":1.19.1", ":1.20.1", ":1.20.3", ":latest", DIGEST]
)
@pytest.mark.parametrize(("name", "image"), BOOKINFO.items())
@pytest.mark.parametrize("registry", ["", "docker.io/"])
def test_bookinfo_names_in_any_tag(registry: str, name: str, image: str, tag: str) -> None:
    reference = f"{registry}istio/examples-bookinfo-{name}{tag}"
    assert references.resolve(reference, names.RULES) == names.sample(image)


@pytest.mark.parametrize(
    ("reference", "image"),
    [
        ("curlimages/curl", names.CURL),
        ("curlimages/curl:8.16.0", names.CURL),
        ("docker.io/curlimages/curl:latest", names.CURL),
        ("docker.io/governmentpaas/curl-ssl", names.CURL),
        ("governmentpaas/curl-ssl:terraform-14", names.CURL),
        ("docker.io/kennethreitz/httpbin", names.sample("httpbin")),
        ("docker.io/mccutchen/go-httpbin:v2.15.0", names.sample("httpbin")),
        ("busybox", names.BUSYBOX),
        ("busybox:1.36", names.BUSYBOX),
        ("alpine:3.20", names.BUSYBOX),
        ("nicolaka/netshoot", names.NETSHOOT),
        ("registry.k8s.io/pause:3.9", names.PAUSE),
        ("docker.io/istio/ztunnel:1.27.0", names.PERVADE),
    ],
)
def test_names_beside_bookinfo(reference: str, image: str) -> None:
    assert references.resolve(reference, names.RULES) == image


@pytest.mark.parametrize(
    "reference",
    [
        "nginx",
        "docker.io/istio/examples-bookinfo-mongodb:1.20.1",
        "istio/examples-helloworld-v1",
        "quay.io/curlimages/curl",
        "curlimages/curl2",
    ],
)
def test_a_name_that_we_have_nothing_for_is_left_to_a_registry(reference: str) -> None:
    assert references.resolve(reference, names.RULES) is None


def test_every_rule_leads_to_an_image_that_is_made(dry: list[oci.Image]) -> None:
    made = {name for image in dry for name in image.names}
    assert {rule.image for rule in names.RULES} <= made
    assert len([n for image in dry for n in image.names]) == len(made)


def test_a_manifest_of_the_published_shape_fits_the_images(dry: list[oci.Image]) -> None:
    by_name = {name: image for image in dry for name in image.names}
    shape = Path(__file__).with_name("published_shape.yaml")
    seen = 0
    for document in yaml.safe_load_all(shape.read_text()):
        pod = document["spec"]["template"]["spec"]
        for container in pod["containers"]:
            resolved = references.resolve(container["image"], names.RULES)
            assert resolved is not None
            image = by_name[resolved]
            # It starts by itself, listens where the manifest says (PORT is not set: 9080), as a number, not root.
            program = image.command[-1]
            assert not image.entrypoint and program.startswith("/opt/samples/bookinfo/src/")
            assert not any(text.startswith("PORT=") for text in image.env)
            assert [p["containerPort"] for p in container["ports"]] == [9080]
            assert image.user == "1000"
            # No volume of the manifest hides the program, its interpreter or the interpreter's library.
            for mount in container.get("volumeMounts", []):
                for needed in (program, "/usr/bin/python3", "/usr/lib/python3.11"):
                    assert PurePosixPath(mount["mountPath"]) not in PurePosixPath(needed).parents
            # No variable of the manifest changes what the image is.
            ours = {text.partition("=")[0] for text in image.env}
            assert not ours & {e["name"] for e in container.get("env", [])}
            seen += 1
    assert seen == 4


def test_the_versions_of_reviews_differ_by_their_environment(dry: list[oci.Image]) -> None:
    env = {n: dict(e.split("=", 1) for e in i.env) for i in dry for n in i.names if "reviews" in n}
    stars = {
        n.partition("reviews-")[2][:2]: (e.get("ENABLE_RATINGS"), e.get("STAR_COLOR")) for n, e in env.items()
    }
    assert stars == {"v1": ("false", None), "v2": ("true", "black"), "v3": ("true", "red")}


def test_programs_of_samples_exist() -> None:
    root = recipes.project() / "samples"
    assert all((root / script).is_file() for _, script, _ in recipes.SAMPLES)


@pytest.mark.parametrize("tool", ["tcpdump", "tshark", "termshark", "dnsutils", "iperf3"])
def test_netshoot_holds(tool: str) -> None:
    assert tool in recipes.TOOLS
    assert {"curl", "iproute2"} <= set(recipes.BASE)
