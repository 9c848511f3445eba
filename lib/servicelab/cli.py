"""The ``servicelab`` command; ``./lab`` is the same with its environment made first."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from . import bundle, clusters
from .errors import ClusterError, LabError

if TYPE_CHECKING:
    from .lab import Lab

ROOT = Path(__file__).resolve().parents[2]
EXTENSIONS = ("record", "smoke", "classroom", "bundle")
"""Modules of this package that add commands of their own by ``add_parser(subparsers)``, where they are there."""


def main(argv: list[str] | None = None) -> int:
    """Runs one command and returns its exit code: 0 well, 1 a clear error, 2 wrong usage, 130 interrupted.

    Example:
        >>> main(["--version"])
        Traceback (most recent call last):
        SystemExit: 0
    """
    argv = sys.argv[1:] if argv is None else argv
    words, rest = _split_test(argv)
    args = _parser().parse_args(words)
    args.rest = rest
    try:
        bundle.keep_programs_on_path()
        return args.run(args) or 0
    except LabError as error:
        print(f"servicelab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("servicelab: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # `servicelab … | head`: nothing to say any more
        return 141


def _split_test(argv: list[str]) -> tuple[list[str], list[str]]:
    """All that follows ``test`` is pytest's, whatever it looks like; ``--browser`` and ``--help`` alone are ours."""
    if argv[:1] != ["test"] or argv[1:] in (["-h"], ["--help"]):
        return argv, []
    ours = [a for a in argv[1:] if a == "--browser"]
    return ["test", *ours], [a for a in argv[1:] if a != "--browser"]


def _parser() -> argparse.ArgumentParser:
    from . import __version__

    parser = argparse.ArgumentParser(
        prog="servicelab",
        description="Live lessons on how applications are connected in Kubernetes. Without a command: start a cluster and JupyterLab.",
        epilog="SERVICELAB_CLUSTER (kind, pocket, context:NAME) chooses the cluster, SERVICELAB_NAME names it, "
        "SERVICELAB_STATE is where it is kept.",
    )
    parser.add_argument("--version", action="version", version=f"servicelab {__version__}")
    _lab_options(parser)
    parser.set_defaults(run=_lab)
    commands = parser.add_subparsers(metavar="COMMAND", title="commands")

    def add(name: str, run: Callable[[argparse.Namespace], int | None], text: str, *, cluster: bool = True) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        if cluster:
            cluster_options(sub)
        sub.set_defaults(run=run)
        return sub

    sub = add("lab", _lab, "start a cluster if none is up, and JupyterLab on the first lesson (what no command does, too)", cluster=False)
    _lab_options(sub)
    sub = add("up", _up, "start a cluster and leave it running")
    sub.add_argument("--image", help="kind: the node image, default kindest/node:v1.34.4")
    sub.add_argument("--config", type=Path, help="kind: another configuration than kind-config.yaml")
    sub.add_argument(
        "--bundle", type=Path, metavar="FILE", help="kind: take the images from a file of `servicelab bundle`; default $SERVICELAB_BUNDLE"
    )
    sub = add("down", _down, "stop the cluster; what is in it is kept for the next up")
    sub.add_argument("--delete", action="store_true", help="and forget everything that is in it")
    add("status", _status, "what is running")
    add("kubeconfig", _kubeconfig, "print the path of the cluster's kubeconfig")
    sub = add("shell", _shell, "a shell in which kubectl talks to the lab's cluster")
    sub.add_argument("words", nargs=argparse.REMAINDER, metavar="COMMAND", help="run this instead of a shell")
    add("doctor", _doctor, "what the lab needs, what is there, and the fix for what isn't", cluster=False)
    sub = add("reset", _reset, "remove what the lessons made, and nothing else")
    sub.add_argument("--namespace", "-n", help="the learner's namespace")
    sub.add_argument("--progress", action="store_true", help="forget the checks and answers, too")
    sub = add("progress", _progress, "which checks passed and which quizzes were answered")
    sub.add_argument("--namespace", "-n", help="the learner's namespace")
    sub = add("test", _test, "run the tests; everything after `test` goes to pytest", cluster=False)
    sub.add_argument("--browser", action="store_true", help="also the tests in a real browser")
    for module in EXTENSIONS:
        if importlib.util.find_spec(f"{__package__}.{module}"):
            importlib.import_module(f"{__package__}.{module}").add_parser(commands)
    return parser


