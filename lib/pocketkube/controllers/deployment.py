"""The Deployment controller: one ReplicaSet for each version of the pod template, and the move from one to the next.

The decisions follow kube-controller-manager's, so that `kubectl rollout status`, `history` and `undo` find what they look
for: revisions and sizes in annotations, reasons and messages in conditions.
See https://kubernetes.io/docs/concepts/workloads/controllers/deployment/.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import timedelta
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
    pod_finished,
    scaled,
    selects,
    timestamp,
    without,
)
from .base import Controller

if TYPE_CHECKING:
    from ..apiserver.api import Api

Key = tuple[str, str]

HASH_LABEL = "pod-template-hash"
REVISION = "deployment.kubernetes.io/revision"
REVISION_HISTORY = "deployment.kubernetes.io/revision-history"
DESIRED = "deployment.kubernetes.io/desired-replicas"
MAXIMUM = "deployment.kubernetes.io/max-replicas"
_NOT_COPIED = {
    "kubectl.kubernetes.io/last-applied-configuration",
    "deprecated.deployment.rollback.to",
    REVISION,
    REVISION_HISTORY,
    DESIRED,
    MAXIMUM,
}
_NO_DEADLINE = 2**31 - 1
_SAFE_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"


def template_hash(template: dict, collisions: int = 0) -> str:
    """Return the suffix that names a template's ReplicaSet: 32-bit FNV-1a in Kubernetes' vowel-free alphabet.

    The value differs from kube-controller-manager's, which hashes a dump of its Go structs; form and length are the same.

    >>> template_hash({"spec": {"containers": []}}) == template_hash({"spec": {"containers": []}}, 0)
    True
    """
    value = 0x811C9DC5
    text = json.dumps(template, sort_keys=True, separators=(",", ":")) + (str(collisions) if collisions else "")
    for byte in text.encode():
        value = ((value ^ byte) * 0x01000193) & 0xFFFFFFFF
    return "".join(_SAFE_ALPHABET[ord(digit) % len(_SAFE_ALPHABET)] for digit in str(value))


def same_template(left: dict, right: dict) -> bool:
    """Whether two pod templates are equal apart from the hash label that the controller adds."""
    return _plain(left) == _plain(right)


def _plain(template: dict) -> dict:
    meta = {name: value for name, value in (template.get("metadata") or {}).items() if value and name != "creationTimestamp"}
    labels = {name: value for name, value in (meta.get("labels") or {}).items() if name != HASH_LABEL}
    meta.pop("labels", None)
    return {"metadata": meta, "labels": labels, "spec": template["spec"]}


def size(rs: dict) -> int:
    """Return the replicas that a ReplicaSet should have."""
    return rs["spec"].get("replicas", 1)


def counted(sets: Iterable[dict | None], field: str) -> int:
    """Add up a status field, such as ``readyReplicas``, over ReplicaSets."""
    return sum((rs.get("status") or {}).get(field, 0) for rs in sets if rs is not None)


def fenceposts(deployment: dict) -> tuple[int, int]:
    """Return (maxSurge, maxUnavailable) as numbers of pods; never both 0, which would be a standstill.

    >>> fenceposts({"spec": {"replicas": 2, "strategy": {"rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}}}})
    (1, 0)
    """
    replicas = deployment["spec"].get("replicas", 1)
    rolling = deployment["spec"].get("strategy", {}).get("rollingUpdate") or {}
    surge = scaled(rolling.get("maxSurge", 0), replicas, round_up=True)
    unavailable = scaled(rolling.get("maxUnavailable", 0), replicas, round_up=False)
    return surge, (1 if surge == 0 and unavailable == 0 else unavailable)


def is_rolling(deployment: dict) -> bool:
    """Whether old and new pods may run side by side."""
    return deployment["spec"].get("strategy", {}).get("type", "RollingUpdate") == "RollingUpdate"


def max_surge(deployment: dict) -> int:
    """Return how many pods more than ``spec.replicas`` there may be."""
    return fenceposts(deployment)[0] if is_rolling(deployment) else 0


def max_unavailable(deployment: dict) -> int:
    """Return how many pods fewer than ``spec.replicas`` may be available."""
    replicas = deployment["spec"].get("replicas", 1)
    if not is_rolling(deployment) or replicas == 0:
        return 0
    return min(fenceposts(deployment)[1], replicas)


def new_set_size(deployment: dict, sets: list[dict], new: dict | None) -> int:
    """Return the size that the newest ReplicaSet may grow to now."""
    replicas = deployment["spec"].get("replicas", 1)
    if not is_rolling(deployment):
        return replicas
    current = size(new) if new is not None else 0
    room = replicas + max_surge(deployment) - sum(map(size, sets))
    return current if room <= 0 else current + min(room, replicas - current)


def proportion(rs: dict, deployment: dict, to_add: int, added: int) -> int:
    """Return a ReplicaSet's share when a Deployment is scaled in the middle of a rollout."""
    replicas = deployment["spec"].get("replicas", 1)
    if size(rs) == 0 or to_add in (0, added):
        return 0
    if replicas == 0:
        fraction = -size(rs)
    else:
        before = _number(annotations_of(rs).get(MAXIMUM)) or (deployment.get("status") or {}).get("replicas", 0)
        wanted = size(rs) * (replicas + max_surge(deployment)) / before if before else 0.0
        fraction = int(wanted + 0.5) - size(rs)
    allowed = to_add - added
    return min(fraction, allowed) if to_add > 0 else max(fraction, allowed)


def _number(text: str | None) -> int:
    try:
        return int(text or 0)
    except ValueError:
        return 0


def revision_of(obj: dict) -> int:
    """Return the revision that a Deployment or ReplicaSet carries, 0 if none."""
    return _number(annotations_of(obj).get(REVISION))


def _oldest_first(sets: Iterable[dict]) -> list[dict]:
    return sorted(sets, key=lambda rs: (rs["metadata"].get("creationTimestamp", ""), rs["metadata"]["name"]))


def set_condition(status: dict, type_: str, value: str, reason: str, message: str, *, keep_transition: bool = False) -> bool:
    """Put a condition into a Deployment's status; return whether that changed anything.

    Same status and reason count as no change, so that a message alone does not touch the times. The time of transition
    stays while the status stays.
    """
    conditions = status.get("conditions") or []
    present = next((item for item in conditions if item["type"] == type_), None)
    if present is not None and present["status"] == value and present["reason"] == reason and not keep_transition:
        return False
    moment = timestamp()
    item = {
        "type": type_,
        "status": value,
        "lastUpdateTime": moment,
        "lastTransitionTime": present["lastTransitionTime"] if present is not None and present["status"] == value else moment,
        "reason": reason,
        "message": message,
    }
    status["conditions"] = [*without(conditions, type_), item]
    return True


class DeploymentController(Controller):
    """Makes and resizes the ReplicaSets of Deployments and reports how a rollout goes."""

    name = "deployment-controller"

    def __init__(self, api: Api) -> None:
        super().__init__(api)
        self.deployments = api.informer("deployments")
        self.sets = api.informer("replicasets")
        self.pods = api.informer("pods")

    def subscribe(self) -> None:
        self.deployments.on_change(lambda _type, obj, _old: self.queue.add(key_of(obj)))
        self.sets.on_change(self._set_changed)
        self.pods.on_change(self._pod_changed)

    def _set_changed(self, _type: str, rs: dict, old: dict | None) -> None:
        namespace = rs["metadata"]["namespace"]
        owners = [controller_of(obj) for obj in (rs, old) if obj is not None]
        for owner in owners:
            if owner is not None and owner["kind"] == "Deployment":
                self.queue.add((namespace, owner["name"]))
        if owners[0] is None:
            for deployment in self.deployments.values(namespace):
                if selects(deployment["spec"]["selector"], labels_of(rs)):
                    self.queue.add(key_of(deployment))

    def _pod_changed(self, type_: str, pod: dict, _old: dict | None) -> None:
        """A Recreate rollout goes on when the last old pod is gone; nothing else here depends on single pods."""
        if type_ != "DELETED" and not pod_finished(pod):
            return
        owner = controller_of(pod)
        rs = self.sets.get(pod["metadata"]["namespace"], owner["name"]) if owner and owner["kind"] == "ReplicaSet" else None
        reference = controller_of(rs) if rs is not None else None
        if reference is not None and reference["kind"] == "Deployment":
            deployment = self.deployments.get(pod["metadata"]["namespace"], reference["name"])
            if deployment is not None and not is_rolling(deployment):
                self.queue.add(key_of(deployment))

    async def reconcile(self, key: Key) -> None:
        cached = self.deployments.get(*key)
        if cached is None:
            return
        rollout = Rollout(self, deep(cached), self._claim(cached))
        rollout.run()

    def _claim(self, deployment: dict) -> list[dict]:
        """Return the Deployment's ReplicaSets (copies), after adopting and releasing as its selector says."""
        uid, selector = deployment["metadata"]["uid"], deployment["spec"]["selector"]
        mine = []
        for rs in list(self.sets.values(deployment["metadata"]["namespace"])):
            owner, matches = controller_of(rs), selects(selector, labels_of(rs))
            if owner is not None and owner["uid"] == uid:
                if matches:
                    mine.append(deep(rs))
                elif not deleting(rs):
                    self._set_owners(rs, [r for r in rs["metadata"]["ownerReferences"] if r["uid"] != uid])
            elif owner is None and matches and not deleting(rs) and not deleting(deployment):
                reference = controller_reference(deployment, "apps/v1", "Deployment")
                mine.append(self._set_owners(rs, [*(rs["metadata"].get("ownerReferences") or ()), reference]))
        return mine

    def _set_owners(self, rs: dict, references: list[dict]) -> dict:
        patch = {"metadata": {"uid": rs["metadata"]["uid"], "ownerReferences": references or None}}
        return self.api.patch("replicasets", rs["metadata"]["namespace"], rs["metadata"]["name"], patch)

    def old_pods_running(self, old_sets: list[dict]) -> bool:
        """Whether a pod of an earlier version is still there and not finished (one being deleted still runs)."""
        uids = {rs["metadata"]["uid"] for rs in old_sets}
        if not uids:
            return False
        for pod in self.pods.values(old_sets[0]["metadata"]["namespace"]):
            owner = controller_of(pod)
            if owner is not None and owner["uid"] in uids and not pod_finished(pod):
                return True
        return False


class Rollout:
    """One look at one Deployment: its own copy of the objects, and the single step that is due."""

    def __init__(self, controller: DeploymentController, deployment: dict, sets: list[dict]) -> None:
        self.controller = controller
        self.api = controller.api
        self.deployment = deployment
        self.sets = sets
        self.new = next((rs for rs in _oldest_first(sets) if same_template(rs["spec"]["template"], self.spec["template"])), None)

    @property
    def spec(self) -> dict:
        return self.deployment["spec"]

    @property
    def status(self) -> dict:
        return self.deployment.setdefault("status", {})

    @property
    def replicas(self) -> int:
        return self.spec.get("replicas", 1)

    @property
    def old(self) -> list[dict]:
        new_uid = self.new["metadata"]["uid"] if self.new is not None else None
        return [rs for rs in self.sets if rs["metadata"]["uid"] != new_uid]

    @property
    def all(self) -> list[dict]:
        return [*self.old, *([self.new] if self.new is not None else [])]

    def run(self) -> None:
        """Take the step that is due and write the status."""
        if deleting(self.deployment):
            self._write_status(self._status())
            return
        self._note_pause()
        if self.spec.get("paused") or self._scaling():
            self._sync_revision(create=False)
            self._scale()
            if self.spec.get("paused"):
                self._clean_up()
            self._write_status(self._status())
        elif is_rolling(self.deployment):
            self._roll()
        else:
            self._recreate()

    # --- revisions -------------------------------------------------------------------------------------------------

    def _sync_revision(self, *, create: bool) -> None:
        revision = max((revision_of(rs) for rs in self.old), default=0) + 1
        if self.new is None:
            if not create:
                return
            self._create_set(revision)
        else:
            changed = self._annotate(self.new, revision, exists=True)
            min_ready = self.spec.get("minReadySeconds", 0)
            if self.new["spec"].get("minReadySeconds", 0) != min_ready:
                self.new["spec"]["minReadySeconds"] = min_ready
                changed = True
            if changed:
                self._update_set(self.new)
            if self._has_deadline() and condition(self.deployment, "Progressing") is None:
                message = f'Found new replica set "{self.new["metadata"]["name"]}"'
                set_condition(self.status, "Progressing", "True", "FoundNewReplicaSet", message)
        if revision_of(self.deployment) != revision_of(self.new):
            patch = {"metadata": {"annotations": {REVISION: annotations_of(self.new)[REVISION]}}}
            meta = self.deployment["metadata"]
            self._renew(self.api.patch("deployments", meta["namespace"], meta["name"], patch))

    def _annotate(self, rs: dict, revision: int, *, exists: bool) -> bool:
        """Copy the Deployment's annotations and set the revision; return whether anything changed."""
        annotations = rs["metadata"].setdefault("annotations", {})
        before = dict(annotations)
        annotations.update({name: value for name, value in annotations_of(self.deployment).items() if name not in _NOT_COPIED})
        previous = annotations.get(REVISION)
        if _number(previous) < revision:
            annotations[REVISION] = str(revision)
            if exists and previous:
                history = [item for item in annotations.get(REVISION_HISTORY, "").split(",") if item]
                annotations[REVISION_HISTORY] = ",".join([*history, previous])
        if not exists:
            self._note_sizes(rs)
        return annotations != before

    def _note_sizes(self, rs: dict) -> bool:
        annotations = rs["metadata"].setdefault("annotations", {})
        wanted = {DESIRED: str(self.replicas), MAXIMUM: str(self.replicas + max_surge(self.deployment))}
        changed = any(annotations.get(name) != value for name, value in wanted.items())
        annotations.update(wanted)
        return changed

    def _create_set(self, revision: int) -> None:
        template = deep(self.spec["template"])
        suffix = template_hash(template, self.status.get("collisionCount", 0))
        template.setdefault("metadata", {}).setdefault("labels", {})[HASH_LABEL] = suffix
        selector = deep(self.spec["selector"])
        selector.setdefault("matchLabels", {})[HASH_LABEL] = suffix
        meta = self.deployment["metadata"]
        rs = {
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "metadata": {
                "name": f"{meta['name']}-{suffix}",
                "namespace": meta["namespace"],
                "labels": deep(template["metadata"]["labels"]),
                "ownerReferences": [controller_reference(self.deployment, "apps/v1", "Deployment")],
            },
            "spec": {"replicas": new_set_size(self.deployment, self.sets, None), "selector": selector, "template": template},
        }
        if self.spec.get("minReadySeconds"):
            rs["spec"]["minReadySeconds"] = self.spec["minReadySeconds"]
        self._annotate(rs, revision, exists=False)
        try:
            self.new = self.api.create("replicasets", rs)
        except ApiError as error:
            self._creation_failed(rs, error)
            return
        self.sets.append(self.new)
        name = self.new["metadata"]["name"]
        if size(self.new):
            self.controller.event(self.deployment, "ScalingReplicaSet", f"Scaled up replica set {name} from 0 to {size(self.new)}")
        if self._has_deadline():
            set_condition(self.status, "Progressing", "True", "NewReplicaSetCreated", f'Created new replica set "{name}"')

    def _creation_failed(self, rs: dict, error: ApiError) -> None:
        name = rs["metadata"]["name"]
        if error.reason == "AlreadyExists":
            present = self.api.get("replicasets", rs["metadata"]["namespace"], name)
            owner = controller_of(present)
            ours = owner is not None and owner["uid"] == self.deployment["metadata"]["uid"]
            if ours and same_template(present["spec"]["template"], self.spec["template"]):
                self.new = present  # made a moment ago, the cache did not know yet
                self.sets.append(present)
                return
            self.status["collisionCount"] = self.status.get("collisionCount", 0) + 1
            self.api.update("deployments", self.deployment, subresource="status")
            raise error
        if self._has_deadline() and "is being terminated" not in error.message:
            message = f'Failed to create new replica set "{name}": {error.message}'
            set_condition(self.status, "Progressing", "False", "ReplicaSetCreateError", message)
            self.api.update("deployments", self.deployment, subresource="status")
            self.controller.event(self.deployment, "ReplicaSetCreateError", message, warning=True)
        raise error

    # --- sizes -----------------------------------------------------------------------------------------------------

    def _scaling(self) -> bool:
        """Whether ``spec.replicas`` has changed since the ReplicaSets were last sized."""
        return any(
            size(rs) > 0 and DESIRED in annotations_of(rs) and _number(annotations_of(rs)[DESIRED]) != self.replicas for rs in self.all
        )

    def _resize(self, rs: dict, replicas: int) -> bool:
        """Set a ReplicaSet's size; return whether it changed."""
        before = size(rs)
        noted = self._note_sizes(rs)
        if before == replicas and not noted:
            return False
        rs["spec"]["replicas"] = replicas
        self._update_set(rs)
        if before == replicas:
            return False
        direction = "up" if before < replicas else "down"
        message = f"Scaled {direction} replica set {rs['metadata']['name']} from {before} to {replicas}"
        self.controller.event(self.deployment, "ScalingReplicaSet", message)
        return True

    def _update_set(self, rs: dict) -> None:
        updated = self.api.update("replicasets", rs)
        rs.clear()
        rs.update(updated)

    def _scale(self) -> None:
        active = [rs for rs in self.all if size(rs) > 0]
        if len(active) <= 1:
            single = active[0] if active else self.new or next(reversed(_oldest_first(self.old)), None)
            if single is not None and size(single) != self.replicas:
                self._resize(single, self.replicas)
            elif single is not None and self._note_sizes(single):
                self._update_set(single)
            return
        new = self.new
        if new is not None and size(new) == self.replicas == counted([new], "availableReplicas"):
            for rs in self.old:
                if size(rs) > 0:
                    self._resize(rs, 0)
            return
        if is_rolling(self.deployment):
            self._scale_in_proportion(active)

    def _scale_in_proportion(self, active: list[dict]) -> None:
        allowed = self.replicas + max_surge(self.deployment) if self.replicas > 0 else 0
        to_add = allowed - sum(map(size, active))
        ordered = _oldest_first(active)
        # Larger sets first; among equals the newer ones grow and the older ones shrink.
        ordered = sorted(reversed(ordered) if to_add > 0 else ordered, key=size, reverse=True)
        sizes, added = [], 0
        for rs in ordered:
            share = proportion(rs, self.deployment, to_add, added)
            sizes.append(size(rs) + share)
            added += share
        sizes[0] = max(0, sizes[0] + to_add - added)
        for rs, replicas in zip(ordered, sizes, strict=True):
            self._resize(rs, replicas)

    # --- rollouts --------------------------------------------------------------------------------------------------

    def _roll(self) -> None:
        self._sync_revision(create=True)
        if not self._grow_new() and not self._shrink_old() and self._complete(self.status):
            self._clean_up()
        self._report()

    def _grow_new(self) -> bool:
        if size(self.new) == self.replicas:
            return self._resize(self.new, self.replicas)
        if size(self.new) > self.replicas:
            return self._resize(self.new, self.replicas)
        return self._resize(self.new, new_set_size(self.deployment, self.all, self.new))

    def _shrink_old(self) -> bool:
        old = _oldest_first(rs for rs in self.old if size(rs) > 0)
        if not old:
            return False
        minimum = self.replicas - max_unavailable(self.deployment)
        new_unavailable = size(self.new) - counted([self.new], "availableReplicas")
        budget = sum(map(size, self.all)) - minimum - new_unavailable
        if budget <= 0:
            return False
        removed = 0
        for rs in old:  # first those that do not run anyway
            missing = size(rs) - counted([rs], "availableReplicas")
            count = min(budget - removed, missing)
            if count > 0:
                self._resize(rs, size(rs) - count)
                removed += count
        spare = counted(self.all, "availableReplicas") - minimum
        for rs in old:
            count = min(size(rs), spare)
            if count > 0:
                self._resize(rs, size(rs) - count)
                spare -= count
                removed += count
        return removed > 0

    def _recreate(self) -> None:
        self._sync_revision(create=False)
        shrunk = [self._resize(rs, 0) for rs in self.old if size(rs) > 0]
        if not any(shrunk) and not self.controller.old_pods_running(self.old):
            if self.new is None:
                self._sync_revision(create=True)
            self._resize(self.new, self.replicas)
            if self._complete(self.status):
                self._clean_up()
        self._report()

    def _clean_up(self) -> None:
        """Delete the oldest ReplicaSets beyond ``revisionHistoryLimit``."""
        limit = self.spec.get("revisionHistoryLimit", 10)
        candidates = sorted((rs for rs in self.old if not deleting(rs)), key=revision_of)
        for rs in candidates[: max(0, len(candidates) - limit)]:
            observed = (rs.get("status") or {}).get("observedGeneration", 0)
            if size(rs) == 0 and counted([rs], "replicas") == 0 and rs["metadata"].get("generation", 1) <= observed:
                try:
                    self.api.delete("replicasets", rs["metadata"]["namespace"], rs["metadata"]["name"], uid=rs["metadata"]["uid"])
                except ApiError as error:
                    if error.reason != "NotFound":
                        raise

    # --- status ----------------------------------------------------------------------------------------------------

    def _has_deadline(self) -> bool:
        return self.spec.get("progressDeadlineSeconds", _NO_DEADLINE) != _NO_DEADLINE

    def _note_pause(self) -> None:
        present = condition(self.deployment, "Progressing")
        if not self._has_deadline() or (present is not None and present["reason"] == "ProgressDeadlineExceeded"):
            return
        noted = present is not None and present["reason"] == "DeploymentPaused"
        if self.spec.get("paused") and not noted:
            set_condition(self.status, "Progressing", "Unknown", "DeploymentPaused", "Deployment is paused")
        elif not self.spec.get("paused") and noted:
            set_condition(self.status, "Progressing", "Unknown", "DeploymentResumed", "Deployment is resumed")
        else:
            return
        self._renew(self.api.update("deployments", self.deployment, subresource="status"))

    def _renew(self, stored: dict) -> None:
        """Go on with what the API stored, but with the conditions decided meanwhile."""
        conditions = self.status.get("conditions")
        self.deployment = stored
        if conditions:
            self.status["conditions"] = conditions

    def _status(self) -> dict:
        sets = self.all
        available = counted(sets, "availableReplicas")
        counts = {
            "replicas": counted(sets, "replicas"),
            "updatedReplicas": counted([self.new], "replicas"),
            "readyReplicas": counted(sets, "readyReplicas"),
            "availableReplicas": available,
            "unavailableReplicas": max(0, sum(map(size, sets)) - available),
        }
        status: dict = {"observedGeneration": self.deployment["metadata"].get("generation", 1)}
        status.update({field: count for field, count in counts.items() if count})
        if self.status.get("collisionCount"):
            status["collisionCount"] = self.status["collisionCount"]
        status["conditions"] = list(self.status.get("conditions") or [])
        if available >= self.replicas - max_unavailable(self.deployment):
            set_condition(status, "Available", "True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
        else:
            message = "Deployment does not have minimum availability."
            set_condition(status, "Available", "False", "MinimumReplicasUnavailable", message)
        return status

    def _complete(self, status: dict) -> bool:
        counts = {status.get(field, 0) for field in ("updatedReplicas", "replicas", "availableReplicas")}
        return counts == {self.replicas} and status.get("observedGeneration", 0) >= self.deployment["metadata"].get("generation", 1)

    def _report(self) -> None:
        """Write the status with the rollout's progress in it."""
        status = self._status()
        present = condition(self.deployment, "Progressing")
        if not self._has_deadline():
            status["conditions"] = without(status["conditions"], "Progressing")
        settled = (
            present is not None
            and present["reason"] == "NewReplicaSetAvailable"
            and status.get("replicas", 0) == status.get("updatedReplicas", 0)
        )
        if self._has_deadline() and not settled:
            self._note_progress(status, present)
        failure = next((item for rs in [self.new, *self.old] if rs for item in [condition(rs, "ReplicaFailure")] if item), None)
        if failure is not None:
            set_condition(status, "ReplicaFailure", failure["status"], failure["reason"], failure["message"])
        else:
            status["conditions"] = without(status["conditions"], "ReplicaFailure")
        self._write_status(status)
        self._look_again_at_deadline(status)

    def _note_progress(self, status: dict, present: dict | None) -> None:
        name = (
            f'ReplicaSet "{self.new["metadata"]["name"]}"'
            if self.new is not None
            else f'Deployment "{self.deployment["metadata"]["name"]}"'
        )
        if self._complete(status):
            set_condition(status, "Progressing", "True", "NewReplicaSetAvailable", f"{name} has successfully progressed.")
        elif self._advanced(status):
            message = f"{name} is progressing."
            set_condition(status, "Progressing", "True", "ReplicaSetUpdated", message, keep_transition=True)
        elif present is not None and self._timed_out(present):
            set_condition(status, "Progressing", "False", "ProgressDeadlineExceeded", f"{name} has timed out progressing.")

    def _advanced(self, status: dict) -> bool:
        before = self.status

        def value(of: dict, field: str) -> int:
            return of.get(field, 0)

        return (
            value(status, "updatedReplicas") > value(before, "updatedReplicas")
            or value(status, "replicas") - value(status, "updatedReplicas") < value(before, "replicas") - value(before, "updatedReplicas")
            or value(status, "readyReplicas") > value(before, "readyReplicas")
            or value(status, "availableReplicas") > value(before, "availableReplicas")
        )

    def _deadline_seconds_left(self, present: dict) -> float:
        deadline = parse_time(present["lastUpdateTime"]) + timedelta(seconds=self.spec["progressDeadlineSeconds"])
        return (deadline - now()).total_seconds()

    def _timed_out(self, present: dict) -> bool:
        if present["reason"] == "NewReplicaSetAvailable":
            return False
        return present["reason"] == "ProgressDeadlineExceeded" or self._deadline_seconds_left(present) < 0

    def _look_again_at_deadline(self, status: dict) -> None:
        present = next((item for item in status["conditions"] if item["type"] == "Progressing"), None)
        if present is None or present["reason"] in {"NewReplicaSetAvailable", "ProgressDeadlineExceeded"} or self._complete(status):
            return
        self.controller.queue.add_after(key_of(self.deployment), max(0.0, self._deadline_seconds_left(present)) + 1)

    def _write_status(self, status: dict) -> None:
        stored = self.controller.deployments.get(*key_of(self.deployment))
        if stored is not None and stored.get("status") == status:
            return
        self.deployment["status"] = status
        self.deployment = self.api.update("deployments", self.deployment, subresource="status")
