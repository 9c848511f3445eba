"""The shapes of the picture language: the same pod, node, Service and client in every view."""

from __future__ import annotations

from collections.abc import Iterable

from servicelab.views.svg import Node, el, fit, group, text, width_of
from servicelab.views.theme import OWNER_FILLS, ink_on
from servicelab.views.world import PodSeen, ServiceSeen


def end_of(ip: str, parts: int = 2) -> str:
    """The end of an address, as it is written into a pod's circle.

    Example:
        >>> end_of("10.244.1.5")
        '·1.5'
    """
    return "·" + ".".join(ip.split(".")[-parts:]) if ip else ""


class Colours:
    """Gives each owner a colour, and the same one as long as the picture lives."""

    def __init__(self) -> None:
        self._given: dict[str, str] = {}

    def __call__(self, owner: str) -> str:
        """The fill of an owner's pods."""
        if owner not in self._given:
            self._given[owner] = OWNER_FILLS[len(self._given) % len(OWNER_FILLS)]
        return self._given[owner]


def hatch(fill: str) -> Node:
    """The pattern of a pod that runs but isn't ready; goes into ``<defs>``."""
    return el(
        "pattern",
        el("rect", width=6, height=6, class_="paper"),
        el("rect", width=3, height=6, fill=fill),
        key=f"hatch{fill}", id=hatch_id(fill), width=6, height=6, patternUnits="userSpaceOnUse", patternTransform="rotate(45)",
    )  # fmt: skip


def hatch_id(fill: str) -> str:
    """The id of a fill's hatch pattern."""
    return f"sl-hatch-{fill.lstrip('#')}"


def hatches(fills: Iterable[str]) -> Node:
    """``<defs>`` with the hatch of each fill."""
    return el("defs", *(hatch(fill) for fill in sorted(set(fills))), key="defs")


def pod_circle(radius: float, state: str, fill: str, label: str = "") -> list[Node]:
    """A pod's circle around (0, 0): filled when ready, hatched when not ready, hollow when pending, faded when terminating."""
    look = {"fill": fill, "stroke": fill, "stroke-width": 2, "stroke-dasharray": None, "opacity": None}
    ink = ink_on(fill)
    if state in ("pending", "failed", "done"):
        look |= {"fill": "none", "stroke-dasharray": "4 3" if state == "pending" else None}
        ink = ""
    elif state == "not ready":
        look |= {"fill": f"url(#{hatch_id(fill)})"}
    elif state == "terminating":
        look |= {"opacity": 0.3}
        ink = ""
    made = [
        el("circle", r=radius, class_="paper", stroke="none"),
        el("circle", r=radius, **{name.replace("-", "_"): value for name, value in look.items()}),
    ]
    if state == "failed":
        arm = radius / 2
        made.append(el("path", d=f"M{-arm:g} {-arm:g}L{arm:g} {arm:g}M{arm:g} {-arm:g}L{-arm:g} {arm:g}", stroke=fill, stroke_width=2))
    elif label:
        if width_of(label, 12, mono=True) > 2 * radius - 3:
            label = f"·{label.rpartition('.')[2]}"
        if state == "not ready":  # a plain ground under the address, which stripes would make hard to read
            wide = width_of(label, 12, mono=True) + 4
            made.append(el("rect", x=-wide / 2, y=-9, width=wide, height=17, rx=4, class_="paper", stroke="none"))
            ink = ""
        made.append(text(0, 4, label, "mono small mid", style=f"fill:{ink}" if ink else None))
    return made


def pod_title(pod: PodSeen) -> str:
    """A pod in one line, for a pointer that rests on it and for a screen reader."""
    where = f" on {pod.node}" if pod.node else ", on no node yet"
    why = f" ({pod.detail})" if pod.detail else ""
    return f"pod {pod.name}{' ' + pod.ip if pod.ip else ''}{where}: {pod.state}{why}"


