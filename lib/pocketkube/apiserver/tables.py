"""Tables: the columns and cells that ``kubectl get`` prints, computed by the server as in real Kubernetes (``pkg/printers``)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any, NamedTuple

from .resources import Resource
from .selectors import format_label_selector

NONE = "<none>"
UNSET = "<unset>"


class Column(NamedTuple):
    """One column: priority 1 is shown with ``-o wide`` only."""

    name: str
    type: str = "string"
    format: str = ""
    priority: int = 0
    description: str = ""


class _Table(NamedTuple):
    columns: tuple[Column, ...]
    cells: Callable[[dict[str, Any]], list[Any]]


def age(text: str | None) -> str:
    """How long ago a timestamp was, as kubectl writes it; ``<unknown>`` without one."""
    if not text:
        return "<unknown>"
    return human_duration((datetime.now(timezone.utc) - parse_time(text)).total_seconds())


def parse_time(text: str) -> datetime:
    """A timestamp of the API as a datetime."""
    layout = "%Y-%m-%dT%H:%M:%S.%fZ" if "." in text else "%Y-%m-%dT%H:%M:%SZ"
    return datetime.strptime(text, layout).replace(tzinfo=timezone.utc)


def human_duration(seconds: float) -> str:
    """A duration in kubectl's short form: two units at most, ever coarser.

    >>> [human_duration(s) for s in (5, 119, 120, 150, 3599, 11000, 90000, 700000, 10**8)]
    ['5s', '119s', '2m', '2m30s', '59m', '3h3m', '25h', '8d', '3y62d']
    """
    total = int(seconds)
    if seconds < -1:
        return "<invalid>"
    if total < 120:
        return f"{max(total, 0)}s"
    minutes, hours, days = total // 60, total // 3600, total // 86400
    if minutes < 10:
        return f"{minutes}m{total % 60}s" if total % 60 else f"{minutes}m"
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return f"{days}d{hours % 24}h" if hours % 24 else f"{days}d"
    if days < 730:
        return f"{days}d"
    years = days // 365
    if days < 8 * 365:
        return f"{years}y{days % 365}d" if days % 365 else f"{years}y"
    return f"{years}y"


_NAME = Column("Name", "string", "name", 0, "Name must be unique within a namespace.")
_AGE = Column("Age", "string", "", 0, "The time since the object was created.")


def _age(obj: dict[str, Any]) -> str:
    return age(obj["metadata"].get("creationTimestamp"))


def _labels(labels: dict[str, str] | None) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted((labels or {}).items())) or NONE


# --- pods -------------------------------------------------------------------------------------------------------------------------------

def _ended(state: dict[str, Any]) -> str:
    return f"Signal:{state['signal']}" if state.get("signal") else f"ExitCode:{state.get('exitCode', 0)}"


def pod_summary(pod: dict[str, Any]) -> tuple[int, int, str, int, str | None]:
    """A pod's row as ``kubectl get pods`` reports it: ready and all containers, status, restarts, and when it last restarted."""
    spec, status, meta = pod.get("spec") or {}, pod.get("status") or {}, pod["metadata"]
    reason = status.get("reason") or status.get("phase") or "Unknown"
    if any(one["type"] == "PodScheduled" and one.get("reason") == "SchedulingGated" for one in status.get("conditions") or []):
        reason = "SchedulingGated"
    total, ready, restarts = len(spec.get("containers") or []), 0, 0
    last: str | None = None
    sidecars = {one["name"] for one in spec.get("initContainers") or [] if one.get("restartPolicy") == "Always"}
    total += len(sidecars)
    initializing = False
    init_count = len(spec.get("initContainers") or [])
    sidecar_restarts = 0
    for index, container in enumerate(status.get("initContainerStatuses") or []):
        restarts += container.get("restartCount", 0)
        if container["name"] in sidecars:
            sidecar_restarts += container.get("restartCount", 0)
        last = _later(last, container)
        state = container.get("state") or {}
        terminated, waiting = state.get("terminated"), state.get("waiting")
        if terminated and terminated.get("exitCode") == 0:
            continue
        if container["name"] in sidecars and container.get("started"):
            ready += bool(container.get("ready"))
            continue
        if terminated:
            reason = "Init:" + (terminated.get("reason") or _ended(terminated))
        elif waiting and waiting.get("reason") and waiting["reason"] != "PodInitializing":
            reason = "Init:" + waiting["reason"]
        else:
            reason = f"Init:{index}/{init_count}"
        initializing = True
        break
    initialized = any(one["type"] == "Initialized" and one.get("status") == "True" for one in status.get("conditions") or [])
    if not initializing or initialized:
        restarts, running = sidecar_restarts, False
        for container in reversed(status.get("containerStatuses") or []):
            restarts += container.get("restartCount", 0)
            last = _later(last, container)
            state = container.get("state") or {}
            terminated, waiting = state.get("terminated"), state.get("waiting")
            if waiting and waiting.get("reason"):
                reason = waiting["reason"]
            elif terminated:
                reason = terminated.get("reason") or _ended(terminated)
            elif container.get("ready") and state.get("running") is not None:
                running = True
                ready += 1
        if reason == "Completed" and running:
            is_ready = any(one["type"] == "Ready" and one.get("status") == "True" for one in status.get("conditions") or [])
            reason = "Running" if is_ready else "NotReady"
    if meta.get("deletionTimestamp"):
        if status.get("reason") == "NodeLost":
            reason = "Unknown"
        elif status.get("phase") not in ("Succeeded", "Failed"):
            reason = "Terminating"
    return ready, total, reason, restarts, last


