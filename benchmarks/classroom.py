"""A whole class at once: N headless students, each with their own kubeconfig, run lessons on one kind cluster of this machine.

    python benchmarks/classroom.py --students 30 --only 01,02,03

makes a class of its own (SERVICELAB_CLASS), lets all students run `servicelab smoke` at the same time, deletes the class, and writes
the result into README.md between its markers. The machine also does the work of N laptops: a kernel and a kubectl for each student.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from datetime import datetime, timezone
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "lib"))

from servicelab.classroom.create import create  # noqa: E402
from servicelab.classroom.delete import delete  # noqa: E402
from servicelab.classroom.names import numbered  # noqa: E402
from servicelab.client import Client  # noqa: E402
from servicelab.clusters import known  # noqa: E402

README = Path(__file__).parent / "README.md"
BEGIN, END = "<!-- class: made by benchmarks/classroom.py -->", "<!-- end of class -->"
SAMPLE_SECONDS = 10.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--students", type=int, default=30)
    parser.add_argument("--only", default="01,02,03", help="lessons, as for servicelab smoke")
    parser.add_argument("--cluster", default="kind", help="kind or context:NAME")
    parser.add_argument("--timeout", type=float, default=5400.0, help="seconds for all lessons of a student")
    parser.add_argument("--dry", action="store_true", help="leave README.md alone")
    args = parser.parse_args()

    os.environ["SERVICELAB_CLASS"] = f"bench{secrets.token_hex(3)}"
    cluster = known(args.cluster)
    students = numbered(args.students)
    with tempfile.TemporaryDirectory(prefix="servicelab-class-") as name:
        folder = Path(name)
        began = time.monotonic()
        try:
            made = create(cluster, students, out=folder)
            create_seconds = time.monotonic() - began
            if made.failed:
                print(made.failed, file=sys.stderr)
                return 1
            runs, peak = run(students, made.files, folder, args, Client(cluster.kubeconfig()))
        finally:
            before = time.monotonic()
            delete(cluster, out=folder)
            delete_seconds = time.monotonic() - before
        lessons = {student: lessons_of(folder / f"{student.key}.xml") for student in students}
        for student, (code, _) in runs.items():
            if code:
                print(f"--- {student.key} ended with {code}\n{(folder / f'{student.key}.log').read_text()[-1500:]}")
    table = report(args, runs, lessons, peak, create_seconds, delete_seconds)
    print(table)
    if not args.dry:
        text = README.read_text(encoding="utf-8")
        README.write_text(re.sub(f"{BEGIN}.*?{END}", lambda _: f"{BEGIN}\n{table}\n{END}", text, flags=re.DOTALL), encoding="utf-8")
    return 1 if any(code for code, _ in runs.values()) else 0


def run(students, files, folder: Path, args, client: Client):
    """Everyone at once. Returns each student's exit code and seconds, and the peaks of what was used."""
    began = time.monotonic()
    processes, runs = {}, {}
    peak = {"students": 0.0, "pods": 0.0, "nodes": 0.0}
    for student in students:
        environment = os.environ | {
            "KUBECONFIG": str(files[student]),
            "SERVICELAB_USER_KUBECONFIG": str(files[student]),
            "SERVICELAB_STATE": str(folder / f"state-{student.key}"),
            "PYTHONPATH": str(ROOT / "lib"),
            # one machine is all the laptops and the cluster, too: what is waited for comes late, but it comes
            "SERVICELAB_WAIT": "900",
            "SERVICELAB_PATIENCE": "300",
            "SERVICELAB_RESET_WAIT": "900",
            "SERVICELAB_CELL_WAIT": "1800",
        }
        command = [sys.executable, "-m", "servicelab", "smoke", "--only", args.only, "--timeout", str(args.timeout)]
        command += ["--cluster", f"context:{student.namespace}", "--junit", str(folder / f"{student.key}.xml")]
        log = (folder / f"{student.key}.log").open("w")
        processes[student] = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT)
    try:
        sampled = 0.0
        while len(runs) < len(processes):
            for student, process in processes.items():
                if student not in runs and process.poll() is not None:
                    runs[student] = (process.returncode, time.monotonic() - began)
                    print(f"{student.key}: {'holds' if not process.returncode else 'FAILS'} after {runs[student][1]:.0f} s", flush=True)
            if time.monotonic() - sampled > SAMPLE_SECONDS:
                sampled = time.monotonic()
                peak["students"] = max(peak["students"], memory_of([p.pid for p in processes.values() if p.poll() is None]))
                peak["nodes"] = max(peak["nodes"], memory_of_nodes())
                spaces = {student.namespace for student in students}
                peak["pods"] = max(peak["pods"], sum(pod["metadata"]["namespace"] in spaces for pod in client.list("pods")))
            time.sleep(0.5)
    finally:
        for process in processes.values():
            if process.poll() is None:
                process.terminate()
    return runs, peak


