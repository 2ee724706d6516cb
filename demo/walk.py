"""The tutorial as one run that checks itself: each step prints what a user would type, what was seen and what was expected.

    make demo                      the whole walk, then everything is removed
    python demo/walk.py --keep     leave the cluster up
    python demo/walk.py --step     wait for Enter after each step

Exit status 0 when every expectation held. Steps are numbered as in the tutorial; a step that needs a
part of the mesh that is not built yet is not in the list.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "src"), str(ROOT)]

BOLD, DIM, GREEN, RED, RESET = "\033[1m", "\033[2m", "\033[32m", "\033[31m", "\033[0m"


@dataclass
class Seen:
    """The outcome of one command."""

    code: int
    out: str
    seconds: float


class NoCluster(Exception):
    """Nothing further can be shown."""


@dataclass
class Walk:
    """Runs commands, prints them and keeps the score."""

    name: str
    colour: bool
    pause: bool
    keep: bool
    held: int = 0
    failed: list[str] = field(default_factory=list)
    notes: dict[str, object] = field(default_factory=dict)

    def paint(self, code: str, text: str) -> str:
        return f"{code}{text}{RESET}" if self.colour else text

    def heading(self, number: int, title: str) -> None:
        print(f"\n{self.paint(BOLD, f'Step {number}: {title}')}", flush=True)

    def type(self, command: str, *, timeout: float = 120, show: int = 12) -> Seen:
        """Run `command` as a user would type it and print the first `show` lines of what it says."""
        print(f"  {self.paint(BOLD, '$')} {command}", flush=True)
        begin = time.monotonic()
        try:
            done = subprocess.run(
                ["bash", "-o", "pipefail", "-c", command],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=timeout,
            )
            code, raw = done.returncode, done.stdout
        except subprocess.TimeoutExpired as late:
            code, raw = 124, (late.stdout or b"") + f"\n(no end after {timeout:.0f} s)".encode()
        seen = Seen(code, raw.decode(errors="replace"), time.monotonic() - begin)
        lines = seen.out.rstrip().splitlines()
        for line in lines[:show]:
            print(f"    {self.paint(DIM, line[:180])}")
        if len(lines) > show:
            print(f"    {self.paint(DIM, f'… {len(lines) - show} more lines')}")
        return seen

    def expect(self, what: str, held: bool, seen: str, seconds: float | None = None) -> bool:
        """Print a tick or a cross for `what`, with what was `seen`; whether it held."""
        mark = self.paint(GREEN, "✔") if held else self.paint(RED, "✘")
        clock = f" {self.paint(DIM, f'({seconds:.1f} s)')}" if seconds is not None else ""
        print(f"  {mark} {what}{clock}" + ("" if held else f"\n      seen: {seen.strip()[:600]}"), flush=True)
        if held:
            self.held += 1
        else:
            self.failed.append(what)
        return held

    def wait(self) -> None:
        if self.pause:
            input(self.paint(DIM, "  Enter for the next step … "))


def step_1(walk: Walk) -> None:
    walk.heading(1, "a cluster of two nodes")
    up = walk.type(f"pervade up --nodes 2{_named(walk)}", timeout=600, show=30)
    if not walk.expect("`pervade up` ends well", up.code == 0, up.out[-600:], up.seconds):
        raise NoCluster
    nodes = walk.type("kubectl get nodes -o wide")
    ready = [line for line in nodes.out.splitlines() if " Ready " in f" {' '.join(line.split())} "]
    walk.expect("two nodes are Ready", len(ready) == 2, nodes.out, nodes.seconds)
    context = walk.type("kubectl config current-context")
    walk.expect("a kubeconfig context is current", context.out.strip() == walk.name, context.out)


APPS = (
    "details-v1",
    "productpage-v1",
    "ratings-v1",
    "reviews-v1",
    "reviews-v2",
    "reviews-v3",
    "sleep",
    "notsleep",
)
ACCOUNTS = (
    "bookinfo-productpage",
    "bookinfo-details",
    "bookinfo-ratings",
    "bookinfo-reviews",
    "sleep",
    "notsleep",
)


def step_2(walk: Walk) -> None:
    walk.heading(2, "the sample applications")
    for manifest in ("bookinfo/platform/kube/bookinfo.yaml", "sleep/sleep.yaml", "sleep/notsleep.yaml"):
        applied = walk.type(f"kubectl apply -f samples/{manifest}", show=4)
        walk.expect(f"{manifest} is accepted", applied.code == 0, applied.out, applied.seconds)
    ready = walk.type("kubectl wait --for=condition=Available deployment --all --timeout=90s", timeout=120)
    walk.expect("every deployment is available", ready.code == 0, ready.out, ready.seconds)
    pods = walk.type("kubectl get pod,svc -o wide", show=24)
    missing = [
        a for a in APPS if not any(f"pod/{a}-" in row and "Running" in row for row in pods.out.splitlines())
    ]
    walk.expect("all eight pods run", not missing, f"missing: {missing}")
    where = walk.type(
        "kubectl get pods -o jsonpath='{range .items[*]}{.spec.nodeName}{\"\\n\"}{end}' | sort | uniq -c"
    )
    walk.expect("they are spread over both nodes", len(where.out.split()) == 4, where.out)
    accounts = walk.type("kubectl get serviceaccounts -o name")
    missing = [a for a in ACCOUNTS if f"serviceaccount/{a}" not in accounts.out.split()]
    walk.expect("each has its service account", not missing, f"missing: {missing}")
    pair = walk.type(
        "kubectl get pods -l 'app in (sleep,productpage)' -o jsonpath='{range .items[*]}{.metadata.labels.app}={.spec.nodeName} {end}'"
    )
    nodes = dict(part.split("=") for part in pair.out.split() if "=" in part)
    walk.expect("sleep and productpage are on different nodes", len(set(nodes.values())) == 2, pair.out)


def step_5(walk: Walk) -> None:
    walk.heading(5, "without the mesh: plaintext from pod to pod")
    sniffed = _capture_on_link(walk)
    page = walk.type("kubectl exec deploy/sleep -- curl -s http://productpage:9080/ | head -n1")
    walk.expect(
        "productpage answers across the nodes", page.out.strip() == "<!DOCTYPE html>", page.out, page.seconds
    )
    captured = sniffed()
    source = walk.type("kubectl get pod -l app=sleep -o jsonpath='{.items[0].status.podIP}'")
    target = walk.type("kubectl get pod -l app=productpage -o jsonpath='{.items[0].status.podIP}'")
    request = (
        f"{source.out.strip()}." in captured
        and f"{target.out.strip()}.9080" in captured
        and "GET / HTTP/1.1" in captured
    )
    walk.expect(
        "the link between the nodes shows readable HTTP from sleep's address to productpage's",
        request,
        captured[-600:],
    )
    full = walk.type(
        "kubectl exec deploy/sleep -- curl -s http://productpage:9080/productpage | grep -o 'reviews-v[123]' | head -n1"
    )
    walk.expect(
        "the page shows which version of reviews served", full.out.strip().startswith("reviews-v"), full.out
    )


def _capture_on_link(walk: Walk) -> Callable[[], str]:
    """Start tcpdump on node-1's link by `kubectl debug node`, and give a function that ends it and says what it saw."""
    command = (
        "kubectl debug node/node-1 -q --image=nicolaka/netshoot --profile=netadmin -- "
        "timeout 20 tcpdump -l -n -A -i eth0 -c 8 tcp port 9080"
    )
    made = walk.type(command)
    walk.expect("tcpdump runs on node-1's link by `kubectl debug node`", made.code == 0, made.out)
    found = walk.type("kubectl get pods -o name | grep node-debugger | tail -n1", show=1).out.strip()
    subprocess.run(
        ["kubectl", "wait", "--for=jsonpath={.status.phase}=Running", found, "--timeout=30s"],
        capture_output=True,
    )

    def started() -> str:
        return subprocess.run(["kubectl", "logs", found], capture_output=True, text=True).stdout

    deadline = time.monotonic() + 20
    while "listening on" not in started() and time.monotonic() < deadline:
        time.sleep(0.2)

    def finish() -> str:
        limit = time.monotonic() + 25
        while "GET / HTTP/1.1" not in (seen := started()) and time.monotonic() < limit:
            time.sleep(0.2)
        walk.type(f"kubectl logs {found} | grep -a -E 'IP |GET ' | head -n 6", show=6)
        walk.type(f"kubectl delete {found} --now", show=1)
        return seen

    return finish


