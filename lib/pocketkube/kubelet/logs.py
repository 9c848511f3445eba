"""Container logs, in the files and the format of the Container Runtime Interface.

One line of a file is ``2026-01-02T03:04:05.123456789Z stdout F text``; ``P`` instead of ``F`` marks the part of a line
that goes on in the next one. https://github.com/kubernetes/design-proposals-archive/blob/main/node/kubelet-cri-logging.md
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

MAX_LINE = 16 * 1024  # bytes; longer lines are cut into parts, as containerd does
MAX_FILE = 10 * 1024 * 1024  # bytes; then the file is put aside as .1 and a new one begins (kubelet's containerLogMaxSize)


def _stamp() -> str:
    now = time.time_ns()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 10**9)) + f".{now % 10**9:09d}Z"


class LogFile:
    """The log of one run of one container: written here, and followed by any number of readers."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(path, "ab", buffering=0)  # noqa: SIM115 (closed in `close`)
        self._size = path.stat().st_size
        self._pending = {"stdout": b"", "stderr": b""}
        self._followers: set[asyncio.Queue[bytes | None]] = set()
        self.closed = False

    def write(self, stream: str, data: bytes) -> None:
        """Adds what a container wrote."""
        lines = (self._pending[stream] + data).split(b"\n")
        rest = lines.pop()
        for line in lines:
            while len(line) > MAX_LINE:
                self._record(stream, b"P", line[:MAX_LINE])
                line = line[MAX_LINE:]  # noqa: PLW2901
            self._record(stream, b"F", line)
        while len(rest) > MAX_LINE:
            self._record(stream, b"P", rest[:MAX_LINE])
            rest = rest[MAX_LINE:]
        self._pending[stream] = rest

    def _record(self, stream: str, tag: bytes, text: bytes) -> None:
        record = f"{_stamp()} {stream} ".encode() + tag + b" " + text + b"\n"
        if self._size > MAX_FILE:
            self._file.close()
            self.path.rename(self.path.with_suffix(".log.1"))
            self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115
            self._size = 0
        self._file.write(record)
        self._size += len(record)
        for follower in self._followers:
            follower.put_nowait(record)

    def close(self) -> None:
        """Writes what had no line end yet, and ends every follower."""
        if self.closed:
            return
        for stream, rest in self._pending.items():
            if rest:
                self._record(stream, b"P", rest)
        self.closed = True
        self._file.close()
        for follower in self._followers:
            follower.put_nowait(None)

    def follow(self) -> asyncio.Queue[bytes | None]:
        """A queue of all records from now on; None ends it. Give it back with ``unfollow``."""
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        if self.closed:
            queue.put_nowait(None)
        self._followers.add(queue)
        return queue

    def unfollow(self, queue: asyncio.Queue[bytes | None]) -> None:
        """Ends a ``follow``."""
        self._followers.discard(queue)


@dataclass
class LogOptions:
    """The options of ``GET …/pods/NAME/log`` (core/v1 PodLogOptions)."""

    follow: bool = False
    tail_lines: int | None = None
    since: float | None = None  # seconds since 1970
    timestamps: bool = False
    limit_bytes: int | None = None
    stream: str = "All"


def _format(record: bytes, options: LogOptions) -> bytes | None:
    """What a reader sees of a record; None if the options leave it out."""
    stamp, stream, tag, text = record.rstrip(b"\n").split(b" ", 3)
    if options.stream != "All" and stream.decode() != options.stream.lower():
        return None
    if options.since is not None and parse_time(stamp.decode()) < options.since:
        return None
    line = text if tag == b"P" else text + b"\n"
    return stamp + b" " + line if options.timestamps else line


def parse_time(text: str) -> float:
    """Seconds since 1970 of an RFC 3339 time, with or without a fraction."""
    whole, _, fraction = text.rstrip("Z").partition(".")
    if "+" in whole or whole.count("-") > 2:
        return datetime.fromisoformat(text).timestamp()
    seconds = datetime.strptime(whole, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=timezone.utc).timestamp()
    return seconds + (float(f"0.{fraction}") if fraction else 0)


def _stored(path: Path) -> Iterator[bytes]:
    for part in (path.with_suffix(".log.1"), path):
        if part.exists():
            with open(part, "rb") as file:
                yield from file


async def read_log(path: Path, options: LogOptions, live: LogFile | None) -> AsyncIterator[bytes]:
    """The log as ``kubectl logs`` prints it, in pieces; with ``follow``, until the container ends."""
    queue = live.follow() if live is not None and options.follow else None
    left = options.limit_bytes
    try:
        # a follower's queue has what is written from now on: the file is read to its present end at once, before a slow reader waits
        records = list(_stored(path)) if options.tail_lines is not None or queue is not None else _stored(path)
        lines = (line for line in (_format(record, options) for record in records) if line is not None)
        if options.tail_lines is not None:
            found = list(lines)
            lines = iter(found[len(found) - options.tail_lines :] if options.tail_lines < len(found) else found)
            if options.tail_lines <= 0:
                lines = iter(())
        buffer = bytearray()
        for line in lines:
            buffer.extend(line)
            if len(buffer) > 65536:
                piece, left = _limit(bytes(buffer), left)
                yield piece
                buffer.clear()
                if left == 0:
                    return
        if buffer:
            piece, left = _limit(bytes(buffer), left)
            yield piece
            if left == 0:
                return
        while queue is not None:
            record = await queue.get()
            if record is None:
                return
            line = _format(record, options)
            if line is not None:
                piece, left = _limit(line, left)
                yield piece
                if left == 0:
                    return
    finally:
        if queue is not None:
            live.unfollow(queue)


def _limit(piece: bytes, left: int | None) -> tuple[bytes, int | None]:
    if left is None:
        return piece, None
    return piece[:left], max(0, left - len(piece))
