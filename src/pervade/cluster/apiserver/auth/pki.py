"""The cluster's certificate authority and the certificates of its processes.

ECDSA P-256 everywhere but for the service-account key, which is RSA-2048 (RS256 is what token verifiers
expect). Files are 0600, written by rename; made when missing, renewed when they end within 30 days, name
other addresses than asked for, or were not issued by the present authority. Source: RFC 5280; the user
and group names of kubeadm's certificates.
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_DAY = datetime.timedelta(days=1)
_CA_LIFE, _LIFE, _RENEW = 3650 * _DAY, 365 * _DAY, 30 * _DAY
_BACKDATE = datetime.timedelta(minutes=5)


@dataclass(frozen=True)
class Holder:
    """Whom a certificate is for: its file, its names as a user, and (for servers) where it answers."""

    file: str
    user: str
    group: str = ""
    names: tuple[str, ...] = ()
    addresses: tuple[str, ...] = field(default=())

    @property
    def serves(self) -> bool:
        return bool(self.names or self.addresses)


def holders(api_addresses: Iterable[str], nodes: Mapping[str, str], cluster_domain: str) -> list[Holder]:
    """Everyone who gets a certificate. Pure; O(nodes)."""
    service = "kubernetes.default.svc"
    names = ("localhost", "kubernetes", "kubernetes.default", service, f"{service}.{cluster_domain}")
    found = [
        Holder("apiserver", "kube-apiserver", "", names, ("127.0.0.1", "::1", *api_addresses)),
        Holder("apiserver-kubelet-client", "kube-apiserver-kubelet-client", "system:masters"),
        Holder("controllers", "system:kube-controller-manager"),
        Holder("admin", "kubernetes-admin", "system:masters"),
    ]
    for name, address in nodes.items():
        found.append(Holder(f"kubelet-{name}", f"system:node:{name}", "system:nodes", (name,), (address,)))
        found.append(Holder(f"services-{name}", "system:kube-proxy"))
    return found


def ensure_pki(
    pki_dir: Path, *, api_addresses: Iterable[str], nodes: Mapping[str, str], cluster_domain: str
) -> None:
    """Have all certificates of a cluster in `pki_dir`; 1 ms per certificate that is there, 2 ms per new one."""
    pki_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    ca, ca_key = _authority(pki_dir)
    for holder in holders(api_addresses, nodes, cluster_domain):
        if not _good(pki_dir, holder, ca):
            _issue(pki_dir, holder, ca, ca_key)
    if not (pki_dir / "sa.key").exists() or not (pki_dir / "sa.pub").exists():
        sa = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        public = sa.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        _write(pki_dir / "sa.key", _pem_of(sa))
        _write(pki_dir / "sa.pub", public)


def _authority(folder: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    # Damaged or missing: a new authority, and with it new certificates for everyone.
    with contextlib.suppress(OSError, ValueError):
        ca = x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes())
        known = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), password=None)
        if isinstance(known, ec.EllipticCurvePrivateKey) and known.public_key() == ca.public_key():
            return ca, known
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("pervade-ca")
    now = datetime.datetime.now(datetime.UTC)
    ca = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(now + _CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_usage(sign_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    _write(folder / "ca.key", _pem_of(key))
    _write(folder / "ca.crt", ca.public_bytes(serialization.Encoding.PEM))
    return ca, key


def _good(folder: Path, holder: Holder, ca: x509.Certificate) -> bool:
    try:
        found = x509.load_pem_x509_certificate((folder / f"{holder.file}.crt").read_bytes())
        found.verify_directly_issued_by(ca)
        key = serialization.load_pem_private_key((folder / f"{holder.file}.key").read_bytes(), password=None)
    except (OSError, ValueError, TypeError, InvalidSignature):
        return False
    if key.public_key() != found.public_key() or found.subject != _name(holder.user, holder.group):
        return False
    if found.not_valid_after_utc - datetime.datetime.now(datetime.UTC) < _RENEW:
        return False
    return not holder.serves or _alternatives(found) == {*holder.names, *holder.addresses}


def _alternatives(certificate: x509.Certificate) -> set[str]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    addresses = {str(a) for a in found.get_values_for_type(x509.IPAddress)}
    return {*found.get_values_for_type(x509.DNSName), *addresses}


def _issue(folder: Path, holder: Holder, ca: x509.Certificate, ca_key: ec.EllipticCurvePrivateKey) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.datetime.now(datetime.UTC)
    purposes = [ExtendedKeyUsageOID.CLIENT_AUTH] + (
        [ExtendedKeyUsageOID.SERVER_AUTH] if holder.serves else []
    )
    made = (
        x509.CertificateBuilder()
        .subject_name(_name(holder.user, holder.group))
        .issuer_name(ca.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATE)
        .not_valid_after(min(now + _LIFE, ca.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(sign_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
        )
    )
    if holder.serves:
        names: list[x509.GeneralName] = [x509.DNSName(n) for n in holder.names]
        names += [x509.IPAddress(ipaddress.ip_address(a)) for a in holder.addresses]
        made = made.add_extension(x509.SubjectAlternativeName(names), critical=False)
    certificate = made.sign(ca_key, hashes.SHA256())
    _write(folder / f"{holder.file}.key", _pem_of(key))
    _write(folder / f"{holder.file}.crt", certificate.public_bytes(serialization.Encoding.PEM))


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=not sign_certificates,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _name(user: str, group: str = "") -> x509.Name:
    parts = [x509.NameAttribute(NameOID.COMMON_NAME, user)]
    if group:
        parts.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, group))
    return x509.Name(parts)


def _pem_of(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, content: bytes) -> None:
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "wb") as out:
        out.write(content)
    fresh.replace(path)
