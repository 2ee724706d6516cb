"""Probes and hooks: one try of exec, HTTP, TCP or gRPC, sent from the node's own network namespace.

The socket is made inside the node's namespace, so the packet's source is the node's address, as with a
kubelet that runs there. Sources: Kubernetes "Configure Probes"; gRPC health checking protocol v1.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from typing import Any

from pervade.cluster.kubelet.cri import Cri, CriError
from pervade.host import netns

JSON = dict[str, Any]


class Prober:
    """Tries actions against containers of one node."""

    def __init__(self, cri: Cri, node_netns: str | os.PathLike[str]) -> None:
        self.cri, self.netns = cri, node_netns

    async def attempt(
        self, action: JSON, *, container: str, spec: JSON, address: str, timeout: float
    ) -> tuple[bool, str]:
        """(success, what was seen) of one try of a probe or hook."""
        try:
            async with asyncio.timeout(timeout + (1 if "exec" in action else 0)):
                if "exec" in action:
                    return await self._exec(action["exec"].get("command") or [], container, timeout)
                if "httpGet" in action:
                    return await self._http(action["httpGet"], spec, address, timeout)
                if "tcpSocket" in action:
                    host = action["tcpSocket"].get("host") or address
                    _, writer = await self._connect(host, port_number(action["tcpSocket"]["port"], spec))
                    writer.close()
                    return True, "connected"
                if "grpc" in action:
                    return await self._grpc(action["grpc"], address)
                if "sleep" in action:
                    await asyncio.sleep(float(action["sleep"].get("seconds", 0)))
                    return True, "slept"
        except TimeoutError:
            return False, f"no answer within {timeout:g} s"
        except (
            OSError,
            ValueError,
            IndexError,
            asyncio.IncompleteReadError,
            asyncio.LimitOverrunError,
        ) as error:
            return False, str(error) or type(error).__name__
        return False, f"unknown action {sorted(action)}"

    async def _exec(self, argv: list[str], container: str, timeout: float) -> tuple[bool, str]:
        try:
            found = await self.cri.execute(container, argv, timeout)
        except CriError as error:
            return False, error.text
        said = (found.stdout + found.stderr).decode(errors="replace").strip()[:1024]
        return found.exit_code == 0, said

    async def _connect(
        self, host: str, port: int, context: ssl.SSLContext | None = None
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = netns.inside(self.netns, lambda: socket.socket(family, socket.SOCK_STREAM))
        sock.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(sock, (host, port))
        except BaseException:
            sock.close()
            raise
        return await asyncio.open_connection(sock=sock, ssl=context, server_hostname="" if context else None)

    async def _http(self, get: JSON, spec: JSON, address: str, timeout: float) -> tuple[bool, str]:
        host, port = get.get("host") or address, port_number(get["port"], spec)
        context = None
        if get.get("scheme") == "HTTPS":
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        reader, writer = await self._connect(host, port, context)
        try:
            headers = {"Host": f"[{host}]:{port}" if ":" in host else f"{host}:{port}"}
            headers |= {"User-Agent": "kube-probe/1.33", "Accept": "*/*", "Connection": "close"}
            headers |= {h["name"]: h.get("value", "") for h in get.get("httpHeaders") or ()}
            lines = [
                f"GET {get.get('path') or '/'} HTTP/1.1",
                *(f"{k}: {v}" for k, v in headers.items()),
                "",
                "",
            ]
            writer.write("\r\n".join(lines).encode())
            status = await reader.readuntil(b"\n")
            code = int(status.split()[1])
            return (
                200 <= code < 400,
                f"HTTP probe failed with statuscode: {code}" if not 200 <= code < 400 else f"status {code}",
            )
        finally:
            writer.close()
            with contextlib.suppress(OSError, ssl.SSLError):
                await asyncio.wait_for(writer.wait_closed(), 1)

    async def _grpc(self, check: JSON, address: str) -> tuple[bool, str]:
        from pervade.cluster.kubelet import grpc_health

        reader, writer = await self._connect(address, int(check["port"]))
        try:
            return await grpc_health.check(reader, writer, check.get("service") or "")
        finally:
            writer.close()


def port_number(port: object, spec: JSON) -> int:
    """A port given by number or by the name of a container port; ValueError otherwise."""
    if isinstance(port, int):
        return port
    if str(port).isdigit():
        return int(str(port))
    for one in spec.get("ports") or ():
        if one.get("name") == port:
            return int(one["containerPort"])
    raise ValueError(f"no container port is named {port!r}")


class Counter:
    """Successes and failures in a row against the thresholds of one probe; the state machine without time."""

    def __init__(self, probe: JSON, *, good: bool) -> None:
        self.success, self.failure = (
            int(probe.get("successThreshold", 1)),
            int(probe.get("failureThreshold", 3)),
        )
        self.good, self._row, self._last = good, 0, good

    def add(self, succeeded: bool) -> bool | None:
        """Count one try; the new verdict when it changed (or a failure was confirmed again), else None."""
        self._row = self._row + 1 if succeeded == self._last else 1
        self._last = succeeded
        if self._row < (self.success if succeeded else self.failure):
            return None
        if succeeded and self.good:
            return None
        self.good = succeeded
        return succeeded
