"""Tokens of service accounts: minted for an audience and a pod or node, checked against what still exists.

JWT (RFC 7519), RS256, claims as Kubernetes has them (`kubernetes.io`: namespace, serviceaccount, pod,
node). A token dies with its service account, pod or node, also when one of the same name comes back.
"""

from __future__ import annotations

import base64
import hashlib
import time
import uuid
from collections import OrderedDict
from datetime import UTC, datetime

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from pervade.cluster.apiserver.auth.user import AUTHENTICATED, User
from pervade.cluster.apiserver.kinds.kind import JSON
from pervade.cluster.apiserver.rest import present
from pervade.cluster.apiserver.store.state import State
from pervade.wire.http import web

_KEPT = 4096
_NOT_A_TOKEN = (
    jwt.PyJWTError,
    msgspec.MsgspecError,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    OverflowError,
    RecursionError,
)
"""What the library raises for one odd header or claim or another; all of it means that this is no token of ours."""
_PREFIX = "system:serviceaccount:"
_EXTRA = "authentication.kubernetes.io/"
_DELETED_GRACE = 60.0
"""Seconds that a deleted pod's token lives on, for its clean shutdown."""


class Bound(msgspec.Struct):
    """An object that a token is bound to."""

    name: str
    uid: str


class About(msgspec.Struct):
    """The private claims, `kubernetes.io`."""

    namespace: str
    serviceaccount: Bound
    pod: Bound | None = None
    node: Bound | None = None


class Claims(msgspec.Struct):
    """A token's claims with their types, so that nothing later can meet another one."""

    sub: str
    aud: str | list[str]
    exp: float
    about: About = msgspec.field(name="kubernetes.io")
    nbf: float = 0.0
    jti: str = ""


class TokenError(Exception):
    """The credential is not good; the text is for the log, not for the caller."""


class Tokens:
    """Mints and checks. `issuer` is also the audience of the API server itself."""

    def __init__(self, state: State, key: bytes, issuer: str) -> None:
        self.state, self.issuer = state, issuer
        loaded = load_pem_private_key(key, password=None)
        if not isinstance(loaded, RSAPrivateKey):
            raise ValueError("the service-account key must be RSA")
        self._key = loaded
        self._public: RSAPublicKey = loaded.public_key()
        der = self._public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self.kid = _b64(hashlib.sha256(der).digest())
        self._known: OrderedDict[str, Claims] = OrderedDict()

    def mint(
        self, account: JSON, audiences: list[str], seconds: int, *, pod: JSON | None, node: JSON | None
    ) -> tuple[str, float]:
        """A token and when it ends (Unix time)."""
        now = int(time.time())
        meta = account["metadata"]
        about: JSON = {
            "namespace": meta["namespace"],
            "serviceaccount": {"name": meta["name"], "uid": meta["uid"]},
        }
        for name, obj in (("pod", pod), ("node", node)):
            if obj is not None:
                about[name] = {"name": obj["metadata"]["name"], "uid": obj["metadata"]["uid"]}
        claims = {
            "aud": audiences,
            "exp": now + seconds,
            "iat": now,
            "nbf": now,
            "iss": self.issuer,
            "jti": str(uuid.uuid4()),
            "kubernetes.io": about,
            "sub": f"{_PREFIX}{meta['namespace']}:{meta['name']}",
        }
        return jwt.encode(claims, self._key, algorithm="RS256", headers={"kid": self.kid}), now + seconds

    def check(self, token: str, audiences: list[str] | None = None) -> tuple[User, list[str]]:
        """Whose token it is, and for which of `audiences` (default: the API server's) it is good.

        Raises TokenError. The signature is checked once per token, what it is bound to every time: O(1).
        """
        claims = self._claims(token)
        now = time.time()
        # Asked this way round, a time that is no number is refused too.
        if not claims.exp > now:
            raise TokenError("expired")
        if not claims.nbf <= now + 5:
            raise TokenError("not yet valid")
        given = [claims.aud] if isinstance(claims.aud, str) else claims.aud
        good = [a for a in (audiences or [self.issuer]) if a in given]
        if not good:
            raise TokenError("for another audience")
        return self._user(claims), good

    def _claims(self, token: str) -> Claims:
        known = self._known.get(token)
        if known is not None:
            self._known.move_to_end(token)
            return known
        try:
            decoded = jwt.decode(
                token,
                self._public,
                algorithms=["RS256"],
                issuer=self.issuer,
                options={"verify_aud": False, "verify_exp": False, "verify_nbf": False, "verify_iat": False},
            )
            claims = msgspec.convert(decoded, Claims)
        except _NOT_A_TOKEN as error:
            raise TokenError(str(error)) from None
        self._known[token] = claims
        while len(self._known) > _KEPT:
            self._known.popitem(last=False)
        return claims

    def _user(self, claims: Claims) -> User:
        about = claims.about
        namespace, account = about.namespace, about.serviceaccount
        if claims.sub != f"{_PREFIX}{namespace}:{account.name}":
            raise TokenError("the subject is not the service account")
        self._alive("/serviceaccounts", namespace, account)
        extra: dict[str, tuple[str, ...]] = {}
        if claims.jti:
            extra[f"{_EXTRA}credential-id"] = (f"JTI={claims.jti}",)
        pod, node = about.pod, about.node
        if pod is not None:
            self._alive("/pods", namespace, pod)
            extra |= {f"{_EXTRA}pod-name": (pod.name,), f"{_EXTRA}pod-uid": (pod.uid,)}
        if node is not None:
            if pod is None:
                self._alive("/nodes", "", node)
            extra |= {f"{_EXTRA}node-name": (node.name,), f"{_EXTRA}node-uid": (node.uid,)}
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", AUTHENTICATED)
        return User(claims.sub, account.uid, groups, extra)

    def _alive(self, table: str, namespace: str, wanted: Bound) -> None:
        entry = self.state.get(table, namespace, wanted.name)
        if entry is None:
            raise TokenError(f"bound to a {table} that is gone")
        meta = present.parse(entry.value)["metadata"]
        if meta["uid"] != wanted.uid:
            raise TokenError(f"bound to an earlier {table} of that name")
        deleted = meta.get("deletionTimestamp")
        if deleted and time.time() > datetime.fromisoformat(deleted).timestamp() + _DELETED_GRACE:
            raise TokenError(f"bound to a {table} that is being deleted")

    def key_set(self) -> JSON:
        """The public key as a JSON Web Key Set (RFC 7517)."""
        numbers = self._public.public_numbers()
        key = {"use": "sig", "kty": "RSA", "kid": self.kid, "alg": "RS256"}
        return {"keys": [key | {"n": _b64(_bytes(numbers.n)), "e": _b64(_bytes(numbers.e))}]}

    async def page(self, http: web.BaseRequest) -> web.StreamResponse:
        """`/.well-known/openid-configuration` and `/openid/v1/jwks`, for who checks tokens without asking us."""
        if http.path.rstrip("/") == "/.well-known/openid-configuration":
            return web.json_response(self.configuration(http.host))
        if http.path.rstrip("/") == "/openid/v1/jwks":
            return web.json_response(self.key_set(), content_type="application/jwk-set+json")
        return web.Response(status=404, text="404 page not found\n")

    def configuration(self, server: str) -> JSON:
        """OpenID Connect discovery of the issuer."""
        return {
            "issuer": self.issuer,
            "jwks_uri": f"https://{server}/openid/v1/jwks",
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
        }


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _bytes(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8)


def moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
