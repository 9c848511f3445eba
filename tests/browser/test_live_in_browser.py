"""What a person does with the widgets in the real JupyterLab: answers by keyboard, kills a pod under the picture, watches requests."""

from __future__ import annotations

import json

import pytest

from harness import eventually
from servicelab.progress import CONFIG_MAP
from servicelab.quizzes import find

HEADLESS = False  # the live views send and watch only for a person
CONNECT = "from servicelab import connect, quiz\nlab = connect(namespace={namespace!r})"
WEB = """\
lab.apply("run-my-nginx.yaml", replicas=2)
lab.apply("nginx-svc.yaml")
lab.apply("curl.yaml")
for what in ("deployment/my-nginx", "pod/curl", "service/my-nginx"):
    lab.wait_for(what)"""


@pytest.fixture
def opened(jupyter, open_notebook, fresh, request):
    """Opens a notebook of these cells, connected to a namespace of the test's own by its first cell."""

    def opened(*cells: str):
        name = jupyter.write(f"notebooks/{request.node.name}.ipynb", [CONNECT.format(namespace=fresh.name), *cells])
        return open_notebook(name)

    return opened


def text_of(outputs) -> str:
    return "".join("".join(output.get("text", "")) for output in outputs)


def test_a_quiz_is_answered_with_the_keyboard_and_the_answer_is_kept(opened, fresh):
    key = "00.what_is_an_address"
    answers = find(key).answers
    right = find(key).right
    page = opened(f"quiz({key!r})")
    page.run_all()
    page.assert_drawn()
    choices = page.cell("c1").query_selector_all("[role=radio]")
    choices[0].focus()
    for _ in range(right):
        page.page.keyboard.press("ArrowDown")
    page.page.keyboard.press("Space")
    page.until("([place]) => document.querySelectorAll('[role=radio]')[place].getAttribute('aria-checked') === 'true'", right)
    page.until("() => [...document.querySelectorAll('.sl-reason')].filter((reason) => reason.offsetHeight).length === 1")
    reason = page.page.evaluate("[...document.querySelectorAll('.sl-reason')].find((reason) => reason.offsetHeight).textContent")
    assert reason.startswith("Right.")

    def kept():
        found = json.loads(fresh.kubectl("get", "configmap", CONFIG_MAP, "-o", "json").stdout)["data"]
        entry = json.loads(found[f"quiz.{key}"])
        return (entry["saw"], entry["passed"])

    eventually(lambda: kept() == (answers[right].text, True))
    # another answer, by Enter: which JupyterLab would take for "edit this cell", were it not kept from it
    wrong = (right + 1) % len(answers)
    page.page.keyboard.press("ArrowDown")
    page.page.keyboard.press("Enter")
    page.until("([place]) => document.querySelectorAll('[role=radio]')[place].getAttribute('aria-checked') === 'true'", wrong)
    eventually(lambda: kept() == (answers[wrong].text, False))
    assert page.page.evaluate("jupyterapp.shell.currentWidget.content.mode") == "command"
    assert [cell["source"] for cell in page.cells()][1] == f"quiz({key!r})"
    page.run("c1")  # the lesson is opened another day
    page.until("([place]) => document.querySelectorAll('[role=radio]')[place]?.getAttribute('aria-checked') === 'true'", wrong)
    page.assert_drawn()


# Notes which of the picture's pods come and go, from now on.
WATCH = """() => {
  window.came = []; window.faded = [];
  const picture = document.querySelector(".sl-view svg");
  const name = (node) => node.slName?.startsWith("pod:") ? node.slName.slice(4) : undefined;
  new MutationObserver((changes) => {
    for (const { type, target, addedNodes } of changes) {
      if (type === "childList") for (const node of addedNodes) if (name(node)) window.came.push(name(node));
      if (type === "attributes" && name(target) && target.classList.contains("sl-leave")) window.faded.push(name(target));
    }
  }).observe(picture, { subtree: true, childList: true, attributes: true, attributeFilter: ["class"] });
}"""
UIDS = """[...document.querySelectorAll(".sl-view svg > g")]
  .filter((g) => g.slName?.startsWith("pod:") && !g.slLeaving).map((g) => g.slName.slice(4))"""


