"""The JavaScript of the widgets in a real browser, on a page with a model of the test's own: part of ``./lab test --browser``."""

from __future__ import annotations

import contextlib
import os

import mounting
import pytest
from test_pictures import some_path
from view_objects import busy_world, pod, service, world

from harness import ROOT
from servicelab.classroom.board import columns
from servicelab.quizzes import Answer, Quiz
from servicelab.quizzes.widget import QuizWidget
from servicelab.views import packet_path, topology
from servicelab.views.base import View
from servicelab.views.class_board import ClassBoard
from servicelab.views.drawing import Colours
from servicelab.views.packet_path import PacketPath
from servicelab.views.who_answered import WhoAnswered

pytestmark = pytest.mark.skipif(not os.environ.get("SERVICELAB_BROWSER"), reason="a browser test: ./lab test --browser")


@pytest.fixture(scope="module")
def browser():
    pytest.importorskip("playwright.sync_api")
    if mounting.chromium() is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    with mounting.browser() as opened:
        yield opened


@pytest.fixture
def mount(browser, tmp_path):
    """Mounts a widget class's script with given traits; fails at the end if the page had an error."""
    with contextlib.ExitStack() as pages:
        yield lambda widget, **traits: pages.enter_context(mounting.mounted(browser, tmp_path, widget, **traits))


def scene_of(seen):
    return topology.draw(seen, "default", Colours()).as_json()


def test_a_redrawn_scene_keeps_its_shapes_moves_them_and_lets_the_lost_ones_fade(mount):
    pods = [pod(f"web-66b6c48dd5-aaaa{n}", owner="web", ip=f"10.244.1.{n}") for n in range(1, 4)]
    page = mount(View, scene=scene_of(world(pods, [service("web")])))
    page.evaluate("for (const g of document.querySelectorAll('svg > g')) g.mark = true")
    counted = "[...document.querySelectorAll('svg > g')].filter((g) => g.slName.startsWith('pod:')).length"
    assert page.evaluate(counted) == 3
    successor = pod("web-66b6c48dd5-bbbbb", owner="web", node="worker2", ip="10.244.2.9")
    came, kept, fading = page.evaluate(
        """async (scene) => {
          model.set("scene", scene);
          await new Promise(requestAnimationFrame);  // in the frame of the drawing: what fades is gone half a second later
          const pods = [...document.querySelectorAll("svg > g")].filter((g) => g.slName.startsWith("pod:uid-web-66b6c48dd5-"));
          const marked = pods.filter((g) => g.mark);
          return [pods.filter((g) => !g.mark).map((g) => g.slName), marked.length, document.querySelectorAll(".sl-leave").length];
        }""",
        scene_of(world([*pods[1:], successor], [service("web")])),
    )
    assert came == ["pod:uid-web-66b6c48dd5-bbbbb"]
    assert kept == 3  # two that stay, as the same elements, and one that fades
    assert fading == 1
    page.wait_for_function("document.querySelectorAll('.sl-leave').length === 0")
    assert page.evaluate(counted) == 3


def test_a_picture_that_has_shrunk_is_at_rest_only_when_its_lost_shapes_are_out(mount):
    """Lesson tests look for texts that reach out of a picture; a faded shape below a smaller one isn't such a text."""
    waiting = pod("web-66b6c48dd5-aaaaa", owner="web", node="", ip="", phase="Pending", ready=False)
    page = mount(View, scene=scene_of(world([waiting], [])))
    page.add_script_tag(path=ROOT / "tests/browser/page.js")
    picture = "document.querySelector('#cell svg')"
    page.wait_for_function("!lesson.moving()")
    assert page.evaluate(f"lesson.outOfPicture({picture})") == []
    moving, out = page.evaluate(
        """async (scene) => {
          model.set("scene", scene);
          await new Promise(requestAnimationFrame);
          document.getAnimations().forEach((animation) => animation.finish());  // what late timers of a busy machine bring about
          return [lesson.moving(), lesson.outOfPicture(document.querySelector("#cell svg"))];
        }""",
        scene_of(world([], [])),
    )
    assert moving and "web ×1" in out
    page.wait_for_function("!lesson.moving()")
    assert page.evaluate(f"lesson.outOfPicture({picture})") == []


def test_what_python_draws_and_what_the_browser_draws_is_the_same(mount):
    scene = topology.draw(busy_world(), "default", Colours())
    page = mount(View, scene=scene.as_json())
    count = "(root) => [...root.querySelectorAll('*')].filter((e) => e.localName !== 'style').length"
    still = page.evaluate(
        f"(svg) => {{ const d = document.createElement('div'); d.innerHTML = svg; return ({count})(d.firstChild); }}", scene.svg()
    )
    assert page.evaluate(f"({count})(document.querySelector('#cell svg'))") == still - 1  # all but the paper
    assert page.get_attribute("#cell svg", "aria-label") == scene.label
    assert page.get_attribute("#cell svg", "role") == "img"


