"""HTTP/2 (RFC 9113) and gRPC for the echo server; the framing is Debian's python3-h2."""

from __future__ import annotations

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable
from typing import Any

import grpc_wire
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived, StreamEnded, StreamReset, WindowUpdated
from h2.exceptions import ProtocolError, StreamClosedError
from report import Body, Connection, line, merged, page
from wish import wish


class Stream:
    """One request: its fields, and the pieces of its body as they come, with what they count for (None = end)."""

    def __init__(self, number: int, fields: list[tuple[str, str]]) -> None:
        self.number, self.fields = number, fields
        self.pieces: asyncio.Queue[tuple[bytes, int] | None] = asyncio.Queue()


class Session:
    """One connection with its streams; every stream is a task of its own."""

    def __init__(self, reader: StreamReader, writer: StreamWriter, connection: Connection) -> None:
        self.reader, self.writer, self.connection = reader, writer, connection
        self.h2 = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        self.streams: dict[int, tuple[Stream, asyncio.Task[None]]] = {}
        self.window = asyncio.Condition()

    async def serve(self, begun: bytes) -> None:
        """Until the peer closes; a protocol error ends the connection with GOAWAY."""
        self.h2.initiate_connection()
        data = begun
        try:
            while True:
                for event in self.h2.receive_data(data):
                    await self._on(event)
                await self.flush()
                data = await self.reader.read(1 << 16)
                if not data:
                    return
        except (ProtocolError, UnicodeDecodeError):
            await self.flush()
        finally:
            tasks = [task for _, task in self.streams.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def flush(self) -> None:
        self.writer.write(self.h2.data_to_send())
        await self.writer.drain()

    async def _on(self, event: Any) -> None:
        match event:
            case RequestReceived():
                stream = Stream(event.stream_id, [(str(n), str(v)) for n, v in event.headers])
                self.streams[stream.number] = stream, asyncio.create_task(self._answer(stream))
            case DataReceived():
                if found := self.streams.get(event.stream_id):
                    found[0].pieces.put_nowait((event.data, event.flow_controlled_length))
                else:
                    self._credit(event.stream_id, event.flow_controlled_length)
            case StreamEnded():
                if found := self.streams.get(event.stream_id):
                    found[0].pieces.put_nowait(None)
            case StreamReset():
                if found := self.streams.pop(event.stream_id, None):
                    found[1].cancel()
            case WindowUpdated():
                async with self.window:
                    self.window.notify_all()

    def _credit(self, number: int, size: int) -> None:
        if size:
            self.h2.acknowledge_received_data(size, number)

    async def _piece(self, stream: Stream) -> bytes | None:
        """The next piece of a body. Only what was taken opens the peer's window: a slow stream holds little."""
        found = await stream.pieces.get()
        if found is None:
            return None
        self._credit(stream.number, found[1])
        await self.flush()
        return found[0]

    async def _answer(self, stream: Stream) -> None:
        headers = merged(stream.fields)
        try:
            if headers.get("content-type", "").startswith("application/grpc"):
                await self._grpc(stream, headers)
            else:
                await self._plain(stream, headers)
        except StreamClosedError:
            return  # The peer went away while the answer was made.
        finally:
            self.streams.pop(stream.number, None)
            while not stream.pieces.empty():
                if left := stream.pieces.get_nowait():
                    self._credit(stream.number, left[1])

    def _seen(self, headers: dict[str, str]) -> dict[str, Any]:
        plain = {name: value for name, value in headers.items() if not name.startswith(":")}
        return {
            "method": headers.get(":method", ""),
            "authority": headers.get(":authority", plain.get("host", "")),
            "path": headers.get(":path", ""),
            "headers": plain,
        }

    async def _plain(self, stream: Stream, headers: dict[str, str]) -> None:
        body = Body()
        while (piece := await self._piece(stream)) is not None:
            body.add(piece)
        seen = self._seen(headers)
        try:
            wanted = wish(seen["path"])
        except ValueError as error:
            await self._reply(stream, 400, "text/plain", f"{error}\n".encode(), seen["method"] == "HEAD")
            return
        await asyncio.sleep(wanted.delay)
        kind = "application/json" if wanted.size is None else "application/octet-stream"
        content = b"x" * (wanted.size or 0)
        if wanted.size is None:
            content = page(self.connection.report("HTTP/2", **seen, body=body.seen()))
        await self._reply(stream, wanted.status, kind, content, seen["method"] == "HEAD")

    async def _reply(self, stream: Stream, status: int, kind: str, content: bytes, empty: bool) -> None:
        bare = empty or status in (204, 304)
        fields = [(":status", str(status)), ("server", "echo")]
        if status not in (204, 304):
            fields += [("content-type", kind), ("content-length", str(len(content)))]
        self.h2.send_headers(stream.number, fields, end_stream=bare or not content)
        if content and not bare:
            await self.send(stream.number, content)
            self.h2.end_stream(stream.number)
        await self.flush()

    async def send(self, number: int, data: bytes) -> None:
        """Send as fast as the peer's windows allow."""
        while data:
            room = min(self.h2.local_flow_control_window(number), self.h2.max_outbound_frame_size)
            if room <= 0:
                await self.flush()
                async with self.window:
                    if self.h2.local_flow_control_window(number) <= 0:
                        await self.window.wait()
                continue
            self.h2.send_data(number, data[:room])
            data = data[room:]
            await self.flush()

    async def _grpc(self, stream: Stream, headers: dict[str, str]) -> None:
        method = headers.get(":path", "")
        if method not in grpc_wire.METHODS:
            self._end(stream, grpc_wire.UNIMPLEMENTED, f"no method {method}", first=True)
            await self.flush()
            return
        self.h2.send_headers(stream.number, [(":status", "200"), ("content-type", "application/grpc")])
        try:
            await self._messages(stream, method, self._say(headers))
            self._end(stream, grpc_wire.OK)
        except grpc_wire.Malformed as error:
            self._end(stream, error.status, str(error))
        await self.flush()

    def _say(self, headers: dict[str, str]) -> Callable[[str], bytes]:
        seen = self._seen(headers)
        return lambda text: line(self.connection.report("gRPC", **seen, message=text))

    async def _messages(self, stream: Stream, method: str, say: Callable[[str], bytes]) -> None:
        parser = grpc_wire.Parser()
        count = 0
        while (piece := await self._piece(stream)) is not None:
            for message in parser.feed(piece):
                count += 1
                if method in grpc_wire.HEALTH:
                    await self.send(stream.number, grpc_wire.message(grpc_wire.SERVING))
                else:
                    report = say(grpc_wire.text(message))
                    await self.send(stream.number, grpc_wire.message(grpc_wire.string(report)))
        if parser.rest or (not count and method not in grpc_wire.STREAMS):
            raise grpc_wire.Malformed(grpc_wire.INTERNAL, "the message is not whole")
        if method == grpc_wire.WATCH:
            await asyncio.Event().wait()  # Its state never changes; the caller ends it.

    def _end(self, stream: Stream, status: int, why: str = "", *, first: bool = False) -> None:
        fields = [("grpc-status", str(status))]
        if why:
            fields.append(("grpc-message", grpc_wire.percent(why)))
        if first:
            fields = [(":status", "200"), ("content-type", "application/grpc"), *fields]
        self.h2.send_headers(stream.number, fields, end_stream=True)