def _later(last: str | None, container: dict[str, Any]) -> str | None:
    finished = ((container.get("lastState") or {}).get("terminated") or {}).get("finishedAt")
    return max(last or "", finished or "") or None


def _pod(pod: dict[str, Any]) -> list[Any]:
    ready, total, reason, restarts, last = pod_summary(pod)
    shown = f"{restarts} ({age(last)} ago)" if restarts and last else str(restarts)
    spec, status = pod.get("spec") or {}, pod.get("status") or {}
    ips = status.get("podIPs") or []
    gates = spec.get("readinessGates") or []
    true = {one["type"] for one in status.get("conditions") or [] if one.get("status") == "True"}
    gate_text = f"{sum(gate['conditionType'] in true for gate in gates)}/{len(gates)}" if gates else NONE
    return [pod["metadata"]["name"], f"{ready}/{total}", reason, shown, _age(pod),
            (ips[0]["ip"] if ips else status.get("podIP")) or NONE, spec.get("nodeName") or NONE,
            status.get("nominatedNodeName") or NONE, gate_text]


# --- services and endpoints -------------------------------------------------------------------------------------------------------------

def _service(service: dict[str, Any]) -> list[Any]:
    spec = service["spec"]
    kind = spec.get("type", "ClusterIP")
    external = list(spec.get("externalIPs") or [])
    if kind == "LoadBalancer":
        ingress = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or []
        shown = ",".join([one.get("ip") or one.get("hostname") or "" for one in ingress] + external) or "<pending>"
    elif kind == "ExternalName":
        shown = spec.get("externalName") or NONE
    else:
        shown = ",".join(external) or NONE
    ports = ",".join(
        f"{port['port']}:{port['nodePort']}/{port.get('protocol', 'TCP')}" if port.get("nodePort") else
        f"{port['port']}/{port.get('protocol', 'TCP')}" for port in spec.get("ports") or []
    )
    return [service["metadata"]["name"], kind, spec.get("clusterIP") or NONE, shown, ports or NONE, _age(service),
            _labels(spec.get("selector"))]


def _more(items: list[str], count: int, empty: str) -> str:
    if not items:
        return empty
    return ",".join(items[:3]) + (f" + {count - 3} more..." if count > 3 else "")


def _endpoints(endpoints: dict[str, Any]) -> list[Any]:
    shown = []
    for subset in endpoints.get("subsets") or []:
        for port in subset.get("ports") or [{}]:
            for address in subset.get("addresses") or []:
                ip = f"[{address['ip']}]" if ":" in address["ip"] and port else address["ip"]
                shown.append(f"{ip}:{port['port']}" if port else ip)
    return [endpoints["metadata"]["name"], _more(shown, len(shown), NONE), _age(endpoints)]


