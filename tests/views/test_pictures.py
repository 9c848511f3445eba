"""The pictures as such: whole, readable, honest about states, and with a text twin that chance doesn't change."""

import dataclasses
import datetime
import re

import pytest
from view_objects import busy_world, endpoint_slice, keys, parsed, pod, service, suffix, texts, world

from servicelab import certificates
from servicelab.views import certificate_card, endpoints_over_time, packet_path, port_map, topology, who_answered
from servicelab.views.drawing import Colours, end_of, pod_circle
from servicelab.views.path_evidence import Path, Step
from servicelab.views.story import Story
from servicelab.views.svg import SVG_MAY, Scene, width_of
from servicelab.views.theme import DARK, LIGHT, OWNER_FILLS, STYLE, ink_on
from servicelab.views.traffic import Tally


def some_path() -> Path:
    path = Path("curl", "10.244.1.4", "worker", "http://my-nginx", service="my-nginx", dns="10.96.0.10", dialled="10.96.0.77:80", code=200)
    path.reached, path.target = "10.244.2.4:80", (f"my-nginx-66b6c48dd5-{suffix()}", "worker2")
    path.steps = [Step(key, f"what happens: {key} " * 9, "worker", "nft list <&>", ("evidence " * 30,)) for key in
                  ("name", "route", "rule", "rewrite", "arrive", "back")]  # fmt: skip
    return path


def some_story() -> Story:
    story = Story("my-nginx")
    one, two = pod("my-nginx-66b6c48dd5-aaaaa", owner="my-nginx"), pod("my-nginx-66b6c48dd5-bbbbb", owner="my-nginx", ip="10.244.2.7")
    web = service("my-nginx")
    story.look(0.0, world([one], [web], [endpoint_slice("my-nginx", one)]))
    story.look(3.0, world([pod(one["metadata"]["name"], owner="my-nginx", deleting=True), two], [web], [endpoint_slice("my-nginx", two)]))
    story.look(6.0, world([two], [web], [endpoint_slice("my-nginx", two)]))
    return story


def some_tally(seen) -> Tally:
    tally = Tally(sent=9)
    for number, endpoint in enumerate(seen.endpoints("my-nginx")):
        tally.answer(number, 200, "")
        tally.logged(number, endpoint.pod_uid)
    tally.answer(98, 0, "Connection timed out")
    tally.names["uid-old"] = ("my-nginx-66b6c48dd5-old", "10.244.1.99")
    tally.answer(99, 200, "")
    tally.logged(99, "uid-old")
    return tally


def scenes() -> dict[str, Scene]:
    seen = busy_world()
    card = certificates.describe(certificates.self_signed("my-nginx", ["my-nginx", "my-nginx.default.svc"], key_type="ec").certificate)
    path = some_path()
    return {
        "topology": topology.draw(seen, "default", Colours()),
        "empty": topology.draw(world(), "default", Colours()),
        "fifty": topology.draw(busy_world(50), "default", Colours()),
        "who": who_answered.draw(seen, some_tally(seen), "my-nginx", "curl", "http://my-nginx", Colours(), 9),
        "story": endpoints_over_time.draw(some_story(), Colours(), 8, 60),
        "path": packet_path.draw(path),
        "step": packet_path.draw(path, 4),
        "ports": port_map.draw(seen.service("my-nginx"), seen),
        "card": certificate_card.draw(card, "in Secret x", "my-nginx"),
    }


@pytest.mark.parametrize("name", scenes())
def test_a_picture_stands_alone(name):
    scene = scenes()[name]
    svg, tree = scene.svg(), parsed(scene)
    assert "\n" not in svg  # a stored notebook masks it with a regular expression that ends at the line
    assert tree.get("role") == "img"
    assert scene.text in tree.get("aria-label")
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg|my-nginx)|<script|@import|<image", svg)
    width, height = map(float, tree.get("viewBox").split()[2:])
    for shape in tree.iter():
        tag = shape.tag.partition("}")[2]
        assert tag in SVG_MAY, f"{tag} is not in the set of shapes that the browser's renderer is tried with"
        if tag == "rect" and shape.get("x") and shape.get("width"):
            assert float(shape.get("width")) >= 0
    assert width == 760
    assert 60 < height < 3000


