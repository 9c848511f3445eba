"""What the cluster has for each student, as Kubernetes objects: namespace, account, rights, and limits sized to the lessons."""

from __future__ import annotations

from typing import Any

from .group import current
from .names import Student

NAME = "servicelab.io/student-name"
ACCOUNT = "student"
QUOTA, LIMITS = "servicelab-class", "servicelab-class"

# Lesson 01 has the most pods at once: 3 of host-port, 6 servers, a client, and as many again that are being replaced.
HARD = {
    "pods": "24",
    "services": "12",
    "services.nodeports": "6",
    "services.loadbalancers": "2",
    "secrets": "12",
    "configmaps": "16",
    "count/deployments.apps": "12",
    "requests.cpu": "300m",
    "requests.memory": "512Mi",
    "limits.memory": "4Gi",
}
READ = ["get", "list", "watch"]
WRITE = [*READ, "create", "update", "patch", "delete", "deletecollection"]


def _object(version: str, kind: str, name: str, namespace: str | None = None, **rest: Any) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name, "labels": current().labels}
    if namespace:
        metadata["namespace"] = namespace
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **rest}


def _rules(*rules: tuple[str, list[str], list[str]]) -> list[dict[str, Any]]:
    return [{"apiGroups": [group], "resources": resources, "verbs": verbs} for group, resources, verbs in rules]


STUDENT_RULES = _rules(
    ("", ["pods", "services", "configmaps", "secrets"], WRITE),
    ("", ["pods/log", "pods/status"], ["get"]),
    ("", ["pods/exec", "pods/attach", "pods/portforward"], ["get", "create"]),
    ("", ["endpoints", "events", "serviceaccounts", "replicationcontrollers", "resourcequotas", "limitranges"], READ),
    ("", ["namespaces"], ["get"]),  # in a Role this is the one namespace that the Role is in
    ("apps", ["deployments", "replicasets"], WRITE),
    ("apps", ["deployments/scale", "replicasets/scale"], ["get", "update", "patch"]),
    ("apps", ["statefulsets", "daemonsets"], READ),  # `kubectl get all` asks for these, too
    ("batch", ["jobs", "cronjobs"], READ),
    ("autoscaling", ["horizontalpodautoscalers"], READ),
    ("discovery.k8s.io", ["endpointslices"], READ),
)
"""What a student may do in their own namespace.

Not among it: writing endpoints or EndpointSlices (a Service could be pointed at another's pods), the Service's status, the quota,
roles, tokens of ServiceAccounts, and `pods/proxy`.
"""
NODE_RULES = _rules(("", ["nodes"], READ))
SYSTEM_RULES = _rules(("", ["services", "endpoints", "pods"], READ), ("discovery.k8s.io", ["endpointslices"], READ))
"""What lessons 04 and 06 look at in kube-system: the DNS Service and what is behind it."""


def objects_of(student: Student) -> list[dict[str, Any]]:
    """All objects of one student, in the order in which they must be made."""
    group, space = current(), student.namespace
    namespace = _object("v1", "Namespace", space)
    namespace["metadata"]["annotations"] = {NAME: student.name}
    namespace["metadata"]["labels"]["servicelab.io/for"] = "student"  # the class's policies are bound to these namespaces
    subject = [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": space}]

    def binding(kind: str, name: str, where: str | None, role_kind: str, role: str) -> dict[str, Any]:
        ref = {"apiGroup": "rbac.authorization.k8s.io", "kind": role_kind, "name": role}
        made = _object("rbac.authorization.k8s.io/v1", kind, name, where, roleRef=ref, subjects=subject)
        made["metadata"]["labels"]["servicelab.io/student"] = student.key
        return made

    default = {"cpu": "500m", "memory": "128Mi", "ephemeral-storage": "256Mi"}
    limits = [
        {
            "type": "Container",
            "default": default,
            "defaultRequest": {"cpu": "5m", "memory": "16Mi", "ephemeral-storage": "8Mi"},
            "max": {"cpu": "1", "memory": "256Mi", "ephemeral-storage": "512Mi"},
        }
    ]
    return [
        namespace,
        _object("v1", "ResourceQuota", QUOTA, space, spec={"hard": dict(HARD)}),
        _object("v1", "LimitRange", LIMITS, space, spec={"limits": limits}),
        _object("v1", "ServiceAccount", ACCOUNT, space, automountServiceAccountToken=False),
        _object("rbac.authorization.k8s.io/v1", "Role", "servicelab-student", space, rules=STUDENT_RULES),
        binding("RoleBinding", "servicelab-student", space, "Role", "servicelab-student"),
        binding("ClusterRoleBinding", f"servicelab-{space}", None, "ClusterRole", group.role),
        binding("RoleBinding", f"servicelab-{space}", "kube-system", "Role", group.role),
        binding("RoleBinding", f"servicelab-{space}", group.space, "Role", group.role),
    ]


def shared_objects(node_pods: list[str] | None = None, port: int = 0) -> list[dict[str, Any]]:
    """What the class has once: the teacher's namespace and the rights that every student gets by a binding.

    Args:
        node_pods: names of the pods for node steps; None or empty where there are none.
        port: the port at which these pods answer.
    """
    group = current()
    rules = _rules(("", ["pods/proxy"], ["get"])) if node_pods else []
    for rule in rules:
        rule["resourceNames"] = [f"{name}:{port}" for name in node_pods or ()]
    return [
        _object("v1", "Namespace", group.space),
        _object("rbac.authorization.k8s.io/v1", "ClusterRole", group.role, rules=NODE_RULES),
        _object("rbac.authorization.k8s.io/v1", "Role", group.role, "kube-system", rules=SYSTEM_RULES),
        _object("rbac.authorization.k8s.io/v1", "Role", group.role, group.space, rules=rules),
    ]
