"""The few requests that making a class needs: server-side apply, deletion by label, and asking whether they are allowed."""

from __future__ import annotations

from typing import Any

from ..client import ApiError, Client
from ..errors import LabError, NotAllowed, NotFound

MANAGER = "servicelab-class"
_PLURALS = {
    "Namespace": "namespaces",
    "ResourceQuota": "resourcequotas",
    "LimitRange": "limitranges",
    "ServiceAccount": "serviceaccounts",
    "ConfigMap": "configmaps",
    "Pod": "pods",
    "Role": "roles",
    "RoleBinding": "rolebindings",
    "ClusterRole": "clusterroles",
    "ClusterRoleBinding": "clusterrolebindings",
    "ValidatingAdmissionPolicy": "validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": "validatingadmissionpolicybindings",
}


def path_of(obj: dict[str, Any]) -> str:
    """The URL path of an object.

    Example:
        >>> path_of({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "b"}})
        '/api/v1/namespaces/b/pods/a'
    """
    version, meta = obj["apiVersion"], obj["metadata"]
    base = f"/apis/{version}" if "/" in version else f"/api/{version}"
    where = f"/namespaces/{meta['namespace']}" if meta.get("namespace") else ""
    return f"{base}{where}/{_PLURALS[obj['kind']]}/{meta['name']}"


def apply(client: Client, obj: dict[str, Any]) -> dict[str, Any]:
    """Server-side apply (https://kubernetes.io/docs/reference/using-api/server-side-apply/): makes it, or makes it so again."""
    params = {"fieldManager": MANAGER, "force": "true"}
    return client.request("PATCH", path_of(obj), obj, content_type="application/apply-patch+yaml", params=params)


def delete(client: Client, path: str, *, uid: str | None = None) -> None:
    """Deletes an object, if it is there; with `uid` only if it is still that one."""
    body: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
    if uid:
        body["preconditions"] = {"uid": uid}
    try:
        client.request("DELETE", path, body)
    except NotFound:
        return
    except ApiError as error:
        if error.code != 409:  # deleted and made anew by someone meanwhile: not ours any more
            raise


def listing(client: Client, path: str, selector: str) -> list[dict[str, Any]]:
    """The objects at a collection's path with these labels."""
    return client.request("GET", path, params={"labelSelector": selector}).get("items") or []


def refused(client: Client, wanted: list[tuple[str, str, str, str | None]]) -> list[str]:
    """Which of these the present user may not do, in words.

    Args:
        client: whose user is asked about.
        wanted: (verb, group, resource, namespace; None is all namespaces).
    """
    found = []
    for verb, group, resource, namespace in wanted:
        attributes = {"verb": verb, "group": group, "resource": resource, **({"namespace": namespace} if namespace else {})}
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": {"resourceAttributes": attributes}}
        try:
            answer = client.request("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body)
        except NotAllowed:
            found.append(f"ask what you may do ({verb} {resource})")
            continue
        if not answer["status"].get("allowed"):
            found.append(f"{verb} {resource}{f' in {namespace}' if namespace else ''}")
    return found


def has_rbac(client: Client) -> bool:
    """Whether the cluster knows roles at all."""
    try:
        client.request("GET", "/apis/rbac.authorization.k8s.io/v1")
    except NotFound:
        return False
    return True


def version_of(client: Client) -> tuple[int, int]:
    """The cluster's Kubernetes version, such as (1, 34)."""
    version = client.request("GET", "/version")
    try:
        return int(version["major"]), int("".join(c for c in version["minor"] if c.isdigit()))
    except (KeyError, ValueError) as error:
        raise LabError(f"The cluster says no version that can be read: {version}.") from error
