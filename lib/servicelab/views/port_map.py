"""The port map of a Service: nodePort → port → targetPort → the container's port, one row for each."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from servicelab.views.base import View
from servicelab.views.drawing import count, name_tag
from servicelab.views.svg import Node, Scene, el, fit, group, text, width_of
from servicelab.views.topology import snapshot
from servicelab.views.world import ServiceSeen, World

if TYPE_CHECKING:
    from servicelab.lab import Lab

WIDTH = 760.0
COLUMNS = ((14.0, 150.0), (206.0, 160.0), (408.0, 150.0), (600.0, 146.0))  # x and width of: node, Service, target, container
HEADS = ("on every node", "the Service", "sends to the pods’", "who listens there")
SETTLE_SECONDS = 5.0  # so long the EndpointSlices may be behind the pods; a difference that lasts is shown as it is


@dataclass(frozen=True)
class Row:
    """One port of a Service and where it leads.

    Attributes:
        target: The number of the pods' port; 0 when its name is in no pod.
        target_name: The targetPort's name, when it is given by name.
        container: Which container declares that port; empty when none does.
        fault: What is wrong with it, in a sentence; empty when nothing seems wrong.
    """

    node_port: int
    port: int
    protocol: str
    name: str
    target: int
    target_name: str
    container: str
    fault: str


def rows_of(service: ServiceSeen, world: World) -> list[Row]:
    """The rows of a Service, from its ports and from what its pods declare."""
    pods = [world.objects["pods"][(service.namespace, seen.name)] for seen in world.selected(service) if seen.state != "terminating"]
    declared = [
        (container["name"], port) for pod in pods for container in pod["spec"]["containers"] for port in container.get("ports") or []
    ]
    rows = []
    for port, node_port, protocol, name, target in service.ports:
        named = "" if target.isdigit() else target
        matching = [
            (container, entry["containerPort"])
            for container, entry in declared
            if entry.get("protocol", "TCP") == protocol and (entry.get("name") == named if named else entry["containerPort"] == int(target))
        ]
        number = matching[0][1] if matching else (0 if named else int(target))
        fault = ""
        if not service.selector:
            fault = ""
        elif not pods:
            fault = "no pod has the labels that the Service selects"
        elif named and not matching:
            fault = f"no container names a port {named}: this port leads nowhere"
        elif declared and not matching:
            others = ", ".join(sorted({str(entry["containerPort"]) for _, entry in declared}))
            fault = f"no container declares port {target} (they declare {others}): does one listen there?"
        rows.append(Row(node_port, port, protocol, name, number, named, matching[0][0] if matching else "", fault))
    return rows


def settled(service: ServiceSeen, world: World) -> bool:
    """Whether the EndpointSlices call those pods ready that are: a pod's readiness reaches them a moment later."""
    ready = {pod.uid for pod in world.selected(service) if pod.state == "ready"}
    return not service.selector or ready == {endpoint.pod_uid for endpoint in world.endpoints(service.name) if endpoint.ready}


def summary(service: ServiceSeen, world: World) -> str:
    """The text twin: a line for each port."""
    ready = sum(endpoint.ready for endpoint in world.endpoints(service.name))
    lines = [f"Service {service.name} ({service.kind}), {count(ready, 'ready pod')}"]
    for row in rows_of(service, world):
        parts = [f"nodePort {row.node_port}"] if row.node_port else []
        parts.append(f"port {row.port}/{row.protocol}" + (f" ({row.name})" if row.name else ""))
        parts.append(f"targetPort {row.target_name or row.target}" + (f" = {row.target}" if row.target_name and row.target else ""))
        parts.append(f"container {row.container}" if row.container else "no declared port")
        lines.append("  " + " → ".join(parts) + (f"  ✗ {row.fault}" if row.fault else ""))
    return "\n".join(lines)


