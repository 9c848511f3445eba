"""Removing what the lessons made, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import settings
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
        found += [(kind, o["metadata"]["name"], o["metadata"].get("namespace")) for o in objects if o["metadata"]["name"] in names]
    return found


def reset(lab: Lab, *, quiet: bool = False, keep_progress: bool = True) -> None:
    """Deletes the lessons' things and waits until they, and the pods they own, are gone; see ``Lab.reset``."""
    from .waiting import wait_for

    things = present(lab)
    for kind in dict.fromkeys(kind for kind, _, _ in things):
        names = [name for k, name, _ in things if k == kind]
        lab.kubectl(
            "delete", kind, *names, "--ignore-not-found", "--wait=false", "--grace-period=1" if kind == "pod" else "--cascade=background"
        )
    if things:
        workloads = {name for kind, name, _ in things if kind in ("deployment", "replicaset", "pod")}

        def gone() -> bool:
            """what the lessons made is removed"""
            left = [f"{kind}/{name}" for kind, name, _ in present(lab)]
            left += [f"pod/{p['metadata']['name']}" for p in lab.list("pods") if _root(p) in workloads]
            if left:
                raise NotYet(f"{', '.join(sorted(set(left))[:5])} {'is' if len(left) == 1 else 'are'} still there")
            return True

        wait_for(lab, gone, timeout=settings.reset_timeout())
    if not keep_progress:
        lab.kubectl("delete", "configmap", PROGRESS, "--ignore-not-found")
    if not quiet:
        print("✓ what the lessons made is removed")


def _root(pod: dict) -> str:
    """The name of the Deployment, ReplicaSet or pod that this pod stands for."""
    for owner in pod["metadata"].get("ownerReferences") or []:
        if owner.get("controller"):
            own_hash = (pod["metadata"].get("labels") or {}).get("pod-template-hash")
            return owner["name"].removesuffix(f"-{own_hash}") if own_hash else owner["name"]
    return pod["metadata"]["name"]
