"""The plan of one embedded cluster: names, addresses and paths, in one file (decision 22).

A frozen value, written to `STATE/plan.json` by `up` and read by every process of the cluster. Nothing
else in the tree spells an address or a path of the cluster.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path

import msgspec

KUBERNETES_VERSION = "v1.33.0"
KUBELET_PORT = 10250


class NodePlan(msgspec.Struct, frozen=True):
    """One node: its address in the fabric, its pod ranges and its zone label."""

    name: str
    address: str
    address6: str
    pod_cidr: str
    pod_cidr6: str
    zone: str

    @property
    def gateway(self) -> str:
        """First address of the pod range: the node's side of every pod link (ptp)."""
        return str(next(ipaddress.ip_network(self.pod_cidr).hosts()))


class Plan(msgspec.Struct, frozen=True):
    """Everything the processes of one cluster must agree on."""

    name: str
    nodes: tuple[NodePlan, ...]
    fabric_cidr: str
    fabric_cidr6: str
    api_address: str
    api_port: int
    pod_cidr: str
    pod_cidr6: str
    service_cidr: str
    service_cidr6: str
    load_balancer_first: str
    load_balancer_last: str
    node_port_first: int
    node_port_last: int
    cluster_domain: str
    state_root: str
    run_root: str
    cache_dir: str
    way_out: str
    """Network of the user-space way out of the fabric (slirp4netns); its third address forwards DNS."""

    @property
    def pod_cidrs(self) -> tuple[str, ...]:
        return (self.pod_cidr, self.pod_cidr6)

    @property
    def kubernetes_address(self) -> str:
        """ClusterIP of the Service `kubernetes`: the first of the Service range."""
        return str(ipaddress.ip_network(self.service_cidr)[1])

    @property
    def dns_address(self) -> str:
        """ClusterIP of the Service `kube-dns`: the tenth of the Service range."""
        return str(ipaddress.ip_network(self.service_cidr)[10])

    @property
    def outside_dns(self) -> str:
        """The resolver that slirp4netns offers (its network's address 3)."""
        return str(ipaddress.ip_network(self.way_out)[3])

    @property
    def state(self) -> Path:
        return Path(self.state_root) / self.name

    @property
    def run(self) -> Path:
        return Path(self.run_root) / self.name

    @property
    def cache(self) -> Path:
        return Path(self.cache_dir)

    @property
    def file(self) -> Path:
        return self.state / "plan.json"

    @property
    def pki(self) -> Path:
        return self.state / "pki"

    @property
    def log_dir(self) -> Path:
        return self.state / "log"

    def kubeconfig(self, who: str) -> Path:
        """`admin`, `controllers`, `relay`, `kubelet-NODE`."""
        return self.state / "kubeconfigs" / f"{who}.yaml"

    def netns(self, place: str) -> Path:
        """Pinned network namespace of `fabric` or of a node."""
        return self.run / "netns" / place

    def node(self, name: str) -> NodePlan:
        """The node called `name`; KeyError when there is none."""
        for one in self.nodes:
            if one.name == name:
                return one
        raise KeyError(name)

    def cgroup(self, name: str) -> str:
        """Control group (below every hierarchy's root) of all that runs in a node; pods: `…/kubepods/…`."""
        return f"pervade/{self.name}/{name}"

    def node_state(self, name: str) -> Path:
        return self.state / "nodes" / name

    def node_run(self, name: str) -> Path:
        return self.run / "nodes" / name

    def cri_socket(self, name: str) -> Path:
        return self.node_state(name) / "sock" / "containerd.sock"

    def init_pid(self, name: str) -> Path:
        """File that holds the pid (of the host) of the node's PID 1."""
        return self.node_run(name) / "init.pid"


def make(
    *,
    name: str = "pervade",
    nodes: int = 2,
    fabric_cidr: str = "172.31.9.0/24",
    pod_cidr: str = "10.77.0.0/16",
    service_cidr: str = "10.96.0.0/16",
    api_port: int = 6443,
    cluster_domain: str = "cluster.local",
    state_root: str = "/var/lib/pervade",
    run_root: str = "/run/pervade",
    cache_dir: str = "/var/cache/pervade",
) -> Plan:
    """A plan from the few things a user may choose; the IPv6 ranges follow the IPv4 ones.

    Raises ValueError with the field's name when a range is malformed or too small for `nodes`.
    """
    fabric, pods, services = (
        _network(n, c) for n, c in (("fabric", fabric_cidr), ("pod", pod_cidr), ("service", service_cidr))
    )
    if fabric.prefixlen > 24 or pods.prefixlen > 20 or services.prefixlen > 24:
        raise ValueError("the fabric needs a /24, the pods a /20 and the services a /24 at least")
    pod_ranges = list(pods.subnets(new_prefix=24))
    if not 1 <= nodes <= min(len(pod_ranges) - 1, 100):
        raise ValueError(f"--nodes must lie between 1 and {min(len(pod_ranges) - 1, 100)}")
    fabric6, pods6, services6 = (_twin(n) for n in (fabric, pods, services))
    made = tuple(
        NodePlan(
            name=f"node-{i}",
            address=str(fabric[10 + i]),
            address6=f"{fabric6}::{10 + i:x}",
            pod_cidr=str(pod_ranges[i]),
            pod_cidr6=f"{pods6}:{i:x}::/64",
            zone=f"zone-{'abc'[(i - 1) % 3]}",
        )
        for i in range(1, nodes + 1)
    )
    return Plan(
        name=name,
        nodes=made,
        fabric_cidr=str(fabric),
        fabric_cidr6=f"{fabric6}::/64",
        api_address=str(fabric[1]),
        api_port=api_port,
        pod_cidr=str(pods),
        pod_cidr6=f"{pods6}::/48",
        service_cidr=str(services),
        service_cidr6=f"{services6}::/112",
        load_balancer_first=str(fabric[200]),
        load_balancer_last=str(fabric[250]),
        node_port_first=30000,
        node_port_last=32767,
        cluster_domain=cluster_domain,
        state_root=state_root,
        run_root=run_root,
        cache_dir=cache_dir,
        way_out="10.0.2.0/24",
    )


def _network(label: str, cidr: str) -> ipaddress.IPv4Network:
    try:
        return ipaddress.IPv4Network(cidr)
    except ValueError as error:
        raise ValueError(f"{label} range {cidr}: {error}") from error


def _twin(network: ipaddress.IPv4Network) -> str:
    """A unique-local /48 prefix (RFC 4193) that carries the first three octets of an IPv4 range."""
    a, b, c, _ = network.network_address.packed
    return f"fd00:{a:02x}{b:02x}:{c:x}"


def load(path: Path) -> Plan:
    """The plan in `path`; msgspec.ValidationError when it is not one."""
    return msgspec.json.decode(path.read_bytes(), type=Plan)


def save(plan: Plan) -> None:
    """Write `plan` to its own place, readable for people."""
    plan.file.parent.mkdir(parents=True, exist_ok=True)
    plan.file.write_bytes(msgspec.json.format(msgspec.json.encode(plan), indent=2) + b"\n")
