"""Colours and text styles that every picture shares, for dark and light.

The fills are the palette of Okabe and Ito (https://jfly.uni-koeln.de/color/), which stays apart for every common kind of colour
blindness; with each goes the ink that is readable on it (contrast at least 4.5 to 1). Colour never speaks alone: shapes and words say
the same.
"""

from __future__ import annotations

OWNER_FILLS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#6B7280")
INK_ON = {"#0072B2": "#fff", "#6B7280": "#fff"}

LIGHT = {
    "ink": "#111827", "soft": "#556070", "line": "#b9c3d0", "room": "#f8fafc", "pale": "#f1f5f9", "paper": "#ffffff",
    "service": "#0072B2", "packet": "#b84a00", "good": "#00664c", "bad": "#a63c00",
}  # fmt: skip
DARK = {
    "ink": "#e5e7eb", "soft": "#a9b4c2", "line": "#56637a", "room": "#1e293b", "pale": "#172033", "paper": "#0f172a",
    "service": "#56B4E9", "packet": "#ff9b57", "good": "#4fd1a8", "bad": "#ff9b57",
}  # fmt: skip


def ink_on(fill: str) -> str:
    """The ink that is readable on a fill of the palette."""
    return INK_ON.get(fill, "#111827")


def _variables(colours: dict[str, str]) -> str:
    return "".join(f"--{name}:{value};" for name, value in colours.items())


STYLE = (
    f".sl-scene{{{_variables(LIGHT)}font-family:system-ui,-apple-system,'Segoe UI',sans-serif;font-size:13px}}"
    f"@media (prefers-color-scheme:dark){{.sl-scene:not([data-theme=light]){{{_variables(DARK)}}}}}"
    f".sl-scene[data-theme=dark]{{{_variables(DARK)}}}"
    ".sl-scene text{fill:var(--ink)}"
    ".sl-scene .soft{fill:var(--soft)}"
    ".sl-scene .bad{fill:var(--bad)}"
    ".sl-scene .good{fill:var(--good)}"
    ".sl-scene .packet{fill:var(--packet)}"
    ".sl-scene .service{fill:var(--service)}"
    ".sl-scene .mono{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}"
    ".sl-scene .strong{font-weight:600}"
    ".sl-scene .small{font-size:12px}"
    ".sl-scene .title{font-size:16px;font-weight:600}"
    ".sl-scene .mid{text-anchor:middle}"
    ".sl-scene .end{text-anchor:end}"
    ".sl-scene .paper{fill:var(--paper)}"
    ".sl-scene .room{fill:var(--room);stroke:var(--line)}"
    ".sl-scene .pale{fill:var(--pale);stroke:var(--line);stroke-dasharray:none}"
    ".sl-scene .border{fill:none;stroke:var(--line);stroke-dasharray:2 6}"
    ".sl-scene .rule{stroke:var(--line);fill:none}"
    ".sl-scene .steps{fill:var(--service);fill-opacity:.22;stroke:var(--service)}"
    ".sl-scene .none{fill:var(--bad);stroke:var(--bad)}"
    ".sl-scene .pill{fill:var(--room);stroke:var(--service);stroke-width:2;stroke-dasharray:6 4}"
    ".sl-scene .tag{fill:var(--paper);stroke:var(--service);stroke-width:1.2}"
    ".sl-scene .link{fill:none;stroke:var(--service);stroke-width:1.8}"
    ".sl-scene .way{fill:none;stroke:var(--packet);stroke-width:1.6;stroke-dasharray:1 5;stroke-linecap:round}"
    ".sl-scene .dot{fill:var(--packet)}"
    ".sl-scene .square{fill:var(--room);stroke:var(--soft);stroke-width:1.5}"
)
"""The style sheet, one line, inside every picture, so that a picture is whole wherever it is copied to."""
