"""The cluster's control socket: what kind does with ``docker exec``, this does with lines of JSON.

It is a Unix socket in the state directory that only its owner can open. One request a line, one answer a line, in
order; a connection may send many.

=========================================================  ====================================================
request                                                    answer
=========================================================  ====================================================
``{"op": "run", "on": "<node>" or "outside",               ``{"status": 0, "stdout": "…", "stderr": "…"}``
"argv": ["ip", "route"], "input": null, "timeout": 30}``
``{"op": "status"}``                                       ``{"name": …, "pid": …, "nodes": […], "ports": {…}}``
``{"op": "stop"}``                                         ``{"stopping": true}``, then the cluster ends
anything else                                              ``{"error": "what is wrong with it"}``
=========================================================  ====================================================

A program that is still running when its caller hangs up is killed.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
from pathlib import Path

from pocketkube.network import Network

log = logging.getLogger(__name__)
LINE_LIMIT = 16 * 1024 * 1024  # bytes in a request: a manifest on standard input fits many times over
LONGEST_RUN = 3600  # seconds


class ControlServer:
    """Answers on ``DIRECTORY/control.sock``.

    Args:
        path: where the socket is made; an old one is replaced (the caller holds the state directory's lock).
        network: the nodes that programs are run on.
        status: called for the answer to ``status``.
        stop: called on ``stop``; must return at once.
    """

    def __init__(self, path: Path, network: Network, *, status, stop):
        self._path = path
        self._network = network
        self._status = status
        self._stop = stop
        self._server: asyncio.AbstractServer | None = None
        self._connections: set[asyncio.Task] = set()

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_unix_server(self._serve, sock=bind_unix(self._path), limit=LINE_LIMIT)

    async def stop(self) -> None:
        """Hang up on everyone."""
        if self._server is not None:
            self._server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        self._path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        self._connections.add(task)
        try:
            upcoming = asyncio.ensure_future(reader.readline())
            while line := await upcoming:
                upcoming = asyncio.ensure_future(reader.readline())
                work = asyncio.ensure_future(self._answer(line))
                try:
                    # The next line is read already, to notice a caller who has hung up.
                    while not work.done():
                        await asyncio.wait({work, upcoming}, return_when=asyncio.FIRST_COMPLETED)
                        if upcoming.done() and not work.done():
                            if not upcoming.result():
                                return
                            await work
                finally:
                    if not work.done():
                        work.cancel()
                        await asyncio.gather(work, return_exceptions=True)
                answer = work.result()
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()
                if answer.get("stopping"):
                    self._stop()
        except (ConnectionError, ValueError) as error:  # ValueError: a line over the limit
            log.info("control connection ended: %s", error)
        except asyncio.CancelledError:
            pass  # the cluster is stopping
        finally:
            self._connections.discard(task)
            upcoming.cancel()
            writer.close()

    async def _answer(self, line: bytes) -> dict:
        try:
            request = json.loads(line)
            operation = request["op"]
        except (ValueError, KeyError, TypeError) as error:
            return {"error": f'not a request such as {{"op": "status"}}: {error!r}'}
        if operation == "status":
            return self._status()
        if operation == "stop":
            return {"stopping": True}
        if operation == "run":
            return await self._run(request)
        return {"error": f'unknown op "{operation}": use run, status or stop'}

    async def _run(self, request: dict) -> dict:
        place, argv = request.get("on"), request.get("argv")
        if not (isinstance(argv, list) and argv and all(isinstance(one, str) for one in argv)):
            return {"error": "argv must be a list of strings, the program first"}
        if place != "outside" and place not in self._network.nodes:
            return {"error": f'no node "{place}": there are {", ".join(self._network.nodes)}, and "outside"'}
        run = self._network.run_outside if place == "outside" else self._network.nodes[place].run
        text = request.get("input")
        timeout = min(float(request.get("timeout") or 30), LONGEST_RUN)
        try:
            status, out, err = await run(argv, input=None if text is None else text.encode(), timeout=timeout)
        except asyncio.TimeoutError:
            return {"error": f"{argv[0]} on {place} did not end within {timeout:g} s and was stopped"}
        except OSError as error:
            return {"error": f"{argv[0]} can't be run on {place}: {error.strerror or error}"}
        return {"status": status, "stdout": out.decode(errors="replace"), "stderr": err.decode(errors="replace")}


def bind_unix(path: Path) -> socket.socket:
    """A Unix socket at ``path`` with mode 0600, however long the path is (an address holds 107 characters)."""
    path.unlink(missing_ok=True)
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    old_mask = os.umask(0o177)
    try:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        sock.bind(f"/proc/self/fd/{directory}/{path.name}")
        return sock
    finally:
        os.umask(old_mask)
        os.close(directory)
