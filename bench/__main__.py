"""Measure, print, say where a figure misses its target. Exit status 0 unless something failed to run."""

from __future__ import annotations

import argparse
import json
import os
import secrets
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench import cluster, fanout, lists, machine, walk, writes
from bench.guard import Guard
from bench.row import Row, markdown

PARTS = ("writes", "fanout", "lists", "cluster", "walk")


def told(text: str) -> None:
    """Progress goes to standard error; standard output is the report."""
    print(f"  {text}", file=sys.stderr, flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"some of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--seconds", type=float, default=120.0, help="length of the idle span")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write facts and rows there as JSON")
    chosen = parser.parse_args()
    if unknown := set(chosen.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    return chosen


def main() -> int:
    options = arguments()
    name = f"bench-{secrets.token_hex(3)}"
    kubectl = Path(os.environ.get("PERVADE_CACHE", "/var/cache/pervade")) / "bin" / "kubectl-1.32"
    rows: list[Row] = []
    failed: list[str] = []
    facts = machine.facts()
    with Guard() as guard, tempfile.TemporaryDirectory(prefix="pervade-bench-", dir="/var/tmp") as place:
        folder = Path(place)
        guard.folder(folder)
        work: dict[str, Callable[[], list[Row]]] = {
            "writes": lambda: writes.rows(guard, folder),
            "fanout": lambda: fanout.rows(guard, folder),
            "lists": lambda: lists.rows(guard, folder, kubectl),
            "cluster": lambda: cluster.rows(guard, folder, kubectl, name, options.seconds, told),
            "walk": lambda: walk.rows(guard, folder, f"{name}-walk"),
        }
        for part in options.parts or PARTS:
            told(part)
            try:
                rows += work[part]()
            except Exception as error:  # noqa: BLE001 - one part's failure is reported beside the others' figures
                failed.append(f"{part}: {type(error).__name__}: {error}")
                told(failed[-1])
    print("\n".join(f"{key}: {value}" for key, value in facts.items()), end="\n\n")
    print(markdown(rows))
    for one in failed:
        print(f"\nfailed to run: {one}")
    if options.json:
        found = {"machine": facts, "rows": [r.plain() for r in rows], "failed": failed}
        options.json.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
