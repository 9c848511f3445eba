"""``./lab``: a cluster, and JupyterLab on the first lesson, until Ctrl-C."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import webbrowser
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

import httpx

from .errors import LabError
from .state import state_dir, write_private

if TYPE_CHECKING:
    from .clusters import Cluster

ROOT = Path(__file__).resolve().parents[2]
FIRST = "notebooks/00-start-here.ipynb"
START_SECONDS = 120
DEFAULT_WORKSPACE = "default-37a8.jupyterlab-workspace"  # JupyterLab's name for the file of the workspace that nobody named
SETTINGS = Path(__file__).with_name("jupyter")
"""JupyterLab's defaults for the lessons, in its ``labconfig``: no question about news that hides what a learner reads, whole names of
lessons in the file list, long code lines wrapped. What people set themselves goes before them."""


def serve(cluster: Cluster, *, port: int | None = None, browser: bool = True, keep: bool = False) -> int:
    """Starts the cluster if it isn't up, then JupyterLab; prints its URL with the token; ends both on Ctrl-C.

    A cluster that was up before stays up; one that this started is stopped (what is in it is kept), unless ``keep``.

    Args:
        cluster: which one.
        port: JupyterLab's; default 8888 or the next free one.
        browser: whether to open the first lesson in one.
        keep: leave the cluster running.

    Raises:
        LabError: the port is taken, or JupyterLab doesn't start; with its own words.
    """
    from .cli import start, steps

    with _signals():
        _free_port(port)  # a port that is taken is told before the cluster starts
        started = start(cluster)
        jupyter = None
        try:
            with tempfile.TemporaryFile("w+") as log:
                token = secrets.token_hex(24)
                with steps("starting JupyterLab"):
                    jupyter, port = _answering(cluster, port, token, log)
                url = f"http://127.0.0.1:{port}/lab/tree/{FIRST}?token={token}"
                print(
                    f"\nServices Lab on the {cluster.kind} cluster {cluster.name}. Open the first lesson:\n\n    {url}\n\nCtrl-C ends it.",
                    flush=True,
                )
                if browser:
                    webbrowser.open(url)
                code = jupyter.wait()
                raise LabError(f"JupyterLab ended by itself with exit code {code}:\n{tail(log)}")
        except KeyboardInterrupt:
            print("\nending JupyterLab …", file=sys.stderr)
            return 0
        finally:
            if jupyter is not None:
                end_jupyter(jupyter)
            if started and not keep:
                with steps(f"stopping the {cluster.kind} cluster {cluster.name}") as progress:
                    cluster.stop(progress)
                print(f"✓ the {cluster.kind} cluster {cluster.name} is stopped; what is in it is kept for the next time", file=sys.stderr)
            elif cluster.kind != "context":
                print(f"✓ the {cluster.kind} cluster {cluster.name} stays up; ./lab down stops it", file=sys.stderr)


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """A terminal that closes and a polite kill end the lab as Ctrl-C does; and so does SIGINT where a shell's ``&`` had it ignored."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = {s: signal.signal(s, interrupt) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)


def _free_port(wanted: int | None) -> int:
    for port in [wanted] if wanted else range(8888, 8988):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                if wanted:
                    raise LabError(
                        f"Port {wanted} can't be used for JupyterLab: {error.strerror}. "
                        "Choose another with --port, or leave the choice to the lab."
                    ) from error
                continue
            return port
    raise LabError("All ports from 8888 to 8987 are taken. Name a free one with --port.")


def _answering(cluster: Cluster, wanted: int | None, token: str, log: IO[str]) -> tuple[subprocess.Popen, int]:
    """JupyterLab when it answers, and its port: another one where a lab that started in the same moment was faster."""
    tries = 5
    while True:
        tries -= 1
        port = _free_port(wanted)
        jupyter = start_jupyter(cluster, port, token, log)
        try:
            wait_for_jupyter(jupyter, port, token, log)
        except BaseException as error:
            end_jupyter(jupyter)
            if not wanted and tries and isinstance(error, LabError) and "already in use" in str(error):
                continue
            raise
        return jupyter, port