def test_however_fast_the_cluster_changes_a_frame_has_one_drawing(mount):
    """How long a drawing takes is measured by benchmarks/views.py."""
    seen = busy_world(50)
    one = scene_of(seen)
    for each in seen.pods()[:5]:
        seen.apply("pods", "MODIFIED", pod(each.name, owner="my-nginx", node=each.node, ip=each.ip, ready=False))
    page = mount(View, scene=one)
    page.evaluate("window.asked = 0; const ask = requestAnimationFrame; requestAnimationFrame = (f) => (asked += 1, ask(f)); null")
    changes = "([one, other]) => { for (let n = 0; n < 20; n += 1) model.set('scene', n % 2 ? one : other); }"
    page.evaluate(changes, [scene_of(seen), one])
    assert page.evaluate("asked") == 1
    shown = "() => document.querySelector('#cell svg').textContent"
    page.wait_for_function(f"(text) => ({shown})() === text", arg=mount(View, scene=scene_of(seen)).evaluate(shown))
    page.evaluate(changes, [one, scene_of(seen)])
    assert page.evaluate("asked") == 2


def test_a_view_tells_python_that_it_is_seen_and_cleans_up(mount):
    page = mount(View, scene=scene_of(busy_world()), notice="The cluster does not answer.")
    assert page.evaluate("saved.at(-1).viewers") == 1
    assert page.inner_text(".sl-notice") == "The cluster does not answer."
    page.evaluate("model.set('notice', '')")
    assert not page.is_visible(".sl-notice")
    assert page.get_attribute(".sl-view", "data-theme") == "light"
    page.evaluate("document.body.dataset.jpThemeLight = 'false'")
    page.wait_for_function("document.querySelector('.sl-view').dataset.theme === 'dark'")
    page.evaluate("unmount()")
    assert page.evaluate("saved.at(-1).viewers") == 0
    assert page.evaluate("listening()") == 0


def test_the_packets_path_goes_by_buttons_and_by_keys(mount):
    path = some_path()
    steps = [packet_path.draw(path, number).as_json() for number in range(1, 7)]
    page = mount(PacketPath, scene=packet_path.draw(path).as_json(), scenes=steps, step=0)
    assert page.inner_text("[role=status]:not(.sl-notice)") == "all 6 steps"
    page.click("text=step by step")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.inner_text("[role=status]:not(.sl-notice)") == "step 3 of 6"
    page.wait_for_function("[...document.querySelectorAll('svg > g')].some((g) => g.slName === 'packet')")
    for _ in range(9):
        page.keyboard.press("ArrowRight")
    assert page.evaluate("saved.at(-1).step") == 6
    page.keyboard.press("ArrowLeft")
    assert page.evaluate("saved.at(-1).step") == 5
    page.click("text=all at once")
    assert page.evaluate("saved.at(-1).step") == 0


def test_who_answered_sends_dots_and_commands(mount):
    from servicelab.views import who_answered
    from servicelab.views.traffic import Tally

    seen = busy_world(2)
    scene = who_answered.draw(seen, Tally(), "my-nginx", "curl", "http://my-nginx", Colours(), 9)
    uid = next(endpoint.pod_uid for endpoint in seen.endpoints("my-nginx"))
    page = mount(WhoAnswered, scene=scene.as_json(), rate=5.0, running=False, fresh={"seq": 0, "dots": []})
    dots = "document.querySelectorAll('.dot').length"  # asked in one breath with the sending: a dot flies for less than a second
    first = "(uid) => { model.set('fresh', { seq: 1, dots: [[1, uid, 200], [2, '', 0], [3, 'unknown', 200]] }); return " + dots + "; }"
    assert page.evaluate(first, uid) == 2  # an answer, and a failure; nothing for a pod that isn't drawn
    page.wait_for_function("document.querySelectorAll('.dot').length === 0")
    many = "(uid) => { for (let n = 0; n < 500; n += 1) model.set('fresh', { seq: n + 2, dots: [[n, uid, 200]] }); return " + dots + "; }"
    assert page.evaluate(many, uid) == 40
    page.click("text=send requests")
    assert page.evaluate("saved.at(-1).running") is True
    page.focus("input[type=range]")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("saved.at(-1).rate") == 6
    assert "6 requests a second" in page.inner_text(".controls")


