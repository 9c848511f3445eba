"""kube-scheduler: gives each new pod a node. What is a good node is decided in ``scheduling``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .apiserver.api import ApiError
from .controllers.base import Controller
from .objects import condition, deep, deleting, key_of, labels_of, pod_finished, timestamp, without
from .scheduling import Key, NodeState, Placement, explain

if TYPE_CHECKING:
    from .apiserver.api import Api

GATHER = 0.02
"""Seconds between a change that may make room and the next look at the pods that found none."""


class Scheduler(Controller):
    """Binds pods to nodes; looks again at those that fit nowhere whenever something changes that could make room.

    >>> async def run(api):                                     # doctest: +SKIP
    ...     scheduler = Scheduler(api)
    ...     await scheduler.start()
    """

    name = "default-scheduler"

    def __init__(self, api: Api) -> None:
        super().__init__(api)
        self.pods = api.informer("pods")
        self.nodes = api.informer("nodes")
        self.namespaces = api.informer("namespaces")
        self._states: dict[str, NodeState] = {}
        self._homeless: dict[str, dict[Key, dict]] = {}  # pods on nodes that are not (yet) known
        self._node_of: dict[Key, str] = {}
        self._unschedulable: dict[Key, None] = {}

    def subscribe(self) -> None:
        self.nodes.on_change(self._node_changed)
        self.pods.on_change(self._pod_changed)

    def _node_changed(self, type_: str, node: dict, old: dict | None) -> None:
        name = node["metadata"]["name"]
        if type_ == "DELETED":
            state = self._states.pop(name, None)
            if state is not None:
                self._homeless[name] = dict(state.pods)
        elif name in self._states:
            self._states[name].node = node
            if old is not None and _capacity(old) == _capacity(node):
                return  # a heartbeat
        else:
            state = self._states[name] = NodeState(node)
            for key, pod in self._homeless.pop(name, {}).items():
                state.add(key, pod)
        self._retry()

    def _pod_changed(self, type_: str, pod: dict, old: dict | None) -> None:
        key = key_of(pod)
        node = pod["spec"].get("nodeName")
        if type_ == "DELETED" or pod_finished(pod):
            self._leave(key)
            self._unschedulable.pop(key, None)
            self._retry()
        elif node:
            self._settle(key, pod, node)
            self._unschedulable.pop(key, None)
            # A pod can make room by being there, too: for those with an affinity to it.
            if old is None or not old["spec"].get("nodeName") or labels_of(old) != labels_of(pod):
                self._retry()
        elif self._is_mine(pod) and (old is None or old["spec"] != pod["spec"] or labels_of(old) != labels_of(pod)):
            self.queue.add(key)

    def _settle(self, key: Key, pod: dict, node: str) -> None:
        if self._node_of.get(key) != node:
            self._leave(key)
        self._node_of[key] = node
        state = self._states.get(node)
        if state is None:
            self._homeless.setdefault(node, {})[key] = pod
        elif key in state.pods and state.pods[key]["spec"] is pod["spec"]:
            state.pods[key] = pod
        else:
            state.add(key, pod)

    def _leave(self, key: Key) -> None:
        node = self._node_of.pop(key, None)
        if node is None:
            return
        if node in self._states:
            self._states[node].remove(key)
        self._homeless.get(node, {}).pop(key, None)

    def _retry(self) -> None:
        for key in self._unschedulable:
            self.queue.add_after(key, GATHER)

    def _is_mine(self, pod: dict) -> bool:
        spec = pod["spec"]
        return (
            not spec.get("nodeName")
            and not deleting(pod)
            and spec.get("schedulerName", "default-scheduler") == self.name
            and not spec.get("schedulingGates")
        )

    async def reconcile(self, key: Key) -> None:
        pod = self.pods.get(*key)
        if pod is None or not self._is_mine(pod) or key in self._node_of:
            self._unschedulable.pop(key, None)
            return
        node, rejections = Placement(pod, self._states.values(), self._namespace_labels).choose()
        if node is None:
            self._unschedulable[key] = None
            self._report(pod, explain(rejections))
            return
        try:
            self.api.bind(*key, node)
        except ApiError as error:
            if error.reason in {"NotFound", "Conflict"}:
                return  # deleted or placed by somebody else meanwhile
            raise
        self._unschedulable.pop(key, None)
        # Counted in at once: the next pod must not be placed as if this one were nowhere.
        self._settle(key, self.pods.get(*key) or pod, node)
        self.event(pod, "Scheduled", f"Successfully assigned {key[0]}/{key[1]} to {node}")

    def _namespace_labels(self, name: str) -> dict[str, str]:
        namespace = self.namespaces.get(None, name)
        return labels_of(namespace) if namespace is not None else {}

    def _report(self, pod: dict, message: str) -> None:
        present = condition(pod, "PodScheduled")
        if present is not None and present.get("message") == message:
            return
        item = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": message,
            "lastProbeTime": None,
            "lastTransitionTime": present["lastTransitionTime"] if present and present["status"] == "False" else timestamp(),
            "observedGeneration": pod["metadata"].get("generation", 1),
        }
        changed = deep(pod)
        status = changed.setdefault("status", {})
        status["conditions"] = [*without(status.get("conditions") or (), "PodScheduled"), item]
        self.api.update("pods", changed, subresource="status")
        self.event(pod, "FailedScheduling", message, warning=True)


def _capacity(node: dict) -> tuple:
    """Return all of a node that scheduling looks at."""
    return labels_of(node), node["spec"], (node.get("status") or {}).get("allocatable")
