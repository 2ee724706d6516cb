"""What a machine must offer before a cluster is made, as one list: `up` refuses by it, `doctor` shows it.

Every check looks, changes nothing that lasts, and names what to type when it fails.
"""

from __future__ import annotations

import ipaddress
import os
import resource
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from pervade.base.errors import OperatorError
from pervade.cluster.plan import Plan, load
from pervade.host import processes

_OVERLAYFS, _NFS = "overlay", ("nfs", "nfs4", "9p", "fuse")
_FILES = 4096
_FREE = 2 << 30
# A command (or file) and the Debian package that brings it.
PACKAGES = {
    "containerd": "containerd",
    "ctr": "containerd",
    "runc": "runc",
    "/usr/lib/cni/ptp": "containernetworking-plugins",
    "/usr/lib/cni/portmap": "containernetworking-plugins",
    "nft": "nftables",
    "iptables": "iptables",
    "ip": "iproute2",
    "conntrack": "conntrack",
    "nsenter": "util-linux",
    "mount": "mount",
    "sysctl": "procps",
    "/usr/bin/python3": "python3",
}
OPTIONAL = {"slirp4netns": "slirp4netns"}
# Everything that the Service rules and pods need of the kernel, tried once in a throwaway namespace.
_TRIAL = """
ip link add t-br type bridge || { echo "a bridge link (module bridge)" >&2; exit 3; }
ip link add t-a type veth peer name t-b || { echo "a veth link (module veth)" >&2; exit 3; }
nft -f - <<'RULES' || { echo "nf_tables with nat, maps, fib, numgen and conntrack" >&2; exit 3; }
table ip t {
  map m { type ipv4_addr . inet_service : verdict; }
  chain s { meta l4proto tcp dnat ip addr . port to numgen random mod 1 map { 0 : 10.0.0.1 . 80 }; }
  chain p { type nat hook prerouting priority dstnat; ip daddr . tcp dport vmap @m; fib daddr type local accept; }
  chain q { type nat hook postrouting priority srcnat; ct mark & 0x4000 == 0x4000 masquerade; }
}
RULES
"""


@dataclass(frozen=True)
class Finding:
    """The outcome of one check; `level` is `ok`, `warning` or `error`."""

    check: str
    level: str
    seen: str
    fix: str = ""


Check = Callable[[Plan], Iterator[Finding]]


def root(_plan: Plan) -> Iterator[Finding]:
    if os.geteuid() != 0:
        yield Finding(
            "root", "error", "not root: namespaces, mounts and containers need it", "sudo pervade up"
        )


def packages(_plan: Plan) -> Iterator[Finding]:
    missing = sorted({p for name, p in PACKAGES.items() if not _present(name)})
    if missing:
        yield Finding(
            "packages",
            "error",
            f"missing: {', '.join(missing)}",
            f"apt-get install --no-install-recommends {' '.join(missing)}",
        )
    for name, package in OPTIONAL.items():
        if not _present(name):
            yield Finding(
                "packages",
                "warning",
                f"no {name}: pods cannot reach addresses outside the cluster, images cannot be pulled",
                f"apt-get install --no-install-recommends {package}",
            )


def _present(name: str) -> bool:
    return Path(name).exists() if name.startswith("/") else shutil.which(name) is not None


def images(plan: Plan) -> Iterator[Finding]:
    from pervade.cluster.images import store

    fix = f"pervade images build --cache-dir {plan.cache}"
    if (found := store.ready(plan.cache)) is None:
        yield Finding("images", "error", f"no images in {plan.cache}", fix)
    elif missing := store.missing(found):
        # Pods with a name that stands for one of them would ask a registry instead.
        yield Finding("images", "error", f"older than this version, missing: {', '.join(missing)}", fix)


