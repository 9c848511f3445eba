"""The framework of checks: hints that become plainer, looking again, headless runs, names. No cluster needed."""

from __future__ import annotations

import pytest

from servicelab.checks import Check, CheckFailed, Missing, check, checker
from servicelab.errors import CommandFailed


class FakeLab:
    """As much of a Lab as the framework itself uses."""

    def __init__(self, patience: float = 0.0) -> None:
        self.patience = patience
        self.recorded = []
        self.progress = self

    def record(self, *words) -> None:
        self.recorded.append(words)


def made(look) -> Check:
    return Check("made_up", 1, "a title", look)


def test_hints_become_plainer_and_start_again_with_another_problem(monkeypatch, capsys):
    monkeypatch.delenv("SERVICELAB_HEADLESS", raising=False)
    problems = [Missing("1 of 2 is there", "a", "b", "c"), Missing("0 of 2 is there", "a", "b", "c"), Missing("other", "x", "y")]
    now = [0]

    def look(lab):
        raise problems[now[0]]

    one, lab = made(look), FakeLab()
    seen = []
    for now[0] in (0, 1, 0, 0, 2, 2, 0):
        one(lab)
        seen.append(capsys.readouterr().out.split("hint: ")[1].split()[0])
    # The same hints count as the same problem, whatever the numbers in the sentence.
    assert seen == ["a", "b", "c", "c", "x", "y", "a"]
    assert [words[:3] for words in lab.recorded[:1]] == [("check", "01.made_up", False)]


def test_it_looks_again_while_things_settle(capsys):
    looks = []

    def look(lab):
        looks.append(1)
        if len(looks) == 1:
            raise CommandFailed("the pod vanished")
        if len(looks) == 2:
            raise Missing("not yet")
        return "all is well"

    lab = FakeLab(patience=30)
    made(look)(lab)
    assert capsys.readouterr().out == "✓ all is well\n"
    assert lab.recorded[0][:4] == ("check", "01.made_up", True, "all is well")


def test_it_looks_once_when_waiting_mends_nothing():
    looks = []

    def look(lab):
        looks.append(1)
        raise Missing("a word is misspelt", settles=False)

    assert made(look).result(FakeLab(patience=30)).passed is False
    assert len(looks) == 1


def test_headless_runs_stop_at_a_failure(monkeypatch):
    monkeypatch.setenv("SERVICELAB_HEADLESS", "1")

    def look(lab):
        raise Missing("nothing is there", "make it")

    with pytest.raises(CheckFailed, match=r"(?s)made_up: ✗ nothing is there.*hint: make it"):
        made(look)(FakeLab())


def test_a_mistake_in_a_check_is_not_taken_for_the_learners():
    def look(lab):
        return {}["no such key"]

    with pytest.raises(KeyError):
        made(look).result(FakeLab())


def test_names():
    assert "servers_run" in dir(check)
    assert check.servers_run.key == "01.servers_run"
    with pytest.raises(AttributeError, match=r"Did you mean check\.servers_run"):
        _ = check.server_runs
    with pytest.raises(ValueError, match="rename one"):

        @checker(lesson=9, title="twice")
        def servers_run(lab):
            return ""


def test_every_check_has_a_title_and_a_docstring():
    for one in check:
        assert one.title and one.look.__doc__, one
