"""A webhook behind a Service: the API server reaches it inside the cluster and believes its certificate."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from pervade.testing.certificates import self_signed
from pervade.testing.cluster import Cluster
from pervade.testing.wait import until

pytestmark = pytest.mark.live
SERVER = """
import http.server, json, ssl
class Hook(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        asked = review["request"]
        good = (asked["object"].get("data") or {}).get("colour") != "green"
        said = {"uid": asked["uid"], "allowed": good, "status": {"message": "green is taken"}}
        body = json.dumps({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": said}).encode()
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers(); self.wfile.write(body)
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer(("", 8443), Hook)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); context.load_cert_chain("/tls/tls.crt", "/tls/tls.key")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""


def objects(certificate: bytes, key: bytes) -> list[dict[str, Any]]:
    def text(pem: bytes) -> str:
        return base64.b64encode(pem).decode()

    container = {
        "name": "c",
        "image": "nicolaka/netshoot",
        "command": ["python3", "-c", SERVER],
        "readinessProbe": {"tcpSocket": {"port": 8443}, "periodSeconds": 1},
        "volumeMounts": [{"name": "tls", "mountPath": "/tls"}],
    }
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "hooks"}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "tls", "namespace": "hooks"},
         "data": {"tls.crt": text(certificate), "tls.key": text(key)}},
        # On the second node: the way from the fabric through the first node's rules is part of what is shown.
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "hook", "namespace": "hooks", "labels": {"app": "hook"}},
         "spec": {"nodeName": "node-2", "terminationGracePeriodSeconds": 1, "containers": [container],
                  "volumes": [{"name": "tls", "secret": {"secretName": "tls"}}]}},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "hook", "namespace": "hooks"},
         "spec": {"selector": {"app": "hook"}, "ports": [{"port": 443, "targetPort": 8443}]}},
    ]  # fmt: skip


def test_a_webhook_in_the_cluster_refuses_what_kubectl_sends(room_cluster: Cluster) -> None:
    certificate, key = self_signed("hook.hooks.svc")
    file = room_cluster.config.with_name("hook.json")
    file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": objects(certificate, key)}))
    room_cluster.kubectl("apply", "-f", str(file))
    room_cluster.kubectl(
        "wait", "-n", "hooks", "--for=condition=Ready", "pod/hook", "--timeout=60s", timeout=90
    )
    until(
        lambda: room_cluster.kubectl(
            "get", "endpoints", "-n", "hooks", "hook", "-o", "jsonpath={.subsets[*].addresses[*].ip}"
        ),
        20,
    )
    service = {"namespace": "hooks", "name": "hook", "path": "/check"}
    rules = [
        {"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}
    ]
    hook = {
        "name": "colour.example.com",
        "clientConfig": {"service": service, "caBundle": base64.b64encode(certificate).decode()},
        "rules": rules,
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "hooks"}},
    }
    configuration = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "colour"},
        "webhooks": [hook],
    }
    file.write_text(json.dumps(configuration))
    room_cluster.kubectl("apply", "-f", str(file))
    try:
        # The node's rules may learn of the Service a moment after its endpoints are written.
        until(
            lambda: room_cluster.kubectl(
                "create", "configmap", "-n", "hooks", "a", "--from-literal=colour=red", check=False
            ),
            20,
        )
        made = room_cluster.kubectl(
            "create", "configmap", "-n", "hooks", "b", "--from-literal=colour=green", check=False
        )
        assert made == ""
        with pytest.raises(AssertionError, match="green is taken"):
            room_cluster.kubectl("create", "configmap", "-n", "hooks", "b", "--from-literal=colour=green")
    finally:
        room_cluster.kubectl("delete", "validatingwebhookconfiguration", "colour", check=False)
        room_cluster.kubectl("delete", "namespace", "hooks", check=False)
