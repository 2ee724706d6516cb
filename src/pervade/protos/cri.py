"""Messages and methods of the Container Runtime Interface (runtime.v1), out of the containerd binary."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from google.protobuf import descriptor_pool, message_factory

from pervade.protos import binary

CONTAINERD = Path("/usr/bin/containerd")


class Method(NamedTuple):
    """One unary call: its gRPC path and the classes of request and response."""

    path: str
    request: Any
    response: Any


def load(program: Path = CONTAINERD) -> dict[str, Method]:
    """All methods of RuntimeService and ImageService by name."""
    file = binary.descriptors(program, frozenset({"runtime.v1"}))["runtime.v1"]
    del file.dependency[:]
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    out = {}
    for service in file.service:
        for method in service.method:
            request, response = (
                message_factory.GetMessageClass(pool.FindMessageTypeByName(t.lstrip(".")))
                for t in (method.input_type, method.output_type)
            )
            out[method.name] = Method(f"/runtime.v1.{service.name}/{method.name}", request, response)
    return out
