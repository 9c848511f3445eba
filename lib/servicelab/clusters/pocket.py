"""pocket: the embedded cluster, one process tree on this machine; Linux only, no Docker, no downloads."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..errors import ClusterError
from ..state import cluster_dir
from . import Progress, Ran, Status

PACKAGES = Path(__file__).resolve().parents[2]
PROGRAMS = {  # program: the distribution's package that has it
    "bwrap": "bubblewrap",
    "nft": "nftables",
    "nginx": "nginx",
    "curl": "curl",
    "busybox": "busybox",
    "nsenter": "util-linux",
}
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # Debian leaves sbin out of a user's PATH
NODE_PORTS = (30080, 30443)  # as in kind-config.yaml
START_TIMEOUT = 90.0  # seconds
STOP_TIMEOUT = 30.0  # seconds
LOG_LIMIT = 5_000_000  # bytes: a longer log is put aside at the next start
WORDS = {
    "network": "laying the cables of three nodes",
    "api": "starting the API server",
    "controllers": "starting the controllers",
    "nodes": "waiting until every node is Ready",
    "dns": "starting the cluster's DNS",
}


class PocketCluster:
    """The embedded cluster of this name; its state is kept in the lab's state directory."""

    kind = "pocket"
    nodes_allowed = True
    nodes_why = ""
    default_namespace = "default"

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def _dir(self) -> Path:
        return cluster_dir(self.name)

    # -- life ------------------------------------------------------------------------------------------------------

    def why_not(self) -> str | None:
        """Why it can't be started here, or None: it needs Linux and a few programs of the distribution."""
        if sys.platform != "linux":
            return "it needs Linux; on this system use kind"
        path = os.pathsep.join([os.environ.get("PATH", ""), SYSTEM_PATH])
        missing = [package for program, package in PROGRAMS.items() if not shutil.which(program, path=path)]
        if missing:
            return f"missing programs; install them with the distribution's package manager: {' '.join(missing)}"
        return None

    def status(self) -> Status:
        """Whether its process answers."""
        try:
            answer = self._ask({"op": "status"}, timeout=10)
        except ConnectionError:
            return self._silent()
        except ClusterError as error:
            return Status("broken", str(error))
        return Status("running", f"{len(answer['nodes'])} nodes in process {answer['pid']}")

    def _silent(self) -> Status:
        pid = self._pid()
        up = "servicelab up --cluster pocket"
        if pid is not None:
            return Status("broken", f"Pocket cluster {self.name!r} (process {pid}) is starting or stopping; try again in a moment.")
        if (self._dir / "store.sqlite").exists():
            return Status("stopped", f"Pocket cluster {self.name!r} is stopped; {up} starts it with everything that was in it.")
        return Status("absent", f"There is no pocket cluster {self.name!r}; {up} makes it.")

    def start(self, progress: Progress, **_: Any) -> None:
        """Starts the cluster in the background and returns when its nodes are Ready.

        Args:
            progress: is called with each step.

        Raises:
            ClusterError: it can't be started, in the words of the cluster itself.
        """
        if reason := self.why_not():
            raise ClusterError(f"A pocket cluster can't be started: {reason}.")
        with self._starting():
            self._until_let_go()
            # Whoever started it meanwhile held the lock until it was ready.
            if self.status().running:
                return
            self._spawn(progress)

    @contextlib.contextmanager
    def _starting(self) -> Iterator[None]:
        """One start at a time; a second one waits for the first, and finds the cluster running."""
        descriptor = os.open(self._dir / "starting.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        except OSError as error:
            raise ClusterError(f"Pocket cluster {self.name!r} can't be started in {self._dir}: {error.strerror}.") from error
        finally:
            os.close(descriptor)

    def _until_let_go(self) -> None:
        """Waits for a process that is just ending and holds the state directory to the last; one that goes on is named by the start."""
        deadline = time.monotonic() + STOP_TIMEOUT
        while self._held() and not self.status().running and time.monotonic() < deadline:
            time.sleep(0.05)

    def _held(self) -> bool:
        try:
            descriptor = os.open(self._dir / "lock", os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def _spawn(self, progress: Progress) -> None:
        log = self._dir / "log"
        if log.exists() and log.stat().st_size > LOG_LIMIT:
            log.replace(self._dir / "log.1")
        command = [sys.executable, "-m", "pocketkube", "--state", str(self._dir), "--name", self.name]
        for port in NODE_PORTS:
            command += ["--publish", f"auto:{port}"]
        if owner := os.environ.get("SERVICELAB_POCKET_OWNER"):  # set by test runs: one that is killed leaves no cluster behind
            command += ["--follow", owner]
        reader, writer = os.pipe()
        try:
            with open(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as output:
                process = subprocess.Popen(
                    [*command, "--ready-fd", str(writer)], stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd="/",
                    pass_fds=[writer], start_new_session=True, env={**os.environ, "PYTHONPATH": str(PACKAGES), "PYTHONUNBUFFERED": "1"},
                )  # fmt: skip
        finally:
            os.close(writer)
        try:
            with os.fdopen(reader, "rb", buffering=0) as pipe:
                self._follow(pipe, process, progress)
        except BaseException:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            raise
        # It is meant to outlive us; without this, Python would warn of it, and a zombie would stay when it ends first.
        process.returncode = 0

    def _follow(self, pipe: Any, process: subprocess.Popen[bytes], progress: Progress) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        rest = b""
        while True:
            ready, _, _ = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise ClusterError(f"Pocket cluster {self.name!r} was not ready after {START_TIMEOUT:g} s; its log is {self._dir / 'log'}")
            data = pipe.read(65536)
            if not data:
                process.wait()
                raise ClusterError(f"Pocket cluster {self.name!r} ended while it started: {self._last_words()}")
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                message = json.loads(line)
                if "error" in message:
                    process.wait()
                    raise ClusterError(f"Pocket cluster {self.name!r} can't be started: {message['error']}")
                if "phase" in message:
                    progress(WORDS.get(message["phase"], message["phase"]))
                if "ready" in message:
                    for node_port, port in message["ready"]["ports"].items():
                        if int(node_port) != port:
                            progress(f"port {node_port} of this machine is taken: node port {node_port} is at localhost:{port} instead")
                    return

    def stop(self, progress: Progress) -> None:
        """Ends the cluster's processes. What was in it is kept for the next start; :meth:`delete` forgets that, too."""
        pid = self._pid()
        if pid is None:
            return
        progress(f"stopping pocket cluster {self.name}")
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        try:
            try:
                self._ask({"op": "stop"}, timeout=STOP_TIMEOUT)
            except (ConnectionError, ClusterError):
                signal.pidfd_send_signal(handle, signal.SIGTERM)  # it isn't up yet, or is stuck
            if not select.select([handle], [], [], STOP_TIMEOUT)[0]:
                signal.pidfd_send_signal(handle, signal.SIGKILL)
                select.select([handle], [], [], STOP_TIMEOUT)
        except ProcessLookupError:
            return  # it was quicker
        finally:
            os.close(handle)

    def delete(self, progress: Progress) -> None:
        """Stops the cluster and removes everything that it kept."""
        self.stop(progress)
        progress(f"removing the state of pocket cluster {self.name}")
        shutil.rmtree(self._dir)

    def kubeconfig(self) -> Path:
        """The file that the cluster wrote (0600).

        Raises:
            ClusterError: the cluster isn't running, so that the file would lead nowhere.
        """
        status = self.status()
        if not status.running:
            raise ClusterError(status.detail)
        return self._dir / "kubeconfig"

    # -- nodes and the outside ----------------------------------------------------------------------------------------

    def run_on_node(self, node: str, argv: Sequence[str], *, input: str | None = None, timeout: float = 30.0) -> Ran:
        """Runs a program in the node's network, through the cluster's control socket."""
        return self._run(node, argv, input, timeout)

    def run_outside(self, argv: Sequence[str], *, input: str | None = None, timeout: float = 30.0) -> Ran:
        """Runs a program outside of the cluster on the network of its nodes, as 172.18.0.1."""
        return self._run("outside", argv, input, timeout)

    def node_port_address(self, node_port: int) -> str | None:
        """``localhost:PORT`` for the node ports that are handed on to this machine, else None."""
        try:
            port = self._ask({"op": "status"}, timeout=10)["ports"].get(str(node_port))
        except ConnectionError as error:
            raise ClusterError(self.status().detail) from error
        return f"localhost:{port}" if port else None

    def _run(self, place: str, argv: Sequence[str], input: str | None, timeout: float) -> Ran:
        request = {"op": "run", "on": place, "argv": list(argv), "input": input, "timeout": timeout}
        try:
            answer = self._ask(request, timeout=timeout + 10)
        except ConnectionError as error:
            raise ClusterError(self.status().detail) from error
        return Ran(answer["status"], answer["stdout"], answer["stderr"])

    def _ask(self, request: dict[str, Any], *, timeout: float) -> dict[str, Any]:
        """One request to the control socket.

        Raises:
            ConnectionError: nobody listens there.
            ClusterError: it refused, or didn't answer in time.
        """
        try:
            # By way of a directory descriptor, since the path of a Unix socket may only be 107 characters long.
            folder = os.open(self._dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                with socket.socket(socket.AF_UNIX) as link:
                    link.settimeout(timeout)
                    link.connect(f"/proc/self/fd/{folder}/control.sock")
                    link.sendall(json.dumps(request).encode() + b"\n")
                    with link.makefile("rb") as lines:
                        line = lines.readline()
            finally:
                os.close(folder)
        except (FileNotFoundError, ConnectionError) as error:
            raise ConnectionError(f"pocket cluster {self.name!r} does not listen") from error
        except TimeoutError as error:
            raise ClusterError(f"Pocket cluster {self.name!r} did not answer within {timeout:g} s: see {self._dir / 'log'}") from error
        if not line:
            raise ConnectionError(f"pocket cluster {self.name!r} hung up")
        answer = json.loads(line)
        if "error" in answer:
            raise ClusterError(answer["error"])
        return answer

    def _pid(self) -> int | None:
        """The launcher's process id, if it lives; a file that a killed one left behind doesn't count."""
        try:
            pid = int((self._dir / "lock").read_text())
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except (OSError, ValueError):
            return None
        return pid if b"pocketkube" in words and str(self._dir).encode() in words else None

    def _last_words(self) -> str:
        try:
            lines = (self._dir / "log").read_text(errors="replace").strip().splitlines()
        except OSError:
            lines = []
        return f"{lines[-1] if lines else 'it said nothing'} (the whole log is {self._dir / 'log'})"
