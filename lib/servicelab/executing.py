"""Run a notebook from top to bottom in a process of its own, with papermill, and say how far it came.

In a process of its own, since papermill may hang when a kernel dies at a bad moment: a process can be ended. The child tells its
parent of each cell that it begins by a line of JSON on its standard output.
"""

from __future__ import annotations

import json
import os
import re
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import settings
from .errors import LabError

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True)
class Outcome:
    """How one notebook ran.

    Attributes:
        notebook: the notebook's file name.
        cells: how many code cells it has.
        done: how many of them ended well.
        seconds: how long it took.
        error: what went wrong, in the words of the cell; empty when all went well.
        cell: the cell that failed: its id and the first line of its source; empty when all went well.
    """

    notebook: str
    cells: int
    done: int
    seconds: float
    error: str = ""
    cell: str = ""

    @property
    def passed(self) -> bool:
        """Whether every cell ended well."""
        return not self.error


def find(which: str | None = None) -> list[Path]:
    """The notebooks in reading order.

    Args:
        which: numbers or file names, separated by commas, such as `02,05`; None for all.

    Raises:
        LabError: there is no notebook of that number or name.
    """
    every = sorted(NOTEBOOKS.glob("[0-9][0-9]-*.ipynb"))
    if which is None:
        return every
    chosen = []
    for word in filter(None, (part.strip() for part in which.split(","))):
        name = Path(word).name
        number = name.zfill(2) if name.isdigit() else None
        found = [path for path in every if path.name.startswith(f"{number}-") or name in (path.name, path.stem)]
        if not found:
            there = ", ".join(path.name for path in every) or "none"
            raise LabError(f"There is no notebook {word!r}; there are: {there}. Name them by number, such as 02,05.")
        chosen += found
    return sorted(set(chosen))


