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
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from pervade.cluster.apiserver.auth.user import AUTHENTICATED, User
from pervade.cluster.apiserver.kinds.kind import JSON
from pervade.cluster.apiserver.rest import present
from pervade.cluster.apiserver.store.state import State

_KEPT = 4096
_PREFIX = "system:serviceaccount:"
_EXTRA = "authentication.kubernetes.io/"
_DELETED_GRACE = 60.0
"""Seconds that a deleted pod's token lives on, for its clean shutdown."""


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
        self._known: OrderedDict[str, JSON] = OrderedDict()

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
        if not isinstance(claims.get("exp"), int | float) or claims["exp"] <= now:
            raise TokenError("expired")
        if float(claims.get("nbf", 0)) > now + 5:
            raise TokenError("not yet valid")
        given = claims.get("aud")
        good = [
            a for a in (audiences or [self.issuer]) if a in (given if isinstance(given, list) else [given])
        ]
        if not good:
            raise TokenError("for another audience")
        return self._user(claims), good

    def _claims(self, token: str) -> JSON:
        known = self._known.get(token)
        if known is not None:
            self._known.move_to_end(token)
            return known
        try:
            claims: JSON = jwt.decode(
                token,
                self._public,
                algorithms=["RS256"],
                issuer=self.issuer,
                options={"verify_aud": False, "verify_exp": False, "verify_nbf": False, "verify_iat": False},
            )
        except (jwt.PyJWTError, ValueError, RecursionError) as error:
            raise TokenError(str(error)) from None
        self._known[token] = claims
        while len(self._known) > _KEPT:
            self._known.popitem(last=False)
        return claims

    def _user(self, claims: JSON) -> User:
        about = claims.get("kubernetes.io") or {}
        namespace = str(about.get("namespace") or "")
        account = about.get("serviceaccount") or {}
        name = str(account.get("name") or "")
        if claims.get("sub") != f"{_PREFIX}{namespace}:{name}":
            raise TokenError("the subject is not the service account")
        self._alive("/serviceaccounts", namespace, account)
        extra: dict[str, tuple[str, ...]] = {f"{_EXTRA}credential-id": (f"JTI={claims.get('jti')}",)}
        pod, node = about.get("pod"), about.get("node")
        if pod:
            self._alive("/pods", namespace, pod)
            extra |= {f"{_EXTRA}pod-name": (pod["name"],), f"{_EXTRA}pod-uid": (pod["uid"],)}
        if node:
            if not pod:
                self._alive("/nodes", "", node)
            extra |= {f"{_EXTRA}node-name": (node["name"],), f"{_EXTRA}node-uid": (node.get("uid", ""),)}
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", AUTHENTICATED)
        return User(f"{_PREFIX}{namespace}:{name}", str(account.get("uid", "")), groups, extra)

    def _alive(self, table: str, namespace: str, wanted: JSON) -> None:
        entry = self.state.get(table, namespace, str(wanted.get("name") or ""))
        if entry is None:
            raise TokenError(f"bound to a {table} that is gone")
        meta = present.parse(entry.value)["metadata"]
        if meta["uid"] != wanted.get("uid"):
            raise TokenError(f"bound to an earlier {table} of that name")
        deleted = meta.get("deletionTimestamp")
        if deleted and time.time() > datetime.fromisoformat(deleted).timestamp() + _DELETED_GRACE:
            raise TokenError(f"bound to a {table} that is being deleted")

    def key_set(self) -> JSON:
        """The public key as a JSON Web Key Set (RFC 7517)."""
        numbers = self._public.public_numbers()
        key = {"use": "sig", "kty": "RSA", "kid": self.kid, "alg": "RS256"}
        return {"keys": [key | {"n": _b64(_bytes(numbers.n)), "e": _b64(_bytes(numbers.e))}]}

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
