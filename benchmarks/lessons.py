"""How long the lessons take under nbval, each and together, on pocket and on kind in one run.

    python benchmarks/lessons.py                      both, medians of 3, and the table in benchmarks/README.md is written anew
    python benchmarks/lessons.py --clusters pocket --runs 1 --print

pocket: clusters that the tests start for themselves; their start counts. kind: the running cluster ``$SERVICELAB_NAME``. Run it
on a machine that does nothing else: every number is wall-clock time.
"""

from __future__ import annotations

import argparse
import collections
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from xml.etree import ElementTree

from run import README, ROOT, machine

BEGIN, END = "<!-- lessons: made by benchmarks/lessons.py -->", "<!-- end of lessons -->"
SERIES = "the seven lessons of the document, one after the other"
SIDE_BY_SIDE = "the same, side by side on three workers, as `./lab test` does it"
WORKERS = ["-n", "3", "--dist", "loadfile"]


def lessons() -> list[Path]:
    """00 to 06; the capstone is not a section of the document."""
    return sorted((ROOT / "notebooks").glob("0[0-6]-*.ipynb"))


def run(cluster: str, junit: Path, *options: str) -> float:
    """All lessons under nbval once, against their stored outputs.

    Returns:
        float: seconds of wall-clock time.

    Raises:
        SystemExit: a lesson failed; a time without a result would mean nothing.
    """
    environment = {**os.environ, "SERVICELAB_TEST_CLUSTER": cluster, "PYTHONPATH": str(ROOT / "lib")}
    if cluster == "kind":
        environment["SERVICELAB_CLUSTER"] = "kind"
    command = [sys.executable, "-m", "servicelab", "test", *map(str, lessons()), f"--junitxml={junit}", *options]
    begin = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - begin
    if done.returncode:
        sys.exit(f"The lessons don't hold on {cluster}:\n{done.stdout[-3000:]}{done.stderr[-1000:]}")
    return seconds


def each(junit: Path) -> dict[str, float]:
    """Seconds of each lesson: the sum over its cells, the start of its kernel with the first."""
    seconds: dict[str, float] = collections.defaultdict(float)
    for case in ElementTree.parse(junit).iter("testcase"):
        name = next(path.stem for path in lessons() if path.stem in f"{case.get('classname')} {case.get('name')}")
        seconds[name] += float(case.get("time", 0))
    return dict(seconds)


def measure(cluster: str, runs: int) -> dict[str, list[float]]:
    """Row to seconds of every run."""
    results: dict[str, list[float]] = collections.defaultdict(list)
    with tempfile.TemporaryDirectory() as directory:
        junit = Path(directory) / "junit.xml"
        for _ in range(runs):
            results[SERIES].append(run(cluster, junit))
            for lesson, seconds in each(junit).items():
                results[lesson].append(seconds)
            if cluster == "pocket":  # on kind all share one cluster, and the lessons one namespace
                results[SIDE_BY_SIDE].append(run(cluster, junit, *WORKERS))
    return results


def table(results: dict[str, dict[str, list[float]]], runs: int) -> str:
    """Markdown."""
    how = f"Medians of {runs} runs (smallest–largest)" if runs > 1 else "One run"
    lines = [f"{how}, {time.strftime('%Y-%m-%d')}, {machine()}.", ""]
    lines += [f"| | {' | '.join(results)} | pocket is to reach |", f"|---|{'---|' * len(results)}---|"]
    for row in [*(path.stem for path in lessons()), SERIES, SIDE_BY_SIDE]:
        cells = []
        for one in results.values():
            values = one.get(row)
            span = f" ({min(values):.1f}–{max(values):.1f})" if values and len(values) > 1 else ""
            cells.append(f"**{statistics.median(values):.1f} s**{span}" if values else "—")
        lines.append(f"| {row} | {' | '.join(cells)} | {'60 s' if row in (SERIES, SIDE_BY_SIDE) else ''} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print, and write the table down."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--clusters", default="kind,pocket", help="which, in this order (default: %(default)s)")
    parser.add_argument("--runs", type=int, default=3, help="repetitions (default: %(default)s)")
    parser.add_argument("--print", action="store_true", help="print the table only")
    options = parser.parse_args()
    text = table({cluster: measure(cluster, options.runs) for cluster in options.clusters.split(",")}, options.runs)
    print(text)
    if not options.print:
        before, _, rest = README.read_text().partition(BEGIN)
        README.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
