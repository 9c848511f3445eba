"""The node controllers: taints that follow a node's condition, eviction by NoExecute taints, pods of nodes that are gone."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from ..apiserver.api import ApiError
from ..objects import condition, deep, deleting, key_of, now, parse_time, timestamp
from ..scheduling import tolerates
from .base import Controller

if TYPE_CHECKING:
    from ..apiserver.api import Api

NOT_READY = "node.kubernetes.io/not-ready"
UNSCHEDULABLE = "node.kubernetes.io/unschedulable"


def condition_taints(node: dict) -> list[dict]:
    """Return the node's taints as its conditions and ``spec.unschedulable`` (`kubectl cordon`) want them."""
    taints = [deep(taint) for taint in node["spec"].get("taints") or () if taint["key"] not in {NOT_READY, UNSCHEDULABLE}]
    present = {taint["key"]: taint for taint in node["spec"].get("taints") or () if taint["effect"] == "NoSchedule"}
    ready = condition(node, "Ready")
    wanted = {NOT_READY: ready is None or ready["status"] != "True", UNSCHEDULABLE: bool(node["spec"].get("unschedulable"))}
    for key, needed in wanted.items():
        if needed:
            taint = {"key": key, "effect": "NoSchedule"}
            if key == UNSCHEDULABLE:
                taint["timeAdded"] = timestamp()
            taints.append(deep(present.get(key, taint)))
    return taints


class NodeController(Controller):
    """Keeps the taints true, evicts pods that don't tolerate a NoExecute taint, and removes the pods of a deleted node."""

    name = "node-controller"

    def __init__(self, api: Api) -> None:
        super().__init__(api)
        self.nodes = api.informer("nodes")
        self.pods = api.informer("pods")
        self._registered: set[str] = set()

    def subscribe(self) -> None:
        self.nodes.on_change(lambda _type, obj, _old: self.queue.add(obj["metadata"]["name"]))
        self.pods.on_change(self._pod_changed)

    def _pod_changed(self, type_: str, pod: dict, old: dict | None) -> None:
        node = pod["spec"].get("nodeName")
        if node and type_ != "DELETED" and (old is None or old["spec"] != pod["spec"]):
            self.queue.add(node)

    async def reconcile(self, key: str) -> None:
        node = self.nodes.get(None, key)
        if node is None:
            self._registered.discard(key)
            self._collect_pods(key)
            return
        if key not in self._registered:
            self._registered.add(key)
            self.event(node, "RegisteredNode", f"Node {key} event: Registered Node {key} in Controller")
        taints = condition_taints(node)
        if taints != (node["spec"].get("taints") or []):
            self.api.patch(
                "nodes",
                None,
                key,
                {"metadata": {"resourceVersion": node["metadata"]["resourceVersion"]}, "spec": {"taints": taints or None}},
            )
            return  # the change comes back as an event
        self._evict(key, [taint for taint in taints if taint["effect"] == "NoExecute"])

    def _collect_pods(self, node: str) -> None:
        for pod in list(self.pods.values()):
            if pod["spec"].get("nodeName") == node:
                self._delete(pod, grace_seconds=0)

    def _evict(self, node: str, taints: list[dict]) -> None:
        if not taints:
            return
        for pod in list(self.pods.values()):
            if pod["spec"].get("nodeName") != node or deleting(pod):
                continue
            seconds = _stay(pod, taints)
            if seconds is None:
                continue
            if seconds > 0:
                self.queue.add_after(node, seconds)
                continue
            self.event(pod, "TaintManagerEviction", f"Marking for deletion Pod {pod['metadata']['namespace']}/{pod['metadata']['name']}")
            self._delete(pod)

    def _delete(self, pod: dict, *, grace_seconds: int | None = None) -> None:
        try:
            self.api.delete("pods", *key_of(pod), grace_seconds=grace_seconds, uid=pod["metadata"]["uid"])
        except ApiError as error:
            if error.reason != "NotFound":
                raise


def _stay(pod: dict, taints: list[dict]) -> float | None:
    """Return how many seconds more a pod may stay on a node with these taints: None for ever, 0 not at all."""
    left: float | None = None
    for taint in taints:
        matching = [t for t in pod["spec"].get("tolerations") or () if tolerates(t, taint)]
        if not matching:
            return 0.0
        limits = [t["tolerationSeconds"] for t in matching if t.get("tolerationSeconds") is not None]
        if not limits:
            continue
        since = parse_time(taint["timeAdded"]) if taint.get("timeAdded") else now()
        rest = max(0.0, (since + timedelta(seconds=min(limits)) - now()).total_seconds())
        left = rest if left is None else min(left, rest)
    return left