def test_a_pod_killed_under_the_topology_fades_and_its_successor_comes(opened, fresh):
    page = opened(WEB, "view = lab.view.topology()\nview", "print(view.viewers, view._observer.running)")
    page.run_all()
    page.assert_drawn()
    pods = {pod["metadata"]["uid"]: pod["metadata"]["name"] for pod in fresh.list("pods")}
    page.until(f"([uids]) => ({UIDS}).sort().join() === uids", ",".join(sorted(pods)), what="the picture of the pods that are there")
    assert text_of(page.run("c3")).split() == ["1", "True"]
    page.page.evaluate(WATCH)
    victim = next(uid for uid, name in pods.items() if name.startswith("my-nginx"))
    fresh.kubectl("delete", "pod", pods[victim], "--wait=false")
    page.until("([uid]) => window.faded.includes(uid)", victim, what=f"{pods[victim]} fades")
    page.until(f"([uid]) => window.came.length && ({UIDS}).length === 3 && !({UIDS}).includes(uid)", victim, what="its successor comes")
    fresh.rollout("my-nginx")
    now = {pod["metadata"]["uid"]: pod["metadata"]["name"] for pod in fresh.list("pods") if "deletionTimestamp" not in pod["metadata"]}
    successor = (now.keys() - pods.keys()).pop()
    assert page.page.evaluate("window.came")[-1] == successor
    label = "document.querySelector('.sl-view svg').getAttribute('aria-label')"
    names = ",".join(name for name in now.values() if name.startswith("my-nginx"))
    words = f"([old, all]) => !{label}.includes(old) && all.split(',').every((name) => {label}.includes(name))"
    page.until(words, pods[victim], names, what="the names in its words")
    # nobody looks any more, nothing is watched any more
    page.page.evaluate("jupyterapp.shell.currentWidget.content.widgets[2].model.outputs.clear()")
    eventually(lambda: text_of(page.run("c3")).split() == ["0", "False"])


def test_who_answered_counts_while_it_runs_and_stops_when_told(opened, fresh):
    page = opened(WEB, 'view = lab.view.who_answered("my-nginx", rate=10, seconds=600)\nview', "print(view.tally.answered, view.running)")
    page.run_all()
    page.assert_drawn()
    count = "Number(document.querySelector('.sl-view svg').getAttribute('aria-label').match(/(\\d+) answered/)?.[1] || 0)"
    page.until(f"() => {count} >= 10", what="10 answers in the picture")
    label = "document.querySelector('.sl-view svg').getAttribute('aria-label')"
    page.until(f"() => {label}.includes('by 2 of 2 ready pods')", what="answers of both pods")  # chance decides who answers
    page.until("() => document.querySelector('.sl-view svg circle.dot') !== null", what="a request on its way")
    fresh.kubectl("scale", "deployment", "my-nginx", "--replicas=1")
    page.until(
        "() => document.querySelector('.sl-view svg').getAttribute('aria-label').includes('of which 1 is ready no more')",
        what="one pod left",
    )
    button = page.cell("c2").query_selector(".sl-view button")
    assert "stop" in button.inner_text()
    button.click()
    page.until("() => document.querySelector('.sl-view button').textContent.includes('send')", what="the button offers to send again")

    def agreed() -> bool:  # answers that were on their way when the button was clicked still count
        answered, running = text_of(page.run("c3")).split()
        assert running == "False" and int(answered) >= 10
        assert page.page.evaluate(count) == int(answered), "the picture's number is to be the tally's"
        return True

    eventually(agreed)


def test_the_capstones_board_follows_a_repair(opened):
    mend = "for command in shop.solution('selector'):\n    print(lab.kubectl(*command.split()[1:]))"
    page = opened("shop = lab.break_it(seed=3, faults=['selector'])\nshop", "lab.board()", mend, "lab.reset()")
    label = "document.querySelector('.sl-view svg').getAttribute('aria-label')"
    for cell in ("c0", "c1", "c2"):
        page.run(cell)
    try:
        page.assert_drawn()
        page.until(f"() => /^[0-4] of 5 connections work/.test({label})", what="a board with a broken connection")
        page.run("c3")
        page.until(f"() => {label}.startsWith('5 of 5 connections work')", what="the board sees the repair")
    finally:
        page.run("c4")
    gone = "() => document.querySelector('.sl-notice').textContent.includes('There is no application')"
    page.until(gone, what="the board says it is gone")
