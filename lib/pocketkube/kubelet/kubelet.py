"""The kubelet of one node: a worker for each pod that is bound to it."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import secrets
import shutil
import time
from collections.abc import Callable, Coroutine
from pathlib import Path

from .. import namespaces
from ..apiserver.api import ApiError
from ..images import Images
from . import syscalls
from .hostports import HostPorts
from .node import NodeRegistration
from .pod import PodWorker
from .status import ContainerState

VERSION = "v1.34.4"
CONTROL_PLANE_LABELS = {"node-role.kubernetes.io/control-plane": "", "node.kubernetes.io/exclude-from-external-load-balancers": ""}
CONTROL_PLANE_TAINT = {"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}
_log = logging.getLogger(__name__)


class Kubelet:
    """One node's kubelet.

    Args:
        api: the in-process API.
        node: the node's network.
        root: a directory of this node's own; ``root/pods`` (emptyDir volumes) and ``root/logs`` outlive the cluster's process.
        images: what containers are made from.
        cluster_dns: the address in pods' ``resolv.conf``.
        labels, taints: of the Node object; by default those that kubeadm gives a node of this name.
    """

    def __init__(
        self,
        api,
        node,
        *,
        root: Path,
        images: Images,
        cluster_dns: str = "10.96.0.10",
        cluster_domain: str = "cluster.local",
        labels: dict[str, str] | None = None,
        taints: list[dict] | None = None,
    ) -> None:
        self.api = api
        self.node = node
        self.name = node.name
        self.root = Path(root)
        self.images = images
        self.cluster_dns = cluster_dns
        self.cluster_domain = cluster_domain
        self.memory = self.root / "run"
        self.logs = self.root / "logs"
        for directory in (self.memory, self.logs, self.root / "pods"):
            directory.mkdir(parents=True, exist_ok=True)
        control_plane = node.name.endswith("control-plane")
        self.node_object = NodeRegistration(
            api,
            node.name,
            node.ip,
            node.pod_cidr,
            self.root,
            version=VERSION,
            labels=labels if labels is not None else CONTROL_PLANE_LABELS if control_plane else {},
            taints=taints if taints is not None else [CONTROL_PLANE_TAINT] if control_plane else [],
        )
        self.host_ports = HostPorts(node.nft)
        self._workers: dict[str, PodWorker] = {}
        self._background: set[asyncio.Task] = set()
        self._cancel: list[Callable[[], None]] = []
        self._token_key = None

    async def start(self) -> None:
        """Registers the node and takes up its pods."""
        namespaces.mount("tmpfs", str(self.memory), "tmpfs", namespaces.MS_NOSUID | namespaces.MS_NODEV, "mode=755")
        self.node_object.register()
        self._remove_leftovers()
        for resource, callback in (("pods", self._pod_changed), ("configmaps", self._source_changed), ("secrets", self._source_changed)):
            cancel = self.api.informer(resource).on_change(callback)
            if cancel is not None:
                self._cancel.append(cancel)
        self.background(self.images.prepare())

    async def stop(self) -> None:
        """Ends all containers; the pods stay in the store, and come back with the next start."""
        for cancel in self._cancel:
            cancel()
        self.node_object.stop()
        await asyncio.gather(*(worker.shutdown() for worker in self._workers.values()), return_exceptions=True)
        for task in self._background:
            task.cancel()
        self._workers.clear()
        syscalls.unmount(str(self.memory))

    def _remove_leftovers(self) -> None:
        """Directories of pods that were deleted while the cluster was down (a crash between the two)."""
        known = {pod["metadata"]["uid"] for pod in self.api.informer("pods").values()}
        for directory in (self.root / "pods").iterdir():
            if directory.name not in known:
                shutil.rmtree(directory, ignore_errors=True)
        for directory in self.logs.iterdir():
            if directory.name.rpartition("_")[2] not in known:
                shutil.rmtree(directory, ignore_errors=True)

    def _pod_changed(self, kind: str, pod: dict, _old: dict | None) -> None:
        if pod["spec"].get("nodeName") != self.name:
            return
        uid = pod["metadata"]["uid"]
        worker = self._workers.get(uid)
        if kind == "DELETED":
            if worker is not None:
                worker.remove()
        elif worker is not None:
            worker.update(pod)
        elif self._alive(uid, pod):
            worker = PodWorker(self, pod)
            self._workers[uid] = worker
            worker.task.add_done_callback(lambda _task: self._workers.pop(uid, None))

    def _alive(self, uid: str, pod: dict) -> bool:
        current = self.api.informer("pods").get(pod["metadata"]["namespace"], pod["metadata"]["name"])
        return current is not None and current["metadata"]["uid"] == uid

    def _source_changed(self, _kind: str, source: dict, _old: dict | None) -> None:
        """A ConfigMap or Secret: pods that use it look again (volumes follow it; a container that lacked it can start)."""
        resource = "secrets" if source.get("kind") == "Secret" or "type" in source else "configmaps"
        key = (resource, source["metadata"]["name"])
        for worker in list(self._workers.values()):
            if worker.namespace == source["metadata"]["namespace"] and (key in worker.volumes.sources() or worker.lacks_configuration()):
                worker.wake.set()

    def worker(self, namespace: str, name: str) -> PodWorker | None:
        """The worker of a pod on this node."""
        for worker in self._workers.values():
            if worker.namespace == namespace and worker.name == name:
                return worker
        return None

    def background(self, work: Coroutine) -> None:
        """Runs something beside the workers."""
        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def record_event(self, pod: dict, kind: str, reason: str, message: str, state: ContainerState | None) -> None:
        """An event about a pod; of a container, with the field path that kubectl describe and get events use."""
        where = None
        if state is not None:
            where = f"spec.{'initContainers' if state.init else 'containers'}{{{state.name}}}"
        try:
            self.api.record_event(pod, kind, reason, message, "kubelet", self.name, field_path=where)
        except ApiError as error:  # an event is news; what it tells of goes on without it
            _log.warning("event %s about pod %s not recorded: %s", reason, pod["metadata"]["name"], error)

    def resolv_conf(self, pod: dict) -> str:
        """https://kubernetes.io/docs/concepts/services-networking/dns-pod-service/#pod-s-dns-policy"""
        spec = pod["spec"]
        policy = spec.get("dnsPolicy", "ClusterFirst")
        servers: list[str] = []
        searches: list[str] = []
        options: list[str] = []
        if policy == "ClusterFirstWithHostNet" or (policy == "ClusterFirst" and not spec.get("hostNetwork")):
            namespace = pod["metadata"]["namespace"]
            servers = [self.cluster_dns]
            searches = [f"{namespace}.svc.{self.cluster_domain}", f"svc.{self.cluster_domain}", self.cluster_domain]
            options = ["ndots:5"]
        extra = spec.get("dnsConfig") or {}
        servers += [s for s in extra.get("nameservers") or [] if s not in servers]
        searches += [s for s in extra.get("searches") or [] if s not in searches]
        for option in extra.get("options") or []:
            text = option["name"] + (f":{option['value']}" if option.get("value") is not None else "")
            options = [o for o in options if o.partition(":")[0] != option["name"]] + [text]
        lines = []
        if searches:
            lines.append("search " + " ".join(searches))
        lines += [f"nameserver {server}" for server in servers]
        if options:
            lines.append("options " + " ".join(options))
        return "\n".join(lines) + "\n" if lines else ""

    def service_account_token(self, pod: dict, audience: str, lifetime: int) -> str:
        """A signed token with the claims of a bound service account token (JWT, RFC 7519)."""
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec, utils

        if self._token_key is None:
            self._token_key = ec.generate_private_key(ec.SECP256R1())
        issued, account = int(time.time()), pod["spec"].get("serviceAccountName") or "default"
        found = self.api.informer("serviceaccounts").get(pod["metadata"]["namespace"], account)
        claims = {
            "aud": [audience or "https://kubernetes.default.svc.cluster.local"],
            "exp": issued + lifetime,
            "iat": issued,
            "nbf": issued,
            "iss": "https://kubernetes.default.svc.cluster.local",
            "jti": secrets.token_hex(16),
            "kubernetes.io": {
                "namespace": pod["metadata"]["namespace"],
                "node": {"name": self.name},
                "pod": {"name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]},
                "serviceaccount": {"name": account, "uid": found["metadata"]["uid"] if found else ""},
            },
            "sub": f"system:serviceaccount:{pod['metadata']['namespace']}:{account}",
        }

        def part(value: bytes) -> str:
            return base64.urlsafe_b64encode(value).rstrip(b"=").decode()

        body = f"{part(json.dumps({'alg': 'ES256', 'typ': 'JWT'}).encode())}.{part(json.dumps(claims).encode())}"
        r, s = utils.decode_dss_signature(self._token_key.sign(body.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{body}.{part(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"