def draw(service: ServiceSeen, world: World) -> Scene:
    """The picture of one moment."""
    rows = rows_of(service, world)
    endpoints = world.endpoints(service.name)
    ready = sum(endpoint.ready for endpoint in endpoints)
    heading: list[Node] = [
        text(14, 26, f"The ports of {service.name}", "title"),
        text(14, 47, "A Service’s port needn’t be the pods’: targetPort is where they listen.", "soft"),
    ]
    shapes: list[Node] = []
    has_node_ports = any(row.node_port for row in rows)
    y = 82.0
    for (x, wide), head in list(zip(COLUMNS, HEADS, strict=True))[0 if has_node_ports else 1 :]:
        shapes.append(text(x + wide / 2, y, head, "small soft mid"))
    tag = f"{service.name}.{service.namespace}.svc"
    y += 44 if rows else 0
    if width_of(tag, 12, mono=True) < 200:
        shapes.append(name_tag(tag, COLUMNS[1][0] + 24, y, "tag"))
    for place, row in enumerate(rows):
        shapes += _row(row, service, y, ready, len(endpoints), place)
        y += 84 if row.fault else 66
    aside = 0.0 if has_node_ports else COLUMNS[0][0] - COLUMNS[1][0]  # no empty column where node ports would stand
    return Scene(WIDTH + aside, y + 4, [*heading, group(*shapes, key="ports", x=aside, y=0)], summary(service, world))


def _row(row: Row, service: ServiceSeen, y: float, ready: int, endpoints: int, place: int) -> list[Node]:
    (nx, nw), (sx, sw), (tx, tw), (cx, cw) = COLUMNS
    middle = y + 23
    shapes = []
    if row.node_port:
        shapes.append(_box(nx, y, nw, f"nodePort {row.node_port}", row.protocol, "square", 6, f"node:{place}"))
        shapes.append(_arrow(nx + nw, sx, middle))
    below = (service.ip if not service.headless else "headless") + (f" {row.name}" if row.name else f" {row.protocol}")
    shapes.append(_box(sx, y, sw, f"port {row.port}", below, "pill", 23, f"port:{place}"))
    shapes.append(_arrow(sx + sw, tx, middle))
    target = f"targetPort {row.target_name or row.target}"
    named = f"= {row.target}, " if row.target_name and row.target else ""
    shapes.append(_box(tx, y, tw, target, f"{named}{ready} of {count(endpoints, 'pod')}", "room", 6, f"target:{place}"))
    if row.target:
        shapes.append(_arrow(tx + tw, cx, middle, dashed=not row.container))
        shapes.append(_box(cx, y, cw, row.container or "undeclared", f"port {row.target}", "room", 20, f"container:{place}"))
    if row.fault:
        shapes.append(text(sx, y + 64, fit(f"✗ {row.fault}", WIDTH - sx - 14, 12), "small bad"))
    return shapes


def _box(x: float, y: float, wide: float, title: str, below: str, class_: str, rx: float, key: str) -> Node:
    return group(
        el("rect", width=wide, height=46, rx=rx, class_=class_),
        text(wide / 2, 19, fit(title, wide - 12, 13), "mid strong"),
        text(wide / 2, 36, fit(below, wide - 12, 12, mono=True), "mono small mid soft"),
        key=key, x=x, y=y,
    )  # fmt: skip


def _arrow(start: float, end: float, y: float, dashed: bool = False) -> Node:
    line = f"M{start + 3:g} {y:g}H{end - 4:g}M{end - 10:g} {y - 5:g}L{end - 4:g} {y:g}L{end - 10:g} {y + 5:g}"
    return el("path", d=line, class_="link", stroke_dasharray="3 4" if dashed else None)


class PortMap(View):
    """The port map of one Service, as it is now. Made by ``lab.view.port_map()``."""

    def __init__(self, lab: Lab, service: str) -> None:
        lab.get("services", service)  # says in words that there is none
        deadline = time.monotonic() + SETTLE_SECONDS
        while True:
            world = snapshot(lab)
            seen: Any = world.service(service)
            if settled(seen, world) or time.monotonic() > deadline:
                break
            time.sleep(0.1)
        super().__init__(draw(seen, world))
