"""The folder's cluster, and pods as a user writes them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from pervade.testing.cluster import Cluster
from pervade.testing.wait import until

JSON = dict[str, Any]


class Pods:
    """Applies objects of one test, and asks about its pods; `clean` takes all away again."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster, self._made = cluster, list[str]()

    def kubectl(self, *words: str, check: bool = True, timeout: float = 60) -> str:
        return self.cluster.kubectl(*words, check=check, timeout=timeout)

    def apply(self, kind: str, name: str, **fields: Any) -> None:
        """Create or change an object; `fields` are its top-level fields."""
        version = "v1"
        meta = {"name": name} | fields.pop("metadata", {})
        folder = self.cluster.config.parent
        file = folder / f"{uuid.uuid4().hex}.json"
        file.write_text(json.dumps({"apiVersion": version, "kind": kind, "metadata": meta, **fields}))
        self._made.append(f"{kind.lower()}/{name}")
        self.kubectl("apply", "-f", str(file))

    def run(self, name: str, *containers: JSON, metadata: JSON | None = None, **spec: Any) -> None:
        """A pod on node-1 that ends fast; containers without an image get busybox."""
        whole = {"terminationGracePeriodSeconds": 1, "nodeName": "node-1"} | spec
        for one in [*containers, *whole.get("initContainers", ())]:
            one.setdefault("image", "busybox")
        self.apply("Pod", name, metadata=metadata or {}, spec=whole | {"containers": list(containers)})

    def get(self, name: str) -> JSON:
        found: JSON = json.loads(self.kubectl("get", "pod", name, "-o", "json"))
        return found

    def status(self, name: str) -> JSON:
        found: JSON = self.get(name).get("status", {})
        return found

    def container(self, name: str, container: str, group: str = "containerStatuses") -> JSON:
        """One container's status; empty while there is none."""
        return next((c for c in self.status(name).get(group) or () if c["name"] == container), {})

    def ready(self, name: str, seconds: float = 30) -> None:
        self.kubectl("wait", "--for=condition=Ready", f"pod/{name}", f"--timeout={seconds:.0f}s")

    def phase(self, name: str, wanted: str, seconds: float = 30) -> JSON:
        """Wait for the phase; the whole status then."""
        return until(lambda: (s := self.status(name)).get("phase") == wanted and s, seconds) or {}

    def sh(self, name: str, script: str, container: str | None = None, check: bool = True) -> str:
        where = ["-c", container] if container else []
        return self.kubectl("exec", name, *where, "--", "sh", "-c", script, check=check).strip()

    def events(self, name: str) -> dict[str, str]:
        """Reason → newest message, of the pod's events."""
        words = ["get", "events", "--field-selector", f"involvedObject.name={name}", "-o", "json"]
        return {e["reason"]: e["message"] for e in json.loads(self.kubectl(*words))["items"]}

    def clean(self) -> None:
        if self._made:
            self.kubectl(
                "delete", *self._made, "--ignore-not-found", "--force", "--grace-period=0", "--wait=false", check=False
            )  # fmt: skip


@pytest.fixture
def pods(room_cluster: Cluster) -> Iterator[Pods]:
    made = Pods(room_cluster)
    yield made
    made.clean()
