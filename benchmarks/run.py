"""What is fast, measured: the same steps on a pocket and on a kind cluster, in one run.

    python benchmarks/run.py                        both, medians of 5, and the table in benchmarks/README.md is written anew
    python benchmarks/run.py --clusters pocket --runs 3 --print

pocket: a cluster of its own, in a temporary directory. kind: the running cluster ``$SERVICELAB_NAME`` (kubeconfig from kind), and for
its start one more cluster, which is deleted at once. Everything happens in a namespace of its own, deleted at the end. Run it
on a machine that does nothing else: every number is wall-clock time.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "lib"), str(ROOT / "tests")]

import psutil  # noqa: E402
import yaml  # noqa: E402

from harness import Kube, TestCluster, eventually  # noqa: E402
from servicelab.client import Client  # noqa: E402
from servicelab.clusters import kind as kind_module  # noqa: E402
from servicelab.clusters import known  # noqa: E402
from servicelab.clusters.pocket import PocketCluster  # noqa: E402

README = Path(__file__).with_name("README.md")
BEGIN, END = "<!-- table: made by benchmarks/run.py -->", "<!-- end of table -->"
IMAGE = "nginx:1.29-alpine"
CLIENT = "curlimages/curl:8.16.0"
IDLE = 20.0  # seconds over which the idle cluster's CPU time is measured
SCALED = 100  # pods

ROWS = {  # key: (what is measured, unit, what pocket is to reach)
    "start": ("start until all nodes are Ready", "s", "1.5 s"),
    "apply": ("apply of a 2-replica nginx Deployment until available", "s", "0.6 s"),
    "rule": ("pod deleted until its rule is gone from every node", "s", "0.15 s"),
    "exec": ("`kubectl exec POD -- true`", "s", "0.1 s"),
    "kubectl": ("… of which kubectl alone (`kubectl version --client`)", "s", ""),
    "scale": (f"scale from 2 to {SCALED} pods until available", "s", "10 s"),
    "memory": ("memory of the cluster itself (PSS, without workloads)", "MB", "120 MB"),
    "cpu": ("CPU when idle", "% of a core", "2 %"),
}


def timed(action: Callable[[], Any]) -> float:
    """Seconds that ``action`` takes."""
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def deployment(name: str, replicas: int) -> dict[str, Any]:
    """An nginx Deployment; small requests, so that 100 pods fit on two workers of any size."""
    requests = {"cpu": "1m", "memory": "1Mi"}
    container = {"name": "nginx", "image": IMAGE, "ports": [{"containerPort": 80}], "resources": {"requests": requests}}
    template = {"metadata": {"labels": {"app": name}}, "spec": {"terminationGracePeriodSeconds": 1, "containers": [container]}}
    spec = {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}


class Bench:
    """The measurements that need a running cluster.

    Args:
        kube: a namespace of its own.
        runs: how often each is repeated.
        processes: the cluster's own processes.
    """

    def __init__(self, kube: Kube, runs: int, processes: Callable[[], list[psutil.Process]]) -> None:
        self.kube, self.runs, self.processes = kube, runs, processes
        self.client = Client(kube.kubeconfig)

    def idle(self) -> tuple[float, float]:
        """Megabytes (proportional set size: a page that several processes share counts once) and per cent of one core."""
        time.sleep(5)  # what the making of the namespace set off has settled
        before = self._cpu()
        time.sleep(IDLE)
        # Short-lived helpers (a probe of etcd, a parallel exec) count with the parent that waited for them.
        used = sum(seconds - before.get(pid, 0.0) for pid, seconds in self._cpu().items())
        return sum(self._each(lambda process: process.memory_full_info().pss).values()) / 1e6, 100 * used / IDLE

    def _cpu(self) -> dict[int, float]:
        return self._each(lambda process: sum(process.cpu_times()[:4]))  # user, system, and those of children that ended

    def _each(self, ask: Callable[[psutil.Process], float]) -> dict[int, float]:
        answers = {}
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):  # it ended meanwhile
                answers[process.pid] = ask(process)
        return answers

    def apply(self) -> list[float]:
        """``kubectl apply`` and ``kubectl rollout status``."""
        results = []
        for number in range(self.runs):
            name = f"apply-{number}"

            def step(name: str = name) -> None:
                self.kube.apply(deployment(name, 2))
                self.kube.rollout(name)

            results.append(timed(step))
            self._remove(name)
        return results

    def rule(self) -> list[float]:
        """From the DELETE request until the slowest node's ruleset no longer names the pod's address."""
        self.kube.apply(deployment("rule", 3))
        self.kube.rollout("rule")
        self.kube.kubectl("expose", "deployment", "rule", "--port=80")
        results = []
        for _ in range(self.runs):
            pods = eventually(lambda: [p for p in self.kube.list("pods", "app=rule") if self._ready(p)] or None)
            address, name = pods[0]["status"]["podIP"], pods[0]["metadata"]["name"]
            loop = f"while nft list ruleset | grep -qF '{address}:80'; do :; done; date +%s.%N"
            there = f"nft list ruleset | grep -qF '{address}:80'"
            for node in self.kube.nodes:
                eventually(lambda node=node, there=there: self.kube.node_run(node, ["sh", "-c", there]).returncode == 0)
            command = [sys.executable, "-c", _WATCHER, self.kube.kind, self.kube.cluster.cluster.name]
            env = {**os.environ, "PYTHONPATH": str(ROOT / "lib")}
            watchers = [
                subprocess.Popen([*command, node, loop], stdout=subprocess.PIPE, text=True, env=env) for node in self.kube.nodes
            ]
            for watcher in watchers:
                assert watcher.stdout.readline() == "watching\n"
            begin = time.time()
            self.client.request("DELETE", f"/api/v1/namespaces/{self.kube.name}/pods/{name}")
            ends = [float(watcher.communicate(timeout=60)[0]) for watcher in watchers]
            results.append(max(ends) - begin)
            self.kube.rollout("rule")
        self.kube.kubectl("delete", "service", "rule")
        self._remove("rule")
        return results

    def exec(self) -> tuple[list[float], list[float]]:
        """A command that does nothing in a running pod; and a kubectl that asks nobody."""
        self.kube.kubectl("run", "exec", f"--image={CLIENT}", "--restart=Never", "--command", "--", "sleep", "100000")
        self.kube.wait("condition=Ready", "pod/exec")
        self.kube.exec("exec", "true")
        with_pod = [timed(lambda: self.kube.exec("exec", "true")) for _ in range(4 * self.runs)]
        alone = [timed(lambda: self.kube.kubectl("version", "--client")) for _ in range(4 * self.runs)]
        self.kube.kubectl("delete", "pod", "exec", "--now", "--wait=false")
        return with_pod, alone

    def scale(self) -> list[float]:
        """``kubectl scale`` and ``kubectl rollout status``."""
        results = []
        self.kube.apply(deployment("scale", 2))
        self.kube.rollout("scale")
        for _ in range(self.runs):

            def step() -> None:
                self.kube.kubectl("scale", "deployment", "scale", f"--replicas={SCALED}")
                self.kube.rollout("scale", timeout=180)

            results.append(timed(step))
            self.kube.kubectl("scale", "deployment", "scale", "--replicas=2")
            self.kube.wait(lambda: len(self.kube.list("pods", "app=scale")) == 2, timeout=180)
        self._remove("scale")
        return results

    def all(self) -> dict[str, list[float]]:
        """Everything, the idle cluster first."""
        memory, cpu = self.idle()
        with_pod, alone = self.exec()
        results = {"memory": [memory], "cpu": [cpu], "exec": with_pod, "kubectl": alone}
        for name in ("apply", "rule", "scale"):
            results[name] = getattr(self, name)()
        return results

    def _remove(self, name: str) -> None:
        self.kube.kubectl("delete", "deployment", name)
        self.kube.wait(lambda: self.kube.list("pods", f"app={name}") == [], timeout=180)

    @staticmethod
    def _ready(pod: dict[str, Any]) -> bool:
        conditions = pod["status"].get("conditions") or []
        return "deletionTimestamp" not in pod["metadata"] and any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


_WATCHER = """
import sys
from servicelab.clusters import known
kind, name, node, loop = sys.argv[1:]
cluster = known(kind, name)
cluster.run_on_node(node, ["true"])
print("watching", flush=True)
print(cluster.run_on_node(node, ["sh", "-c", loop], timeout=60).stdout)
"""


@contextlib.contextmanager
def namespace(cluster: TestCluster) -> Iterator[Kube]:
    """A namespace for the length of a ``with`` block."""
    kube = Kube(cluster, f"bench-{secrets.token_hex(4)}")
    kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": kube.name}})
    try:
        kube.wait(lambda: kube.kubectl("get", "serviceaccount", "default", check=False).returncode == 0)
        yield kube
    finally:
        kube.delete()


def quiet(_step: str) -> None:
    """Progress that nobody watches."""


def measure_pocket(runs: int, directory: Path) -> dict[str, list[float]]:
    """A cluster of its own, started and deleted ``runs`` times, then measured."""
    os.environ["SERVICELAB_STATE"] = str(directory)
    starts = []
    for _ in range(runs):
        cluster = PocketCluster(f"bench-{secrets.token_hex(4)}")
        starts.append(timed(lambda cluster=cluster: cluster.start(quiet)))
        cluster.delete(quiet)
    cluster = PocketCluster(f"bench-{secrets.token_hex(4)}")
    cluster.start(quiet)
    try:

        def processes() -> list[psutil.Process]:
            launcher = psutil.Process(cluster._pid())
            return [launcher, *launcher.children(recursive=True)]

        with namespace(TestCluster("pocket", cluster, cluster.kubeconfig())) as kube:
            return {"start": starts, **Bench(kube, runs, processes).all()}
    finally:
        cluster.delete(quiet)


def measure_kind(runs: int, starts: int, directory: Path) -> dict[str, list[float]]:
    """The running cluster; and the start of another one beside it."""
    cluster = known("kind")
    given = os.environ.get("SERVICELAB_TEST_KUBECONFIG")
    kubeconfig = Path(given) if given else cluster.kubeconfig()

    def processes() -> list[psutil.Process]:
        found = []
        for node in cluster.containers():
            pid = subprocess.run(["docker", "inspect", "-f", "{{.State.Pid}}", node], capture_output=True, text=True, check=True).stdout
            init = psutil.Process(int(pid))
            found += [init, *init.children(recursive=True)]
        return found

    with namespace(TestCluster("kind", cluster, kubeconfig)) as kube:
        results = Bench(kube, runs, processes).all()
    results["start"] = [_start_of_kind(directory) for _ in range(starts)]
    return results


def _start_of_kind(directory: Path) -> float:
    config = yaml.safe_load(kind_module.CONFIG.read_text())
    for node in config["nodes"]:
        node.pop("extraPortMappings", None)  # the running cluster has those ports
    file = directory / "kind.yaml"
    file.write_text(yaml.safe_dump(config))
    name, kubeconfig = f"bench-{secrets.token_hex(4)}", directory / "kind.kubeconfig"
    image = os.environ.get("SERVICELAB_KIND_IMAGE") or kind_module.IMAGE
    command = ["kind", "create", "cluster", "--name", name, "--image", image, "--config", str(file), "--kubeconfig", str(kubeconfig)]

    def step() -> None:
        subprocess.run(command, check=True, capture_output=True)
        wait = ["kubectl", f"--kubeconfig={kubeconfig}", "wait", "--for=condition=Ready", "nodes", "--all", "--timeout=180s"]
        subprocess.run(wait, check=True, capture_output=True)

    try:
        return timed(step)
    finally:
        subprocess.run(["kind", "delete", "cluster", "--name", name, "--kubeconfig", str(kubeconfig)], check=True, capture_output=True)


def machine() -> str:
    """One line on where the numbers come from."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        model = next((line.partition(":")[2].strip() for line in file if line.startswith("model name")), platform.machine())
    memory = psutil.virtual_memory().total / 2**30
    kernel = platform.release().partition("-")[0]
    return f"{os.cpu_count()} cores ({model}), {memory:.0f} GB, Linux {kernel}, Python {platform.python_version()}"


