"""kubeconfig files: read one, write one of our own, merge a context into the user's and take it out again.

Files are 0600 and written by rename. Other clusters, users and contexts of the user's file are kept as
they are. Source: the `kubectl config` format (clusters, users, contexts, current-context).
"""

from __future__ import annotations

import base64
import contextlib
import os
import ssl
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from pervade.base.errors import OperatorError

JSON = dict[str, Any]
_PREVIOUS = "pervade.dev/previous-context"


class Access(msgspec.Struct, frozen=True):
    """How to reach one API server, PEM texts resolved."""

    server: str
    ca: str | None = None
    certificate: str | None = None
    key: str | None = None
    token: str | None = None
    insecure: bool = False

    def ssl_context(self) -> ssl.SSLContext | None:
        """The TLS context, or None for plain HTTP."""
        if not self.server.startswith("https:"):
            return None
        context = ssl.create_default_context(cadata=self.ca) if self.ca else ssl.create_default_context()
        if self.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.certificate and self.key:
            # The ssl module loads client keys from files only; the file lives as long as the call.
            with tempfile.NamedTemporaryFile("w", suffix=".pem") as both:
                both.write(f"{self.certificate}\n{self.key}\n")
                both.flush()
                context.load_cert_chain(both.name)
        return context


def default_path() -> Path:
    """The file kubectl would use: the first of $KUBECONFIG, else ~/.kube/config."""
    listed = [p for p in os.environ.get("KUBECONFIG", "").split(os.pathsep) if p]
    return Path(listed[0]) if listed else Path.home() / ".kube" / "config"


def in_cluster_server() -> str:
    """The API server as a pod's environment names it; OperatorError outside a pod."""
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        raise OperatorError(
            "KUBERNETES_SERVICE_HOST is not set",
            cause="this does not run in a pod",
            fix="give --kubeconfig FILE",
        )
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


def read(path: str | Path | None = None, context: str | None = None) -> Access:
    """The access that `context` (default: the current one) of `path` describes; OperatorError when it describes none."""
    file = Path(path) if path else default_path()
    config = _load(file)
    wanted = context or config.get("current-context") or ""
    chosen = _named(config, "contexts", "context", wanted)
    if chosen is None:
        raise OperatorError(
            f"no context {wanted!r}", where=str(file), fix="pervade up, or kubectl config use-context NAME"
        )
    cluster = _named(config, "clusters", "cluster", chosen.get("cluster", "")) or {}
    user = _named(config, "users", "user", chosen.get("user", "")) or {}
    if "server" not in cluster:
        raise OperatorError(f"context {wanted!r} names no server", where=str(file), fix="kubectl config view")
    return Access(
        server=cluster["server"],
        ca=_pem(cluster, "certificate-authority", file),
        certificate=_pem(user, "client-certificate", file),
        key=_pem(user, "client-key", file),
        token=user.get("token"),
        insecure=bool(cluster.get("insecure-skip-tls-verify")),
    )


def write(
    path: Path, *, server: str, ca: str, certificate: str, key: str, context: str, json: bool = False
) -> None:
    """A kubeconfig of one context, with its certificates inside.

    `json` writes it in JSON, which is YAML too: a process that reads such a file needs no YAML parser (1.3 MB).
    """
    _save(path, _document(server, ca, certificate, key, context), json=json)


def merge(path: Path, *, server: str, ca: str, certificate: str, key: str, context: str) -> None:
    """Put `context` into the user's file and make it current; the one that was current is remembered inside."""
    config: JSON = _load(path) if path.exists() else {"apiVersion": "v1", "kind": "Config"}
    new = _document(server, ca, certificate, key, context)
    previous = config.get("current-context") or ""
    if previous != context:
        new["contexts"][0]["context"]["extensions"] = [
            {"name": _PREVIOUS, "extension": {"context": previous}}
        ]
    elif old := _named(config, "contexts", "context", context):
        new["contexts"][0]["context"]["extensions"] = old.get("extensions") or []
    for group in ("clusters", "users", "contexts"):
        kept = [e for e in config.get(group) or [] if e.get("name") != context]
        config[group] = [*kept, *new[group]]
    config["current-context"] = context
    _save(path, config)


def remove(path: Path, context: str) -> bool:
    """Take `context` out of the user's file and restore the one before it; True when something changed."""
    if not path.exists():
        return False
    config = _load(path)
    found = _named(config, "contexts", "context", context)
    if found is None:
        return False
    remembered = [
        e["extension"].get("context", "") for e in found.get("extensions") or [] if e.get("name") == _PREVIOUS
    ]
    for group in ("clusters", "users", "contexts"):
        config[group] = [e for e in config.get(group) or [] if e.get("name") != context]
    if config.get("current-context") == context:
        previous = remembered[0] if remembered else ""
        config["current-context"] = (
            previous if _named(config, "contexts", "context", previous) is not None else ""
        )
    if not any(config.get(g) for g in ("clusters", "users", "contexts")):
        path.unlink()
        if path.parent == Path.home() / ".kube" and not any(path.parent.iterdir()):
            path.parent.rmdir()
    else:
        _save(path, config)
    return True


def _document(server: str, ca: str, certificate: str, key: str, name: str) -> dict[str, Any]:
    def inline(pem: str) -> str:
        return base64.b64encode(pem.encode()).decode()

    user = {"client-certificate-data": inline(certificate), "client-key-data": inline(key)}
    found: JSON = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {"server": server, "certificate-authority-data": inline(ca)}}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
    }
    return found


def _load(path: Path) -> JSON:
    try:
        text = path.read_text()
    except FileNotFoundError:
        raise OperatorError("no kubeconfig", where=str(path), fix="pervade up, or set KUBECONFIG") from None
    if text.startswith("{"):
        with contextlib.suppress(msgspec.DecodeError):
            return msgspec.json.decode(text, type=dict[str, Any])
    import yaml

    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise OperatorError(f"not YAML: {error}", where=str(path), fix="mend or move the file") from error
    if found is not None and not isinstance(found, dict):
        raise OperatorError("not a kubeconfig", where=str(path), fix="mend or move the file")
    return found or {}


def _named(config: JSON, group: str, kind: str, name: str) -> JSON | None:
    for entry in config.get(group) or []:
        if entry.get("name") == name:
            found: JSON = entry.get(kind) or {}
            return found
    return None


def _pem(holder: JSON, field: str, file: Path) -> str | None:
    if data := holder.get(f"{field}-data"):
        return base64.b64decode(data).decode()
    if name := holder.get(field):
        return (file.parent / str(name)).read_text()
    return None


def _save(path: Path, config: JSON, *, json: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "wb") as out:
        if json:
            out.write(msgspec.json.format(msgspec.json.encode(config), indent=1) + b"\n")
        else:
            import yaml

            out.write(yaml.safe_dump(config, sort_keys=False).encode())
    fresh.replace(path)
