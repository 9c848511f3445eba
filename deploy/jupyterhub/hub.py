"""What the hub does before it starts a user's server: a namespace, rights and limits for the user, and a ServiceAccount for the server.

The objects are those of `servicelab class create` (lib/servicelab/classroom/members.py, mounted beside this file by the chart's
`hub.extraFiles`), so a class can have students at laptops and students in the hub, on one board. The server itself runs in the hub's
namespace, where it is in nobody's lesson, under a ServiceAccount that has the name of the user's namespace: by that name `connect()`
finds it. In the chart's values::

    hub:
      extraConfig:
        servicelab: |
          import sys
          sys.path.insert(0, "/usr/local/etc/jupyterhub")
          from servicelab_hub.hub import pre_spawn
          c.KubeSpawner.pre_spawn_hook = pre_spawn
"""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tornado.httpclient import AsyncHTTPClient, HTTPRequest

from .classroom.group import LABEL, current
from .classroom.members import NAME, objects_of
from .classroom.names import LONGEST, Student, cleaned

MANAGER = "servicelab-hub"
USER = "servicelab.io/hub-user"
_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_PLURALS = {
    "Namespace": "namespaces",
    "ResourceQuota": "resourcequotas",
    "LimitRange": "limitranges",
    "ServiceAccount": "serviceaccounts",
    "Role": "roles",
    "RoleBinding": "rolebindings",
    "ClusterRoleBinding": "clusterrolebindings",
}


class Refused(Exception):
    """The server isn't started; JupyterHub shows `jupyterhub_message` to the user."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.jupyterhub_message = message


class Api:
    """The few requests of the hook to the API server.

    Args:
        server: its URL.
        token: gives the token to present, anew for each request: bound tokens are renewed.
        ca: the file of the certificate authority.
    """

    def __init__(self, server: str, token: Any, ca: str) -> None:
        self.server, self.token, self.ca = server, token, ca

    @classmethod
    def of_this_pod(cls) -> Api:
        """The API server of the cluster that the hub runs in, as the hub's own ServiceAccount."""
        host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ.get("KUBERNETES_SERVICE_PORT", "443")
        host = f"[{host}]" if ":" in host else host
        return cls(f"https://{host}:{port}", lambda: (_ACCOUNT / "token").read_text(encoding="utf-8").strip(), str(_ACCOUNT / "ca.crt"))

    async def request(self, method: str, path: str, body: Any = None, **params: str) -> tuple[int, dict[str, Any]]:
        """Returns the code and the object or Status of the answer."""
        url = f"{self.server}{path}" + (f"?{urlencode(params)}" if params else "")
        headers = {"Authorization": f"Bearer {self.token()}", "Content-Type": "application/apply-patch+yaml", "Accept": "application/json"}
        request = HTTPRequest(
            url, method=method, headers=headers, body=json.dumps(body) if body is not None else None, ca_certs=self.ca, request_timeout=30
        )
        answer = await AsyncHTTPClient().fetch(request, raise_error=False)
        if answer.code == 599:
            raise Refused(f"The cluster does not answer ({answer.error}). Try again in a minute; if it stays so, tell your teacher.")
        try:
            return answer.code, json.loads(answer.body or b"{}")
        except ValueError:
            return answer.code, {"message": (answer.body or b"").decode(errors="replace")[:200]}

    async def apply(self, obj: dict[str, Any]) -> dict[str, Any]:
        """Server-side apply; raises Refused with the API server's own words."""
        meta, version = obj["metadata"], obj["apiVersion"]
        where = f"/namespaces/{meta['namespace']}" if meta.get("namespace") else ""
        path = f"{'/apis/' if '/' in version else '/api/'}{version}{where}/{_PLURALS[obj['kind']]}/{meta['name']}"
        for attempt in range(5):
            code, answer = await self.request("PATCH", path, obj, fieldManager=MANAGER, force="true")
            if code < 300:
                return answer
            if code not in (409, 429, 500, 503):
                break
            await asyncio.sleep(0.4 * 2**attempt)  # the API server said that it is busy: it gives no better hint
        raise Refused(
            f"The {obj['kind']} {meta['name']} can't be made: {answer.get('message') or f'HTTP {code}'}. "
            "Tell your teacher: deploy/jupyterhub/rights.yaml lists what the hub must be allowed."
        )


