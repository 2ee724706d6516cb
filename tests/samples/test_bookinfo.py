"""The bookinfo services as processes on loopback: what users of the published ones rely on."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from pervade.cluster.images import recipes

from .conftest import Service, Start

SRC = "bookinfo/src"
TRACE = {
    "x-request-id": "id-1",
    "x-b3-traceid": "463ac35c9f6413ad48485a3953bb6124",
    "x-b3-spanid": "a2fb4a1d1a96d312",
    "x-b3-sampled": "1",
    "b3": "1-2-3",
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "tracestate": "a=b",
    "end-user": "jason",
}
ENV = {name: dict(text.split("=", 1) for text in env) for name, _, env in recipes.SAMPLES}


def ask(
    port: int, path: str, method: str = "GET", body: bytes | None = None, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    call = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        call.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
        answer = call.getresponse()
        return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
    finally:
        call.close()


def closed_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def where(**ports: int) -> dict[str, str]:
    """The variables that say where services are."""
    found = {}
    for name, port in ports.items():
        found[f"{name.upper()}_HOSTNAME"] = "127.0.0.1"
        found[f"{name.upper()}_SERVICE_PORT"] = str(port)
    return found


class Recorder:
    """An upstream that remembers the headers of each request and answers with `says`."""

    def __init__(self, says: Any, status: int = 200) -> None:
        self.seen: list[dict[str, str]] = []
        outer, data = self, says if isinstance(says, bytes) else json.dumps(says).encode()

        class Requests(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.seen.append({k.lower(): v for k, v in self.headers.items()})
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Requests)
        self.port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()


@pytest.fixture
def recorder() -> Iterator[Callable[..., Recorder]]:
    made: list[Recorder] = []

    def one(says: Any, status: int = 200) -> Recorder:
        made.append(Recorder(says, status))
        return made[-1]

    yield one
    for each in made:
        each.server.shutdown()
        each.server.server_close()


@pytest.fixture(scope="module")
def details(start_shared: Start) -> Service:
    return start_shared(f"{SRC}/details.py", "0")


@pytest.fixture(scope="module")
def ratings(start_shared: Start) -> Service:
    return start_shared(f"{SRC}/ratings.py", "0")


@pytest.mark.parametrize(("version", "colour"), [("v1", None), ("v2", "black"), ("v3", "red")])
def test_the_page_shows_the_version_and_its_stars(
    start: Start, details: Service, ratings: Service, version: str, colour: str | None
) -> None:
    env = {**ENV[f"reviews-{version}"], **where(ratings=ratings.http), "HOSTNAME": f"reviews-{version}-7d9-x"}
    reviews = start(f"{SRC}/reviews.py", "0", **env)
    page = start(f"{SRC}/productpage.py", "0", **where(details=details.http, reviews=reviews.http))
    status, headers, body = ask(page.http, "/productpage")
    text = body.decode()
    assert status == 200 and headers["content-type"] == "text/html; charset=utf-8"
    assert text.splitlines()[0] == "<!DOCTYPE html>"
    assert "<title>Simple Bookstore App</title>" in text
    assert f"reviews-{version}" in text and f"reviews-{version}-7d9-x" in text
    assert (
        "Book Details" in text
        and "123-1234567890" in text
        and "Error" not in text.replace("Comedy of Errors", "")
    )
    if colour is None:
        assert 'class="stars"' not in text
    else:
        assert text.count(f'style="color:{colour}"') == 2
        assert 'aria-label="5 of 5 stars"' in text and 'aria-label="4 of 5 stars"' in text


def test_trace_and_user_follow_a_request_through_all_services(
    start: Start, recorder: Callable[..., Recorder]
) -> None:
    last, facts = recorder({"ratings": {"Reviewer1": 5, "Reviewer2": 4}}), recorder({"type": "paperback"})
    reviews = start(f"{SRC}/reviews.py", "0", **ENV["reviews-v3"], **where(ratings=last.port))
    page = start(f"{SRC}/productpage.py", "0", **where(details=facts.port, reviews=reviews.http))
    sent = {**TRACE, "x-not-forwarded": "1"}
    assert ask(page.http, "/productpage", **sent)[0] == 200
    for seen in (facts.seen[0], last.seen[0]):
        assert {k: seen.get(k) for k in TRACE} == TRACE
        assert "x-not-forwarded" not in seen
    # A user who signed in becomes end-user.
    assert ask(page.http, "/productpage", cookie="user=anna")[0] == 200
    assert facts.seen[1]["end-user"] == last.seen[1]["end-user"] == "anna"


def test_a_user_signs_in_and_out(start: Start, details: Service) -> None:
    page = start(f"{SRC}/productpage.py", "0", **where(details=details.http, reviews=closed_port()))
    status, headers, _ = ask(page.http, "/login", "POST", b"username=ja%3Cson&passwd=x")
    assert (status, headers["location"]) == (302, "/productpage")
    cookie = headers["set-cookie"].partition(";")[0]
    assert cookie == "user=jason"
    text = ask(page.http, "/productpage", cookie=cookie)[2].decode()
    assert ">jason</span>" in text and "/logout" in text
    status, headers, _ = ask(page.http, "/logout", cookie=cookie)
    assert status == 302 and "Max-Age=0" in headers["set-cookie"]
    assert "Sign in" in ask(page.http, "/productpage")[2].decode()
    # What somebody claims in a query is shown as text.
    assert b"<b>x" not in ask(page.http, "/productpage?u=%3Cb%3Ex")[2]


def test_what_is_down_is_said_and_the_rest_is_shown(start: Start, details: Service) -> None:
    reviews = start(f"{SRC}/reviews.py", "0", **ENV["reviews-v2"], **where(ratings=closed_port()))
    page = start(f"{SRC}/productpage.py", "0", **where(details=closed_port(), reviews=reviews.http))
    status, _, body = ask(page.http, "/productpage")
    text = body.decode()
    assert status == 200
    assert "Error fetching product details!" in text
    assert text.count("Ratings service is currently unavailable") == 2 and "slapstick" in text
    page = start(f"{SRC}/productpage.py", "0", **where(details=details.http, reviews=closed_port()))
    text = ask(page.http, "/productpage")[2].decode()
    assert "Error fetching product reviews!" in text
    assert "Sorry, product reviews are currently unavailable for this book." in text and "paperback" in text


@pytest.mark.parametrize(
    ("says", "status"), [(b"no healthy upstream", 503), (b"RBAC: access denied", 403), ({}, 200)]
)
def test_a_proxys_answer_in_the_place_of_a_service_breaks_nothing(
    start: Start, recorder: Callable[..., Recorder], says: Any, status: int
) -> None:
    other = recorder(says, status)
    reviews = start(f"{SRC}/reviews.py", "0", **ENV["reviews-v3"], **where(ratings=other.port))
    page = start(f"{SRC}/productpage.py", "0", **where(details=other.port, reviews=reviews.http))
    status, _, body = ask(page.http, "/productpage")
    assert status == 200 and b"reviews-v3" in body


def test_productpage_answers_in_json_and_counts(start: Start, details: Service, ratings: Service) -> None:
    reviews = start(f"{SRC}/reviews.py", "0", **ENV["reviews-v1"])
    env = where(details=details.http, reviews=reviews.http, ratings=ratings.http)
    page = start(f"{SRC}/productpage.py", "0", **env)
    assert json.loads(ask(page.http, "/api/v1/products")[2])[0]["title"] == "The Comedy of Errors"
    assert json.loads(ask(page.http, "/api/v1/products/0")[2])["ISBN-10"] == "1234567890"
    assert len(json.loads(ask(page.http, "/api/v1/products/0/reviews")[2])["reviews"]) == 2
    assert json.loads(ask(page.http, "/api/v1/products/0/ratings")[2])["ratings"]["Reviewer1"] == 5
    assert ask(page.http, "/api/v1/products/7")[0] == 404
    text = ask(page.http, "/metrics")[2].decode()
    assert 'request_result_total{destination_app="details",response_code="200"} 1\n' in text


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_the_page_is_for_reading(start: Start, method: str) -> None:
    page = start(f"{SRC}/productpage.py", "0")
    status, headers, _ = ask(page.http, "/productpage", method)
    assert (status, headers["allow"]) == (405, "GET, HEAD")


def test_ratings_can_be_given(start: Start) -> None:
    ratings = start(f"{SRC}/ratings.py", "0")
    assert ask(ratings.http, "/ratings/3", "POST", b'{"Reviewer1": 1}')[0] == 200
    assert json.loads(ask(ratings.http, "/ratings/3")[2])["ratings"] == {"Reviewer1": 1}
    for body in (b"", b"[]", b"{", b'{"a": "x"}'):
        assert ask(ratings.http, "/ratings/3", "POST", body)[0] == 400, body
    call = http.client.HTTPConnection("127.0.0.1", ratings.http, timeout=10)
    # As a proxy may pass it on: chunked.
    call.request("POST", "/ratings/4", iter([b'{"Revie', b'wer1": 2}']), encode_chunked=True)
    assert json.loads(call.getresponse().read())["ratings"] == {"Reviewer1": 2}
    call.close()


@pytest.mark.parametrize("name", ["details", "ratings", "reviews"])
@pytest.mark.parametrize(
    ("number", "status"), [("0", 200), ("x", 400), ("%C2%B2", 400), ("9" * 5000, 400), ("-1", 400)]
)
def test_a_product_has_a_number(start_shared: Start, name: str, number: str, status: int) -> None:
    service = start_shared(f"{SRC}/{name}.py", "0")
    assert ask(service.http, f"/{name}/{number}")[0] == status
    assert ask(service.http, "/health")[0] == 200


@pytest.mark.parametrize("length", ["x", "-1", "1e3", "99999999999"])
def test_a_length_that_is_none_gets_400(ratings: Service, length: str) -> None:
    with socket.create_connection(("127.0.0.1", ratings.http), timeout=10) as call:
        call.sendall(f"POST /ratings/0 HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n".encode())
        said = b""
        while piece := call.recv(4096):
            said += piece
    assert said.startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("name", ["details", "ratings", "reviews", "productpage"])
def test_sigterm_ends_a_service_at_once(start: Start, name: str) -> None:
    assert start(f"{SRC}/{name}.py", "0").end() == 0
