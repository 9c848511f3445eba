"""What a Service's endpoints are, shared by the EndpointSlice and the (deprecated) Endpoints controllers.

Both turn a Service and the pods that its selector matches into addresses and ports; they differ only in how they write
them down. See https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from ..apiserver.api import ApiError
from ..objects import annotations_of, condition, deep, deleting, key_of, labels_of, map_selects, pod_finished, pod_ready
from .base import Controller

if TYPE_CHECKING:
    from ..apiserver.api import Api

Key = tuple[str, str]

MANAGED_BY = "endpoints.kubernetes.io/managed-by"
HEADLESS = "service.kubernetes.io/headless"
LAST_CHANGE = "endpoints.kubernetes.io/last-change-trigger-time"
SECONDS_PER_ENDPOINT = 0.0005
"""How long to gather changes of a large Service: half a millisecond for each endpoint it had, so that a hundred pods that
become ready one by one do not mean a hundred rewrites of a list of a hundred."""


def is_headless(service: dict) -> bool:
    """Whether the Service asks for no cluster IP."""
    return service["spec"].get("clusterIP") == "None"


def target_port(service_port: dict, pod: dict) -> int | None:
    """Return the number behind ``targetPort`` in one pod; a name is looked up in the pod's containers, None if it isn't there.

    >>> target_port({"port": 80, "targetPort": 8080}, {"spec": {"containers": []}})
    8080
    """
    target = service_port.get("targetPort", service_port["port"])
    if isinstance(target, int):
        return target
    protocol = service_port.get("protocol", "TCP")
    containers = [*pod["spec"]["containers"]]
    containers += [c for c in pod["spec"].get("initContainers") or () if c.get("restartPolicy") == "Always"]
    for container in containers:
        for port in container.get("ports") or ():
            if port.get("name") == target and port.get("protocol", "TCP") == protocol:
                return port["containerPort"]
    return None


def _spew(port: dict, *, pointers: bool) -> bytes:
    """Return what Go's spew prints for an EndpointPort: real controllers sort ports by its MD5, so that is their order."""
    star = "*" if pointers else ""
    app = f"(*string){port['appProtocol']}" if port.get("appProtocol") else "(*string)<nil>"
    name, number, protocol = (
        f"Name:({star}string){port.get('name', '')}",
        f"Port:({star}int32){port['port']}",
        f"Protocol:({star}v1.Protocol){port['protocol']}",
    )
    middle = (protocol, number) if pointers else (number, protocol)
    return f"(v1.EndpointPort){{{' '.join((name, *middle, f'AppProtocol:{app}'))}}}".encode()


def sorted_ports(ports: Iterable[dict], *, slices: bool) -> list[dict]:
    """Sort ports as the real controllers store them (EndpointSlices and Endpoints differ)."""
    return sorted(ports, key=lambda port: hashlib.md5(_spew(port, pointers=slices), usedforsecurity=False).digest())


def pod_ports(service: dict, pod: dict) -> list[dict]:
    """Return the ports of a Service as they are in one pod; those whose named target the pod lacks are left out."""
    found = []
    for port in service["spec"].get("ports") or ():
        number = target_port(port, pod)
        if number is None:
            continue
        item = {"name": port.get("name", ""), "port": number, "protocol": port.get("protocol", "TCP")}
        if port.get("appProtocol"):
            item["appProtocol"] = port["appProtocol"]
        found.append(item)
    return found


def hostname_in(service: dict, pod: dict) -> str | None:
    """Return the name that a pod has within a headless Service: its hostname, if its subdomain names the Service."""
    spec = pod["spec"]
    return spec.get("hostname") if spec.get("hostname") and spec.get("subdomain") == service["metadata"]["name"] else None


def target_reference(pod: dict) -> dict:
    """Return the reference from an endpoint to its pod."""
    meta = pod["metadata"]
    return {"kind": "Pod", "namespace": meta["namespace"], "name": meta["name"], "uid": meta["uid"]}


