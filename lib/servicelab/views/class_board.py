"""The teacher's board: a heat map of students by checks, live, with a button for each student that resets their lesson."""

from __future__ import annotations

import contextlib
import html
import pathlib
import threading
from typing import TYPE_CHECKING, Any

import anywidget
import traitlets

from servicelab import settings
from servicelab.classroom.board import Board, Row, columns, shown_name, summary
from servicelab.errors import LabError
from servicelab.views.base import script
from servicelab.views.theme import STYLE

if TYPE_CHECKING:
    from servicelab.classroom import Classroom

HERE = pathlib.Path(__file__).parent
SIGNS = {"passed": "●", "failing": "✗", "untried": "·"}
MINUTE = 30.0  # seconds: minutes pass without any change in the cluster


class ClassBoard(anywidget.AnyWidget):
    """The board as a widget; `Classroom.board()` makes it.

    Attributes:
        checks: key, lesson and title of each column.
        rows: a dict for each student, as the browser draws it.
        hide_names: numbers instead of names.
        notice: what went wrong, or what a reset came to.
        resetting: short names of the students whose lesson is just being reset.
    """

    _esm = script("class_board.js")
    _css = (HERE / "class_board.css").read_text(encoding="utf-8") + STYLE

    checks = traitlets.List(traitlets.Dict()).tag(sync=True)
    rows = traitlets.List(traitlets.Dict()).tag(sync=True)
    hide_names = traitlets.Bool(False).tag(sync=True)
    notice = traitlets.Unicode().tag(sync=True)
    line = traitlets.Unicode().tag(sync=True)
    resetting = traitlets.List(traitlets.Unicode()).tag(sync=True)

    def __init__(self, classroom: Classroom, *, hide_names: bool = False) -> None:
        self._classroom = classroom
        self._board = Board(classroom.client, on_change=self._changed)
        self._board.read()
        self._news, self._closed = threading.Event(), threading.Event()
        self._lock = threading.Lock()
        self._now = self._board.rows()
        super().__init__(
            checks=[{"key": one.key, "lesson": one.lesson, "title": one.title} for one in columns()],
            rows=[as_dict(row) for row in self._now],
            line=summary(self._now),
            hide_names=hide_names,
        )
        self.on_msg(self._message)
        self._drawer: threading.Thread | None = None

    def follow(self) -> None:
        """Go on following the class until `close()`; showing the board does it by itself."""
        self._board.follow()
        if self._drawer is None:
            self._drawer = threading.Thread(target=self._draw, daemon=True, name="servicelab-board")
            self._drawer.start()

    def _changed(self) -> None:
        self._news.set()

    def _draw(self) -> None:
        while not self._closed.is_set():
            self._news.wait(MINUTE)
            self._news.clear()
            # thirty students at work change something many times a second, and a browser needs it once
            if self._closed.wait(0.3):
                return
            self._now = self._board.rows()
            rows = [as_dict(row) for row in self._now]
            if rows != self.rows:
                self.rows = rows
            self.line = summary(self._now)
            if self._board.trouble:
                self.notice = self._board.trouble

    def _message(self, _widget: Any, content: Any, _buffers: Any) -> None:
        if isinstance(content, dict) and content.get("do") == "reset":
            key = content.get("student")
            if key in {row.student.key for row in self._now}:
                threading.Thread(target=self.reset, args=(key,), daemon=True, name=f"servicelab-reset-{key}").start()

    def reset(self, key: str) -> None:
        """Remove what the lessons made in a student's namespace; what comes of it is shown in the board."""
        with self._lock:
            if key in self.resetting:
                return
            self.resetting = [*self.resetting, key]
        row = next((row for row in self._now if row.student.key == key), None)
        who = shown_name(row, self.hide_names) if row else key
        try:
            self._classroom.reset(key)
        except LabError as error:
            self.notice = f"The lesson of {who} is not reset: {error}"
        else:
            self.notice = f"The lesson of {who} is reset."
        finally:
            with self._lock:
                self.resetting = [other for other in self.resetting if other != key]

    def close(self) -> None:
        """Stop following and remove the board."""
        with contextlib.suppress(AttributeError):  # one whose making failed is closed by the garbage collector, half made
            self._closed.set()
            self._news.set()
            self._board.stop()
        super().close()

    def text(self) -> str:
        """The board in words: a line for each student."""
        lines = [summary(self._now)]
        for row in self._now:
            lesson, text = None, ""
            for check, cell in zip(self.checks, row.cells, strict=True):
                text += ("" if check["lesson"] == lesson else " ") + SIGNS[cell.state]
                lesson = check["lesson"]
            stuck = f"  {row.stuck_minutes} min on “{row.stuck.title}”: {row.hint}" if row.stuck else ""
            lines.append(f"{shown_name(row, self.hide_names)[:24]:<24}{text}  {row.passed}/{len(self.checks)}{stuck}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return self.text()

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict, dict]:
        if not settings.headless():
            self.follow()
        bundle = super()._repr_mimebundle_(**kwargs)
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        return {**data, "text/plain": self.text(), "text/html": f"<pre>{html.escape(self.text())}</pre>"}, metadata


def as_dict(row: Row) -> dict[str, Any]:
    """A row as the browser gets it: plain values only."""
    return {
        "key": row.student.key,
        "name": row.student.name,
        "number": row.number,
        "passed": row.passed,
        "lesson": row.lesson,
        "stuck": row.stuck.key if row.stuck else "",
        "stuckOn": row.stuck.title if row.stuck else "",
        "stuckMinutes": row.stuck_minutes,
        "hint": row.hint,
        "idle": row.idle_minutes,
        "cells": [[cell.state, cell.tries, cell.minutes, cell.hint] for cell in row.cells],
    }
