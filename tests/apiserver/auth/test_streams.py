"""exec, attach and port-forward: who may, and what the kubelet gets to see of the caller's request."""

from __future__ import annotations

import socket
import ssl
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pervade.cluster.apiserver.streams.kubelet import forwarded
from pervade.testing.guarded import Guarded

RBAC = "/apis/rbac.authorization.k8s.io/v1"
SECRET = "dG9rZW4"


class Kubelet:
    """Answers every upgrade with 101 and what it was sent, then with what it is sent."""

    def __init__(self) -> None:
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.heads: list[bytes] = []
        self.users: list[str] = []

    def serve(self, pki: Path) -> None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(pki / "ca.crt"))
        context.load_cert_chain(pki / "kubelet-node-1.crt", pki / "kubelet-node-1.key")
        context.verify_mode = ssl.CERT_REQUIRED
        threading.Thread(target=self._serve, args=(context,), daemon=True).start()

    def _serve(self, context: ssl.SSLContext) -> None:
        while True:
            try:
                accepted, _ = self.listening.accept()
            except OSError:
                return
            with context.wrap_socket(accepted, server_side=True) as tls:
                head = b""
                while b"\r\n\r\n" not in head:
                    head += tls.recv(4096)
                self.heads.append(head)
                self.users.append(str(tls.getpeercert()))
                tls.sendall(
                    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n"
                )
                tls.sendall(b"echo:" + tls.recv(4096))


@pytest.fixture(scope="module")
def kubelet() -> Iterator[Kubelet]:
    made = Kubelet()
    yield made
    made.listening.close()


@pytest.fixture(scope="module")
def server(kubelet: Kubelet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    made = Guarded(tmp_path_factory.mktemp("streams"), kubelet_port=kubelet.listening.getsockname()[1])
    kubelet.serve(made.pki)
    spec = {"nodeName": "node-1", "containers": [{"name": "c", "image": "i"}]}
    account = {"metadata": {"name": "default"}}
    assert made.call("admin", "POST", "/api/v1/namespaces/default/serviceaccounts", account).status == 201
    pod = made.call(
        "admin", "POST", "/api/v1/namespaces/default/pods", {"metadata": {"name": "web"}, "spec": spec}
    )
    assert pod.status == 201, pod.body
    yield made
    made.stop()
    assert "Traceback" not in made.log.read_text()


def upgrade(server: Guarded, method: str, path: str, *headers: str) -> tuple[bytes, ssl.SSLSocket]:
    """The head of the answer, and the connection."""
    connection = server.connect("admin")
    lines = [
        f"{method} /api/v1/namespaces/default/pods/web/{path} HTTP/1.1",
        "Host: x",
        "Connection: Upgrade",
        "Upgrade: SPDY/3.1",
        *headers,
    ]
    connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
    connection.settimeout(20)
    head = b""
    while b"\r\n\r\n" not in head:
        head += connection.recv(4096)
    return head, connection


def user_with(server: Guarded, *verbs: str) -> str:
    """A user who has `verbs` on the streams of pods."""
    name, group = f"u-{uuid.uuid4().hex[:8]}", "rbac.authorization.k8s.io"
    parts = ["pods/exec", "pods/attach", "pods/portforward"]
    rules = [{"apiGroups": [""], "resources": parts, "verbs": list(verbs)}]
    role = {"metadata": {"name": name}, "rules": rules}
    assert server.call("admin", "POST", f"{RBAC}/namespaces/default/roles", role).status == 201
    binding: Any = {
        "metadata": {"name": name},
        "roleRef": {"apiGroup": group, "kind": "Role", "name": name},
        "subjects": [{"apiGroup": group, "kind": "User", "name": name}],
    }
    assert server.call("admin", "POST", f"{RBAC}/namespaces/default/rolebindings", binding).status == 201
    return name


@pytest.mark.parametrize("path", ["exec?command=sh", "attach?stdout=1", "portforward?ports=80"])
def test_a_stream_takes_the_verb_create_by_either_method(server: Guarded, path: str) -> None:
    reader, writer = user_with(server, "get"), user_with(server, "create")
    for method in ("GET", "POST"):
        refused, connection = upgrade(
            server, method, path, f"Impersonate-User: {reader}", "Connection: close"
        )
        rest = b""
        while more := connection.recv(4096):
            rest += more
        connection.close()
        assert refused.startswith(b"HTTP/1.1 403"), (method, refused)
        assert method == "POST" or b"a stream needs the verb create" in refused + rest, rest
        allowed, connection = upgrade(server, method, path, f"Impersonate-User: {writer}")
        connection.sendall(b"hello")
        assert allowed.startswith(b"HTTP/1.1 101"), (method, allowed)
        assert connection.recv(100) == b"echo:hello"
        connection.close()


def test_nothing_of_the_callers_credentials_reaches_the_kubelet(server: Guarded, kubelet: Kubelet) -> None:
    sent = [
        f"Authorization: Bearer {SECRET}",
        f"Cookie: session={SECRET}",
        f"Proxy-Authorization: Basic {SECRET}",
        "Impersonate-User: system:admin",
        "Impersonate-Group: system:masters",
        f"X-Remote-User: {SECRET}",
        f"Sec-WebSocket-Protocol: base64url.bearer.authorization.k8s.io.{SECRET}, v5.channel.k8s.io",
        "Sec-WebSocket-Version: 13",
        "X-Stream-Protocol-Version: v4.channel.k8s.io",
    ]
    before = len(kubelet.heads)
    head, connection = upgrade(server, "POST", "exec?command=sh&command=-c", *sent)
    connection.sendall(b"x")
    assert head.startswith(b"HTTP/1.1 101"), head
    connection.close()
    (seen,) = [h.decode() for h in kubelet.heads[before:]]
    assert SECRET not in seen and "impersonate" not in seen.lower() and "x-remote" not in seen.lower()
    assert seen.startswith("POST /exec/default/web/c?command=sh&command=-c HTTP/1.1\r\n")
    for kept in ("Upgrade: SPDY/3.1", "Sec-WebSocket-Protocol: v5.channel.k8s.io", "Sec-WebSocket-Version: 13", "X-Stream-Protocol-Version: v4.channel.k8s.io"):  # fmt: skip
        assert kept in seen
    assert "kube-apiserver-kubelet-client" in kubelet.users[-1]


def test_a_protocol_header_that_is_only_a_token_is_left_out() -> None:
    only = f"base64url.bearer.authorization.k8s.io.{SECRET}"
    assert list(forwarded([("Sec-WebSocket-Protocol", only), ("Upgrade", "websocket")])) == [
        ("Upgrade", "websocket")
    ]


def test_a_pod_of_no_node_and_a_request_without_upgrade_are_refused(server: Guarded) -> None:
    pods = "/api/v1/namespaces/default/pods"
    body = {"metadata": {"name": "pending"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    assert server.call("admin", "POST", pods, body).status == 201
    for path in (
        "web/exec?command=sh",
        "web/attach",
        "web/portforward",
        "pending/log",
        "web/log?tailLines=x",
        "web/log?container=none",
    ):
        refused = server.call("admin", "GET", f"{pods}/{path}")
        assert (refused.status, refused.body["kind"]) == (400, "Status"), (path, refused)
