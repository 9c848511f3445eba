"""Follow a cluster: list, then watch, in a thread of its own that ends when it is told to.

A watch that breaks (the cluster was stopped, restarted, or forgot the version we know) is begun again with a fresh list and a fresh
look at the kubeconfig, since a restarted cluster may answer at another port. What is wrong meanwhile is said in
:attr:`Observer.trouble`, never printed.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import kr8s

from servicelab.views.world import World

if TYPE_CHECKING:
    from servicelab.lab import Lab

VERSIONS = {"nodes": "v1", "pods": "v1", "services": "v1", "endpointslices": "discovery.k8s.io/v1"}
WATCH_SECONDS = 60  # the server ends a watch after this long, so that a connection which died in silence is noticed soon
SETTLE_SECONDS = 0.08  # events of one change come in bursts; one picture a burst


class Background:
    """A coroutine in an event loop and a thread of its own.

    Args:
        main: Makes the coroutine; it is cancelled by :meth:`stop`.
        failed: Called, in the thread, with an exception that ended it.
    """

    def __init__(self, main: Callable[[], Awaitable[None]], failed: Callable[[BaseException], None]) -> None:
        self._main, self._failed = main, failed
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task | None = None
        self._stopped = False
        self._lock = threading.Lock()
        self.thread = threading.Thread(target=self._run, name="servicelab-view", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            asyncio.run(self._cancellable())
        except asyncio.CancelledError:
            return
        except BaseException as error:
            self._failed(error)

    async def _cancellable(self) -> None:
        with self._lock:
            if self._stopped:
                return
            self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        await self._main()

    @property
    def alive(self) -> bool:
        """Whether the thread still runs."""
        return self.thread.is_alive()

    def stop(self, seconds: float = 0) -> None:
        """Cancel the coroutine; wait for the thread's end for at most so long."""
        with self._lock:
            self._stopped = True
            if self._loop is not None and self._task is not None and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._task.cancel)
        if seconds and threading.current_thread() is not self.thread:
            self.thread.join(seconds)


async def connect(lab: Lab, *, again: bool = False) -> Any:
    """A new client of the lab's cluster.

    Always a new one: kr8s's factory would give the one from before a restart, which knows only the old address.

    Args:
        lab: Whose cluster.
        again: After a connection broke: ask the cluster for its kubeconfig anew, since a restarted one may answer at another port.
    """
    file = await asyncio.to_thread(lab.cluster.kubeconfig) if again else lab.kubeconfig
    return await kr8s.asyncio.Api(kubeconfig=str(file), bypass_factory=True)


