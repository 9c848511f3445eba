"""The cluster's memory, in etcd's place: versioned objects and their watches, kept in SQLite.

Every object is held in memory, since a lab's cluster is small, and written through to one SQLite file, so a write is either wholly
accepted or wholly refused. Objects handed out are shared: treat them as read-only and :func:`clone` before a change.

Durability: write-ahead log with ``synchronous=NORMAL``. Every accepted write has reached the kernel before its caller hears of it, so
``kill -9`` or a crash of the process loses nothing; only a power failure may lose the last instants (but never damages the file).
``FULL`` would put a disk flush into every status update, which 100 starting pods can't afford.
"""

from __future__ import annotations

import json
import sqlite3
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

Key = tuple["str | None", str]
HISTORY = 1000
"""How many changes a resource's watch history holds; older versions answer 410 Gone."""


class StoreError(Exception):
    """The store can't be opened, or refuses a write; nothing of that write was kept.

    Attributes:
        full: whether the disk is full.
    """

    def __init__(self, message: str, *, full: bool = False):
        super().__init__(message)
        self.full = full


class Change(NamedTuple):
    """One change of one object: ``ADDED``, ``MODIFIED`` or ``DELETED``, with the object after it (for DELETED: as it last was)."""

    type: str
    object: dict[str, Any]
    old: dict[str, Any] | None
    revision: int


def clone(value: Any) -> Any:
    """A deep copy of JSON-like data, several times faster than :func:`copy.deepcopy`.

    >>> a = {"x": [1, {"y": 2}]}; b = clone(a); b["x"][1]["y"] = 3; a["x"][1]["y"]
    2
    """
    if type(value) is dict:
        return {key: clone(item) for key, item in value.items()}
    if type(value) is list:
        return [clone(item) for item in value]
    return value


def key_of(obj: dict[str, Any]) -> Key:
    """An object's key: its namespace (None for cluster-scoped ones) and name."""
    metadata = obj["metadata"]
    return metadata.get("namespace"), metadata["name"]


