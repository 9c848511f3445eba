"""What a picture knows of the cluster: API objects by kind, and the questions that pictures ask about them. No widget, no network."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

KINDS = ("nodes", "pods", "services", "endpointslices")
SERVICE_NAME = "kubernetes.io/service-name"  # the label by which an EndpointSlice belongs to a Service


@dataclass(frozen=True)
class PodSeen:
    """A pod as a picture draws it.

    Attributes:
        state: ``pending``, ``not ready``, ``ready``, ``terminating``, ``failed`` or ``done``.
        detail: Why it isn't ready, in Kubernetes' own word (``ImagePullBackOff``), or empty.
        owner: The Deployment (or other controller) it belongs to; its own name when it has none.
    """

    uid: str
    name: str
    ip: str
    node: str
    owner: str
    labels: dict[str, str]
    state: str
    detail: str
    created: str

    @property
    def short(self) -> str:
        """What tells the pod from its siblings: the generated end of its name, or the name."""
        end = self.name.rpartition("-")[2]
        return f"…{end}" if self.owner != self.name and self.name.startswith(self.owner) and end else self.name


@dataclass(frozen=True)
class Endpoint:
    """One address of a Service. ``pod_uid`` is empty where it is no pod's."""

    address: str
    pod_uid: str
    pod_name: str
    node: str
    ready: bool
    serving: bool
    terminating: bool


@dataclass(frozen=True)
class ServiceSeen:
    """A Service as a picture draws it; ``ports`` are (port, nodePort or 0, protocol, name, targetPort)."""

    uid: str
    name: str
    namespace: str
    kind: str
    ip: str
    ports: tuple[tuple[int, int, str, str, str], ...]
    selector: dict[str, str]

    @property
    def headless(self) -> bool:
        """Whether it has no cluster IP: its name answers with the pods' own addresses."""
        return self.ip == "None"


@dataclass
class World:
    """Objects by kind and (namespace, name). :meth:`apply` and :meth:`replace` are how a watch tells it what changed."""

    objects: dict[str, dict[tuple[str, str], dict]] = field(default_factory=lambda: {kind: {} for kind in KINDS})

    def replace(self, kind: str, items: Iterable[dict]) -> None:
        """Take a fresh list as all there is of a kind."""
        self.objects[kind] = {_key(item): item for item in items}

    def apply(self, kind: str, event: str, item: dict) -> None:
        """Take one watch event: ``ADDED``, ``MODIFIED`` or ``DELETED``."""
        if event == "DELETED":
            self.objects[kind].pop(_key(item), None)
        else:
            self.objects[kind][_key(item)] = item

    def nodes(self) -> list[tuple[str, bool]]:
        """Names of the nodes, the control plane first, and whether each is one."""
        found = {}
        for node in self.objects["nodes"].values():
            labels = node["metadata"].get("labels", {})
            found[node["metadata"]["name"]] = "node-role.kubernetes.io/control-plane" in labels
        for pod in self.pods():  # where listing nodes is not allowed, they are known by the pods on them
            if pod.node:
                found.setdefault(pod.node, False)
        return sorted(found.items(), key=lambda item: (not item[1], item[0]))

    def pods(self) -> list[PodSeen]:
        """Every pod, in order of owner, creation and name."""
        return sorted((pod_seen(pod) for pod in self.objects["pods"].values()), key=lambda pod: (pod.owner, pod.created, pod.name))

    def services(self) -> list[ServiceSeen]:
        """Every Service by name."""
        return sorted((service_seen(service) for service in self.objects["services"].values()), key=lambda service: service.name)

    def service(self, name: str) -> ServiceSeen | None:
        """The Service of this name."""
        return next((service for service in self.services() if service.name == name), None)

    def endpoints(self, service: str) -> list[Endpoint]:
        """The addresses in a Service's EndpointSlices, each once, by address."""
        found: dict[str, Endpoint] = {}
        for piece in self.objects["endpointslices"].values():
            if piece["metadata"].get("labels", {}).get(SERVICE_NAME) != service:
                continue
            for endpoint in piece.get("endpoints") or []:
                conditions = endpoint.get("conditions") or {}
                target = endpoint.get("targetRef") or {}
                ready = conditions.get("ready") is not False  # unset means ready (EndpointConditions in the API reference)
                for address in endpoint.get("addresses") or []:
                    found[address] = Endpoint(
                        address,
                        target.get("uid", "") if target.get("kind") == "Pod" else "",
                        target.get("name", "") if target.get("kind") == "Pod" else "",
                        endpoint.get("nodeName") or "",
                        ready,
                        conditions.get("serving", ready) is not False,
                        bool(conditions.get("terminating")),
                    )
        return sorted(found.values(), key=lambda endpoint: [part.zfill(3) for part in endpoint.address.split(".")])

    def selected(self, service: ServiceSeen) -> list[PodSeen]:
        """The pods whose labels match a Service's selector; none for a Service without one."""
        wanted = service.selector.items()
        return [pod for pod in self.pods() if wanted and wanted <= pod.labels.items()]


