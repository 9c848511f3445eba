"""``Lab``: one learner's view of one cluster."""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import kubectl, manifests, readiness, settings, tables, waiting
from .client import Client
from .errors import NotAllowed, NotFound
from .handles import Node, Nodes, Outside, PodHandle, ServiceHandle, as_argv

if TYPE_CHECKING:
    import pandas as pd

    from .clusters import Cluster, Ran


class Lab:
    """What the lessons do with a cluster; ``connect()`` gives one.

    Attributes:
        cluster: where the cluster comes from (``cluster.kind`` is kind, pocket or context; ``cluster.name``).
        namespace: the learner's namespace: all names are looked up there.
        kubeconfig: the file that ``KUBECONFIG`` points to.
        outside: a machine outside of the cluster, on its network (``outside.run``, ``outside.url``).
        client: the Kubernetes API over plain HTTP, for what kubectl is too slow for.
    """

    def __init__(self, cluster: Cluster, kubeconfig: Path, namespace: str) -> None:
        self.cluster, self.kubeconfig, self.namespace = cluster, kubeconfig, namespace
        self.client = Client(kubeconfig)
        self.outside = Outside(self)

    def close(self) -> None:
        """Ends the connection and removes what it kept in the cluster for its own use (pods for node steps)."""
        if "_cloud" in self.__dict__:
            self.cloud().pause()
        self.client.close()
        if close := getattr(self.cluster, "close", None):
            close()

    def __repr__(self) -> str:
        return f"Lab({self.cluster.kind} cluster {self.cluster.name!r}, namespace {self.namespace!r})"

    # -- asking the API --------------------------------------------------------------------------------------------------

    @functools.cached_property
    def api(self) -> Any:
        """The same API through kr8s, the library (https://docs.kr8s.org): ``lab.api.get("pods")``."""
        import kr8s

        return kr8s.api(kubeconfig=str(self.kubeconfig), namespace=self.namespace)

    @functools.cached_property
    def version(self) -> str:
        """The Kubernetes version, such as ``v1.34.4``."""
        return self.client.request("GET", "/version")["gitVersion"]

    def kubectl(
        self, *args: str, input: str | None = None, check: bool = True, timeout: float | None = None, namespace: str | None = None
    ) -> str:
        """Runs the real kubectl in the learner's namespace and returns what it prints.

        Args:
            *args: as typed, one word each.
            input: text for its standard input, such as YAML for ``-f -``.
            check: whether a non-zero exit code is an error; if not, what it complained is part of the result.
            timeout: seconds; default 60.
            namespace: another namespace than the learner's.

        Raises:
            CommandFailed: kubectl failed or did not end in time.

        Example:
            >>> lab.kubectl("get", "pods", "-o", "name")  # doctest: +SKIP
            'pod/my-nginx-6d8…'
        """
        done = kubectl.run(*args, kubeconfig=self.kubeconfig, namespace=namespace, input=input, timeout=60 if timeout is None else timeout)
        if check and done.returncode:
            raise kubectl.failed(args, done)
        return done.stdout if check else done.stdout + done.stderr

    def get(self, kind: str, name: str, namespace: str | None = None) -> dict[str, Any]:
        """One object, as the API gives it.

        Raises:
            NotFound: it isn't there.
        """
        return self.client.get(kind, name, namespace or self.namespace)

    def list(self, kind: str, selector: str | None = None, namespace: str | None = None) -> list[dict[str, Any]]:
        """All objects of a kind, as the API gives them, that match a label selector such as ``run=my-nginx``."""
        return self.client.list(kind, namespace or self.namespace, selector=selector)

    # -- tables ------------------------------------------------------------------------------------------------------------

    def pods(self, selector: str | None = None, namespace: str | None = None) -> pd.DataFrame:
        """``kubectl get pods -o wide`` as a DataFrame: name, ready, status, restarts, age, ip, node."""
        return tables.from_table(self.client.table("pods", namespace or self.namespace, selector=selector))

    def services(self, selector: str | None = None, namespace: str | None = None) -> pd.DataFrame:
        """``kubectl get services -o wide`` as a DataFrame: name, type, cluster-ip, external-ip, port(s), age, selector."""
        return tables.from_table(self.client.table("services", namespace or self.namespace, selector=selector))

    def endpoints(self, service: str, namespace: str | None = None) -> pd.DataFrame:
        """The endpoints in a Service's EndpointSlices: pod, address, port, ready, serving, terminating, node.

        Raises:
            NotFound: there is no such Service.
        """
        self.get("services", service, namespace)
        return tables.endpoints(self.client, namespace or self.namespace, service)

    # -- handles -----------------------------------------------------------------------------------------------------------

    def pod(self, name_or_selector: str, namespace: str | None = None) -> PodHandle:
        """A pod by its name, by a label selector (``run=my-nginx``), or by ``deployment/NAME``: then the first running one by name.

        Raises:
            NotFound: there is none.
        """
        obj = self._pod_object(name_or_selector, namespace or self.namespace)
        meta, status = obj["metadata"], obj.get("status", {})
        return PodHandle(
            meta["name"], meta["namespace"], status.get("podIP", ""), obj["spec"].get("nodeName", ""), meta.get("labels") or {}, obj, self
        )

    def _pod_object(self, what: str, namespace: str) -> dict[str, Any]:
        selector = what
        if what.startswith(("deployment/", "deploy/")):
            deployment = self.get("deployments", what.split("/", 1)[1], namespace)
            selector = readiness.selector_text(deployment["spec"]["selector"].get("matchLabels") or {})
        elif what.startswith(("pod/", "pods/")):
            what = selector = what.split("/", 1)[1]
        if "=" not in selector:
            return self.get("pods", what, namespace)
        found = [p for p in self.list("pods", selector, namespace) if not p["metadata"].get("deletionTimestamp")]
        if not found:
            raise NotFound(f"No pod in namespace {namespace!r} has the labels {selector} (kubectl get pods --show-labels).")
        running = sorted(found, key=lambda p: (p.get("status", {}).get("phase") != "Running", p["metadata"]["name"]))
        return running[0]

    def service(self, name: str, namespace: str | None = None) -> ServiceHandle:
        """A Service by its name.

        Raises:
            NotFound: there is none.
        """
        obj = self.get("services", name, namespace)
        spec, ports = obj["spec"], obj["spec"].get("ports") or []
        return ServiceHandle(
            name, obj["metadata"]["namespace"], spec.get("clusterIP", ""), tuple(p["port"] for p in ports),
            tuple(p["nodePort"] for p in ports if p.get("nodePort")), spec.get("selector") or {}, obj,
        )  # fmt: skip

    # -- waiting and running ---------------------------------------------------------------------------------------------

    def wait_for(
        self, what: str | Callable[[], Any], timeout: float | None = None, *, gone: bool = False, namespace: str | None = None
    ) -> Any:
        """Waits by watching the cluster, with a progress bar, until something is so.

        Args:
            what: ``deployment/NAME`` (rolled out and available), ``pod/NAME`` (ready, and its servers listen), ``pods/LABEL=VALUE`` (all
                ready), ``service/NAME`` (has a ready endpoint that listens, and every node passes connections on), ``KIND/NAME``
                (exists); or a callable that returns something truthy, or raises ``NotYet("why")``.
            timeout: seconds; default 120.
            gone: wait until it is gone instead.
            namespace: another namespace than the learner's.

        Returns:
            What the callable returned; None for a name.

        Raises:
            WaitTimeout: it did not become so; with the reason of the delay.
        """
        return waiting.wait_for(self, what, timeout=timeout, namespace=namespace, gone=gone)

    def run_in_pod(
        self, pod: str, command: str | list[str], container: str | None = None, timeout: float | None = None, check: bool = False,
        *, namespace: str | None = None,
    ) -> str:  # fmt: skip
        """Runs a command in a pod and returns what it printed, its complaints last. Prints nothing.

        Args:
            pod: name, label selector, or ``deployment/NAME``.
            command: a string runs through ``sh -c``, a list as it is.
            container: which one, when the pod has several.
            timeout: seconds; default 30.
            check: whether a non-zero exit code is an error.

        Raises:
            NotFound: no such pod.
            CommandFailed: the pod can't be entered; with ``check`` also when the command fails.
        """
        namespace = namespace or self.namespace
        name = self._pod_object(pod, namespace)["metadata"]["name"] if "=" in pod or "/" in pod else pod
        args = ("exec", name, *(["-c", container] if container else []), "--", *as_argv(command))
        done = kubectl.run(*args, kubeconfig=self.kubeconfig, namespace=namespace, timeout=timeout or settings.run_timeout())
        if done.returncode:
            if "NotFound" in done.stderr and f'"{name}" not found' in done.stderr:
                raise NotFound(f"There is no pod {name!r} in namespace {namespace!r} (kubectl get pods).")
            never_ran = "terminated with exit code" not in done.stderr
            if check or (never_ran and done.stderr.startswith(("error:", "Error from server", "Unable to connect"))):
                raise kubectl.failed(args, done)
        lines = [
            line
            for line in done.stderr.splitlines(keepends=True)
            if not line.startswith(("Defaulted container", "command terminated with"))
        ]
        return (done.stdout + "".join(lines)).rstrip("\n")

    # -- nodes -------------------------------------------------------------------------------------------------------------

    @property
    def nodes(self) -> Nodes:
        """The nodes, the control plane first; empty where the learner may not see them."""
        try:
            return Nodes([Node(self, obj) for obj in self.client.list("nodes")])
        except NotAllowed:
            return Nodes([])

    @property
    def workers(self) -> list[Node]:
        """The nodes on which pods run: all but the control plane; on a cluster of one node, that one."""
        nodes = list(self.nodes)
        return [n for n in nodes if n.role == "worker"] or nodes

    @property
    def nodes_allowed(self) -> bool:
        """Whether commands may run on the nodes."""
        return self.cluster.nodes_allowed

    @property
    def nodes_why(self) -> str:
        """Why not, in one sentence; empty where they may."""
        return self.cluster.nodes_why

    @property
    def quick_nodes(self) -> bool:
        """Whether a command on a node is cheap enough to ask all of them while waiting: not where it takes a privileged pod."""
        return self.cluster.kind in ("kind", "pocket")

    def run_on_nodes(self, command: str) -> dict[str, Ran]:
        """Runs a command on all nodes at once; how it ended on each, by the node's name."""
        nodes = list(self.nodes)
        with ThreadPoolExecutor(max_workers=max(1, len(nodes))) as pool:
            results = pool.map(lambda n: self.cluster.run_on_node(n.name, as_argv(command), timeout=settings.run_timeout()), nodes)
            return {node.name: ran for node, ran in zip(nodes, results, strict=True)}

    # -- changing the cluster ----------------------------------------------------------------------------------------------

    def manifest(self, name: str) -> Path:
        """The path of a file in ``manifests/``."""
        return manifests.path(name)

    def apply(self, name: str, *, namespace: str | None = None, **edits: Any) -> None:
        """``kubectl apply`` of a manifest with the lesson's parameters put in: ``replicas``, ``image``, ``node_port``, ``node_port_https``.

        Prints a line for each object.

        Raises:
            LabError: no such manifest, or a parameter that it doesn't take.
            CommandFailed: the API server refused.
        """
        if self.cluster.kind == "context":
            # others may have the fixed port of the lesson already, and this machine reaches every port of the nodes anyway
            edits = {k: "auto" if k.startswith("node_port") and v is not None else v for k, v in edits.items()}
        objects = manifests.load(name, **edits)
        self.kubectl("apply", "-f", "-", input=manifests.text(objects), namespace=namespace)
        for obj in objects:
            print(f"✓ {obj['kind'].lower()}/{obj['metadata']['name']} applied from {name}")

    def prepare(self, *names: str, **edits: Any) -> None:
        """What a lesson needs before it begins: leftovers of the lessons removed, these manifests applied and ready.

        Args:
            *names: files in ``manifests/``.
            **edits: as for ``apply``; each goes to the manifests that take it.
        """
        self.reset(quiet=True)
        waits = []
        for name in names:
            taken = {k: v for k, v in edits.items() if manifests.takes(name, k, v)}
            self.apply(name, **taken)
            waits += [f"{o['kind'].lower()}/{o['metadata']['name']}" for o in manifests.load(name) if o["kind"] in ("Deployment", "Pod")]
        for what in waits:
            self.wait_for(what)

    def reset(self, *, quiet: bool = False, keep_progress: bool = True) -> None:
        """Removes what the lessons made, and nothing else, and waits until it is gone.

        Args:
            quiet: print nothing.
            keep_progress: whether the record of checks and answers stays.

        Raises:
            WaitTimeout: something does not go; names it.
        """
        from .reset import reset

        reset(self, quiet=quiet, keep_progress=keep_progress)

    # -- what other modules add; loaded when first used ---------------------------------------------------------------------

    @property
    def patience(self) -> float:
        """Seconds for which checks look again: 10 with a person, 60 headless."""
        return settings.patience()

    @functools.cached_property
    def view(self) -> Any:
        """Live pictures: ``lab.view.topology()`` and others."""
        from .views import Views

        return Views(self)

    @functools.cached_property
    def progress(self) -> Any:
        """What was checked and answered so far."""
        from .progress import Progress

        return Progress(self)

    @property
    def progress_line(self) -> str:
        """The progress in one line; empty in a headless run, whose stored outputs must not depend on what was done before."""
        if settings.headless():
            return ""
        try:
            return self.progress.summary()
        except Exception as error:
            # the card is no place to fail: the lessons work without a record of them
            return f"not readable ({error})"

    @functools.cached_property
    def _cloud(self) -> Any:
        from .cloud import CloudController

        return CloudController(self)

    def cloud(self) -> Any:
        """The small cloud controller of lesson 06, which gives LoadBalancer Services an address; see ``servicelab.cloud``.

        There is one for each Lab: ``lab.cloud().start()`` in one cell, ``lab.cloud().stop()`` in another.
        """
        return self._cloud

    def break_it(self, seed: int | None = None, **options: Any) -> Any:
        """The capstone: an application of three Services, broken in six ways; see ``servicelab.capstone.break_it``."""
        from .capstone import break_it

        return break_it(self, seed, **options)

    def shop(self) -> Any:
        """The capstone's application, as it is in the cluster now; see ``servicelab.capstone.Shop``.

        Raises:
            NotFound: there is none.
        """
        from .capstone import find

        shop = find(self)
        if shop is None:
            raise NotFound(f"There is no application of the capstone in namespace {self.namespace!r}; lab.break_it() builds one.")
        return shop

    def board(self) -> Any:
        """Which of the capstone's connections work by now, live, from its callers' own requests; see ``lab.view.board``."""
        return self.view.board()