def cluster_options(parser: argparse.ArgumentParser) -> None:
    """``--cluster`` and ``--name``, as every command has them that talks to a cluster."""
    parser.add_argument(
        "--cluster", metavar="CLUSTER", default=argparse.SUPPRESS, help="kind, pocket or context:NAME; default: what is up, or can be"
    )
    parser.add_argument("--name", default=argparse.SUPPRESS, help="the cluster's name, default $SERVICELAB_NAME or servicelab")


def _lab_options(parser: argparse.ArgumentParser) -> None:
    cluster_options(parser)
    parser.add_argument("--port", type=_port, default=argparse.SUPPRESS, help="JupyterLab's port; default 8888, or the next free one")
    parser.add_argument("--no-browser", action="store_true", default=argparse.SUPPRESS, help="print the URL only")
    parser.add_argument("--keep", action="store_true", default=argparse.SUPPRESS, help="leave the cluster running when JupyterLab ends")


def _port(text: str) -> int:
    port = int(text) if text.isdigit() else -1
    if not 0 < port < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: give a number from 1 to 65535")
    return port


def chosen(args: argparse.Namespace) -> clusters.Cluster:
    """The cluster that the options and the environment name; its name goes to the environment for what we start."""
    if name := getattr(args, "name", None):
        from .state import checked_name

        os.environ["SERVICELAB_NAME"] = checked_name(name)
    return clusters.choose(getattr(args, "cluster", None))


def running(args: argparse.Namespace) -> clusters.Cluster:
    """The chosen cluster, which must be up.

    Raises:
        ClusterError: it isn't; says how to start it.
    """
    cluster = chosen(args)
    status = cluster.status()
    if not status.running:
        raise ClusterError(status.detail or f"The {cluster.kind} cluster {cluster.name!r} is not up; servicelab up starts it.")
    return cluster


@contextmanager
def steps(first: str) -> Iterator[Callable[[str], None]]:
    """Shows what is being done: a spinner with the present step in a terminal, else a line for each step."""
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield lambda text: console.print(f"· {text}", markup=False, soft_wrap=True)
        return
    with console.status(first) as status:
        yield status.update


def start(cluster: clusters.Cluster, **options: object) -> bool:
    """Starts a cluster, showing the steps. Whether it had to be started.

    A kind cluster takes its images from the bundle that the option `bundle` or `$SERVICELAB_BUNDLE` names.
    """
    file = bundle.given(options.pop("bundle", None)) if cluster.kind == "kind" else None  # type: ignore[arg-type]
    if file is not None:
        from .bundle import use

        return use.start(cluster, file, steps, **options)
    if cluster.status().running:
        return False
    with steps(f"starting the {cluster.kind} cluster {cluster.name}") as progress:
        cluster.start(progress, **options)
    return True


# -- the commands ----------------------------------------------------------------------------------------------------------


def _up(args: argparse.Namespace) -> int:
    cluster = chosen(args)
    for option in ("image", "config", "bundle"):
        if getattr(args, option) and cluster.kind != "kind":
            raise LabError(f"--{option} is for kind clusters, and this is a {cluster.kind} cluster. Add --cluster kind.")
    new = start(cluster, image=args.image, config=args.config, bundle=args.bundle)
    print(f"✓ {cluster.kind} cluster {cluster.name} is up{'' if new else ' already'}: {cluster.status().detail}")
    print(f"  kubectl: export KUBECONFIG={cluster.kubeconfig()}   or   servicelab shell")
    return 0


def _down(args: argparse.Namespace) -> int:
    explicit = getattr(args, "cluster", None) or os.environ.get("SERVICELAB_CLUSTER")
    if explicit:
        targets = [chosen(args)]
    else:
        chosen_name = getattr(args, "name", None)
        targets = [c for c in _lab_clusters(chosen_name) if c.status().state not in ("absent",)]
    for cluster in targets:
        was = cluster.status().state
        with steps(f"stopping the {cluster.kind} cluster {cluster.name}") as progress:
            (cluster.delete if args.delete else cluster.stop)(progress)
        if cluster.kind in ("kind", "pocket"):
            words = {"absent": "was not there", "stopped": "was stopped already"}.get(
                was, "is stopped; what is in it is kept for the next up"
            )
            print(f"✓ {cluster.kind} cluster {cluster.name} {'is deleted' if args.delete and was != 'absent' else words}")
    if not targets:
        print("✓ there is no lab cluster")
    return 0


