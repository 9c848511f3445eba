"""Removing what the lessons made, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from . import capstone, settings
from .errors import NotAllowed, NotFound, NotYet
from .lessons import made_by_lessons

if TYPE_CHECKING:
    from .lab import Lab

PROGRESS = "servicelab-progress"


def present(lab: Lab) -> list[tuple[str, str, str | None]]:
    """What of the lessons' own things is there now: (kind, name, namespace); the namespace is None for cluster-wide things."""
    found = []
    wanted = made_by_lessons(lab.namespace)
    for kind in dict.fromkeys(kind for kind, _ in wanted):
        names = {name for k, name in wanted if k == kind}
        try:
            objects = lab.client.list(kind, lab.namespace)
        except NotAllowed:
            objects = []
            for name in names:
                try:
                    objects.append(lab.client.get(kind, name, lab.namespace))
                except (NotFound, NotAllowed):
                    continue  # not there, or not this learner's to see: nothing of theirs to remove
        ours = [o for o in objects if o["metadata"]["name"] in names or capstone.is_ours(o)]
        found += [(kind, o["metadata"]["name"], o["metadata"].get("namespace")) for o in ours]
    known = {(kind, name) for kind, name, _ in found}
    return found + [(kind, name, None) for kind, name in capstone.leftovers(lab) if (kind, name) not in known]


def reset(lab: Lab, *, quiet: bool = False, keep_progress: bool = True) -> None:
    """Deletes the lessons' things and waits until they, and the pods they own, are gone; see ``Lab.reset``."""
    delete_and_wait(lab, lambda: [(kind, name) for kind, name, _ in present(lab)])
    if not keep_progress:
        lab.kubectl("delete", "configmap", PROGRESS, "--ignore-not-found")
    if not quiet:
        print("✓ what the lessons made is removed")


def delete_and_wait(lab: Lab, look: Callable[[], list[tuple[str, str]]]) -> None:
    """Deletes things of the learner's and waits until they, and the pods that they own, are gone.

    Args:
        lab: what `connect()` gave.
        look: gives what is there just now, as (kind, name), in the order in which it is to be deleted.

    Raises:
        WaitTimeout: something doesn't go; names it.
    """
    from .waiting import wait_for

    things = look()
    for kind in dict.fromkeys(kind for kind, _ in things):
        names = [name for k, name in things if k == kind]
        lab.kubectl(
            "delete", kind, *names, "--ignore-not-found", "--wait=false", "--grace-period=1" if kind == "pod" else "--cascade=background"
        )
    if not things:
        return
    workloads = {name for kind, name in things if kind in ("deployment", "replicaset", "pod")}

    def gone() -> bool:
        """what the lessons made is removed"""
        left = [f"{kind}/{name}" for kind, name in look()]
        left += [f"pod/{p['metadata']['name']}" for p in lab.list("pods") if _root(p) in workloads]
        if left:
            raise NotYet(f"{', '.join(sorted(set(left))[:5])} {'is' if len(left) == 1 else 'are'} still there")
        return True

    wait_for(lab, gone, timeout=settings.reset_timeout())


def _root(pod: dict) -> str:
    """The name of the Deployment, ReplicaSet or pod that this pod stands for."""
    for owner in pod["metadata"].get("ownerReferences") or []:
        if owner.get("controller"):
            own_hash = (pod["metadata"].get("labels") or {}).get("pod-template-hash")
            return owner["name"].removesuffix(f"-{own_hash}") if own_hash else owner["name"]
    return pod["metadata"]["name"]
