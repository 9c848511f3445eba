"""The EndpointSlice controllers: slices for Services with a selector, and mirrors of Endpoints that somebody wrote by hand.

See https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from ..apiserver.api import ApiError
from ..objects import annotations_of, controller_reference, deep, deleting, key_of, labels_of
from .base import Controller
from .endpoints import HEADLESS, LAST_CHANGE, ServiceController, is_headless, pod_ports, slice_endpoint, sorted_ports

if TYPE_CHECKING:
    from ..apiserver.api import Api

Key = tuple[str, str]

SERVICE_NAME = "kubernetes.io/service-name"
MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
SKIP_MIRROR = "endpointslice.kubernetes.io/skip-mirror"
LARGEST_SLICE = 100


def port_key(ports: list[dict] | None) -> tuple:
    """Return a value that two lists of ports share if they are the same, whatever their order."""
    return tuple(sorted(tuple(sorted(port.items(), key=str)) for port in ports or ()))


def arrange(existing: list[dict], wanted: dict[tuple, tuple[list[dict], list[dict]]]) -> list[tuple[dict | None, list, list]]:
    """Fit endpoints into slices, with as little change to the existing slices as it takes.

    Endpoints stay in the slice and the place where they are; new ones fill the free room; a slice without any left is
    used for another group of ports before a new one is made, and the last one stays as an empty placeholder.

    Args:
        existing: The Service's slices.
        wanted: For each set of ports, the ports and the endpoints that offer them.

    Returns:
        (slice or None for a new one, ports, endpoints) for each slice that should be; slices not in it are to be deleted.
    """
    by_ports: dict[tuple, list[dict]] = defaultdict(list)
    for each in existing:
        by_ports[port_key(each.get("ports"))].append(each)
    result: list[tuple[dict | None, list, list]] = []
    free = [each for key, group in by_ports.items() if key not in wanted for each in group]
    for key, (ports, endpoints) in wanted.items():
        left = {endpoint["addresses"][0]: endpoint for endpoint in endpoints}
        filled: list[tuple[dict | None, list, list]] = []
        for each in by_ports.get(key, ()):
            kept = [left.pop(old["addresses"][0]) for old in each.get("endpoints") or () if old["addresses"][0] in left]
            filled.append((each, ports, kept))
        for _, _, kept in filled:
            while left and len(kept) < LARGEST_SLICE:
                kept.append(left.pop(next(iter(left))))
        remaining = list(left.values())
        for start in range(0, len(remaining), LARGEST_SLICE):
            filled.append((None, ports, remaining[start : start + LARGEST_SLICE]))
        free += [each for each, _, kept in filled if each is not None and not kept]
        result += [item for item in filled if item[2]]
    reused = [(free.pop(0), ports, kept) if each is None and free else (each, ports, kept) for each, ports, kept in result]
    if not reused:
        return [(free[0] if free else None, [], [])]
    return reused


class EndpointSliceController(ServiceController):
    """Writes the EndpointSlices of each Service with a selector."""

    name = "endpointslice-controller"
    manager = "endpointslice-controller.k8s.io"

    def __init__(self, api: Api) -> None:
        super().__init__(api)
        self.slices = api.informer("endpointslices")
        self._by_service: dict[Key, set[Key]] = defaultdict(set)

    def subscribe(self) -> None:
        self.slices.on_change(self._slice_changed)
        super().subscribe()

    def _slice_changed(self, type_: str, obj: dict, _old: dict | None) -> None:
        labels = labels_of(obj)
        if labels.get(MANAGED_BY) != self.manager or SERVICE_NAME not in labels:
            return
        service = (obj["metadata"]["namespace"], labels[SERVICE_NAME])
        if type_ == "DELETED":
            self._by_service[service].discard(key_of(obj))
        else:
            self._by_service[service].add(key_of(obj))
        self.queue.add_after(service, self._gather.get(service, 0.0))

    async def reconcile(self, key: Key) -> None:
        service = self.services.get(*key)
        if service is None:
            self._by_service.pop(key, None)
            return  # garbage collection takes the slices, which the Service owned
        if not service["spec"].get("selector") or service["spec"].get("type") == "ExternalName" or deleting(service):
            return
        pods = self.selected(service)
        trigger = self.triggers.changed(service, pods)
        wanted: dict[tuple, tuple[list[dict], list[dict]]] = {}
        for pod in pods:
            ports = sorted_ports(pod_ports(service, pod), slices=True)
            if not ports and not is_headless(service):
                continue
            wanted.setdefault(port_key(ports), (ports, []))[1].append(slice_endpoint(service, pod))
        existing = [each for each in (self.slices.get(*each) for each in sorted(self._by_service[key])) if each is not None]
        plan = arrange(existing, wanted)
        kept = set()
        for each, ports, endpoints in plan:
            if each is None:
                self._create(service, ports, endpoints, trigger)
            else:
                kept.add(key_of(each))
                self._update(service, each, ports, endpoints, trigger)
        for each in existing:
            if key_of(each) not in kept:
                self._delete(each)
        self.note_size(key, len(pods))

    def _labels(self, service: dict) -> dict[str, str]:
        labels = {name: value for name, value in labels_of(service).items() if name not in {HEADLESS, SERVICE_NAME, MANAGED_BY}}
        labels |= {MANAGED_BY: self.manager, SERVICE_NAME: service["metadata"]["name"]}
        if is_headless(service):
            labels[HEADLESS] = ""
        return labels

    def _create(self, service: dict, ports: list, endpoints: list, trigger: str | None) -> None:
        meta = service["metadata"]
        obj = {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "generateName": f"{meta['name']}-",
                "namespace": meta["namespace"],
                "labels": self._labels(service),
                "ownerReferences": [controller_reference(service, "v1", "Service")],
            },
            "addressType": "IPv4",
            "endpoints": endpoints or None,
            "ports": ports or None,
        }
        if trigger is not None:
            obj["metadata"]["annotations"] = {LAST_CHANGE: trigger}
        try:
            made = self.api.create("endpointslices", obj)
        except ApiError as error:
            if "is being terminated" not in error.message:
                message = f"Failed to create EndpointSlice for Service {meta['namespace']}/{meta['name']}: {error.message}"
                self.event(service, "FailedToCreateEndpointSlices", message, warning=True)
                raise
            return
        # At once, not with the event: looked at again before it, the Service would get a second slice.
        self._by_service[key_of(service)].add(key_of(made))

    def _update(self, service: dict, present: dict, ports: list, endpoints: list, trigger: str | None) -> None:
        labels = self._labels(service)
        same_endpoints = (present.get("endpoints") or []) == endpoints
        if same_endpoints and port_key(present.get("ports")) == port_key(ports) and labels_of(present) == labels:
            return
        obj = deep(present)
        obj["metadata"]["labels"] = labels
        annotations = {name: value for name, value in annotations_of(obj).items() if name != LAST_CHANGE}
        if trigger is not None:
            annotations[LAST_CHANGE] = trigger
        obj["metadata"]["annotations"] = annotations
        obj["endpoints"] = endpoints or None
        obj["ports"] = ports or None
        self.api.update("endpointslices", obj)

    def _delete(self, obj: dict) -> None:
        try:
            self.api.delete("endpointslices", *key_of(obj))
        except ApiError as error:
            if error.reason != "NotFound":
                raise


class MirroringController(Controller):
    """Writes a slice for Endpoints that a person made for a Service without a selector, so that kube-proxy sees them."""

    name = "endpointslice-mirroring-controller"
    manager = "endpointslicemirroring-controller.k8s.io"

    def __init__(self, api: Api) -> None:
        super().__init__(api)
        self.services = api.informer("services")
        self.endpoints = api.informer("endpoints")
        self.slices = api.informer("endpointslices")

    def subscribe(self) -> None:
        for informer in (self.services, self.endpoints):
            informer.on_change(lambda _type, obj, _old: self.queue.add(key_of(obj)))
        self.slices.on_change(self._slice_changed)

    def _slice_changed(self, _type: str, obj: dict, _old: dict | None) -> None:
        labels = labels_of(obj)
        if labels.get(MANAGED_BY) == self.manager and SERVICE_NAME in labels:
            self.queue.add((obj["metadata"]["namespace"], labels[SERVICE_NAME]))

    async def reconcile(self, key: Key) -> None:
        endpoints, service = self.endpoints.get(*key), self.services.get(*key)
        mirrored = service is not None and not service["spec"].get("selector") and endpoints is not None
        mirrored = mirrored and labels_of(endpoints).get(SKIP_MIRROR) != "true"
        if not mirrored:
            if endpoints is None or service is None or service["spec"].get("selector"):
                for each in self._mirrors(key):
                    self._delete(each)
            return
        subsets = [subset for subset in endpoints.get("subsets") or () if subset.get("addresses") or subset.get("notReadyAddresses")]
        mirrors = self._mirrors(key)
        for index, subset in enumerate(subsets):
            self._write(endpoints, subset, mirrors[index] if index < len(mirrors) else None)
        for each in mirrors[len(subsets) :]:
            self._delete(each)

    def _mirrors(self, key: Key) -> list[dict]:
        # Read from the API, not the cache: these are few and change seldom, and a slice made a moment ago must count.
        return self.api.list("endpointslices", key[0], labels=f"{MANAGED_BY}={self.manager},{SERVICE_NAME}={key[1]}")

    def _write(self, endpoints: dict, subset: dict, present: dict | None) -> None:
        items = []
        for field, ready in (("addresses", True), ("notReadyAddresses", False)):
            for address in subset.get(field) or ():
                item = {"addresses": [address["ip"]], "conditions": {"ready": ready}}
                item |= {name: address[name] for name in ("hostname", "nodeName", "targetRef") if address.get(name)}
                items.append(item)
        ports = [
            {"name": port.get("name", ""), "protocol": port.get("protocol", "TCP"), "port": port["port"]}
            for port in subset.get("ports") or ()
        ]
        meta = endpoints["metadata"]
        labels = {**labels_of(endpoints), MANAGED_BY: self.manager, SERVICE_NAME: meta["name"]}
        if present is None:
            self.api.create(
                "endpointslices",
                {
                    "apiVersion": "discovery.k8s.io/v1",
                    "kind": "EndpointSlice",
                    "metadata": {
                        "generateName": f"{meta['name']}-",
                        "namespace": meta["namespace"],
                        "labels": labels,
                        "ownerReferences": [controller_reference(endpoints, "v1", "Endpoints")],
                    },
                    "addressType": "IPv4",
                    "endpoints": items,
                    "ports": ports,
                },
            )
        elif present.get("endpoints") != items or port_key(present.get("ports")) != port_key(ports) or labels_of(present) != labels:
            present["metadata"]["labels"] = labels
            self.api.update("endpointslices", {**present, "endpoints": items, "ports": ports})

    def _delete(self, obj: dict) -> None:
        try:
            self.api.delete("endpointslices", *key_of(obj))
        except ApiError as error:
            if error.reason != "NotFound":
                raise
