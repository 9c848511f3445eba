"""kind and Docker in every state in which a learner's machine may have them; both are pretended here."""

from __future__ import annotations

import socket

import pytest
import yaml

from servicelab.clusters import choose, known
from servicelab.clusters.kind import KindCluster
from servicelab.errors import ClusterError, LabError

DOCKER = """
echo "docker $*" >> {log}
case "$1 $2" in
  "version "*) echo 26.1 ;;
  "image inspect") exit {image} ;;
  "manifest inspect") echo 'no such host' >&2; exit {registry} ;;
  "pull "*) echo 'Error response from daemon: lookup registry: no such host' >&2; exit 1 ;;
  "ps "*) printf '{containers}' ;;
esac
"""


class Machine:
    def __init__(self, programs, tmp_path) -> None:
        self.programs, self.log = programs, tmp_path / "docker.log"
        self.docker()
        programs.pretend(
            "kind", 'echo "kind $*" >> ' + str(self.log) + '; case "$1" in create) echo "ERROR: could not do it" >&2; exit 1 ;; esac'
        )

    def docker(self, *, image: int = 0, registry: int = 1, containers: str = "") -> None:
        self.programs.pretend("docker", DOCKER.format(log=self.log, image=image, registry=registry, containers=containers))

    @property
    def calls(self) -> str:
        return self.log.read_text() if self.log.exists() else ""


@pytest.fixture
def machine(programs, tmp_path, state) -> Machine:
    return Machine(programs, tmp_path)


@pytest.fixture
def config(tmp_path):
    """A kind configuration that maps one port, and a socket that has it: no program listens there, nor gets it meanwhile."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # now, so that the port counts as free until somebody listens
        port = taken.getsockname()[1]
        file = tmp_path / "kind.yaml"
        file.write_text(yaml.safe_dump({"nodes": [{"extraPortMappings": [{"containerPort": 30080, "hostPort": port}]}]}))
        yield file, taken, port


def start(**options) -> list[str]:
    steps: list[str] = []
    KindCluster("t").start(steps.append, **options)
    return steps


def test_without_docker(machine):
    (machine.programs.folder / "docker").unlink()
    assert "Docker is not installed" in KindCluster("t").why_not()
    with pytest.raises(ClusterError, match=r"can't be started: Docker is not installed"):
        start()


def test_docker_does_not_answer(machine):
    machine.programs.pretend("docker", "echo 'Cannot connect to the Docker daemon at unix:///var/run/docker.sock.' >&2; exit 1")
    with pytest.raises(ClusterError, match=r"does not answer: Cannot connect to the Docker daemon.*systemctl start docker"):
        start()
    assert KindCluster("t").status().state == "absent"


def test_without_kind(machine):
    (machine.programs.folder / "kind").unlink()
    with pytest.raises(ClusterError, match="kind is not installed"):
        start()


def test_image_can_not_be_pulled(machine, config):
    machine.docker(image=1)
    file, _, _ = config
    with pytest.raises(ClusterError, match=r"node image mirror/node:v9 can't be pulled: .*no such host.*--image"):
        start(image="mirror/node:v9", config=file)
    assert "kind create" not in machine.calls


def test_host_port_taken(machine, config):
    file, taken, port = config
    taken.listen()
    with pytest.raises(ClusterError, match=rf"Port {port} of this machine is taken by another program"):
        start(config=file)
    assert "kind create" not in machine.calls


def test_what_kind_could_not_finish_is_removed(machine, config):
    file, _, _ = config
    with pytest.raises(ClusterError, match=r"(?s)could not make the cluster 't'.*ERROR: could not do it"):
        start(config=file)
    assert "kind delete cluster --name t" in machine.calls


@pytest.mark.parametrize(
    ("containers", "state"),
    [
        ("", "absent"),
        (r"t-control-plane running\nt-worker running\n", "running"),
        (r"t-control-plane exited\nt-worker exited\n", "stopped"),
        (r"t-control-plane running\nt-worker exited\n", "broken"),
    ],
)
def test_states(machine, containers, state):
    machine.docker(containers=containers)
    status = KindCluster("t").status()
    assert status.state == state
    assert status.running or "servicelab up --cluster kind" in status.detail


def test_a_stopped_cluster_is_started_the_control_plane_first(machine, monkeypatch):
    machine.docker(containers=r"t-worker exited\nt-control-plane exited\n")
    monkeypatch.setattr(KindCluster, "_wait_ready", lambda self, progress: progress("ready"))
    assert start() == ["starting the stopped nodes of t", "ready"]
    started = [line for line in machine.calls.splitlines() if line.startswith("docker start")]
    assert started == ["docker start t-control-plane", "docker start t-worker"]


# -- choosing ------------------------------------------------------------------------------------------------------------


def test_kind_when_image_is_there(machine):
    assert choose(name="t").kind == "kind"


def test_kind_when_image_can_be_pulled(machine):
    machine.docker(image=1, registry=0)
    assert choose(name="t").kind == "kind"


def test_pocket_when_kind_has_no_image(machine, monkeypatch):
    machine.docker(image=1, registry=1)
    monkeypatch.setattr("servicelab.clusters.pocket.PocketCluster.why_not", lambda self: None)
    assert choose(name="t").kind == "pocket"


def test_a_running_cluster_before_one_that_could_be_made(machine, monkeypatch):
    machine.docker(image=1, registry=1, containers=r"t-control-plane running\n")
    monkeypatch.setattr("servicelab.clusters.pocket.PocketCluster.why_not", lambda self: None)
    assert choose(name="t").kind == "kind"


def test_none_says_what_is_missing_for_each(machine, monkeypatch):
    (machine.programs.folder / "kind").unlink()
    monkeypatch.setattr("servicelab.clusters.pocket.PocketCluster.why_not", lambda self: "missing programs: bubblewrap")
    with pytest.raises(ClusterError, match=r"(?s)kind: kind is not installed.*pocket: missing programs: bubblewrap.*servicelab doctor"):
        choose(name="t")


def test_the_environment_chooses(machine, monkeypatch):
    monkeypatch.setenv("SERVICELAB_CLUSTER", "pocket")
    monkeypatch.setenv("SERVICELAB_NAME", "other")
    cluster = choose()
    assert (cluster.kind, cluster.name) == ("pocket", "other")


@pytest.mark.parametrize("word", ["minikube", "context:", "context"])
def test_unknown_clusters(state, word):
    with pytest.raises(LabError, match=r"is no cluster the lab knows: use kind, pocket, or context:NAME"):
        known(word)


@pytest.mark.parametrize("name", ["Big", "a_b", "-a", "a-", "x" * 51, "a/b", ".."])
def test_names_that_can_not_be(state, name):
    from servicelab.state import checked_name

    with pytest.raises(LabError, match="can't be a cluster's name"):
        checked_name(name)
