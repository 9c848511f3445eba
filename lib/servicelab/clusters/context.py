"""The user's own cluster, by a context of their kubeconfig, or the cluster that this program runs in as a pod."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from .. import kubectl
from ..client import SERVICE_ACCOUNT, Client
from ..errors import ClusterError, LabError
from ..state import cluster_dir, write_private
from . import Progress, Ran, Status

NAMESPACE = "servicelab"
NODE_IMAGE = "busybox:1.37"


def in_cluster() -> bool:
    """Whether this program runs in a pod with a ServiceAccount."""
    return "KUBERNETES_SERVICE_HOST" in os.environ and (SERVICE_ACCOUNT / "token").exists()


class ContextCluster:
    """A cluster that the lab did not make: only its own namespace there is touched."""

    kind = "context"

    def __init__(self, name: str) -> None:
        self.name = name
        self.namespace: str | None = None  # where the learner works, once connect() knows: pods for node steps go there
        self._file: Path | None = None
        self._nodes: tuple[bool, str] | None = None
        self._pods: dict[str, str] = {}
        self._lock = threading.Lock()
        self._steps: Any = None

    # -- life ------------------------------------------------------------------------------------------------------

    def _config(self) -> dict[str, Any]:
        """The one context of the user's kubeconfig, with certificates and keys inlined: kubectl does it as kubectl understands it."""
        done = subprocess.run(
            [kubectl.find(), "config", "view", "--minify", "--flatten", "--raw", "--context", self.name, "-o", "json"],
            capture_output=True, text=True, timeout=30, check=False, env={**os.environ, **_own_kubeconfig()},
        )  # fmt: skip
        if done.returncode:
            raise ClusterError(
                f"There is no context {self.name!r} in your kubeconfig ({done.stderr.strip()}). "
                "kubectl config get-contexts lists those you have."
            )
        return json.loads(done.stdout)

    @property
    def default_namespace(self) -> str:
        """The context's namespace when it names one (a student's does), else ``servicelab``; never ``default``."""
        contexts = self._config().get("contexts") or [{}]
        return (contexts[0].get("context") or {}).get("namespace") or NAMESPACE

    def status(self) -> Status:
        """Whether the cluster's API answers."""
        try:
            version = Client(self.kubeconfig()).request("GET", "/version")
        except LabError as error:
            if getattr(error, "code", 0) == 401:
                from ..classroom.access import refusal  # a student's kubeconfig says more than the server does

                return Status("broken", refusal(self.kubeconfig()) or str(error))
            return Status("broken", str(error))
        return Status("running", f"Kubernetes {version.get('gitVersion', '?')}, your own cluster")

    def start(self, progress: Progress, **_: Any) -> None:
        """Looks whether the cluster answers; starting it is its owner's business.

        Raises:
            ClusterError: it doesn't.
        """
        progress(f"asking the cluster of context {self.name}")
        status = self.status()
        if not status.running:
            raise ClusterError(f"The cluster of context {self.name!r} can't be used: {status.detail}")

    def delete(self, progress: Progress) -> None:
        """As ``stop``: nothing."""
        self.stop(progress)

    def stop(self, progress: Progress) -> None:
        """Leaves the cluster alone: it isn't the lab's. What the lessons made goes with ``servicelab reset``."""
        progress(f"context {self.name} is your own cluster and stays as it is (servicelab reset removes what the lessons made)")

    def kubeconfig(self) -> Path:
        """A copy with this one context, so that the lab never writes to the user's own file."""
        if self._file is None:
            config = yaml.safe_dump(self._config())
            folder = cluster_dir(
                "".join(c if c.isalnum() else "-" for c in self.name.lower()).strip("-")[:40].strip("-") or "x", "context-"
            )
            self._file = write_private(folder / "kubeconfig", config)
        return self._file

    # -- nodes and the outside ----------------------------------------------------------------------------------------

    @property
    def nodes_allowed(self) -> bool:
        """Whether a privileged pod may be made, as the API server itself answers by a dry run (RBAC and Pod Security alike)."""
        return self._probe()[0]

    @property
    def nodes_why(self) -> str:
        """Why not, in one sentence."""
        return self._probe()[1]

    @property
    def _where(self) -> str:
        return self.namespace or self.default_namespace

    def _probe(self) -> tuple[bool, str]:
        if self._nodes is None:
            manifest = self._pod("servicelab-node-probe", "any-node")
            done = kubectl.run(
                "create",
                "--dry-run=server",
                "-f",
                "-",
                kubeconfig=self.kubeconfig(),
                namespace=self._where,
                input=json.dumps(manifest),
            )
            rights = kubectl.run("auth", "can-i", "create", "pods/exec", kubeconfig=self.kubeconfig(), namespace=self._where)
            if done.returncode == 0 and rights.returncode == 0:
                self._nodes = (True, "")
            elif "not found" in done.stderr and "namespaces" in done.stderr:
                return False, f"the namespace {self._where} is not there yet"
            elif "a student's pod may not" in done.stderr:
                self._nodes = (False, "in a class the nodes belong to all, and students may not run commands on them")
            else:
                said = done.stderr.strip() or "no right to exec into pods"
                self._nodes = (False, f"this cluster does not let you run commands on its nodes ({said.splitlines()[0][:200]})")
        return self._nodes

    def _pod(self, name: str, node: str, *, join_node: bool = True) -> dict[str, Any]:
        image = os.environ.get("SERVICELAB_NODE_IMAGE") or NODE_IMAGE
        container = {
            "name": "shell", "image": image, "imagePullPolicy": "IfNotPresent", "command": ["sleep", "3600"],
            "securityContext": {"privileged": True} if join_node else {"runAsUser": 0},
        }  # fmt: skip
        spec: dict[str, Any] = {
            "restartPolicy": "Never", "terminationGracePeriodSeconds": 0, "activeDeadlineSeconds": 3600, "enableServiceLinks": False,
            "automountServiceAccountToken": False, "containers": [container], "nodeName": node, "tolerations": [{"operator": "Exists"}],
        }  # fmt: skip
        if join_node:
            spec |= {"hostNetwork": True, "hostPID": True}
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": {"servicelab.io/made-for": "node-steps"}},
            "spec": spec,
        }

    def _node_pod(self, node: str) -> str:
        with self._lock:
            if name := self._pods.get(node):
                return name
            name = f"servicelab-node-{secrets.token_hex(3)}"
            where = {"kubeconfig": self.kubeconfig(), "namespace": self._where}
            made = kubectl.run("create", "-f", "-", input=json.dumps(self._pod(name, node)), **where)
            if made.returncode:
                raise ClusterError(f"The pod that runs commands on {node} can't be made: {made.stderr.strip()}")
            waited = kubectl.run("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=90s", timeout=100, **where)
            if waited.returncode:
                events = kubectl.run("get", "events", "--field-selector", f"involvedObject.name={name}", **where).stdout
                kubectl.run("delete", "pod", name, "--now", "--wait=false", **where)
                raise ClusterError(f"The pod that runs commands on {node} did not start: {waited.stderr.strip()}\n{events}")
            self._pods[node] = name
            return name

    def run_on_node(self, node: str, argv: Sequence[str], *, input: str | None = None, timeout: float = 30.0) -> Ran:
        """Enters the node's namespaces from a short-lived privileged pod on it (hostPID, nsenter)."""
        if not self.nodes_allowed:
            raise ClusterError(self.nodes_why)
        pod = self._node_pod(node)
        enter = ["nsenter", "-t", "1", "-m", "-n", "-u", "-i", "--", *argv]
        done = kubectl.run(
            "exec", *(["-i"] if input is not None else []), pod, "--", *enter,
            kubeconfig=self.kubeconfig(), namespace=self._where, input=input, timeout=timeout,
        )  # fmt: skip
        return Ran(done.returncode, done.stdout, done.stderr)

    def read_on_node(self, node: str, argv: Sequence[str]) -> Ran | None:
        """One of the lessons' read-only commands, by the pod that the teacher of a class prepared on the node; None where there is none."""
        if self._steps is None:
            from ..classroom.node_client import NodeSteps

            self._steps = NodeSteps(Client(self.kubeconfig()), self._where)
        return self._steps.run(node, argv)

    def close(self) -> None:
        """Removes the pods made for node steps."""
        with self._lock:
            names, self._pods = list(self._pods.values()), {}
        if names:
            kubectl.run(
                "delete",
                "pod",
                *names,
                "--now",
                "--wait=false",
                "--ignore-not-found",
                kubeconfig=self.kubeconfig(),
                namespace=self._where,
            )

    def run_outside(self, argv: Sequence[str], *, input: str | None = None, timeout: float = 30.0) -> Ran:
        """The learner's own machine is what is outside of a cluster that the lab did not make."""
        try:
            done = subprocess.run(list(argv), input=input, capture_output=True, text=True, errors="replace", timeout=timeout, check=False)
        except FileNotFoundError as error:
            return Ran(127, "", f"{argv[0]}: not installed on this machine ({error.strerror})")
        except subprocess.TimeoutExpired as error:
            raise ClusterError(f"{' '.join(argv)!r} did not end within {timeout:g} s.") from error
        return Ran(done.returncode, done.stdout, done.stderr)

    def node_port_address(self, node_port: int) -> str | None:
        """A node's address and the port; whether firewalls let this machine through is the cluster's business."""
        with contextlib.suppress(LabError):
            for node in Client(self.kubeconfig()).list("nodes"):
                addresses = {a["type"]: a["address"] for a in node["status"].get("addresses") or []}
                if address := addresses.get("ExternalIP") or addresses.get("InternalIP"):
                    return f"{address}:{node_port}"
        return None


