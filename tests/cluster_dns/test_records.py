"""The names a Service has (Kubernetes DNS specification), and the ones it does not."""

from __future__ import annotations

from typing import Any

from pervade.cluster.dns.zone import ClusterZone

CIDRS = ("10.96.0.0/16", "10.77.0.0/16", "fd00:96::/112")


def zone_with(spec: dict[str, Any], *slices: dict[str, Any]) -> ClusterZone:
    zone = ClusterZone("cluster.local", CIDRS)
    zone.put({"metadata": {"name": "web", "namespace": "shop"}, "spec": spec}, slices)
    return zone


def said(zone: ClusterZone, name: str, kind: str) -> list[str]:
    return sorted(r.data for r in zone.lookup(name, kind).records)


PORT = {"name": "http", "port": 80, "protocol": "TCP"}


def test_a_service_with_addresses() -> None:
    zone = zone_with({"clusterIPs": ["10.96.0.7", "fd00:96::7"], "ports": [PORT, {"port": 81}]})
    assert said(zone, "web.shop.svc.cluster.local.", "A") == ["10.96.0.7"]
    assert said(zone, "web.shop.svc.cluster.local.", "AAAA") == ["fd00:96::7"]
    assert said(zone, "_http._tcp.web.shop.svc.cluster.local.", "SRV") == [
        "0 100 80 web.shop.svc.cluster.local."
    ]
    assert said(zone, "7.0.96.10.in-addr.arpa.", "PTR") == ["web.shop.svc.cluster.local."]


def test_a_headless_service_names_its_pods() -> None:
    found = {
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": [
            {"addresses": ["10.77.1.2"], "hostname": "web-0", "conditions": {"ready": True}},
            {"addresses": ["10.77.1.3"], "conditions": {}},
            {"addresses": ["10.77.1.4"], "conditions": {"ready": False}},
        ],
    }
    zone = zone_with({"clusterIP": "None", "clusterIPs": ["None"], "ports": [PORT]}, found)
    assert said(zone, "web.shop.svc.cluster.local.", "A") == ["10.77.1.2", "10.77.1.3"]
    assert said(zone, "web-0.web.shop.svc.cluster.local.", "A") == ["10.77.1.2"]
    assert said(zone, "10-77-1-3.web.shop.svc.cluster.local.", "A") == ["10.77.1.3"]
    assert said(zone, "2.1.77.10.in-addr.arpa.", "PTR") == ["web-0.web.shop.svc.cluster.local."]
    assert len(said(zone, "_http._tcp.web.shop.svc.cluster.local.", "SRV")) == 2
    everyone = zone_with({"clusterIP": "None", "publishNotReadyAddresses": True}, found)
    assert len(said(everyone, "web.shop.svc.cluster.local.", "A")) == 3


def test_external_names_pods_and_reverse_names() -> None:
    zone = zone_with({"type": "ExternalName", "externalName": "db.example.test"})
    assert zone.lookup("web.shop.svc.cluster.local.", "A").leaves_to == "db.example.test."
    assert said(zone, "10-77-1-3.shop.pod.cluster.local.", "A") == ["10.77.1.3"]
    assert zone.lookup("not-an-ip.shop.pod.cluster.local.", "A").rcode == "NXDOMAIN"
    assert zone.lookup("9.0.96.10.in-addr.arpa.", "PTR").rcode == "NXDOMAIN"
    assert zone.lookup("1.1.168.192.in-addr.arpa.", "PTR").rcode == "REFUSED", "forwarded"
    assert said(zone, "dns-version.cluster.local.", "TXT") == ['"1.1.0"']