def kernel(_plan: Plan) -> Iterator[Finding]:
    for kind in ("net", "mnt", "pid", "uts", "ipc"):
        if not Path(f"/proc/self/ns/{kind}").exists():
            yield Finding(
                "kernel",
                "error",
                f"no {kind} namespaces",
                "a kernel with CONFIG_NAMESPACES and all its kinds",
            )
    if "overlay" not in _filesystems() and not _modprobe("overlay"):
        yield Finding(
            "kernel", "error", "no overlayfs", "modprobe overlay, or a kernel with CONFIG_OVERLAY_FS"
        )
    if os.geteuid() == 0 and _present("nft") and _present("ip"):
        tried = subprocess.run(
            ["unshare", "--net", "/bin/sh", "-c", _TRIAL],
            capture_output=True,
            text=True,
            check=False,
            timeout=20,
        )
        if tried.returncode:
            what = tried.stderr.strip().splitlines()
            yield Finding(
                "kernel",
                "error",
                f"a new network namespace cannot have {what[-1] if what else 'links and rules'}",
                "load the modules bridge, veth, nf_tables, nft_nat, nft_masq, nft_fib_inet, nft_numgen, or another kernel",
            )


def _filesystems() -> set[str]:
    return {line.split()[-1] for line in Path("/proc/filesystems").read_text().splitlines()}


def _modprobe(module: str) -> bool:
    if shutil.which("modprobe") is None or os.geteuid() != 0:
        return False
    subprocess.run(["modprobe", module], capture_output=True, check=False, timeout=20)
    return module in _filesystems()


def control_groups(_plan: Plan) -> Iterator[Finding]:
    from pervade.host import cgroups

    try:
        found = cgroups.hierarchies()
    except OSError:
        found = []
    if not found or not any((p / "cgroup.procs").exists() for p in found):
        yield Finding(
            "cgroups", "error", "no control groups at /sys/fs/cgroup", "mount -t cgroup2 none /sys/fs/cgroup"
        )
    elif not os.access(found[0], os.W_OK):
        yield Finding(
            "cgroups",
            "error",
            "control groups are read-only",
            "run on the machine itself, not in a container",
        )


def storage(plan: Plan) -> Iterator[Finding]:
    state, cache = _existing(plan.state), _existing(plan.cache)
    kind = _filesystem_of(state)
    if kind == _OVERLAYFS or kind in _NFS:
        yield Finding(
            "storage",
            "error",
            f"the state folder {plan.state_root} lies on {kind}: containers cannot have their layers there",
            "--state-dir and --cache-dir on a disk's own file system (ext4, xfs, btrfs)",
        )
    if state.stat().st_dev != cache.stat().st_dev:
        yield Finding(
            "storage",
            "error",
            f"{plan.state_root} and {plan.cache_dir} are on different file systems: images are given by hard links",
            "choose --state-dir and --cache-dir on one file system",
        )
    if (free := shutil.disk_usage(state).free) < _FREE:
        yield Finding(
            "storage",
            "warning",
            f"only {free >> 20} MiB free at {state}",
            "free some space, or another --state-dir",
        )


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def _filesystem_of(path: Path) -> str:
    """Type of the mount that holds `path`: the longest mount point above it wins, the last of equals."""
    best, kind, real = "", "", str(path.resolve())
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        point = left.split()[4]
        if (real == point or real.startswith(point.rstrip("/") + "/")) and len(point) >= len(best):
            best, kind = point, right.split()[0]
    return kind


def limits(_plan: Plan) -> Iterator[Finding]:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < _FILES:
        yield Finding(
            "limits", "error", f"at most {hard} open files, {_FILES} are needed", f"ulimit -Hn {_FILES * 16}"
        )
    instances = Path("/proc/sys/fs/inotify/max_user_instances")
    if instances.exists() and int(instances.read_text()) < 128:
        yield Finding(
            "limits",
            "warning",
            f"only {instances.read_text().strip()} inotify instances for all pods",
            "sysctl fs.inotify.max_user_instances=1024",
        )


