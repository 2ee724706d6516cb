"""aiohttp, behind one door: the names the other rooms may use for HTTP servers and clients."""

from __future__ import annotations

from aiohttp import (
    ClientConnectionError,
    ClientConnectorError,
    ClientError,
    ClientPayloadError,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    ClientWebSocketResponse,
    TCPConnector,
    UnixConnector,
    WSMsgType,
    web,
)

__all__ = [
    "ClientConnectionError",
    "ClientConnectorError",
    "ClientError",
    "ClientPayloadError",
    "ClientResponse",
    "ClientSession",
    "ClientTimeout",
    "ClientWebSocketResponse",
    "TCPConnector",
    "UnixConnector",
    "WSMsgType",
    "web",
]
