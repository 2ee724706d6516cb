"""The least that an aiohttp server can do for the same requests: no store, no checks, no versions.

POST /objects decodes a body and answers it; GET /stream stays open; POST /change sends its body to every stream.
"""

from __future__ import annotations

import asyncio
import sys

import msgspec

from pervade.wire.http import web

_streams: set[asyncio.Queue[bytes]] = set()


async def _create(request: web.Request) -> web.Response:
    obj = msgspec.json.decode(await request.read())
    return web.Response(status=201, body=msgspec.json.encode(obj), content_type="application/json")


async def _stream(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    response.enable_chunked_encoding()
    await response.prepare(request)
    queue: asyncio.Queue[bytes] = asyncio.Queue()
    _streams.add(queue)
    # With aiohttp the headers wait for the first bytes of the body.
    await response.write(b"{}\n")
    try:
        while True:
            await response.write(await queue.get())
    finally:
        _streams.discard(queue)


async def _change(request: web.Request) -> web.Response:
    line = await request.read() + b"\n"
    for queue in _streams:
        queue.put_nowait(line)
    return web.Response(body=line, content_type="application/json")


async def _ready(_request: web.Request) -> web.Response:
    return web.Response(text="ok")


if __name__ == "__main__":
    app = web.Application()
    app.add_routes([web.post("/objects", _create), web.get("/stream", _stream), web.get("/readyz", _ready)])
    app.add_routes([web.post("/change", _change), web.put("/change", _change)])
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None, backlog=2048)
