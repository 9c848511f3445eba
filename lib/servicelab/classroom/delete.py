"""Removing a class: its namespaces and the few cluster-wide things it made, told by their label, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..client import Client
from . import access
from .api import delete as delete_path
from .api import listing
from .create import refuse_pocket, wait_gone
from .group import current
from .roster import namespaces, ours, student_of

_RBAC = "/apis/rbac.authorization.k8s.io/v1"
_ADMISSION = "/apis/admissionregistration.k8s.io/v1"
SHARED = (
    f"{_RBAC}/clusterrolebindings",
    f"{_RBAC}/clusterroles",
    f"{_RBAC}/namespaces/kube-system/rolebindings",
    f"{_RBAC}/namespaces/kube-system/roles",
    # The rules for pods go last of all: until then students still have their namespaces.
    f"{_ADMISSION}/validatingadmissionpolicybindings",
    f"{_ADMISSION}/validatingadmissionpolicies",
)


def found(client: Client) -> list[dict[str, Any]]:
    """The class's namespaces: the students', and the teacher's own."""
    own = [one for one in listing(client, "/api/v1/namespaces", current().selector) if one["metadata"]["name"] == current().space]
    return namespaces(client) + own


def delete(
    cluster: Any,
    *,
    out: Path | None = None,
    step: Callable[[str], None] = lambda text: None,
    done: Callable[[str], None] = lambda name: None,
) -> list[str]:
    """Deletes the class and waits until it is gone. Interrupted and run again, it goes on.

    Args:
        cluster: where the class is.
        out: directory of the kubeconfigs; those of the class's students are removed from it.
        step: told what is being done.
        done: told each namespace that is gone.

    Returns:
        The names of the namespaces that were deleted.

    Raises:
        ClusterError: a namespace doesn't go in time; says what it still holds.
    """
    refuse_pocket(cluster)
    client = Client(cluster.kubeconfig())
    try:
        there = found(client)
        step("deleting the namespaces")
        for namespace in there:
            if ours(namespace) and not namespace["metadata"].get("deletionTimestamp"):
                # The uid makes sure that it is the very namespace that had the label, and not one of the same name made since.
                delete_path(client, f"/api/v1/namespaces/{namespace['metadata']['name']}", uid=namespace["metadata"]["uid"])
        where = access.folder(cluster, out)
        for namespace in there:
            access.file_of(where, student_of(namespace)).unlink(missing_ok=True)
        names = [namespace["metadata"]["name"] for namespace in there]
        step("waiting until they are gone")
        wait_gone(client, names, done)
        step("deleting what the students shared")
        for path in SHARED:
            for obj in listing(client, path, current().selector):
                delete_path(client, f"{path}/{obj['metadata']['name']}", uid=obj["metadata"]["uid"])
        return names
    finally:
        client.close()
