"""What a notebook's ``!command`` prints, and how it ends."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path

import pytest
from ptyprocess import PtyProcess

from harness import WAIT
from servicelab import executing, shell_cells

# not a shell with a trap: bash can miss a signal that comes just when a command of its loop ends
TIDIES_UP = """
import signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
print("ready", flush=True)
signal.sigwait({signal.SIGINT})
print("tidied")
sys.exit(7)
"""
LIB = Path(__file__).resolve().parents[2] / "lib"


def printed(command: str) -> tuple[int, str]:
    pieces: list[str] = []
    return shell_cells.run(command, pieces.append), "".join(pieces)


@pytest.mark.parametrize(
    ("command", "code", "text"),
    [
        ("true", 0, ""),
        ("echo out; echo err >&2; exit 3", 3, "out\r\nerr\r\n"),
        ("printf '日本\\n'; stty size; test -t 0 && test -t 1 && echo terminal", 0, "日本\r\n24 80\r\nterminal\r\n"),
        ("kill -9 $$", -9, ""),
        ("sh -c 'kill -TERM $$'; exit $?", -15, None),
        ("exec >&- 2>&- <&-; sleep 0.2; exit 4", 4, ""),
        ("sleep 60 & echo started", 0, "started\r\n"),
        ("seq 100000", 0, "".join(f"{n}\r\n" for n in range(1, 100001))),
    ],
)
def test_what_a_command_prints_and_how_it_ends(command: str, code: int, text: str | None):
    got, shown = printed(command)
    assert got == code and text in (None, shown)


def test_the_last_words_of_a_command_that_ends_between_two_looks_are_not_lost(tmp_path, monkeypatch):
    """It prints and ends just when a look at its terminal has found nothing; IPython's own way never looks again."""
    go = tmp_path / "go"
    os.mkfifo(go)
    children = []
    spawn, readable = PtyProcess.spawn, shell_cells._readable

    def spawned(*args, **kwargs) -> PtyProcess:
        children.append(spawn(*args, **kwargs))
        return children[-1]

    def finds_nothing_and_then_it_ends(fd: int, seconds: float) -> bool:
        monkeypatch.setattr(shell_cells, "_readable", readable)
        go.write_text("go")
        os.waitid(os.P_PID, children[0].pid, os.WEXITED | os.WNOWAIT)
        return False

    monkeypatch.setattr(PtyProcess, "spawn", spawned)
    monkeypatch.setattr(shell_cells, "_readable", finds_nothing_and_then_it_ends)
    assert printed(f"cat {go}; echo ' last words'") == (0, "go last words\r\n")


@pytest.mark.parametrize(
    ("command", "code", "text"),
    [
        (f"exec {shlex.quote(sys.executable)} -c {shlex.quote(TIDIES_UP)}", 7, "tidied"),
        ("trap '' INT HUP; echo ready; while :; do sleep 0.05; done", -9, ""),
    ],
)
def test_an_interrupt_goes_to_the_command(command: str, code: int, text: str, monkeypatch):
    monkeypatch.setattr(shell_cells, "PATIENCE", WAIT if text else 0.2)
    pieces: list[str] = []

    def interrupted(piece: str) -> None:
        pieces.append(piece)
        if len(pieces) == 1:
            raise KeyboardInterrupt

    assert shell_cells.run(command, interrupted) == code
    assert text in "".join(pieces[1:])


def test_in_a_kernel_that_is_connected(cluster, tmp_path, monkeypatch):
    """The names and the exit code that IPython knows are there; what it refuses is refused."""
    for name, value in {"SERVICELAB_CLUSTER": cluster.kind, "SERVICELAB_NAME": cluster.cluster.name, "PYTHONPATH": str(LIB)}.items():
        monkeypatch.setenv(name, value)
    sources = (
        "from servicelab import connect\nlab = connect(show=False)",
        "def greet(name):\n    !echo hello {name} $name\ngreet('you')\n!exit 3\nprint(_exit_code, get_ipython().system.func.__module__)",
        "!sleep 9 &",
    )
    cells = [{"cell_type": "code", "id": f"cell-{n}", "metadata": {}, "source": text, "outputs": [], "execution_count": None}
             for n, text in enumerate(sources)]  # fmt: skip
    path = tmp_path / "shell.ipynb"
    path.write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    outcome = executing.execute(path, tmp_path / "out.ipynb")
    assert outcome.error == "OSError: Background processes not supported." and outcome.done == 2
    shown = "".join("".join(output["text"]) for output in executing.code_cells(tmp_path / "out.ipynb")[1]["outputs"])
    assert shown.replace("\r", "") == "hello you you\n3 servicelab.shell_cells\n"