def start_jupyter(
    cluster: Cluster,
    port: int,
    token: str,
    log: IO[str],
    *,
    root: Path = ROOT,
    first: str = FIRST,
    workspaces: Path | None = None,
    options: Iterable[str] = (),
) -> subprocess.Popen:
    """JupyterLab as a program, in whose notebooks ``connect()`` finds the cluster. :func:`wait_for_jupyter` waits until it answers.

    Args:
        cluster: what its notebooks connect to.
        port: where it listens, on 127.0.0.1 alone.
        token: what a browser must present.
        log: an open file for what it says.
        root: the directory that it shows.
        first: the notebook that it opens, below ``root``.
        workspaces: where it remembers what was open; by default the lab's own place, not that of this user's other work.
        options: more of its own options.
    """
    workspaces = workspaces or state_dir() / "jupyterlab-workspaces"
    furnish(workspaces)
    environment = {
        **os.environ,
        "JUPYTER_TOKEN": token,  # in the environment and not on the command line, which every user of this machine can read
        "SERVICELAB_CLUSTER": f"context:{cluster.name}" if cluster.kind == "context" else cluster.kind,
        "SERVICELAB_NAME": os.environ.get("SERVICELAB_NAME") or (cluster.name if cluster.kind in ("kind", "pocket") else "servicelab"),
        "JUPYTER_CONFIG_PATH": os.pathsep.join(p for p in (os.environ.get("JUPYTER_CONFIG_PATH", ""), str(SETTINGS)) if p),
        "PYTHONPATH": os.pathsep.join(p for p in (str(ROOT / "lib"), os.environ.get("PYTHONPATH", "")) if p),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
    }
    if cluster.name == "in-cluster":
        del environment["SERVICELAB_CLUSTER"]  # found by itself
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0",
        f"--LabApp.workspaces_dir={workspaces}", f"--ServerApp.root_dir={root}", f"--ServerApp.default_url=/lab/tree/{first}",
        "--LabApp.news_url=None", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate", *options,
    ]  # fmt: skip
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")
    # Its own session: Ctrl-C reaches this program alone, which then ends JupyterLab, and JupyterLab its kernels.
    return subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
    )


def furnish(workspaces: Path) -> None:
    """Writes the layout of the first visit, where there was none: the file list folded, so that a lesson has the window's width.

    At 1280 pixels a line of ``kubectl get pods -o wide`` then fits.

    Raises:
        LabError: the directory can't be written.
    """
    file = workspaces / DEFAULT_WORKSPACE
    if file.exists():
        return
    try:
        workspaces.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LabError(f"{workspaces} can't be made: {error.strerror}. Set SERVICELAB_STATE to a place that can be written.") from error
    layout = {
        "down": {"size": 0, "collapsed": True, "widgets": []},
        "left": {"collapsed": True, "visible": True, "widgets": ["filebrowser", "running-sessions", "@jupyterlab/toc:plugin"]},
        "right": {"collapsed": True, "visible": True, "widgets": ["jp-property-inspector", "debugger-sidebar"]},
        "relativeSizes": [0, 1, 0],
        "top": {"simpleVisibility": True},
    }
    write_private(file, json.dumps({"data": {"layout-restorer:data": layout}, "metadata": {"id": "default"}}))


def wait_for_jupyter(jupyter: subprocess.Popen, port: int, token: str, log: IO[str]) -> None:
    """Returns when it answers.

    Raises:
        LabError: it ended, or does not answer in time; with the last lines of its log.
    """
    deadline = time.monotonic() + START_SECONDS
    with httpx.Client(
        base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"token {token}"}, trust_env=False, timeout=5
    ) as client:
        while True:
            if jupyter.poll() is not None:
                raise LabError(f"JupyterLab ended with exit code {jupyter.returncode} before it answered:\n{tail(log)}")
            try:
                if client.get("/api/status").status_code == 200:
                    return
            except httpx.HTTPError:
                pass  # not listening yet; the deadline below ends the waiting
            if time.monotonic() > deadline:
                raise LabError(f"JupyterLab does not answer at port {port} after {START_SECONDS} s:\n{tail(log)}")
            time.sleep(0.1)


def end_jupyter(jupyter: subprocess.Popen) -> None:
    """Ends it and its kernels: politely, and after 20 s for certain."""
    if jupyter.poll() is None:
        jupyter.terminate()
    try:
        jupyter.wait(20)
    except subprocess.TimeoutExpired:
        os.killpg(jupyter.pid, signal.SIGKILL)
        jupyter.wait()


def tail(log: IO[str], lines: int = 15) -> str:
    """The last lines of a log that is open for reading and writing."""
    log.flush()
    log.seek(0)
    return "".join(log.readlines()[-lines:]).strip()
