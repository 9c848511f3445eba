"""The topology: nodes, the pods on them, Services, and the lines that EndpointSlices draw between them; live."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from servicelab.errors import NotAllowed
from servicelab.views.base import View
from servicelab.views.drawing import Colours, count, hatches, name_tag, node_box, node_ports, pill, pod, pod_circle, pod_title, square
from servicelab.views.observe import Observer
from servicelab.views.svg import Node, Scene, el, group, text, width_of
from servicelab.views.world import KINDS, Endpoint, PodSeen, ServiceSeen, World

if TYPE_CHECKING:
    from servicelab.lab import Lab

WIDTH = 760.0
ROOMY = 9  # a node with more pods than this draws them smaller, without names


class Topology(View):
    """The picture of one namespace, live by watch. Made by ``lab.view.topology()``."""

    def __init__(self, lab: Lab, services: list[str] | None = None) -> None:
        self._namespace = lab.namespace
        self._only = services
        self._colours = Colours()
        self._observer = Observer(lab, self._changed)
        super().__init__(self._scene(snapshot(lab)))

    def _scene(self, world: World) -> Scene:
        return draw(world, self._namespace, self._colours, self._only)

    def _changed(self, world: World) -> None:
        self.notice = self._observer.trouble
        if all(world.objects[kind] or kind != "nodes" for kind in KINDS):
            self.show(self._scene(world))

    def begin(self) -> None:
        """Follow the cluster."""
        self._observer.start()

    def end(self) -> None:
        """Stop following."""
        self._observer.stop()


def snapshot(lab: Lab) -> World:
    """The world as it is now, asked once."""
    world = World()
    for kind in ("pods", "services", "endpointslices"):
        world.replace(kind, lab.list(kind))
    try:
        world.replace("nodes", lab.list("nodes"))
    except NotAllowed:
        world.replace("nodes", [])  # a student's account may not list nodes: World.nodes() then knows them by the pods on them
    return world


def draw(world: World, namespace: str, colours: Colours, only: list[str] | None = None) -> Scene:
    """The scene of one moment. Pure: the same world gives the same picture."""
    services = [service for service in world.services() if (service.name in only if only else service.name != "kubernetes")]
    pods = world.pods()
    # the pods of a Service come first, so that they wear the first colours in every lesson
    for seen in [*(seen for service in services for seen in world.selected(service)), *pods]:
        colours(seen.owner)
    has_outside = any(node_ports(service) for service in services)
    left = 108.0 if has_outside else 12.0
    top = 62.0

    shapes: list[Node] = []
    pills, places_of_services, services_bottom = _services(services, world, namespace, left + 14, top + 14, WIDTH - 12 - left - 28)
    nodes, places, bottom = _nodes(world, pods, colours, left + 14, services_bottom + (56 if services else 4), WIDTH - 12 - left - 28)
    height = bottom + 14

    shapes.append(hatches(colours(seen.owner) for seen in pods))
    shapes.append(text(14, 26, _headline(services, pods, world), "title"))
    shapes.append(
        text(
            14,
            47,
            "A Service is on no node: its address is a rule in every node’s kernel." if services else "There is no Service yet.",
            "soft",
        )
    )
    shapes.append(el("rect", x=left, y=top, width=WIDTH - 12 - left, height=height - top, rx=16, class_="border"))
    shapes += nodes
    for service in services:
        shapes += _lines(service, world, places_of_services[service.name], places)
    if has_outside:
        shapes += _outside(services, places_of_services, top)
    shapes += pills
    shapes += [pod(seen, *places[seen.uid][:3], colours(seen.owner), wide=places[seen.uid][3]) for seen in pods if seen.uid in places]
    legend, height = _legend(pods, colours, left, height + 22)
    shapes += legend
    return Scene(WIDTH, height, shapes, summary(world, services), _in_words(world, services))


def _headline(services: list[ServiceSeen], pods: list[PodSeen], world: World) -> str:
    if len(services) == 1:
        return f"{services[0].name}: {_readiness(services[0], world)}"
    ready = sum(seen.state == "ready" for seen in pods)
    return f"{count(len(pods), 'pod')}, {ready} ready; {count(len(services), 'Service')}" if pods or services else "Nothing here yet"


def _readiness(service: ServiceSeen, world: World) -> str:
    endpoints = [endpoint for endpoint in world.endpoints(service.name) if not endpoint.terminating]
    ready = sum(endpoint.ready for endpoint in endpoints)
    if not endpoints:
        return "no pod behind it"
    return (
        f"{count(ready, 'pod')} ready behind it"
        if ready == len(endpoints)
        else f"{ready} of {count(len(endpoints), 'pod')} ready behind it"
    )


def _services(
    services: list[ServiceSeen], world: World, namespace: str, x: float, y: float, width: float
) -> tuple[list[Node], dict, float]:
    """Pills in rows of up to three under their name tags; where each is; and how far down they reach."""
    shapes, places = [], {}
    columns = min(max(len(services), 1), 3 if width > 640 else 2)
    cell = width / columns
    wide = min(cell - 12, 300.0)
    rows = -(-len(services) // columns)
    for place, service in enumerate(services):
        row, column = divmod(place, columns)
        in_row = min(columns, len(services) - row * columns)
        left = x + (width - in_row * cell) / 2 + column * cell + (cell - wide) / 2
        upper = y + 26 + row * 88
        note = (
            ""
            if service.kind == "ExternalName" or any(e.ready for e in world.endpoints(service.name))
            else ("no endpoints" if service.headless else f"{service.ip}: no endpoints")
        )
        tag = f"{service.name}.{namespace}.svc"
        if width_of(tag, 12, mono=True) + 40 > wide:
            tag = service.name
        shapes += [pill(service, left, upper, wide, note=note), name_tag(tag, left + 30, upper, f"tag:{service.uid}")]
        places[service.name] = (left, upper, wide)
    return shapes, places, y + rows * 88 + (0 if services else 10)


def _nodes(world: World, pods: list[PodSeen], colours: Colours, x: float, y: float, width: float) -> tuple[list[Node], dict, float]:
    """Boxes with their pods' places: uid → (x, y, radius, room for the name); and how far down they reach."""
    on: dict[str, list[PodSeen]] = {name: [] for name, _ in world.nodes()}
    nowhere = [seen for seen in pods if not seen.node]
    for seen in pods:
        if seen.node:
            on[seen.node].append(seen)
    shapes, places = [], {}
    nodes = world.nodes()
    gap = 12.0
    wide = (width - gap * (len(nodes) - 1)) / max(len(nodes), 1)
    fullest = max((len(pods_there) for pods_there in on.values()), default=0)
    roomy = fullest <= ROOMY
    cell, high, radius = (76.0, 90.0, 24.0) if roomy else (40.0, 42.0, 17.0)
    columns = max(int((wide - 10) // cell), 1)
    if roomy:
        cell = min((wide - 10) / max(min(columns, fullest), 1), 118.0)
    rows = -(-fullest // columns)
    box = max(rows, 1) * high + 54
    start = x
    for name, control_plane in nodes:
        idle = "no pods of the lesson" if control_plane and not on[name] else ("no pod here" if not on[name] else "")
        shapes.append(node_box(name, control_plane, x, y, wide, box, idle))
        for place, seen in enumerate(on[name]):
            row, column = divmod(place, columns)
            in_row = min(columns, len(on[name]) - row * columns)
            left = x + (wide - in_row * cell) / 2 + cell / 2
            places[seen.uid] = (left + column * cell, y + 20 + radius + row * high, radius, cell if roomy else 0)
        x += wide + gap
    bottom = y + box
    if nowhere:
        cell = 116.0  # "Unschedulable" is to be read whole
        columns = int((width - 16) // cell)
        rows = -(-len(nowhere) // columns)
        shapes.append(
            group(
                el("rect", width=width, height=rows * 90 + 34, rx=12, class_="border"),
                text(14, 22, "waiting for a node", "soft strong"),
                key="nowhere", x=start, y=bottom + 12,
            )
        )  # fmt: skip
        for place, seen in enumerate(nowhere):
            row, column = divmod(place, columns)
            places[seen.uid] = (start + 8 + cell * (column + 0.5), bottom + 12 + 58 + row * 90, 24.0, cell - 4)
        bottom += 12 + rows * 90 + 34
    return shapes, places, bottom


def _lines(service: ServiceSeen, world: World, place: tuple[float, float, float], places: dict) -> list[Node]:
    """What the EndpointSlices say: a line from the pill to each ready pod; dashed to one that ends but still serves."""
    left, upper, wide = place
    drawn = [e for e in world.endpoints(service.name) if e.pod_uid in places and (e.ready or (e.terminating and e.serving))]
    drawn.sort(key=lambda endpoint: places[endpoint.pod_uid][0])
    shapes = []
    for number, endpoint in enumerate(drawn):
        x, y, radius, _ = places[endpoint.pod_uid]
        start = left + wide * (number + 1) / (len(drawn) + 1)
        foot, head = upper + 46, y - radius
        bend = (head - foot) * 0.55
        shapes.append(
            group(
                el("title", _line_title(service, endpoint)),
                el(
                    "path",
                    d=f"M{start:.1f} {foot:.1f}C{start:.1f} {foot + bend:.1f} {x:.1f} {head - bend:.1f} {x:.1f} {head:.1f}",
                    class_="link",
                    stroke_dasharray=None if endpoint.ready else "3 4",
                    opacity=None if len(drawn) <= 20 else 0.55,
                ),
                key=f"line:{service.uid}:{endpoint.pod_uid}",
            )
        )
    return shapes


def _line_title(service: ServiceSeen, endpoint: Endpoint) -> str:
    return f"EndpointSlice of {service.name}: {endpoint.address} {'ready' if endpoint.ready else 'terminating, still serving'}"


def _outside(services: list[ServiceSeen], places: dict, top: float) -> list[Node]:
    """The world outside, and the dotted way in through node ports."""
    shapes = []
    with_ports = [service for service in services if node_ports(service)]
    middle = places[with_ports[0].name][1] + 23
    for service in with_ports:
        left, upper, _ = places[service.name]
        half = (96 + left) / 2
        way = f"M96 {middle:.1f}C{half:.1f} {middle:.1f} {half:.1f} {upper + 23:.1f} {left:.1f} {upper + 23:.1f}"
        shapes.append(
            group(
                el("title", f"port {', '.join(map(str, node_ports(service)))} of every node leads to {service.name}"),
                el("path", d=way, class_="way"),
                key=f"way:{service.uid}",
            )
        )  # fmt: skip
    shapes.append(square(10, middle - 25, 86, "outside", "any node’s", "outside"))
    ports = ", ".join(str(port) for service in with_ports for port in node_ports(service))
    shapes.append(text(53, middle + 42, f"port {ports}" if len(ports) < 12 else "node ports", "mid small packet mono"))
    return shapes


def _legend(pods: list[PodSeen], colours: Colours, left: float, y: float) -> tuple[list[Node], float]:
    """Which colour is whose, and how each state that occurs is drawn."""
    shapes, x = [], left + 8
    neutral = "#6B7280"
    states = [
        state for state in ("ready", "not ready", "pending", "terminating", "failed", "done") if any(seen.state == state for seen in pods)
    ]
    owners = Counter(seen.owner for seen in pods)
    items = [(f"owner:{owner}", "ready", colours(owner), f"{owner} ×{number}") for owner, number in owners.items()]
    items += [(f"state:{state}", state, neutral, state) for state in states] if states not in ([], ["ready"]) else []
    for key, state, fill, label in items:
        wide = 22 + width_of(label, 12) + 14
        if x + wide > WIDTH - 12:
            x, y = left + 8, y + 22
        shapes.append(group(*pod_circle(6, state, fill), text(12, 4, label, "small soft"), key=key, x=x + 6, y=y))
        x += wide
    if any(state == "not ready" for state in states):
        shapes.insert(0, el("defs", hatches([neutral])[3][0], key="legend-defs"))
    return shapes, y + 14


def summary(world: World, services: list[ServiceSeen]) -> str:
    """The text twin: what is there, without what chance decides (which node, which name, which address)."""
    pods = [seen for seen in world.pods() if seen.state != "terminating"]
    lines = [f"nodes: {', '.join(name for name, _ in world.nodes())}"]
    for owner, number in Counter(seen.owner for seen in pods).items():
        states = Counter(seen.state for seen in pods if seen.owner == owner)
        said = ", ".join(f"{state}" if number == 1 else f"{amount} {state}" for state, amount in sorted(states.items()))
        lines.append(f"{'pod' if number == 1 else 'pods'} of {owner}: {said}" if number > 1 else f"pod {owner}: {said}")
    if not pods:
        lines.append("no pods")
    for service in services:
        ports = "".join(f", nodePort {port}" for port in node_ports(service))
        address = service_address_line(service)
        lines.append(f"Service {service.name} ({service.kind}, {address}{ports}): {_readiness(service, world)}")
    return "\n".join(lines)


def service_address_line(service: ServiceSeen) -> str:
    """A Service's address for the text twin."""
    ports = ",".join(str(port[0]) for port in service.ports)
    return f"headless, port {ports}" if service.headless else f"{service.ip or 'no address'}:{ports}"


def _in_words(world: World, services: list[ServiceSeen]) -> str:
    """Everything in the picture, for a screen reader."""
    return "\n".join(["Topology.", summary(world, services), *(pod_title(seen) for seen in world.pods())])


def parts(view: Topology) -> dict[str, Any]:
    """How many of each shape a view draws now; for tests and for whoever debugs a picture."""
    return dict(Counter(key.partition(":")[0] for _, key, _, _ in view.now.children if key))
