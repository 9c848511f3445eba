"""Port forwarding: SPDY/3.1 frames inside the messages of a WebSocket (KEP 4006), or the older channels of Python clients.

For each connection that is made to its local port, kubectl opens two streams with the same ``requestid``: ``error``, on which
the server says what went wrong, and ``data``, which carries the bytes. Only what the two ends use of SPDY is here: no flow
control (spdystream, the client's library, has none either), no priorities, no settings.
https://www.chromium.org/spdy/spdy-protocol/spdy-protocol-draft3-1/
"""

from __future__ import annotations

import asyncio
import logging
import struct
import zlib
from dataclasses import dataclass, field

from aiohttp import WSMsgType, web

from . import probes

PROTOCOL = "SPDY/3.1+portforward.k8s.io"
CHANNELS = "v4.channel.k8s.io"
SYN_STREAM, SYN_REPLY, RST_STREAM, SETTINGS, PING, GOAWAY, HEADERS, WINDOW_UPDATE = 1, 2, 3, 4, 6, 7, 8, 9
FIN = 1
_CHUNK = 32768
_log = logging.getLogger(__name__)

_WORDS = (
    "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow authorization "
    "cache-control connection content-base content-encoding content-language content-length content-location content-md5 content-range "
    "content-type date etag expect expires from host if-match if-modified-since if-none-match if-range if-unmodified-since last-modified "
    "location max-forwards pragma proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding "
    "upgrade user-agent vary via warning www-authenticate method get status 200_OK version HTTP/1.1 url public set-cookie keep-alive origin"
)
# The dictionary that header compression starts with (section 2.6.10.1): these words with their lengths before them, then this text.
DICTIONARY = b"".join(struct.pack(">I", len(word)) + word.replace("_", " ").encode() for word in _WORDS.split()) + (
    b"100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    b"203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 Not Found"
    b"500 Internal Server Error501 Not Implemented503 Service Unavailable"
    b"Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT"
    b"chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,"
    b"publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)


class ProtocolError(Exception):
    """The client sends what isn't SPDY/3.1."""


class Headers:
    """Header blocks, each direction compressed as one stream."""

    def __init__(self) -> None:
        self._decompress = zlib.decompressobj(zdict=DICTIONARY)
        self._compress = zlib.compressobj(level=9, zdict=DICTIONARY)

    def decode(self, block: bytes) -> dict[str, str]:
        """Names and values of a received block."""
        try:
            data = self._decompress.decompress(block)
        except zlib.error as error:
            raise ProtocolError(f"header block: {error}") from error
        place, result = 4, {}
        try:
            for _ in range(struct.unpack_from(">I", data)[0]):
                texts = []
                for _ in range(2):
                    (length,) = struct.unpack_from(">I", data, place)
                    texts.append(data[place + 4 : place + 4 + length].decode())
                    place += 4 + length
                result[texts[0].lower()] = texts[1]
        except (struct.error, UnicodeDecodeError) as error:
            raise ProtocolError(f"header block: {error}") from error
        return result

    def encode(self, headers: dict[str, str]) -> bytes:
        """A block to send."""
        data = struct.pack(">I", len(headers))
        for texts in headers.items():
            for text in texts:
                data += struct.pack(">I", len(text)) + text.encode()
        return self._compress.compress(data) + self._compress.flush(zlib.Z_SYNC_FLUSH)


@dataclass
class _Stream:
    number: int
    headers: dict[str, str]
    incoming: asyncio.Queue = field(default_factory=lambda: asyncio.Queue(64))  # bytes; None ends it


class _Connection:
    def __init__(self, socket: web.WebSocketResponse, netns: str, pod: str) -> None:
        self._socket = socket
        self._netns = netns
        self._pod = pod
        self._headers = Headers()
        self._buffer = bytearray()
        self._streams: dict[int, _Stream] = {}
        self._pairs: dict[str, dict[str, _Stream]] = {}
        self._tasks: set[asyncio.Task] = set()

    async def run(self) -> None:
        try:
            async for message in self._socket:
                if message.type != WSMsgType.BINARY:
                    break
                self._buffer.extend(message.data)
                while (frame := self._next_frame()) is not None:
                    await self._handle(*frame)
        except ProtocolError as error:
            _log.warning("port-forward to %s: %s", self._pod, error)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self._socket.close()

    def _next_frame(self) -> tuple[int, int, int, bytes] | None:
        """(type, stream, flags, payload) of the next whole frame; type 0 is data."""
        if len(self._buffer) < 8:
            return None
        first, second = struct.unpack_from(">II", self._buffer)
        length = second & 0xFFFFFF
        if len(self._buffer) < 8 + length:
            return None
        payload = bytes(self._buffer[8 : 8 + length])
        del self._buffer[: 8 + length]
        if not first >> 31:
            return 0, first, second >> 24, payload
        if (first >> 16) & 0x7FFF != 3:
            raise ProtocolError(f"SPDY version {(first >> 16) & 0x7FFF}, not 3")
        return first & 0xFFFF, 0, second >> 24, payload

    async def _handle(self, kind: int, number: int, flags: int, payload: bytes) -> None:
        if kind == 0:
            stream = self._streams.get(number)
            if stream is not None:
                if payload:
                    await stream.incoming.put(payload)
                if flags & FIN:
                    await stream.incoming.put(None)
        elif kind == SYN_STREAM:
            (number,) = struct.unpack_from(">I", payload)
            stream = _Stream(number & 0x7FFFFFFF, self._headers.decode(payload[10:]))
            self._streams[stream.number] = stream
            if flags & FIN:
                await stream.incoming.put(None)
            await self._control(SYN_REPLY, struct.pack(">I", stream.number) + self._headers.encode({}))
            self._pair(stream)
        elif kind == HEADERS:
            self._headers.decode(payload[4:])  # the compression has one state for all of them
        elif kind == PING:
            await self._control(PING, payload)
        elif kind == RST_STREAM:
            stream = self._streams.pop(struct.unpack_from(">I", payload)[0] & 0x7FFFFFFF, None)
            if stream is not None:
                await stream.incoming.put(None)

    def _pair(self, stream: _Stream) -> None:
        request = stream.headers.get("requestid", "")
        pair = self._pairs.setdefault(request, {})
        pair[stream.headers.get("streamtype", "")] = stream
        if "data" in pair and "error" in pair:
            del self._pairs[request]
            task = asyncio.ensure_future(self._forward(pair["data"], pair["error"]))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _forward(self, data: _Stream, error: _Stream) -> None:
        port = data.headers.get("port", "")
        try:
            try:
                sock = await probes.connect(self._netns, "127.0.0.1", int(port))
            except (OSError, ValueError) as problem:
                why = "connection refused" if isinstance(problem, ConnectionRefusedError) else str(problem)
                await self._data(
                    error.number,
                    (
                        f"error forwarding port {port} to pod {self._pod}, uid : failed to execute portforward in network namespace "
                        f'"{self._netns}": failed to connect to localhost:{port} inside namespace "{self._pod}", IPv4: '
                        f"dial tcp4 127.0.0.1:{port}: connect: {why} "
                    ).encode(),
                )
                return
            reader, writer = await asyncio.open_connection(sock=sock)
            try:
                upward = asyncio.ensure_future(self._upward(data, writer))
                while chunk := await reader.read(_CHUNK):
                    await self._data(data.number, chunk)
                await self._data(data.number, b"", FIN)
                # The server has closed. What the client may still send has nowhere to go.
                upward.cancel()
            except OSError as problem:
                await self._data(error.number, f"error forwarding port {port} to pod {self._pod}: {problem}".encode())
            finally:
                upward.cancel()
                writer.close()
        finally:
            for stream in (error, data):
                await self._data(stream.number, b"", FIN)
                self._streams.pop(stream.number, None)

    async def _upward(self, stream: _Stream, writer: asyncio.StreamWriter) -> None:
        while (data := await stream.incoming.get()) is not None:
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()

    async def _data(self, number: int, data: bytes, flags: int = 0) -> None:
        await self._send(struct.pack(">II", number, flags << 24 | len(data)) + data)

    async def _control(self, kind: int, payload: bytes, flags: int = 0) -> None:
        await self._send(struct.pack(">HHI", 0x8003, kind, flags << 24 | len(payload)) + payload)

    async def _send(self, frame: bytes) -> None:
        try:
            await self._socket.send_bytes(frame)
        except (ConnectionError, RuntimeError):  # the client has gone; `run` ends too
            return


async def serve(socket: web.WebSocketResponse, netns: str, pod: str) -> None:
    """Serves one client's port forwarding until it goes.

    Args:
        socket: an accepted WebSocket of the subprotocol `PROTOCOL`.
        netns: path of the pod's network namespace.
        pod: its name, for messages.
    """
    await _Connection(socket, netns, pod).run()


async def serve_channels(socket: web.WebSocketResponse, netns: str, pod: str, ports: list[int]) -> None:
    """Serves a client of the protocol `CHANNELS`: one connection for each port, that was named in the request.

    Channel 2n carries the data of the n-th port, 2n+1 its errors; the first message on each is the port's number.
    """
    writers: dict[int, asyncio.StreamWriter] = {}
    tasks: set[asyncio.Task] = set()

    async def download(channel: int, reader: asyncio.StreamReader) -> None:
        try:
            while chunk := await reader.read(_CHUNK):
                await socket.send_bytes(bytes([channel]) + chunk)
        except OSError as problem:
            await socket.send_bytes(bytes([channel + 1]) + f"error forwarding to pod {pod}: {problem}".encode())
        writers.pop(channel).close()
        if not writers:
            await socket.close()

    try:
        for index, port in enumerate(ports):
            for channel in (2 * index, 2 * index + 1):
                await socket.send_bytes(bytes([channel]) + struct.pack("<H", port))
            try:
                reader, writers[2 * index] = await asyncio.open_connection(sock=await probes.connect(netns, "127.0.0.1", port))
            except OSError as problem:
                text = f"error forwarding port {port} to pod {pod}, uid : failed to connect to localhost:{port}: {problem}"
                await socket.send_bytes(bytes([2 * index + 1]) + text.encode())
                continue
            tasks.add(asyncio.ensure_future(download(2 * index, reader)))
        async for message in socket:
            if message.type == WSMsgType.BINARY and len(message.data) > 1 and message.data[0] in writers:
                writers[message.data[0]].write(message.data[1:])
                await writers[message.data[0]].drain()
    except ConnectionError as problem:
        _log.debug("port-forward to %s: %s", pod, problem)
    finally:
        for task in tasks:
            task.cancel()
        for writer in writers.values():
            writer.close()
        await socket.close()
