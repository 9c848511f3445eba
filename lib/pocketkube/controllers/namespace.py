"""The namespace controller: a deleted namespace is emptied first, and goes when nothing is left in it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from ..apiserver.api import ApiError
from ..objects import deep, deleting, key_of, timestamp
from .base import Controller

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..apiserver.api import Api


class NamespaceController(Controller):
    """Deletes the content of namespaces that are being deleted, then finalizes them.

    Args:
        api: The API.
        resources: The plural names of all namespaced resources.
    """

    name = "namespace-controller"

    def __init__(self, api: Api, resources: Iterable[str]) -> None:
        super().__init__(api)
        self.namespaces = api.informer("namespaces")
        # Events last: what is deleted before them still reports.
        self.resources = sorted(resources, key=lambda resource: (resource == "events", resource))
        self.content = {resource: api.informer(resource) for resource in self.resources}

    def subscribe(self) -> None:
        self.namespaces.on_change(lambda _type, obj, _old: self._look(obj["metadata"]["name"]))
        for informer in self.content.values():
            informer.on_change(lambda _type, obj, _old: self._look(obj["metadata"]["namespace"]))

    def _look(self, name: str) -> None:
        namespace = self.namespaces.get(None, name)
        if namespace is not None and deleting(namespace):
            self.queue.add(name)

    async def reconcile(self, key: str) -> None:
        namespace = self.namespaces.get(None, key)
        if namespace is None or not deleting(namespace):
            return
        failures = []
        for resource, informer in self.content.items():
            for obj in list(informer.values(key)):
                if deleting(obj):
                    continue
                try:
                    self.api.delete(resource, *key_of(obj), propagation="Background", uid=obj["metadata"]["uid"])
                except ApiError as error:
                    if error.reason not in {"NotFound", "Conflict"}:
                        failures.append(error.message)
        left = Counter({resource: sum(1 for _ in informer.values(key)) for resource, informer in self.content.items()})
        left = +left
        if not left:
            finished = deep(namespace)
            finished["spec"]["finalizers"] = [name for name in finished["spec"].get("finalizers") or () if name != "kubernetes"]
            try:
                self.api.update("namespaces", finished, subresource="finalize")
            except ApiError as error:
                if error.reason != "NotFound":
                    raise
            return
        self._report(namespace, left, failures)

    def _report(self, namespace: dict, left: Counter[str], failures: list[str]) -> None:
        finalizers = Counter(
            name
            for resource in left
            for obj in self.content[resource].values(namespace["metadata"]["name"])
            for name in obj["metadata"].get("finalizers") or ()
        )
        remaining = ", ".join(f"{resource}. has {count} resource instances" for resource, count in sorted(left.items()))
        held = ", ".join(f"{name} in {count} resource instances" for name, count in sorted(finalizers.items()))
        content_message = "; ".join(failures) or "All content successfully deleted, may be waiting on finalization"
        states = [
            ("NamespaceDeletionDiscoveryFailure", False, "ResourcesDiscovered", "All resources successfully discovered"),
            ("NamespaceDeletionGroupVersionParsingFailure", False, "ParsedGroupVersions", "All legacy kube types successfully parsed"),
            ("NamespaceDeletionContentFailure", bool(failures), "ContentDeletionFailed" if failures else "ContentDeleted", content_message),
            ("NamespaceContentRemaining", True, "SomeResourcesRemain", f"Some resources are remaining: {remaining}"),
            (
                "NamespaceFinalizersRemaining",
                bool(held),
                "SomeFinalizersRemain" if held else "ContentHasNoFinalizers",
                f"Some content in the namespace has finalizers remaining: {held}" if held else "All content-preserving finalizers finished",
            ),
        ]
        old = {item["type"]: item for item in (namespace.get("status") or {}).get("conditions") or ()}
        conditions = []
        for type_, value, reason, message in states:
            status = "True" if value else "False"
            before = old.get(type_)
            since = before["lastTransitionTime"] if before is not None and before["status"] == status else timestamp()
            conditions.append({"type": type_, "status": status, "reason": reason, "message": message, "lastTransitionTime": since})
        if conditions != list(old.values()):
            changed = deep(namespace)
            changed.setdefault("status", {})["conditions"] = conditions
            self.api.update("namespaces", changed, subresource="status")
