"""What the images are made of: layers by content, images as values.

Layers: `base` (Debian with Python, curl and h2), `netshoot` (tools on top), `pause`, `python` (our run
requirements), `pervade` (our own source), `samples` (the sample applications). Each layer's key is a hash
of what it is made from, so a change rebuilds only the layers it touches.
"""

from __future__ import annotations

import compileall
import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from pervade.base.errors import OperatorError
from pervade.cluster.images import names, oci
from pervade.host.run import command

Progress = Callable[[str], None]
SUITE = "bookworm"
BASE = (
    "python3",
    "python3-h2",
    "curl",
    "ca-certificates",
    "openssl",
    "iproute2",
    "nftables",
    "procps",
    "mount",
    # Native parts of Python packages (grpcio among them) link it; Debian's essential set has no C++.
    "libstdc++6",
)
TOOLS = (
    "tcpdump", "tshark", "termshark", "dnsutils", "iperf3", "netcat-openbsd", "jq", "iputils-ping", "traceroute",
    "conntrack", "socat", "nmap", "strace", "less",
)  # fmt: skip
_TRIM = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")
# What tells of the machine or the moment of the build; the kubelet gives a pod its own names.
_WITHOUT = frozenset(
    {
        "etc/hostname",
        "etc/resolv.conf",
        "etc/machine-id",
        "var/cache/debconf/config.dat-old",
        "var/cache/debconf/passwords.dat",
        "var/cache/debconf/templates.dat-old",
        "var/cache/ldconfig/aux-cache",
        "var/lib/dpkg/status-old",
        "etc/passwd-",
        "etc/group-",
        "etc/shadow-",
        "etc/gshadow-",
    }
)
# As users start the published image: `-- curl URL`, `-- -s URL` and `-- URL` all fetch.
_CURL = b"""#!/bin/sh
case "$1" in -*) set -- curl "$@" ;; esac
command -v "$1" >/dev/null || set -- curl "$@"
exec "$@"
"""
_SITE = "opt/venv/lib/python3.11/site-packages"
_ENV = (
    "PATH=/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "PYTHONDONTWRITEBYTECODE=1",
    "PYTHONUNBUFFERED=1",
    "LANG=C.UTF-8",
)


def has_checkout() -> bool:
    """Whether images can be made here; an installed wheel can only import them."""
    return (Path(__file__).resolve().parents[4] / "requirements" / "run.txt").exists()


def project() -> Path:
    """The checkout this package runs from; OperatorError when it runs from a wheel without one."""
    root = Path(__file__).resolve().parents[4]
    if not has_checkout():
        raise OperatorError(
            "images are built from a checkout of the project",
            where=str(root),
            fix="pervade images import ARCHIVE instead",
        )
    return root


def key(*parts: object) -> str:
    """A short name for content."""
    return hashlib.sha256("\0".join(str(p) for p in parts).encode()).hexdigest()[:16]


def tree_key(*folders: Path) -> str:
    """Hash of all files below `folders` by path, content and whether they are programs; O(bytes)."""
    found = hashlib.sha256()
    for folder in folders:
        for file in sorted(p for p in folder.rglob("*") if p.is_file() and "__pycache__" not in p.parts):
            mark = b"*" if file.stat().st_mode & 0o100 else b"-"
            found.update(str(file.relative_to(folder)).encode() + b"\0" + mark + oci.digest(file).encode())
    return found.hexdigest()[:16]


