"""The container build file says the same as the recipes."""

from __future__ import annotations

import re

from pervade.cluster.images import recipes

TEXT = (recipes.project() / "Containerfile").read_text()
JOINED = re.sub(r"\\\n", " ", re.sub(r"(?m)^\s*#.*\n", "", TEXT))


def _stage(name: str) -> str:
    return re.split(r"(?m)^FROM ", JOINED.partition(f" AS {name}\n")[2])[0]


def _packages(stage: str) -> set[str]:
    found = re.search(r"apt-get install -y --no-install-recommends ([^&]*)&&", _stage(stage))
    assert found is not None
    return set(found[1].split())


def test_the_packages_are_the_same() -> None:
    assert _packages("base") == set(recipes.BASE)
    assert _packages("netshoot") == set(recipes.TOOLS)


def test_the_environment_is_the_same() -> None:
    given = re.findall(r"([A-Z]+)=(\S+)", _stage("base") + _stage("pervade"))
    assert {f"{name}={value}" for name, value in given} == set(recipes._ENV)


def test_it_copies_what_exists_and_uses_the_suite_of_the_recipes() -> None:
    for source in re.findall(r"(?m)^COPY ([a-z]\S*) ", JOINED):
        assert (recipes.project() / source).exists(), source
    assert f"debian:{recipes.SUITE}-slim" in TEXT
    assert (recipes.project() / "samples/echo/src/echo.py").exists()
