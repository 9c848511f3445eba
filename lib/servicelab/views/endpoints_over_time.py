"""Endpoints over time: a strip for each pod of a Service, above the number of addresses in its EndpointSlices."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

from servicelab import settings
from servicelab.errors import LabError, WaitTimeout
from servicelab.views.base import View
from servicelab.views.drawing import Colours, end_of, hatch_id, hatches
from servicelab.views.observe import Background, Observer, words_of
from servicelab.views.story import Life, Story
from servicelab.views.svg import Node, Scene, el, fit, group, text, width_of
from servicelab.views.theme import ink_on

if TYPE_CHECKING:
    from servicelab.lab import Lab

WIDTH, LEFT, RIGHT = 760.0, 150.0, 740.0
ROW = 46.0
CALM_SECONDS = 1.0


class EndpointsOverTime(View):
    """The strips of one Service, drawn on as they grow. Made by ``lab.view.endpoints_over_time()``.

    It watches from the moment it is made, shown or not, for so many seconds; :meth:`picture` gives what has been seen so far.
    """

    def __init__(self, lab: Lab, service: str, seconds: float) -> None:
        if not 0 < seconds <= 3600:
            raise LabError(f"seconds={seconds:g} is no time to watch for: give more than 0 and at most 3600.")
        lab.get("services", service)  # a name that isn't there is an error now, not an empty picture
        self._service, self._seconds = service, seconds
        self._story, self._colours = Story(service), Colours()
        self._from, self._until = time.monotonic(), float("inf")
        self._news = threading.Condition()
        self._listed: set[str] = set()
        self._observer = Observer(lab, lambda world: None, kinds=("pods", "services", "endpointslices"), event=self._event)
        super().__init__(draw(self._story, self._colours, 0, seconds))
        self._background = Background(self._watch, self._failed)
        with self._news:
            if not self._news.wait_for(lambda: self._story.counts, 20):
                self.end()
                raise WaitTimeout(
                    f"The endpoints of {service} could not be seen: {self._observer.trouble or 'the cluster does not answer'}"
                )
        self.show(self._scene())

    async def _watch(self) -> None:
        following = asyncio.ensure_future(self._observer.run())
        try:
            while (left := self._from + self._seconds - time.monotonic()) > 0:
                await asyncio.wait({following}, timeout=min(0.5, left))  # the strips grow twice a second, also when nothing happens
                self.notice = self._observer.trouble
                if self.viewers or not settings.headless():
                    self.show(self._scene())
        finally:
            self._until = time.monotonic()
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    def _event(self, kind: str, event: str, item: Any) -> None:
        self._listed.add(kind)
        if self._listed < set(self._observer.kinds):
            return  # before each kind has been listed once, a pod may seem to be missing that only wasn't listed yet
        with self._news:
            if not self._story.counts:
                self._from = time.monotonic()  # the story begins with the first look
            if self._story.look(time.monotonic() - self._from, self._observer.world):
                self._news.notify_all()

    def _failed(self, error: BaseException) -> None:
        self.notice = f"Watching stopped: {words_of(error)}"

    def _scene(self) -> Scene:
        return draw(self._story, self._colours, time.monotonic() - self._from, self._seconds)

    def picture(self, timeout: float | None = None) -> View:
        """What has been seen so far, as a still picture, once nothing is on its way any more.

        Args:
            timeout: Seconds to wait for pods that are just starting or ending; by default as long as ``lab.wait_for`` waits.

        Raises:
            WaitTimeout: A pod is still starting or ending; says which.
        """
        limit = settings.wait_timeout() if timeout is None else timeout
        deadline = time.monotonic() + limit
        with self._news:
            # a change that was just asked for may not have begun, and what seems over may go on: a second of calm ends the story
            # (one that has ended, or was removed from the page, gives what it has seen: nothing more will come)
            while self._background.alive and self._news.wait_for(lambda: not self._story.settled(), CALM_SECONDS):
                if not self._news.wait_for(self._story.settled, max(deadline - time.monotonic(), 0)):
                    moving = [f"{life.name} is {life.state}" for life in self._story.lives.values() if life.state not in ("ready", "gone")]
                    raise WaitTimeout(f"After {limit:g} s the pods of {self._service} have not settled: {'; '.join(moving)}.")
            now = min(time.monotonic(), self._until) - self._from
            scene = draw(self._story, self._colours, now, now)
        self.show(scene)
        return View(scene)

    def end(self) -> None:
        """Stop watching for good: a story with a gap would not be true."""
        if self.viewers == 0:
            self._background.stop()

    def begin(self) -> None:
        """Nothing: it watches already."""


def draw(story: Story, colours: Colours, now: float, seconds: float) -> Scene:
    """The picture of the story so far."""
    lives = list(story.lives.values())
    end = max(now, 5.0)
    top = 66.0
    bottom = top + max(len(lives), 1) * ROW

    def across(at: float) -> float:
        return LEFT + (RIGHT - LEFT) * min(max(at, 0) / end, 1)

    going = now < seconds
    headline = f"Endpoints of {story.service}" + (f", watched for {now:.0f} s" if now >= 1 else "")
    shapes: list[Node] = [
        hatches(colours(life.uid) for life in lives),
        text(14, 26, headline, "title"),
        text(14, 47, "A thick strip is a pod’s state; the blue line under it: new connections may go there.", "soft"),
    ]
    shapes += _axis(end, top, bottom + 62, across)
    for place, life in enumerate(lives):
        shapes.append(_strip(life, top + place * ROW, now, across, colours(life.uid)))
    shapes.append(_membership(story, bottom + 12, now, across))
    if going and now:
        shapes.append(el("path", d=f"M{across(now):.1f} {top - 6:g}V{bottom + 62:g}", class_="way", key="now"))
    return Scene(WIDTH, bottom + 92, shapes, story.text(), _in_words(story, now))


def _axis(end: float, top: float, bottom: float, across: Any) -> list[Node]:
    step = next(step for step in (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200) if end / step <= 8)
    marks = []
    for place in range(int(end / step) + 1):
        x = across(place * step)
        marks.append(el("path", d=f"M{x:.1f} {top - 4:g}V{bottom:g}", class_="rule", opacity=0.5))
        if x < RIGHT - 8:
            marks.append(text(x, bottom + 17, f"{place * step} s", "small soft mid"))
    return [group(*marks, key="axis")]


def _pieces(history: list[tuple[float, Any]], now: float) -> list[tuple[float, float, Any]]:
    if not history:
        return []
    ends = [at for at, _ in history[1:]] + [now]
    return [(at, until, what) for (at, what), until in zip(history, ends, strict=True)]


def _strip(life: Life, y: float, now: float, across: Any, fill: str) -> Node:
    """One pod: its states as a thick strip, its membership as a line below."""
    short = f"…{life.name.rpartition('-')[2]}" if life.name.count("-") > 1 else life.name
    shapes = [
        el("title", f"{life.name} {life.address}: {life.told()}"),
        text(14, 16, fit(short, LEFT - 70, 12, mono=True), "mono small"),
        text(LEFT - 12, 16, end_of(life.address), "mono small soft end"),
    ]
    for begin, until, state in _pieces(life.states, now):
        if state == "gone":
            shapes.append(text(across(begin) + 8, 16, "gone", "small soft") if across(begin) < RIGHT - 40 else None)
            continue
        x, wide = across(begin), max(across(until) - across(begin), 1.5)
        look = {"fill": fill, "stroke": fill}
        ink = f"fill:{ink_on(fill)}"
        if state in ("pending", "failed", "done"):
            look, ink = {"fill": "none", "stroke": fill, "stroke_dasharray": "4 3"}, None
        elif state == "not ready":
            look, ink = {"fill": f"url(#{hatch_id(fill)})", "stroke": fill}, None
        elif state == "terminating":
            look, ink = {"fill": fill, "stroke": fill, "fill_opacity": 0.28, "stroke_opacity": 0.5}, None
        shapes.append(el("rect", x=round(x, 1), y=1, width=round(wide, 1), height=22, rx=3, **look))
        if width_of(state, 12) + 8 < wide:
            if state == "not ready":
                shapes.append(el("rect", x=x + 4, y=4, width=width_of(state, 12) + 4, height=16, rx=3, class_="paper"))
            shapes.append(text(x + 6, 16, state, "small", style=ink))
    for begin, until, how in _pieces(life.membership, now):
        if how != "out":
            line = f"M{across(begin):.1f} 30H{max(across(until), across(begin) + 1.5):.1f}"
            shapes.append(el("path", d=line, class_="link", stroke_width=4, stroke_dasharray="3 4" if how == "serving" else None))
    return group(*shapes, key=f"pod:{life.uid}", x=0, y=y)


def _membership(story: Story, y: float, now: float, across: Any) -> Node:
    """How many addresses are ready, as a strip of numbers."""
    shapes = [text(14, 17, "EndpointSlice", "strong small"), text(14, 33, "ready addresses", "small soft")]
    most = max([number for _, number in story.counts] or [1]) or 1
    for begin, until, number in _pieces(story.counts, now):
        x, wide = across(begin), max(across(until) - across(begin), 1.5)
        high = 4 + 30 * number / most
        shapes.append(
            el(
                "rect",
                x=round(x, 1),
                y=round(38 - high, 1),
                width=round(wide, 1),
                height=round(high, 1),
                class_="steps" if number else "none",
            )
        )
        if wide > 16:
            shapes.append(text(x + wide / 2, 52 if not number else 33, str(number), "small mid strong " + ("bad" if not number else "")))
    return group(*shapes, key="slice", x=0, y=y)


def _in_words(story: Story, now: float) -> str:
    lines = [story.text()]
    for life in story.lives.values():
        moments = ", ".join(f"{state} from {at:.1f} s" for at, state in life.states)
        lines.append(f"{life.name} {life.address}: {moments}")
    lines.append("ready addresses: " + ", ".join(f"{number} from {at:.1f} s" for at, number in story.counts))
    return "\n".join(lines)
