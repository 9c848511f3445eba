"""Reviews: resources that only answer a question, such as "who am I?" and "may I?"."""

from __future__ import annotations

import hmac
from typing import Any

from . import errors
from .api import Api, timestamp

ADMINISTRATOR = "kubernetes-admin"
"""The user behind the cluster's token, as on kind."""


def _groups(user: str) -> list[str]:
    if user == ADMINISTRATOR:
        return ["kubeadm:cluster-admins", "system:authenticated"]
    namespace = user.split(":")[2] if user.startswith("system:serviceaccount:") else ""
    return ["system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"]


def answer(api: Api, plural: str, body: dict[str, Any], user: str, namespace: str | None, token: bytes) -> dict[str, Any]:
    """The review with its status filled in.

    Without roles in this cluster the administrator may do everything, and service accounts nothing.
    """
    spec = body.get("spec") or {}
    kind = {"selfsubjectreviews": "SelfSubjectReview", "tokenreviews": "TokenReview", "selfsubjectaccessreviews": "SelfSubjectAccessReview",
            "selfsubjectrulesreviews": "SelfSubjectRulesReview", "subjectaccessreviews": "SubjectAccessReview",
            "localsubjectaccessreviews": "LocalSubjectAccessReview"}[plural]
    group = "authentication" if kind in ("SelfSubjectReview", "TokenReview") else "authorization"
    review: dict[str, Any] = {"kind": kind, "apiVersion": f"{group}.k8s.io/v1", "metadata": {"creationTimestamp": timestamp()}}
    if kind != "SelfSubjectReview":
        review["spec"] = spec
    if kind == "SelfSubjectReview":
        review["status"] = {"userInfo": {"username": user, "groups": _groups(user)}}
    elif kind == "TokenReview":
        asked = str(spec.get("token", "")).encode()
        found = ADMINISTRATOR if hmac.compare_digest(asked, token) else api.account_of(asked.decode())
        review["status"] = {"authenticated": True, "user": {"username": found, "groups": _groups(found)}} if found else \
            {"authenticated": False, "error": "invalid bearer token"}
    elif kind == "SelfSubjectRulesReview":
        every = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}
        paths = {"verbs": ["*"], "nonResourceURLs": ["*"]}
        allowed = user == ADMINISTRATOR
        review["status"] = {"resourceRules": [every] if allowed else [], "nonResourceRules": [paths] if allowed else [],
                            "incomplete": False}
    else:
        who = user if kind == "SelfSubjectAccessReview" else spec.get("user", "")
        if not spec.get("resourceAttributes") and not spec.get("nonResourceAttributes"):
            raise errors.invalid_object(kind, "authorization.k8s.io", "", [errors.invalid(
                "spec.resourceAttributes", None, "exactly one of nonResourceAttributes or resourceAttributes must be specified")])
        allowed = who == ADMINISTRATOR or "system:masters" in (spec.get("groups") or [])
        review["status"] = {"allowed": allowed} if allowed else {"allowed": False}
    return review
