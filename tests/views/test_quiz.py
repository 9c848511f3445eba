"""The quizzes: every text is complete, a choice is kept, and what a stored notebook holds never changes with its reader."""

import sys
import types

import pytest

from servicelab import quizzes
from servicelab.quizzes import Answer, Quiz
from servicelab.quizzes.widget import QuizWidget, inline_html

ASKED = Quiz(
    "Where is the *cluster IP* `10.96.0.1`?",
    [
        Answer("On <one> node", "Then losing it would hurt."),
        Answer("On none", "A rule, no card.", right=True),
        Answer("On all", "Look with `ip addr`."),
    ],
)


class Memory:
    """A keeper in memory, which can be told to fail."""

    def __init__(self, **answers):
        self.answers, self.fault = answers, None

    def recall(self, key):
        return self.answers.get(key, (None,))[0]

    def keep(self, key, text, right):
        if self.fault:
            raise self.fault
        self.answers[key] = (text, right)


@pytest.mark.parametrize("key", quizzes.all_quizzes() or [pytest.param("", marks=pytest.mark.skip("no lesson has a quiz yet"))])
def test_each_lessons_quiz_is_found_by_its_key(key):
    # completeness (three answers, one right, a reason for each) is enforced when a Quiz is made, so to import is to check
    assert QuizWidget(key, quizzes.find(key)).text().count("( )") >= 3


@pytest.mark.parametrize(
    ("question", "answers", "says"),
    [
        ("?", [Answer("a", "r"), Answer("b", "r", True)], "at least three"),
        ("?", [Answer("a", "r"), Answer("b", "r"), Answer("c", "r")], "0 of its answers"),
        ("?", [Answer("a", "r", True), Answer("b", "r", True), Answer("c", "r")], "2 of its answers"),
        ("?", [Answer("a", "r", True), Answer("b", " "), Answer("c", "r")], "lacks a text or a reason"),
        ("?", [Answer("a", "r", True), Answer("a", "s"), Answer("c", "r")], "same text"),
        (" ", [Answer("a", "r", True), Answer("b", "s"), Answer("c", "r")], "no question"),
    ],
)
def test_an_incomplete_quiz_is_refused_in_words(question, answers, says):
    with pytest.raises(ValueError, match=says):
        Quiz(question, answers)


def test_quiz_by_key_and_the_error_for_a_wrong_key(monkeypatch):
    lesson = types.ModuleType("servicelab.quizzes.lesson98")
    lesson.QUIZZES = {"98.here": ASKED}
    monkeypatch.setitem(sys.modules, lesson.__name__, lesson)
    monkeypatch.setattr(quizzes, "_lessons", lambda: ["lesson98"])
    assert quizzes.quiz("98.here").question.startswith("Where is")
    with pytest.raises(LookupError, match=r"no quiz '98\.there'.*98\.here"):
        quizzes.quiz("98.there")
    with pytest.raises(LookupError, match="97"):
        quizzes.quiz("97.nowhere")


def test_a_choice_is_kept_and_recalled_by_its_text():
    memory = Memory()
    QuizWidget("98.here", ASKED, memory).chosen = 1
    assert memory.answers == {"98.here": ("On none", True)}
    assert QuizWidget("98.here", ASKED, memory).chosen == 1
    assert QuizWidget("98.here", ASKED, Memory(**{"98.here": ("a text of an older edition", True)})).chosen == -1


def test_a_keeper_that_fails_is_told_in_the_widget_and_does_not_raise():
    memory = Memory()
    memory.fault = ConnectionError("the cluster does not answer")
    shown = QuizWidget("98.here", ASKED, memory)
    shown.chosen = 0
    assert "the cluster does not answer" in shown.notice
    memory.fault = None
    shown.chosen = 2
    assert shown.notice == ""


def test_the_stored_forms_do_not_depend_on_the_reader():
    fresh, answered = QuizWidget("98.here", ASKED), QuizWidget("98.here", ASKED, Memory(**{"98.here": ("On all", False)}))
    for form in ("text/plain", "text/html"):
        assert fresh._repr_mimebundle_()[0][form] == answered._repr_mimebundle_()[0][form]
    assert repr(fresh) == "? Where is the cluster IP `10.96.0.1`?\n  ( ) On <one> node\n  ( ) On none\n  ( ) On all"
    assert "application/vnd.jupyter.widget-view+json" in fresh._repr_mimebundle_()[0]


def test_markup_is_small_and_everything_else_is_escaped():
    assert inline_html("<b>&`x*y*<`*so* **it** 2*3*4") == "&lt;b&gt;&amp;<code>x*y*&lt;</code><em>so</em> <strong>it</strong> 2*3*4"
