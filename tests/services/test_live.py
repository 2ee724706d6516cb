"""Services and cluster DNS on real nodes: who is reached, and which address the server sees."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from pervade.testing.cluster import Cluster
from pervade.testing.wait import until

pytestmark = pytest.mark.live

SERVER = """
import http.server, os, socket
class Seen(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        said = (os.environ["POD"] + " " + self.client_address[0].removeprefix("::ffff:")).encode()
        self.send_response(200); self.send_header("Content-Length", str(len(said))); self.end_headers()
        self.wfile.write(said)
    def log_message(self, *_): pass
class Dual(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
Dual(("::", 8080), Seen).serve_forever()
"""


def _pod(name: str, node: str, **labels: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "nodeName": node,
            "hostname": name,
            "subdomain": "heads",
            "terminationGracePeriodSeconds": 1,
            "containers": [
                {
                    "name": "c",
                    "image": "nicolaka/netshoot",
                    "command": ["python3", "-c", SERVER],
                    "env": [{"name": "POD", "value": name}],
                    "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
                }
            ],
        },
    }


def _service(name: str, port: int = 80, **spec: Any) -> dict[str, Any]:
    base = {"selector": {"app": "web"}, "ports": [{"name": "http", "port": port, "targetPort": 8080}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": base | spec}


OBJECTS = [
    _pod("web-1", "node-1", app="web"),
    _pod("web-2", "node-2", app="web"),
    _pod("caller", "node-1", app="caller"),
    _service("web"),
    _service("heads", clusterIP="None"),
    _service("sticky", sessionAffinity="ClientIP"),
    _service("near", internalTrafficPolicy="Local"),
    _service("port", type="NodePort"),
    _service("port-local", type="NodePort", externalTrafficPolicy="Local"),
    _service("balanced", type="LoadBalancer"),
    _service("nobody", selector={"app": "nobody"}),
    {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "alias"},
        "spec": {"type": "ExternalName", "externalName": "web.default.svc.cluster.local"},
    },
]


@pytest.fixture(scope="module")
def web(room_cluster: Cluster) -> Cluster:
    """The shared cluster with a server on each node, a caller on node-1, and a Service of each sort."""
    file = room_cluster.config.with_name("objects.json")
    file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": OBJECTS}))
    room_cluster.kubectl("apply", "-f", str(file))
    room_cluster.kubectl(
        "wait", "--for=condition=Ready", "pod/web-1", "pod/web-2", "pod/caller", "--timeout=60s", timeout=90
    )
    until(
        lambda: len(room_cluster.jsonpath("endpoints/web", "{.subsets[*].addresses[*].ip}").split()) >= 2, 20
    )
    until(lambda: curl(room_cluster, "http://web/"), 20)
    return room_cluster


def curl(cluster: Cluster, *words: str, pod: str = "caller") -> str:
    """What a pod's curl says; empty when it failed."""
    return cluster.kubectl("exec", pod, "--", "curl", "-s", "-m", "3", *words, check=False).strip()


def many(cluster: Cluster, url: str, times: int = 40) -> list[tuple[str, str]]:
    """(server, source) of `times` new connections out of the caller."""
    loop = f'for i in $(seq {times}); do curl -s -m 3 -H "Connection: close" {url}; echo; done'
    said = cluster.kubectl("exec", "caller", "--", "sh", "-c", loop, check=False, timeout=200)
    rows = [line.split() for line in said.splitlines() if line.strip()]
    return [(row[0], row[1]) for row in rows]


def from_host(address: str, port: int) -> tuple[str, str] | None:
    done = subprocess.run(
        ["curl", "-s", "-m", "3", f"http://{address}:{port}/"], capture_output=True, text=True, check=False
    )
    words = done.stdout.split()
    return (words[0], words[1]) if len(words) == 2 else None


def from_node(cluster: Cluster, node: str, address: str, port: int) -> tuple[str, str] | None:
    """A request out of a node's own network namespace."""
    init = (cluster.run_dir / "nodes" / node / "init.pid").read_text().split()[0]
    done = subprocess.run(
        ["nsenter", "-t", init, "-n", "curl", "-s", "-m", "2", f"http://{address}:{port}/"],
        capture_output=True,
        text=True,
        check=False,
    )
    words = done.stdout.split()
    return (words[0], words[1]) if len(words) == 2 else None


def test_a_service_balances_over_both_nodes_and_keeps_the_source(web: Cluster) -> None:
    """2^-39 would be the chance to miss one of two endpoints."""
    me = web.jsonpath("pod/caller", "{.status.podIP}")
    seen = many(web, "http://web/")
    assert len(seen) == 40
    assert {name for name, _ in seen} == {"web-1", "web-2"}
    assert {source for _, source in seen} == {me}


def test_a_pod_reaches_itself_through_its_service(web: Cluster) -> None:
    loop = "for i in $(seq 40); do curl -s -m 3 http://web/; echo; done"
    said = web.kubectl("exec", "web-1", "--", "sh", "-c", loop, timeout=200).split()
    assert len(said) == 80
    assert {"web-1", "web-2"} <= set(said[::2])


def test_session_affinity_keeps_a_caller_at_one_server(web: Cluster) -> None:
    assert len({name for name, _ in many(web, "http://sticky/")}) == 1


def test_internal_traffic_policy_local_stays_on_the_node(web: Cluster) -> None:
    assert {name for name, _ in many(web, "http://near/", 20)} == {"web-1"}


def test_a_service_without_endpoints_refuses_at_once(web: Cluster) -> None:
    done = web.kubectl(
        "exec", "caller", "--", "sh", "-c", "curl -s -m 3 http://nobody/; echo $?", check=False
    )
    assert done.split()[-1] == "7"


def test_node_ports_answer_on_every_node_and_on_the_host(web: Cluster) -> None:
    port = int(web.jsonpath("service/port", "{.spec.ports[0].nodePort}"))
    nodes = web.jsonpath("nodes", "{.items[*].status.addresses[0].address}").split()
    me = web.jsonpath("pod/caller", "{.status.podIP}")
    for address in nodes:
        assert {name for name, _ in many(web, f"http://{address}:{port}/", 20)} == {"web-1", "web-2"}
    assert {until(lambda: from_host("127.0.0.1", port), 10)[0] for _ in range(20)} == {"web-1", "web-2"}
    # Another node's address is an outside address to a pod: the answer must come back the way it went.
    assert me not in {source for _, source in many(web, f"http://{nodes[1]}:{port}/", 20)}


def test_external_traffic_policy_local_keeps_the_source_and_the_node(web: Cluster) -> None:
    port = int(web.jsonpath("service/port-local", "{.spec.ports[0].nodePort}"))
    first, second = web.jsonpath("nodes", "{.items[*].status.addresses[0].address}").split()
    assert from_node(web, "node-1", second, port) == ("web-2", first)
    assert from_node(web, "node-2", first, port) == ("web-1", second)


def test_a_load_balancer_has_an_address_and_answers_on_the_host(web: Cluster) -> None:
    address = until(lambda: web.jsonpath("service/balanced", "{.status.loadBalancer.ingress[0].ip}"), 20)
    twin = "127." + address.split(".", 1)[1]
    assert until(lambda: from_host(twin, 80), 20)[0] in ("web-1", "web-2")
    assert many(web, f"http://{address}/", 5)


def test_an_endpoint_that_goes_is_no_longer_chosen(web: Cluster) -> None:
    file = web.config.with_name("gone.json")
    file.write_text(json.dumps(_pod("web-3", "node-2", app="web")))
    web.kubectl("apply", "-f", str(file))
    until(lambda: "web-3" in {name for name, _ in many(web, "http://web/", 20)}, 30)
    web.kubectl("delete", "pod", "web-3", timeout=60)
    seen = many(web, "http://web/")
    assert len(seen) == 40
    assert {name for name, _ in seen} == {"web-1", "web-2"}


def dig(cluster: Cluster, *words: str) -> list[str]:
    return cluster.kubectl("exec", "caller", "--", "dig", "+short", "+search", *words).split()


def test_names_of_services_and_pods(web: Cluster) -> None:
    def ip(pod: str) -> str:
        return web.jsonpath(f"pod/{pod}", "{.status.podIP}")

    cluster_ip = web.jsonpath("service/web", "{.spec.clusterIP}")
    assert (
        dig(web, "web")
        == dig(web, "web.default")
        == dig(web, "web.default.svc.cluster.local")
        == [cluster_ip]
    )
    assert set(dig(web, "heads")) == {ip("web-1"), ip("web-2")}
    assert dig(web, "web-1.heads.default.svc.cluster.local") == [ip("web-1")]
    six = web.jsonpath("pod/web-1", "{.status.podIPs[1].ip}")
    assert all(":" in a for a in dig(web, "heads", "AAAA")) or not six
    assert dig(web, "_http._tcp.web.default.svc.cluster.local", "SRV") == [
        "0", "100", "80", "web.default.svc.cluster.local."
    ]  # fmt: skip
    assert dig(web, "-x", cluster_ip) == ["web.default.svc.cluster.local."]
    assert dig(web, "alias") == ["web.default.svc.cluster.local.", cluster_ip]
    answer = web.kubectl("exec", "caller", "--", "dig", "none.default.svc.cluster.local")
    assert "NXDOMAIN" in answer
    answer = web.kubectl("exec", "caller", "--", "dig", "web.default.svc.cluster.local", "MX")
    assert "NOERROR" in answer
    assert "ANSWER: 0" in answer
    tcp = web.kubectl("exec", "caller", "--", "dig", "+tcp", "+short", "web.default.svc.cluster.local")
    assert tcp.split() == [cluster_ip]
