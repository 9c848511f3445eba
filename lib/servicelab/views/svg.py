"""Pictures as trees, drawn twice: to one line of SVG here, and live by ``scene.js``.

A node is ``[tag, key, attributes, children]`` (plain lists, since it travels to the browser as JSON) and a child is a node or a text.
The key says which shape of the next moment is the same thing, so that it moves there and is not drawn anew. The attributes ``tx`` and
``ty`` place a group.
"""

from __future__ import annotations

import html
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from servicelab.views.theme import STYLE

Node = list[Any]
SVG_MAY = frozenset(["svg", "style", "defs", "pattern", "g", "title", "text", "rect", "circle", "path"])
"""The elements that pictures are made of."""


def el(tag: str, *children: Node | str | None, key: str = "", **attributes: Any) -> Node:
    """One element. ``class_`` becomes ``class``, other underscores become hyphens, None leaves an attribute out.

    Example:
        >>> el("text", "hi", class_="soft", text_anchor="middle", x=3)
        ['text', '', {'class': 'soft', 'text-anchor': 'middle', 'x': 3}, ['hi']]
    """
    kept = {name.rstrip("_").replace("_", "-"): _short(value) for name, value in attributes.items() if value is not None}
    return [tag, key, kept, [child for child in children if child is not None]]


def _short(value: Any) -> Any:
    return round(value, 1) if isinstance(value, float) else value


def text(x: float, y: float, words: str, class_: str = "", **attributes: Any) -> Node:
    """A line of text at a point."""
    return el("text", words, x=x, y=y, class_=class_ or None, **attributes)


def group(*children: Node | None, key: str = "", x: float | None = None, y: float | None = None, **attributes: Any) -> Node:
    """A group, placed at a point; with a key it glides when the point changes."""
    return el("g", *children, key=key, tx=x, ty=y, **attributes)


def fit(words: str, width: float, size: float = 13, mono: bool = False) -> str:
    """The text, cut at the end with an ellipsis if it would be wider than so many units.

    Widths are estimated (0.602 em a letter in a monospaced font, 0.56 in others): there is no font to ask when the picture is made.
    """
    room = int(width / (size * (0.602 if mono else 0.56)))
    return words if len(words) <= room else words[: max(room - 1, 1)] + "…"


def width_of(words: str, size: float = 13, mono: bool = False) -> float:
    """About how wide a text is drawn, in the picture's units."""
    return len(words) * size * (0.602 if mono else 0.56)


@dataclass(frozen=True)
class Scene:
    """One moment of a picture.

    Args:
        width: Units across; text sizes are meant for about one pixel a unit.
        height: Units down.
        children: What is drawn, from back to front.
        text: The text twin: the same for the same state of the cluster, without what is random, so that a stored notebook can be compared.
        label: The picture in full words, for a screen reader; the text twin when empty.
    """

    width: float
    height: float
    children: list[Node]
    text: str
    label: str = ""

    def as_json(self) -> dict[str, Any]:
        """The scene as it goes to the browser."""
        return {"width": self.width, "height": round(self.height, 1), "children": self.children, "label": self.label or self.text}

    def svg(self) -> str:
        """The scene as one line of SVG that stands alone: style, background, a label for screen readers."""
        paper = el("rect", width=self.width, height=self.height, rx=8, class_="paper")
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width:g} {round(self.height, 1):g}" width="{self.width:g}" '
            f'role="img" aria-label="{_attribute(self.label or self.text)}" class="sl-scene">'
        )
        return head + f"<style>{STYLE}</style>" + draw([paper, *self.children]) + "</svg>"


def _attribute(value: Any) -> str:
    return html.escape(str(value)).replace("\n", "&#10;")


def draw(nodes: Iterable[Node | str]) -> str:
    """Nodes as SVG source in one line."""
    made = []
    for node in nodes:
        if isinstance(node, str):
            made.append(html.escape(node, quote=False).replace("\n", " "))
            continue
        tag, _key, attributes, children = node
        own = dict(attributes)
        place = (own.pop("tx", None), own.pop("ty", None))
        if place != (None, None):
            own["transform"] = f"translate({place[0] or 0:g},{place[1] or 0:g})"
        said = "".join(f' {name}="{_attribute(value)}"' for name, value in own.items())
        inside = draw(children)
        made.append(f"<{tag}{said}>{inside}</{tag}>" if inside else f"<{tag}{said}/>")
    return "".join(made)
