"""What the board makes of students' progress."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone

import pytest

from servicelab.classroom.board import Column, row_of, shown_name, summary, table
from servicelab.classroom.names import Student
from servicelab.progress import Entry, entries_of

NOW = datetime(2031, 5, 6, 10, 0, tzinfo=timezone.utc)
CHECKS = [Column("01.a", "01", "a holds"), Column("01.b", "01", "b holds"), Column("02.c", "02", "c holds")]
ADA = Student("ada", "Ada")


def ago(minutes: float) -> str:
    return (NOW - timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")


def row(**entries):
    return row_of(ADA, 4, {f"check.{key.replace('_', '.', 1)[1:]}": entry for key, entry in entries.items()}, CHECKS, NOW)


def test_nobody_has_begun():
    one = row()
    assert (one.passed, one.lesson, one.stuck, one.idle_minutes) == (0, "", None, -1)
    assert {cell.state for cell in one.cells} == {"untried"}


def test_stuck_is_the_check_tried_last_and_since_it_fails():
    one = row(
        k01_a=Entry(True, 1, ago(30), ago(30)),
        k01_b=Entry(False, 4, ago(12), ago(2), "only 1 of 2", "scale it", 3),
        k02_c=Entry(False, 1, ago(50), ago(50)),
    )
    assert (one.passed, one.lesson, one.stuck, one.stuck_minutes) == (1, "01", CHECKS[1], 12)
    assert one.hint == "hint 3: scale it" and one.idle_minutes == 2
    assert [(cell.state, cell.minutes) for cell in one.cells] == [("passed", 30), ("failing", 12), ("failing", 50)]


def test_who_went_on_is_not_stuck():
    one = row(k01_b=Entry(False, 4, ago(12), ago(9)), k02_c=Entry(True, 1, ago(1), ago(1)))
    assert one.stuck is None and one.lesson == "02"


def test_a_clock_that_runs_ahead_and_times_that_are_none():
    one = row(k01_a=Entry(False, 1, ago(-7), ago(-7)), k01_b=Entry(True, 1, "yesterday", ""))
    assert one.stuck_minutes == 0 and one.idle_minutes == 0


def test_a_config_map_that_a_student_edited_by_hand():
    entries = entries_of({"data": {"check.01.a": "{broken", "check.01.b": json.dumps({"passed": True, "at": ago(1), "since": ago(1)})}})
    one = row_of(ADA, 1, entries, CHECKS, NOW)
    assert [cell.state for cell in one.cells] == ["untried", "passed", "untried"]


@pytest.mark.parametrize("hide", [True, False])
def test_names_can_be_hidden(hide, monkeypatch):
    monkeypatch.setattr("servicelab.classroom.board.columns", lambda: CHECKS)
    one = row(k01_b=Entry(False, 2, ago(6), ago(6), "", "look [here]", 1))
    shown = table([one], hide=hide).plain
    assert ("Ada" in shown) is not hide and shown_name(one, hide) in shown
    assert "·✗ ·" in shown and "6 min on 01.b “b holds”: hint 1: look [here]" in shown
    assert summary([one]).startswith("1 student, 1 begun, 1 stuck")
