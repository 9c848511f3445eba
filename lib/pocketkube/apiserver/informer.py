"""A shared view of one resource inside the cluster's process, in the place of client-go's informers."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from ..store import Change, Key, Store

Callback = Callable[[str, "dict[str, Any]", "dict[str, Any] | None"], None]


class Informer:
    """All objects of one resource, and a call at each change.

    The objects are the store's own: read-only. Callbacks run from the event loop, in order, never inside the write that caused them,
    so a callback may write. By the time it runs, :attr:`items` may already be ahead of it.

    Attributes:
        items: the objects by (namespace or None, name).
    """

    def __init__(self, store: Store, resource: str):
        self.resource = resource
        self.items: dict[Key, dict[str, Any]] = store.objects(resource)
        self._callbacks: list[Callback] = []
        self._queue: deque[tuple[Callback | None, str, dict[str, Any], dict[str, Any] | None]] = deque()
        self._scheduled = False
        store.subscribe(resource, self._changed)

    def get(self, namespace: str | None, name: str) -> dict[str, Any] | None:
        """The object, read-only, or None."""
        return self.items.get((namespace, name))

    def values(self, namespace: str | None = None) -> Iterable[dict[str, Any]]:
        """The objects (of one namespace, when named), read-only; safe against changes while iterating."""
        if namespace is None:
            return list(self.items.values())
        return [obj for (where, _), obj in self.items.items() if where == namespace]

    def on_change(self, callback: Callback) -> Callable[[], None]:
        """Call ``callback(type, object, old)`` at each change, first for what is there already as ``ADDED``.

        Must be called from the event loop's thread. Returns a function that ends the calls.
        """
        self._callbacks.append(callback)
        for obj in self.items.values():
            self._queue.append((callback, "ADDED", obj, None))
        self._schedule()

        def cancel() -> None:
            if callback in self._callbacks:
                self._callbacks.remove(callback)

        return cancel

    def _changed(self, change: Change) -> None:
        if self._callbacks:
            self._queue.append((None, change.type, change.object, change.old))
            self._schedule()

    def _schedule(self) -> None:
        if self._queue and not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._deliver)

    def _deliver(self) -> None:
        self._scheduled = False
        for _ in range(len(self._queue)):
            target, kind, obj, old = self._queue.popleft()
            for callback in (target,) if target else tuple(self._callbacks):
                if callback not in self._callbacks:
                    continue
                try:
                    callback(kind, obj, old)
                except Exception as error:
                    # One broken listener must not keep the change from the others; the loop's handler logs it with its traceback.
                    asyncio.get_running_loop().call_exception_handler(
                        {"message": f"a listener of {self.resource} failed at {kind}", "exception": error}
                    )
        self._schedule()
