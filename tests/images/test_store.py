"""Building, importing, exporting and pruning with a real containerd, on images of a few kilobytes."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from pervade.base.errors import OperatorError
from pervade.cli.main import root
from pervade.cluster import plan as plans
from pervade.cluster import references
from pervade.cluster.images import names, oci, recipes, store, transfer
from pervade.cluster.node import checks

pytestmark = pytest.mark.usefixtures("machine")
NAME = names.sample("details")


class Content:
    """What the only image of a test is made of."""

    text = b"1"


@pytest.fixture
def content(monkeypatch: pytest.MonkeyPatch) -> Iterator[Content]:
    found = Content()

    def images(layers: recipes.Layers) -> list[oci.Image]:
        made = layers.get("tiny", recipes.key(found.text), lambda out: oci.layer(out, {"f": found.text}))
        return [oci.Image((NAME,), (made,), command=("/f",))]

    monkeypatch.setattr(recipes, "images", images)
    yield found


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def _docker_archive(path: Path, tag: str, text: bytes) -> Path:
    """What `docker save` writes."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as out:
        out.addfile(oci.entry("hello", size=len(text)), io.BytesIO(text))
    data = layer.getvalue()
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["/hello"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(data).hexdigest()}"]},
            "history": [{"created": "2024-01-01T00:00:00Z"}],
        }
    ).encode()
    name = hashlib.sha256(config).hexdigest() + ".json"
    about = json.dumps([{"Config": name, "RepoTags": [tag], "Layers": ["l/layer.tar"]}]).encode()
    with tarfile.open(path, "w") as out:
        for file, bytes_ in (("manifest.json", about), (name, config), ("l/layer.tar", data)):
            out.addfile(oci.entry(file, size=len(bytes_)), io.BytesIO(bytes_))
    return path


def test_a_build_is_cached_by_content(content: Content, cache: Path) -> None:
    said: list[str] = []
    assert store.ready(cache) is None
    first = store.build(cache, said.append)
    assert said == ["layer tiny", "preparing the store"] and store.ready(cache) == first
    digest = store.manifest(first)[NAME]
    assert store.build(cache, said.append) == first and len(said) == 2
    content.text = b"2"
    second = store.build(cache, said.append)
    assert len(said) == 4 and store.manifest(second)[NAME] != digest
    # What nobody uses any more is gone; the old content gives the old digest again.
    assert not first.exists() and len(list((store.folder(cache) / "layers").glob("*.tar"))) == 1
    content.text = b"1"
    assert store.manifest(store.build(cache, said.append))[NAME] == digest


def test_content_that_goes_and_comes_back(content: Content, cache: Path) -> None:
    """What an older image left in the folder may be removed at any moment: it is given again."""
    digests = []
    for text in (b"1", b"2", b"1", b"2", b"1"):
        content.text = text
        digests.append(store.manifest(store.build(cache))[NAME])
    assert digests[0] == digests[2] == digests[4] != digests[1] == digests[3]


def test_the_digest_does_not_depend_on_the_machine_or_the_cache(content: Content, tmp_path: Path) -> None:
    one, two = (store.manifest(store.build(tmp_path / name)) for name in ("a", "b"))
    assert one == two


def test_a_docker_archive_is_imported_kept_and_replaced(
    content: Content, cache: Path, tmp_path: Path
) -> None:
    store.build(cache)
    runs = tmp_path / "run"
    archive = _docker_archive(tmp_path / "shop.tar", "shop:1", b"one")
    full = "docker.io/library/shop:1"
    assert transfer.take(cache, archive, lambda _text: None, run_root=runs) == [full]
    assert transfer.take(cache, archive, lambda _text: None, run_root=runs) == []
    before = store.manifest(store.build(cache))
    assert NAME in before
    # It survives a build with other content, and a new archive under the same name wins.
    content.text = b"2"
    assert store.manifest(store.build(cache))[full] == before[full]
    again = _docker_archive(tmp_path / "shop2.tar", "shop:1", b"two")
    assert transfer.take(cache, again, lambda _text: None, run_root=runs) == [full]
    assert store.manifest(store.build(cache))[full] != before[full]


def test_what_is_exported_can_be_imported_elsewhere(content: Content, cache: Path, tmp_path: Path) -> None:
    store.build(cache)
    found = transfer.give_out(cache, tmp_path / "out.tar", [NAME], lambda _text: None)
    assert found == {NAME: store.manifest(store.build(cache))[NAME]}
    content.text = b"other"
    elsewhere = tmp_path / "elsewhere"
    store.build(elsewhere)
    assert transfer.take(elsewhere, tmp_path / "out.tar", lambda _text: None, run_root=tmp_path) == [NAME]
    assert store.manifest(store.build(elsewhere))[NAME] == found[NAME]