def slice_endpoint(service: dict, pod: dict) -> dict:
    """Return the EndpointSlice endpoint of a pod: ``ready`` is serving and not terminating, or always if so published."""
    serving, terminating = pod_ready(pod), deleting(pod)
    published = bool(service["spec"].get("publishNotReadyAddresses"))
    endpoint = {
        "addresses": [pod["status"]["podIP"]],
        "conditions": {"ready": published or (serving and not terminating), "serving": serving, "terminating": terminating},
        "targetRef": target_reference(pod),
    }
    if pod["spec"].get("nodeName"):
        endpoint["nodeName"] = pod["spec"]["nodeName"]
    if (hostname := hostname_in(service, pod)) is not None:
        endpoint["hostname"] = hostname
    return endpoint


class TriggerTimes:
    """When the change happened that a write answers: the readiness change of a pod, or the Service's creation.

    A deletion has no such time, and then the annotation goes.
    """

    def __init__(self) -> None:
        self._pods: dict[Key, dict[str, str]] = {}

    def changed(self, service: dict, pods: list[dict]) -> str | None:
        """Note the pods' present readiness times and return the earliest that is new."""
        key = key_of(service)
        known = self._pods.get(key)
        times = {pod["metadata"]["name"]: (condition(pod, "Ready") or {}).get("lastTransitionTime") for pod in pods}
        present = {name: time for name, time in times.items() if time}
        self._pods[key] = present
        fresh = [time for name, time in present.items() if (known or {}).get(name) != time]
        if known is None:
            fresh.append(service["metadata"]["creationTimestamp"])
        return min(fresh, default=None)

    def forget(self, key: Key) -> None:
        """Drop a Service that is gone."""
        self._pods.pop(key, None)


class ServiceController(Controller):
    """The half that both controllers share: which Services to look at again when a pod or a Service changes."""

    def __init__(self, api: Api) -> None:
        super().__init__(api)
        self.services = api.informer("services")
        self.pods = api.informer("pods")
        self.triggers = TriggerTimes()
        self._gather: dict[Key, float] = {}

    def subscribe(self) -> None:
        self.services.on_change(self._service_changed)
        self.pods.on_change(self._pod_changed)

    def _service_changed(self, type_: str, service: dict, _old: dict | None) -> None:
        if type_ == "DELETED":
            self.triggers.forget(key_of(service))
            self._gather.pop(key_of(service), None)
        self.queue.add(key_of(service))

    def _pod_changed(self, _type: str, pod: dict, old: dict | None) -> None:
        if old is not None and _endpoint_view(pod) == _endpoint_view(old) and _type == "MODIFIED":
            return
        labels = [labels_of(pod)]
        if old is not None and labels_of(old) != labels[0]:
            labels.append(labels_of(old))
        for service in self.services.values(pod["metadata"]["namespace"]):
            selector = service["spec"].get("selector")
            if selector and any(map_selects(selector, each) for each in labels):
                key = key_of(service)
                self.queue.add_after(key, self._gather.get(key, 0.0))

    def selected(self, service: dict) -> list[dict]:
        """Return the pods that the Service's selector matches and that have an address and still run."""
        selector = service["spec"]["selector"]
        return [
            pod
            for pod in self.pods.values(service["metadata"]["namespace"])
            if map_selects(selector, labels_of(pod)) and not pod_finished(pod) and pod.get("status", {}).get("podIP")
        ]

    def note_size(self, key: Key, endpoints: int) -> None:
        """Remember how large a Service is, which decides how long its changes are gathered."""
        self._gather[key] = endpoints * SECONDS_PER_ENDPOINT if endpoints > 10 else 0.0


def _endpoint_view(pod: dict) -> tuple:
    """Return all of a pod that an endpoint shows: most status updates change none of it."""
    status = pod.get("status") or {}
    ready = condition(pod, "Ready") or {}
    return (
        labels_of(pod),
        status.get("podIP"),
        status.get("phase"),
        ready.get("status"),
        ready.get("lastTransitionTime"),
        deleting(pod),
        pod["spec"].get("nodeName"),
    )


