"""Linux namespaces from Python: the few system calls that the standard library has only since 3.12.

Everything here is synchronous and takes microseconds; nothing depends on the rest of the package.
Sources: unshare(2), setns(2), mount(2), prctl(2), network_namespaces(7), user_namespaces(7).
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
from contextlib import contextmanager
from pathlib import Path

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
MNT_DETACH = 2
PR_SET_PDEATHSIG = 1
_NAMES = {CLONE_NEWNET: "net", CLONE_NEWUTS: "uts", CLONE_NEWIPC: "ipc"}  # in /proc/PID/ns

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    """Move the calling thread into new namespaces (unshare(2))."""
    _check(_libc.unshare(flags), "unshare")


def setns(fd: int, kind: int = 0) -> None:
    """Move the calling thread into the namespace that ``fd`` refers to (setns(2))."""
    _check(_libc.setns(fd, kind), "setns")


def sethostname(name: str) -> None:
    """Name this UTS namespace (sethostname(2))."""
    data = name.encode()
    _check(_libc.sethostname(data, len(data)), f"sethostname {name}")


def mount(source: str, target: str, fstype: str = "", flags: int = 0, options: str = "") -> None:
    """Mount ``source`` on ``target`` (mount(2)).

    Raises:
        OSError: with the kernel's errno and both paths in its text.
    """
    result = _libc.mount(source.encode(), str(target).encode(), fstype.encode() or None, flags, options.encode() or None)
    _check(result, f"mount {fstype or source} on {target}")


def unmount(target: str) -> None:
    """Detach what is mounted on ``target``; busy mounts go when their last user does."""
    _check(_libc.umount2(str(target).encode(), MNT_DETACH), f"umount {target}")


def die_with_parent(sig: int = signal.SIGKILL) -> None:
    """Have the kernel send ``sig`` to this process when the thread that forked it ends (PR_SET_PDEATHSIG)."""
    _check(_libc.prctl(PR_SET_PDEATHSIG, sig, 0, 0, 0), "prctl(PR_SET_PDEATHSIG)")


@contextmanager
def entered(path: str | os.PathLike, kind: int = CLONE_NEWNET):
    """Have the calling thread be in the namespace at ``path`` for the length of a ``with`` block.

    Sockets opened inside belong to that network namespace for ever. Never ``await`` inside: other tasks of the
    same thread would run in the wrong namespace.
    """
    name = _NAMES[kind]
    home = os.open(f"/proc/thread-self/ns/{name}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        there = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            setns(there, kind)
        finally:
            os.close(there)
        try:
            yield
        finally:
            setns(home, kind)
    finally:
        os.close(home)


def create(path: str | os.PathLike, kind: int = CLONE_NEWNET, prepare=None) -> None:
    """Make a new namespace that lives without a process: bind it to ``path``, as ``ip netns add`` does.

    Args:
        path: where it is bound, on a file system that no one else sees.
        kind: ``CLONE_NEWNET``, ``CLONE_NEWUTS`` or ``CLONE_NEWIPC``.
        prepare: called in the new namespace before the thread returns home.
    """
    name = _NAMES[kind]
    here = f"/proc/thread-self/ns/{name}"
    home = os.open(here, os.O_RDONLY | os.O_CLOEXEC)
    try:
        Path(path).touch(mode=0o600)
        unshare(kind)
        try:
            mount(here, str(path), flags=MS_BIND)
            if prepare is not None:
                prepare()
        finally:
            setns(home, kind)
    finally:
        os.close(home)


def remove(path: str | os.PathLike) -> None:
    """Let go of a namespace made by :func:`create`; the kernel frees it with its last process and socket."""
    try:
        unmount(str(path))
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOENT):  # not mounted, or never there
            raise
    Path(path).unlink(missing_ok=True)
