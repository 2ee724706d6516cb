"""Composition root of the API server: store → registry → verbs → HTTP."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import logging
import signal
import sys
from pathlib import Path
from typing import Any

from pervade.base import log as logs
from pervade.cluster.apiserver.kinds.registry import Registry
from pervade.cluster.apiserver.rest import patching
from pervade.cluster.apiserver.rest.context import Api, Request
from pervade.cluster.apiserver.rest.server import Server
from pervade.cluster.apiserver.rest.status import StatusError
from pervade.cluster.apiserver.store.state import State
from pervade.cluster.plan import KUBERNETES_VERSION
from pervade.wire.http import web

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Everyone:
    """The caller in the insecure development mode: an administrator."""

    name: str = "system:admin"
    uid: str = ""
    groups: tuple[str, ...] = ("system:masters", "system:authenticated")
    extra: Any = dataclasses.field(default_factory=dict)


def version() -> dict[str, str]:
    """What `/version` says: the level of the API, and in its build metadata whose server this is."""
    major, minor = KUBERNETES_VERSION.removeprefix("v").split(".")[:2]
    return {
        "major": major,
        "minor": minor,
        "gitVersion": f"{KUBERNETES_VERSION}+pervade",
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": f"cpython-{sys.version_info.major}.{sys.version_info.minor}",
        "platform": "linux/amd64",
    }


async def _no_apply(_request: Request, _obj: dict[str, Any]) -> dict[str, Any]:
    raise StatusError(415, "server-side apply is not served")


def _no_json_patch(_old: dict[str, Any], _patch: Any) -> dict[str, Any]:
    raise StatusError(415, "JSON patch is not served")


async def main(options: argparse.Namespace) -> None:
    state = State(options.state_dir / "apiserver" / "store.db")
    state.open()
    registry = Registry()
    api = Api(
        state,
        registry,
        json_patch=_no_json_patch,
        strategic_patch=lambda _kind, old, change: patching.merge(old, change),
        apply=_no_apply,
    )
    await bootstrap(state)
    server = Server(
        api, authenticate=lambda _http: Everyone(), authorize=lambda _user, _info: None, version=version()
    )
    runner = web.AppRunner(
        server.application(), access_log=None, handler_cancellation=True, shutdown_timeout=2.0
    )
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", options.insecure_port).start()
    log.info("serving", extra={"port": options.insecure_port, "objects": state.head})
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
    await runner.cleanup()
    state.close()


async def bootstrap(state: State) -> None:
    """The namespaces every cluster has."""
    from pervade.cluster.apiserver.rest.write import now

    for name in ("default", "kube-system", "kube-public", "kube-node-lease"):
        if state.get("/namespaces", "", name) is None:
            meta = {
                "name": name,
                "uid": f"00000000-0000-0000-0000-{abs(hash(name)) % 10**12:012d}",
                "creationTimestamp": now(),
            }
            meta_labels = {"labels": {"kubernetes.io/metadata.name": name}}
            body = {"apiVersion": "v1", "kind": "Namespace", "metadata": meta | meta_labels}
            await state.write(
                "/namespaces",
                "",
                name,
                body | {"spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}},
            )


if __name__ == "__main__":
    logs.set_up()
    parser = argparse.ArgumentParser(prog="pervade-apiserver", description="A server of the Kubernetes API.")
    parser.add_argument("--state-dir", type=Path, required=True)
    parser.add_argument(
        "--insecure-port",
        type=int,
        required=True,
        help="plain HTTP on loopback; every caller is an administrator",
    )
    asyncio.run(main(parser.parse_args()))
