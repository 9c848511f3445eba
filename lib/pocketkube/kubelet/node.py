"""The Node object: registered at start, kept alive by a Lease.

https://kubernetes.io/docs/reference/node/node-status/
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import logging
import os
import platform
import subprocess
from datetime import datetime, timezone
from pathlib import Path

from ..apiserver.api import ApiError

LEASE_NAMESPACE = "kube-node-lease"
LEASE_SECONDS = 40
HEARTBEAT_SECONDS = 10
_log = logging.getLogger(__name__)
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}


def now() -> str:
    """The time as the API writes it (metav1.Time, whole seconds)."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def now_micro() -> str:
    """The time as metav1.MicroTime."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _os_image() -> str:
    for path in ("/etc/os-release", "/usr/lib/os-release"):
        if Path(path).exists():
            for line in Path(path).read_text(encoding="utf-8").splitlines():
                if line.startswith("PRETTY_NAME="):
                    return line.partition("=")[2].strip('"')
    return "Linux"


@functools.lru_cache
def _bwrap_version() -> str:
    return subprocess.run(["bwrap", "--version"], capture_output=True, text=True, check=False).stdout.split()[-1:][0]


def _memory() -> str:
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemTotal:"):
            return f"{line.split()[1]}Ki"
    return "0"


class NodeRegistration:
    """Keeps one node's Node object and Lease.

    Args:
        address: the node's IP address.
        labels, taints: besides those that every node has.
    """

    def __init__(
        self, api, name: str, address: str, pod_cidr: str, directory: Path, *, version: str, labels: dict[str, str], taints: list[dict]
    ) -> None:
        self._api = api
        self.name = name
        self._address = address
        self._pod_cidr = pod_cidr
        self._version = version
        self._labels = labels
        self._taints = taints
        disk = os.statvfs(directory)
        self.capacity = {
            "cpu": str(os.cpu_count() or 1),
            "ephemeral-storage": f"{disk.f_blocks * disk.f_frsize // 1024}Ki",
            "hugepages-1Gi": "0",
            "hugepages-2Mi": "0",
            "memory": _memory(),
            "pods": "110",
        }
        self._images: dict[str, int] = {}
        self._task: asyncio.Task | None = None

    def register(self) -> None:
        """Creates the Node, or brings the one of an earlier run up to date; starts the heartbeat."""
        arch = _ARCHITECTURES.get(platform.machine(), platform.machine())
        labels = {
            "beta.kubernetes.io/arch": arch,
            "beta.kubernetes.io/os": "linux",
            "kubernetes.io/arch": arch,
            "kubernetes.io/hostname": self.name,
            "kubernetes.io/os": "linux",
            **self._labels,
        }
        spec = {"podCIDR": self._pod_cidr, "podCIDRs": [self._pod_cidr], "providerID": f"pocket://servicelab/{self.name}"}
        if self._taints:
            spec["taints"] = self._taints
        try:
            node = self._api.get("nodes", None, self.name)
            # the user's labels, cordon and taints stay
            node["metadata"]["labels"] = {**(node["metadata"].get("labels") or {}), **labels}
            self._api.update("nodes", node)
        except ApiError as error:
            if error.code != 404:
                raise
            self._api.create(
                "nodes",
                {
                    "apiVersion": "v1",
                    "kind": "Node",
                    "metadata": {
                        "name": self.name,
                        "labels": labels,
                        "annotations": {
                            "node.alpha.kubernetes.io/ttl": "0",
                            "volumes.kubernetes.io/controller-managed-attach-detach": "true",
                        },
                    },
                    "spec": spec,
                },
            )
        self._write_status()
        self._beat()
        self._task = asyncio.ensure_future(self._heartbeat())

    def _write_status(self) -> None:
        node = self._api.get("nodes", None, self.name)
        stamp = now()
        old = {c["type"]: c for c in (node.get("status") or {}).get("conditions") or []}
        conditions = []
        for kind, status, reason, message in (
            ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
            ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
            ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
        ):
            same = old.get(kind, {}).get("status") == status
            conditions.append(
                {
                    "type": kind,
                    "status": status,
                    "reason": reason,
                    "message": message,
                    "lastHeartbeatTime": stamp,
                    "lastTransitionTime": old[kind]["lastTransitionTime"] if same else stamp,
                }
            )
        machine = hashlib.md5(self.name.encode(), usedforsecurity=False).hexdigest()
        node["status"] = {
            "addresses": [{"type": "InternalIP", "address": self._address}, {"type": "Hostname", "address": self.name}],
            "allocatable": self.capacity,
            "capacity": self.capacity,
            "conditions": conditions,
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
            "images": [{"names": [name], "sizeBytes": size} for name, size in sorted(self._images.items())],
            "nodeInfo": {
                "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
                "bootID": Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip(),
                "containerRuntimeVersion": f"bubblewrap://{_bwrap_version()}",
                "kernelVersion": platform.release(),
                "kubeProxyVersion": "",
                "kubeletVersion": self._version,
                "machineID": machine,
                "operatingSystem": "linux",
                "osImage": _os_image(),
                "systemUUID": machine,
            },
        }
        self._api.update("nodes", node, subresource="status")

    def has_image(self, name: str) -> bool:
        """Whether the image is on this node."""
        return name in self._images

    def add_image(self, name: str, size: int) -> None:
        """Lists an image in the node's status."""
        if name not in self._images:
            self._images[name] = size
            self._write_status()

    def _beat(self) -> None:
        stamp = now_micro()
        try:
            lease = self._api.get("leases", LEASE_NAMESPACE, self.name)
            lease["spec"] = {
                **lease.get("spec", {}),
                "holderIdentity": self.name,
                "leaseDurationSeconds": LEASE_SECONDS,
                "renewTime": stamp,
            }
            self._api.update("leases", lease)
        except ApiError as error:
            if error.code != 404:
                raise
            self._api.create(
                "leases",
                {
                    "apiVersion": "coordination.k8s.io/v1",
                    "kind": "Lease",
                    "metadata": {"name": self.name, "namespace": LEASE_NAMESPACE},
                    "spec": {"holderIdentity": self.name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": stamp},
                },
            )

    async def _heartbeat(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            try:
                self._beat()
            except ApiError as error:
                _log.warning("node %s: the lease could not be renewed, next try in %s s: %s", self.name, HEARTBEAT_SECONDS, error)

    def stop(self) -> None:
        """Ends the heartbeat."""
        if self._task:
            self._task.cancel()