class EndpointsController(ServiceController):
    """Writes the Endpoints object of each Service with a selector, as before Kubernetes 1.21 had EndpointSlices only."""

    name = "endpoint-controller"

    def __init__(self, api: Api) -> None:
        super().__init__(api)
        self.endpoints = api.informer("endpoints")
        self._gone: set[Key] = set()

    def _service_changed(self, type_: str, service: dict, old: dict | None) -> None:
        if type_ == "DELETED":
            self._gone.add(key_of(service))
        super()._service_changed(type_, service, old)

    def subscribe(self) -> None:
        super().subscribe()
        self.endpoints.on_change(lambda _type, obj, _old: self.queue.add_after(key_of(obj), self._gather.get(key_of(obj), 0.0)))

    async def reconcile(self, key: Key) -> None:
        service = self.services.get(*key)
        present = self.endpoints.get(*key)
        if service is None:
            # Endpoints go with their Service, hand-made ones too. Those that never had a Service are left alone.
            ours = present is not None and labels_of(present).get(MANAGED_BY) == self.name
            if present is not None and (ours or key in self._gone):
                _ignore_missing(lambda: self.api.delete("endpoints", *key))
            self._gone.discard(key)
            return
        if not service["spec"].get("selector") or service["spec"].get("type") == "ExternalName":
            return
        pods = self.selected(service)
        trigger = self.triggers.changed(service, pods)
        subsets = subsets_of(service, pods)
        labels = {**labels_of(service), MANAGED_BY: self.name}
        labels.pop(HEADLESS, None)
        if is_headless(service):
            labels[HEADLESS] = ""
        self.note_size(key, len(pods))
        if present is not None and (present.get("subsets") or []) == subsets and labels_of(present) == labels:
            return
        wanted = deep(present) if present is not None else _new_endpoints(key)
        meta = wanted["metadata"]
        meta["labels"] = labels
        annotations = {name: value for name, value in annotations_of(wanted).items() if name != LAST_CHANGE}
        if trigger is not None:
            annotations[LAST_CHANGE] = trigger
        meta["annotations"] = annotations
        wanted.pop("subsets", None)
        if subsets:
            wanted["subsets"] = subsets
        if present is None:
            self.api.create("endpoints", wanted)
        else:
            self.api.update("endpoints", wanted)


def _new_endpoints(key: Key) -> dict:
    return {"apiVersion": "v1", "kind": "Endpoints", "metadata": {"namespace": key[0], "name": key[1]}}


def subsets_of(service: dict, pods: list[dict]) -> list[dict]:
    """Return the subsets of an Endpoints object: addresses that offer the same ports together, each list in upstream's order."""
    groups: dict[tuple, dict] = defaultdict(lambda: {"addresses": [], "notReadyAddresses": []})
    published = bool(service["spec"].get("publishNotReadyAddresses"))
    for pod in pods:
        if deleting(pod) and not published:
            continue
        ports = sorted_ports(pod_ports(service, pod), slices=False)
        if not ports and not is_headless(service):
            continue
        address = {"ip": pod["status"]["podIP"], "targetRef": target_reference(pod)}
        if pod["spec"].get("nodeName"):
            address["nodeName"] = pod["spec"]["nodeName"]
        if (hostname := hostname_in(service, pod)) is not None:
            address["hostname"] = hostname
        group = groups[tuple(tuple(sorted(port.items())) for port in ports)]
        group["ports"] = [{name: value for name, value in port.items() if value != ""} for port in ports]
        group["addresses" if pod_ready(pod) or published else "notReadyAddresses"].append(address)
    subsets = []
    for _, group in sorted(groups.items()):
        subset = {}
        for field in ("addresses", "notReadyAddresses"):
            if group[field]:
                subset[field] = sorted(group[field], key=lambda address: (address["ip"], address["targetRef"]["uid"]))
        if group["ports"]:
            subset["ports"] = group["ports"]
        subsets.append(subset)
    return subsets


def _ignore_missing(action: Callable[[], object]) -> None:
    try:
        action()
    except ApiError as error:
        if error.reason != "NotFound":
            raise
