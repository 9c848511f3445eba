"""The table of resources that this API serves: names, scope, verbs and subresources as real Kubernetes 1.34 lists them."""

from __future__ import annotations

from dataclasses import dataclass, field

ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
_NO_COLLECTION_DELETE = tuple(verb for verb in ALL_VERBS if verb != "deletecollection")


@dataclass(frozen=True)
class Subresource:
    """A part of an object with a path of its own, such as ``pods/exec``."""

    name: str
    kind: str
    verbs: tuple[str, ...]
    group: str = ""
    version: str = ""


@dataclass(frozen=True)
class Resource:
    """One kind of object that the API keeps.

    Attributes:
        plural: the name in URLs, and everywhere inside pocketkube.
        schema: the definition's name in Kubernetes' OpenAPI document.
        generation: whether ``metadata.generation`` counts the changes of what is desired.
        status: whether ``status`` is written through its own subresource only.
        hash: the storage version hash which real clusters publish (clients only pass it on).
    """

    plural: str
    kind: str
    singular: str
    group: str
    version: str
    namespaced: bool
    schema: str
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ALL_VERBS
    subresources: tuple[Subresource, ...] = ()
    generation: bool = False
    status: bool = False
    hash: str = ""
    selectable: tuple[str, ...] = field(default=())

    @property
    def api_version(self) -> str:
        """``apps/v1``, or ``v1`` in the core group."""
        return f"{self.group}/{self.version}" if self.group else self.version


def _status(kind: str) -> Subresource:
    return Subresource("status", kind, ("get", "patch", "update"))


_SCALE = Subresource("scale", "Scale", ("get", "patch", "update"), "autoscaling", "v1")

_POD_SUBRESOURCES = (
    Subresource("attach", "PodAttachOptions", ("create", "get")),
    Subresource("binding", "Binding", ("create",)),
    Subresource("eviction", "Eviction", ("create",), "policy", "v1"),
    Subresource("exec", "PodExecOptions", ("create", "get")),
    Subresource("log", "Pod", ("get",)),
    Subresource("portforward", "PodPortForwardOptions", ("create", "get")),
    _status("Pod"),
)

RESOURCES: tuple[Resource, ...] = (
    Resource("configmaps", "ConfigMap", "configmap", "", "v1", True, "io.k8s.api.core.v1.ConfigMap", ("cm",), hash="qFsyl6wFWjQ="),
    Resource("endpoints", "Endpoints", "endpoints", "", "v1", True, "io.k8s.api.core.v1.Endpoints", ("ep",), hash="fWeeMqaN/OA="),
    Resource("events", "Event", "event", "", "v1", True, "io.k8s.api.core.v1.Event", ("ev",), hash="r2yiGXH7wu8=",
             selectable=("involvedObject.kind", "involvedObject.namespace", "involvedObject.name", "involvedObject.uid",
                         "involvedObject.apiVersion", "involvedObject.resourceVersion", "involvedObject.fieldPath", "reason",
                         "reportingComponent", "source", "type")),
    Resource("namespaces", "Namespace", "namespace", "", "v1", False, "io.k8s.api.core.v1.Namespace", ("ns",), verbs=_NO_COLLECTION_DELETE,
             subresources=(Subresource("finalize", "Namespace", ("update",)), _status("Namespace")), status=True, hash="Q3oi5N2YM8M=",
             selectable=("status.phase", "name")),
    Resource("nodes", "Node", "node", "", "v1", False, "io.k8s.api.core.v1.Node", ("no",), subresources=(_status("Node"),), status=True,
             hash="XwShjMxG9Fs=", selectable=("spec.unschedulable",)),
    Resource("pods", "Pod", "pod", "", "v1", True, "io.k8s.api.core.v1.Pod", ("po",), ("all",), subresources=_POD_SUBRESOURCES,
             generation=True, status=True, hash="xPOwRZ+Yhw8=",
             selectable=("spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName", "spec.hostNetwork",
                         "status.phase", "status.podIP", "status.podIPs", "status.nominatedNodeName")),
    Resource("secrets", "Secret", "secret", "", "v1", True, "io.k8s.api.core.v1.Secret", hash="S6u1pOWzb84=", selectable=("type",)),
    Resource("serviceaccounts", "ServiceAccount", "serviceaccount", "", "v1", True, "io.k8s.api.core.v1.ServiceAccount", ("sa",),
             subresources=(Subresource("token", "TokenRequest", ("create",), "authentication.k8s.io", "v1"),), hash="pbx9ZvyFpBE="),
    Resource("services", "Service", "service", "", "v1", True, "io.k8s.api.core.v1.Service", ("svc",), ("all",),
             subresources=(_status("Service"),), status=True, hash="0/CO1lhkEBI=", selectable=("spec.clusterIP", "spec.type")),
    Resource("deployments", "Deployment", "deployment", "apps", "v1", True, "io.k8s.api.apps.v1.Deployment", ("deploy",), ("all",),
             subresources=(_SCALE, _status("Deployment")), generation=True, status=True, hash="8aSe+NMegvE="),
    Resource("replicasets", "ReplicaSet", "replicaset", "apps", "v1", True, "io.k8s.api.apps.v1.ReplicaSet", ("rs",), ("all",),
             subresources=(_SCALE, _status("ReplicaSet")), generation=True, status=True, hash="P1RzHs8/mWQ=",
             selectable=("status.replicas",)),
    Resource("leases", "Lease", "lease", "coordination.k8s.io", "v1", True, "io.k8s.api.coordination.v1.Lease", hash="gqkMMb/YqFM="),
    Resource("endpointslices", "EndpointSlice", "endpointslice", "discovery.k8s.io", "v1", True, "io.k8s.api.discovery.v1.EndpointSlice",
             generation=True, hash="qgS0xkrxYAI="),
)

BY_PLURAL: dict[str, Resource] = {resource.plural: resource for resource in RESOURCES}
BY_KIND: dict[tuple[str, str], Resource] = {(resource.api_version, resource.kind): resource for resource in RESOURCES}

REVIEWS: dict[str, tuple[tuple[str, str, str, bool], ...]] = {
    # Resources that only answer a question (create), by group: plural, singular, kind, namespaced.
    "authentication.k8s.io": (
        ("selfsubjectreviews", "selfsubjectreview", "SelfSubjectReview", False),
        ("tokenreviews", "tokenreview", "TokenReview", False),
    ),
    "authorization.k8s.io": (
        ("localsubjectaccessreviews", "localsubjectaccessreview", "LocalSubjectAccessReview", True),
        ("selfsubjectaccessreviews", "selfsubjectaccessreview", "SelfSubjectAccessReview", False),
        ("selfsubjectrulesreviews", "selfsubjectrulesreview", "SelfSubjectRulesReview", False),
        ("subjectaccessreviews", "subjectaccessreview", "SubjectAccessReview", False),
    ),
}

GROUPS: tuple[tuple[str, str], ...] = (
    # In the order in which a real API server lists them (by priority).
    ("apps", "v1"),
    ("events.k8s.io", "v1"),
    ("authentication.k8s.io", "v1"),
    ("authorization.k8s.io", "v1"),
    ("coordination.k8s.io", "v1"),
    ("discovery.k8s.io", "v1"),
)


def lookup(plural: str) -> Resource:
    """The resource of that plural name.

    Raises:
        KeyError: this API has no such resource.
    """
    return BY_PLURAL[plural]
