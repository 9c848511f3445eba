"""Watches: a client's view of one resource as it changes, over one long response."""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

from ..store import Change, Store
from . import errors

BOOKMARK_SECONDS = 60
"""How often a quiet watch tells the client up to which version it has seen everything."""
MAX_PENDING = 20000
"""A client that is so many changes behind is cut off: it lists again and goes on."""

Matches = Callable[[dict[str, Any]], bool]


class Watch:
    """The changes of a resource that a client asked for.

    Args:
        resource: its plural.
        matches: which objects the client wants to see; one that begins or ceases to match is ADDED or DELETED for the client.
        since: the version after which to begin; None to begin with what is there, as ADDED.
        mark: end the initial state with a bookmark that says so (``sendInitialEvents``).
        bookmarks: whether the client takes bookmarks.
        seconds: how long the watch lasts.

    Iterating gives ``(type, object)``, also ``("BOOKMARK", object)`` and ``("ERROR", status)``; None when nothing has happened for a
    while, so that the caller can see whether the client is still there.
    """

    def __init__(self, store: Store, resource: str, matches: Matches, *, api_version: str, kind: str, since: int | None,
                 mark: bool = False, bookmarks: bool = False, seconds: float | None = None):
        self._store, self._resource, self._matches = store, resource, matches
        self._api_version, self._kind = api_version, kind
        self._since, self._mark, self._bookmarks = since, mark, bookmarks
        # As upstream: an hour or less, at random, so that clients don't all come back at the same moment.
        self._seconds = seconds if seconds is not None else 1800 * (1 + random.random())
        self._pending: deque[Change] = deque()
        self._wake = asyncio.Event()
        self._ended = False

    def end(self) -> None:
        """End the watch: the server stops."""
        self._ended = True
        self._wake.set()

    def _changed(self, change: Change) -> None:
        self._pending.append(change)
        self._wake.set()

    async def events(self) -> AsyncIterator[tuple[str, dict[str, Any]] | None]:
        """The events, until the time is over or the client has fallen behind."""
        since = self._since
        current = self._store.revision
        if since is not None:
            past = self._store.changes(self._resource, since) if since <= current else None
            if past is None:
                oldest = f"too old resource version: {since} ({current})"
                yield "ERROR", errors.expired(oldest).status()
                return
            self._pending.extend(past)
        else:
            for key in sorted(self._store.objects(self._resource), key=lambda key: (key[0] or "", key[1])):
                obj = self._store.objects(self._resource)[key]
                if self._matches(obj):
                    self._pending.append(Change("ADDED", obj, None, current))
        cancel = self._store.subscribe(self._resource, self._changed)
        try:
            async for event in self._follow(current):
                yield event
        finally:
            cancel()

    async def _follow(self, current: int) -> AsyncIterator[tuple[str, dict[str, Any]] | None]:
        deadline = time.monotonic() + self._seconds
        next_mark = time.monotonic() + BOOKMARK_SECONDS
        if self._mark:
            while self._pending and self._pending[0].revision <= current:
                event = self._seen(self._pending.popleft())
                if event:
                    yield event
            yield self._bookmark(current, initial=True)
        while not self._ended:
            while self._pending:
                if len(self._pending) > MAX_PENDING:
                    return
                event = self._seen(self._pending.popleft())
                if event:
                    yield event
            now = time.monotonic()
            if now >= deadline:
                break
            self._wake.clear()
            if self._pending or self._ended:
                continue
            try:
                await asyncio.wait_for(self._wake.wait(), min(deadline - now, max(next_mark - now, 0.01), 10))
            except asyncio.TimeoutError:
                if self._bookmarks and time.monotonic() >= next_mark:
                    next_mark = time.monotonic() + BOOKMARK_SECONDS
                    yield self._bookmark(self._store.revision)
                else:
                    yield None
        if self._bookmarks and not self._ended:
            yield self._bookmark(self._store.revision)

    def _seen(self, change: Change) -> tuple[str, dict[str, Any]] | None:
        """What a change means to this client."""
        now = change.type != "DELETED" and self._matches(change.object)
        before = change.old is not None and self._matches(change.old)
        if change.type == "ADDED" and change.old is None:
            return ("ADDED", change.object) if now else None
        if now:
            return ("MODIFIED" if before else "ADDED"), change.object
        if not before:
            return None
        if change.type == "DELETED":
            return "DELETED", change.object
        # It no longer matches: the client gets the last state that did, at the version of the change.
        old: dict[str, Any] = change.old  # type: ignore[assignment]
        version = change.object["metadata"]["resourceVersion"]
        return "DELETED", {**old, "metadata": {**old["metadata"], "resourceVersion": version}}

    def _bookmark(self, revision: int, *, initial: bool = False) -> tuple[str, dict[str, Any]]:
        meta: dict[str, Any] = {"resourceVersion": str(revision), "creationTimestamp": None}
        if initial:
            meta["annotations"] = {"k8s.io/initial-events-end": "true"}
        return "BOOKMARK", {"kind": self._kind, "apiVersion": self._api_version, "metadata": meta}