def test_text_is_never_smaller_than_twelve_and_colours_are_readable():
    assert min(float(size) for size in re.findall(r"font-size:(\d+)px", STYLE)) >= 12
    for theme in (LIGHT, DARK):
        for ink in ("ink", "soft", "good", "bad", "packet", "service"):
            for ground in ("paper", "room", "pale"):
                assert contrast(theme[ink], theme[ground]) >= 4.5, (ink, ground)
    for fill in OWNER_FILLS:
        assert contrast(fill, ink_on(fill)) >= 4.5, fill


def contrast(one: str, two: str) -> float:
    """The contrast ratio of WCAG 2."""

    def light(colour):
        digits = colour.lstrip("#")
        digits = "".join(d * 2 for d in digits) if len(digits) == 3 else digits
        parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
        red, green, blue = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    bright, dark = sorted((light(one), light(two)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


@pytest.mark.parametrize(
    ("ip", "radius", "shown"),
    [("10.244.2.203", 24, "·2.203"), ("10.244.2.203", 20, "·203"), ("10.244.12.203", 24, "·203")],
)
def test_the_end_of_an_address_fits_into_its_circle(ip, radius, shown):
    picture = Scene(60, 60, pod_circle(radius, "ready", "#0072B2", end_of(ip)), "a pod", "a pod")
    assert f">{shown}</text>" in picture.svg() and width_of(shown, 12, mono=True) < 2 * radius


def test_topology_draws_what_is_there_and_nothing_else():
    seen = busy_world()
    scene = topology.draw(seen, "default", Colours())
    assert sorted(keys(scene, "pod")) == sorted(p.uid for p in seen.pods())
    assert len(keys(scene, "service")) == 3
    assert len(keys(scene, "node")) == 3
    ready = [e for e in seen.endpoints("my-nginx") if e.ready]
    ending = [e for e in seen.endpoints("my-nginx") if e.terminating]
    assert sorted(keys(scene, "line")) == sorted(
        f"uid-svc-my-nginx:{e.pod_uid}" for e in ready + ending
    )  # none to the pod that isn't ready
    said = texts(scene.children)
    assert {"no endpoints", "10.96.0.77: no endpoints", "waiting for a node", "outside", "port 30080"} <= set(said)
    assert any("(CrashLoopBackOff)" in words for words in said)


def test_pods_keep_their_place_in_the_boxes_of_their_nodes_also_when_there_are_fifty():
    seen = busy_world(50)
    scene = topology.draw(seen, "default", Colours())
    boxes = {key[5:]: (a["tx"], a["ty"], c[0][2]["width"], c[0][2]["height"]) for _, key, a, c in scene.children if key.startswith("node:")}
    places = {key[4:]: (a["tx"], a["ty"]) for _, key, a, _ in scene.children if key.startswith("pod:")}
    assert len(set(places.values())) == len(places)
    for each in seen.pods():
        if each.node:
            (x, y), (left, top, wide, high) = places[each.uid], boxes[each.node]
            assert left < x < left + wide, each.name
            assert top < y < top + high, each.name
    assert scene.height < 1000


def test_a_colour_stays_an_owners_as_others_come_and_go():
    colours = Colours()
    topology.draw(busy_world(), "default", colours)
    before = colours("my-nginx")
    topology.draw(world([pod("another"), pod("a-first")]), "default", colours)
    topology.draw(busy_world(), "default", colours)
    assert colours("my-nginx") == before


def test_text_twins_do_not_change_with_generated_names_or_with_the_nodes_that_chance_chose():
    seen, again = busy_world(), busy_world()
    for each in again.objects["pods"].values():
        if each["spec"].get("nodeName"):
            each["spec"]["nodeName"] = "worker2"
    assert topology.draw(seen, "default", Colours()).text == topology.draw(again, "default", Colours()).text
    for key in ("who", "story", "card"):
        assert scenes()[key].text == scenes()[key].text
    assert "6 not ready" not in topology.draw(seen, "default", Colours()).text


def test_who_answered_counts_in_words_and_shows_failures_and_pods_that_went():
    scene = scenes()["who"]
    assert scene.text.splitlines()[0] == "9 requests to http://my-nginx: 8 answered, by 8 pods of my-nginx, of which 2 are ready no more"
    assert "not answered: 1 × Connection timed out" in scene.text
    assert any("✗ 1 × Connection timed out" in words for words in texts(scene.children))
    assert "uid-old" in keys(scene, "pod")


def test_port_map_follows_names_and_says_what_leads_nowhere():
    ports = [{"port": 80, "nodePort": 30080, "targetPort": "web"}, {"port": 81, "targetPort": 8443}, {"port": 82, "targetPort": "nope"}]
    seen = world([pod("a")], [service("a", ports=ports), service("none"), service("free", selector={})])
    rows = port_map.rows_of(seen.service("a"), seen)
    assert [(r.node_port, r.port, r.target, r.container) for r in rows] == [(30080, 80, 80, "nginx"), (0, 81, 8443, ""), (0, 82, 0, "")]
    assert not rows[0].fault
    assert "no container declares port 8443 (they declare 80)" in rows[1].fault
    assert "no container names a port nope" in rows[2].fault
    assert "no pod has the labels" in port_map.rows_of(seen.service("none"), seen)[0].fault
    assert port_map.rows_of(seen.service("free"), seen)[0].fault == ""
    assert "nodePort 30080 → port 80/TCP → targetPort web = 80 → container nginx" in port_map.summary(seen.service("a"), seen)


class LabWhoseSlicesFollow:
    """Two pods are ready; the EndpointSlice says so of both at the third look."""

    def __init__(self) -> None:
        self.pods = [pod("web-1", labels={"app": "web"}), pod("web-2", labels={"app": "web"}, ip="10.244.2.6")]
        self.slices = iter([(), self.pods[:1], self.pods])

    def get(self, kind: str, name: str) -> None:
        """What a look for the Service finds doesn't matter here."""

    def list(self, kind: str) -> list[dict]:
        answers = {"pods": lambda: self.pods, "services": lambda: [service("web")], "nodes": list}
        return answers.get(kind, lambda: [endpoint_slice("web", *next(self.slices))])()


def test_port_map_waits_for_what_the_endpoint_slices_say_of_ready_pods(monkeypatch):
    assert port_map.PortMap(LabWhoseSlicesFollow(), "web").text().startswith("Service web (ClusterIP), 2 ready pods")
    monkeypatch.setattr(port_map, "SETTLE_SECONDS", 0.0)  # a difference that stays is shown
    assert port_map.PortMap(LabWhoseSlicesFollow(), "web").text().startswith("Service web (ClusterIP), 0 ready pods")


def test_the_certificate_card_judges_by_names_and_by_time():
    card = certificates.describe(certificates.self_signed("cn-only", ["my-nginx", "10.96.0.1"], key_type="ec").certificate)
    now = card.not_before + datetime.timedelta(days=3)
    assert "accepted" in certificate_card.draw(card, "", "my-nginx", now).text
    assert "refused" in certificate_card.draw(card, "", "cn-only", now).text
    assert "expired now" in certificate_card.draw(card, "", "", card.not_after + datetime.timedelta(days=1)).text
    assert "not yet valid now" in certificate_card.draw(card, "", "", card.not_before - datetime.timedelta(days=1)).text
    nameless = dataclasses.replace(card, names=(), addresses=())
    assert any("no name to compare" in words for words in texts(certificate_card.draw(nameless, "").children))


def test_each_step_of_the_path_has_a_scene_with_the_packet_in_another_place():
    path = some_path()
    steps = [packet_path.draw(path, number) for number in range(1, 7)]
    places = [next((a["tx"], a["ty"]) for _, key, a, _ in scene.children if key == "packet") for scene in steps]
    assert len(set(places)) == 6
    assert [len(keys(scene, "way")) for scene in steps] == [1, 2, 3, 4, 5, 6]
    assert steps[0].text == packet_path.summary(path)
