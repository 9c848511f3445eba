"""API objects for tests of pictures, as a cluster would give them, and ways to look into a picture."""

from __future__ import annotations

import random
import string
from typing import Any
from xml.etree import ElementTree

from servicelab.views.svg import Node, Scene
from servicelab.views.world import World

SVG = "{http://www.w3.org/2000/svg}"


def node(name: str, control_plane: bool = False) -> dict:
    labels = {"node-role.kubernetes.io/control-plane": ""} if control_plane else {}
    return {"metadata": {"name": name, "labels": labels}}


def suffix() -> str:
    return "".join(random.choices(string.ascii_lowercase + string.digits, k=5))


def pod(
    name: str, *, node: str = "worker", ip: str = "10.244.1.5", phase: str = "Running", ready: bool = True, owner: str = "",
    labels: dict | None = None, waiting: str = "", deleting: bool = False, **status: Any,
) -> dict:  # fmt: skip
    meta: dict[str, Any] = {"name": name, "namespace": "default", "uid": f"uid-{name}", "labels": {"app": owner or name, **(labels or {})}}
    if owner:
        meta["labels"]["pod-template-hash"] = "66b6c48dd5"
        meta["ownerReferences"] = [{"kind": "ReplicaSet", "name": f"{owner}-66b6c48dd5", "controller": True}]
    if deleting:
        meta["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    full = {"phase": phase, "podIP": ip, "conditions": [{"type": "Ready", "status": str(ready)}], **status}
    if waiting:
        full["containerStatuses"] = [{"state": {"waiting": {"reason": waiting}}}]
    containers = [{"name": "nginx", "ports": [{"containerPort": 80, "name": "web"}]}]
    return {"metadata": meta, "spec": {"containers": containers, **({"nodeName": node} if node else {})}, "status": full}


def service(
    name: str, *, ip: str = "10.96.0.77", kind: str = "ClusterIP", ports: list[dict] | None = None, selector: dict | None = None
) -> dict:
    spec = {"type": kind, "clusterIP": ip, "selector": {"app": name} if selector is None else selector, "ports": ports or [{"port": 80}]}
    return {"metadata": {"name": name, "namespace": "default", "uid": f"uid-svc-{name}"}, "spec": spec}


def endpoint_slice(service: str, *pods: dict) -> dict:
    endpoints = []
    for each in pods:
        ready = each["status"]["conditions"][0]["status"] == "True"
        ending = "deletionTimestamp" in each["metadata"]
        endpoints.append({
            "addresses": [each["status"]["podIP"]],
            "conditions": {"ready": ready and not ending, "serving": ready, "terminating": ending},
            "targetRef": {"kind": "Pod", "name": each["metadata"]["name"], "uid": each["metadata"]["uid"]},
        })  # fmt: skip
    labels = {"kubernetes.io/service-name": service}
    return {"metadata": {"name": f"{service}-{suffix()}", "namespace": "default", "labels": labels}, "endpoints": endpoints}


def world(
    pods: list[dict] = (), services: list[dict] = (), slices: list[dict] = (), nodes: tuple[str, ...] = ("worker", "worker2")
) -> World:
    made = World()
    made.replace("nodes", [node("control-plane", True), *map(node, nodes)])
    made.replace("pods", pods)
    made.replace("services", services)
    made.replace("endpointslices", slices)
    return made


def busy_world(pods: int = 6) -> World:
    """A namespace with everything that a picture has a shape for, under names that differ each time."""
    owner = "my-nginx"
    made = [
        pod(
            f"{owner}-66b6c48dd5-{suffix()}{place}",
            owner=owner,
            node=("worker", "worker2")[place % 2],
            ip=f"10.244.{1 + place % 2}.{9 + place}",
        )
        for place in range(pods)
    ]
    odd = [
        pod(f"{owner}-66b6c48dd5-{suffix()}a", owner=owner, ip="10.244.1.201", deleting=True),
        pod("broken", ip="10.244.1.202", ready=False, waiting="CrashLoopBackOff"),
        pod("starting", ip="", phase="Pending", ready=False, waiting="ContainerCreating"),
        pod("homeless", ip="", phase="Pending", ready=False, node=""),
        pod("over", ip="10.244.1.203", phase="Failed", ready=False),
    ]
    services = [
        service(owner, kind="NodePort", ports=[{"port": 80, "nodePort": 30080, "targetPort": "web"}]),
        service("broken", ip="None"),
        service("lonely"),
    ]
    slices = [endpoint_slice(owner, *made, odd[0]), endpoint_slice("broken", odd[1])]
    return world([*made, *odd], services, slices)


def keys(scene: Scene, kind: str) -> list[str]:
    """The keys of a scene's shapes of one kind (``pod``, ``line``, ``service``, …)."""
    return [key.partition(":")[2] for _, key, _, _ in scene.children if key.partition(":")[0] == kind]


def texts(nodes: list[Node | str]) -> list[str]:
    """Every text in a scene, tooltips too."""
    found = []
    for each in nodes:
        found += [each] if isinstance(each, str) else texts(each[3])
    return found


def parsed(scene: Scene) -> ElementTree.Element:
    """The scene's SVG, parsed; fails when it isn't well-formed."""
    return ElementTree.fromstring(scene.svg())
