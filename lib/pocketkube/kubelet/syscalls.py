"""The few Linux calls that the kubelet needs beside those of `pocketkube.namespaces`: terminals and the like."""

from __future__ import annotations

import errno
import fcntl
import os

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


def set_sysctls(values: dict[str, str]) -> None:
    """Sets ``net.*`` values in the network namespace of the calling thread; a value that this kernel lacks is left alone."""
    for name, value in values.items():
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
