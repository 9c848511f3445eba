"""The capstone's board: which of its connections work by now, as its callers themselves report it."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

from servicelab.capstone.calls import Call, trouble
from servicelab.capstone.plan import Plan, Server
from servicelab.errors import LabError, NotFound
from servicelab.views.base import View
from servicelab.views.drawing import square
from servicelab.views.observe import Background, words_of
from servicelab.views.svg import Node, Scene, el, fit, group, text, width_of

if TYPE_CHECKING:
    from servicelab.lab import Lab

WIDTH = 760.0
LOOK_SECONDS = 1.0
TOP, ROW, BOX = 84.0, 74.0, 50.0
CALLER_X, CALLER_W = 24.0, 150.0
SERVICE_X, SERVICE_W = 566.0, 170.0


class Board(View):
    """The connections of the application. Made by ``lab.board()``; it looks once a second, as long as somebody sees it.

    Raises:
        NotFound: There is no application yet.
    """

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._background: Background | None = None
        self._lock = threading.Lock()
        super().__init__(self._look())

    def _look(self) -> Scene:
        shop = self._lab.shop()
        return draw(shop.plan, shop.calls())

    async def _follow(self) -> None:
        while True:
            try:
                self.show(await asyncio.to_thread(self._look))
                self.notice = ""
            except LabError as error:
                self.notice = str(error) if isinstance(error, NotFound) else trouble(error)
            await asyncio.sleep(LOOK_SECONDS)  # logs can't be watched for "the last line", and callers call every two seconds

    def _failed(self, error: BaseException) -> None:
        self.notice = f"The board stopped: {words_of(error)}. Run the cell again."

    def begin(self) -> None:
        """Start looking, unless it does already."""
        with self._lock:
            if self._background is None or not self._background.alive:
                self._background = Background(self._follow, self._failed)

    def end(self) -> None:
        """Stop looking."""
        with self._lock:
            if self._background is not None:
                self._background.stop()
                self._background = None


def draw(plan: Plan, calls: list[Call]) -> Scene:
    """The board of one moment. Pure."""
    order = {server.name: place for place, server in enumerate(plan.servers)}
    rows = sorted(calls, key=lambda call: (order[call.caller.server], plan.callers.index(call.caller)))
    works = sum(call.works for call in calls)
    height = TOP + ROW * len(rows) + 16
    headline = f"{works} of {len(calls)} connections work"
    shapes: list[Node] = [
        text(24, 32, headline, "title " + ("good" if works == len(calls) else "")),
        _progress(works, len(calls)),
        text(24, 58, f"{plan.theme.what}: callers on the left, Services on the right; each line is the latest real request", "soft"),
    ]
    for server in plan.servers:
        places = [place for place, call in enumerate(rows) if call.caller.server == server.name]
        y = TOP + ROW * (places[0] + places[-1]) / 2
        shapes.append(_pill(server, y))
        for place in places:
            shapes.append(_connection(rows[place], TOP + ROW * place, y))
    for place, call in enumerate(rows):
        below = (
            call.caller.namespace if call.caller.namespace != plan.namespace else ("with a password" if call.caller.secret else "caller")
        )
        shapes.append(square(CALLER_X, TOP + ROW * place, CALLER_W, call.caller.name, below, f"caller:{call.caller.name}"))
    return Scene(WIDTH, height, shapes, _words(plan, rows, headline))


def _progress(works: int, total: int) -> Node:
    """A lamp for each connection: filled with a tick, or hollow."""
    lamps = []
    for place in range(total):
        x = WIDTH - 36 - 26 * (total - 1 - place)
        lit = place < works
        lamps.append(el("circle", cx=x, cy=27, r=9, class_="steps" if lit else "square"))
        if lit:
            lamps.append(text(x, 31.5, "✓", "small strong mid good"))
    return group(*lamps, key="lamps")


def _pill(server: Server, y: float) -> Node:
    kind = f"port {server.service_port}" + (", TLS" if server.tls else "")
    return group(
        el("rect", width=SERVICE_W, height=BOX, rx=BOX / 2, class_="pill"),
        text(SERVICE_W / 2, 21, fit(f"Service {server.name}", SERVICE_W - 20, 13), "strong mid"),
        text(SERVICE_W / 2, 38, kind, "mono small mid soft"),
        key=f"server:{server.name}", x=SERVICE_X, y=y,
    )  # fmt: skip


def _connection(call: Call, y: float, to: float) -> Node:
    """The line from a caller to its Service: whole when the call got what it wanted, else broken where it says why."""
    left, right, middle, end = CALLER_X + CALLER_W, SERVICE_X, y + BOX / 2, to + BOX / 2
    turn = right - 40
    url = text(left + 12, middle - 8, fit(call.url, turn - left - 20, 12, mono=True), "mono small")
    if call.works:
        line = el("path", d=f"M{left:g} {middle:g}H{turn:g}L{right:g} {end:g}", class_="link")
        said = text(left + 12, middle + 19, f"✓ {call.words}", "small strong good")
        return group(el("title", _line(call)), line, url, said, key=f"call:{call.caller.name}")
    words = fit(f"✗ {call.words}", turn - left - 20, 12)
    stop = min(left + 26 + width_of(words, 12), turn - 24)
    broken = el("path", d=f"M{left:g} {middle:g}H{stop:g}", class_="rule", stroke_dasharray="5 4")
    cross = el("path", d=f"M{stop + 4:g} {middle - 6:g}l12 12m0 -12l-12 12", class_="none", stroke_width=2.2)
    return group(
        el("title", _line(call)), broken, cross, url, text(left + 12, middle + 19, words, "small bad"), key=f"call:{call.caller.name}"
    )


def _line(call: Call) -> str:
    return f"{'✓' if call.works else '✗'} {call.caller.name} calls {call.url}: {call.words}"


def _words(plan: Plan, rows: list[Call], headline: str) -> str:
    return "\n".join([headline, *(f"  {_line(call)}" for call in rows)])
