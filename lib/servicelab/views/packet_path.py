"""The packet's path: from a pod to a Service's name, step by step, each step with what the cluster says about it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import traitlets

from servicelab.views.base import View, script
from servicelab.views.drawing import end_of, name_tag, node_box, pod_circle, square
from servicelab.views.path_evidence import Path, Step, follow
from servicelab.views.svg import Node, Scene, el, fit, group, text, width_of

if TYPE_CHECKING:
    from servicelab.lab import Lab

WIDTH = 760.0
# Where the drawing's things are, in its own units; one node when both pods share it.
CLIENT, RULES, TARGET, PILL, DNS = (78.0, 262.0), (244.0, 262.0), (640.0, 262.0), (386.0, 92.0), (78.0, 108.0)
FLOOR = 372.0  # where the steps in words begin


class PacketPath(View):
    """One request's way. Made by ``lab.view.packet_path()``; the buttons go through its steps.

    Attributes:
        scenes: One scene for each step; ``scene`` is all of it at once.
        step: Which step is shown; 0 for all at once.
    """

    _esm = script("packet_path.js")

    scenes = traitlets.List(traitlets.Dict()).tag(sync=True)
    step = traitlets.Int(0).tag(sync=True)

    def __init__(self, lab: Lab, client: str, url: str) -> None:
        self.path = follow(lab, client, url)
        steps = [draw(self.path, number) for number in range(1, len(self.path.steps) + 1)]
        tallest = max(scene.height for scene in steps)  # so that the page below doesn't jump from step to step
        super().__init__(draw(self.path), scenes=[replace(scene, height=tallest).as_json() for scene in steps])


def summary(path: Path) -> str:
    """The text twin: a line for each step."""
    return "\n".join(f"{number}. {step.says}" for number, step in enumerate(path.steps, 1))


def draw(path: Path, current: int = 0) -> Scene:
    """The picture: all steps at once, or with one in front."""
    shown = path.steps[:current] if current else path.steps
    keys = [step.key for step in shown]
    shapes: list[Node] = [
        text(14, 26, fit(f"From pod {path.client} to {path.url}", WIDTH - 28, 16), "title"),
        text(14, 47, "Every line below is what your cluster answered just now.", "soft"),
        *_machines(path),
        *_places(path, keys),
        *_ways(path, shown, current),
    ]
    shapes += [_packet(path, path.steps[current - 1].key)] if current else []
    words, height = _words(path, current)
    label = "\n".join([f"The way of a packet from pod {path.client} to {path.url}.", summary(path)])
    return Scene(WIDTH, height, shapes + words, summary(path), label)


def _title(path: Path, step: Step) -> str:
    """The heading of a step, as it went."""
    if step.key == "rule" and path.reached == path.dialled:
        return "No rule is needed"
    if step.key == "arrive" and not path.code:
        return "It finds no answer"
    if step.key == "name" and not path.dialled:
        return "The name is unknown"
    return {
        "name": "The name becomes an address",
        "route": "The packet leaves the pod",
        "rule": "The node has a rule for it",
        "rewrite": "The address is translated",
        "arrive": "It arrives",
        "back": "The answer goes back",
    }[step.key]


def _machines(path: Path) -> list[Node]:
    top, high = 176.0, 178.0
    name, node = path.target
    if not path.reached or (name and node == path.client_node):
        return [node_box(path.client_node, False, 14, top, WIDTH - 28, high)]
    boxes = [node_box(path.client_node, False, 14, top, 408, high)]
    return [*boxes, node_box(node, False, 524, top, WIDTH - 538, high)] if node else boxes


def _places(path: Path, keys: list[str]) -> list[Node]:
    shapes = [_pod(CLIENT, path.client, path.client_ip, "#E69F00", "pod:client")]
    if path.dns:
        shapes.append(
            group(
                el("rect", x=-52, y=-22, width=104, height=44, rx=6, class_="square"),
                text(0, -4, "DNS", "strong mid"), text(0, 13, path.dns, "mono small mid soft"),
                key="dns", x=DNS[0], y=DNS[1],
            )
        )  # fmt: skip
    if path.service:
        wide = 236.0
        virtual = path.step("rule") is not None and path.reached != path.dialled
        below = path.dialled if virtual or not path.reached else "no address of its own"
        shapes += [
            group(
                el("rect", width=wide, height=46, rx=23, class_="pill"),
                text(wide / 2, 19, fit(f"Service {path.service}", wide - 24, 13), "strong mid"),
                text(wide / 2, 36, below, "mono small mid soft"),
                key="service", x=PILL[0] - wide / 2 + 60, y=PILL[1],
            ),
            name_tag(path.service, PILL[0] - wide / 2 + 92, PILL[1], "tag"),
        ]  # fmt: skip
    lit = "rule" in keys or "rewrite" in keys
    shapes.append(
        group(
            el("rect", x=-66, y=-32, width=132, height=64, rx=8, class_="square", stroke_dasharray=None if lit else "3 3"),
            text(0, -8, "kernel", "strong mid"), text(0, 9, "rules of", "small mid soft"), text(0, 24, "kube-proxy", "small mid soft"),
            key="rules", x=RULES[0], y=RULES[1],
        )
    )  # fmt: skip
    name, _ = path.target
    if not name and path.reached:
        shapes.append(square(TARGET[0] - 78, TARGET[1] - 25, 156, path.reached, "no pod", "target"))
    if name:
        shapes.append(_pod(TARGET, name, path.reached.partition(":")[0], "#0072B2", "pod:target"))
    return shapes


def _pod(place: tuple[float, float], name: str, ip: str, fill: str, key: str) -> Node:
    end = f"…{name.rpartition('-')[2]}" if name.count("-") > 1 else name
    label = text(0, 46, fit(end, 110, 12, mono=True), "mono small mid soft")
    title = el("title", f"pod {name} {ip}")
    return group(title, *pod_circle(28, "ready", fill, end_of(ip)), label, key=key, x=place[0], y=place[1])


def _ways(path: Path, shown: list[Step], current: int) -> list[Node]:
    """The arrows of the steps so far, each with its number."""
    shapes = []
    for number, step in enumerate(path.steps, 1):
        if step not in shown:
            continue
        faint = bool(current) and number != current
        line, badge, label = _way(path, step)
        parts = [el("path", d=line, class_="way", stroke_width=2.4 if number == current else None)] if line else []
        parts += [_badge(number, *badge), text(badge[0] + 16, badge[1] + 4, label, "mono small packet")]
        shapes.append(group(*parts, key=f"way:{step.key}", opacity=0.35 if faint else None))
    return shapes


def _way(path: Path, step: Step) -> tuple[str, tuple[float, float], str]:
    """An arrow's line, where its number stands, and what the packet's label says there."""
    (cx, cy), (rx, ry), (tx, ty) = CLIENT, RULES, TARGET
    near = 30 if path.target[0] else 80  # how far the target's shape reaches from its middle
    straight = f"M{rx + 68:g} {ry - 8:g}H{tx - near - 2:g}"
    if step.key == "name":
        line = f"M{cx - 6:g} {cy - 30:g}V{DNS[1] + 24:g}M{cx + 6:g} {DNS[1] + 24:g}V{cy - 30:g}"
        return line, (cx + 26, (cy + DNS[1]) / 2 - 28), path.dialled.partition(":")[0]
    if step.key == "route":
        return f"M{cx + 30:g} {cy:g}H{rx - 68:g}", (cx + 64, cy - 18), ""
    if step.key == "rule":
        start, end = (rx, ry - 34), (PILL[0] - 6, PILL[1] + 48)
        line = f"M{start[0]:g} {start[1]:g}C{rx:g} {ry - 90:g} {end[0] - 14:g} {end[1] + 42:g} {end[0]:g} {end[1]:g}"
        if path.reached == path.dialled:
            return "", (rx, ry - 50), "none needed"
        return (line if path.service else ""), (rx + 12, ry - 56), f"to {path.dialled}"
    if step.key == "rewrite":
        return straight, ((rx + tx) / 2 - 70, ry - 26), f"to {path.reached}"
    if step.key == "arrive":
        reached = path.reached
        line = straight if reached and not path.step("rewrite") else ""
        return (
            line,
            ((tx + near + 16 - (40 if near > 30 else 0), ty - (40 if near > 30 else 22)) if reached else (rx + 90, ry)),
            str(path.code or "no answer"),
        )
    line = f"M{tx - 20:g} {ty + 20:g}C{tx - 60:g} {ty + 70:g} {cx + 90:g} {ty + 70:g} {cx + 20:g} {cy + 24:g}"
    return line, ((rx + tx) / 2 - 80, ty + 78), f"from {path.dialled}"


def _badge(number: int, x: float, y: float) -> Node:
    return group(el("circle", r=10, class_="dot"), text(0, 4.5, str(number), "small mid strong", style="fill:var(--paper)"), x=x, y=y)


def _packet(path: Path, key: str) -> Node:
    """The packet, as a dot where it is in this step; it glides from step to step."""
    (cx, cy), (rx, ry), (tx, ty) = CLIENT, RULES, TARGET
    places = {
        "name": (DNS[0], DNS[1] + 40),
        "route": (rx - 92, ry),
        "rule": (rx, ry - 44),
        "rewrite": (rx + 92, ry - 8),
        "arrive": (tx - (40 if path.target[0] else 90), ty - 8) if path.reached else (rx + 92, ry),
        "back": (cx + 34, cy + 30),
    }
    x, y = places[key]
    return group(el("circle", r=8, class_="dot", stroke="var(--paper)", stroke_width=2), key="packet", x=x, y=y)


def _words(path: Path, current: int) -> tuple[list[Node], float]:
    """The steps in words with their evidence; the one in front opens."""
    shapes: list[Node] = []
    y = FLOOR + 14
    for number, step in enumerate(path.steps, 1):
        if current and number != current:
            continue
        shapes.append(_badge(number, 24, y - 4))
        shapes.append(text(44, y, _title(path, step), "strong"))
        for line in _wrap(step.says, WIDTH - 64, 13):
            y += 18
            shapes.append(text(44, y, line))
        if step.command:
            y += 19
            where = f"{step.where}$ "
            shapes.append(text(44, y, fit(where + step.command, WIDTH - 60, 12, mono=True), "mono small soft"))
        for line in step.evidence:
            pieces = _wrap(line, WIDTH - 76, 12, mono=True)
            for piece in pieces[: 6 if current else 2]:
                y += 17
                shapes.append(text(56, y, piece, "mono small service"))
        y += 28
    return shapes, y - 6


def _wrap(words: str, width: float, size: float, mono: bool = False) -> list[str]:
    lines, line = [], ""
    for word in words.split():
        longer = f"{line} {word}" if line else word
        if line and width_of(longer, size, mono) > width:
            lines.append(line)
            line = word
        else:
            line = longer
    return [fit(piece, width, size, mono) for piece in [*lines, line] if piece]
