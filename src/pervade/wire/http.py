"""aiohttp, behind one door: the names the other rooms may use for HTTP servers and clients."""

from __future__ import annotations

from asyncio import sslproto

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

# asyncio keeps a buffer of this size for every TLS connection and allocates as much for every read of it. Its
# 256 KiB make a thousand idle watches cost 256 MB; a TLS record is 16 KiB at most (RFC 8446, 5.1).
sslproto.SSLProtocol.max_size = 32 * 1024
