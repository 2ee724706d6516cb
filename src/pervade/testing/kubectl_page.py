"""`python -m pervade.testing.kubectl_page > docs/kubectl.md`: the page of what stock kubectl is tried with."""

from __future__ import annotations

import re
from collections.abc import Iterable

from pervade.testing import kubectl_commands, kubectl_objects
from pervade.testing.kubectl_commands import Row

_HEAD = """# kubectl

Stock kubectl 1.32 and 1.36 are run through {count} commands in each run of the tests; exit status and shape of the output are checked.
Those against an API server alone are `src/pervade/testing/kubectl_objects.py` (`pytest -m "not live" tests/kubectl`), those on two real nodes `src/pervade/testing/kubectl_commands.py` (`pytest -m live tests/kubectl`). This page is made of both by `python -m pervade.testing.kubectl_page`.

| command | with | API server alone | real nodes |
|---|---|---|---|
"""
_TWO_WORDS = ("apply", "auth", "config", "create", "rollout", "set")
_LONG = {"cm": "configmap", "deploy": "deployment", "pc": "priorityclass", "pdb": "poddisruptionbudget"}
_LONG |= {"sa": "serviceaccount", "svc": "service"}
_OPTION = re.compile(r"(?<!\S)(-{1,2}[A-Za-z][\w-]*)")


def _verb(row: Row) -> str:
    words = row.command.split()
    two = words[0] in _TWO_WORDS and not words[1].startswith("-")
    return " ".join([words[0], _LONG.get(words[1], words[1])]) if two else words[0]


def _options(row: Row) -> list[str]:
    return _OPTION.findall(row.command.split(" -- ")[0])


def page() -> str:
    """The page; pure, O(rows)."""
    alone, nodes = kubectl_objects.ROWS, kubectl_commands.ROWS
    lines = []
    for verb in sorted({_verb(r) for r in [*alone, *nodes]}):
        here, there = [_of(verb, rows) for rows in (alone, nodes)]
        options = sorted({o for r in [*here, *there] for o in _options(r)})
        shown = " ".join(f"`{o}`" for o in options)
        lines.append(f"| {verb} | {shown} | {len(here) or '–'} | {len(there) or '–'} |")
    # A forward and a watch have stories of their own.
    lines.append("| port-forward | to a Deployment and a Service | – | 2 |")
    return _HEAD.format(count=len(alone) + len(nodes) + 2) + "\n".join(lines) + "\n"


def _of(verb: str, rows: Iterable[Row]) -> list[Row]:
    return [r for r in rows if _verb(r) == verb]


if __name__ == "__main__":
    print(page(), end="")
