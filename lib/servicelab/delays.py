"""Why something isn't ready yet: the scheduler's words, states of containers, events, a selector that matches nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import readiness
from .errors import LabError, NotFound
from .readiness import condition_of, selector_text

if TYPE_CHECKING:
    from .client import Client


def why_late(client: Client, namespace: str, what: str) -> list[str]:
    """What stands in the way of ``kind/name``: scheduler's words, container states, events, a selector that matches nothing."""
    kind, _, name = what.partition("/")
    try:
        if "=" in name:
            pods = client.list("pods", namespace, selector=name)
            return _pods_late(client, namespace, pods) or ([f"no pod has the label {name}"] if not pods else [])
        if kind.startswith(("service", "svc")):
            return _service_late(client, namespace, name)
        obj = client.get(kind, name, namespace)
        if kind.startswith("po"):
            return _pods_late(client, namespace, [obj])
        if kind.startswith(("deploy", "replicaset", "rs")):
            return _owner_late(client, namespace, obj)
        return [
            f"{c['type']}: {c.get('message') or c.get('reason')}"
            for c in obj.get("status", {}).get("conditions") or []
            if c["status"] != "True"
        ]
    except NotFound:
        return [f"there is no {kind} {name!r} in namespace {namespace!r}"]
    except LabError as error:
        return [str(error)]


def _owner_late(client: Client, namespace: str, obj: dict) -> list[str]:
    selector = selector_text(obj["spec"].get("selector", {}).get("matchLabels") or {})
    reasons = _pods_late(client, namespace, client.list("pods", namespace, selector=selector))
    for type_ in ("ReplicaFailure", "Progressing"):
        c = condition_of(obj, type_)
        if c and (type_ == "ReplicaFailure" or c.get("status") == "False"):
            reasons.append(f"{c.get('reason')}: {c.get('message')}")
    if not reasons:
        for rs in client.list("replicasets", namespace, selector=selector):
            reasons += _warnings(client, namespace, rs)
    return list(dict.fromkeys(reasons))


def _service_late(client: Client, namespace: str, name: str) -> list[str]:
    service = client.get("services", name, namespace)
    labels = service["spec"].get("selector") or {}
    if not labels:
        return ["the Service has no selector, so nobody fills its EndpointSlices"]
    pods = client.list("pods", namespace, selector=selector_text(labels))
    if not pods:
        return [f"no pod has the labels {selector_text(labels)} that its selector asks for"]
    reasons = _pods_late(client, namespace, pods)
    for port in service["spec"].get("ports") or []:
        target = port.get("targetPort")
        if isinstance(target, str) and not any(
            p.get("name") == target for pod in pods for c in pod["spec"]["containers"] for p in c.get("ports") or []
        ):
            reasons.append(f"no container names a port {target!r}, which is the Service's targetPort")
    return reasons


def _pods_late(client: Client, namespace: str, pods: list[dict]) -> list[str]:
    reasons = []
    for pod in pods:
        if readiness.of_pod(pod).done:
            continue
        name, status = pod["metadata"]["name"], pod.get("status", {})
        if pod["metadata"].get("deletionTimestamp"):
            reasons.append(f"pod {name} is terminating")
            continue
        found = []
        scheduled = condition_of(pod, "PodScheduled")
        if scheduled.get("status") == "False":
            found.append(f"{scheduled.get('reason')}: {scheduled.get('message')}")
        for c in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
            state = c.get("state") or {}
            if (waiting := state.get("waiting")) and waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
                found.append(f"container {c['name']}: {waiting['reason']} {waiting.get('message') or ''}".rstrip())
            if ended := (state.get("terminated") or (c.get("lastState") or {}).get("terminated")):
                found.append(f"container {c['name']} ended with exit code {ended.get('exitCode')} ({ended.get('reason')})")
        if not found or (status.get("phase") == "Running" and condition_of(pod, "Ready").get("status") != "True"):
            found += _warnings(client, namespace, pod)
        reasons += [f"pod {name}: {text}" for text in dict.fromkeys(found)] or [f"pod {name} is {status.get('phase', 'Pending')}"]
    return reasons


def _warnings(client: Client, namespace: str, obj: dict, most: int = 3) -> list[str]:
    """The latest warning events about an object."""
    try:
        events = client.list("events", namespace, fields=f"involvedObject.uid={obj['metadata']['uid']},type=Warning")
    except LabError:
        return []  # a student may not be allowed to read events: the states above must do
    latest = sorted(events, key=lambda e: e.get("lastTimestamp") or e.get("eventTime") or "")[-most:]
    return [f"{e.get('reason')}: {' '.join((e.get('message') or '').split())}" for e in latest]