def code_cells(notebook: Path) -> list[dict[str, Any]]:
    """The code cells of a notebook file."""
    return [cell for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


def tags(cell: dict[str, Any]) -> list[str]:
    """A cell's tags."""
    return cell["metadata"].get("tags", [])


def parameters_of(notebook: Path) -> set[str]:
    """The names that a notebook's `parameters` cell assigns; empty when it has no such cell."""
    import ast

    names = set()
    for cell in code_cells(notebook):
        if "parameters" in tags(cell):
            for node in ast.parse("".join(cell["source"])).body:
                if isinstance(node, ast.Assign):
                    names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return names


def execute(
    notebook: Path,
    out: Path,
    parameters: dict[str, Any] | None = None,
    *,
    environment: dict[str, str] | None = None,
    timeout: float = 1800,
    on_cell: Callable[[int, int], None] = lambda number, of: None,
) -> Outcome:
    """Run a notebook in a process of its own, nobody watching (`SERVICELAB_HEADLESS=1`).

    Args:
        notebook: the file; it isn't changed.
        out: where the executed notebook goes, also when a cell failed.
        parameters: values for names of its `parameters` cell; names that it doesn't have are left away.
        environment: environment variables to add.
        timeout: seconds for the whole notebook.
        on_cell: called with a code cell's place (from 1) and their number when it begins.

    Returns:
        Outcome: also when it failed; this function raises nothing about the notebook's own doings.
    """
    cells = len(code_cells(notebook))
    known = parameters_of(notebook)
    order = {
        "notebook": str(notebook),
        "out": str(out),
        "parameters": {name: value for name, value in (parameters or {}).items() if name in known},
        "cell_timeout": settings.cell_timeout(),
    }
    library = str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join(filter(None, [library, os.environ.get("PYTHONPATH", "")]))
    surroundings = os.environ | {"SERVICELAB_HEADLESS": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1", "PYTHONPATH": path}
    started = time.monotonic()
    begun, told = 0, {}
    with tempfile.TemporaryFile("w+") as complaints:
        child = subprocess.Popen(
            [sys.executable, "-m", "servicelab.executing", json.dumps(order)],
            env=surroundings | (environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
            start_new_session=True,
        )
        try:
            for line in _lines(child, started + timeout):
                told = json.loads(line)
                if "begin" in told:
                    begun = told["begin"]
                    on_cell(begun, cells)
        except TimeoutError:
            told = {"error": f"not done after {timeout:.0f} s; the whole run was ended", "cell": told.get("cell", "")}
        finally:
            _end(child)
        complaints.seek(0)
        said = complaints.read().strip()
    seconds = time.monotonic() - started
    if told.get("end"):
        return Outcome(notebook.name, cells, cells, seconds)
    error = told.get("error") or f"the process that ran it ended with {child.returncode}: {said[-2000:]}"
    return Outcome(notebook.name, cells, max(0, begun - 1), seconds, error, told.get("cell", ""))


def _lines(child: subprocess.Popen, deadline: float):
    """The lines that a child prints, until it closes its output; TimeoutError at the deadline."""
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        while True:
            if not selector.select(max(0.0, deadline - time.monotonic())):
                raise TimeoutError
            line = child.stdout.readline()
            if not line:
                return
            if line.startswith("{"):
                yield line


def _end(child: subprocess.Popen) -> None:
    """End a child that should have ended; its kernel follows by itself, since it watches its parent."""
    if child.stdout:
        child.stdout.close()
    for number, patience in ((None, 20), (signal.SIGTERM, 10), (signal.SIGKILL, 10)):
        if number is not None:
            os.killpg(child.pid, number)
        try:
            child.wait(patience)
            return
        except subprocess.TimeoutExpired:
            continue


def _run_here(order: dict[str, Any]) -> None:
    """The child's part: run it, tell each cell's beginning, and then how it ended."""
    import papermill
    from papermill.engines import NBClientEngine, papermill_engines
    from papermill.exceptions import PapermillExecutionError

    told = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else prints does not get between the lines of JSON

    def tell(**words: Any) -> None:
        print(json.dumps(words), file=told, flush=True)

    class Telling(NBClientEngine):
        """papermill's own engine, which tells where it is."""

        @classmethod
        def execute_managed_notebook(cls, nb_man, kernel_name, **options):
            start, place = nb_man.cell_start, [0]

            def cell_start(cell, *rest, **named):
                if cell.cell_type == "code" and "injected-parameters" not in cell.metadata.get("tags", []):
                    place[0] += 1
                    tell(begin=place[0], cell=_name(cell))
                return start(cell, *rest, **named)

            nb_man.cell_start = cell_start
            return super().execute_managed_notebook(nb_man, kernel_name, **options)

    papermill_engines.register("telling", Telling)
    try:
        papermill.execute_notebook(
            order["notebook"],
            order["out"],
            parameters=order["parameters"],
            engine_name="telling",
            kernel_name="python3",
            progress_bar=False,
            cwd=str(Path(order["notebook"]).parent),
            execution_timeout=order["cell_timeout"],
            request_save_on_cell_execute=False,
        )
    except PapermillExecutionError as error:
        last = next((line for line in error.source.splitlines() if line.strip()), "")
        tell(error=f"{error.ename}: {ANSI.sub('', error.evalue)}", cell=f"[{_failed_id(order['out'])}] {last}")
    except Exception as error:  # a dead kernel, a cell's timeout: the parent reports it in its table
        tell(error=f"{type(error).__name__}: {ANSI.sub('', str(error))[-2000:]}")
    else:
        tell(end=True)


def _name(cell: Any) -> str:
    first = next((line for line in cell.source.splitlines() if line.strip()), "")
    return f"[{cell.get('id', '?')}] {first}"


def _failed_id(out: str) -> str:
    for cell in code_cells(Path(out)):
        if any(output["output_type"] == "error" for output in cell["outputs"]):
            return cell.get("id", "?")
    return "?"


if __name__ == "__main__":
    _run_here(json.loads(sys.argv[1]))
