"""The cluster's certificates: who gets which, what stays, what is made anew."""

from __future__ import annotations

import socket
import ssl
import stat
import threading
from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import NameOID

from pervade.cluster.apiserver.auth.pki import ensure_pki

NODES = {"node-1": "172.31.9.11", "node-2": "172.31.9.12"}


def make(folder: Path, nodes: dict[str, str] | None = None) -> dict[str, bytes]:
    ensure_pki(
        folder,
        api_addresses=["172.31.9.1", "10.96.0.1"],
        nodes=NODES if nodes is None else nodes,
        cluster_domain="cluster.local",
    )
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def certificate(folder: Path, name: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate((folder / f"{name}.crt").read_bytes())


def test_subjects_are_the_names_that_kubernetes_knows(tmp_path: Path) -> None:
    make(tmp_path)
    seen = {}
    for file in tmp_path.glob("*.crt"):
        subject = certificate(tmp_path, file.stem).subject
        groups = subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
        names = subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        seen[file.stem] = (str(names[0].value), str(groups[0].value) if groups else "")
    assert seen["admin"] == ("kubernetes-admin", "system:masters")
    assert seen["kubelet-node-1"] == ("system:node:node-1", "system:nodes")
    assert seen["controllers"] == ("system:kube-controller-manager", "")
    assert seen["services-node-2"] == ("system:kube-proxy", "")


def test_a_second_look_changes_nothing(tmp_path: Path) -> None:
    assert make(tmp_path) == make(tmp_path)


def test_a_new_node_gets_its_own_and_the_others_keep_theirs(tmp_path: Path) -> None:
    before = make(tmp_path)
    after = make(tmp_path, NODES | {"node-3": "172.31.9.13"})
    assert before.items() <= after.items()
    assert {"kubelet-node-3.crt", "services-node-3.key"} <= after.keys()


def test_another_address_renews_exactly_that_certificate(tmp_path: Path) -> None:
    before = make(tmp_path)
    after = make(tmp_path, NODES | {"node-2": "172.31.9.99"})
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"kubelet-node-2.crt", "kubelet-node-2.key"}


def test_a_lost_authority_renews_everyone(tmp_path: Path) -> None:
    before = make(tmp_path)
    (tmp_path / "ca.key").write_bytes(b"damaged")
    after = make(tmp_path)
    kept = {name for name in before if before[name] == after[name]}
    assert kept == {"sa.key", "sa.pub"}


def test_nobody_else_may_read_a_key(tmp_path: Path) -> None:
    make(tmp_path)
    assert {stat.S_IMODE(p.stat().st_mode) for p in tmp_path.iterdir()} == {0o600}


def test_a_client_and_the_server_trust_each_other_over_tls(tmp_path: Path) -> None:
    make(tmp_path)
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(tmp_path / "ca.crt"))
    serving.load_cert_chain(tmp_path / "apiserver.crt", tmp_path / "apiserver.key")
    serving.verify_mode = ssl.CERT_REQUIRED
    asking = ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))
    asking.load_cert_chain(tmp_path / "kubelet-node-1.crt", tmp_path / "kubelet-node-1.key")
    listening = socket.create_server(("127.0.0.1", 0))
    seen: list[object] = []

    def answer() -> None:
        accepted, _ = listening.accept()
        with serving.wrap_socket(accepted, server_side=True) as tls:
            seen.append(tls.getpeercert())
            tls.sendall(b"welcome")

    thread = threading.Thread(target=answer)
    thread.start()
    with socket.create_connection(listening.getsockname(), 10) as raw:
        for name in ("127.0.0.1",):
            with asking.wrap_socket(raw, server_hostname=name) as tls:
                assert tls.recv(20) == b"welcome"
    thread.join(10)
    listening.close()
    assert "system:node:node-1" in str(seen)
