"""Who answered: real requests through a Service, each a dot that travels to the pod whose log has it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import traitlets

from servicelab import settings
from servicelab.errors import LabError, NotFound
from servicelab.rules import rules_for
from servicelab.views.base import View, script
from servicelab.views.drawing import Colours, count, end_of, hatches, name_tag, pill, pod_circle, square
from servicelab.views.observe import Background, words_of
from servicelab.views.svg import Node, Scene, el, fit, group, text
from servicelab.views.topology import snapshot
from servicelab.views.traffic import Tally, Traffic
from servicelab.views.world import World

if TYPE_CHECKING:
    from servicelab.lab import Lab

WIDTH = 760.0
PILL_X, PILL_WIDE = 156.0, 196.0  # who_answered.js sends its dots through here
POD_X, BAR_X, BAR = 436.0, 548.0, 126.0
MAX_RATE = 20.0
SETTLE_SECONDS = 30.0


class WhoAnswered(View):
    """Requests at a chosen rate, and who answered them. Made by ``lab.view.who_answered()``.

    Attributes:
        rate: Requests a second; the slider.
        running: Whether requests are being sent; the button.
        fresh: The answers since the last message: ``{"seq": n, "dots": [[number, pod uid or "", status], …]}``.
    """

    _esm = script("who_answered.js")

    rate = traitlets.Float(5.0).tag(sync=True)
    running = traitlets.Bool(False).tag(sync=True)
    fresh = traitlets.Dict({"seq": 0, "dots": []}).tag(sync=True)

    def __init__(self, lab: Lab, service: str, *, rate: float, seconds: float, client: str, url: str | None) -> None:
        if not 0 < rate <= MAX_RATE:
            raise LabError(f"rate={rate:g} requests a second can't be sent here: give more than 0 and at most {MAX_RATE:g}.")
        if not 0 < seconds <= 600:
            raise LabError(f"seconds={seconds:g} is no time to send for: give more than 0 and at most 600.")
        self._lab, self._service = lab, service
        self._client = lab.pod(client).name
        self._url = url or _url_of(lab, service)
        self._total = max(1, round(rate * seconds))
        self._colours = Colours()
        self._background: Background | None = None
        self._begun = False
        self._traffic = self._new_traffic()
        self.tally = self._traffic.tally
        world = snapshot(lab)
        super().__init__(self._scene(world), rate=rate)
        self.observe(self._switched, names="running")
        if settings.headless():  # nobody looks: send it all now, so that what is stored is the end of it
            self._run_now(seconds)
            self._begun = True  # and not once more, should a browser show it

    def _new_traffic(self) -> Traffic:
        return Traffic(
            self._lab, self._service, self._url, self._client, rate=lambda: self.rate, total=self._total, changed=self._changed
        )  # fmt: skip

    def _scene(self, world: World) -> Scene:
        return draw(world, self.tally, self._service, self._client, self._url, self._colours, self._total)

    def _changed(self, world: World, tally: Tally, fresh: list[tuple[int, str, int]]) -> None:
        if fresh:
            self.fresh = {"seq": self.fresh["seq"] + 1, "dots": [list(dot) for dot in fresh]}
        self.notice = self._traffic.observer.trouble
        self.show(self._scene(world))

    async def _requests(self) -> None:
        await self._traffic.run()
        self.show(self._scene(self._traffic.observer.world))
        self.running = False

    def _failed(self, error: BaseException) -> None:
        self.notice = words_of(error)
        self.running = False

    def _switched(self, change: dict[str, Any]) -> None:
        if change["new"]:
            if self._background is None or not self._background.alive:
                self._traffic = self._new_traffic()
                self.tally = self._traffic.tally
                self._background = Background(self._requests, self._failed)
        elif self._background is not None:
            self._background.stop()

    def _run_now(self, seconds: float) -> None:
        _settle(self._lab, self._service, self._client)
        failure: list[BaseException] = []
        background = Background(self._requests, failure.append)
        background.thread.join(seconds * 3 + 60)
        if background.alive:
            background.stop(5)
            raise LabError(
                f"{self._total} requests to {self._url} were not over after {seconds * 3 + 60:g} seconds; {self.tally.answered} were."
            )
        if failure:
            raise failure[0]

    def begin(self) -> None:
        """Start sending, the first time the view is seen; later the button does."""
        if not self._begun:
            self._begun = True
            self.running = True

    def end(self) -> None:
        """Stop sending."""
        self.running = False


def _url_of(lab: Lab, service: str) -> str:
    """The URL of a Service's first port: https where the port is 443 or says so in its name."""
    obj = lab.get("services", service)
    ports = obj["spec"].get("ports") or []
    if not ports:
        raise NotFound(f"The Service {service} has no port to send to (kubectl get svc {service} -o yaml).")
    port = ports[0]["port"]
    if port == 443 or ports[0].get("name", "").startswith("https"):
        return f"https://{service}" + ("" if port == 443 else f":{port}")
    return f"http://{service}" + ("" if port == 80 else f":{port}")