def _key(item: dict) -> tuple[str, str]:
    return item["metadata"].get("namespace", ""), item["metadata"]["name"]


def owner_of(pod: dict) -> str:
    """The name of what a pod belongs to: the Deployment behind its ReplicaSet, another controller, or the pod itself."""
    meta = pod["metadata"]
    for reference in meta.get("ownerReferences") or []:
        if not reference.get("controller"):
            continue
        name = reference["name"]
        template = meta.get("labels", {}).get("pod-template-hash")
        if reference["kind"] == "ReplicaSet" and template and name.endswith(f"-{template}"):
            return name[: -len(template) - 1]
        return name
    return meta["name"]


def pod_seen(pod: dict) -> PodSeen:
    """A Pod object as a picture draws it."""
    meta, spec, status = pod["metadata"], pod.get("spec", {}), pod.get("status", {})
    state, detail = pod_state(pod)
    return PodSeen(
        meta.get("uid", meta["name"]), meta["name"], status.get("podIP", ""), spec.get("nodeName", ""), owner_of(pod),
        meta.get("labels", {}), state, detail, meta.get("creationTimestamp") or "",
    )  # fmt: skip


def pod_state(pod: dict) -> tuple[str, str]:
    """The state in which a pod is drawn, and the reason for it in Kubernetes' own word."""
    status = pod.get("status", {})
    phase = status.get("phase", "Pending")
    if pod["metadata"].get("deletionTimestamp"):
        return "terminating", ""
    if phase == "Succeeded":
        return "done", "Completed"
    if phase == "Failed":
        return "failed", status.get("reason") or "Error"
    detail = ""
    for container in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        waiting = (container.get("state") or {}).get("waiting") or {}
        detail = detail or waiting.get("reason", "")
    conditions = {condition["type"]: condition for condition in status.get("conditions") or []}
    if conditions.get("Ready", {}).get("status") == "True":
        return "ready", ""
    if phase == "Running" and not detail:
        return "not ready", ""
    if not pod.get("spec", {}).get("nodeName"):
        detail = conditions.get("PodScheduled", {}).get("reason") or detail
    return ("not ready" if phase == "Running" else "pending"), detail


def service_seen(service: dict) -> ServiceSeen:
    """A Service object as a picture draws it."""
    meta, spec = service["metadata"], service.get("spec", {})
    ports = tuple(
        (
            port["port"],
            port.get("nodePort") or 0,
            port.get("protocol", "TCP"),
            port.get("name", ""),
            str(port.get("targetPort", port["port"])),
        )
        for port in spec.get("ports") or []
    )
    return ServiceSeen(
        meta.get("uid", meta["name"]), meta["name"], meta.get("namespace", ""), spec.get("type", "ClusterIP"), spec.get("clusterIP") or "",
        ports, spec.get("selector") or {},
    )  # fmt: skip
