"""What tests of a cluster share: one cluster a worker, one namespace a test module; pocket and kind behind one face.

``SERVICELAB_TEST_CLUSTER`` is ``pocket`` (default: a cluster of a random name in a temporary directory) or ``kind``
(the running cluster ``SERVICELAB_NAME``; its kubeconfig may be given in ``SERVICELAB_TEST_KUBECONFIG``).
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from servicelab import kubectl as kubectl_of_lab
from servicelab.clusters import Ran, known

ROOT = Path(__file__).resolve().parents[1]
WAIT = 120.0  # seconds; conditions on a busy machine
NODES = ("servicelab-control-plane", "servicelab-worker", "servicelab-worker2")


class TestCluster:
    """The cluster that the tests of this worker run against.

    Attributes:
        kind: ``pocket`` or ``kind``.
        cluster: the ``servicelab`` cluster behind it.
        kubeconfig: path of its kubeconfig.
    """

    __test__ = False  # not a test class, whatever its name says to pytest

    def __init__(self, kind: str, cluster: Any, kubeconfig: Path) -> None:
        self.kind = kind
        self.cluster = cluster
        self.kubeconfig = kubeconfig

    @property
    def nodes(self) -> list[str]:
        """Node names, the control plane first. A kind cluster of another name than servicelab has others."""
        return [name.replace("servicelab", self.cluster.name, 1) if self.kind == "kind" else name for name in NODES]

    def kubectl(
        self, *args: str, namespace: str | None = None, input: str | None = None, check: bool = True, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl; with ``check`` a failure fails the test with kubectl's own words."""
        done = kubectl_of_lab.run(*args, kubeconfig=self.kubeconfig, namespace=namespace, input=input, timeout=timeout)
        if check and done.returncode != 0:
            raise AssertionError(f"kubectl {' '.join(args)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done


class Kube:
    """A namespace of its own on the test cluster.

    Attributes:
        name: the namespace.
        cluster: the :class:`TestCluster`.
        kind: ``pocket`` or ``kind``.
        kubeconfig: path of the cluster's kubeconfig.
    """

    def __init__(self, cluster: TestCluster, name: str | None = None) -> None:
        self.cluster = cluster
        self.kind = cluster.kind
        self.kubeconfig = cluster.kubeconfig
        self.nodes = cluster.nodes
        self.name = name or f"t-{secrets.token_hex(4)}"

    def kubectl(self, *args: str, input: str | None = None, check: bool = True, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """kubectl in this namespace: ``.stdout``, ``.stderr``, ``.returncode``."""
        return self.cluster.kubectl(*args, namespace=self.name, input=input, check=check, timeout=timeout)

    def popen(self, *args: str, **options: Any) -> subprocess.Popen[str]:
        """kubectl in this namespace, in the background; the caller ends it."""
        command = [kubectl_of_lab.find(), f"--kubeconfig={self.kubeconfig}", f"--namespace={self.name}", *args]
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
        return subprocess.Popen(command, **options)

    def apply(self, manifest: str | dict | list, *args: str) -> str:
        """``kubectl apply`` of YAML text, one object or a list of them; what kubectl printed."""
        return self.kubectl("apply", "-f", "-", *args, input=_text(manifest)).stdout

    def create(self, manifest: str | dict | list, *args: str) -> str:
        """``kubectl create``, which fails where an object is there already."""
        return self.kubectl("create", "-f", "-", *args, input=_text(manifest)).stdout

    def get(self, kind: str, name: str) -> dict[str, Any]:
        """One object as the API has it."""
        return json.loads(self.kubectl("get", kind, name, "-o", "json").stdout)

    def list(self, kind: str, selector: str = "") -> list[dict[str, Any]]:
        """All objects of a kind in this namespace."""
        options = ["-l", selector] if selector else []
        return json.loads(self.kubectl("get", kind, *options, "-o", "json").stdout)["items"]

    def wait(self, condition: str | Callable[[], Any], *target: str, timeout: float = WAIT) -> Any:
        """Wait until something holds.

        Args:
            condition: for kubectl: ``"condition=Ready"``, ``"delete"``, ``"jsonpath=…"``, with ``target`` such as ``"pod/x"``; or a
                function, looked at until it returns something true (an AssertionError or LookupError of its means "not yet", too).

        Returns:
            What the function returned.
        """
        if isinstance(condition, str):
            self.kubectl("wait", f"--for={condition}", *target, f"--timeout={timeout:g}s", timeout=timeout + 20)
            return None
        return eventually(condition, timeout=timeout)

    def rollout(self, deployment: str, timeout: float = WAIT) -> None:
        """Wait until a Deployment's rollout is complete."""
        self.kubectl("rollout", "status", f"deployment/{deployment}", f"--timeout={timeout:g}s", timeout=timeout + 20)

    def exec(self, pod: str, *command: str, container: str | None = None, check: bool = True, timeout: float = 60) -> str:
        """Standard output of a command in a pod."""
        options = ["-c", container] if container else []
        return self.kubectl("exec", pod, *options, "--", *command, check=check, timeout=timeout).stdout

    def node_run(self, node: str, argv: list[str], *, input: str | None = None, timeout: float = 60) -> Ran:
        """Run a program on a node: ``.returncode``, ``.stdout``, ``.stderr``."""
        return self.cluster.cluster.run_on_node(node, argv, input=input, timeout=timeout)

    def outside_run(self, argv: list[str], *, input: str | None = None, timeout: float = 60) -> Ran:
        """Run a program outside of the cluster, on its nodes' network."""
        return self.cluster.cluster.run_outside(argv, input=input, timeout=timeout)

    def python_on_node(self, node: str, code: str, *args: str, timeout: float = 60) -> str:
        """Run Python code, of this machine's Python, in a node's network; its standard output."""
        if self.kind == "pocket":
            done = self.node_run(node, [sys.executable, "-c", code, *args], timeout=timeout)
        else:  # the nodes' image has no Python: enter the node's network from here instead
            pid = subprocess.run(["docker", "inspect", "-f", "{{.State.Pid}}", node], capture_output=True, text=True, check=True).stdout
            command = ["nsenter", "-t", pid.strip(), "-n", sys.executable, "-c", code, *args]
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout)
        if done.returncode != 0:
            raise AssertionError(f"Python on {node} ended with {done.returncode}:\n{done.stderr}")
        return done.stdout

    def delete(self) -> None:
        """Delete the namespace, without waiting until everything in it is gone."""
        self.kubectl("delete", "namespace", self.name, "--wait=false", "--ignore-not-found")


def eventually(condition: Callable[[], Any], timeout: float = WAIT, interval: float = 0.05) -> Any:
    """Look until ``condition()`` returns something true, and return it; on a timeout say what it said last."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            result = condition()
            last = f"it returned {result!r}"
        except AssertionError as error:
            result, last = None, str(error)
        except LookupError as error:  # a field that isn't there yet
            result, last = None, f"{type(error).__name__}: {error}"
        if result:
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout:g} s: {last}")
        time.sleep(interval)


def open_test_cluster(directory: Path) -> tuple[TestCluster, Callable[[], None]]:
    """The cluster named by the environment, and what ends it.

    Args:
        directory: an empty directory for a pocket cluster's state.
    """
    kind = os.environ.get("SERVICELAB_TEST_CLUSTER") or "pocket"
    # kubectl remembers what a server at this address can do. Ports are used again, by clusters of another day.
    os.environ["KUBECACHEDIR"] = str(directory / "kubectl-cache")
    if kind == "kind":
        cluster = known("kind")
        given = os.environ.get("SERVICELAB_TEST_KUBECONFIG")
        path = Path(given) if given else cluster.kubeconfig()
        return TestCluster("kind", cluster, path), lambda: None
    if kind != "pocket":
        raise ValueError(f"SERVICELAB_TEST_CLUSTER={kind!r}: use pocket or kind")
    os.environ["SERVICELAB_POCKET_OWNER"] = str(os.getpid())
    os.environ["SERVICELAB_STATE"] = str(directory)
    os.environ["SERVICELAB_NAME"] = f"test-{secrets.token_hex(4)}"
    cluster = known("pocket")
    try:
        cluster.start(lambda step: None)
    except Exception as error:
        log = directory / "clusters" / cluster.name / "log"
        words = log.read_text(errors="replace")[-4000:] if log.exists() else "(no log)"
        raise RuntimeError(f"{error}\n--- {log}:\n{words}") from error
    return TestCluster("pocket", cluster, cluster.kubeconfig()), lambda: cluster.stop(lambda step: None)


_SHARED = pytest.StashKey[tuple[TestCluster, Callable[[], None], tempfile.TemporaryDirectory]]()


def shared_cluster(config: pytest.Config) -> TestCluster:
    """This worker's cluster, opened at the first call: tests get it by the fixture ``cluster``, notebooks by the root conftest."""
    if _SHARED not in config.stash:
        directory = tempfile.TemporaryDirectory(prefix="servicelab-test-")
        try:
            config.stash[_SHARED] = (*open_test_cluster(Path(directory.name)), directory)
        except BaseException:
            directory.cleanup()
            raise
    return config.stash[_SHARED][0]


def close_shared_cluster(config: pytest.Config) -> None:
    """Ends it, if it was opened."""
    if _SHARED in config.stash:
        _, close, directory = config.stash[_SHARED]
        del config.stash[_SHARED]
        close()
        directory.cleanup()


def _text(manifest: str | dict | list) -> str:
    if isinstance(manifest, str):
        return manifest
    return yaml.safe_dump_all(manifest if isinstance(manifest, list) else [manifest])
