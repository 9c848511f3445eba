"""The ReplicaSet controller: keeps as many pods as ``spec.replicas`` says.

See https://kubernetes.io/docs/concepts/workloads/controllers/replicaset/.
"""

from __future__ import annotations

import asyncio
import math
from collections import defaultdict
from datetime import datetime
from functools import cmp_to_key
from typing import TYPE_CHECKING

from ..apiserver.api import ApiError
from ..objects import (
    annotations_of,
    condition,
    controller_of,
    controller_reference,
    deep,
    deleting,
    key_of,
    labels_of,
    now,
    parse_time,
    pod_active,
    pod_available_in,
    pod_ready,
    selects,
    timestamp,
    without,
)
from .base import Controller

if TYPE_CHECKING:
    from ..apiserver.api import Api

Key = tuple[str, str]

BURST = 500
"""Pods made or deleted in one go, as in kube-controller-manager."""

DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
_PHASE_ORDER = {"Pending": 0, "Unknown": 1, "Running": 2}


def pod_from_template(template: dict, owner: dict, api_version: str, kind: str) -> dict:
    """Return the pod that a template describes, owned by ``owner`` and named after it."""
    meta = template.get("metadata") or {}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": f"{owner['metadata']['name']}-",
            "namespace": owner["metadata"]["namespace"],
            "ownerReferences": [controller_reference(owner, api_version, kind)],
        },
        "spec": deep(template["spec"]),
    }
    for field in ("labels", "annotations", "finalizers"):
        if meta.get(field):
            pod["metadata"][field] = deep(meta[field])
    return pod


def deletion_order(pods: list[dict], same_node: dict[str, int], moment: datetime) -> list[dict]:
    """Sort pods so that those to delete come first.

    The order is upstream's (`ActivePodsWithRanks`): unscheduled before scheduled, pending before running, not ready before
    ready, lower deletion cost, more siblings on the node, ready or made more recently (on a logarithmic scale, so that
    among pods of about the same age the choice is by uid), more restarts.

    Args:
        pods: The candidates.
        same_node: For each node's name, how many pods of the same workload are on it.
        moment: The present, from which ages are measured.
    """

    def age(text: str | None) -> float | None:
        return None if not text else max(0.0, (moment - parse_time(text)).total_seconds())

    def newer_first(a: float | None, b: float | None, left: dict, right: dict) -> int:
        if a is None or b is None:
            return 0 if a is b else (1 if b is None else -1)
        bucket_a, bucket_b = (int(math.log2(seconds)) if seconds >= 1 else -1 for seconds in (a, b))
        if bucket_a != bucket_b:
            return -1 if bucket_a < bucket_b else 1
        return -1 if left["metadata"]["uid"] < right["metadata"]["uid"] else 1

    def ready_since(pod: dict) -> str | None:
        return (condition(pod, "Ready") or {}).get("lastTransitionTime")

    def cost(pod: dict) -> int:
        try:
            return int(annotations_of(pod).get(DELETION_COST, "0"))
        except ValueError:
            return 0

    def restarts(pod: dict) -> int:
        return max((status.get("restartCount", 0) for status in pod.get("status", {}).get("containerStatuses") or ()), default=0)

    def compare(left: dict, right: dict) -> int:
        for measure in (
            lambda pod: bool(pod["spec"].get("nodeName")),
            lambda pod: _PHASE_ORDER.get(pod.get("status", {}).get("phase", "Pending"), 1),
            pod_ready,
            cost,
            lambda pod: -same_node.get(pod["spec"].get("nodeName", ""), 0),
        ):
            a, b = measure(left), measure(right)
            if a != b:
                return -1 if a < b else 1
        if pod_ready(left) and pod_ready(right):
            first, second = ready_since(left), ready_since(right)
            if first != second:
                return newer_first(age(first), age(second), left, right)
        if restarts(left) != restarts(right):
            return -1 if restarts(left) > restarts(right) else 1
        first, second = left["metadata"].get("creationTimestamp"), right["metadata"].get("creationTimestamp")
        return 0 if first == second else newer_first(age(first), age(second), left, right)

    return sorted(pods, key=cmp_to_key(compare))


