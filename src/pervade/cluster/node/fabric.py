"""The fabric: a network namespace of its own with a bridge, one link per node, and a way out in user space.

Nothing of it is in the host's namespace, so a foreign FORWARD DROP or br_netfilter there cannot touch it
(decision 22). Idempotent: what is there stays.
"""

from __future__ import annotations

from pervade.cluster.plan import NodePlan, Plan
from pervade.host import links
from pervade.host.run import command

BRIDGE = "br0"


def port(node: str) -> str:
    """Name of a node's link in the fabric (15 characters at most)."""
    return f"to-{node}"[:15]


def make(plan: Plan) -> None:
    """The namespace, the bridge with the API server's address, forwarding, and the routes to all pod ranges."""
    fabric = plan.netns("fabric")
    if links.pin(fabric) or BRIDGE not in links.link_names(fabric):
        bits, bits6 = plan.fabric_cidr.split("/")[1], plan.fabric_cidr6.split("/")[1]
        gateway6 = plan.fabric_cidr6.split("/")[0] + "1"
        links.ip(
            fabric,
            [
                "link set lo up",
                f"link add {BRIDGE} type bridge",
                f"link set {BRIDGE} up",
                f"address add {plan.api_address}/{bits} dev {BRIDGE}",
                f"address add {gateway6}/{bits6} dev {BRIDGE} nodad",
            ],
        )
        links.sysctl(
            fabric,
            {
                "net.ipv4.ip_forward": "1",
                "net.ipv6.conf.all.forwarding": "1",
                "net.ipv4.conf.all.rp_filter": "0",
                "net.ipv4.conf.default.rp_filter": "0",
            },
        )
    routes = []
    for node in plan.nodes:
        routes += [
            f"route replace {node.pod_cidr} via {node.address}",
            f"route replace {node.pod_cidr6} via {node.address6}",
        ]
    first = plan.nodes[0]
    # Webhooks are dialled by ClusterIP from here; any node translates it.
    routes += [f"route replace {plan.service_cidr} via {first.address}"]
    links.ip(fabric, routes)


def connect(plan: Plan, node: NodePlan) -> None:
    """The node's namespace with its link, addresses and routes to every other node's pods."""
    here, fabric = plan.netns(node.name), plan.netns("fabric")
    links.pin(here)
    far = port(node.name)
    if "eth0" not in links.link_names(here):
        bits, bits6 = plan.fabric_cidr.split("/")[1], plan.fabric_cidr6.split("/")[1]
        # Both ends are made in the fabric, then one is handed over: no name ever appears on the host.
        links.ip(
            fabric,
            [f"link add {far} type veth peer name eth0 netns {here}", f"link set {far} master {BRIDGE} up"],
        )
        links.ip(
            here,
            [
                "link set lo up",
                f"address add {node.address}/{bits} dev eth0",
                f"address add {node.address6}/{bits6} dev eth0 nodad",
                "link set eth0 up",
            ],
        )
        links.sysctl(
            here,
            {
                "net.ipv4.ip_forward": "1",
                "net.ipv6.conf.all.forwarding": "1",
                "net.ipv4.conf.all.rp_filter": "0",
                "net.ipv4.conf.default.rp_filter": "0",
                # Addresses come from the plan and host-local: looking for duplicates only delays every pod.
                "net.ipv6.conf.all.accept_dad": "0",
                "net.ipv6.conf.default.accept_dad": "0",
                "net.ipv4.ip_local_port_range": "32768 60999",
                "net.netfilter.nf_conntrack_max": "262144",
            },
        )
    gateway6 = plan.fabric_cidr6.split("/")[0] + "1"
    routes = [
        f"route replace default via {plan.api_address}",
        f"route replace ::/0 via {gateway6}",
        f"route replace {plan.service_cidr} dev eth0",
        f"route replace {plan.service_cidr6} dev eth0",
    ]
    for other in plan.nodes:
        if other.name != node.name:
            routes += [
                f"route replace {other.pod_cidr} via {other.address}",
                f"route replace {other.pod_cidr6} via {other.address6}",
            ]
    links.ip(here, routes)


def way_out_command(plan: Plan) -> list[str]:
    """slirp4netns: connections from the fabric leave as sockets of an ordinary process; no rule on the host."""
    return [
        "slirp4netns",
        "--configure",
        "--mtu=1500",
        "--disable-host-loopback",
        f"--cidr={plan.way_out}",
        "--netns-type=path",
        str(plan.netns("fabric")),
        "tap0",
    ]


_MASQUERADE = """table ip pervade-way-out {}
delete table ip pervade-way-out
table ip pervade-way-out {
  chain post { type nat hook postrouting priority srcnat; oifname "tap0" masquerade; }
}
"""


def masquerade(plan: Plan) -> None:
    """What leaves the fabric by the way out carries the fabric's address: slirp4netns accepts no other."""
    command(["nsenter", f"--net={plan.netns('fabric')}", "--", "nft", "-f", "-"], text=_MASQUERADE)