class Store:
    """Versioned objects by resource, namespace and name.

    Args:
        path: the SQLite file, made if it isn't there; ``:memory:`` keeps nothing.
        history: how many changes of each resource can be watched from the past.

    Raises:
        StoreError: the file can't be opened, is in use by another cluster or is damaged.

    >>> store = Store()
    >>> pod = store.put("pods", {"metadata": {"namespace": "default", "name": "web"}})
    >>> store.get("pods", "default", "web")["metadata"]["resourceVersion"] == str(store.revision)
    True
    """

    def __init__(self, path: Path | str = ":memory:", *, history: int = HISTORY):
        self.path = str(path)
        self._objects: dict[str, dict[Key, dict[str, Any]]] = {}
        self._history: dict[str, deque[Change]] = {}
        self._history_size = history
        self._forgotten: dict[str, int] = {}
        self._subscribers: dict[str, list[Callable[[Change], None]]] = {}
        try:
            self._db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=1)
            # Exclusive: one cluster, one process. It also makes a second cluster on the same file fail at once rather than corrupt it.
            self._db.execute("PRAGMA locking_mode=EXCLUSIVE")
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.execute("PRAGMA cache_size=-1024")
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS objects (resource TEXT, namespace TEXT, name TEXT, body TEXT NOT NULL,"
                " PRIMARY KEY (resource, namespace, name)) WITHOUT ROWID"
            )
            self._db.execute("CREATE TABLE IF NOT EXISTS revision (id INTEGER PRIMARY KEY CHECK (id = 0), value INTEGER NOT NULL)")
            self._db.execute("INSERT OR IGNORE INTO revision VALUES (0, 0)")
            self._db.execute("COMMIT")
            self.revision: int = self._db.execute("SELECT value FROM revision").fetchone()[0]
            for resource, namespace, name, body in self._db.execute("SELECT resource, namespace, name, body FROM objects"):
                self._objects.setdefault(resource, {})[(namespace or None, name)] = json.loads(body)
        except (sqlite3.Error, ValueError) as error:
            raise self._explain(error, "open") from error
        self._start = self.revision

    def close(self) -> None:
        """Write everything out and let go of the file."""
        try:
            self._db.close()
        except sqlite3.Error as error:
            raise self._explain(error, "close") from error

    def get(self, resource: str, namespace: str | None, name: str) -> dict[str, Any] | None:
        """The object, read-only, or None."""
        return self._objects.get(resource, {}).get((namespace, name))

    def objects(self, resource: str) -> dict[Key, dict[str, Any]]:
        """All objects of a resource, by key: the live table itself, so read-only and never changed while it is iterated over."""
        return self._objects.setdefault(resource, {})

    def put(self, resource: str, obj: dict[str, Any]) -> dict[str, Any]:
        """Keep ``obj`` under the next revision, which becomes its ``metadata.resourceVersion``.

        The store takes ``obj`` over: the caller mustn't change it afterwards.

        Raises:
            StoreError: the disk is full or read-only; the object is as it was before.
        """
        key = key_of(obj)
        revision = self.revision + 1
        obj["metadata"]["resourceVersion"] = str(revision)
        body = json.dumps(obj, ensure_ascii=False, separators=(",", ":"))
        self._write("INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?)", (resource, key[0] or "", key[1], body), revision)
        table = self.objects(resource)
        old = table.get(key)
        table[key] = obj
        self._publish(resource, Change("MODIFIED" if old else "ADDED", obj, old, revision))
        return obj

    def delete(self, resource: str, namespace: str | None, name: str) -> dict[str, Any] | None:
        """Remove an object; returns it as it last was, with the revision of its removal, or None if it wasn't there.

        Raises:
            StoreError: the disk is full or read-only; the object is still there.
        """
        key = (namespace, name)
        table = self.objects(resource)
        old = table.get(key)
        if old is None:
            return None
        revision = self.revision + 1
        self._write("DELETE FROM objects WHERE resource = ? AND namespace = ? AND name = ?", (resource, namespace or "", name), revision)
        del table[key]
        last = {**old, "metadata": {**old["metadata"], "resourceVersion": str(revision)}}
        self._publish(resource, Change("DELETED", last, old, revision))
        return last

    def changes(self, resource: str, since: int) -> Iterator[Change] | None:
        """The changes of a resource after revision ``since``; None when some of them are no longer known (410 Gone)."""
        if since < max(self._start, self._forgotten.get(resource, 0)):
            return None
        return (change for change in list(self._history.get(resource, ())) if change.revision > since)

    def subscribe(self, resource: str, callback: Callable[[Change], None]) -> Callable[[], None]:
        """Call ``callback`` at every change of the resource, in order; returns a function that ends it."""
        subscribers = self._subscribers.setdefault(resource, [])
        subscribers.append(callback)

        def cancel() -> None:
            if callback in subscribers:
                subscribers.remove(callback)

        return cancel

    def _write(self, statement: str, values: tuple[Any, ...], revision: int) -> None:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self._db.execute(statement, values)
                self._db.execute("UPDATE revision SET value = ?", (revision,))
                self._db.execute("COMMIT")
            except sqlite3.Error:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise self._explain(error, "write") from error
        self.revision = revision

    def _publish(self, resource: str, change: Change) -> None:
        history = self._history.setdefault(resource, deque())
        history.append(change)
        if len(history) > self._history_size:
            self._forgotten[resource] = history.popleft().revision
        for callback in tuple(self._subscribers.get(resource, ())):
            callback(change)

    def _explain(self, error: Exception, doing: str) -> StoreError:
        text = str(error)
        if "full" in text:
            hint = "the disk is full: free some space, then repeat the change (nothing of it was kept)"
            return StoreError(f"cannot {doing} the cluster's store {self.path}: {hint}", full=True)
        if "locked" in text:
            hint = "another running cluster uses it: stop that one (servicelab down), or give this one another name"
        elif "readonly" in text or "unable to open" in text:
            hint = "its directory is missing or read-only: make it writable, or name another state directory"
        elif "not a database" in text or "malformed" in text or isinstance(error, ValueError):
            hint = "the file is damaged: move it away to start with an empty cluster"
        else:
            hint = "look at the disk and the file's permissions"
        return StoreError(f"cannot {doing} the cluster's store {self.path} ({text}): {hint}")