def shown(values: list[float] | None, unit: str) -> str:
    """The median, and the range where there are several."""
    if not values:
        return "—"
    digits = {"s": 3 if max(values) < 2 else 1, "MB": 0, "% of a core": 1}[unit]
    unit = "%" if unit == "% of a core" else unit
    text = f"**{statistics.median(values):.{digits}f} {unit}**"
    return text if len(values) == 1 else f"{text} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def table(results: dict[str, dict[str, list[float]]], runs: int) -> str:
    """Markdown."""
    lines = [f"Medians of {runs} runs (smallest–largest), {time.strftime('%Y-%m-%d')}, {machine()}.", ""]
    lines += [f"| | {' | '.join(results)} | pocket is to reach |", f"|---|{'---|' * len(results)}---|"]
    for key, (what, unit, goal) in ROWS.items():
        lines.append(f"| {what} | {' | '.join(shown(one.get(key), unit) for one in results.values())} | {goal} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print, and write the table down."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--clusters", default="kind,pocket", help="which, in this order (default: %(default)s)")
    parser.add_argument("--runs", type=int, default=5, help="repetitions (default: %(default)s)")
    parser.add_argument("--kind-starts", type=int, default=1, help="how often a kind cluster is started, 30 s each (default: %(default)s)")
    parser.add_argument("--print", action="store_true", help="print the table only")
    options = parser.parse_args()
    results = {}
    with tempfile.TemporaryDirectory() as directory:
        for kind in options.clusters.split(","):
            if kind == "pocket":
                results[kind] = measure_pocket(options.runs, Path(directory))
            elif kind == "kind":
                results[kind] = measure_kind(options.runs, options.kind_starts, Path(directory))
            else:
                parser.error(f'no cluster "{kind}": kind and pocket are known')
    text = table(results, options.runs)
    print(text)
    if not options.print:
        before, _, rest = README.read_text().partition(BEGIN)
        README.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