class Layers:
    """Layer files in the cache, made when they are missing."""

    def __init__(self, cache: Path, say: Progress) -> None:
        self.folder, self.say = cache / "layers", say
        self.folder.mkdir(parents=True, exist_ok=True)
        self.used: list[Path] = []

    def get(self, name: str, mark: str, make: Callable[[Path], None]) -> Path:
        """The file of layer `name` for content `mark`."""
        path = self.folder / f"{name}-{mark}.tar"
        if not path.exists():
            self.say(f"layer {name}")
            with tempfile.TemporaryDirectory(dir=self.folder) as work:
                fresh = Path(work) / "layer.tar"
                make(fresh)
                fresh.rename(path)
        self.used.append(path)
        return path

    def base(self) -> Path:
        return self.get("base", key(SUITE, BASE, _TRIM, sorted(_WITHOUT), 2), lambda out: _debian(out, BASE))

    def netshoot(self) -> Path:
        base = self.base()

        def make(out: Path) -> None:
            whole = out.with_name("whole.tar")
            _debian(whole, (*BASE, *TOOLS))
            oci.difference(out, whole, base)

        return self.get("netshoot", key(SUITE, BASE, TOOLS, _TRIM, sorted(_WITHOUT), 2), make)

    def busybox(self) -> Path:
        program = Path("/bin/busybox")
        if not program.exists():
            raise OperatorError("no static busybox", where=str(program), fix="apt-get install busybox-static")
        applets = command([str(program), "--list"]).split()
        files: dict[str, bytes | Path | str] = {f"bin/{a}": "busybox" for a in applets if a != "busybox"}
        files["bin/busybox"] = program
        files["etc/passwd"] = b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n"
        files["etc/group"] = b"root:x:0:\nnogroup:x:65534:\n"
        return self.get("busybox", key(oci.digest(program), 2), lambda out: oci.layer(out, files))

    def curl(self) -> Path:
        files = {"entrypoint.sh": _CURL}
        return self.get("curl", key(_CURL), lambda out: oci.layer(out, files, executable=files))

    def python(self) -> Path:
        wanted = project() / "requirements" / "run.txt"
        return self.get("python", key(wanted.read_text(), 3), lambda out: _requirements(out, wanted))

    def pervade(self) -> Path:
        source = project() / "src" / "pervade"
        return self.get(
            "pervade", tree_key(source), lambda out: _python_tree(out, source, f"{_SITE}/pervade")
        )

    def samples(self) -> Path:
        source = project() / "samples"
        return self.get(
            "samples", key(tree_key(source), 2), lambda out: _python_tree(out, source, "opt/samples")
        )


def _debian(out: Path, packages: Iterable[str]) -> None:
    whole = out.with_name("debian.tar")
    trims = [f"--dpkgopt=path-exclude={pattern}" for pattern in _TRIM]
    empty = 'rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/* "$1"/var/log/*.log'
    argv = ["mmdebstrap", "--quiet", "--variant=essential", f"--include={','.join(packages)}", *trims]
    argv += [f"--customize-hook={empty}", SUITE, str(whole)]
    # With it, passwords' last change is fixed, and Debian's byte code is checked by its source's content.
    # Checked by time (the default) all of it would be stale, as layers have times of their own, and every
    # start on a read-only root would compile the standard library again.
    command(["env", f"SOURCE_DATE_EPOCH={oci.EPOCH}", *argv], timeout=900)
    oci.normalised(out, whole, without=_WITHOUT)
    whole.unlink()


def _requirements(out: Path, wanted: Path) -> None:
    site = out.with_name("site")
    argv = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--disable-pip-version-check",
        "--no-compile",
        "--require-hashes",
    ]
    argv += ["--target", str(site), "-r", str(wanted), "--only-binary=:all:"]
    if sys.version_info[:2] != (3, 11):
        argv += ["--python-version", "3.11", "--implementation", "cp"]
        for level in ("manylinux2014", "manylinux_2_17", "manylinux_2_28", "manylinux_2_34"):
            argv += ["--platform", f"{level}_x86_64"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=900, check=False)
    if done.returncode:
        raise OperatorError(
            f"pip failed: {done.stderr.strip()[-1500:]}", fix="check the package index this machine uses"
        )
    for folder in ("bin", "tests"):
        shutil.rmtree(site / folder, ignore_errors=True)
    # Used by the API server only, which runs on the host.
    for heavy in ("kubernetes_validate", "cel_expr_python"):
        shutil.rmtree(site / heavy, ignore_errors=True)
    # It names the scripts that were dropped, by a hash of the path of this machine's interpreter.
    for record in site.glob("*.dist-info/RECORD"):
        record.unlink()
    _compile(site)
    files: dict[str, bytes | Path | str] = {
        f"{_SITE}/{p.relative_to(site)}": p for p in site.rglob("*") if p.is_file()
    }
    files["opt/venv/pyvenv.cfg"] = b"home = /usr/bin\ninclude-system-site-packages = false\nversion = 3.11\n"
    files["opt/venv/bin/python"] = "/usr/bin/python3"
    files["opt/venv/bin/python3"] = "python"
    files["opt/venv/bin/pervade"] = b"#!/opt/venv/bin/python\nfrom pervade.cli.main import main\n\nmain()\n"
    oci.layer(out, files, executable=["opt/venv/bin/pervade"])


