"""The few Linux calls that the kubelet needs beside those of `pocketkube.namespaces`: threads in other namespaces, terminals."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from collections.abc import Callable

from .. import namespaces

_TIOCGPTPEER = 0x5441
_TIOCSPTLCK = 0x40045431


def unmount(target: str) -> None:
    """Detaches what is mounted on ``target``; nothing being mounted there is no error."""
    try:
        namespaces.unmount(target)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOENT):
            raise


def in_thread(work: Callable[[], None]) -> None:
    """Runs ``work`` in a thread that ends with it, so that a change of its namespaces concerns nobody else."""
    failure: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]


def make_uts_ipc(hostname: str, uts: str, ipc: str) -> None:
    """Makes a UTS namespace with ``hostname`` and an IPC namespace, kept by bind mounts on the two (new) files."""

    def work() -> None:
        namespaces.unshare(namespaces.CLONE_NEWUTS | namespaces.CLONE_NEWIPC)
        namespaces.sethostname(hostname)
        me = threading.get_native_id()
        for kind, path in (("uts", uts), ("ipc", ipc)):
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
            namespaces.mount(f"/proc/self/task/{me}/ns/{kind}", path, flags=namespaces.MS_BIND)

    in_thread(work)


def open_pty(ptmx: str) -> tuple[int, int]:
    """A new terminal of the devpts instance that ``ptmx`` belongs to: (master, slave) descriptors."""
    master = os.open(ptmx, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(master, _TIOCSPTLCK, b"\0\0\0\0")
        slave = fcntl.ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        os.close(master)
        raise
    return master, slave


def set_sysctls(netns: int, values: dict[str, str]) -> None:
    """Sets ``net.*`` values in the network namespace that the descriptor is open on; run it `in_thread`.

    A value that this kernel lacks is left alone.
    """
    namespaces.setns(netns, namespaces.CLONE_NEWNET)
    for name, value in values.items():
        # /proc/sys/net shows the namespace of the reading thread
        try:
            with open(f"/proc/sys/{name.replace('.', '/')}", "w", encoding="ascii") as file:
                file.write(value)
        except FileNotFoundError:
            continue


def last_group() -> int:
    """The highest group id of an unbroken range from 0 in this user namespace: sysctls refuse ids that it doesn't have."""
    with open("/proc/self/gid_map", encoding="ascii") as file:
        ranges = sorted((int(inside), int(count)) for inside, _outside, count in map(str.split, file))
    end = 0
    for first, count in ranges:
        if first > end:
            break
        end = first + count
    return min(end, 2147483648) - 1
