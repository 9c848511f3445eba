"""The card that ``connect()`` shows: which cluster, which nodes, which namespace."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from .waiting import in_notebook

if TYPE_CHECKING:
    from .lab import Lab

_STYLE = (
    "display:inline-block;border:1px solid var(--jp-border-color1,#bbb);border-left:6px solid #0072B2;border-radius:6px;"
    "padding:.6em 1.2em;line-height:1.6;color:var(--jp-content-font-color1,inherit)"
)


class Card:
    """What there is to say about a connection, as plain text and as HTML."""

    def __init__(self, lab: Lab) -> None:
        kinds = {"kind": "kind: real Kubernetes in Docker containers", "pocket": "pocket: the lab's own small Kubernetes"}
        what = kinds.get(lab.cluster.kind, f"your own cluster, context {lab.cluster.name}")
        self.rows = [("cluster", what), ("Kubernetes", lab.version), ("nodes", _nodes(lab)), ("namespace", lab.namespace)]
        if progress := lab.progress_line:
            self.rows.append(("progress", progress))

    def __repr__(self) -> str:
        return "\n".join(f"{name:<11} {value}" for name, value in self.rows)

    def _repr_html_(self) -> str:
        rows = "".join(
            f'<tr><td style="text-align:left;opacity:.7;padding-right:1.5em">{html.escape(name)}</td>'
            f'<td style="text-align:left">{html.escape(value)}</td></tr>'
            for name, value in self.rows
        )
        return f'<div style="{_STYLE}"><b>✓ connected</b><table style="margin:0">{rows}</table></div>'


def _nodes(lab: Lab) -> str:
    nodes = list(lab.nodes)
    return ", ".join(f"{n.name} ({n.role})" if n.role == "control-plane" else n.name for n in nodes) or "not shown to you here"


def show(lab: Lab) -> None:
    """Shows the card: in a notebook in HTML and text, elsewhere as text."""
    card = Card(lab)
    if in_notebook():
        from IPython.display import display

        display(card)
    else:
        print(card)
