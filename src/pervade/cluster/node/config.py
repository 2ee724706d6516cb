"""Files of a node: containerd's configuration and the CNI conflist. Pure."""

from __future__ import annotations

import json

from pervade.cluster.plan import NodePlan

PAUSE = "pervade.local/pause:1"
CONFLIST = "10-pods.conflist"
SETTLED = "pervade-settled"
_PLUGINS_OFF = (
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.zfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.internal.v1.opt",
    "io.containerd.tracing.processor.v1.otlp",
    "io.containerd.internal.v1.tracing",
)


def containerd() -> str:
    """containerd's TOML; the same for every node, because every path in it is the node's own."""
    return f"""version = 2
root = "/var/lib/containerd"
state = "/run/ctd"
disabled_plugins = {json.dumps(_PLUGINS_OFF)}
[grpc]
  address = "/run/cri/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  stream_server_address = "127.0.0.1"
  stream_server_port = "10010"
  stream_idle_timeout = "4h0m0s"
  disable_apparmor = true
  restrict_oom_score_adj = true
  enable_unprivileged_ports = true
  enable_unprivileged_icmp = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/opt/cni/bin"
    conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
"""


def conflist(node: NodePlan) -> str:
    """ptp with host-local addresses of both families (settled.sh before it), and portmap for hostPort."""
    ranges = [[{"subnet": node.pod_cidr}], [{"subnet": node.pod_cidr6}]]
    return json.dumps(
        {
            "cniVersion": "0.4.0",
            "name": "pods",
            "plugins": [
                {"type": SETTLED},
                {
                    "type": "ptp",
                    "ipMasq": False,
                    "mtu": 1500,
                    "ipam": {
                        "type": "host-local",
                        "ranges": ranges,
                        "dataDir": "/var/lib/cni/ipam",
                        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
                    },
                },
                {"type": "portmap", "capabilities": {"portMappings": True}, "backend": "iptables"},
            ],
        },
        indent=1,
    )
