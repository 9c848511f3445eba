"""`servicelab class create | list | board | reset | renew | delete`."""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ..errors import LabError
from . import access

HOW = (
    "On a student's machine: save the file, then\n"
    "    KUBECONFIG=NAME.kubeconfig SERVICELAB_CLUSTER=context:CONTEXT ./lab      (CONTEXT is the name of their namespace)"
)


def add_parser(commands: Any) -> None:
    """Adds `class` to the `servicelab` command."""
    from ..cli import cluster_options

    text = "a class: one shared cluster, a namespace for each student, a board for the teacher"
    parser = commands.add_parser("class", help=text, description=text[0].upper() + text[1:] + ".")
    parser.set_defaults(run=lambda args: parser.print_help() or 2)
    actions = parser.add_subparsers(metavar="ACTION", title="actions")

    def add(name: str, run: Any, words: str, *, out: bool = False) -> argparse.ArgumentParser:
        sub = actions.add_parser(name, help=words, description=words[0].upper() + words[1:] + ".")
        cluster_options(sub)
        if out:
            sub.add_argument("--out", type=Path, metavar="DIR", help="where the students' kubeconfigs are; default in the lab's state")
        sub.set_defaults(run=run)
        return sub

    sub = add("create", _create, "make namespaces, rights and kubeconfigs; run again with more names, it adds", out=True)
    sub.add_argument("--students", required=True, metavar="NAMES.txt|N", help="a file with a name on each line, or how many")
    sub.add_argument(
        "--node-steps", action=argparse.BooleanOptionalAction, default=None,
        help="prepare a pod on each node which shows students the node's addresses and rules, read-only; --no-… removes them",
    )  # fmt: skip
    _token_options(sub)
    add("list", _list, "who is in the class, and until when their kubeconfigs hold", out=True)
    sub = add("board", _board, "who is where, which checks pass, who is stuck")
    sub.add_argument("--watch", action="store_true", help="live, until Ctrl-C")
    sub.add_argument("--hide-names", action="store_true", help="numbers instead of names, for a projector")
    sub = add("reset", _reset, "remove what the lessons made in a student's namespace")
    sub.add_argument("student", metavar="STUDENT", help="short name, as `class list` shows it")
    sub.add_argument("--progress", action="store_true", help="forget the checks and answers, too")
    sub = add("renew", _renew, "a new kubeconfig for one student; every earlier one stops working", out=True)
    sub.add_argument("student", metavar="STUDENT", help="short name, as `class list` shows it")
    _token_options(sub)
    sub = add("delete", _delete, "delete the class: its namespaces with all that is in them, its rights, its kubeconfigs", out=True)
    sub.add_argument("--yes", action="store_true", help="don't ask")


def _token_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--valid", type=_hours, default=float(access.VALID_HOURS), metavar="HOURS",
        help=f"how long the kubeconfigs hold (default {access.VALID_HOURS}, two weeks; many managed clusters allow less)",
    )  # fmt: skip
    parser.add_argument("--server", metavar="URL", help="the API server's URL for students, such as https://192.0.2.7:6443")


def _hours(text: str) -> float:
    try:
        hours = float(text)
    except ValueError:
        hours = 0.0
    if not 1 <= hours <= 24 * 366:
        raise argparse.ArgumentTypeError(f"{text!r}: give hours from 1 to {24 * 366}")
    return hours


