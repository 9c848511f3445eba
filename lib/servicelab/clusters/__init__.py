"""Where a cluster comes from: one protocol, and kind, pocket and context behind it; and which one is chosen."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from ..errors import ClusterError, LabError
from ..state import cluster_name

Progress = Callable[[str], None]
"""Called with each step of something long, such as "loading the node image"."""


@dataclasses.dataclass(frozen=True)
class Ran:
    """How a command on a node or outside of the cluster ended."""

    returncode: int
    stdout: str
    stderr: str


@dataclasses.dataclass(frozen=True)
class Status:
    """What a cluster is doing.

    Attributes:
        state: ``running``, ``stopped`` (it is there, ``up`` starts it again), ``absent`` or ``broken``.
        detail: one sentence for people.
    """

    state: str
    detail: str = ""

    @property
    def running(self) -> bool:
        """Whether the API can be asked."""
        return self.state == "running"


@runtime_checkable
class Cluster(Protocol):
    """The few questions in which clusters differ; everything else goes through the Kubernetes API.

    Attributes:
        kind: ``kind``, ``pocket`` or ``context``.
        name: the cluster's (or context's) name.
        nodes_allowed: whether commands may run on its nodes. Where not, ``nodes_why`` says why in one sentence.
        default_namespace: where the learner works when no namespace is given.
    """

    kind: str
    name: str
    nodes_allowed: bool
    nodes_why: str
    default_namespace: str

    def status(self) -> Status:
        """What the cluster is doing now."""

    def start(self, progress: Progress, **options: Any) -> None:
        """Makes or starts the cluster and returns when its API answers and its nodes are Ready. Does nothing when it runs."""

    def stop(self, progress: Progress) -> None:
        """Ends all that runs of it on this machine; what is in the cluster is kept, and ``start`` brings it back."""

    def delete(self, progress: Progress) -> None:
        """Stops it and forgets everything that was in it. Does nothing when there is no such cluster."""

    def kubeconfig(self) -> Path:
        """A kubeconfig (0600) for this cluster alone, fresh; never the user's own file."""

    def run_on_node(self, node: str, argv: Sequence[str], *, input: str | None = None, timeout: float = 30.0) -> Ran:
        """Runs a program on a node, in the node's own network."""

    def run_outside(self, argv: Sequence[str], *, input: str | None = None, timeout: float = 30.0) -> Ran:
        """Runs a program on a machine that is not in the cluster, but on the network of its nodes."""

    def node_port_address(self, node_port: int) -> str | None:
        """``host:port`` at which this machine reaches a NodePort, or None when it can't."""


def known(kind: str, name: str | None = None) -> Cluster:
    """The cluster of one kind: ``kind``, ``pocket`` or ``context:NAME``. Nothing is started or asked yet.

    Raises:
        LabError: there is no such kind of cluster.
    """
    if kind.startswith("context:") and kind != "context:":
        from .context import ContextCluster

        return ContextCluster(kind.removeprefix("context:"))
    if kind == "in-cluster":
        from .context import InCluster

        return InCluster()
    if kind == "kind":
        from .kind import KindCluster

        return KindCluster(name or cluster_name())
    if kind == "pocket":
        from .pocket import PocketCluster

        return PocketCluster(name or cluster_name())
    raise LabError(
        f"{kind!r} is no cluster the lab knows: use kind, pocket, or context:NAME with a context of your own kubeconfig "
        "(kubectl config get-contexts lists them)."
    )


def choose(wanted: str | None = None, name: str | None = None) -> Cluster:
    """The cluster to use, in the order of the design.

    1. ``wanted``, else ``$SERVICELAB_CLUSTER``: kind, pocket or context:NAME.
    2. The cluster of the pod that this program runs in.
    3. A lab cluster that is up.
    4. kind, when Docker answers, kind is installed and the node image is there or can be pulled.
    5. pocket, on Linux.

    A context of the user's own kubeconfig is taken only when named, so that no production cluster gets a tutorial by accident.

    Raises:
        ClusterError: no cluster can be had here; says what to install.
    """
    if wanted := wanted or os.environ.get("SERVICELAB_CLUSTER"):
        return known(wanted, name)
    from .context import in_cluster

    if in_cluster():
        return known("in-cluster")
    reasons = []
    candidates = [known("pocket", name), known("kind", name)] if sys.platform == "linux" else [known("kind", name)]
    for cluster in candidates:
        if cluster.status().running:
            return cluster
    for cluster in reversed(candidates):
        why_not = usable(cluster)
        if why_not is None:
            return cluster
        reasons.append(f"  {cluster.kind}: {why_not}")
    raise ClusterError(
        "No cluster can be started on this machine.\n"
        + "\n".join(reasons)
        + "\nservicelab doctor shows what is missing, with the fix for each. "
        "A cluster of your own can be named: SERVICELAB_CLUSTER=context:NAME."
    )


def usable(cluster: Cluster) -> str | None:
    """None if the cluster could be started here, else the reason why it can't."""
    probe = getattr(cluster, "why_not", None)
    return probe() if probe else None
