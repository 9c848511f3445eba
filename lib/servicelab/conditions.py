"""What ``lab.wait_for`` takes, ``kind/name`` or ``pods/label=value``, as a look at the cluster."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from . import readiness
from .errors import LabError, NotFound
from .reachability import deaf_ports, dns_behind, mute_nodes, ready_endpoints
from .readiness import State, selector_text

if TYPE_CHECKING:
    from .lab import Lab

SETTLE = 5.0
"""Seconds after something is ready for which the rest is waited for: a Service's other pods, and servers that were only just started.
One that never comes must not hold the wait, and what comes within a moment must not make two runs differ."""


def condition(lab: Lab, namespace: str, what: str) -> Callable[[], State]:
    """The condition named by ``kind/name`` or ``pods/label=value``.

    Raises:
        LabError: it isn't of that form.
    """
    kind, slash, name = what.partition("/")
    if not slash or not name or not kind:
        raise LabError(
            f'lab.wait_for({what!r}): say kind/name, such as "deployment/my-nginx", or pods/label=value, such as "pods/run=my-nginx".'
        )
    client = lab.client
    kind = {"deploy": "deployment", "po": "pod", "svc": "service", "rs": "replicaset", "no": "node"}.get(kind.lower(), kind.lower())
    singular = kind[:-1] if kind in ("deployments", "pods", "services", "replicasets", "nodes") else kind
    if "=" in name:
        return lambda: readiness.of_pods(client.list("pods", namespace, selector=name))
    pods_of = lambda selector: client.list("pods", namespace, selector=selector)
    judge = {
        "deployment": lambda obj: readiness.of_deployment(obj, pods_of),
        "replicaset": readiness.of_replicaset,
        "pod": ListeningPod(lab),
        "node": readiness.of_node,
    }.get(singular)
    if singular == "service":
        return ReachableService(lab, namespace, name)

    def look() -> State:
        try:
            obj = client.get(singular, name, namespace)
        except NotFound:
            return State(False, "is not there yet")
        return judge(obj) if judge else State(True, "is there")

    return look


class ListeningPod:
    """Whether a pod is ready, and its servers listen on the ports that it declares: without a probe, Ready says only that they were
    started."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._first: float | None = None

    def __call__(self, obj: dict) -> State:
        state, ip = readiness.of_pod(obj), obj.get("status", {}).get("podIP")
        if not state.done or obj["status"]["phase"] != "Running" or not ip:
            return state
        self._first = self._first or time.monotonic()
        ports = [p for c in obj["spec"]["containers"] for p in c.get("ports") or [] if p.get("protocol", "TCP") == "TCP"]
        if time.monotonic() - self._first < SETTLE and (deaf := deaf_ports(self._lab, {(ip, p["containerPort"]) for p in ports})):
            return State(False, f"is ready, but nobody listens at {', '.join(deaf)} yet")
        return state


class ReachableService:
    """Whether a Service has endpoints that answer; all its pods, when they are about to be ready anyway."""

    def __init__(self, lab: Lab, namespace: str, name: str) -> None:
        self._lab, self._namespace, self._name = lab, namespace, name
        self._first: float | None = None

    def __call__(self) -> State:
        state = look_at_service(self._lab, self._namespace, self._name)
        if not state.done:
            return state
        self._first = self._first or time.monotonic()
        selector = self._lab.client.get("services", self._name, self._namespace)["spec"].get("selector")
        if time.monotonic() - self._first >= SETTLE:
            return state
        if selector:
            pods = self._lab.client.list("pods", self._namespace, selector=selector_text(selector))
            # a pod's readiness, or its end, reaches the EndpointSlice a moment later: compare both
            if not _are_of(state.addresses, pods) or not all(readiness.of_pod(p).done for p in pods):
                return State(False, f"{state.words}, of {len(pods)} pods that its selector finds")
        if deaf := deaf_ports(self._lab, state.targets):
            return State(False, f"{state.words}, but nobody listens at {', '.join(deaf)} yet")
        return state


def look_at_service(lab: Lab, namespace: str, name: str) -> State:
    """Whether a Service has ready endpoints, and every node and DNS server knows them; one look."""
    try:
        service = lab.client.get("services", name, namespace)
    except NotFound:
        return State(False, "is not there yet")
    spec = service["spec"]
    if spec.get("type") == "ExternalName":
        return State(True, f"is a name for {spec.get('externalName')}")
    slices = lab.client.list("endpointslices", namespace, selector=f"kubernetes.io/service-name={name}")
    slices = [s for s in slices if _is_of(s, service) and (s.get("ports") is not None or spec.get("clusterIP") == "None")]
    count = _distinct([e for s in slices for e in s.get("endpoints") or []])
    ready = _distinct([e for s in slices for e in ready_endpoints(s)])
    if not ready:
        return State(False, "has no ready endpoint" if not count else f"has {count} endpoints, none of them ready")
    if mute := mute_nodes(lab, spec, slices):
        return State(False, f"has ready endpoints, but {', '.join(mute)} can't connect to its address yet")
    if behind := dns_behind(lab, f"{name}.{namespace}.svc.cluster.local", spec, slices):
        return State(False, f"has ready endpoints, but DNS at {', '.join(behind)} doesn't tell its address yet")
    addresses = frozenset(address for s in slices for endpoint in ready_endpoints(s) for address in endpoint["addresses"])
    targets = frozenset(
        (address, port["port"])
        for s in slices
        for port in s.get("ports") or []
        if port.get("port") and port.get("protocol", "TCP") == "TCP"
        for endpoint in ready_endpoints(s)
        for address in endpoint["addresses"]
    )
    return State(True, f"has {ready} ready endpoint{'s' if ready != 1 else ''}", addresses=addresses, targets=targets)


def _is_of(endpointslice: dict, service: dict) -> bool:
    """Whether a slice is this Service's, or nobody's: one of a deleted Service of the same name goes a moment after it."""
    owners = {o["uid"] for o in endpointslice["metadata"].get("ownerReferences") or [] if o["kind"] == "Service"}
    return not owners or service["metadata"]["uid"] in owners


def _are_of(addresses: frozenset[str], pods: list[dict]) -> bool:
    """Whether each pod has one of these addresses at least, and nobody else has any."""
    ips = [{ip["ip"] for ip in pod.get("status", {}).get("podIPs") or []} for pod in pods]
    return all(ips_of_one & addresses for ips_of_one in ips) and addresses <= set().union(*ips)


def _distinct(endpoints: list[dict]) -> int:
    """How many there are; one may stand in several slices for a moment, such as those of a Service that was made anew."""
    return len({(e.get("targetRef") or {}).get("uid") or e["addresses"][0] for e in endpoints})
