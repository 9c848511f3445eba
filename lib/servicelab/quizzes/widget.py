"""The quiz as a widget: radio answers, the reason for each, and forms without JavaScript."""

from __future__ import annotations

import html
import pathlib
import re
from typing import Any

import anywidget
import traitlets

from servicelab.quizzes import Keeper, Quiz

HERE = pathlib.Path(__file__).parent


def inline_html(text: str) -> str:
    """A quiz's text as HTML: `` `code` ``, ``*emphasis*``, ``**strong**``; everything else is escaped.

    Example:
        >>> inline_html("`a<b` is *so*")
        '<code>a&lt;b</code> is <em>so</em>'
    """
    pieces = re.split(r"(`[^`]+`)", text)
    made = []
    for piece in pieces:
        if len(piece) > 2 and piece.startswith("`") and piece.endswith("`"):
            made.append(f"<code>{html.escape(piece[1:-1])}</code>")
        else:
            escaped = html.escape(piece)
            escaped = re.sub(r"(?<!\w)\*\*(\S(?:[^*]*\S)?)\*\*(?!\w)", r"<strong>\1</strong>", escaped)
            made.append(re.sub(r"(?<!\w)\*(\S(?:[^*]*\S)?)\*(?!\w)", r"<em>\1</em>", escaped))
    return "".join(made)


def plain(text: str) -> str:
    """A quiz's text without its markup, for a terminal."""
    return re.sub(r"(?<!\w)\*\*?(\S(?:[^*`]*\S)?)\*\*?(?!\w)", r"\1", text)


class QuizWidget(anywidget.AnyWidget):
    """One question, shown. Made by :func:`servicelab.quiz`.

    Attributes:
        key: The quiz's key.
        question: The question as HTML.
        answers: Text and reason of each answer as HTML, and whether it is right.
        chosen: The place of the answer chosen last, from 0; -1 before any.
        notice: Why an answer could not be kept; empty when all is well.
    """

    _esm = HERE / "quiz.js"
    _css = HERE / "quiz.css"

    key = traitlets.Unicode().tag(sync=True)
    question = traitlets.Unicode().tag(sync=True)
    answers = traitlets.List(traitlets.Dict()).tag(sync=True)
    chosen = traitlets.Int(-1).tag(sync=True)
    notice = traitlets.Unicode().tag(sync=True)

    def __init__(self, key: str, quiz: Quiz, keeper: Keeper | None = None) -> None:
        self._quiz = quiz
        self._keeper = keeper
        super().__init__(
            key=key,
            question=inline_html(quiz.question),
            answers=[{"text": inline_html(a.text), "reason": inline_html(a.reason), "right": a.right} for a in quiz.answers],
        )
        self.chosen = self._recalled()
        self.observe(self._keep, names="chosen")

    def _recalled(self) -> int:
        """The place of an earlier answer, by its text, since a newer edition of the lesson may have other answers."""
        if self._keeper is None:
            return -1
        try:
            text = self._keeper.recall(self.key)
        except Exception as error:  # a cluster that's away must not keep a question from being asked
            self.notice = f"Your earlier answer could not be looked up: {error}"
            return -1
        return next((place for place, answer in enumerate(self._quiz.answers) if answer.text == text), -1)

    def _keep(self, change: dict[str, Any]) -> None:
        place = change["new"]
        if self._keeper is None or not 0 <= place < len(self._quiz.answers):
            return
        answer = self._quiz.answers[place]
        try:
            self._keeper.keep(self.key, answer.text, answer.right)
        except Exception as error:  # shown in the widget: this runs in a comm callback, whose traceback nobody would see
            self.notice = f"Your answer was not kept: {error}"
        else:
            self.notice = ""

    def text(self) -> str:
        """The question and its answers as plain text, without the solution."""
        return "\n".join([f"? {plain(self._quiz.question)}", *(f"  ( ) {plain(answer.text)}" for answer in self._quiz.answers)])

    def html(self) -> str:
        """The question for a page without JavaScript: each answer unfolds to its reason."""
        folds = "".join(
            f"<details><summary>{answer['text']}</summary>{'✓' if answer['right'] else '✗'} {answer['reason']}</details>"
            for answer in self.answers
        )
        return f"<p><strong>{self.question}</strong></p>{folds}"

    def __repr__(self) -> str:
        return self.text()

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict, dict]:
        bundle = super()._repr_mimebundle_(**kwargs)
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        return {**data, "text/plain": self.text(), "text/html": self.html()}, metadata
