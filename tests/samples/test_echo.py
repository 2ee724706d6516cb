"""The echo server over every protocol, as a process on loopback, with clients that are not ours."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import socket
import ssl
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml

from pervade.cluster.images import names, recipes
from pervade.wire.http import ClientSession

from .conftest import SAMPLES, Service, Start

KINDS = ("http", "https", "grpc", "tcp", "server-first", "udp")
POD = {"POD_NAME": "echo-1", "POD_IP": "10.9.8.7", "POD_NAMESPACE": "shop", "NODE_NAME": "node-2"}


@pytest.fixture(scope="module")
def echo(start_shared: Start) -> Service:
    flags = [text for kind in KINDS for text in ("--port", f"{kind}=0")]
    return start_shared("echo/src/echo.py", *flags, **POD)


def curl(*arguments: str) -> bytes:
    argv = ["curl", "-sS", "--noproxy", "*", "--max-time", "20", *arguments]
    return subprocess.run(argv, capture_output=True, check=True).stdout


def test_http1_says_what_it_saw_and_keeps_the_connection(echo: Service) -> None:
    call = http.client.HTTPConnection("127.0.0.1", echo.http, timeout=10)
    call.request("POST", "/a/b?x=1", b"hello", {"X-Marker": "m1", "Host": "shop.example"})
    first = json.loads(call.getresponse().read())
    own = call.sock.getsockname()
    call.request("GET", "/again")
    second = json.loads(call.getresponse().read())
    assert first["protocol"] == "HTTP/1.1" and first["tls"] is None
    assert first["peer"] == f"127.0.0.1:{own[1]}" and first["local"] == f"127.0.0.1:{echo.http}"
    assert (first["method"], first["path"], first["authority"]) == ("POST", "/a/b?x=1", "shop.example")
    assert first["headers"]["x-marker"] == "m1"
    assert first["body"] == {"bytes": 5, "sha256": hashlib.sha256(b"hello").hexdigest(), "text": "hello"}
    assert first["pod"] == {"name": "echo-1", "ip": "10.9.8.7", "namespace": "shop", "node": "node-2"}
    assert second["connection"] == first["connection"] and second["request"] == first["request"] + 1
    call.close()


@pytest.mark.parametrize("version", ["--http1.1", "--http2-prior-knowledge"])
@pytest.mark.parametrize(
    ("query", "status", "size"),
    [("status=503", 503, None), ("size=3000000", 200, 3_000_000), ("status=204", 204, 0), ("size=0", 200, 0)],
)
def test_answers_have_the_status_and_size_that_were_asked_for(
    echo: Service, version: str, query: str, status: int, size: int | None
) -> None:
    said = curl(
        version,
        "-w",
        "%{http_code} %{size_download}",
        "-o",
        "/dev/null",
        f"http://127.0.0.1:{echo.http}/?{query}",
    )
    code, _, length = said.decode().partition(" ")
    assert int(code) == status
    assert int(length) == size if size is not None else int(length) > 100


@pytest.mark.parametrize("version", ["--http1.1", "--http2-prior-knowledge"])
@pytest.mark.parametrize(
    "query", ["status=99", "status=x", "delay=-1", "delay=nan", "size=-1", "size=99999999999"]
)
def test_a_wish_that_cannot_be_granted_is_refused(echo: Service, version: str, query: str) -> None:
    said = curl(version, "-w", "%{http_code}", "-o", "/dev/null", f"http://127.0.0.1:{echo.http}/?{query}")
    assert said == b"400"


def test_a_chunked_body_is_read_whole(echo: Service, tmp_path: Path) -> None:
    data = bytes(range(256)) * 5000
    (tmp_path / "body").write_bytes(data)
    url = f"http://127.0.0.1:{echo.http}/"
    given = ["-X", "PUT", "--data-binary", f"@{tmp_path / 'body'}", "-H", "Expect:"]
    for more in (
        ["-H", "Transfer-Encoding: chunked"],
        ["--http2-prior-knowledge"],
        ["-H", "Expect: 100-continue"],
    ):
        seen = json.loads(curl(*given, *more, url))["body"]
        assert (seen["bytes"], seen["sha256"]) == (len(data), hashlib.sha256(data).hexdigest()), more


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /\r\n\r\n", 400),
        (b"GET / HTTP/3.0\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nA : b\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: +3\r\n\r\nabc", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 70_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n", 400),
    ],
)
def test_a_malformed_request_gets_a_status_and_the_end(echo: Service, sent: bytes, status: int) -> None:
    with socket.create_connection(("127.0.0.1", echo.http), timeout=10) as call:
        call.sendall(sent)
        said = b""
        while piece := call.recv(4096):
            said += piece
    assert said.startswith(f"HTTP/1.1 {status} ".encode())


def test_http2_carries_many_requests_on_one_connection(echo: Service) -> None:
    # Over TLS: Debian's curl cannot send several requests at once with prior knowledge.
    urls = [f"https://localhost:{echo.ports['https']}/{i}?delay=0.2" for i in range(8)]
    said = curl("-k", "--http2", "-Z", *urls).decode()
    seen = [json.loads(text + "}") for text in said.split("\n}\n") if text.strip()]
    assert {s["path"].partition("?")[0] for s in seen} == {f"/{i}" for i in range(8)}
    assert {s["protocol"] for s in seen} == {"HTTP/2"}
    assert len({s["connection"] for s in seen}) == 1


@pytest.mark.parametrize(("alpn", "protocol"), [("h2", "HTTP/2"), ("http/1.1", "HTTP/1.1")])
def test_tls_names_the_version_the_protocol_and_the_name_asked_for(
    echo: Service, alpn: str, protocol: str
) -> None:
    flag = "--http2" if alpn == "h2" else "--http1.1"
    port = echo.ports["https"]
    seen = json.loads(
        curl("-k", flag, "--resolve", f"shop.example:{port}:127.0.0.1", f"https://shop.example:{port}/")
    )
    assert seen["protocol"] == protocol
    assert seen["tls"]["alpn"] == alpn
    assert (seen["tls"]["version"], seen["tls"]["serverName"]) == ("TLSv1.3", "shop.example")


def test_a_tls_client_without_alpn_gets_http1(echo: Service) -> None:
    context = ssl._create_unverified_context()
    call = http.client.HTTPSConnection("127.0.0.1", echo.ports["https"], timeout=10, context=context)
    context.set_alpn_protocols([])
    call.request("GET", "/")
    assert json.loads(call.getresponse().read())["protocol"] == "HTTP/1.1"
    call.close()


def _string(text: str) -> bytes:
    data = text.encode()
    size, out = len(data), b""
    while size > 127:
        out, size = out + bytes([size & 127 | 128]), size >> 7
    return b"\x0a" + out + bytes([size]) + data


def _report(response: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(response[response.index(b"{") :])
    return found


def test_grpc_unary_stream_and_health(echo: Service) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{echo.ports['grpc']}") as channel:
        unary = channel.unary_unary("/pervade.echo.v1.Echo/Unary")
        seen = _report(unary(_string("grüße" * 50), metadata=[("x-marker", "m2")], timeout=10))
        assert seen["protocol"] == "gRPC" and seen["path"] == "/pervade.echo.v1.Echo/Unary"
        assert seen["message"] == "grüße" * 50 and seen["headers"]["x-marker"] == "m2"
        stream = channel.stream_stream("/pervade.echo.v1.Echo/Stream")
        texts = [f"m{i}" for i in range(20)]
        assert [_report(r)["message"] for r in stream(map(_string, texts), timeout=10)] == texts
        health = channel.unary_unary("/grpc.health.v1.Health/Check")
        assert health(b"", timeout=10) == b"\x08\x01"
        watch = channel.unary_stream("/grpc.health.v1.Health/Watch")(b"", timeout=10)
        assert next(watch) == b"\x08\x01"
        watch.cancel()


def test_grpc_carries_more_than_the_windows_in_both_directions(echo: Service) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{echo.ports['grpc']}") as channel:
        stream = channel.stream_stream("/pervade.echo.v1.Echo/Stream")
        texts = [str(i) * 50_000 for i in range(10)] * 4
        # JSON escapes nothing of digits: each report holds its whole text.
        assert [_report(r)["message"] for r in stream(map(_string, texts), timeout=30)] == texts


@pytest.mark.parametrize(
    ("method", "message", "code"),
    [
        ("/pervade.echo.v1.Echo/Nothing", b"", grpc.StatusCode.UNIMPLEMENTED),
        ("/pervade.echo.v1.Echo/Unary", b"\x0a\x7f", grpc.StatusCode.INVALID_ARGUMENT),
        ("/pervade.echo.v1.Echo/Unary", b"\xff" * 12, grpc.StatusCode.INVALID_ARGUMENT),
        ("/pervade.echo.v1.Echo/Unary", b"\x0b", grpc.StatusCode.INVALID_ARGUMENT),
        ("/pervade.echo.v1.Echo/Unary", b"x" * (5 << 20), grpc.StatusCode.RESOURCE_EXHAUSTED),
    ],
)
def test_grpc_refusals_have_their_status(
    echo: Service, method: str, message: bytes, code: grpc.StatusCode
) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{echo.ports['grpc']}") as channel:
        with pytest.raises(grpc.RpcError) as refused:
            channel.unary_unary(method)(message, timeout=10)
        assert refused.value.code() == code


async def test_websocket_reports_first_and_gives_frames_back(echo: Service) -> None:
    async with ClientSession() as session, session.ws_connect(f"http://127.0.0.1:{echo.http}/ws") as ws:
        first = json.loads(await ws.receive_str(timeout=10))
        assert first["protocol"] == "WebSocket" and first["path"] == "/ws"
        for size in (0, 125, 126, 65_535, 65_536, 1_000_000):
            await ws.send_bytes(b"z" * size)
            assert await ws.receive_bytes(timeout=10) == b"z" * size
        await ws.send_str("grüße")
        assert await ws.receive_str(timeout=10) == "grüße"
        await ws.ping(b"p")
        await ws.close(code=1000)
        assert ws.close_code == 1000


def test_a_websocket_frame_without_a_mask_ends_with_1002(echo: Service) -> None:
    key = base64.b64encode(b"0123456789abcdef").decode()
    ask = f"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", echo.http), timeout=10) as call:
        call.sendall(ask.encode() + b"\x81\x01a")
        said = b""
        while piece := call.recv(4096):
            said += piece
    assert said.startswith(b"HTTP/1.1 101 ") and b"\x03\xeaa client" in said


def test_tcp_reports_and_gives_every_byte_back_to_the_half_close(echo: Service) -> None:
    data = bytes(range(256)) * 4000
    with socket.create_connection(("127.0.0.1", echo.ports["tcp"]), timeout=10) as call:
        own = call.getsockname()
        said = b""

        def send() -> None:
            call.sendall(data)
            call.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        while piece := call.recv(65_536):
            said += piece
        sender.join()
    head, _, rest = said.partition(b"\n")
    assert json.loads(head)["peer"] == f"127.0.0.1:{own[1]}" and json.loads(head)["protocol"] == "TCP"
    assert rest == data


def test_the_greeting_comes_before_the_client_says_anything(echo: Service) -> None:
    with socket.create_connection(("127.0.0.1", echo.ports["server-first"]), timeout=10) as call:
        file = call.makefile("rb")
        assert json.loads(file.readline())["protocol"] == "TCP server-first"
        call.sendall(b"pong\n")
        assert file.readline() == b"pong\n"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.9"])
def test_udp_answers_from_the_address_it_was_sent_to(echo: Service, host: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as call:
        call.settimeout(10)
        # Connected: the kernel drops an answer from any other address.
        call.connect((host, echo.ports["udp"]))
        call.send(b"ping")
        seen = json.loads(call.recv(65_536))
        assert seen["protocol"] == "UDP" and seen["body"]["text"] == "ping"
        assert seen["peer"] == f"127.0.0.1:{call.getsockname()[1]}"
        assert seen["local"] == f"{host}:{echo.ports['udp']}"


def test_rubbish_after_the_preface_ends_that_connection_only(echo: Service) -> None:
    for sent in (b"PRI rubbish", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 100):
        with socket.create_connection(("127.0.0.1", echo.http), timeout=10) as call:
            call.sendall(sent)
            call.shutdown(socket.SHUT_WR)
            while call.recv(4096):
                continue
    assert (
        json.loads(curl("--http2-prior-knowledge", f"http://127.0.0.1:{echo.http}/"))["protocol"] == "HTTP/2"
    )


def test_sigterm_lets_a_request_end(start: Start) -> None:
    echo = start("echo/src/echo.py", "--port", "http=0", "--port", "tcp=0")
    call = http.client.HTTPConnection("127.0.0.1", echo.http, timeout=10)
    call.request("GET", "/?delay=0.7", headers={"Connection": "close"})
    # It has begun: another connection is answered after it was taken.
    curl(f"http://127.0.0.1:{echo.http}/")
    status: list[int] = []
    ender = threading.Thread(target=lambda: status.append(echo.end()))
    ender.start()
    assert call.getresponse().status == 200
    ender.join()
    assert status == [0]


@pytest.mark.parametrize("flag", ["http", "ftp=1", "http=70000", "http=-1"])
def test_a_port_that_cannot_be_is_refused(flag: str) -> None:
    argv = [sys.executable, str(SAMPLES / "echo/src/echo.py"), "--port", flag]
    done = subprocess.run(["/usr/bin/python3", *argv[1:]], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "KIND=PORT" in done.stderr and "Traceback" not in done.stderr


def test_the_manifest_fits_the_server_and_its_image() -> None:
    objects = {o["kind"]: o for o in yaml.safe_load_all((SAMPLES / "echo/echo.yaml").read_text())}
    pod = objects["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["serviceAccountName"] == objects["ServiceAccount"]["metadata"]["name"]
    assert container["image"] == names.sample("echo")
    assert any(name == "echo" for name, _, _ in recipes.SAMPLES)
    given = {(p["name"], p.get("protocol", "TCP"), p["containerPort"]) for p in container["ports"]}
    source = (SAMPLES / "echo/src/echo.py").read_text()
    listed = {(p, n) for _, p, n in given}
    for kind, port in (
        text.split("=")
        for text in source.partition("DEFAULT = (")[2]
        .partition(")")[0]
        .replace('"', "")
        .replace(",", " ")
        .split()
    ):
        assert ("UDP" if kind == "udp" else "TCP", int(port)) in listed
    assert {p["targetPort"] for p in objects["Service"]["spec"]["ports"]} == {name for name, _, _ in given}
    assert all(len(name) <= 15 for name, _, _ in given)
    assert (
        objects["Service"]["spec"]["selector"].items()
        <= objects["Deployment"]["spec"]["template"]["metadata"]["labels"].items()
    )
