"""Where everyone is: read from the progress that each student's namespace keeps, without a word to the students' machines."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from ..client import Client
from ..errors import LabError
from ..progress import CONFIG_MAP, LABELS, Entry, catalogue, entries_of
from .names import Student
from .roster import students

SELECTOR = ",".join(f"{key}={value}" for key, value in LABELS.items())
ANON = "Student"


@dataclass(frozen=True)
class Column:
    """One check: its key such as `01.two_servers`, its lesson such as `01`, what it asserts."""

    key: str
    lesson: str
    title: str


@dataclass(frozen=True)
class Cell:
    """One student and one check.

    Attributes:
        state: "passed", "failing" or "untried".
        tries: how often it was called.
        minutes: for how long it has been in this state; 0 when untried.
        hint: the hint shown last, while it fails.
    """

    state: str = "untried"
    tries: int = 0
    minutes: int = 0
    hint: str = ""


@dataclass(frozen=True)
class Row:
    """One student.

    Attributes:
        student: who.
        number: their place in the class, from 1: what a projector shows instead of the name.
        cells: one for each column.
        passed: how many checks passed.
        lesson: where they are: the lesson of the check tried last; empty before the first.
        stuck: the check that they tried last, where it fails; else None.
        stuck_minutes: since when it fails.
        hint: the hint shown last there, with which of them it is.
        idle_minutes: since they tried anything; -1 before the first.
    """

    student: Student
    number: int
    cells: tuple[Cell, ...]
    passed: int
    lesson: str = ""
    stuck: Column | None = None
    stuck_minutes: int = 0
    hint: str = ""
    idle_minutes: int = -1


def columns() -> list[Column]:
    """Every check of the lessons, in reading order."""
    return [Column(key, lesson, title) for kind, lesson, key, title in catalogue() if kind == "check"]


def minutes_since(when: str, now: datetime) -> int:
    """Whole minutes between a time of the API (RFC 3339) and now; 0 for a time that can't be read or is in the future.

    Example:
        >>> minutes_since("2030-01-01T10:00:00Z", datetime(2030, 1, 1, 10, 7, 59, tzinfo=timezone.utc))
        7
    """
    try:
        then = datetime.strptime(when, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
    except ValueError:
        return 0
    return max(0, int((now - then).total_seconds() // 60))


def row_of(student: Student, number: int, entries: Mapping[str, Entry], checks: list[Column], now: datetime) -> Row:
    """A student's row from the entries of their progress."""
    found = {column.key: entries[f"check.{column.key}"] for column in checks if f"check.{column.key}" in entries}
    cells = []
    for column in checks:
        entry = found.get(column.key)
        if entry is None:
            cells.append(Cell())
            continue
        state = "passed" if entry.passed else "failing"
        cells.append(Cell(state, entry.tries, minutes_since(entry.since, now), "" if entry.passed else entry.hint))
    passed = sum(entry.passed for entry in found.values())
    if not found:
        return Row(student, number, tuple(cells), 0)
    last_key = max(found, key=lambda key: (found[key].at, key))
    last = found[last_key]
    column = next(column for column in checks if column.key == last_key)
    newest = max((entry.at for entry in entries.values()), default="")
    idle = minutes_since(newest, now)
    if last.passed:
        return Row(student, number, tuple(cells), passed, column.lesson, idle_minutes=idle)
    hint = f"hint {last.level}: {last.hint}" if last.hint else last.saw
    return Row(student, number, tuple(cells), passed, column.lesson, column, minutes_since(last.since, now), hint, idle)


def shown_name(row: Row, hide: bool) -> str:
    """The student's name, or what stands for it on a projector."""
    return f"{ANON} {row.number}" if hide else row.student.name