def _python_tree(out: Path, source: Path, target: str) -> None:
    copy = out.with_name("tree")
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__", "*.md", "*.yaml"))
    _compile(copy)
    oci.layer(out, {f"{target}/{p.relative_to(copy)}": p for p in copy.rglob("*") if p.is_file()})


def _compile(folder: Path) -> None:
    """Byte-compile with hash-checked files when the interpreter is the image's, so that start-up parses nothing."""
    if sys.version_info[:2] == (3, 11):
        import py_compile

        mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
        compileall.compile_dir(folder, quiet=2, invalidation_mode=mode, stripdir=str(folder), workers=1)


def images(layers: Layers) -> list[oci.Image]:
    """All images of the project; long the first time, a look at the cache afterwards."""
    busybox, base = layers.busybox(), layers.base()
    stack = (base, layers.python(), layers.pervade())
    waits = "trap 'exit 0' TERM INT; while :; do sleep 3600 & wait $!; done"
    made = [
        oci.Image((names.PAUSE,), (busybox,), entrypoint=("/bin/busybox", "sh", "-c", waits)),
        oci.Image((names.BUSYBOX,), (busybox,), command=("sh",)),
        oci.Image((names.CURL,), (base, layers.curl()), entrypoint=("/entrypoint.sh",), command=("curl",)),
        oci.Image((names.PERVADE,), stack, command=("pervade", "--help"), env=_ENV),
        oci.Image(
            (names.NETSHOOT, "docker.io/nicolaka/netshoot:latest"),
            (base, layers.netshoot()),
            command=("bash",),
            workdir="/root",
        ),
    ]
    apps = (base, layers.samples())
    for name, script, env in SAMPLES:
        command = ("/usr/bin/python3", f"/opt/samples/{script}")
        made.append(
            oci.Image(
                (names.sample(name),),
                apps,
                command=command,
                env=_merged(_ENV, env),
                user="1000",
                workdir="/opt/samples",
            )
        )
    return made


def _merged(common: tuple[str, ...], own: tuple[str, ...]) -> tuple[str, ...]:
    """Variables, each once; `own` wins."""
    return tuple(f"{n}={v}" for n, v in dict(text.split("=", 1) for text in (*common, *own)).items())


SAMPLES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("productpage", "bookinfo/src/productpage.py", ()),
    ("details", "bookinfo/src/details.py", ()),
    ("ratings", "bookinfo/src/ratings.py", ()),
    ("reviews-v1", "bookinfo/src/reviews.py", ("SERVICE_VERSION=v1", "ENABLE_RATINGS=false")),
    (
        "reviews-v2",
        "bookinfo/src/reviews.py",
        ("SERVICE_VERSION=v2", "ENABLE_RATINGS=true", "STAR_COLOR=black"),
    ),
    (
        "reviews-v3",
        "bookinfo/src/reviews.py",
        ("SERVICE_VERSION=v3", "ENABLE_RATINGS=true", "STAR_COLOR=red"),
    ),
    ("echo", "echo/src/echo.py", ()),
    ("httpbin", "httpbin/src/httpbin.py", ("PATH=/opt/samples/httpbin/bin:/usr/local/bin:/usr/bin:/bin",)),
)
