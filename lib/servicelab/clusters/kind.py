"""kind: a real Kubernetes whose nodes are Docker containers (https://kind.sigs.k8s.io)."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from ..errors import ClusterError
from ..state import cluster_dir, write_private
from . import Progress, Ran, Status

CONFIG = Path(__file__).resolve().parents[3] / "kind-config.yaml"
IMAGE = "kindest/node:v1.34.4"
OUTSIDE_LABEL = "io.servicelab.outside"
NETWORK = "kind"


class KindCluster:
    """A kind cluster of this name, made from ``kind-config.yaml``."""

    kind = "kind"
    nodes_allowed = True
    nodes_why = ""
    default_namespace = "default"

    def __init__(self, name: str) -> None:
        self.name = name

    # -- life ------------------------------------------------------------------------------------------------------

    def why_not(self) -> str | None:
        """Why kind can't be used here, or None: Docker answers, kind is installed, the node image is there or can be pulled."""
        if reason := self._missing():
            return reason
        image = os.environ.get("SERVICELAB_KIND_IMAGE") or IMAGE
        if _docker("image", "inspect", image).returncode == 0:
            return None
        asked = _docker("manifest", "inspect", image, timeout=15)
        if asked.returncode == 0:
            return None
        return f"the node image {image} is not on this machine and can't be pulled ({_last_line(asked.stderr)})"

    def _missing(self) -> str | None:
        if not shutil.which("docker"):
            return "Docker is not installed (https://docs.docker.com/engine/install/)"
        try:
            asked = _docker("version", "--format", "{{.Server.Version}}", timeout=10)
        except ClusterError:
            return "the Docker daemon does not answer within 10 s; restart it"
        if asked.returncode:
            return (
                f"Docker is installed but does not answer: {_last_line(asked.stderr)}. Start it (systemctl start docker, or Docker Desktop)"
            )
        if not shutil.which("kind"):
            return "kind is not installed (https://kind.sigs.k8s.io/docs/user/quick-start/#installation)"
        return None

    def containers(self) -> dict[str, str]:
        """The node containers by name, each with its state (running, exited, …)."""
        listed = _docker("ps", "-a", "--filter", f"label=io.x-k8s.kind.cluster={self.name}", "--format", "{{.Names}} {{.State}}")
        if listed.returncode:
            raise ClusterError(f"Docker does not list its containers: {_last_line(listed.stderr)}")
        return dict(line.split(maxsplit=1) for line in listed.stdout.splitlines() if line)

    def status(self) -> Status:
        """What the cluster's containers are doing."""
        if reason := self._missing():
            return Status("absent", f"kind can't be used: {reason}.")
        containers = self.containers()
        if not containers:
            return Status("absent", f"There is no kind cluster {self.name!r}; servicelab up --cluster kind makes it.")
        down = sorted(name for name, state in containers.items() if state != "running")
        if len(down) == len(containers):
            return Status("stopped", f"The containers of kind cluster {self.name!r} are stopped; servicelab up --cluster kind starts them.")
        if down:
            return Status(
                "broken",
                f"Of kind cluster {self.name!r} these nodes are down: {', '.join(down)}; servicelab up --cluster kind starts them.",
            )
        return Status("running", f"{len(containers)} node{'s' * (len(containers) > 1)} in Docker containers")

    def start(self, progress: Progress, *, image: str | None = None, config: Path | None = None, **_: Any) -> None:
        """Makes the cluster, or starts its stopped containers again.

        Args:
            progress: is called with each step.
            image: node image; default ``$SERVICELAB_KIND_IMAGE`` or ``kindest/node:v1.34.4``.
            config: kind configuration; default ``kind-config.yaml``.

        Raises:
            ClusterError: Docker or kind is missing or doesn't run, the image can't be pulled, a host port is taken.
        """
        if reason := self._missing():
            raise ClusterError(f"A kind cluster can't be started: {reason}.")
        state = self.status().state
        if state in ("stopped", "broken"):
            self._restart(progress)
        elif state == "absent":
            self._create(progress, image or os.environ.get("SERVICELAB_KIND_IMAGE") or IMAGE, config or CONFIG)
        self._wait_ready(progress)

    def _restart(self, progress: Progress) -> None:
        containers = self.containers()
        progress(f"starting the stopped nodes of {self.name}")
        # the control plane first: the workers ask it for their leases as soon as they run
        for name in sorted(containers, key=lambda n: ("control-plane" not in n, n)):
            done = _docker("start", name, timeout=60)
            if done.returncode:
                raise ClusterError(
                    f"Docker can't start {name} again: {_last_line(done.stderr)}. If its port is taken, free it; "
                    f"else make the cluster anew: servicelab down --cluster kind, then servicelab up --cluster kind."
                )

    def _create(self, progress: Progress, image: str, config: Path) -> None:
        taken = [port for port in _host_ports(config) if not free_port(port)]  # a hostPort of 0 is any free one
        if taken:
            ports = f"Ports {taken[0]} and {taken[1]} of this machine are" if len(taken) == 2 else f"Port {taken[0]} of this machine is"
            raise ClusterError(
                f"{ports} taken by another program, and kind-config.yaml maps the cluster's node ports there. "
                f"Stop that program (ss -ltnp 'sport = :{taken[0]}' names it; another lab cluster? servicelab status), then try again."
            )
        if _docker("image", "inspect", image).returncode:
            progress(f"pulling the node image {image} (about 400 MB, once)")
            pulled = _docker("pull", image, timeout=1800)
            if pulled.returncode:
                raise ClusterError(
                    f"The node image {image} can't be pulled: {_last_line(pulled.stderr)}. Check the connection, or load it from a file "
                    "(docker load) and name it with --image; servicelab up --cluster pocket needs no image at all."
                )
        progress(f"making kind cluster {self.name} from {image}")
        own = cluster_dir(self.name, "kind-") / "kubeconfig"
        command = ["kind", "create", "cluster", "--name", self.name, "--image", image, "--config", str(config), "--kubeconfig", str(own)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace") as process:
            said, last = [], ""
            try:
                for line in process.stdout:  # type: ignore[union-attr]
                    said.append(line)
                    step = re.match(r"\s*[•✓]\s*(.+?)\s*(\.\.\.)?\s*$", re.sub(r"\x1b\[[0-9;]*m", "", line))
                    if step and step.group(1) != last:  # kind says each step twice: when it begins and when it is done
                        progress(last := step.group(1))
            except BaseException:
                process.terminate()
                raise
        if process.returncode:
            subprocess.run(["kind", "delete", "cluster", "--name", self.name], capture_output=True, check=False, timeout=120)
            text = "".join(said)
            raise ClusterError(
                f"kind could not make the cluster {self.name!r}, and what it had made is removed again. kind said:\n{text.strip()}"
            )
        own.chmod(0o600)

    def _wait_ready(self, progress: Progress) -> None:
        from .. import kubectl

        progress("waiting until every node is Ready")
        path = self.kubeconfig()
        deadline = time.monotonic() + 180
        while True:
            done = kubectl.run("wait", "--for=condition=Ready", "nodes", "--all", "--timeout=60s", kubeconfig=path, timeout=90)
            if done.returncode == 0:
                progress("waiting for the cluster's DNS")
                dns = ("-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=60s")
                done = kubectl.run(*dns, kubeconfig=path, timeout=90)
                if done.returncode == 0:
                    return
            if time.monotonic() > deadline:
                nodes = kubectl.run("get", "nodes", kubeconfig=path).stdout
                raise ClusterError(
                    f"The nodes and the DNS of {self.name!r} did not become ready in 3 minutes: {_last_line(done.stderr)}\n{nodes}"
                )
            time.sleep(1)  # the API server itself is only just coming up: there is nothing to watch yet

    def stop(self, progress: Progress) -> None:
        """Stops the node containers; they keep what is in them."""
        if self._missing():
            return
        _docker("rm", "-f", self._outside_name, timeout=60)
        names = sorted(self.containers())
        if names:
            progress(f"stopping the nodes of kind cluster {self.name}: {', '.join(names)}")
            done = _docker("stop", *names, timeout=120)
            if done.returncode:
                raise ClusterError(f"Docker could not stop the nodes of {self.name!r}: {_last_line(done.stderr)}")

    def delete(self, progress: Progress) -> None:
        """Deletes the cluster and the machine outside."""
        if self._missing():
            return
        progress(f"deleting kind cluster {self.name}")
        _docker("rm", "-f", self._outside_name, timeout=60)
        done = subprocess.run(
            ["kind", "delete", "cluster", "--name", self.name, "--kubeconfig", str(cluster_dir(self.name, "kind-") / "kubeconfig")],
            capture_output=True, text=True, check=False, timeout=180,
        )  # fmt: skip
        if done.returncode:
            raise ClusterError(f"kind could not delete the cluster {self.name!r}: {_last_line(done.stderr)}")
        shutil.rmtree(cluster_dir(self.name, "kind-"))

    def kubeconfig(self) -> Path:
        """Asks kind for the cluster's kubeconfig and keeps it in the lab's own state directory."""
        done = subprocess.run(["kind", "get", "kubeconfig", "--name", self.name], capture_output=True, text=True, check=False, timeout=60)
        if done.returncode:
            raise ClusterError(f"kind gives no kubeconfig of cluster {self.name!r}: {_last_line(done.stderr)}. {self.status().detail}")
        return write_private(cluster_dir(self.name, "kind-") / "kubeconfig", done.stdout)

    # -- nodes and the outside ----------------------------------------------------------------------------------------

    def run_on_node(self, node: str, argv: Sequence[str], *, input: str | None = None, timeout: float = 30.0) -> Ran:
        """``docker exec`` in the node's container, which is the node."""
        return _exec(node, argv, input, timeout)

    @property
    def _outside_name(self) -> str:
        return f"{self.name}-outside"

    def run_outside(self, argv: Sequence[str], *, input: str | None = None, timeout: float = 30.0) -> Ran:
        """Runs in a container of its own on kind's network: an address that is no node's, and no Kubernetes in it.

        Its image is the nodes' own, which is on this machine already; it starts at the first use.
        """
        ran = _exec(self._outside_name, argv, input, timeout)
        if ran.returncode and re.search(r"No such container|is not running|not found: container", ran.stderr):
            self._start_outside()
            ran = _exec(self._outside_name, argv, input, timeout)
        return ran

    def _start_outside(self) -> None:
        nodes = self.containers()
        if not nodes:
            raise ClusterError(self.status().detail)
        inspected = _docker("inspect", "--format", "{{.Config.Image}}", next(iter(nodes)))
        _docker("rm", "-f", self._outside_name, timeout=60)
        # Its own label, not kind's, keeps it out of kind's sight. KILL, since sleep as process 1 ignores TERM.
        done = _docker(
            "run", "-d", "--stop-signal", "KILL", "--name", self._outside_name, "--hostname", "outside", "--network", NETWORK,
            "--restart", "no", "--cap-add", "NET_ADMIN", "--label", f"{OUTSIDE_LABEL}={self.name}",
            "--entrypoint", "sleep", inspected.stdout.strip(), "infinity", timeout=60,
        )  # fmt: skip
        if done.returncode and "is already in use" not in done.stderr:  # another notebook was faster: fine
            raise ClusterError(f"Docker can't start the machine outside of the cluster: {_last_line(done.stderr)}")

    def node_port_address(self, node_port: int) -> str | None:
        """The host's side of ``extraPortMappings``; else the node's own address, where this machine reaches it (Linux)."""
        for name in sorted(self.containers(), key=lambda n: ("control-plane" not in n, n)):
            inspected = _docker("inspect", name)
            if inspected.returncode:
                continue
            data = json.loads(inspected.stdout)[0]
            for mapping in (data["NetworkSettings"]["Ports"] or {}).get(f"{node_port}/tcp") or []:
                return f"localhost:{mapping['HostPort']}"
        return None


def _docker(*args: str, timeout: float = 30.0) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            ["docker", *args], capture_output=True, text=True, errors="replace", timeout=timeout, check=False, stdin=subprocess.DEVNULL
        )
    except FileNotFoundError as error:
        raise ClusterError("Docker is not installed, and kind needs it: https://docs.docker.com/engine/install/") from error
    except subprocess.TimeoutExpired as error:
        raise ClusterError(f"docker {args[0]} did not end within {timeout:g} s: is the Docker daemon stuck? Restart it.") from error


def _exec(container: str, argv: Sequence[str], input: str | None, timeout: float) -> Ran:
    command = ["docker", "exec", *(["-i"] if input is not None else []), container, *argv]
    try:
        done = subprocess.run(
            command, input=input, stdin=None if input is not None else subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            timeout=timeout, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise ClusterError(f"{' '.join(argv)!r} on {container} did not end within {timeout:g} s.") from error
    return Ran(done.returncode, done.stdout, done.stderr)


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("Run 'docker")]
    return lines[-1].removeprefix("ERROR: ").removeprefix("Error response from daemon: ").rstrip(".") if lines else "it said nothing"


def _host_ports(config: Path) -> list[int]:
    try:
        data = yaml.safe_load(config.read_text(encoding="utf-8"))
        return [m["hostPort"] for n in data.get("nodes") or [] for m in n.get("extraPortMappings") or [] if m.get("hostPort")]
    except (OSError, yaml.YAMLError, AttributeError, TypeError) as error:
        raise ClusterError(f"The kind configuration {config} can't be read: {error}") from error


def free_port(port: int) -> bool:
    """Whether nothing on this machine listens on 127.0.0.1 at this TCP port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
