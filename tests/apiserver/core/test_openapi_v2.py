"""`kubectl apply` of a `v1 List`, which kubectl checks itself against the OpenAPI v2 document."""

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pervade.testing.cluster import CACHE

CLIENTS = ("kubectl-1.32", "kubectl-1.36")


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize(
    ("data", "code", "said"),
    [
        ({"a": "1"}, 0, "configmap/listed created"),
        ("wrong", 1, "invalid type for io.k8s.api.core.v1.ConfigMap.data"),
    ],
)
async def test_a_list_is_checked_and_applied(
    apiserver: Any, tmp_path: Path, client: str, data: Any, code: int, said: str
) -> None:
    if not (CACHE / "bin" / client).exists():
        pytest.skip(f"{client} is not built: make kubectl")
    file = tmp_path / "list.json"
    one = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "listed"}, "data": data}
    file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": [one]}))
    done = await asyncio.create_subprocess_exec(
        CACHE / "bin" / client, "-s", apiserver.url, f"--cache-dir={tmp_path}", "apply", "-f", file,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    out, _ = await done.communicate()
    assert (done.returncode, said in out.decode()) == (code, True), out.decode()