def _settle(lab: Lab, service: str, client: str) -> None:
    """Wait, for a while, until what an earlier cell changed has reached the client's node: what is stored should not depend on haste."""
    node = lab.pod(client).node
    deadline = time.monotonic() + SETTLE_SECONDS
    while time.monotonic() < deadline:
        world = snapshot(lab)
        seen = world.service(service)
        endpoints = {endpoint.address for endpoint in world.endpoints(service) if endpoint.ready}
        pods = {pod.ip for pod in world.selected(seen) if pod.state not in ("done", "failed")} if seen else set()
        if seen and seen.selector and pods - endpoints:
            time.sleep(0.2)
            continue  # one is starting or ending
        if not (seen and endpoints and lab.nodes_allowed and lab.quick_nodes and not seen.headless):
            return
        rules = rules_for(lab.nodes[node].run("nft list table ip kube-proxy"), seen.ip, seen.ports[0][0])
        if not rules.targets or {target.partition(":")[0] for target in rules.targets} == endpoints:
            return
        time.sleep(0.2)


def _rows(world: World, tally: Tally, service: str) -> list[tuple[str, str, str, str]]:
    """The pods to draw, as (uid, name, address, state): those in the EndpointSlices, and those that answered and have gone."""
    states = {seen.uid: seen.state for seen in world.pods()}
    now = [(e.pod_uid or e.address, e.pod_name or e.address, e.address, states.get(e.pod_uid, "ready")) for e in world.endpoints(service)]
    known = {uid for uid, *_ in now}
    gone = [(uid, *tally.names[uid], "gone") for uid in tally.names if uid not in known and tally.by_pod[uid]]
    return [*now, *gone]


def draw(world: World, tally: Tally, service: str, client: str, url: str, colours: Colours, total: int) -> Scene:
    """The picture of one moment."""
    rows = _rows(world, tally, service)
    step = 56.0 if len(rows) <= 10 else 26.0
    radius = 24.0 if len(rows) <= 10 else 10.0
    top = 84.0
    extra = [(reason, number) for reason, number in tally.failed.most_common(3)]
    if tally.unknown and tally.sent == total:
        extra.append(("answered, but no pod has it in its log", tally.unknown))
    height = top + max(len(rows), 2) * step + (len(extra) * 24 + 14 if extra else 0) + 30
    middle = top + max(len(rows), 2) * step / 2
    most = max([*tally.by_pod.values(), 1])

    shapes: list[Node] = [hatches(colours(uid) for uid, *_ in rows)]
    shapes.append(text(14, 26, _headline(tally, rows), "title"))
    shapes.append(text(14, 47, f"{client} asks {url}, each time on a new connection; who answered is read from the pods’ logs.", "soft"))
    seen = world.service(service)
    end = PILL_X + PILL_WIDE
    shapes.append(el("path", d=f"M100 {middle:g}H{PILL_X:g}", class_="way"))
    for place, (uid, _, _, state) in enumerate(rows):
        y = top + step * (place + 0.5)
        if state == "ready":
            line = f"M{end:g} {middle:g}C{end + 40:g} {middle:g} {POD_X - radius - 40:g} {y:g} {POD_X - radius:g} {y:g}"
            shapes.append(group(el("path", d=line, class_="link"), key=f"line:{uid}"))
    shapes.append(square(14, middle - 25, 86, client, "client pod", "client"))
    if seen:
        note = "" if any(state == "ready" for *_, state in rows) else "no endpoints"
        shapes += [pill(seen, PILL_X, middle - 23, PILL_WIDE, note=note), name_tag(service, PILL_X + 30, middle - 23, "tag")]
    for place, row in enumerate(rows):
        shapes.append(_row(row, tally, top + step * (place + 0.5), radius, colours, most))
    y = top + max(len(rows), 2) * step + 20
    for reason, number in extra:
        shapes.append(text(POD_X - radius, y, fit(f"✗ {number} × {reason}", WIDTH - POD_X + radius - 10, 12), "small bad"))
        y += 24
    return Scene(WIDTH, height, shapes, summary(tally, service, url, rows), _in_words(tally, service, url, rows))