class InCluster(ContextCluster):
    """The cluster in which this program runs as a pod, as that pod's ServiceAccount: how a JupyterHub user meets it."""

    def __init__(self) -> None:
        super().__init__("in-cluster")

    def _config(self) -> dict[str, Any]:
        host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ.get("KUBERNETES_SERVICE_PORT", "443")
        server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
        user = {"tokenFile": str(SERVICE_ACCOUNT / "token")}  # bound tokens are renewed: read anew, never copied
        return {
            "apiVersion": "v1", "kind": "Config", "current-context": self.name,
            "clusters": [{"name": self.name, "cluster": {"server": server, "certificate-authority": str(SERVICE_ACCOUNT / "ca.crt")}}],
            "users": [{"name": self.name, "user": user}],
            "contexts": [{"name": self.name, "context": {"cluster": self.name, "user": self.name, "namespace": self._own_namespace()}}],
        }  # fmt: skip

    @staticmethod
    def _own_namespace() -> str:
        """The student's namespace, if the pod's ServiceAccount is named after one; else the pod's own.

        A JupyterHub keeps its users' servers in its own namespace, each under a ServiceAccount of the name of the user's namespace
        (deploy/jupyterhub/hub.py). The name is in the token itself (a JWT: https://kubernetes.io/docs/concepts/security/service-accounts/).
        """
        from ..classroom.access import claims

        try:
            token = (SERVICE_ACCOUNT / "token").read_text(encoding="utf-8").strip()
            account = (claims(token).get("kubernetes.io") or {}).get("serviceaccount", {}).get("name", "")
            if re.match(r"([a-z][-a-z0-9]{0,15}-)?student-[a-z0-9]", account):  # as servicelab.classroom.group names them
                return account
            return (SERVICE_ACCOUNT / "namespace").read_text(encoding="utf-8").strip()
        except OSError as error:
            raise ClusterError(f"This pod's ServiceAccount names no namespace ({error}); give connect(namespace=…).") from error


def _own_kubeconfig() -> dict[str, str]:
    """KUBECONFIG of the user, even after connect() has pointed the variable at the lab's file."""
    if (own := os.environ.get("SERVICELAB_USER_KUBECONFIG")) is not None:
        return {"KUBECONFIG": own}
    return {}
