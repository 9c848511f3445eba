"""Admission: what the API server adds to an object, or refuses, because of other objects (namespaces, service accounts, owners).

The parts of upstream's admission plugins that a plain cluster has switched on: NamespaceLifecycle, ServiceAccount,
DefaultTolerationSeconds, Priority.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from ..store import Store
from . import errors
from .defaults import suffix
from .resources import Resource
from .validation import amount

TOKEN_MOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
IMMORTAL = ("default", "kube-system", "kube-public")


def namespace(store: Store, resource: Resource, obj: dict[str, Any]) -> None:
    """Refuse new objects in a namespace that isn't there or is on its way out.

    Raises:
        ApiError: NotFound, or Forbidden with the cause ``NamespaceTerminating``.
    """
    name = obj["metadata"].get("namespace", "")
    found = store.get("namespaces", None, name)
    if found is None:
        raise errors.not_found("namespaces", "", name)
    if found["metadata"].get("deletionTimestamp"):
        why = f"unable to create new content in namespace {name} because it is being terminated"
        cause = {"reason": "NamespaceTerminating", "message": f"namespace {name} is being terminated", "field": "metadata.namespace"}
        raise errors.forbidden(resource.plural, resource.group, obj["metadata"].get("name", ""), why, [cause])


def pod(store: Store, obj: dict[str, Any]) -> None:
    """Complete a new pod: its service account with its token's volume, the tolerations that each pod gets, its priority.

    Raises:
        ApiError: Forbidden when it names a service account that isn't there.
    """
    spec, meta = obj["spec"], obj["metadata"]
    account = spec.get("serviceAccountName") or "default"
    spec["serviceAccountName"] = spec["serviceAccount"] = account
    found = store.get("serviceaccounts", meta["namespace"], account)
    if found is None and account != "default":
        # The default account is made by a controller a moment after its namespace: a pod that comes in between isn't refused.
        why = f'error looking up service account {meta["namespace"]}/{account}: serviceaccount "{account}" not found'
        raise errors.forbidden("pods", "", meta.get("name", ""), why)
    wanted = spec.get("automountServiceAccountToken")
    if wanted is None:
        wanted = (found or {}).get("automountServiceAccountToken", True)
    if wanted:
        _mount_token(spec)
    tolerations = spec.setdefault("tolerations", [])
    for key in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"):
        if not any(_tolerates(toleration, key) for toleration in tolerations):
            tolerations.append({"effect": "NoExecute", "key": key, "operator": "Exists", "tolerationSeconds": 300})
    system = {"system-cluster-critical": 2000000000, "system-node-critical": 2000001000}
    spec.setdefault("priority", system.get(spec.get("priorityClassName", ""), 0))
    spec.setdefault("preemptionPolicy", "PreemptLowerPriority")


def _tolerates(toleration: dict[str, Any], key: str) -> bool:
    return toleration.get("key") in (key, None, "") and toleration.get("effect") in ("NoExecute", None, "")


def _mount_token(spec: dict[str, Any]) -> None:
    containers = [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]
    without = [one for one in containers if not any(mount.get("mountPath") == TOKEN_MOUNT for mount in one.get("volumeMounts") or [])]
    if not without:
        return
    name = f"kube-api-access-{suffix()}"
    for container in without:
        container.setdefault("volumeMounts", []).append({"mountPath": TOKEN_MOUNT, "name": name, "readOnly": True})
    spec.setdefault("volumes", []).append({
        "name": name,
        "projected": {
            "defaultMode": 420,
            "sources": [
                {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                {"configMap": {"items": [{"key": "ca.crt", "path": "ca.crt"}], "name": "kube-root-ca.crt"}},
                {"downwardAPI": {"items": [{"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}, "path": "namespace"}]}},
            ],
        },
    })


def quality_of_service(spec: dict[str, Any]) -> str:
    """A pod's QoS class from its containers' requests and limits.

    See https://kubernetes.io/docs/concepts/workloads/pods/pod-qos/.
    """
    guaranteed, anything = True, False
    for container in [*(spec.get("containers") or []), *(spec.get("initContainers") or [])]:
        resources = container.get("resources") or {}
        requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
        for name in ("cpu", "memory"):
            asked, limit = amount(requests.get(name, "0")), amount(limits.get(name, "0"))
            anything = anything or asked > 0 or limit > 0
            guaranteed = guaranteed and limit > 0 and asked == limit
    if not anything:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"


def token(account: dict[str, Any], lifetime: int, audiences: list[str], key: bytes, now: float) -> str:
    """A signed token for a service account, in JWT form (HMAC-SHA256; real clusters sign with RSA)."""
    import hmac
    import json

    def part(value: Any) -> str:
        raw = value if isinstance(value, bytes) else json.dumps(value, separators=(",", ":")).encode()
        return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()

    meta = account["metadata"]
    claims = {
        "aud": audiences, "exp": int(now) + lifetime, "iat": int(now), "iss": "https://kubernetes.default.svc.cluster.local",
        "kubernetes.io": {"namespace": meta["namespace"], "serviceaccount": {"name": meta["name"], "uid": meta["uid"]}},
        "nbf": int(now), "sub": f"system:serviceaccount:{meta['namespace']}:{meta['name']}",
    }
    signed = f"{part({'alg': 'HS256', 'typ': 'JWT'})}.{part(claims)}"
    return f"{signed}.{part(hmac.new(key, signed.encode(), hashlib.sha256).digest())}"


def check_token(text: str, key: bytes, now: float) -> str | None:
    """The subject of a token that :func:`token` made and that hasn't expired, else None."""
    import hmac
    import json

    signed, _, signature = text.rpartition(".")
    expected = base64.urlsafe_b64encode(hmac.new(key, signed.encode(), hashlib.sha256).digest()).rstrip(b"=").decode()
    if not signed or not hmac.compare_digest(signature.encode(), expected.encode()):
        return None
    body = signed.rpartition(".")[2]
    claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    return str(claims["sub"]) if claims["exp"] > now else None