def test_a_quiz_is_answered_with_the_keyboard_alone(mount):
    asked = Quiz("Which `<b>`?", [Answer("one", "Because *a*."), Answer("two", "Because b.", right=True), Answer("three", "Because c.")])
    shown = QuizWidget("98.x", asked)
    page = mount(QuizWidget, key="98.x", question=shown.question, answers=shown.answers, chosen=-1)
    assert page.inner_text(".sl-question") == "Which <b>?"
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("saved.length") == 0  # to look at an answer isn't to choose it
    page.keyboard.press("Enter")
    assert page.evaluate("saved.at(-1).chosen") == 1
    assert page.inner_text(".sl-reason:not([hidden])") == "Right. Because b."
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Space")
    assert page.inner_text(".sl-reason:not([hidden])") == "Not this one. Because a."
    assert page.locator("[role=radio][aria-checked=true]").count() == 1
    page.evaluate("model.set('notice', 'Your answer was not kept: why')")
    assert page.is_visible(".sl-notice")
    page.evaluate("unmount()")
    assert page.evaluate("listening()") == 0


def board_row(key, number, *states, **rest):
    stuck = {"stuck": "", "stuckOn": "", "stuckMinutes": 0, "hint": "", "idle": 0, "lesson": "01", "passed": states.count("passed")}
    cells = [[state, 2, 7, "look" if state == "failing" else ""] for state in states]
    return {"key": key, "name": f"<b>{key}</b>", "number": number, "cells": cells, **stuck, **rest}


def test_the_teachers_board_keeps_rows_hides_names_and_asks_before_it_resets(mount):
    checks = [{"key": f"0{n}.x", "lesson": f"0{n}", "title": f"x{n} holds"} for n in (1, 2)]
    stuck = {"stuck": "02.x", "stuckOn": "x2 holds", "stuckMinutes": 7, "hint": "hint 2: <look>"}
    rows = [board_row("ada", 1, "passed", "failing", **stuck), board_row("bob", 2, "untried", "untried", idle=6)]
    page = mount(ClassBoard, checks=checks, rows=rows, line="2 students", hide_names=False, resetting=[])
    page.evaluate("() => { window.sent = []; model.send = (message) => sent.push(message); }")
    page.evaluate("() => { window.setTimeout = () => 1; }")  # however slow this machine is, the question stands until it is answered
    assert page.inner_text("tbody[data-student=ada] th") == "<b>ada</b>"
    squares = page.query_selector_all("tbody[data-student=ada] .cell")
    assert [square.inner_text() for square in squares] == ["✓", "✗"]
    assert squares[1].get_attribute("class").split() == ["cell", "failing", "long", "here"]
    assert "failing for 7 min, 2 tries" in squares[1].get_attribute("aria-label")
    assert page.inner_text("tbody[data-student=ada] td.stuck") == "7 min on “x2 holds”: hint 2: <look>"
    idle = "tbody[data-student={}] td.count:nth-of-type(2)"
    assert page.inner_text(idle.format("ada")) == "" and page.inner_text(idle.format("bob") + ".long") == "6 min"
    page.click(".bar button")
    assert page.inner_text("tbody[data-student=ada] th") == "Student 1" and "ada" not in page.inner_text("#cell")
    button = page.query_selector("tbody[data-student=bob] button")
    button.click()
    assert page.evaluate("sent") == [] and button.inner_text() == "really reset?"
    page.evaluate("(rows) => model.set('rows', rows)", [rows[0], board_row("bob", 2, "passed", "untried")])
    assert button.inner_text() == "really reset?", "news from the class must not take the question away"
    button.click()
    assert page.evaluate("sent") == [{"do": "reset", "student": "bob"}]
    page.evaluate("model.set('resetting', ['bob'])")
    assert button.inner_text() == "resetting…" and button.get_attribute("aria-disabled") == "true"
    page.evaluate("(rows) => model.set('rows', rows)", [board_row("bob", 1, "passed", "untried")])
    assert page.query_selector("tbody[data-student=ada]") is None
    page.evaluate("unmount()")
    assert page.evaluate("listening()") == 0


def test_the_whole_board_fits_beside_jupyterlabs_files(mount):
    """All lessons of a student in one line, at a window of 1280 pixels."""
    checks = [{"key": one.key, "lesson": one.lesson, "title": one.title} for one in columns()]
    rows = [board_row("somebody's name", 12, *["passed"] * len(checks), idle=12)]
    page = mount(ClassBoard, checks=checks, rows=rows, line="1 student", hide_names=True, resetting=[])
    page.evaluate("document.body.style.width = '1100px'")
    assert page.evaluate("(board) => board.scrollWidth - board.clientWidth", page.query_selector(".sl-board")) == 0