def _lab_clusters(name: str | None = None) -> list[clusters.Cluster]:
    return [clusters.known(kind, name) for kind in (("pocket", "kind") if sys.platform == "linux" else ("kind",))]


def _status(args: argparse.Namespace) -> int:
    if getattr(args, "cluster", None) or os.environ.get("SERVICELAB_CLUSTER"):
        found = [chosen(args)]
    else:
        found = _lab_clusters(getattr(args, "name", None))
    up = False
    for cluster in found:
        status = cluster.status()
        up = up or status.running
        sign = {"running": "✓", "absent": "·"}.get(status.state, "✗")
        print(f"{sign} {cluster.kind:<7} {cluster.name:<12} {status.state:<8} {status.detail}")
    return 0 if up else 3


def _kubeconfig(args: argparse.Namespace) -> int:
    print(running(args).kubeconfig())
    return 0


def _shell(args: argparse.Namespace) -> int:
    from . import kubectl

    cluster = running(args)
    kubectl.put_first_on_path()
    os.environ["KUBECONFIG"] = str(cluster.kubeconfig())
    command = args.words[1:] if args.words[:1] == ["--"] else args.words
    if not command:
        command = [os.environ.get("SHELL") or "/bin/sh"]
        if sys.stdin.isatty():
            print(f"kubectl talks to the {cluster.kind} cluster {cluster.name}; exit or Ctrl-D leaves.", file=sys.stderr)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        raise LabError(f"{command[0]!r} can't be run: {error.strerror}.") from error


def _doctor(args: argparse.Namespace) -> int:
    from . import doctor

    findings = doctor.examine()
    doctor.show(findings)
    return 0 if not all(doctor.usable_clusters(findings).values()) else 1


@contextmanager
def connected(args: argparse.Namespace) -> Iterator[Lab]:
    """The Lab of the chosen cluster, in the namespace that ``--namespace`` names."""
    from .connecting import connect

    cluster = running(args)
    wanted = f"context:{cluster.name}" if cluster.kind == "context" and cluster.name != "in-cluster" else cluster.kind
    lab = connect("in-cluster" if cluster.name == "in-cluster" else wanted, args.namespace, show=False)
    try:
        yield lab
    finally:
        lab.close()


def _reset(args: argparse.Namespace) -> int:
    with connected(args) as lab:
        lab.reset(keep_progress=not args.progress)
    return 0


def _progress(args: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.table import Table

    with connected(args) as lab:
        rows, summary = lab.progress.table(), lab.progress.summary()
    table = Table(box=None, header_style="bold")
    for column in ("lesson", "kind", "", "what", "tries"):
        table.add_column(column)
    for row in rows.itertuples():
        sign = {True: "[green]✓[/]", False: "[red]✗[/]"}.get(row.done, "·")
        table.add_row(row.lesson, row.kind, sign, row.what.replace("[", r"\["), str(row.tries) if row.tries else "")
    Console().print(table)
    print(summary)
    return 0


def _lab(args: argparse.Namespace) -> int:
    from .serving import serve

    return serve(
        chosen(args), port=getattr(args, "port", None), browser=not getattr(args, "no_browser", False), keep=getattr(args, "keep", False)
    )


def _test(args: argparse.Namespace) -> int:
    """pytest on the tests and, unless other files are named, on every notebook, nothing waiting for a person."""
    import subprocess

    environment = os.environ | {"SERVICELAB_HEADLESS": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    if args.browser:
        environment["SERVICELAB_BROWSER"] = "1"
    environment.setdefault("SERVICELAB_TEST_CLUSTER", "pocket")
    named = [a for a in args.rest if not a.startswith("-") and (ROOT / a.split("::")[0]).exists()]
    targets = [] if named else [t for t in ("tests", "notebooks") if (ROOT / t).exists()]
    if any("notebooks" in t or t.endswith(".ipynb") for t in (*targets, *named)):
        targets.append("--nbval")
    alone = named or any(a.startswith(("-n", "--dist", "--pdb")) for a in args.rest)
    if environment["SERVICELAB_TEST_CLUSTER"] == "pocket" and not alone:
        # Everything: on several workers, each with a cluster of its own; one more than cores, since much of it is waiting.
        targets += ["-n", str(min((os.cpu_count() or 1) + 1, 6)), "--dist", "loadfile", "--no-loadscope-reorder"]
    command = [sys.executable, "-m", "pytest", *targets, *args.rest]
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
