"""Tokens: minted for pods, reviewed, refused. Over TLS, against a process; forged ones are signed here."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from pervade.testing.guarded import Guarded

ISSUER = "https://kubernetes.default.svc"
REVIEWS = "/apis/authentication.k8s.io/v1"
JSON = dict[str, Any]
WHOAMI = f"{REVIEWS}/selfsubjectreviews"


class Home:
    """A namespace with a service account and a pod of it on node-1."""

    def __init__(self, server: Guarded) -> None:
        self.server, self.namespace = server, f"ns-{uuid.uuid4().hex[:8]}"
        self.path = f"/api/v1/namespaces/{self.namespace}"
        self.admin("POST", "/api/v1/namespaces", {"metadata": {"name": self.namespace}})
        self.account = self.admin("POST", f"{self.path}/serviceaccounts", {"metadata": {"name": "robot"}})
        for node in ("node-1", "node-2"):
            made = server.call("admin", "POST", "/api/v1/nodes", {"metadata": {"name": node}})
            assert made.status in (201, 409), made.body
        spec = {
            "serviceAccountName": "robot",
            "nodeName": "node-1",
            "containers": [{"name": "c", "image": "i"}],
        }
        self.pod = self.admin("POST", f"{self.path}/pods", {"metadata": {"name": "web"}, "spec": spec})
        self.node = self.admin("GET", "/api/v1/nodes/node-1")
        # Read once: each reading checks the key's primes.
        self.key: Any = load_pem_private_key((server.pki / "sa.key").read_bytes(), None)

    def admin(self, method: str, path: str, body: Any = None) -> JSON:
        done = self.server.call("admin", method, path, body)
        assert done.status in (200, 201), done.body
        found: JSON = done.body
        return found

    def token(self, **spec: Any) -> str:
        made = self.admin("POST", f"{self.path}/serviceaccounts/robot/token", {"spec": spec})
        return str(made["status"]["token"])

    def bound(self, **more: Any) -> str:
        ref = {"apiVersion": "v1", "kind": "Pod", "name": "web", "uid": self.pod["metadata"]["uid"]}
        return self.token(boundObjectRef=ref, **more)

    def claims(self) -> JSON:
        found: JSON = jwt.decode(self.bound(), options={"verify_signature": False})
        return found

    def ask(self, token: str) -> Any:
        return self.server.call(f"Bearer {token}", "POST", WHOAMI, {})

    def review(self, token: str, audiences: list[str] | None = None) -> JSON:
        spec = {"token": token} | ({"audiences": audiences} if audiences else {})
        found: JSON = self.admin("POST", f"{REVIEWS}/tokenreviews", {"spec": spec})["status"]
        return found


@pytest.fixture
def home(guarded: Guarded) -> Home:
    return Home(guarded)


def test_a_pods_token_says_all_it_is_bound_to(home: Home) -> None:
    found = home.review(home.bound(audiences=["ca", "other"]), ["ca", "none"])
    extra = found["user"].pop("extra")
    credential = extra.pop("authentication.kubernetes.io/credential-id")
    assert credential[0].startswith("JTI=")
    assert found == {
        "authenticated": True,
        "audiences": ["ca"],
        "user": {
            "username": f"system:serviceaccount:{home.namespace}:robot",
            "uid": home.account["metadata"]["uid"],
            "groups": [
                "system:serviceaccounts",
                f"system:serviceaccounts:{home.namespace}",
                "system:authenticated",
            ],
        },
    }
    assert extra == {
        "authentication.kubernetes.io/pod-name": ["web"],
        "authentication.kubernetes.io/pod-uid": [home.pod["metadata"]["uid"]],
        "authentication.kubernetes.io/node-name": ["node-1"],
        "authentication.kubernetes.io/node-uid": [home.node["metadata"]["uid"]],
    }


def test_a_token_for_another_audience_opens_nothing_here(home: Home) -> None:
    token = home.bound(audiences=["ca"])
    assert home.ask(token).status == 401
    refused = home.review(token)
    assert refused["authenticated"] is False and "audience" in refused["error"]


def test_a_token_dies_with_its_pod_and_its_account(home: Home) -> None:
    bound, free = home.bound(), home.token()
    assert home.ask(bound).status == 201 and home.ask(free).status == 201
    home.admin("DELETE", f"{home.path}/pods/web", {"gracePeriodSeconds": 0})
    assert home.ask(bound).status == 401 and home.ask(free).status == 201
    home.admin("DELETE", f"{home.path}/serviceaccounts/robot")
    home.admin("POST", f"{home.path}/serviceaccounts", {"metadata": {"name": "robot"}})
    assert home.ask(free).status == 401


def forged(home: Home) -> dict[str, str]:
    """Tokens that are wrong in one way each; most of them well signed."""
    good = home.claims()
    about, now = good["kubernetes.io"], time.time()

    def signed(key: Any = home.key, algorithm: str = "RS256", headers: Any = None, **change: Any) -> str:
        body = {k: v for k, v in {**good, **change}.items() if v is not ...}
        return jwt.encode(body, key, algorithm=algorithm, headers=headers)

    def raw(**change: Any) -> str:
        """Claims that the library itself would not encode."""
        return jwt.PyJWS().encode(json.dumps({**good, **change}).encode(), home.key, algorithm="RS256")

    def inside(**change: Any) -> str:
        return signed(**{"kubernetes.io": {k: v for k, v in {**about, **change}.items() if v is not ...}})

    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    out = {
        f"kubernetes.io: {v!r}": signed(**{"kubernetes.io": v})
        for v in (..., None, 5, "x", [], ["a"], {}, True)
    }
    for field in ("namespace", "serviceaccount", "pod", "node"):
        wrong: tuple[Any, ...] = (
            5,
            "x" if field != "namespace" else {},
            [],
            [1],
            {"name": 5, "uid": 5},
            {"name": "web"},
        )
        out |= {f"{field}: {v!r}": inside(**{field: v}) for v in wrong}
    for field in ("exp", "nbf"):
        out |= {
            f"{field}: {v!r}": raw(**{field: v})
            for v in (
                "x",
                [],
                {},
                None,
                True,
                float("nan"),
                float("inf") if field == "nbf" else float("-inf"),
                10**400 if field == "nbf" else -(10**400),
            )
        }
    for field in ("aud", "sub", "iss", "jti"):
        out |= {f"{field}: {v!r}": raw(**{field: v}) for v in (5, {}, [1], [None], True)}
    return out | {
        "no exp": signed(exp=...),
        "expired": signed(exp=now - 1),
        "not yet valid": signed(nbf=now + 600),
        "another audience": signed(aud=["ca"]),
        "another issuer": signed(iss="https://elsewhere"),
        "another subject": signed(sub="system:serviceaccount:kube-system:admin"),
        "another pod": inside(pod={"name": "web", "uid": str(uuid.uuid4())}),
        "another account": inside(serviceaccount={"name": "robot", "uid": "x"}),
        "foreign key": signed(other),
        "no algorithm": signed(None, "none"),
        "the public key as a secret": signed(b"x" * 64, "HS256"),
        "odd kid": signed(headers={"kid": "../../etc/passwd"})[:-4],
        "crit": signed(headers={"crit": ["exp"]}),
        "no object": jwt.PyJWS().encode(b"[1]", home.key, algorithm="RS256"),
        "no json": jwt.PyJWS().encode(b"\xff{", home.key, algorithm="RS256"),
        "deep": jwt.PyJWS().encode(b"[" * 3000, home.key, algorithm="RS256"),
        "dots": "..", "empty parts": "a..b", "text": "not a token", "long": "a" * 20_000, "percent": "%00.%00.%00",
    }  # fmt: skip


def test_an_odd_token_is_unauthorised_and_never_an_error(home: Home) -> None:
    assert home.ask(home.bound()).status == 201
    for what, token in forged(home).items():
        if len(token) < 8000:
            refused = home.ask(token)
            assert (refused.status, refused.body.get("reason")) == (401, "Unauthorized"), (what, refused)
        assert home.review(token)["authenticated"] is False, what
    for header in ("Bearer ", "Basic YTpi", "Bearer \xe9.x.y", "Token x", f"Bearer {'a' * 7000}"):
        refused = home.server.call("", "GET", "/version", Authorization=header)
        assert refused.status == 401, (header, refused)
    assert "Traceback" not in home.server.log.read_text()


@pytest.mark.parametrize(
    ("spec", "status"),
    [
        ({"expirationSeconds": 599}, 422),
        ({"expirationSeconds": 1 << 33}, 422),
        ({"expirationSeconds": "600"}, 400),
        ({"expirationSeconds": True}, 400),
        ({"audiences": "ca"}, 400),
        ({"audiences": [1]}, 400),
        ({"boundObjectRef": "x"}, 400),
        ({"boundObjectRef": {"kind": 5}}, 400),
        ({"boundObjectRef": {"kind": "Service", "name": "x"}}, 422),
        ({"boundObjectRef": {"kind": "Pod", "name": "none"}}, 404),
        ({"boundObjectRef": {"kind": "Pod", "name": "web", "uid": "x"}}, 409),
        (None, 201),
        ([], 400),
        ("x", 400),
    ],
)
def test_a_token_request_that_is_wrong(home: Home, spec: Any, status: int) -> None:
    path = f"{home.path}/serviceaccounts/robot/token"
    made = home.server.call("admin", "POST", path, {"spec": spec})
    assert made.status == status, made.body
    assert home.server.call("admin", "POST", path.replace("robot", "none"), {"spec": {}}).status == 404


@pytest.mark.parametrize("review", ["tokenreviews", "selfsubjectreviews", "subjectaccessreviews", "selfsubjectaccessreviews", "selfsubjectrulesreviews"])  # fmt: skip
def test_a_review_with_wrong_types_is_refused(guarded: Guarded, review: str) -> None:
    group = REVIEWS if review in ("tokenreviews", "selfsubjectreviews") else "/apis/authorization.k8s.io/v1"
    for value in (5, "x", [1], {"user": 5}, {"groups": "x", "user": "a"}, {"token": []}, {"token": "x", "audiences": "y"},
                  {"user": "a", "extra": {"k": "v"}}, {"resourceAttributes": 5}, {"user": "a", "resourceAttributes": {"verb": []}},
                  {"user": "a", "nonResourceAttributes": {"path": 5}}, {"namespace": []}):  # fmt: skip
        answer = guarded.call("admin", "POST", f"{group}/{review}", {"spec": value})
        assert answer.status < 500, (value, answer.body)
        assert answer.status != 201 or review.startswith("selfsubject"), (value, answer.body)
    wrong = guarded.call("admin", "POST", f"{group}/{review}", {"kind": "Pod", "apiVersion": "v1"})
    assert wrong.status == 400


def test_others_can_check_tokens_with_the_published_keys(home: Home) -> None:
    token = home.bound(audiences=["ca"])
    found = home.server.call(f"Bearer {home.token()}", "GET", "/.well-known/openid-configuration")
    assert found.status == 200 and found.body["issuer"] == ISSUER
    keys = home.server.call(f"Bearer {home.token()}", "GET", "/openid/v1/jwks")
    assert keys.headers["content-type"].startswith("application/jwk-set+json")
    key = jwt.PyJWK(json.loads(keys.body) if isinstance(keys.body, str) else keys.body["keys"][0])
    assert jwt.decode(token, key.key, algorithms=["RS256"], audience="ca", issuer=ISSUER)["sub"].endswith(
        ":robot"
    )
    assert home.server.call("", "GET", "/openid/v1/jwks").status == 403