class Observer:
    """Keeps a :class:`World` like the cluster, and tells of each change.

    Args:
        lab: Whose cluster and namespace is followed; nodes belong to no namespace.
        changed: Called in the observer's thread with the world after every burst of changes, and when :attr:`trouble` changes.
        kinds: Which kinds to follow.
        event: Called in the thread at once for each event, with (kind, ``REPLACED`` or the watch's own type, object or list), for who
        keeps a history.
    """

    def __init__(
        self,
        lab: Lab,
        changed: Callable[[World], None],
        *,
        kinds: tuple[str, ...] = tuple(VERSIONS),
        event: Callable[[str, str, Any], None] | None = None,
    ) -> None:
        self._lab, self.namespace, self.kinds = lab, lab.namespace, kinds
        self.world = World()
        self._changed, self._event = changed, event
        self._troubles: dict[str, str] = {}
        self._background: Background | None = None

    @property
    def trouble(self) -> str:
        """Why the picture may be out of date, in a sentence; empty when all is well."""
        return next(iter(self._troubles.values()), "")

    @property
    def running(self) -> bool:
        """Whether the cluster is being followed."""
        return self._background is not None and self._background.alive

    def start(self) -> None:
        """Begin, unless it runs already."""
        if not self.running:
            self._troubles.clear()
            self._background = Background(self.run, self._failed)

    def stop(self, seconds: float = 0) -> None:
        """End the thread and its connections."""
        if self._background is not None:
            self._background.stop(seconds)

    def say(self, about: str, words: str) -> None:
        """Set one trouble, or take it back with no words."""
        self._troubles.pop(about, None)
        if words:
            self._troubles[about] = words

    def _failed(self, error: BaseException) -> None:
        self._troubles["all"] = f"The picture stopped: {words_of(error)}. Run the cell again."
        self._changed(self.world)

    async def run(self) -> None:
        """Follow until cancelled; for who has an event loop already."""
        self._dirty = asyncio.Event()
        await _all(self._settle(), *(self._follow(kind) for kind in self.kinds))

    async def _settle(self) -> None:
        while True:
            await self._dirty.wait()
            await asyncio.sleep(SETTLE_SECONDS)
            self._dirty.clear()
            self._changed(self.world)

    async def _follow(self, kind: str) -> None:
        wait, again = 0.5, False
        while True:
            try:
                api = await connect(self._lab, again=again)
                async for event, item in watch(api, kind, None if kind == "nodes" else self.namespace):
                    wait = 0.5
                    self._troubles.pop(kind, None)
                    if event == "REPLACED":
                        self.world.replace(kind, item)
                    else:
                        self.world.apply(kind, event, item)
                    if self._event:
                        self._event(kind, event, item)
                    self._dirty.set()
            except Forbidden:
                # a student's account may not list nodes: World.nodes() then knows them by the pods on them
                if kind == "nodes":
                    return
                self._troubles[kind] = (
                    f"This account may not watch {kind} in namespace {self.namespace!r}: ask who gave you the kubeconfig."
                )
                self._dirty.set()
                return
            except Exception as error:
                self._troubles[kind] = f"The cluster does not answer ({words_of(error)}). Trying again; `servicelab status` says more."
                self._dirty.set()
                again = True
                await asyncio.sleep(wait)
                wait = min(wait * 2, 4)


class Forbidden(Exception):
    """The account may not do this."""


async def watch(api: Any, kind: str, namespace: str | None) -> Any:
    """A list, then its changes, and a list again when it must.

    Yields ``("REPLACED", [object, …])`` for a list, and ``("ADDED" | "MODIFIED" | "DELETED", object)`` for a change.

    Raises:
        Forbidden: The account may not list this kind.
        Exception: The connection broke.
    """
    version = VERSIONS[kind]
    while True:
        try:
            async with api.call_api("GET", version=version, namespace=namespace, url=kind, timeout=15) as response:
                listed = response.json()
        except kr8s.ServerError as error:
            if error.response is not None and error.response.status_code in (401, 403):
                raise Forbidden(str(error)) from error
            raise
        yield "REPLACED", listed.get("items") or []
        known = listed["metadata"]["resourceVersion"]
        while known:
            parameters = {"watch": "true", "resourceVersion": known, "allowWatchBookmarks": "true", "timeoutSeconds": str(WATCH_SECONDS)}
            async with api.call_api(
                "GET",
                version=version,
                namespace=namespace,
                url=kind,
                params=parameters,
                stream=True,
                timeout=WATCH_SECONDS + 15,
                raise_for_status=False,
            ) as response:
                if response.status_code == 410:
                    break
                response.raise_for_status()
                async for line in response.aiter_lines():
                    if not line.strip():
                        continue
                    event = json.loads(line)
                    if event["type"] == "ERROR":  # 410 Gone: too old a version; anything else is cured by a fresh list too
                        known = ""
                        break
                    known = event["object"]["metadata"]["resourceVersion"]
                    if event["type"] != "BOOKMARK":
                        yield event["type"], event["object"]


async def _all(*mains: Awaitable[None]) -> None:
    """Run all; the first failure, or a cancellation, ends the rest (asyncio.TaskGroup came only with Python 3.11)."""
    tasks = [asyncio.ensure_future(main) for main in mains]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def words_of(error: BaseException) -> str:
    """An exception as words: its message, or its kind where it has none."""
    said = " ".join(str(error).split())
    return said[:200] or type(error).__name__