class ReplicaSetController(Controller):
    """Makes, adopts, releases and deletes pods; writes the ReplicaSet's status."""

    name = "replicaset-controller"

    def __init__(self, api: Api) -> None:
        super().__init__(api)
        self.sets = api.informer("replicasets")
        self.pods = api.informer("pods")
        self._owner_of: dict[Key, str] = {}  # pod key -> uid of the controlling owner
        self._owned: dict[str, set[Key]] = defaultdict(set)
        self._orphans: dict[str, set[Key]] = defaultdict(set)

    def subscribe(self) -> None:
        self.sets.on_change(lambda _type, obj, _old: self.queue.add(key_of(obj)))
        self.pods.on_change(self._pod_changed)

    def _pod_changed(self, type_: str, pod: dict, old: dict | None) -> None:
        key = key_of(pod)
        owner = controller_of(pod)
        self._index(key, owner, gone=type_ == "DELETED")
        if owner is None:
            for candidate in self._matching(pod):
                self.queue.add(candidate)
        elif owner["kind"] == "ReplicaSet":
            self.queue.add((key[0], owner["name"]))
        previous = controller_of(old) if old else None
        if previous and previous["kind"] == "ReplicaSet" and (owner is None or previous["uid"] != owner["uid"]):
            self.queue.add((key[0], previous["name"]))

    def _index(self, key: Key, owner: dict | None, *, gone: bool) -> None:
        if (uid := self._owner_of.pop(key, None)) is not None:
            self._owned[uid].discard(key)
            if not self._owned[uid]:
                del self._owned[uid]
        self._orphans[key[0]].discard(key)
        if gone:
            return
        if owner is None:
            self._orphans[key[0]].add(key)
        else:
            self._owner_of[key] = owner["uid"]
            self._owned[owner["uid"]].add(key)

    def _matching(self, pod: dict) -> list[Key]:
        namespace = pod["metadata"]["namespace"]
        return [key_of(rs) for rs in self.sets.values(namespace) if selects(rs["spec"]["selector"], labels_of(pod))]

    async def reconcile(self, key: Key) -> None:
        rs = self.sets.get(*key)
        if rs is None:
            return
        pods = [pod for pod in self._claim(rs) if pod_active(pod)]
        failure: ApiError | None = None
        if not deleting(rs):
            failure = await self._scale(rs, pods)
        self._write_status(rs, pods, failure)
        if failure is not None and not _namespace_ending(failure):
            raise failure

    def _claim(self, rs: dict) -> list[dict]:
        """Return the set's pods, after adopting those that match without an owner and releasing those that match no more."""
        uid, namespace = rs["metadata"]["uid"], rs["metadata"]["namespace"]
        selector = rs["spec"]["selector"]
        mine = []
        for key in list(self._owned.get(uid, ())):
            pod = self.pods.get(*key)
            if pod is None:
                continue
            if selects(selector, labels_of(pod)):
                mine.append(pod)
            elif not deleting(pod):
                references = [r for r in pod["metadata"]["ownerReferences"] if r["uid"] != uid]
                self._set_owners(pod, references)
        if deleting(rs):
            return mine
        for key in list(self._orphans.get(namespace, ())):
            pod = self.pods.get(*key)
            if pod is not None and pod_active(pod) and selects(selector, labels_of(pod)):
                references = [*(pod["metadata"].get("ownerReferences") or ()), controller_reference(rs, "apps/v1", "ReplicaSet")]
                mine.append(self._set_owners(pod, references))
        return mine

    def _set_owners(self, pod: dict, references: list[dict]) -> dict:
        patch = {"metadata": {"uid": pod["metadata"]["uid"], "ownerReferences": references or None}}
        return self.api.patch("pods", pod["metadata"]["namespace"], pod["metadata"]["name"], patch)

    async def _scale(self, rs: dict, pods: list[dict]) -> ApiError | None:
        key = key_of(rs)
        surplus = len(pods) - rs["spec"].get("replicas", 1)
        if surplus < 0:
            return await self._create(key, rs, min(-surplus, BURST))
        if surplus > 0:
            for pod in deletion_order(pods, self._same_node(rs), now())[: min(surplus, BURST)]:
                if (error := self._delete(key, rs, pod)) is not None:
                    return error
        return None

    async def _create(self, key: Key, rs: dict, count: int) -> ApiError | None:
        for made in range(count):
            try:
                pod = self.api.create("pods", pod_from_template(rs["spec"]["template"], rs, "apps/v1", "ReplicaSet"))
            except ApiError as error:
                if not _namespace_ending(error):
                    self.event(rs, "FailedCreate", f"Error creating: {error.message}", warning=True)
                return error
            # Noted now, not with its event: looked at again before that, the set would make the pod a second time.
            self._index(key_of(pod), controller_of(pod), gone=False)
            self.event(rs, "SuccessfulCreate", f"Created pod: {pod['metadata']['name']}")
            if made % 8 == 7:
                await asyncio.sleep(0)  # a hundred pods should not make everybody else wait
        return None

    def _delete(self, key: Key, rs: dict, pod: dict) -> ApiError | None:
        name = pod["metadata"]["name"]
        try:
            self.api.delete("pods", key[0], name, uid=pod["metadata"]["uid"])
        except ApiError as error:
            if error.reason == "NotFound":
                return None
            self.event(rs, "FailedDelete", f"Error deleting: {error.message}", warning=True)
            return error
        self.event(rs, "SuccessfulDelete", f"Deleted pod: {name}")
        return None

    def _same_node(self, rs: dict) -> dict[str, int]:
        """Count the workload's pods on each node; the sets of one Deployment count together."""
        owner = controller_of(rs)
        uids = {rs["metadata"]["uid"]}
        if owner is not None:
            for other in self.sets.values(rs["metadata"]["namespace"]):
                reference = controller_of(other)
                if reference is not None and reference["uid"] == owner["uid"]:
                    uids.add(other["metadata"]["uid"])
        counts: dict[str, int] = defaultdict(int)
        for uid in uids:
            for key in self._owned.get(uid, ()):
                pod = self.pods.get(*key)
                if pod is not None and pod_active(pod):
                    counts[pod["spec"].get("nodeName", "")] += 1
        return counts

    def _write_status(self, rs: dict, pods: list[dict], failure: ApiError | None) -> None:
        moment = now()
        min_ready = rs["spec"].get("minReadySeconds", 0)
        template_labels = (rs["spec"]["template"].get("metadata") or {}).get("labels") or {}
        waits = [pod_available_in(pod, min_ready, moment) for pod in pods]
        counts = {
            "fullyLabeledReplicas": sum(template_labels.items() <= labels_of(pod).items() for pod in pods),
            "readyReplicas": sum(wait is not None for wait in waits),
            "availableReplicas": sum(wait == 0 for wait in waits),
        }
        old = rs.get("status") or {}
        status = {"replicas": len(pods), "observedGeneration": rs["metadata"].get("generation", 1)}
        status.update({field: count for field, count in counts.items() if count})
        conditions = _failure_conditions(old.get("conditions") or [], len(pods) - rs["spec"].get("replicas", 1), failure)
        if conditions:
            status["conditions"] = conditions
        if status != old:
            changed = deep(rs)
            changed["status"] = status
            self.api.update("replicasets", changed, subresource="status")
        pending = [wait for wait in waits if wait]
        if pending:
            self.queue.add_after(key_of(rs), min(pending) + 0.01)


def _failure_conditions(conditions: list[dict], surplus: int, failure: ApiError | None) -> list[dict]:
    present = next((item for item in conditions if item["type"] == "ReplicaFailure"), None)
    if failure is None:
        return without(conditions, "ReplicaFailure")
    if present is not None:
        return conditions
    return [
        *conditions,
        {
            "type": "ReplicaFailure",
            "status": "True",
            "reason": "FailedCreate" if surplus < 0 else "FailedDelete",
            "message": failure.message,
            "lastTransitionTime": timestamp(),
        },
    ]


def _namespace_ending(error: ApiError) -> bool:
    """Whether a create failed only because its namespace is being deleted, in which case trying again is pointless."""
    causes = (error.details or {}).get("causes") or ()
    return any(cause.get("reason") == "NamespaceTerminating" for cause in causes) or "is being terminated" in error.message
