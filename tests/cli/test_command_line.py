"""The command line as a user meets it: help, refusals with their fix, forms of output, no heavy imports."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from pervade.cli.main import VERBS, root
from pervade.cluster import plan as plans


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pervade.cli.main", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_overview_names_every_verb() -> None:
    said = CliRunner().invoke(root, ["--help"])
    assert said.exit_code == 0
    for verb in VERBS:
        assert f"  {verb} " in said.output


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(verb: str) -> None:
    said = CliRunner().invoke(root, [verb, "--help"])
    assert said.exit_code == 0, said.output
    assert "Example" in said.output


def test_help_loads_nothing_heavy() -> None:
    script = (
        "import sys; from pervade.cli.main import root\n"
        "try: root(['--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in ('aiohttp', 'grpc', 'cryptography', 'msgspec', 'yaml', 'rich', 'asyncio') if m in sys.modules])"
    )
    said = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert said.stdout.splitlines()[-1] == "[]"


def test_a_misspelt_verb_gets_a_suggestion() -> None:
    said = CliRunner().invoke(root, ["statsu"])
    assert said.exit_code == 2
    assert "Did you mean 'status'?" in said.output


def test_version_in_every_form() -> None:
    assert json.loads(run("version", "-o", "json").stdout)["kubernetes"] == plans.KUBERNETES_VERSION
    assert yaml.safe_load(run("version", "-o", "yaml").stdout)["kubernetes"] == plans.KUBERNETES_VERSION
    assert plans.KUBERNETES_VERSION in run("version").stdout


def test_a_cluster_that_is_not_there_is_said_with_the_fix(tmp_path: Path) -> None:
    said = run("status", "--name", "nowhere", "--state-dir", str(tmp_path))
    assert said.returncode == 1
    assert "there is no cluster 'nowhere'" in said.stderr
    assert "fix: pervade up --name nowhere" in said.stderr
    assert "Traceback" not in said.stderr


@pytest.mark.parametrize("name", ["../etc", "A", "-a", "a b", "", "x" * 40])
def test_a_name_that_would_leave_its_folder_is_refused(name: str) -> None:
    said = run("down", "--name", name)
    assert said.returncode in (1, 2)
    assert "is not a name" in said.stderr


def test_addresses_of_a_cluster_that_exists_cannot_be_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans.save(plans.make(name="there", state_root=str(tmp_path)))
    monkeypatch.setattr("os.geteuid", lambda: 0)
    said = run("up", "--name", "there", "--state-dir", str(tmp_path), "--pod-cidr", "10.99.0.0/16")
    assert said.returncode == 1
    assert "--pod-cidr cannot be changed" in said.stderr or "needs root" in said.stderr


def test_not_root_is_refused_with_the_command_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    said = CliRunner().invoke(root, ["up"])
    assert said.exit_code == 1
    assert "needs root" in str(said.exception)
    assert "sudo pervade up" in str(said.exception)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str) -> None:
    assert "_PERVADE_COMPLETE" in run("completion", shell).stdout