def memory_of(roots: list[int]) -> float:
    """MiB of these processes and all below them; what several share is counted once (proportional set size)."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            children.setdefault(int(stat.read_text().rpartition(")")[2].split()[1]), []).append(int(stat.parent.name))
        except (OSError, IndexError):
            continue  # it has ended meanwhile
    total, todo = 0, list(roots)
    while todo:
        pid = todo.pop()
        todo += children.get(pid, [])
        try:
            found = re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
        except OSError:
            continue
        total += int(found[1]) if found else 0
    return total / 1024


def memory_of_nodes() -> float:
    """MiB of the nodes' processes, everything in their containers included, as `/proc` has it; 0 where they aren't kind's."""
    asked = subprocess.run(
        ["docker", "ps", "-q", "--filter", f"label=io.x-k8s.kind.cluster={os.environ.get('SERVICELAB_NAME') or 'servicelab'}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if asked.returncode or not asked.stdout.split():
        return 0.0
    pids = subprocess.run(
        ["docker", "inspect", "-f", "{{.State.Pid}}", *asked.stdout.split()], capture_output=True, text=True, check=False
    ).stdout.split()
    return memory_of([int(pid) for pid in pids])


def lessons_of(file: Path) -> dict[str, float]:
    """Seconds of each lesson that held."""
    if not file.exists():
        return {}
    return {case.get("name"): float(case.get("time")) for case in ET.parse(file).iter("testcase") if case.find("failure") is None}


def report(args, runs, lessons, peak, create_seconds: float, delete_seconds: float) -> str:
    seconds = [time for _, time in runs.values()]
    machine = f"{os.cpu_count()} CPUs, {os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB, {platform.machine()}"
    failed = sum(bool(code) for code, _ in runs.values())
    lines = [
        f"{args.students} students at once, lessons {args.only}, {args.cluster} cluster on {machine},",
        f"{datetime.now(timezone.utc):%Y-%m-%d} (load of the machine at the end: {os.getloadavg()[1]:.0f}):",
        "",
        "| what | result |",
        "|---|---|",
        f"| students whose lessons all held | {len(runs) - failed} of {len(runs)} |",
        f"| making the class | {create_seconds:.0f} s |",
        f"| all lessons, median and slowest student | {statistics.median(seconds):.0f} s, {max(seconds):.0f} s |",
    ]
    for lesson in sorted({name for found in lessons.values() for name in found}):
        times = [found[lesson] for found in lessons.values() if lesson in found]
        lines.append(f"| {lesson}, median and slowest | {statistics.median(times):.0f} s, {max(times):.0f} s |")
    lines += [
        f"| most student pods at once | {peak['pods']:.0f} |",
        f"| memory of the students' kernels and kubectls, peak | {peak['students']:.0f} MiB |",
        f"| memory of the three nodes with all pods, peak | {peak['nodes']:.0f} MiB |",
        f"| deleting the class | {delete_seconds:.0f} s |",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
