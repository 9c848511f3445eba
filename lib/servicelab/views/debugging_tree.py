"""How to find out why a Service isn't reached: six questions in the order of the layers, each with the command that answers it."""

from __future__ import annotations

from dataclasses import dataclass

from servicelab.views.base import View
from servicelab.views.svg import Node, Scene, el, group, text

WIDTH, TOP, STEP = 760.0, 96.0, 76.0
BOX_X, BOX_W, BOX_H = 24.0, 290.0, 50.0
NO_X, NO_W = 378.0, 360.0


@dataclass(frozen=True)
class Question:
    """One question of the tree.

    Attributes:
        asks: the question; yes leads to the next one.
        command: what answers it.
        no: what it means when the answer is no, and where to look then.
    """

    asks: str
    command: str
    no: str


QUESTIONS = (
    Question("Does each pod run?", "kubectl get pods", "STATUS is a reason; kubectl describe pod has more"),
    Question("Is each pod ready?", "kubectl get pods", "READY 0/1: what does its probe ask, what comes back?"),
    Question("Has the Service endpoints?", "kubectl get endpointslices", "none: compare its selector with the pods’ labels"),
    Question("Does someone listen there?", "kubectl describe service NAME", "refused: targetPort isn’t the program’s port"),
    Question("Is the name known?", "kubectl exec … -- nslookup NAME", "where does the caller live, and where the Service?"),
    Question("Does the certificate fit?", "kubectl logs POD; curl -v", "signer, name, date: lab.view.certificate(SECRET)"),
)

ALL_YES = "The request gets through; what the program answers (401, 404, 500) is its own affair."


class DebuggingTree(View):
    """The tree. Made by ``lab.view.debugging_tree()``."""

    def __init__(self) -> None:
        super().__init__(draw())


def draw() -> Scene:
    """The tree as a picture and in words."""
    shapes: list[Node] = [
        text(24, 34, "A Service isn’t reached: six questions, from the pod to the caller", "title"),
        text(24, 60, "Begin at the top. The first “no” is where to mend; then begin at the top again.", "soft"),
    ]
    for place, question in enumerate(QUESTIONS):
        y = TOP + STEP * place
        middle, last = y + BOX_H / 2, place == len(QUESTIONS) - 1
        x = BOX_X + 34
        shapes += [
            el("path", d=f"M{x:g} {y + BOX_H:g}v{STEP - BOX_H - 7:g}m-5 -1l5 7l5 -7", class_="link"),
            text(x + 12, y + BOX_H + 17, "yes", "small good"),
            el("path", d=f"M{BOX_X + BOX_W:g} {middle:g}H{NO_X - 9:g}m-1 -5l8 5l-8 5", class_="rule", stroke_width=1.6),
            text((BOX_X + BOX_W + NO_X) / 2 - 3, middle - 7, "no", "small bad mid"),
            group(
                el("rect", width=BOX_W, height=BOX_H, rx=10, class_="room"),
                el("circle", cx=25, cy=BOX_H / 2, r=13, class_="steps"),
                text(25, BOX_H / 2 + 4.5, str(place + 1), "strong mid"),
                text(48, 21, question.asks, "strong"),
                text(48, 39, question.command, "mono small soft"),
                key=f"ask:{place}", x=BOX_X, y=y,
            ),
            group(
                el("rect", width=NO_W, height=34, rx=6, class_="pale"),
                text(12, 22, question.no, "small"),
                key=f"no:{place}", x=NO_X, y=middle - 17,
            ),
        ]  # fmt: skip
        if last:
            shapes.append(
                text(
                    BOX_X,
                    y + STEP + 18,
                    f"✓ {ALL_YES}",
                    "good",
                )
            )
    return Scene(WIDTH, TOP + STEP * len(QUESTIONS) + 40, shapes, words())


def words() -> str:
    """The tree as text."""
    lines = ["A Service isn't reached. Begin at the top; the first no is where to mend, then begin at the top again."]
    for place, question in enumerate(QUESTIONS, 1):
        lines += [f"{place}. {question.asks}  ({question.command})", f"     no: {question.no}"]
    lines.append(f"All yes? {ALL_YES}")
    return "\n".join(lines)
