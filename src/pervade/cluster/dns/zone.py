"""The cluster's zone: records of Services, pod names made on the fly, reverse names of the cluster's ranges."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from pervade.cluster.dns.records import JSON, pod_answer, service_records
from pervade.dns.zone import Answer, Record, Zone

_REVERSE = ("in-addr.arpa.", "ip6.arpa.")
SCHEMA_VERSION = "1.1.0"


class ClusterZone(Zone):
    """A `Zone` for `domain` that also owns the reverse names of `cidrs` (Service and pod ranges)."""

    def __init__(self, domain: str, cidrs: Iterable[str]) -> None:
        super().__init__((f"{domain}.", *_REVERSE))
        self.domain = domain
        self.networks = tuple(ipaddress.ip_network(c) for c in cidrs)
        self.replace("", [Record(f"dns-version.{domain}.", "TXT", f'"{SCHEMA_VERSION}"')])

    def put(self, service: JSON, slices: Iterable[JSON]) -> None:
        """Make the records of one Service current; O(its endpoints)."""
        key = f"{service['metadata']['namespace']}/{service['metadata']['name']}"
        self.replace(key, service_records(service, slices, self.domain))

    def lookup(self, name: str, kind: str) -> Answer:
        """As `Zone.lookup`; reverse names outside the cluster's ranges are REFUSED, so that they are forwarded."""
        pod = pod_answer(name, self.domain)
        if pod is not None:
            return Answer("NOERROR", (pod,) if kind in (pod.type, "ANY") else ())
        found = super().lookup(name, kind)
        if found.rcode == "NXDOMAIN" and name.lower().endswith(_REVERSE) and not self._ours(name.lower()):
            return Answer("REFUSED")
        return found

    def _ours(self, name: str) -> bool:
        labels = name.split(".")
        try:
            if name.endswith(_REVERSE[0]):
                address = ".".join(reversed(labels[:-3]))
            else:
                digits = "".join(reversed(labels[:-3]))
                address = ":".join(digits[i : i + 4] for i in range(0, len(digits), 4))
            found = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(found in network for network in self.networks)
