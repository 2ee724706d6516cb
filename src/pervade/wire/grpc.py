"""grpcio, behind one door: the names the other rooms may use for gRPC."""

from __future__ import annotations

import grpc
from grpc import RpcError, StatusCode, aio

__all__ = ["RpcError", "StatusCode", "aio", "grpc"]
