"""What a student's pods, Services and Secrets may not be: rules that RBAC can't say, as ValidatingAdmissionPolicies.

The Pod Security Standard "baseline" comes close, but forbids every hostPort, and lesson 01 teaches with one. So the same list is
written out here, with that port let through, and with what a shared cluster needs besides. Kubernetes 1.30 or newer
(https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/).
"""

from __future__ import annotations

from typing import Any

from .group import current

LESSON_HOST_PORT = 8081
OLDEST = (1, 30)

_ALL = "object.spec.containers + (has(object.spec.initContainers) ? object.spec.initContainers : [])"
_VOLUMES = ("configMap", "secret", "emptyDir", "projected", "downwardAPI")
_ADDED_TOLERATIONS = "['node.kubernetes.io/not-ready', 'node.kubernetes.io/unreachable', 'node.kubernetes.io/memory-pressure']"
_SECURITY = "has(c.securityContext)"

POD_RULES: tuple[tuple[str, str], ...] = (
    (
        "!(has(object.spec.hostNetwork) && object.spec.hostNetwork) && !(has(object.spec.hostPID) && object.spec.hostPID)"
        " && !(has(object.spec.hostIPC) && object.spec.hostIPC)",
        "a student's pod may not use its node's network, processes or IPC (hostNetwork, hostPID, hostIPC)",
    ),
    (
        f"variables.all.all(c, !{_SECURITY} || !has(c.securityContext.privileged) || !c.securityContext.privileged)",
        "a student's container may not be privileged",
    ),
    (
        f"variables.all.all(c, !{_SECURITY} || !has(c.securityContext.capabilities) || !has(c.securityContext.capabilities.add)"
        " || c.securityContext.capabilities.add.size() == 0)",
        "a student's container may not add capabilities",
    ),
    (
        f"variables.all.all(c, (!{_SECURITY} || !has(c.securityContext.procMount) || c.securityContext.procMount == 'Default')"
        f" && (!{_SECURITY} || !has(c.securityContext.seccompProfile) || c.securityContext.seccompProfile.type != 'Unconfined')"
        f" && (!{_SECURITY} || !has(c.securityContext.appArmorProfile) || c.securityContext.appArmorProfile.type != 'Unconfined')"
        f" && (!{_SECURITY} || !has(c.securityContext.seLinuxOptions)))"
        " && (!has(object.spec.securityContext) || ((!has(object.spec.securityContext.seccompProfile)"
        " || object.spec.securityContext.seccompProfile.type != 'Unconfined') && (!has(object.spec.securityContext.appArmorProfile)"
        " || object.spec.securityContext.appArmorProfile.type != 'Unconfined') && !has(object.spec.securityContext.seLinuxOptions)"
        " && !has(object.spec.securityContext.sysctls)))",
        "a student's pod may not loosen the kernel's protection (procMount, seccomp, AppArmor, SELinux, sysctls)",
    ),
    (
        "variables.all.all(c, !has(c.ports) || c.ports.all(p, !has(p.hostPort) || p.hostPort == 0"
        f" || (p.hostPort == {LESSON_HOST_PORT} && !has(p.hostIP))))",
        f"a student's pod may take no port of its node but {LESSON_HOST_PORT}, that of lesson 01",
    ),
    (
        f"!has(object.spec.volumes) || object.spec.volumes.all(v, {' || '.join(f'has(v.{kind})' for kind in _VOLUMES)})",
        f"a student's pod may have volumes of these kinds only: {', '.join(_VOLUMES)}",
    ),
    (
        f"!has(object.spec.tolerations) || object.spec.tolerations.all(t, has(t.key) && t.key in {_ADDED_TOLERATIONS})",
        "a student's pod may not tolerate taints: it would run where the cluster's own parts do",
    ),
    (
        "request.operation != 'CREATE' || !has(object.spec.nodeName) || object.spec.nodeName == ''",
        "a student's pod goes where the scheduler puts it (nodeName must be left out)",
    ),
    ("!has(object.spec.priorityClassName) || object.spec.priorityClassName == ''", "a student's pod has no priority over others"),
)
SERVICE_RULES: tuple[tuple[str, str], ...] = (
    (
        "!has(object.spec.externalIPs) || object.spec.externalIPs.size() == 0",
        "a student's Service may not claim externalIPs: it could take others' traffic (CVE-2020-8554)",
    ),
)
SECRET_RULES: tuple[tuple[str, str], ...] = (
    (
        "!has(object.type) || object.type != 'kubernetes.io/service-account-token'",
        "a student may not make tokens that never expire",
    ),
)


def policies() -> list[dict[str, Any]]:
    """The policies and their bindings to the namespaces of the class."""
    made, group = [], current()
    for plural, rules, variables in (
        ("pods", POD_RULES, [{"name": "all", "expression": _ALL}]),
        ("services", SERVICE_RULES, []),
        ("secrets", SECRET_RULES, []),
    ):
        name = f"{group.space}-{plural}"
        match = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": [plural]}
        spec: dict[str, Any] = {
            "failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": [match]},
            "validations": [{"expression": expression, "message": message} for expression, message in rules],
        }
        if variables:
            spec["variables"] = variables
        binding = {
            "policyName": name,
            "validationActions": ["Deny"],
            "matchResources": {"namespaceSelector": {"matchLabels": {**group.labels, "servicelab.io/for": "student"}}},
        }
        version = "admissionregistration.k8s.io/v1"
        for kind, body in (("ValidatingAdmissionPolicy", spec), ("ValidatingAdmissionPolicyBinding", binding)):
            made.append({"apiVersion": version, "kind": kind, "metadata": {"name": name, "labels": group.labels}, "spec": body})
    return made
