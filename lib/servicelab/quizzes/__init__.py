"""Predict first: the questions that a lesson asks before it shows the answer.

A lesson's texts live in ``servicelab/quizzes/lessonNN.py``, a dict from key to :class:`Quiz`; the two digits at the start of a key
name that module::

    # servicelab/quizzes/lesson03.py
    from servicelab.quizzes import Answer, Quiz

    QUIZZES = {
        "03.order": Quiz(
            "A pod started *before* the Service. Does it have `MY_NGINX_SERVICE_HOST`?",
            [
                Answer("Yes, variables follow the Service", "A process's environment is fixed when it starts."),
                Answer("No", "Right: the kubelet writes them once, when the container starts.", right=True),
                Answer("Only on the same node", "The kubelet asks the API server, which knows all nodes."),
            ],
        ),
    }

and a notebook shows one with ``quiz("03.order")``. Texts may hold `` `code` ``, ``*emphasis*`` and ``**strong**``; nothing else is markup.

This is a package, and not a module ``servicelab/quiz.py``, so that ``from servicelab import quiz`` always gives the function.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from servicelab.quizzes.widget import QuizWidget

__all__ = ["Answer", "Keeper", "Quiz", "all_quizzes", "find", "keep_answers_with", "quiz"]


@dataclass(frozen=True)
class Answer:
    """One answer that can be chosen, and why it is right or wrong.

    Args:
        text: What the learner chooses.
        reason: Shown after the choice. Every answer has one, since a wrong one teaches more.
        right: Whether this is the right answer.
    """

    text: str
    reason: str
    right: bool = False


@dataclass(frozen=True)
class Quiz:
    """One question with at least three answers, of which exactly one is right.

    Raises:
        ValueError: The question can't be asked as it is; says what to mend.

    Example:
        >>> Quiz("1 + 1?", [Answer("1", "Count again.", ), Answer("2", "Yes.", right=True), Answer("3", "One too many.")]).right
        1
    """

    question: str
    answers: Sequence[Answer]

    def __post_init__(self) -> None:
        faults = []
        if not self.question.strip():
            faults.append("it has no question")
        if len(self.answers) < 3:
            faults.append(f"it has {len(self.answers)} answers, and needs at least three")
        right = sum(answer.right for answer in self.answers)
        if right != 1:
            faults.append(f"{right} of its answers are marked right=True, and exactly one must be")
        if len({answer.text for answer in self.answers}) != len(self.answers):
            faults.append("two of its answers have the same text")
        for answer in self.answers:
            if not (answer.text.strip() and answer.reason.strip()):
                faults.append(f"the answer {answer.text!r} lacks a text or a reason")
        if faults:
            raise ValueError(f"The quiz {self.question[:60]!r} can't be asked: {'; '.join(faults)}.")

    @property
    def right(self) -> int:
        """The place of the right answer, from 0."""
        return next(place for place, answer in enumerate(self.answers) if answer.right)


class Keeper(Protocol):
    """Remembers what was answered; ``lab.progress`` is one."""

    def recall(self, key: str) -> str | None:
        """The text of the answer last chosen for this quiz, or None."""

    def keep(self, key: str, text: str, right: bool) -> None:
        """Remember a choice. May raise; the widget then says that the answer was not kept, and why."""


_keeper: Keeper | None = None


def keep_answers_with(keeper: Keeper | None) -> None:
    """Have every quiz shown from now on ask this keeper for an earlier answer and give it new ones; None to keep none."""
    global _keeper  # noqa: PLW0603 - one notebook has one learner
    _keeper = keeper


def _lessons() -> list[str]:
    return sorted(found.name for found in pkgutil.iter_modules(__path__) if found.name.startswith("lesson"))


def all_quizzes() -> dict[str, Quiz]:
    """Every quiz of every lesson by its key, in reading order."""
    quizzes: dict[str, Quiz] = {}
    for lesson in _lessons():
        quizzes.update(importlib.import_module(f"{__name__}.{lesson}").QUIZZES)
    return quizzes


def find(key: str) -> Quiz:
    """The quiz of this key.

    Raises:
        LookupError: There is none; names those of the same lesson.
    """
    lesson = f"lesson{key.partition('.')[0]}"
    known = importlib.import_module(f"{__name__}.{lesson}").QUIZZES if lesson in _lessons() else {}
    if key not in known:
        there = ", ".join(known) or ", ".join(all_quizzes()) or "none at all"
        raise LookupError(f"There is no quiz {key!r}. There are: {there}. The texts are in servicelab/quizzes/{lesson}.py.")
    return known[key]


def quiz(key: str) -> QuizWidget:
    """Ask one question: shows it with its answers, and after a choice the reason. Never blocks a cell.

    Args:
        key: The lesson's number and a name, such as ``"03.order"``.

    Returns:
        The widget. Its text and HTML forms are the same whatever was chosen, so that a stored notebook doesn't change with its reader.

    Raises:
        LookupError: No quiz has this key.
    """
    from servicelab.quizzes.widget import QuizWidget  # here, since a headless tool that only reads the texts needs no widgets

    return QuizWidget(key, find(key), _keeper)
