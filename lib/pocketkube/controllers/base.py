"""The control loop that every controller is: a queue of keys, and one function that makes the world match one key.

A controller is level-triggered: an event only says *which* object to look at again; what to do is decided from the present
state, never from the event. So events may be merged, repeated or late, and after a failure the key is simply looked at again.
See https://kubernetes.io/docs/concepts/architecture/controller/.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Hashable
from typing import TYPE_CHECKING

from ..apiserver.api import ApiError

if TYPE_CHECKING:
    from ..apiserver.api import Api

FIRST_RETRY = 0.005
LONGEST_RETRY = 60.0


class WorkQueue:
    """Keys waiting for a reconcile: each at most once, in order of arrival, with delays and a growing back-off.

    A key that is added while it is being worked on is worked on once more afterwards, never twice at the same time.

    >>> queue = WorkQueue()
    >>> queue.add("a"); queue.add("a"); queue.add("b"); len(queue)
    2
    """

    def __init__(self) -> None:
        self._waiting: dict[Hashable, None] = {}
        self._working: set[Hashable] = set()
        self._again: set[Hashable] = set()
        self._timers: dict[Hashable, asyncio.TimerHandle] = {}
        self._failures: dict[Hashable, int] = {}
        self._ready = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, key: Hashable) -> None:
        """Have the key worked on as soon as possible."""
        if timer := self._timers.pop(key, None):
            timer.cancel()
        if key in self._working:
            self._again.add(key)
        else:
            self._waiting[key] = None
            self._ready.set()

    def add_after(self, key: Hashable, seconds: float) -> None:
        """Have the key worked on in a while; an earlier appointment stands."""
        if seconds <= 0:
            self.add(key)
            return
        loop = asyncio.get_running_loop()
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= loop.time() + seconds:
                return
            timer.cancel()
        self._timers[key] = loop.call_later(seconds, self._due, key)

    def _due(self, key: Hashable) -> None:
        self._timers.pop(key, None)
        self.add(key)

    async def take(self) -> Hashable:
        """Wait for a key and take it; every take is followed by ``done``."""
        while not self._waiting:
            self._ready.clear()
            await self._ready.wait()
        key = next(iter(self._waiting))
        del self._waiting[key]
        self._working.add(key)
        return key

    def done(self, key: Hashable, *, failed: bool = False) -> float:
        """Hand a key back. A failed one returns after a back-off, whose seconds are returned (0 if it went well)."""
        self._working.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.add(key)
        if not failed:
            self._failures.pop(key, None)
            return 0.0
        count = self._failures.get(key, 0)
        self._failures[key] = count + 1
        delay = min(LONGEST_RETRY, FIRST_RETRY * 2 ** min(count, 20))
        self.add_after(key, delay)
        return delay

    def close(self) -> None:
        """Forget all keys and appointments."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._waiting.clear()


class Controller:
    """A queue of keys and the task that works on it. Subclasses subscribe to informers and write ``reconcile``.

    Attributes:
        name: What the controller calls itself in events and logs, such as ``deployment-controller``.
    """

    name = "controller"

    def __init__(self, api: Api) -> None:
        self.api = api
        self.queue = WorkQueue()
        self.log = logging.getLogger(f"pocketkube.{self.name}")
        self._task: asyncio.Task | None = None

    def subscribe(self) -> None:
        """Register with the informers; called once, before the first reconcile."""
        raise NotImplementedError

    async def reconcile(self, key: Hashable) -> None:
        """Make the world match what the API says about ``key``. Raising means: try again later."""
        raise NotImplementedError

    async def start(self) -> None:
        """Subscribe and begin to work."""
        self.subscribe()
        self._task = asyncio.get_running_loop().create_task(self._work(), name=self.name)

    async def stop(self) -> None:
        """Stop working; what is unfinished is found again at the next start, since it is in the API."""
        self.queue.close()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    def event(self, obj: dict, reason: str, message: str, *, warning: bool = False) -> None:
        """Record an Event about an object. Losing one is no reason to fail: it is logged instead."""
        try:
            self.api.record_event(obj, "Warning" if warning else "Normal", reason, message, self.name)
        except ApiError as error:  # for example while its namespace is being deleted
            self.log.debug("no event %s for %s: %s", reason, obj["metadata"]["name"], error)

    async def _work(self) -> None:
        while True:
            key = await self.queue.take()
            failed = False
            try:
                await self.reconcile(key)
            except ApiError as error:
                failed = True
                # A conflict means that the cache was a moment behind: usual, and settled by looking again.
                level = logging.DEBUG if error.reason == "Conflict" else logging.INFO
                self.log.log(level, "%s: %s; trying again", key, error)
            except asyncio.CancelledError:
                raise
            except Exception:
                failed = True
                self.log.exception("%s: reconcile failed; trying again", key)
            finally:
                self.queue.done(key, failed=failed)
            await asyncio.sleep(0)  # requests are answered between two keys
