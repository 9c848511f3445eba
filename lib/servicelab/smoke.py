"""`servicelab smoke`: every lesson from top to bottom on a cluster, with other numbers if wanted, and a table of how it went."""

from __future__ import annotations

import argparse
import contextlib
import os
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

from . import executing
from .errors import LabError


def add_parser(commands) -> None:
    """Add `smoke` to the `servicelab` command."""
    from .cli import cluster_options

    text = "Run the lessons from top to bottom with papermill, and say which of them hold."
    parser = commands.add_parser("smoke", help="run the lessons from top to bottom", description=text)
    cluster_options(parser)
    add = parser.add_argument
    add("-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="such as -p replicas 3; repeatable")
    add("--only", metavar="NUMBERS", help="these lessons only, such as 02,05")
    add("--out", type=Path, metavar="DIR", help="keep the executed notebooks here")
    add("--junit", type=Path, metavar="FILE", help="write the results as JUnit XML")
    add("--timeout", type=float, default=1800.0, metavar="SECONDS", help="for the whole run (default: %(default).0f)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command.

    Returns:
        int: 0 when every lesson held, 1 when one did not.

    Raises:
        LabError: a wrong parameter, an unknown lesson, no cluster.
    """
    from .cli import running

    notebooks = executing.find(args.only)
    if not notebooks:
        raise LabError("There are no lessons in notebooks/.")
    parameters = parsed(args.parameter, notebooks)
    cluster = running(args)
    environment = {
        "SERVICELAB_CLUSTER": f"context:{cluster.name}" if cluster.kind == "context" else cluster.kind,
        "SERVICELAB_NAME": os.environ.get("SERVICELAB_NAME") or "servicelab",
    }
    if cluster.name == "in-cluster":
        environment["SERVICELAB_CLUSTER"] = "in-cluster"
    with _directory(args.out) as out:
        outcomes = run_all(notebooks, out, parameters, environment, args.timeout)
        _show(outcomes, args.out)
    if args.junit:
        args.junit.parent.mkdir(parents=True, exist_ok=True)
        args.junit.write_bytes(junit(outcomes))
    return 0 if all(outcome.passed for outcome in outcomes) else 1


def parsed(pairs: list[list[str]], notebooks: list[Path]) -> dict[str, Any]:
    """Parameters from the command line, their values read as YAML: `3` is a number, `null` is None, `kind` a word.

    Raises:
        LabError: a name that none of the notebooks has. papermill itself would only warn, and the run would prove nothing.
    """
    import yaml

    known = set().union(*(executing.parameters_of(notebook) for notebook in notebooks))
    parameters = {}
    for name, value in pairs:
        if name not in known:
            raise LabError(f"No lesson chosen has a parameter {name!r}; they have: {', '.join(sorted(known)) or 'none'}.")
        try:
            parameters[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise LabError(f"The value {value!r} of the parameter {name} can't be read: {error}") from error
    return parameters


def run_all(
    notebooks: list[Path], out: Path, parameters: dict[str, Any], environment: dict[str, str], timeout: float
) -> list[executing.Outcome]:
    """Run notebooks one after the other, with a progress bar; a failed one doesn't keep the next from running.

    Args:
        notebooks: the files.
        out: the directory for the executed notebooks.
        parameters: for all of them; each takes those that it has.
        environment: environment variables to add.
        timeout: seconds for all of them together.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    deadline = time.monotonic() + timeout
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    outcomes = []
    with Progress(*columns, transient=True) as progress:
        for notebook in notebooks:
            task = progress.add_task(notebook.stem, total=len(executing.code_cells(notebook)))

            def on_cell(number: int, _of: int, task=task) -> None:
                progress.update(task, completed=number - 1)

            left = max(1.0, deadline - time.monotonic())
            outcome = executing.execute(
                notebook, out / notebook.name, parameters, environment=environment, timeout=left, on_cell=on_cell
            )
            progress.update(task, completed=outcome.done)
            outcomes.append(outcome)
    return outcomes


@contextlib.contextmanager
def _directory(wanted: Path | None):
    """Where executed notebooks go: the wanted directory, or one that is removed afterwards."""
    import tempfile

    if wanted is None:
        with tempfile.TemporaryDirectory(prefix="servicelab-smoke-") as name:
            yield Path(name)
        return
    try:
        wanted.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LabError(f"The executed notebooks can't be kept in {wanted}: {error.strerror}.") from error
    yield wanted


def _show(outcomes: list[executing.Outcome], kept: Path | None) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("lesson", "cells", "seconds", "result")
    for outcome in outcomes:
        result = "[green]✓ holds[/]" if outcome.passed else "[red]✗ fails[/]"
        table.add_row(Path(outcome.notebook).stem, f"{outcome.done}/{outcome.cells}", f"{outcome.seconds:.1f}", result)
    console = Console()
    console.print(table)
    for outcome in outcomes:
        if not outcome.passed:
            where = f"{outcome.notebook}, cell {outcome.cell}" if outcome.cell else outcome.notebook
            console.print(f"\n✗ {where}\n{outcome.error}", markup=False, highlight=False)
    if kept is not None:
        console.print(f"The executed notebooks are in {kept}", markup=False, highlight=False)


def junit(outcomes: list[executing.Outcome]) -> bytes:
    """The results as JUnit XML, one test case for each lesson."""
    failures = sum(not outcome.passed for outcome in outcomes)
    seconds = sum(outcome.seconds for outcome in outcomes)
    suite = ET.Element("testsuite", name="servicelab smoke", tests=str(len(outcomes)), failures=str(failures), time=f"{seconds:.3f}")
    for outcome in outcomes:
        case = ET.SubElement(suite, "testcase", classname="notebooks", name=Path(outcome.notebook).stem, time=f"{outcome.seconds:.3f}")
        if not outcome.passed:
            failure = ET.SubElement(case, "failure", message=f"{outcome.cell}: {outcome.error.splitlines()[0]}")
            failure.text = outcome.error
    ET.indent(suite)
    return ET.tostring(suite, encoding="utf-8", xml_declaration=True)