def _endpointslice(endpointslice: dict[str, Any]) -> list[Any]:
    ports = [str(port["port"]) if port.get("port") is not None else "*" for port in endpointslice.get("ports") or []]
    addresses = [address for endpoint in endpointslice.get("endpoints") or [] for address in endpoint.get("addresses") or []]
    return [endpointslice["metadata"]["name"], endpointslice.get("addressType", ""), _more(ports, len(ports), UNSET),
            _more(addresses, len(addresses), UNSET), _age(endpointslice)]


# --- workloads --------------------------------------------------------------------------------------------------------------------------

def _template(spec: dict[str, Any]) -> list[Any]:
    containers = spec["template"]["spec"].get("containers") or []
    return [",".join(one["name"] for one in containers), ",".join(one["image"] for one in containers),
            format_label_selector(spec.get("selector"))]


def _deployment(deployment: dict[str, Any]) -> list[Any]:
    spec, status = deployment["spec"], deployment.get("status") or {}
    return [deployment["metadata"]["name"], f"{status.get('readyReplicas', 0)}/{spec.get('replicas', 1)}",
            status.get("updatedReplicas", 0), status.get("availableReplicas", 0), _age(deployment), *_template(spec)]


def _replicaset(replicaset: dict[str, Any]) -> list[Any]:
    spec, status = replicaset["spec"], replicaset.get("status") or {}
    return [replicaset["metadata"]["name"], spec.get("replicas", 1), status.get("replicas", 0), status.get("readyReplicas", 0),
            _age(replicaset), *_template(spec)]


_TEMPLATE_COLUMNS = (
    Column("Containers", priority=1, description="Names of each container in the template."),
    Column("Images", priority=1, description="Images referenced by each container in the template."),
    Column("Selector", priority=1, description="Label selector for pods."),
)


# --- nodes and the rest -----------------------------------------------------------------------------------------------------------------

def _node(node: dict[str, Any]) -> list[Any]:
    status = node.get("status") or {}
    conditions = {one["type"]: one.get("status") for one in status.get("conditions") or []}
    state = ("Ready" if conditions["Ready"] == "True" else "NotReady") if "Ready" in conditions else "Unknown"
    if (node.get("spec") or {}).get("unschedulable"):
        state += ",SchedulingDisabled"
    labels = node["metadata"].get("labels") or {}
    prefix = "node-role.kubernetes.io/"
    roles = sorted({key[len(prefix):] for key in labels if key.startswith(prefix) and len(key) > len(prefix)}
                   | ({labels["kubernetes.io/role"]} if labels.get("kubernetes.io/role") else set()))
    addresses = {one["type"]: one["address"] for one in reversed(status.get("addresses") or [])}
    info = status.get("nodeInfo") or {}
    return [node["metadata"]["name"], state, ",".join(roles) or NONE, _age(node), info.get("kubeletVersion", ""),
            addresses.get("InternalIP", NONE), addresses.get("ExternalIP", NONE), info.get("osImage") or "<unknown>",
            info.get("kernelVersion") or "<unknown>", info.get("containerRuntimeVersion") or "<unknown>"]


def _event(event: dict[str, Any]) -> list[Any]:
    series = event.get("series") or {}
    first = event.get("firstTimestamp") or event.get("eventTime")
    last = series.get("lastObservedTime") or event.get("lastTimestamp") or first
    count = series.get("count") or event.get("count") or 1
    involved, source = event.get("involvedObject") or {}, event.get("source") or {}
    component = source.get("component") or event.get("reportingComponent") or ""
    host = source.get("host") or event.get("reportingInstance") or ""
    name = involved.get("name", "")
    return [age(last), event.get("type", ""), event.get("reason", ""),
            f"{involved.get('kind', '').lower()}/{name}" if name else involved.get("kind", "").lower(), involved.get("fieldPath", ""),
            f"{component}, {host}" if host else component, (event.get("message") or "").strip(), age(first), count,
            event["metadata"]["name"]]