@contextmanager
def _bar(text: str, total: int):
    """A progress bar in a terminal; quiet lines elsewhere. Gives (say, advance)."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield (lambda words: console.print(f"· {words}", markup=False, soft_wrap=True)), (lambda *_: None)
        return
    with Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console) as progress:
        task = progress.add_task(text, total=total)
        yield (lambda words: progress.update(task, description=words)), (lambda *_: progress.advance(task))


def _cluster(args: argparse.Namespace) -> Any:
    from ..cli import chosen, running
    from .create import refuse_pocket

    refuse_pocket(chosen(args))  # before anything is asked of it: it need not even be up
    return running(args)


def _create(args: argparse.Namespace) -> int:
    from .create import create
    from .names import parsed

    students = parsed(args.students)
    cluster = _cluster(args)
    with _bar(f"a class of {len(students)}", len(students)) as (say, advance):
        made = create(
            cluster, students, out=args.out, server=args.server, hours=args.valid, with_node_steps=args.node_steps, step=say, done=advance
        )
    where = access.folder(cluster, args.out)
    new = len(made.files) - len(made.kept)
    print(f"✓ {len(made.files)} students on the {cluster.kind} cluster {cluster.name}")
    print(f"✓ {new} new kubeconfigs, {len(made.kept)} kept, in {where}")
    short = [file for student, file in made.files.items() if _hours_left(file) < min(args.valid, 48) - 1]
    if short:
        print(f"! this cluster limits tokens: {len(short)} kubeconfigs end in {_hours_left(short[0]):.0f} h. Run this again on the day.")
    if cluster.kind == "kind" and not args.server:
        print("! kind's API server listens on this machine only; students elsewhere need --server (docs/teaching.md)")
    print(HOW)
    for student, why in made.failed.items():
        print(f"✗ {student.key}: {why}", file=sys.stderr)
    if made.failed:
        raise LabError(f"{len(made.failed)} of {len(students)} students aren't ready, see above. Run the same command again: it goes on.")
    return 0


def _hours_left(file: Path) -> float:
    return (access.claims(access.token_in(file)).get("exp", 0) - time.time()) / 3600


def _list(args: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.table import Table

    from ..client import Client
    from .roster import namespaces, student_of

    cluster = _cluster(args)
    client = Client(cluster.kubeconfig())
    found = namespaces(client)
    if not found:
        print("There is no class in this cluster; servicelab class create --students N makes one.")
        return 0
    where = access.folder(cluster, args.out)
    table = Table(box=None, header_style="bold")
    for column in ("student", "name", "namespace", "state", "kubeconfig until"):
        table.add_column(column)
    for namespace in found:
        student = student_of(namespace)
        end = access.claims(access.token_in(access.file_of(where, student))).get("exp")
        until = datetime.fromtimestamp(end, timezone.utc).strftime("%Y-%m-%d %H:%M UTC") if end else "not in this directory"
        table.add_row(student.key, student.name.replace("[", r"\["), student.namespace, namespace["status"].get("phase", "?"), until)
    Console().print(table)
    print(f"{len(found)} students; their kubeconfigs are in {where}")
    client.close()
    return 0


def _board(args: argparse.Namespace) -> int:
    from rich.console import Console

    from ..client import Client
    from . import board

    client = Client(_cluster(args).kubeconfig())
    live = board.Board(client).read()
    if args.watch:
        board.watch(live, hide=args.hide_names)
    else:
        rows = live.rows()
        Console().print(board.table(rows, hide=args.hide_names), soft_wrap=True)
        print(board.summary(rows))
    client.close()
    return 0


def _reset(args: argparse.Namespace) -> int:
    from ..client import Client
    from .reset import reset
    from .roster import one

    cluster = _cluster(args)
    student = one(Client(cluster.kubeconfig()), args.student)
    reset(cluster, student, keep_progress=not args.progress)
    print(f"✓ what the lessons made in {student.namespace} is removed")
    return 0


def _renew(args: argparse.Namespace) -> int:
    from ..client import Client
    from .create import renew
    from .roster import one

    cluster = _cluster(args)
    student = one(Client(cluster.kubeconfig()), args.student)
    file = renew(cluster, student, out=args.out, server=args.server, hours=args.valid)
    print(f"✓ {student.key} has a new kubeconfig, {file}; earlier ones stop working within seconds")
    return 0


def _delete(args: argparse.Namespace) -> int:
    from ..client import Client
    from .delete import delete, found

    cluster = _cluster(args)
    there = found(Client(cluster.kubeconfig()))
    if not args.yes:
        print(f"This deletes {len(there)} namespaces of the {cluster.kind} cluster {cluster.name}, with everything that is in them:")
        print("  " + ", ".join(namespace["metadata"]["name"] for namespace in there) if there else "  none")
        try:
            answer = input("Delete the class? [y/N] ")
        except EOFError:
            answer = ""
        if answer.strip().lower() not in ("y", "yes"):
            print("Nothing was deleted.")
            return 1
    with _bar("deleting the class", len(there)) as (say, advance):
        names = delete(cluster, out=args.out, step=say, done=advance)
    print(f"✓ the class is deleted: {len(names)} namespaces" if names else "✓ there was no class")
    return 0
