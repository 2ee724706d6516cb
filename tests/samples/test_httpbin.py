"""The small httpbin as a process, and the names published manifests start it with."""

from __future__ import annotations

import json

import pytest

from .conftest import SAMPLES, Service, Start
from .test_bookinfo import ask


@pytest.fixture(scope="module")
def httpbin(start_shared: Start) -> Service:
    return start_shared("httpbin/src/httpbin.py", "-port", "0")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/get", 200),
        ("GET", "/post", 405),
        ("POST", "/post", 200),
        ("PUT", "/anything/x", 200),
        ("GET", "/status/418", 418),
        ("GET", "/status/200", 200),
        ("GET", "/status/999", 400),
        ("GET", "/status/x", 400),
        ("GET", "/delay/0.01", 200),
        ("GET", "/delay/nan", 400),
        ("GET", "/redirect/1", 302),
        ("GET", "/bearer", 401),
        ("GET", "/nothing", 404),
        ("GET", "/health", 200),
    ],
)
def test_paths_have_their_status(httpbin: Service, method: str, path: str, status: int) -> None:
    assert ask(httpbin.http, path, method)[0] == status


def test_it_shows_the_request(httpbin: Service) -> None:
    seen = json.loads(ask(httpbin.http, "/anything?a=1", "POST", b'{"b": 2}', X_Marker="m")[2])
    assert (seen["args"], seen["json"], seen["method"], seen["origin"]) == (
        {"a": "1"},
        {"b": 2},
        "POST",
        "127.0.0.1",
    )
    assert json.loads(ask(httpbin.http, "/headers", X_Marker="m")[2])["headers"]["X-Marker"] == "m"
    assert len(ask(httpbin.http, "/bytes/70000")[2]) == 70_000
    assert ask(httpbin.http, "/response-headers?x-a=b")[1]["x-a"] == "b"
    good = ask(httpbin.http, "/basic-auth/u/p", Authorization="Basic dTpw")
    assert good[0] == 200 and ask(httpbin.http, "/basic-auth/u/p")[0] == 401


@pytest.mark.parametrize(
    "flags",
    [
        ("-port", "0", "-max-duration", "600s"),
        ("-b", "0.0.0.0:0", "httpbin:app", "-k", "gevent"),
        ("--bind=[::]:0",),
    ],
)
def test_flags_of_published_manifests(start: Start, flags: tuple[str, ...]) -> None:
    service = start("httpbin/src/httpbin.py", *flags)
    assert ask(service.http, "/ip")[0] == 200
    assert service.end() == 0


@pytest.mark.parametrize("name", ["go-httpbin", "gunicorn"])
def test_the_names_that_manifests_start_are_programs(name: str) -> None:
    file = SAMPLES / "httpbin" / "bin" / name
    assert file.stat().st_mode & 0o111 and "/opt/samples/httpbin/src/httpbin.py" in file.read_text()