def pod(seen: PodSeen, x: float, y: float, radius: float, fill: str, *, wide: float = 0) -> Node:
    """A pod at a point; with ``wide`` its name and state stand below it in so much room."""
    parts = 2 if radius >= 22 else 1
    shapes = [el("title", pod_title(seen)), *pod_circle(radius, seen.state, fill, end_of(seen.ip, parts))]
    if wide:
        shapes.append(text(0, radius + 16, fit(seen.short, wide, 12, mono=True), "mono small mid soft"))
        said = seen.detail or seen.state
        shapes.append(
            text(
                0,
                radius + 31,
                fit(said, wide, 12),
                "small mid " + ("soft" if seen.state in ("ready", "terminating", "done") and not seen.detail else "bad"),
            )
        )
    return group(*shapes, key=f"pod:{seen.uid}", x=x, y=y)


def service_address(service: ServiceSeen) -> str:
    """A Service's address and ports in one line."""
    ports = ",".join(str(port[0]) for port in service.ports)
    if service.kind == "ExternalName":
        return "a CNAME, no address"
    return f"no cluster IP (headless), port {ports}" if service.headless else f"{service.ip}:{ports}"


def node_ports(service: ServiceSeen) -> list[int]:
    """The node ports of a Service, if it has any."""
    return [port[1] for port in service.ports if port[1]]


def pill(service: ServiceSeen, x: float, y: float, width: float, *, note: str = "") -> Node:
    """A Service: a dashed pill with its name and address; 46 units high, (x, y) its top left. ``note`` replaces the address."""
    ports = node_ports(service)
    below = note or service_address(service) + (f" · nodePort {','.join(map(str, ports))}" if ports else "")
    return group(
        el("title", f"Service {service.name}, type {service.kind}: {below}"),
        el("rect", width=width, height=46, rx=23, class_="pill"),
        text(width / 2, 19, fit(f"Service {service.name}", width - 24, 13), "strong mid"),
        text(width / 2, 36, fit(below, width - 20, 12, mono=True), "mono small mid " + ("bad" if note else "soft")),
        key=f"service:{service.uid}", x=x, y=y,
    )  # fmt: skip


def name_tag(name: str, x: float, y: float, key: str) -> Node:
    """A DNS name as a tag on a string, hanging from a point upwards; 22 units high, its lower left corner on the string's end."""
    wide = width_of(name, 12, mono=True) + 26
    outline = f"M0 0v-8M0 -19a5 5 0 0 1 5 -5h{wide - 10:.1f}a5 5 0 0 1 5 5v9a5 5 0 0 1 -5 5h{10 - wide:.1f}a5 5 0 0 1 -5 -5z"
    return group(
        el("path", d=outline, class_="tag"),
        el("circle", cx=9, cy=-14.5, r=2.2, class_="tag"),
        text(17, -10, name, "mono small"),
        key=key, x=x, y=y,
    )  # fmt: skip


def square(x: float, y: float, width: float, title: str, below: str, key: str) -> Node:
    """A client, or the world outside: a square with a name and a second line."""
    return group(
        el("rect", width=width, height=50, rx=6, class_="square"),
        text(width / 2, 21, fit(title, width - 8, 13), "mid strong"),
        text(width / 2, 38, fit(below, width - 6, 12), "mid soft small"),
        key=key, x=x, y=y,
    )  # fmt: skip


def node_box(name: str, control_plane: bool, x: float, y: float, width: float, height: float, note: str = "") -> Node:
    """A node: a rounded box with its name at its foot (lines come from above), the control plane paler; a note stands in its middle."""
    return group(
        el("rect", width=width, height=height, rx=12, class_="pale" if control_plane else "room", opacity=0.8 if control_plane else None),
        text(12, height - 14, fit(name, width - 20, 12), "small strong" + (" soft" if control_plane else "")),
        text(width / 2, height / 2 - 8, fit(note, width - 16, 12), "small soft mid") if note else None,
        key=f"node:{name}", x=x, y=y,
    )  # fmt: skip


def count(number: int, thing: str) -> str:
    """A number with its noun.

    Example:
        >>> count(1, "pod"), count(2, "pod")
        ('1 pod', '2 pods')
    """
    return f"{number} {thing}" if number == 1 else f"{number} {thing}{'es' if thing.endswith('s') else 's'}"
