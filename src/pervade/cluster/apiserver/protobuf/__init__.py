"""Kubernetes' protobuf encoding of objects, decoded to their JSON form (requests only; answers are JSON).

Format: four magic bytes, a `runtime.Unknown` envelope, then the message of the kind (Kubernetes API
concepts, "Protobuf encoding"). Field numbers come from tables made by `tools/gen_protobuf_table.py`,
one per API package, read when first needed.
"""

from __future__ import annotations

from pervade.cluster.apiserver.protobuf.decode import MAGIC, ProtobufError, decode

__all__ = ["MAGIC", "ProtobufError", "decode"]
