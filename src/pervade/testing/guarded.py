"""An API server as a process of its own, with TLS, its own certificates, tokens and roles: `Guarded`.

Run as a module it is that process; it prints its port and serves until its standard input ends, so that it
ends with the tests also when they are killed.
"""

from __future__ import annotations

import asyncio
import http.client
import logging
import re
import socket
import ssl
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import msgspec

JSON = dict[str, Any]
NODES = {"node-1": "127.0.0.1", "node-2": "127.0.0.1"}
_STARTS_WITHIN = 60


class Answer(NamedTuple):
    """Status, headers (names in lower case) and the decoded body (text when it is no JSON)."""

    status: int
    headers: dict[str, str]
    body: Any


class Guarded:
    """A running server. `who` in its calls is the name of a certificate, "" for nobody, or "Bearer …"."""

    def __init__(self, folder: Path, *, silent_seconds: float = 30.0, kubelet_port: int = 0) -> None:
        from pervade.cluster.apiserver.auth.pki import ensure_pki

        self.folder, self.pki, self.log = folder, folder / "pki", folder / "apiserver.log"
        ensure_pki(self.pki, api_addresses=[], nodes=NODES, cluster_domain="cluster.local")
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._connections: dict[str, http.client.HTTPSConnection] = {}
        self._lock = threading.Lock()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", __name__, folder, str(silent_seconds), str(kubelet_port)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line.strip().isdigit():
            raise RuntimeError(f"the API server did not start: {self.log.read_text()[-2000:]}")
        self.port = int(line)

    def stop(self) -> None:
        """End the process; its log stays."""
        assert self.process.stdin is not None and self.process.stdout is not None
        for connection in self._connections.values():
            connection.close()
        self.process.stdin.close()
        self.process.wait(_STARTS_WITHIN)
        self.process.stdout.close()

    def context(self, who: str) -> ssl.SSLContext:
        """TLS as the holder of a certificate, or as nobody."""
        name = "" if " " in who else who
        if name not in self._contexts:
            made = ssl.create_default_context(cafile=str(self.pki / "ca.crt"))
            if name:
                made.load_cert_chain(self.pki / f"{name}.crt", self.pki / f"{name}.key")
            self._contexts[name] = made
        return self._contexts[name]

    def connect(self, who: str = "") -> ssl.SSLSocket:
        """A connection that has said nothing yet."""
        raw = socket.create_connection(("127.0.0.1", self.port), 30)
        return self.context(who).wrap_socket(raw, server_hostname="127.0.0.1")

    def call(
        self, who: str, method: str, path: str, body: Any = None, *, content_type: str = "", **headers: str
    ) -> Answer:
        """One request; `body` is encoded unless it is bytes, `_` in header names is `-`. Connections are kept."""
        data = body if body is None or isinstance(body, bytes) else msgspec.json.encode(body)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if data is not None:
            sent["Content-Type"] = content_type or "application/json"
        if " " in who:
            sent["Authorization"] = who
        name = "" if " " in who else who
        with self._lock:
            if name not in self._connections:
                self._connections[name] = http.client.HTTPSConnection(
                    "127.0.0.1", self.port, timeout=60, context=self.context(name)
                )
            connection = self._connections[name]
            kept = connection.sock is not None
            try:
                return self._asked(connection, method, path, data, sent)
            except (ConnectionError, http.client.BadStatusLine):
                connection.close()
                if not kept:
                    raise
                # The server closed a connection that was idle for long.
                return self._asked(connection, method, path, data, sent)

    def _asked(
        self,
        connection: http.client.HTTPSConnection,
        method: str,
        path: str,
        data: bytes | None,
        sent: dict[str, str],
    ) -> Answer:
        connection.request(method, path, data, sent)
        response = connection.getresponse()
        raw = response.read()
        found = {k.lower(): v for k, v in response.getheaders()}
        is_json = "json" in found.get("content-type", "") and raw
        return Answer(response.status, found, msgspec.json.decode(raw) if is_json else raw.decode())

    def kubeconfig(self, who: str) -> Path:
        """A kubeconfig for the holder of a certificate."""
        cluster = {
            "server": f"https://127.0.0.1:{self.port}",
            "certificate-authority": str(self.pki / "ca.crt"),
        }
        user = {
            "client-certificate": str(self.pki / f"{who}.crt"),
            "client-key": str(self.pki / f"{who}.key"),
        }
        body = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": "u", "user": user}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        path = self.folder / f"{who}.conf"
        path.write_bytes(msgspec.json.encode(body))
        return path

    def used(self) -> tuple[int, int]:
        """Resident memory in KiB, and open descriptors."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        found = re.search(r"VmRSS:\s+(\d+)", status)
        assert found is not None
        return int(found[1]), sum(1 for _ in Path(f"/proc/{self.process.pid}/fd").iterdir())


async def _main(folder: Path, silent_seconds: float, kubelet_port: int) -> None:
    from pervade.app import apiserver
    from pervade.cluster.apiserver.parts import Settings, assemble
    from pervade.cluster.apiserver.rest import server
    from pervade.cluster.apiserver.streams.kubelet import Kubelets, client_tls
    from pervade.cluster.plan import Plan
    from pervade.wire.http import web

    server.SILENT_SECONDS = silent_seconds
    pki = folder / "pki"
    parts = assemble(Settings(store=folder / "store.db", pki=pki, nodes=NODES))
    kubelets = Kubelets(
        client_tls(pki),
        lambda _address, _port: socket.socket(socket.AF_INET, socket.SOCK_STREAM),
        lambda node: (NODES[node], kubelet_port) if node in NODES else None,
    )
    parts.server.connect = kubelets.table()
    await parts.start()
    runner = web.ServerRunner(parts.server.connections(), handle_signals=False, shutdown_timeout=0.5)
    await runner.setup()
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    context = apiserver.tls(cast(Plan, SimpleNamespace(pki=pki)))
    await web.SockSite(runner, listener, ssl_context=context, backlog=2048).start()
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.buffer.read)
    parts.server.stop()
    await runner.cleanup()
    await parts.stop()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    asyncio.run(_main(Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])))