def student_of(user: str) -> Student:
    """The student of a JupyterHub user.

    Raises:
        Refused: the user's name can't be part of a namespace's name.
    """
    key = cleaned(user)
    if not key or len(key) > LONGEST:
        raise Refused(
            f"The user name {user!r} can't become a namespace's name. Ask your teacher for one of Latin letters and digits, "
            f"{LONGEST} of them at most."
        )
    return Student(key, user)


def hub_objects(student: Student, hub_namespace: str) -> list[dict[str, Any]]:
    """The server's ServiceAccount, and the student's own rights bound to it, too."""
    space = student.namespace
    labels = {**current().labels, "servicelab.io/student": student.key}
    account = {
        "apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": space, "namespace": hub_namespace, "labels": labels},
        "automountServiceAccountToken": True,
    }  # fmt: skip
    made = [account]
    for obj in objects_of(student):
        if obj["kind"] in ("RoleBinding", "ClusterRoleBinding"):
            meta = {**obj["metadata"], "name": f"{obj['metadata']['name']}-hub", "labels": labels}
            subjects = [{"kind": "ServiceAccount", "name": space, "namespace": hub_namespace}]
            made.append({**obj, "metadata": meta, "subjects": subjects})
    return made


async def prepare(api: Api, user: str, hub_namespace: str) -> Student:
    """Makes all that a user needs, or makes it whole again.

    Raises:
        Refused: the class is not made yet; the namespace is another's; the API server refuses something.
    """
    student, group = student_of(user), current()
    code, answer = await api.request("GET", f"/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings/{group.space}-pods")
    if code != 200:
        raise Refused(
            f"This cluster has no class yet ({answer.get('message') or f'HTTP {code}'}): nothing would keep students' pods in bounds. "
            "The teacher makes it, with or without students of its own: servicelab class create --cluster context:NAME --students 1"
        )
    code, found = await api.request("GET", f"/api/v1/namespaces/{student.namespace}")
    if code == 200:
        meta = found["metadata"]
        notes = meta.get("annotations") or {}
        if (meta.get("labels") or {}).get(LABEL) != group.name:
            raise Refused(f"The namespace {student.namespace} is in the cluster already and not the class's. Tell your teacher.")
        if notes.get(USER, user) != user:
            raise Refused(
                f"The user names {user!r} and {notes[USER]!r} become the same namespace, {student.namespace}, and {notes[USER]!r} has it. "
                "Ask your teacher for another user name."
            )
        if meta.get("deletionTimestamp"):
            raise Refused(f"The namespace {student.namespace} of an earlier class is still being deleted. Try again in a minute.")
        student = Student(student.key, notes.get(NAME) or user)
    elif code != 404:
        said = found.get("message") or f"HTTP {code}"
        raise Refused(f"The hub may not look at namespaces ({said}). Tell your teacher: rights.yaml is not applied.")
    for obj in [*objects_of(student), *hub_objects(student, hub_namespace)]:
        if obj["kind"] == "Namespace":
            obj["metadata"]["annotations"] = {**obj["metadata"].get("annotations", {}), USER: user}
        await api.apply(obj)
    return student


_one_at_a_time = asyncio.Lock()  # two users whose names become one namespace: the second sees that the first has it


async def pre_spawn(spawner: Any) -> None:
    """KubeSpawner's `pre_spawn_hook`."""
    async with _one_at_a_time:
        student = await prepare(Api.of_this_pod(), spawner.user.name, spawner.namespace)
    spawner.service_account = student.namespace
    spawner.automount_service_account_token = True
    spawner.log.info("servicelab: %s works in the namespace %s", spawner.user.name, student.namespace)
