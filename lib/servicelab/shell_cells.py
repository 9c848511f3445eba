"""What ``!command`` does in a lesson's cell: IPython's own way, without the output it can lose and the time it sleeps.

IPython reads a command's terminal through pexpect in turns of 50 ms. When a turn is over just as the command prints its last words and
ends, pexpect finds it dead and never reads them: beside busy threads (pictures that follow the cluster, lesson 06's cloud controller) that
is up to one command in ten. And each command is followed by a sleep of 0.1 s.
"""

from __future__ import annotations

import codecs
import os
import select
import subprocess
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from ptyprocess import PtyProcess

TURN = 0.05  # seconds; how soon the end is seen of a command that leaves something behind on its terminal
PATIENCE = 1.0  # seconds that an interrupted command has to tidy up (kubectl run --rm takes its pod away)


def run(command: str, write: Callable[[str], Any]) -> int:
    """Runs a command in the user's shell, on a terminal of its own, as IPython's ``!`` does.

    An interrupt (the stop button, Ctrl-C) goes to the command, which has a second to end by itself.

    Args:
        command: as it would be typed in a terminal.
        write: gets what the command prints, piece by piece, as it comes.

    Returns:
        The exit code; ``-N`` for a command that signal N ended.

    Raises:
        FileNotFoundError: the shell that ``SHELL`` names isn't there.

    Example:
        >>> pieces = []
        >>> run("echo hello", pieces.append), "".join(pieces)
        (0, 'hello\\r\\n')
    """
    child = PtyProcess.spawn([os.environ.get("SHELL", "sh"), "-c", command])
    child.delayafterclose = 0
    try:
        try:
            _copy(child, write)
            child.wait()
        except KeyboardInterrupt:
            child.sendintr()
            _copy(child, write, until=time.monotonic() + PATIENCE)
    finally:
        child.close(force=True)
    code = -child.signalstatus if child.exitstatus is None else child.exitstatus
    return 128 - code if code > 128 else code


def _copy(child: PtyProcess, write: Callable[[str], Any], until: float | None = None) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    while until is None or time.monotonic() < until:
        # asked before the terminal is looked at: what the command wrote before it ended is there to be read by then
        alive = child.isalive()
        if _readable(child.fd, TURN if alive else 0):
            try:
                data = os.read(child.fd, 65536)
            except OSError:  # EIO: Linux' word for a terminal that nobody has open any more
                data = b""
            if text := decoder.decode(data, final=not data):
                write(text)
            if not data:
                return
        elif not alive:
            return  # something that the command left running still has the terminal


def _readable(fd: int, seconds: float) -> bool:
    poll = select.poll()  # not select(): a kernel with many sockets open has numbers above 1023
    poll.register(fd, select.POLLIN | select.POLLHUP)
    return bool(poll.poll(seconds * 1000))


def install(shell: Any) -> None:
    """Makes ``!command`` of a Jupyter kernel's shell run by :func:`run`; everything else about it stays.

    Args:
        shell: what ``get_ipython()`` gives.
    """
    shell.system = partial(_system, shell)


def _system(shell: Any, command: str) -> None:
    if command.rstrip().endswith("&"):
        raise OSError("Background processes not supported.")  # IPython's words

    def write(text: str) -> None:
        print(text, end="", flush=True)

    code = run(shell.var_expand(command, depth=1), write)
    shell.user_ns["_exit_code"] = code  # kept, not returned: IPython would show it as the cell's result
    if getattr(shell, "system_raise_on_error", False) and code != 0:  # not in IPython before 9
        raise subprocess.CalledProcessError(code, command)
