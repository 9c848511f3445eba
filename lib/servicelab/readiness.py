"""What it means that an object of the API is ready, judged by what it says itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable


@dataclasses.dataclass(frozen=True)
class State:
    """One look at what is awaited: whether it is there, and a short sentence about it."""

    done: bool
    words: str
    share: float | None = None
    # a Service's ready endpoints
    addresses: frozenset[str] = frozenset()
    targets: frozenset[tuple[str, int]] = frozenset()


def condition_of(obj: dict, kind: str) -> dict:
    """The condition of this type; empty where there is none."""
    return next((c for c in obj.get("status", {}).get("conditions") or [] if c["type"] == kind), {})


def of_deployment(obj: dict, pods_of: Callable[[str], list[dict]]) -> State:
    """Whether it is rolled out and available; ``pods_of`` lists the pods that a selector finds."""
    # the rule of `kubectl rollout status`
    want, status = obj["spec"].get("replicas", 1), obj.get("status", {})
    if status.get("observedGeneration", 0) < obj["metadata"].get("generation", 0):
        return State(False, "is not seen by its controller yet", 0)
    updated, available, total = status.get("updatedReplicas", 0), status.get("availableReplicas", 0), status.get("replicas", 0)
    done = updated == available == total == want
    words = f"is available ({available} of {want} pods)" if done else f"has {min(updated, available)} of {want} pods available"
    if total > updated:
        words += f", {total - updated} old to end"
    if done and want:
        # the status follows the pods a moment later: right after a pod was deleted it still counts that one
        ready = sum(of_pod(pod).done for pod in pods_of(selector_text(obj["spec"]["selector"].get("matchLabels") or {})))
        if ready < want:
            return State(False, f"has {ready} of {want} pods ready", ready / want)
    return State(done, words, min(updated, available) / want if want else None)


def of_replicaset(obj: dict) -> State:
    """Whether it has as many ready pods as it wants."""
    want, ready = obj["spec"].get("replicas", 1), obj.get("status", {}).get("readyReplicas", 0)
    return State(want == ready, f"has {ready} of {want} pods ready", ready / want if want else None)


def of_pod(obj: dict) -> State:
    """Whether it is ready, or has done its work."""
    phase = obj.get("status", {}).get("phase", "Pending")
    if obj["metadata"].get("deletionTimestamp"):
        return State(False, "is terminating")
    if phase == "Succeeded":
        return State(True, "has succeeded")
    ready = condition_of(obj, "Ready").get("status") == "True"
    return State(ready, "is ready" if ready else f"is {phase}, not ready")


def of_node(obj: dict) -> State:
    """Whether it is Ready."""
    ready = condition_of(obj, "Ready").get("status") == "True"
    return State(ready, "is Ready" if ready else "is not Ready")


def of_pods(pods: list[dict]) -> State:
    """Whether there are pods, and all of them are ready."""
    # pods that end are on their way out of the answer: wait until they are gone, else what follows meets them
    ready = sum(of_pod(p).done for p in pods)
    done = bool(pods) and ready == len(pods)
    return State(done, f"are ready ({ready} of {len(pods)})" if pods else "there is no such pod yet", ready / len(pods) if pods else None)


def selector_text(labels: dict[str, str]) -> str:
    """Labels as kubectl takes them: ``a=b,c=d``."""
    return ",".join(f"{k}={v}" for k, v in labels.items())
