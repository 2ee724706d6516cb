"""What is inside the built images, tried in their own root: read-only, nothing writable, as pods may run them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from pervade.cli.options import CACHE
from pervade.cluster.images import names, oci, recipes, store

pytestmark = [pytest.mark.live, pytest.mark.usefixtures("machine")]


class Root:
    """Unpacked layers; `run` enters them in a mount namespace of its own, everything read-only."""

    def __init__(self, folder: Path, image: oci.Image) -> None:
        self.folder, self.image = folder, image
        folder.mkdir(parents=True)
        for layer in image.layers:
            subprocess.run(["tar", "-xf", str(layer), "-C", str(folder)], check=True)
        for name in ("proc", "dev"):
            (folder / name).mkdir(exist_ok=True)

    def run(self, *argv: str, user: str = "0:0") -> subprocess.CompletedProcess[str]:
        script = (
            'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && mount -t proc proc "$0/proc" '
            '&& mount --bind /dev "$0/dev" && exec chroot --userspec="$1" "$0" env -i "${@:2}"'
        )
        inside = ["bash", "-c", script, str(self.folder), user, *self.image.env, *argv]
        whole = ["unshare", "-m", "-p", "--fork", "--kill-child", "--propagation", "private", *inside]
        return subprocess.run(whole, capture_output=True, text=True, timeout=60, check=False)


class Built(recipes.Layers):
    """Layers as they are; a test builds no root file system."""

    def get(self, name: str, mark: str, make: Callable[[Path], None]) -> Path:
        if name in ("base", "netshoot", "python") and not (self.folder / f"{name}-{mark}.tar").exists():
            pytest.skip(f"the images are older than their recipes ({name}): pervade images build")
        return super().get(name, mark, make)


@pytest.fixture(scope="module")
def images() -> dict[str, oci.Image]:
    cache = Path(os.environ.get("PERVADE_CACHE", CACHE))
    if store.ready(cache) is None:
        pytest.skip(f"no images in {cache}: pervade images build --cache-dir {cache}")
    return {
        name: image for image in recipes.images(Built(store.folder(cache), print)) for name in image.names
    }


@pytest.fixture(scope="module")
def pervade(images: dict[str, oci.Image], tmp_path_factory: pytest.TempPathFactory) -> Root:
    return Root(tmp_path_factory.mktemp("image") / "pervade", images[names.PERVADE])


def test_the_projects_image_has_a_shell_and_curl_and_runs_read_only(pervade: Root) -> None:
    assert "curl" in pervade.run("sh", "-c", "curl --version").stdout
    said = pervade.run("pervade", "version", user="1000:1000")
    assert said.returncode == 0, said.stderr
    assert pervade.run("touch", "/x").returncode != 0


def test_the_projects_native_requirements_load(pervade: Root) -> None:
    done = pervade.run(
        "python3",
        "-c",
        "import grpc, msgspec, cryptography.x509, aiohttp",
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("program", ["python3", "/usr/bin/python3"])
def test_a_start_compiles_nothing(pervade: Root, program: str) -> None:
    done = pervade.run(program, "-v", "-c", "import asyncio, json, ssl, http.server")
    assert done.returncode == 0, done.stderr
    loaded = [line for line in done.stderr.splitlines() if "code object from" in line]
    assert loaded
    assert [line for line in loaded if not line.rstrip("'").endswith(".pyc")] == []


def test_the_projects_modules_compile_nothing(pervade: Root) -> None:
    done = pervade.run("python3", "-v", "-c", "import pervade.wire.http, pervade.kube")
    assert done.returncode == 0, done.stderr[-2000:]
    loaded = [line for line in done.stderr.splitlines() if "code object from" in line]
    assert any("/pervade/" in line for line in loaded)
    assert [line for line in loaded if not line.rstrip("'").endswith(".pyc")] == []


@pytest.mark.parametrize("name", [name for name, _, _ in recipes.SAMPLES])
def test_samples_start_as_a_user_on_a_read_only_root(
    images: dict[str, oci.Image], pervade: Root, name: str
) -> None:
    image = images[names.sample(name)]
    # The base layer is the same; the sample's own is put on top.
    subprocess.run(["tar", "-xf", str(image.layers[-1]), "-C", str(pervade.folder)], check=True)
    more = {"echo": "--port http=0 --port https=0", "httpbin": "-port 0"}.get(name, "0")
    shell = f"timeout -s TERM 2 {' '.join(image.command)} {more}"
    done = pervade.run("sh", "-c", shell, user="1000:1000")
    assert "listening {" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("curl", "--version"), "curl 7"),
        (("--version",), "curl 7"),
        (("file:///etc/debian_version",), "12."),
        (("/bin/sleep", "0"), ""),
        (("sh", "-c", "echo in a shell"), "in a shell"),
    ],
)
def test_curl_is_started_as_users_start_it(
    images: dict[str, oci.Image], pervade: Root, arguments: tuple[str, ...], said: str
) -> None:
    image = images[names.CURL]
    subprocess.run(["tar", "-xf", str(image.layers[-1]), "-C", str(pervade.folder)], check=True)
    done = pervade.run(*image.entrypoint, *arguments)
    assert (done.returncode, done.stdout[: len(said)]) == (0, said), done.stderr


def test_netshoot_has_its_tools(images: dict[str, oci.Image], tmp_path: Path) -> None:
    root = Root(tmp_path / "root", images[names.NETSHOOT])
    wanted = "tcpdump tshark termshark curl dig ss iperf3 ip jq nc nft strace"
    done = root.run("sh", "-c", f"for t in {wanted}; do command -v $t >/dev/null || echo no $t; done")
    assert (done.returncode, done.stdout) == (0, "")
    for tool in ("tcpdump --version", "tshark --version", "dig -v", "iperf3 --version", "ss -V"):
        done = root.run(*tool.split())
        assert done.returncode == 0, (tool, done.stderr)
