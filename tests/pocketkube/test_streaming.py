"""What a command in a pod writes reaches its reader, however slow that is."""

from __future__ import annotations

import asyncio
import json
import os
import socket

from aiohttp import ClientSession, TCPConnector, WSMsgType, web

from pocketkube import credentials
from pocketkube.apiserver import streaming
from pocketkube.kubelet.logs import LogFile, LogOptions, read_log
from pocketkube.kubelet.process import PIPE, PipeReader


def test_a_reader_that_pauses_gets_the_end_too(tmp_path):
    """``kubectl exec … | less``: the command has ended, and its last words wait on this side."""

    identity = credentials.load_or_create(tmp_path, addresses=("127.0.0.1",), names=())

    async def run() -> None:
        sent, gone = 0, asyncio.Event()

        async def command(request: web.Request) -> web.WebSocketResponse:
            nonlocal sent
            channels = streaming._Channels(request)
            await channels.open()
            while not request.transport.get_write_buffer_size():  # the kernel takes no more
                channels.send(streaming.STDOUT, b"x" * 1000)
                sent += 1000
                await asyncio.sleep(0)
            gone.set()
            await channels.finish(streaming.SUCCESS)
            return channels.response

        app = web.Application()
        app.router.add_get("/", command)
        runner = web.AppRunner(app, shutdown_timeout=1)
        await runner.setup()
        listener = socket.create_server(("127.0.0.1", 0))
        await web.SockSite(runner, listener, ssl_context=identity.server_context()).start()
        try:
            async with ClientSession(connector=TCPConnector(ssl=False)) as session:
                url = f"https://127.0.0.1:{listener.getsockname()[1]}/"
                async with session.ws_connect(url, protocols=streaming.PROTOCOLS, autoping=False, max_msg_size=0) as client:
                    for _ in range(streaming.PINGS):
                        await client.pong((await client.receive()).data)
                    transport = client._conn.transport
                    transport.pause_reading()
                    await gone.wait()
                    await asyncio.sleep(2.5)  # longer than a client is waited for that has gone
                    await client.ping(b"alive")  # as kubectl does: a TLS connection in closing then drops what is not sent
                    transport.resume_reading()
                    got, last = 0, b""
                    while (message := await client.receive()).type == WSMsgType.BINARY:
                        if message.data[0] == streaming.STDOUT:
                            got += len(message.data) - 1
                        last = message.data
                    assert got == sent
                    assert last[0] == streaming.ERROR and json.loads(last[1:]) == streaming.SUCCESS
        finally:
            await runner.cleanup()

    asyncio.run(asyncio.wait_for(run(), 60))


def test_what_a_pipe_holds_is_taken_even_while_paused():
    async def run() -> None:
        read_end, write_end = os.pipe()
        got = bytearray()
        reader = PipeReader(read_end, got.extend)
        reader.pause()
        os.write(write_end, b"x" * PIPE)
        reader.take()
        assert len(got) == PIPE and not reader.done.is_set()  # somebody may still write
        os.write(write_end, b"end")
        os.close(write_end)
        reader.take()
        assert got.endswith(b"xend") and reader.done.is_set()

    asyncio.run(run())


def test_a_followed_log_shows_each_line_once(tmp_path):
    """What is written while the stored lines are still on their way comes from the follower's queue alone."""

    async def run() -> None:
        log = LogFile(tmp_path / "0.log")
        log.write("stdout", b"".join(b"%d\n" % n for n in range(20_000)))
        pieces = read_log(log.path, LogOptions(follow=True), log)
        got = bytearray(await pieces.__anext__())
        log.write("stdout", b"late\n")
        log.close()
        async for piece in pieces:
            got += piece
        assert got.decode().splitlines() == [*map(str, range(20_000)), "late"]

    asyncio.run(run())
