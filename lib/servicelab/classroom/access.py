"""Students' kubeconfigs: a token of their ServiceAccount with an end, and what to say when one doesn't work any more."""

from __future__ import annotations

import base64
import binascii
import json
import os
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from ..errors import LabError
from ..state import state_dir, write_private
from .group import current
from .members import ACCOUNT
from .names import Student

if TYPE_CHECKING:
    from ..client import Client

VALID_HOURS = 14 * 24
RENEW_BEFORE = 24 * 3600  # seconds: a token that ends sooner is made anew by the next `class create`


def folder(cluster: Any, out: Path | None) -> Path:
    """The directory of a class's kubeconfigs, made (0700) when it isn't there.

    Raises:
        LabError: it can't be made.
    """
    name = "".join(letter if letter.isalnum() else "-" for letter in f"{cluster.kind}-{cluster.name}-{current().name}".lower())
    path = out.expanduser().absolute() if out else state_dir() / "classes" / name
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        words = f"The students' kubeconfigs can't be kept in {path}: {error.strerror}. Name another directory with --out."
        raise LabError(words) from error
    if not os.access(path, os.W_OK):
        raise LabError(f"The students' kubeconfigs can't be kept in {path}: it isn't writable. Name another directory with --out.")
    return path


def file_of(where: Path, student: Student) -> Path:
    """The file of a student's kubeconfig."""
    return where / f"{student.key}.kubeconfig"


def claims(token: str | None) -> dict[str, Any]:
    """What a ServiceAccount token (a JWT, RFC 7519) says of itself, unverified; empty when it is none.

    Example:
        >>> claims("no token")
        {}
    """
    parts = (token or "").split(".")
    if len(parts) != 3:
        return {}
    try:
        said = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (binascii.Error, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


def token_in(file: Path) -> str | None:
    """The token in a kubeconfig, or None."""
    try:
        users = (yaml.safe_load(file.read_text(encoding="utf-8")) or {}).get("users") or [{}]
        return (users[0].get("user") or {}).get("token")
    except (OSError, yaml.YAMLError, AttributeError, UnicodeDecodeError):
        return None


def still_good(file: Path, account_uid: str, server: str) -> bool:
    """Whether a kubeconfig need not be written anew: same server, same ServiceAccount, and a day or more left."""
    said = claims(token_in(file))
    if not said or said.get("exp", 0) < time.time() + RENEW_BEFORE:
        return False
    config = yaml.safe_load(file.read_text(encoding="utf-8"))
    same_account = (said.get("kubernetes.io") or {}).get("serviceaccount", {}).get("uid") == account_uid
    return same_account and config["clusters"][0]["cluster"]["server"] == server


def new_token(client: Client, namespace: str, hours: float) -> str:
    """Asks for a token of the student's ServiceAccount (TokenRequest). The cluster may give one that ends sooner."""
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": max(600, int(hours * 3600))}}
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{ACCOUNT}/token"
    return client.request("POST", path, body)["status"]["token"]


def server_entry(teacher: Path, server: str | None) -> dict[str, Any]:
    """The `cluster` entry of a student's kubeconfig: the teacher's, without anything that points to the teacher's files.

    Args:
        teacher: the teacher's kubeconfig.
        server: another URL at which students reach the API server, such as `https://192.0.2.7:6443`; the certificate is then
            checked for the name `kubernetes`, which every API server's certificate has.
    """
    config = yaml.safe_load(teacher.read_text(encoding="utf-8"))
    context = next(c["context"] for c in config["contexts"] if c["name"] == config["current-context"])
    entry = dict(next(c["cluster"] for c in config["clusters"] if c["name"] == context["cluster"]))
    if file := entry.pop("certificate-authority", None):
        entry["certificate-authority-data"] = base64.b64encode((teacher.parent / file).read_bytes()).decode()
    if server:
        entry |= {"server": server.rstrip("/"), "tls-server-name": "kubernetes"}
    return entry


def write(file: Path, student: Student, entry: dict[str, Any], token: str) -> Path:
    """Writes a student's kubeconfig (0600): one cluster, one user, one context, in the student's namespace."""
    name = student.namespace
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "clusters": [{"name": "class", "cluster": entry}],
        "users": [{"name": name, "user": {"token": token}}],
        "contexts": [{"name": name, "context": {"cluster": "class", "user": name, "namespace": name}}],
    }
    return write_private(file, yaml.safe_dump(config, sort_keys=False))


def refusal(kubeconfig: Path) -> str | None:
    """Why a student's kubeconfig is refused (HTTP 401), and what to do; None when it isn't a student's."""
    said = claims(token_in(kubeconfig))
    account = (said.get("kubernetes.io") or {}).get("serviceaccount", {}).get("name")
    if account != ACCOUNT:
        return None
    ended = said.get("exp", 0)
    if ended and ended <= time.time():
        when = datetime.fromtimestamp(ended, timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
        why = f"its token expired on {when}"
    else:
        why = "its token is not valid any more: the teacher has renewed or deleted this account, or the cluster was made anew"
    namespace = said["kubernetes.io"].get("namespace", "")
    return (
        f"The cluster no longer accepts your kubeconfig: {why}. Ask your teacher for a new one "
        f"(servicelab class renew {namespace.partition('student-')[2] or 'STUDENT'}); "
        "what you have made in the cluster is still there."
    )