def _row(row: tuple[str, str, str, str], tally: Tally, y: float, radius: float, colours: Colours, most: int) -> Node:
    uid, name, address, state = row
    number = tally.by_pod[uid]
    share = f"{number}  ({100 * number / max(sum(tally.by_pod.values()), 1):.0f} %)"
    fill = colours(uid)
    label = f"…{name.rpartition('-')[2]}" if name.count("-") > 1 else name
    long, high = BAR * number / most, min(radius, 20.0)
    return group(
        el("title", f"{name} {address}: {state}, {count(number, 'answer')}"),
        *pod_circle(radius, "terminating" if state == "gone" else state, fill, end_of(address) if radius > 15 else ""),
        text(radius + 10, 0 if radius > 15 else 4, fit(label, 80, 12, mono=True), "mono small"),
        text(radius + 10, 15, state, "small " + ("soft" if state == "ready" else "bad")) if radius > 15 else None,
        el("rect", x=BAR_X - POD_X, y=-high / 2, width=long, height=high, rx=3, fill=fill, opacity=0.4 if state == "gone" else None),
        text(BAR_X - POD_X + long + 8, 4, share, "mono small"),
        key=f"pod:{uid}", x=POD_X, y=y,
    )  # fmt: skip


def _headline(tally: Tally, rows: list) -> str:
    if not tally.sent:
        return "Who answers?"
    answering = sum(1 for uid, *_ in rows if tally.by_pod[uid])
    failed = sum(tally.failed.values())
    return f"{tally.answered} of {count(tally.sent, 'request')} answered, by {count(answering, 'pod')}" + (
        f"; {failed} failed" if failed else ""
    )


def summary(tally: Tally, service: str, url: str, rows: list) -> str:
    """The text twin: how many were answered and by how many pods; who got how many is chance."""
    if not tally.sent:
        return f"requests to {url}: none sent yet"
    ready = {uid for uid, _, _, state in rows if state == "ready"}
    answering = {uid for uid in tally.by_pod if tally.by_pod[uid]}
    by = f"{len(answering)} of {count(len(ready), 'ready pod')} of {service}"
    if gone := answering - ready:
        by = f"{count(len(answering), 'pod')} of {service}, of which {len(gone)} {'is' if len(gone) == 1 else 'are'} ready no more"
    lines = [f"{count(tally.sent, 'request')} to {url}: {tally.answered} answered, by {by}"]
    lines += [f"  not answered: {number} × {reason}" for reason, number in sorted(tally.failed.items())]
    if tally.unknown:
        lines.append(f"  answered by a pod whose log doesn't say so: {tally.unknown}")
    return "\n".join(lines)


def _in_words(tally: Tally, service: str, url: str, rows: list) -> str:
    lines = ["Who answered.", summary(tally, service, url, rows)]
    return "\n".join([*lines, *(f"{name} {address} ({state}): {count(tally.by_pod[uid], 'answer')}" for uid, name, address, state in rows)])