class Board:
    """The class's progress, followed live.

    Args:
        client: the teacher's connection; it must see ConfigMaps of all namespaces.
        on_change: called, from the following thread, whenever something changed.

    Example:
        >>> board = Board(Client("kubeconfig"))  # doctest: +SKIP
        >>> board.rows()[0].passed  # doctest: +SKIP
    """

    def __init__(self, client: Client, on_change: Callable[[], None] = lambda: None) -> None:
        self._client, self._on_change = client, on_change
        self._maps: dict[str, dict[str, Any]] = {}
        self._students: list[Student] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self.trouble = ""

    def read(self) -> Board:
        """Looks once. Raises what the cluster answers."""
        maps = self._client.list("configmaps", None, selector=SELECTOR)
        who = students(self._client)
        with self._lock:
            self._students = who
            self._maps = {found["metadata"]["namespace"]: found for found in maps if found["metadata"]["name"] == CONFIG_MAP}
        return self

    def follow(self) -> None:
        """Goes on looking, in threads of its own, until `stop`. Harmless when it does already."""
        if any(thread.is_alive() for thread in self._threads):
            return
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._follow, args=(kind, self._stop), daemon=True, name=f"servicelab-board-{kind}")
            for kind in ("configmaps", "namespaces")
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ends following."""
        self._stop.set()

    def _follow(self, kind: str, stop: threading.Event) -> None:
        from .roster import selector, student_of

        try:
            for event, obj in self._client.watch(kind, None, selector=SELECTOR if kind == "configmaps" else selector(), stop=stop):
                with self._lock:
                    if kind == "configmaps":
                        if obj["metadata"]["name"] != CONFIG_MAP:
                            continue
                        if event == "DELETED":
                            self._maps.pop(obj["metadata"]["namespace"], None)
                        else:
                            self._maps[obj["metadata"]["namespace"]] = obj
                    else:
                        student = student_of(obj)
                        others = [other for other in self._students if other.key != student.key]
                        going = event == "DELETED" or obj["metadata"].get("deletionTimestamp")
                        self._students = sorted(others if going else [*others, student])
                self._on_change()
        except LabError as error:
            self.trouble = f"The board doesn't follow any more: {error}"
            self._on_change()

    def rows(self, now: datetime | None = None) -> list[Row]:
        """The rows as of now, by short name."""
        now = now or datetime.now(timezone.utc)
        checks = columns()
        with self._lock:
            who, maps = list(self._students), dict(self._maps)
        return [row_of(one, number, entries_of(maps.get(one.namespace)), checks, now) for number, one in enumerate(who, 1)]


# -- in a terminal -----------------------------------------------------------------------------------------------------


def table(rows: list[Row], *, hide: bool = False):
    """The board as rich text: a line for each student with one sign for each check, and below it who is stuck on what."""
    from rich.text import Text

    signs = {"passed": ("●", "green"), "failing": ("✗", "bold red"), "untried": ("·", "dim")}
    checks = columns()
    lessons = list(dict.fromkeys(column.lesson for column in checks))
    width = min(24, max([7, *(len(shown_name(row, hide)) for row in rows)]))
    lines = [Text("● passed  ✗ failing  · not tried", "dim")]
    heading = " ".join(lesson.ljust(sum(column.lesson == lesson for column in checks)) for lesson in lessons)
    lines += [Text(f"{'student':<{width}} {heading} passed", "bold")]
    for row in rows:
        line = Text(f"{shown_name(row, hide)[:width]:<{width}}")
        last = None
        for column, cell in zip(checks, row.cells, strict=True):
            line.append("" if column.lesson == last else " ")
            line.append(*signs[cell.state])
            last = column.lesson
        line.append(f" {row.passed:>2}/{len(checks)}")
        lines.append(line.append(f"  idle {row.idle_minutes} min" if row.idle_minutes > 0 else "", "dim"))
    for row in sorted((row for row in rows if row.stuck), key=lambda row: -row.stuck_minutes):
        words = f"{shown_name(row, hide)}: {row.stuck_minutes} min on {row.stuck.key} “{row.stuck.title}”: {row.hint}"
        lines.append(Text(words, "red"))
    return Text("\n").join(lines)


def summary(rows: list[Row]) -> str:
    """One line: how many students, how many began, how many are stuck."""
    begun, stuck = sum(row.idle_minutes >= 0 for row in rows), sum(row.stuck is not None for row in rows)
    return f"{len(rows)} {'student' if len(rows) == 1 else 'students'}, {begun} begun, {stuck} stuck"


def watch(board: Board, *, hide: bool = False) -> None:
    """Shows the board in the terminal, live, until Ctrl-C."""
    from rich.console import Console, Group
    from rich.live import Live
    from rich.text import Text

    changed = threading.Event()
    board._on_change = changed.set
    board.follow()

    def picture() -> Group:
        rows = board.rows()
        return Group(table(rows, hide=hide), Text(board.trouble or summary(rows), "red" if board.trouble else "dim"))

    with contextlib.suppress(KeyboardInterrupt), Live(picture(), console=Console(), auto_refresh=False, screen=True) as live:
        while True:
            changed.wait(30)  # minutes pass without a change, too
            changed.clear()
            live.update(picture(), refresh=True)
    board.stop()