def ports(plan: Plan) -> Iterator[Finding]:
    if _own_server(plan):
        return
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("127.0.0.1", plan.api_port))
        except OSError as error:
            yield Finding(
                "ports",
                "error",
                f"127.0.0.1:{plan.api_port} is taken ({error.strerror})",
                f"stop what listens there (ss -ltnp sport = :{plan.api_port}), or pervade up --api-port PORT",
            )


def _own_server(plan: Plan) -> bool:
    try:
        known = msgspec.json.decode((plan.run / "pids" / "apiserver.json").read_bytes())
        return processes.alive(known["pid"], known["started"])
    except (OSError, KeyError, msgspec.DecodeError):
        return False


def addresses(plan: Plan) -> Iterator[Finding]:
    """Ranges of the plan against the host's addresses and routes, and against other clusters here."""
    ours = [ipaddress.ip_network(r) for r in (plan.fabric_cidr, plan.pod_cidr, plan.service_cidr)]
    flags = ("--fabric-cidr", "--pod-cidr", "--service-cidr")
    for i, one in enumerate(ours):
        for other in ours[i + 1 :]:
            if one.overlaps(other):
                yield Finding("addresses", "error", f"{one} and {other} of the plan overlap", "other ranges")
    taken = [*_host_ranges(), *_other_clusters(plan)]
    for flag, mine in zip(flags, ours, strict=True):
        for theirs, whose in taken:
            if theirs.version == mine.version and theirs.overlaps(mine):
                yield Finding(
                    "addresses",
                    "error",
                    f"{mine} overlaps {theirs} ({whose})",
                    f"pervade up {flag} OTHER-RANGE",
                )
    for other_plan in _plans_beside(plan):
        if other_plan.api_port == plan.api_port:
            yield Finding(
                "ports",
                "error",
                f"cluster {other_plan.name} uses port {plan.api_port}",
                "pervade up --api-port PORT",
            )


Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _host_ranges() -> Iterator[tuple[Network, str]]:
    if not _present("ip"):
        return
    asked = subprocess.run(
        ["ip", "-4", "-j", "route", "show", "table", "all"], capture_output=True, check=False, timeout=10
    )
    if asked.returncode:
        return
    for route in msgspec.json.decode(asked.stdout or b"[]"):
        where = route.get("dst", "default")
        if where == "default" or (
            route.get("type") in ("multicast", "broadcast", "local") and route["dev"] == "lo"
        ):
            continue
        found = ipaddress.ip_network(where, strict=False)
        if found.prefixlen > 0:
            yield found, f"a route of this machine by {route.get('dev', '?')}"


def _plans_beside(plan: Plan) -> Iterator[Plan]:
    for file in sorted(Path(plan.run_root).glob("*/plan.json")):
        try:
            other = load(file)
        except (OSError, msgspec.MsgspecError):
            continue
        if other.name != plan.name:
            yield other


def _other_clusters(plan: Plan) -> Iterator[tuple[Network, str]]:
    for other in _plans_beside(plan):
        for cidr in (other.fabric_cidr, other.pod_cidr, other.service_cidr):
            yield ipaddress.ip_network(cidr), f"cluster {other.name}"


ALL: tuple[Check, ...] = (root, packages, images, kernel, control_groups, storage, limits, ports, addresses)


def run(plan: Plan, checks: tuple[Check, ...] = ALL) -> list[Finding]:
    """All findings, with one `ok` row for each check that found nothing; 0.1 s."""
    found: list[Finding] = []
    for check in checks:
        rows = list(check(plan))
        found += rows or [Finding(check.__name__.replace("_", " "), "ok", "")]
    return found


def refuse(findings: list[Finding]) -> None:
    """OperatorError that names every error with its fix; nothing when there is none."""
    errors = [f for f in findings if f.level == "error"]
    if errors:
        raise OperatorError(
            "this machine is not ready: " + "; ".join(f.seen for f in errors),
            fix="\n     ".join(dict.fromkeys(f.fix for f in errors if f.fix)),
        )
