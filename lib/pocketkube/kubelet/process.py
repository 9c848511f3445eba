"""Child processes on the event loop: started, signalled, and waited for through a pidfd (no polling, no threads)."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Callable, Sequence

PIPE = 65536  # bytes: what a pipe holds at most


class Process:
    """A running child; ``exit_code`` is a future with its status as a shell reports it (128 + signal when killed)."""

    def __init__(self, popen: subprocess.Popen, loop: asyncio.AbstractEventLoop) -> None:
        self._popen = popen
        self._loop = loop
        self.pid = popen.pid
        self.exit_code: asyncio.Future[int] = loop.create_future()
        self._pidfd = os.pidfd_open(popen.pid)
        loop.add_reader(self._pidfd, self._ended)

    @classmethod
    def start(
        cls,
        argv: Sequence[str],
        *,
        env: dict[str, str],
        stdin: int,
        stdout: int,
        stderr: int,
        pass_fds: Sequence[int] = (),
        new_session: bool = False,
    ) -> Process:
        """Starts ``argv`` (an absolute path first) with exactly these descriptors and this environment."""
        popen = subprocess.Popen(
            argv, env=env, stdin=stdin, stdout=stdout, stderr=stderr, pass_fds=tuple(pass_fds), cwd="/", start_new_session=new_session
        )
        return cls(popen, asyncio.get_running_loop())

    def _ended(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        code = self._popen.wait()
        if not self.exit_code.done():
            self.exit_code.set_result(code if code >= 0 else 128 - code)

    def signal(self, number: int) -> None:
        """Sends a signal to this process; nothing happens if it has ended."""
        if not self.exit_code.done():
            self._popen.send_signal(number)

    async def wait(self) -> int:
        """The exit code, when it has ended."""
        return await asyncio.shield(self.exit_code)

    async def kill(self, *, group: bool = False) -> None:
        """SIGKILL to it (or to its whole process group, if it was started with ``new_session``), and wait for the end."""
        if not self.exit_code.done():
            if group:
                os.killpg(self.pid, signal.SIGKILL)
            else:
                self.signal(signal.SIGKILL)
        await self.wait()


class PipeReader:
    """Hands what arrives on a descriptor to ``sink`` until the end of the stream; ``done`` is set then."""

    def __init__(self, fd: int, sink: Callable[[bytes], None]) -> None:
        self._fd = fd
        self._sink = sink
        self._loop = asyncio.get_running_loop()
        self.done = asyncio.Event()
        self._closed = False
        os.set_blocking(fd, False)
        self._loop.add_reader(fd, self._readable)

    def _readable(self) -> None:
        try:
            data = os.read(self._fd, PIPE)
        except BlockingIOError:
            return
        except OSError:  # EIO: the last process with the other end of a terminal has gone
            data = b""
        if data:
            self._sink(data)
        else:
            self.close()

    def pause(self) -> None:
        """Stops reading, so that the writer has to wait."""
        if not self._closed:
            self._loop.remove_reader(self._fd)

    def resume(self) -> None:
        """Reads on after ``pause``."""
        if not self._closed:
            self._loop.add_reader(self._fd, self._readable)

    def take(self) -> None:
        """Reads what is there already, also while paused: after the writer's end all that it wrote, since a pipe holds no more."""
        left = PIPE
        while left >= 0 and not self._closed:  # once more where it was full: for the end
            try:
                data = os.read(self._fd, PIPE)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if data:
                left -= len(data)
                self._sink(data)
            else:
                self.close()

    def close(self) -> None:
        """Closes the descriptor; safe to call twice."""
        if not self._closed:
            self._closed = True
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self.done.set()


async def write_all(fd: int, data: bytes) -> None:
    """Writes all of ``data`` to a non-blocking descriptor.

    Raises:
        BrokenPipeError: when nobody reads it any more.
    """
    loop = asyncio.get_running_loop()
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            ready = loop.create_future()
            loop.add_writer(fd, lambda f=ready: f.done() or f.set_result(None))
            try:
                await ready
            finally:
                loop.remove_writer(fd)


async def run(argv: Sequence[str], *, env: dict[str, str] | None = None, timeout: float = 30, limit: int = 16384) -> tuple[int, bytes]:
    """Runs ``argv`` to its end: (exit code, stdout and stderr together, at most ``limit`` bytes).

    Raises:
        asyncio.TimeoutError: after ``timeout`` seconds; the process is killed first.
    """
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    output = bytearray()

    def sink(data: bytes) -> None:
        output.extend(data[: limit - len(output)])

    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        process = Process.start(argv, env=env or {}, stdin=null, stdout=write_end, stderr=write_end, new_session=True)
    except OSError:
        os.close(read_end)
        raise
    finally:
        os.close(write_end)
        os.close(null)
    reader = PipeReader(read_end, sink)
    try:
        code = await asyncio.wait_for(process.wait(), timeout)
        try:  # what it wrote last is in the pipe already; a child that lives on may hold the pipe open
            await asyncio.wait_for(reader.done.wait(), 0.2)
        except asyncio.TimeoutError:
            pass
        return code, bytes(output)
    finally:
        if not process.exit_code.done():
            await process.kill(group=True)
        reader.close()