def _lease(lease: dict[str, Any]) -> list[Any]:
    return [lease["metadata"]["name"], (lease.get("spec") or {}).get("holderIdentity") or "", _age(lease)]


_TABLES: dict[str, _Table] = {
    "pods": _Table((
        _NAME, Column("Ready", description="The aggregate readiness state of this pod for accepting traffic."),
        Column("Status", description="The aggregate status of the containers in this pod."),
        Column("Restarts", description="The number of times the containers in this pod have been restarted and when the last one was."),
        _AGE, Column("IP", priority=1), Column("Node", priority=1), Column("Nominated Node", priority=1),
        Column("Readiness Gates", priority=1),
    ), _pod),
    "services": _Table((
        _NAME, Column("Type"), Column("Cluster-IP"), Column("External-IP"), Column("Port(s)"), _AGE, Column("Selector", priority=1),
    ), _service),
    "endpoints": _Table((_NAME, Column("Endpoints"), _AGE), _endpoints),
    "endpointslices": _Table((_NAME, Column("AddressType"), Column("Ports"), Column("Endpoints"), _AGE), _endpointslice),
    "deployments": _Table((_NAME, Column("Ready"), Column("Up-to-date"), Column("Available"), _AGE, *_TEMPLATE_COLUMNS), _deployment),
    "replicasets": _Table((
        _NAME, Column("Desired", "integer"), Column("Current", "integer"), Column("Ready", "integer"), _AGE, *_TEMPLATE_COLUMNS,
    ), _replicaset),
    "nodes": _Table((
        _NAME, Column("Status"), Column("Roles"), _AGE, Column("Version"), Column("Internal-IP", priority=1),
        Column("External-IP", priority=1), Column("OS-Image", priority=1), Column("Kernel-Version", priority=1),
        Column("Container-Runtime", priority=1),
    ), _node),
    "namespaces": _Table((_NAME, Column("Status"), _AGE),
                         lambda obj: [obj["metadata"]["name"], (obj.get("status") or {}).get("phase", ""), _age(obj)]),
    "configmaps": _Table((_NAME, Column("Data"), _AGE), lambda obj: [
        obj["metadata"]["name"], len(obj.get("data") or {}) + len(obj.get("binaryData") or {}), _age(obj)]),
    "secrets": _Table((_NAME, Column("Type"), Column("Data"), _AGE), lambda obj: [
        obj["metadata"]["name"], obj.get("type", ""), len(obj.get("data") or {}), _age(obj)]),
    "serviceaccounts": _Table((_NAME, Column("Secrets"), _AGE),
                              lambda obj: [obj["metadata"]["name"], len(obj.get("secrets") or []), _age(obj)]),
    "events": _Table((
        Column("Last Seen"), Column("Type"), Column("Reason"), Column("Object"), Column("Subobject", priority=1),
        Column("Source", priority=1), Column("Message"), Column("First Seen", priority=1), Column("Count", priority=1),
        Column("Name", "string", "name", 1),
    ), _event),
    "leases": _Table((_NAME, Column("Holder"), _AGE), _lease),
}


def table(resource: Resource, objects: list[dict[str, Any]], metadata: dict[str, Any], *, include: str = "Metadata",
          columns: bool = True) -> dict[str, Any]:
    """A ``meta.k8s.io/v1`` Table of the objects.

    Args:
        include: what each row carries of its object: ``Metadata``, ``Object`` or ``None``.
        columns: whether to describe the columns (in a watch, only the first event does).
    """
    kind = _TABLES[resource.plural]
    rows = []
    for obj in objects:
        row: dict[str, Any] = {"cells": kind.cells(obj)}
        if include == "Object":
            row["object"] = obj
        elif include == "Metadata":
            row["object"] = partial(obj)
        rows.append(row)
    described = [{"name": one.name, "type": one.type, "format": one.format, "description": one.description, "priority": one.priority}
                 for one in kind.columns] if columns else []
    return {"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "columnDefinitions": described, "rows": rows}


def partial(obj: dict[str, Any]) -> dict[str, Any]:
    """The object's metadata alone, as a PartialObjectMetadata."""
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]}