def test_without_a_checkout_an_archive_is_enough(
    content: Content, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = transfer.give_out(cache, tmp_path / "out.tar", [], lambda _text: None)
    monkeypatch.undo()
    monkeypatch.setattr(recipes, "has_checkout", lambda: False)
    wheel = tmp_path / "wheel"
    with pytest.raises(OperatorError, match="from a checkout") as refused:
        store.build(wheel)
    assert "pervade images import" in refused.value.fix
    assert transfer.take(wheel, tmp_path / "out.tar", lambda _text: None, run_root=tmp_path) == [NAME]
    assert store.manifest(store.build(wheel)) == found


@pytest.mark.parametrize("data", [b"", b"not a tar", b"\0" * 10240])
def test_a_bad_archive_is_refused_and_spoils_nothing(
    content: Content, cache: Path, tmp_path: Path, data: bytes
) -> None:
    built = store.build(cache)
    (tmp_path / "bad.tar").write_bytes(data)
    with pytest.raises(OperatorError):
        transfer.take(cache, tmp_path / "bad.tar", lambda _text: None, run_root=tmp_path)
    assert store.imported(cache) == [] and store.build(cache) == built
    with pytest.raises(OperatorError, match="no such archive"):
        transfer.take(cache, tmp_path / "absent.tar", lambda _text: None, run_root=tmp_path)


def test_an_export_that_cannot_be_leaves_no_file(content: Content, cache: Path, tmp_path: Path) -> None:
    store.build(cache)
    with pytest.raises(OperatorError, match=r"not made here: docker\.io/library/nginx"):
        transfer.give_out(cache, tmp_path / "out.tar", ["nginx"], lambda _text: None)
    with pytest.raises(OperatorError, match="no such folder"):
        transfer.give_out(cache, tmp_path / "no" / "out.tar", [], lambda _text: None)
    assert not list(tmp_path.glob("*.tar"))


def test_prune_removes_what_is_not_in_use(content: Content, cache: Path) -> None:
    current = store.build(cache)
    left = store.folder(cache) / "store-0000" / "root"
    left.mkdir(parents=True)
    (left / "blob").write_bytes(b"x" * 100_000)
    (store.folder(cache) / "layers" / "tmpabc").mkdir()
    assert transfer.prune(cache) >= 100_000
    assert store.ready(cache) == current and not left.exists()
    assert transfer.prune(cache) == 0
    assert transfer.prune(cache, everything=True) > 0
    assert store.ready(cache) is None and not store.folder(cache).exists()


def test_a_node_gets_the_images_and_the_map(content: Content, cache: Path, tmp_path: Path) -> None:
    built = store.build(cache)
    state = tmp_path / "node"
    state.mkdir()
    assert store.give(built, state) and not store.give(built, state)
    rules = json.loads((state / "image-map.json").read_text())["rules"]
    assert [references.Rule(**r) for r in rules] == list(names.RULES)
    blobs = list((state / "root" / "io.containerd.content.v1.content/blobs/sha256").iterdir())
    # Shared, not copied.
    assert blobs and all(blob.stat().st_nlink > 1 for blob in blobs)


def test_up_refuses_images_of_an_older_version(content: Content, cache: Path) -> None:
    built = store.build(cache)
    plan = plans.make(cache_dir=str(cache))
    (found,) = checks.images(plan)
    assert found.level == "error" and names.NETSHOOT in found.seen and NAME not in found.seen
    assert found.fix == f"pervade images build --cache-dir {cache}"
    about = json.loads((built / "store.json").read_text())
    about["images"] |= {rule.image: "sha256:0" for rule in names.RULES}
    (built / "store.json").write_text(json.dumps(about))
    assert list(checks.images(plan)) == []


def test_the_list_shows_what_really_runs(content: Content, cache: Path, tmp_path: Path) -> None:
    run = CliRunner()
    none = run.invoke(root, ["images", "list", "--cache-dir", str(cache)])
    assert none.exit_code != 0 and f"pervade images build --cache-dir {cache}" in (
        none.output + str(none.exception)
    )
    built = store.manifest(store.build(cache))
    done = run.invoke(root, ["images", "list", "-o", "json", "--cache-dir", str(cache)])
    rows = {r["image"]: r for r in json.loads(done.output)}
    assert rows[NAME] == {"image": NAME, "digest": built[NAME], "stands for": ""}
    mapped = rows["docker.io/istio/examples-bookinfo-details-v*"]
    assert (mapped["stands for"], mapped["digest"]) == (NAME, built[NAME])
    assert {r.match for r in names.RULES} <= rows.keys()


@pytest.mark.parametrize("verb", ["build", "import", "export", "prune"])
def test_every_verb_of_the_command_line_works(
    content: Content, cache: Path, tmp_path: Path, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pervade.cli.options.RUN", str(tmp_path / "run"))
    store.build(cache)
    archive = str(_docker_archive(tmp_path / "in.tar", "shop:9", str(os.getpid()).encode()))
    rest = {"import": [archive], "export": [str(tmp_path / "out.tar"), NAME]}.get(verb, [])
    done = CliRunner().invoke(root, ["images", verb, *rest, "--cache-dir", str(cache)])
    assert done.exit_code == 0, done.output
    wanted = {"build": "store-", "import": "docker.io/library/shop:9", "export": NAME, "prune": "freed"}[verb]
    assert wanted in done.output
