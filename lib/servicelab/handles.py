"""Small handles for what a lesson talks about: a pod, a Service, a node, the machine outside."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from . import settings
from .errors import CommandFailed, LabError, NotFound
from .node_examples import example_for

if TYPE_CHECKING:
    from .clusters import Ran
    from .lab import Lab


def as_argv(command: str | list[str]) -> list[str]:
    """A string runs through ``sh -c``, as typed; a list runs as it is."""
    return ["sh", "-c", command] if isinstance(command, str) else [str(part) for part in command]


def said(ran: Ran) -> str:
    """All that a command printed, its complaints last, without the final newline."""
    return (ran.stdout + ran.stderr).rstrip("\n")


@dataclasses.dataclass(frozen=True)
class PodHandle:
    """A pod as it was when it was looked up; ``object`` is the API's own description."""

    name: str
    namespace: str
    ip: str
    node: str
    labels: dict[str, str]
    object: dict[str, Any] = dataclasses.field(repr=False, compare=False)
    _lab: Lab = dataclasses.field(repr=False, compare=False)

    def run(self, command: str | list[str], *, container: str | None = None, timeout: float | None = None, check: bool = False) -> str:
        """Runs a command in the pod (``kubectl exec``) and returns what it printed; see ``Lab.run_in_pod``."""
        return self._lab.run_in_pod(self.name, command, container=container, timeout=timeout, check=check, namespace=self.namespace)

    def logs(self, *, container: str | None = None, tail: int | None = None) -> str:
        """What the pod has logged (``kubectl logs``)."""
        args = ["logs", self.name, *(["-c", container] if container else []), *([f"--tail={tail}"] if tail is not None else [])]
        return self._lab.kubectl(*args, namespace=self.namespace)


@dataclasses.dataclass(frozen=True)
class ServiceHandle:
    """A Service: ``ip`` is its cluster IP ("None" when headless, "" when it has none), ``ports`` its port numbers."""

    name: str
    namespace: str
    ip: str
    ports: tuple[int, ...]
    node_ports: tuple[int, ...]
    selector: dict[str, str]
    object: dict[str, Any] = dataclasses.field(repr=False, compare=False)


class Node:
    """A node of the cluster."""

    def __init__(self, lab: Lab, obj: dict[str, Any]) -> None:
        self._lab, self.object = lab, obj
        self.name: str = obj["metadata"]["name"]
        labels = obj["metadata"].get("labels") or {}
        self.role = "control-plane" if "node-role.kubernetes.io/control-plane" in labels else "worker"
        addresses = {a["type"]: a["address"] for a in obj.get("status", {}).get("addresses") or []}
        self.ip: str = addresses.get("InternalIP", "")

    def run(self, command: str | list[str], *, timeout: float | None = None, check: bool = False) -> str:
        """Runs a command on the node, in its own network, and returns what it printed.

        Where the cluster doesn't give its nodes, it returns a sentence that says so instead (see ``lab.nodes_allowed``).

        Raises:
            CommandFailed: with ``check=True``, when the command's exit code isn't 0.
        """
        if not self._lab.nodes_allowed:
            prepared = getattr(self._lab.cluster, "read_on_node", None)  # in a class, where the teacher allows it
            if prepared and (ran := prepared(self.name, as_argv(command))) is not None:
                return _checked(ran, command, self.name, check)
            shown = example_for(command)
            return f"(not run on {self.name}: {self._lab.nodes_why}{f'; on a node of a cluster of your own: {shown}' if shown else ''})"
        ran = self._lab.cluster.run_on_node(self.name, as_argv(command), timeout=timeout or settings.run_timeout())
        return _checked(ran, command, self.name, check)

    def __repr__(self) -> str:
        return f"{self.name} ({self.role}, {self.ip})"


class Nodes:
    """The cluster's nodes, the control plane first: iterate for the nodes, index by name or position."""

    def __init__(self, nodes: list[Node]) -> None:
        self._nodes = {n.name: n for n in sorted(nodes, key=lambda n: (n.role != "control-plane", n.name))}

    def __iter__(self) -> Iterator[Node]:
        return iter(self._nodes.values())

    def __len__(self) -> int:
        return len(self._nodes)

    def __contains__(self, name: object) -> bool:
        return name in self._nodes

    def __getitem__(self, key: str | int) -> Node:
        if isinstance(key, int):
            return list(self)[key]
        if key in self._nodes:
            return self._nodes[key]
        raise NotFound(f"There is no node {key!r}; there are {', '.join(self._nodes)}.")

    def keys(self) -> list[str]:
        """The names."""
        return list(self._nodes)

    def values(self) -> list[Node]:
        """The nodes."""
        return list(self)

    def items(self) -> list[tuple[str, Node]]:
        """Names and nodes."""
        return list(self._nodes.items())

    def __repr__(self) -> str:
        return "\n".join(map(repr, self))


class Outside:
    """A machine that is not in the cluster, but on the network of its nodes."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab

    def run(self, command: str | list[str], *, timeout: float | None = None, check: bool = False) -> str:
        """Runs a command there and returns what it printed."""
        ran = self._lab.cluster.run_outside(as_argv(command), timeout=timeout or settings.run_timeout())
        return _checked(ran, command, "the machine outside", check)

    def url(self, node_port: int, scheme: str = "http") -> str:
        """The URL at which the learner's own machine reaches a NodePort, such as ``http://localhost:30080``.

        Raises:
            LabError: this machine has no way to that port; says which ports have one.
        """
        address = self._lab.cluster.node_port_address(int(node_port))
        if address is None:
            raise LabError(
                f"Node port {node_port} isn't reached from this machine: on a {self._lab.cluster.kind} cluster only the ports that were "
                "published when it was made are (30080 and 30443). From inside the nodes' network use lab.outside.run(...)."
            )
        return f"{scheme}://{address}"

    def __repr__(self) -> str:
        return "a machine outside of the cluster, on its network"


def _checked(ran: Ran, command: str | list[str], where: str, check: bool) -> str:
    if check and ran.returncode:
        text = command if isinstance(command, str) else shlex.join(command)
        raise CommandFailed(
            f"{text!r} on {where} ended with exit code {ran.returncode}: {said(ran)}",
            returncode=ran.returncode, stdout=ran.stdout, stderr=ran.stderr,
        )  # fmt: skip
    return said(ran)
