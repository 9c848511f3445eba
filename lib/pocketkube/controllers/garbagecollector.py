"""The garbage collector: objects whose owners are gone go too.

Three ways, chosen by whoever deletes the owner (https://kubernetes.io/docs/concepts/architecture/garbage-collection/):

* background: the owner goes at once, its dependents afterwards;
* foreground: the owner stays, with a finalizer, until the dependents that block it are gone;
* orphan: the dependents lose the reference and stay.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from ..apiserver.api import ApiError
from ..objects import deleting, key_of
from .base import Controller

if TYPE_CHECKING:
    from ..apiserver.api import Api

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"


class Ref(NamedTuple):
    """Where an object is: its resource, namespace (None for cluster-scoped) and name."""

    resource: str
    namespace: str | None
    name: str


class GarbageCollector(Controller):
    """Follows owner references in both directions.

    Args:
        api: The API.
        kinds: For each kind that can own or be owned, its resource: ``{"ReplicaSet": "replicasets", …}``. References to
            other kinds are left alone, since nobody here can tell whether such an owner exists.
        cluster_scoped: The resources among them without a namespace.
    """

    name = "garbage-collector-controller"

    def __init__(self, api: Api, kinds: Mapping[str, str], cluster_scoped: frozenset[str] = frozenset()) -> None:
        super().__init__(api)
        self.kinds = dict(kinds)
        self.cluster_scoped = cluster_scoped
        self.informers = {resource: api.informer(resource) for resource in self.kinds.values()}
        self._owners: dict[Ref, frozenset[str]] = {}  # object -> uids of its owners
        self._dependents: dict[str, set[Ref]] = defaultdict(set)  # uid of an owner -> objects

    def subscribe(self) -> None:
        for resource, informer in self.informers.items():
            informer.on_change(lambda type_, obj, _old, resource=resource: self._changed(resource, type_, obj))

    def _changed(self, resource: str, type_: str, obj: dict) -> None:
        meta = obj["metadata"]
        ref = Ref(resource, *key_of(obj))
        owners = frozenset(r["uid"] for r in meta.get("ownerReferences") or ()) if type_ != "DELETED" else frozenset()
        before = self._owners.get(ref, frozenset())
        for uid in before - owners:
            self._dependents[uid].discard(ref)
            if not self._dependents[uid]:
                del self._dependents[uid]
        for uid in owners - before:
            self._dependents[uid].add(ref)
        if owners:
            self._owners[ref] = owners
        else:
            self._owners.pop(ref, None)
        if type_ == "DELETED":
            for dependent in self._dependents.get(meta["uid"], ()):
                self.queue.add(dependent)
            for owner in meta.get("ownerReferences") or ():  # one that waits for this dependent can go on
                if owner["kind"] in self.kinds and (at := self._owner_ref(owner, ref.namespace)) is not None:
                    self.queue.add(at)
        elif owners != before or meta.get("deletionTimestamp"):
            self.queue.add(ref)

    def _owner_ref(self, reference: dict, namespace: str | None) -> Ref | None:
        resource = self.kinds.get(reference["kind"])
        if resource is None:
            return None
        return Ref(resource, None if resource in self.cluster_scoped else namespace, reference["name"])

    def _find(self, ref: Ref) -> dict | None:
        return self.informers[ref.resource].get(ref.namespace, ref.name)

    async def reconcile(self, key: Ref) -> None:
        obj = self._find(key)
        if obj is None:
            return
        if deleting(obj):
            finalizers = obj["metadata"].get("finalizers") or ()
            if ORPHAN in finalizers:
                self._orphan(key, obj)
            elif FOREGROUND in finalizers:
                self._foreground(key, obj)
            return
        self._collect(key, obj)

    def _collect(self, ref: Ref, obj: dict) -> None:
        """Delete an object without any owner left; drop references to owners that are gone from one that has others."""
        solid, dangling, waiting = [], [], []
        for reference in obj["metadata"].get("ownerReferences") or ():
            at = self._owner_ref(reference, ref.namespace)
            owner = self._find(at) if at is not None else None
            if at is None:
                solid.append(reference)
            elif owner is None or owner["metadata"]["uid"] != reference["uid"]:
                dangling.append(reference)
            elif deleting(owner) and FOREGROUND in (owner["metadata"].get("finalizers") or ()):
                waiting.append(reference)
            else:
                solid.append(reference)
        if not dangling and not waiting:
            return
        if solid:
            self._set_owners(ref, obj, solid)
            return
        # Dependents of an object that goes in the foreground must be gone, with their own dependents, before it.
        propagation = "Foreground" if waiting else "Background"
        self._delete(ref, obj, propagation)

    def _foreground(self, ref: Ref, obj: dict) -> None:
        uid = obj["metadata"]["uid"]
        blocking = 0
        for dependent_ref in list(self._dependents.get(uid, ())):
            dependent = self._find(dependent_ref)
            if dependent is None:
                continue
            reference = next((r for r in dependent["metadata"].get("ownerReferences") or () if r["uid"] == uid), None)
            if reference is None:
                continue
            blocking += bool(reference.get("blockOwnerDeletion"))
            if not deleting(dependent):
                self.queue.add(dependent_ref)
        if not blocking:
            self._drop_finalizer(ref, obj, FOREGROUND)

    def _orphan(self, ref: Ref, obj: dict) -> None:
        uid = obj["metadata"]["uid"]
        for dependent_ref in list(self._dependents.get(uid, ())):
            dependent = self._find(dependent_ref)
            if dependent is not None:
                self._set_owners(dependent_ref, dependent, [r for r in dependent["metadata"]["ownerReferences"] if r["uid"] != uid])
        self._drop_finalizer(ref, obj, ORPHAN)

    def _set_owners(self, ref: Ref, obj: dict, references: list[dict]) -> None:
        patch = {"metadata": {"uid": obj["metadata"]["uid"], "ownerReferences": references or None}}
        self._tolerating_absence(lambda: self.api.patch(ref.resource, ref.namespace, ref.name, patch))

    def _drop_finalizer(self, ref: Ref, obj: dict, name: str) -> None:
        meta = obj["metadata"]
        left = [finalizer for finalizer in meta.get("finalizers") or () if finalizer != name]
        patch = {"metadata": {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"], "finalizers": left or None}}
        self._tolerating_absence(lambda: self.api.patch(ref.resource, ref.namespace, ref.name, patch))

    def _delete(self, ref: Ref, obj: dict, propagation: str) -> None:
        uid = obj["metadata"]["uid"]
        self._tolerating_absence(lambda: self.api.delete(ref.resource, ref.namespace, ref.name, propagation=propagation, uid=uid))

    @staticmethod
    def _tolerating_absence(action) -> None:
        try:
            action()
        except ApiError as error:
            if error.reason != "NotFound":
                raise