def step_14(walk: Walk) -> None:
    walk.heading(14, "clean up")
    for manifest in ("sleep/notsleep.yaml", "sleep/sleep.yaml", "bookinfo/platform/kube/bookinfo.yaml"):
        gone = walk.type(f"kubectl delete -f samples/{manifest} --timeout=60s", show=2)
        walk.expect(f"{manifest} is deleted", gone.code == 0, gone.out, gone.seconds)
    down = walk.type(f"pervade down --purge{_named(walk)}", timeout=180)
    walk.expect("`pervade down --purge` ends well", down.code == 0, down.out, down.seconds)
    from pervade.testing import snapshot

    before = walk.notes["before"]
    assert isinstance(before, snapshot.Snapshot)
    left = before.difference(snapshot.take(of=walk.name))
    walk.expect(
        "no process, interface, namespace, route, nft table, mount, cgroup or file of ours is left",
        not left,
        "\n".join(f"{part}: gone {gone}, new {new}" for part, (gone, new) in left.items()),
    )


STEPS = (step_1, step_2, step_5)


def _named(walk: Walk) -> str:
    return "" if walk.name == "pervade" else f" --name {walk.name}"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--keep", action="store_true", help="leave the cluster up at the end")
    parser.add_argument("--step", action="store_true", help="wait for Enter after each step")
    parser.add_argument("--name", default="pervade", help="name of the cluster (default: pervade)")
    options = parser.parse_args()
    bin_dir = Path(os.environ.get("PERVADE_CACHE", "/var/cache/pervade")) / "bin"
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}:{bin_dir}"
    if not shutil.which("kubectl"):
        print("no kubectl on PATH; `make kubectl` builds one", file=sys.stderr)
        return 2
    from pervade.testing import snapshot

    # kubectl's cache of discovery answers is not the cluster's: it goes with this run.
    cache = tempfile.TemporaryDirectory(prefix="pervade-walk-")
    os.environ["KUBECACHEDIR"] = cache.name
    walk = Walk(
        options.name, sys.stdout.isatty() and "NO_COLOR" not in os.environ, options.step, options.keep
    )
    walk.notes["before"] = snapshot.take(of=walk.name)
    begin = time.monotonic()
    try:
        for step in STEPS:
            step(walk)
            walk.wait()
    except NoCluster:
        print("\nWithout a cluster the other steps show nothing.")
    finally:
        if options.keep:
            print("\nThe cluster stays. `pervade down --purge` removes it.")
        else:
            step_14(walk)
    print(f"\n{walk.held} held, {len(walk.failed)} failed, {time.monotonic() - begin:.0f} s")
    for what in walk.failed:
        print(f"  {walk.paint(RED, '✘')} {what}")
    return 1 if walk.failed else 0


if __name__ == "__main__":
    sys.exit(main())
