"""kube-controller-manager: one control loop for each thing that keeps itself as the API says.

>>> async def run(api):                                     # doctest: +SKIP
...     controllers = await start_all(api)
...     ...
...     await asyncio.gather(*(controller.stop() for controller in controllers))
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .base import Controller
from .deployment import DeploymentController
from .endpoints import EndpointsController
from .endpointslice import EndpointSliceController, MirroringController
from .garbagecollector import GarbageCollector
from .namespace import NamespaceController
from .node import NodeController
from .replicaset import ReplicaSetController
from .serviceaccount import NamespaceContentController

if TYPE_CHECKING:
    from ..apiserver.api import Api

KINDS = {
    "ConfigMap": "configmaps",
    "Deployment": "deployments",
    "EndpointSlice": "endpointslices",
    "Endpoints": "endpoints",
    "Lease": "leases",
    "Namespace": "namespaces",
    "Node": "nodes",
    "Pod": "pods",
    "ReplicaSet": "replicasets",
    "Secret": "secrets",
    "Service": "services",
    "ServiceAccount": "serviceaccounts",
}
"""The kinds that can own others or be owned."""

CLUSTER_SCOPED = frozenset({"namespaces", "nodes"})


async def start_all(api: Api, *, ca_certificate: str | None = None) -> list[Controller]:
    """Start every controller.

    Args:
        api: The API that they read and write.
        ca_certificate: The cluster's CA in PEM, for the ConfigMap ``kube-root-ca.crt`` of each namespace.

    Returns:
        The running controllers; each has ``stop()``.
    """
    namespaced = [resource for resource in KINDS.values() if resource not in CLUSTER_SCOPED] + ["events"]
    controllers: list[Controller] = [
        NamespaceContentController(api, ca_certificate),
        NodeController(api),
        DeploymentController(api),
        ReplicaSetController(api),
        EndpointSliceController(api),
        EndpointsController(api),
        MirroringController(api),
        NamespaceController(api, namespaced),
        GarbageCollector(api, KINDS, CLUSTER_SCOPED),
    ]
    for controller in controllers:
        await controller.start()
    return controllers
