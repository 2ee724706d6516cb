"""Stock kubectl against an API server alone: the rows of `kubectl_objects`, and a watch as a table."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

from pervade.testing import kubectl_objects as objects
from pervade.testing.kubectl import CLIENTS, Client, failures


@pytest.mark.parametrize("name", CLIENTS)
def test_the_table(client_named: Callable[[str], Client], name: str) -> None:
    wrong = failures(client_named(name), objects.ROWS)
    assert not wrong, f"{len(wrong)} of {len(objects.ROWS)} rows:\n" + "\n".join(wrong)


@pytest.mark.parametrize("name", CLIENTS)
def test_a_watch_prints_one_header_and_a_line_for_each_change(
    client_named: Callable[[str], Client], name: str
) -> None:
    client = client_named(name)
    made = f"w{client.namespace}"
    client.run(["create", "configmap", made])
    watch = [client.program, "get", "configmaps", f"--field-selector=metadata.name={made}", "-w"]
    with subprocess.Popen(
        [*watch, "--output-watch-events"], stdout=subprocess.PIPE, text=True, env=client.environment
    ) as child:
        try:
            assert child.stdout is not None
            assert child.stdout.readline().split() == ["EVENT", "NAME", "DATA", "AGE"]
            assert child.stdout.readline().split()[:3] == ["ADDED", made, "0"]
            client.run(["patch", "configmap", made, "--type=merge", "-p", '{"data":{"a":"1"}}'])
            assert child.stdout.readline().split()[:3] == ["MODIFIED", made, "1"]
            client.run(["delete", "configmap", made])
            assert child.stdout.readline().split()[:3] == ["DELETED", made, "1"]
        finally:
            child.terminate()
