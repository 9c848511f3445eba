"""The subresources that are streams: ``log``, ``exec``, ``attach`` and ``portforward``.

The API server of a real cluster hands these on to the kubelet of the pod's node; here the kubelet is an object in the
same process. Streams are WebSockets, as kubectl 1.31 and newer use them: one message carries one channel's data, its first
byte is the channel's number (KEP 4006, https://kep.k8s.io/4006).
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import logging
import os
import signal
import struct
import termios
import time
from collections.abc import Awaitable, Callable

from aiohttp import WSMsgType, web

from ..kubelet import portforward as forwarding
from ..kubelet.logs import LogOptions, parse_time, read_log
from ..kubelet.process import PipeReader, Process, write_all
from .errors import ApiError, bad_request

_log = logging.getLogger(__name__)

STDIN, STDOUT, STDERR, ERROR, RESIZE, CLOSE = 0, 1, 2, 3, 4, 255
PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
# The most that is sent and not yet taken by a slow client before the program in the container has to wait, in bytes.
HIGH_WATER = 1 << 20
PONG_TIMEOUT = 5.0  # seconds
PINGS = 4
IDLE_TIMEOUT = 4 * 3600.0  # seconds until a client is given up that takes nothing; the kubelet's --streaming-connection-idle-timeout


# ------------------------------------------------------------------------------------------------------------ helpers


def _worker(request: web.Request, pod: dict):
    """The worker of a pod, on whichever node it is."""
    from .http import KUBELETS

    name, node = pod["metadata"]["name"], pod["spec"].get("nodeName")
    if not node:
        raise bad_request(f"pod {name} does not have a host assigned")
    kubelet = request.app[KUBELETS].get(node)
    worker = kubelet.worker(pod["metadata"]["namespace"], name) if kubelet else None
    if worker is None:
        raise ApiError(404, "NotFound", f"pod {name} is not (or no longer) on node {node}")
    return worker


def _container_name(pod: dict, wanted: str | None) -> str:
    spec, name = pod["spec"], pod["metadata"]["name"]
    main = [c["name"] for c in spec["containers"]]
    init = [c["name"] for c in spec.get("initContainers") or []]
    if wanted:
        if wanted not in main + init:
            raise bad_request(f"container {wanted} is not valid for pod {name}")
        return wanted
    if len(main) > 1:
        default = (pod["metadata"].get("annotations") or {}).get("kubectl.kubernetes.io/default-container")
        if default in main:
            return default
        message = f"a container name must be specified for pod {name}, choose one of: [{' '.join(main)}]"
        if init:
            message += f" or one of the init containers: [{' '.join(init)}]"
        raise bad_request(message)
    return main[0]


def _flag(request: web.Request, name: str) -> bool:
    return request.query.get(name, "").lower() in ("1", "true")


def _number(request: web.Request, name: str) -> int | None:
    text = request.query.get(name)
    if text is None or text == "":
        return None
    try:
        return int(text)
    except ValueError:
        raise bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None


def _refuse_spdy(request: web.Request) -> None:
    if request.headers.get("Upgrade", "").lower().startswith("spdy"):
        raise bad_request(
            "this cluster speaks WebSockets, not SPDY, for exec, attach and port-forward: use kubectl 1.31 or newer "
            "(and leave KUBECTL_REMOTE_COMMAND_WEBSOCKETS and KUBECTL_PORT_FORWARD_WEBSOCKETS alone)"
        )
    if request.headers.get("Upgrade", "").lower() != "websocket":
        raise bad_request("Upgrade request required")


# ---------------------------------------------------------------------------------------------------------------- log


async def log(request: web.Request, pod: dict) -> web.StreamResponse:
    """``GET …/pods/NAME/log``."""
    name = pod["metadata"]["name"]
    container = _container_name(pod, request.query.get("container"))
    tail = _number(request, "tailLines")
    since, since_time = _number(request, "sinceSeconds"), request.query.get("sinceTime")
    limit = _number(request, "limitBytes")
    if tail is not None and tail < 0:
        raise _invalid("tailLines", tail, "must be greater than or equal to 0")
    if since is not None and since < 1:
        raise _invalid("sinceSeconds", since, "must be greater than 0")
    if limit is not None and limit < 1:
        raise _invalid("limitBytes", limit, "must be greater than 0")
    options = LogOptions(
        follow=_flag(request, "follow"),
        tail_lines=tail,
        timestamps=_flag(request, "timestamps"),
        limit_bytes=limit,
        since=time.time() - since if since is not None else parse_time(since_time) if since_time else None,
        stream=request.query.get("stream") or "All",
    )
    if not pod["spec"].get("nodeName"):  # not scheduled yet: nothing to show, and no error either
        return web.Response(text="", content_type="text/plain")
    worker = _worker(request, pod)
    state = worker.state(container)
    if state is None:
        raise bad_request(f"container {container} is not valid for pod {name}")
    live = None
    if _flag(request, "previous"):
        if state.last is None and not (state.terminated is not None and state.waiting[0]):
            raise bad_request(f'previous terminated container "{container}" in pod "{name}" not found')
        run = state.run if state.terminated is not None and state.waiting[0] else state.run - 1
    else:
        if state.container is None and state.terminated is None and state.last is None:
            reason = state.waiting[0] or "ContainerCreating"
            words = {
                "ErrImagePull": "image can't be pulled",
                "ImagePullBackOff": "trying and failing to pull image",
                "InvalidImageName": "image can't be pulled",
            }
            raise bad_request(f'container "{container}" in pod "{name}" is waiting to start: {words.get(reason, reason)}')
        run, live = state.run, state.log
    response = web.StreamResponse(headers={"Content-Type": "text/plain"})
    await response.prepare(request)
    try:
        async for piece in read_log(worker.log_path(state, run), options, live):
            await response.write(piece)
        await response.write_eof()
    except (ConnectionResetError, ConnectionError):
        pass  # the reader has gone: Ctrl-C on kubectl logs -f
    return response


def _invalid(field: str, value: int, why: str) -> ApiError:
    message = f'PodLogOptions.v1 "" is invalid: {field}: Invalid value: {value}: {why}'
    return ApiError(
        422, "Invalid", message, {"kind": "PodLogOptions", "causes": [{"reason": "FieldValueInvalid", "field": field, "message": why}]}
    )


# --------------------------------------------------------------------------------------------------- channel protocol


class _Channels:
    """A WebSocket that carries numbered channels, and the rules of its two protocol versions."""

    def __init__(self, request: web.Request) -> None:
        self._socket = web.WebSocketResponse(
            timeout=IDLE_TIMEOUT, protocols=PROTOCOLS, autoping=False, max_msg_size=0, heartbeat=None, compress=False
        )
        self._request = request
        self._early: list = []
        self._queue: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue()
        self._queued = 0
        self._drained = asyncio.Event()
        self._drained.set()
        self._writer: asyncio.Task | None = None
        self.on_congestion: Callable[[bool], None] = lambda full: None

    async def open(self) -> None:
        """Accepts the connection, and waits until the client reads.

        kubectl before 1.33 throws away what comes before it has made its streams. It reads, and answers pings, in a thread beside the
        one that makes them: several answered pings leave that one the time.
        """
        offered = [p.strip() for p in self._request.headers.get("Sec-WebSocket-Protocol", "").split(",")]
        if not set(offered) & set(PROTOCOLS):
            raise ApiError(
                400, "BadRequest", f"unable to upgrade: none of the protocols {offered} is spoken here; it is {', '.join(PROTOCOLS)}"
            )
        await self._socket.prepare(self._request)
        await self._socket.ping(b"ready")
        loop = asyncio.get_running_loop()
        deadline, answered = loop.time() + PONG_TIMEOUT, 0
        while True:
            try:
                message = await asyncio.wait_for(self._socket.receive(), max(0.01, deadline - loop.time()))
            except asyncio.TimeoutError:
                break  # a client that answers no pings: it has had its time
            if message.type == WSMsgType.PONG:
                answered += 1
                if answered == PINGS:
                    break
                await self._socket.ping(b"ready")
                continue
            self._early.append(message)
            if message.type in (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED, WSMsgType.ERROR):
                break
        self._writer = asyncio.ensure_future(self._write())

    def send(self, channel: int, data: bytes) -> None:
        """Queues data for the client."""
        self._queue.put_nowait((channel, data))
        self._queued += len(data)
        if self._queued > HIGH_WATER:
            self.on_congestion(True)

    async def _write(self) -> None:
        while True:
            channel, data = await self._queue.get()
            try:
                await self._socket.send_bytes(bytes([channel]) + data)
            except (ConnectionError, RuntimeError):
                return
            before, self._queued = self._queued, self._queued - len(data)
            if before > HIGH_WATER // 2 >= self._queued:
                self.on_congestion(False)
            if self._queue.empty():
                self._drained.set()

    async def receive(self):
        """The next (channel, data) of the client; None when it has gone."""
        while True:
            message = self._early.pop(0) if self._early else await self._socket.receive()
            if message.type == WSMsgType.PING:
                await self._socket.pong(message.data)
            elif message.type in (WSMsgType.BINARY, WSMsgType.TEXT):
                data = message.data if isinstance(message.data, bytes) else message.data.encode()
                if data:
                    return data[0], data[1:]
            elif message.type != WSMsgType.PONG:
                return None

    async def finish(self, status: dict) -> None:
        """Sends what is queued, then the final status, and closes once the client has taken it, however slow (``| less``)."""
        self.send(ERROR, json.dumps(status).encode())
        self._drained.clear()
        waiting = asyncio.ensure_future(self._drained.wait())
        await asyncio.wait([waiting, self._writer], return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        await self.close(IDLE_TIMEOUT)

    async def close(self, timeout: float = 2) -> None:
        """Closes the connection; what the client has not taken after ``timeout`` seconds is lost."""
        if self._writer is not None:
            self._writer.cancel()
        try:
            await asyncio.wait_for(self._socket.close(), timeout)
        except asyncio.TimeoutError:
            pass

    @property
    def response(self) -> web.WebSocketResponse:
        """What the handler returns."""
        return self._socket


SUCCESS = {"metadata": {}, "status": "Success"}


def _exit_status(code: int, command: list[str]) -> dict:
    if code == 0:
        return SUCCESS
    return {
        "metadata": {},
        "status": "Failure",
        "reason": "NonZeroExitCode",
        "message": f"command terminated with non-zero exit code: error executing command [{' '.join(command)}], exit code {code}",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


def _internal(message: str) -> dict:
    return {
        "metadata": {},
        "status": "Failure",
        "reason": "InternalError",
        "code": 500,
        "message": f"Internal error occurred: {message}",
        "details": {"causes": [{"message": message}]},
    }


async def _resize(terminal: int, data: bytes) -> None:
    try:
        size = json.loads(data)
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", size["Height"], size["Width"], 0, 0))
    except (ValueError, KeyError, OSError, struct.error) as error:
        _log.debug("terminal size %r not set: %s", data, error)


async def _pump_input(channels: _Channels, stdin: Callable[[bytes | None], Awaitable[None]] | None, terminal: int | None) -> None:
    """Hands what the client sends to the process, until the client goes; None is the end of its input."""
    while True:
        received = await channels.receive()
        if received is None:
            return
        channel, data = received
        if channel == STDIN and stdin is not None:
            await stdin(data)
        elif channel == RESIZE and terminal is not None:
            await _resize(terminal, data)
        elif channel == CLOSE and data[:1] == bytes([STDIN]) and stdin is not None:
            await stdin(None)


# --------------------------------------------------------------------------------------------------------------- exec


async def exec_(request: web.Request, pod: dict) -> web.StreamResponse:
    """``…/pods/NAME/exec?command=…``: runs a command in a container."""
    command = request.query.getall("command", [])
    if not command:
        raise bad_request("you must specify at least one command for the container")
    name = _container_name(pod, request.query.get("container"))
    if pod.get("status", {}).get("phase") in ("Succeeded", "Failed"):
        raise bad_request(f"cannot exec into a container in a completed pod; current phase is {pod['status']['phase']}")
    state = _worker(request, pod).state(name)
    _refuse_spdy(request)
    tty, want_stdin = _flag(request, "tty"), _flag(request, "stdin")
    channels = _Channels(request)
    await channels.open()
    if state is None or not state.running:
        await channels.finish(_internal(f'unable to upgrade connection: container not found ("{name}")'))
        return channels.response
    container = state.container
    problem = container.program_problem(command[0])
    if problem:
        failure = (
            f'error executing command in container: failed to exec in container: failed to start exec "{os.urandom(32).hex()}": '
            f"OCI runtime exec failed: exec failed: unable to start container process: {problem}: unknown"
        )
        await channels.finish(_internal(f"Internal error occurred: {failure}"))
        return channels.response
    ours: list[int] = []
    theirs: list[int] = []
    terminal: int | None = None
    stdin_fd: int | None = None
    environment = dict(container.exec_environment)
    try:
        if tty:
            terminal, slave = container.open_pty()
            theirs.append(slave)
            container.own(slave)
            environment.setdefault("TERM", "xterm")
            process = Process.start(container.exec_argv(command, tty=True), env=environment, stdin=slave, stdout=slave, stderr=slave)
            readers = [PipeReader(terminal, lambda data: channels.send(STDOUT, data))]
            stdin_fd = os.dup(terminal) if want_stdin else None
        else:
            if want_stdin:
                stdin_read, stdin_fd = os.pipe2(os.O_CLOEXEC)
            else:
                stdin_read = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            theirs.append(stdin_read)
            out_read, out_write = os.pipe2(os.O_CLOEXEC)
            err_read, err_write = os.pipe2(os.O_CLOEXEC)
            ours += [out_read, err_read]
            theirs += [out_write, err_write]
            container.own(out_write)
            container.own(err_write)
            process = Process.start(
                container.exec_argv(command), env=environment, stdin=stdin_read, stdout=out_write, stderr=err_write, new_session=True
            )
            readers = [
                PipeReader(out_read, lambda data: channels.send(STDOUT, data)),
                PipeReader(err_read, lambda data: channels.send(STDERR, data)),
            ]
    except OSError as error:
        for fd in ours:
            os.close(fd)
        await channels.finish(_internal(f"error executing command in container: {error}"))
        return channels.response
    finally:
        for fd in theirs:
            os.close(fd)
    if stdin_fd is not None:
        os.set_blocking(stdin_fd, False)

    def congestion(full: bool) -> None:
        for reader in readers:
            if full:
                reader.pause()
            else:
                reader.resume()

    channels.on_congestion = congestion

    async def feed(data: bytes | None) -> None:
        nonlocal stdin_fd
        if stdin_fd is None:
            return
        if data is None:
            if not tty:
                os.close(stdin_fd)
                stdin_fd = None
            return
        try:
            await write_all(stdin_fd, data)
        except OSError:  # the command reads no further
            return

    pump = asyncio.ensure_future(_pump_input(channels, feed, terminal))
    ending = asyncio.ensure_future(process.wait())
    try:
        await asyncio.wait([pump, ending], return_when=asyncio.FIRST_COMPLETED)
        if not ending.done():  # the client has gone: its end of the streams closes, as with a real kubelet
            if stdin_fd is not None:
                os.close(stdin_fd)
                stdin_fd = None
            if tty:
                process.signal(signal.SIGHUP)
            return channels.response
        # A command in the background may hold the pipes: don't wait for it long. What was written before is taken, even if the
        # client is too slow for it just now.
        for reader in readers:
            reader.take()
        for reader in readers:
            try:
                await asyncio.wait_for(reader.done.wait(), 2 if not tty else 0.5)
            except asyncio.TimeoutError:
                reader.close()
        channels.on_congestion = lambda full: None
        await channels.finish(_exit_status(ending.result(), command))
    finally:
        pump.cancel()
        ending.cancel()
        channels.on_congestion = lambda full: None
        for reader in readers:
            reader.close()
        if stdin_fd is not None:
            os.close(stdin_fd)
        await channels.close()
    return channels.response


# ------------------------------------------------------------------------------------------------------------- attach


async def attach(request: web.Request, pod: dict) -> web.StreamResponse:
    """``…/pods/NAME/attach``: the streams of a container's first process.

    The first client of a container that was made for one (``stdinOnce``, as by ``kubectl run -i``) also gets what was written
    before it came.
    """
    name = _container_name(pod, request.query.get("container"))
    worker = _worker(request, pod)
    state = worker.state(name)
    once = state is not None and bool(state.spec.get("stdinOnce"))
    unseen = once and state.container is not None and not state.container.was_attached and state.container.written
    if pod.get("status", {}).get("phase") in ("Succeeded", "Failed") and not unseen:
        raise bad_request(f"cannot attach a container in a completed pod; current phase is {pod['status']['phase']}")
    _refuse_spdy(request)
    channels = _Channels(request)
    await channels.open()
    if state is None or not (state.running or unseen):
        full_name = f"{pod['metadata']['name']}_{pod['metadata']['namespace']}"
        await channels.finish(_internal(f"unable to upgrade connection: container {name} not found in pod {full_name}"))
        return channels.response
    container = state.container
    want = {"stdout": _flag(request, "stdout"), "stderr": _flag(request, "stderr")}

    def listen(stream: str, data: bytes) -> None:
        if want[stream]:
            channels.send(STDOUT if stream == "stdout" else STDERR, data)

    first = once and not container.was_attached
    container.was_attached = True
    if first:
        for stream, data in container.written:
            listen(stream, data)
        container.written.clear()
    container.listeners.add(listen)

    async def feed(data: bytes | None) -> None:
        if data is None:
            if once and not container.config.tty:
                container.close_stdin()
        elif container.stdin_fd is not None:
            try:
                await write_all(container.stdin_fd, data)
            except OSError:
                return

    stdin = feed if _flag(request, "stdin") else None
    pump = asyncio.ensure_future(_pump_input(channels, stdin, container.terminal))
    ending = asyncio.ensure_future(container.ended.wait())
    try:
        await asyncio.wait([pump, ending], return_when=asyncio.FIRST_COMPLETED)
        if not ending.done():
            if once and stdin is not None:
                container.close_stdin()
            return channels.response
        await channels.finish(SUCCESS)
    finally:
        pump.cancel()
        ending.cancel()
        container.listeners.discard(listen)
        await channels.close()
    return channels.response


# -------------------------------------------------------------------------------------------------------- portforward


async def portforward(request: web.Request, pod: dict) -> web.StreamResponse:
    """``…/pods/NAME/portforward``: connections to ports of the pod, as SPDY streams inside a WebSocket."""
    if pod.get("status", {}).get("phase") != "Running":
        raise bad_request(
            f"unable to forward port because pod is not running. Current status={pod.get('status', {}).get('phase', 'Pending')}"
        )
    worker = _worker(request, pod)
    if worker.sandbox is None:
        raise bad_request(f"unable to forward port because pod is not running. Current status={pod['status']['phase']}")
    _refuse_spdy(request)
    netns, name = worker.sandbox.netns, f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
    socket = web.WebSocketResponse(protocols=(forwarding.PROTOCOL, forwarding.CHANNELS), autoping=True, max_msg_size=0, compress=False)
    if forwarding.CHANNELS in request.headers.get("Sec-WebSocket-Protocol", ""):
        try:
            ports = [int(port) for text in request.query.getall("ports", []) for port in text.split(",")]
        except ValueError:
            raise bad_request(f"unable to parse ports {request.query.getall('ports')}: numbers are needed") from None
        if not ports:
            raise bad_request("query parameter 'ports' is required")
        await socket.prepare(request)
        await forwarding.serve_channels(socket, netns, name, ports)
        return socket
    await socket.prepare(request)
    await forwarding.serve(socket, netns, name)
    return socket
