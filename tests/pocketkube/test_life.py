"""A cluster's life: it starts, stops, is killed and comes back; and never leaves anything behind on the machine."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
import select
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from harness import ROOT, WAIT, Kube, TestCluster, eventually
from pocketkube.control import bind_unix
from servicelab.clusters.pocket import PocketCluster
from servicelab.errors import ClusterError

pytestmark = pytest.mark.pocket

NGINX = "nginx:1.29-alpine"


@pytest.fixture
def state(tmp_path, monkeypatch) -> Path:
    """A state directory of the test's own."""
    monkeypatch.setenv("SERVICELAB_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("SERVICELAB_POCKET_OWNER", str(os.getpid()))
    return tmp_path / "state"


@pytest.fixture
def new_cluster(state):
    """Makes clusters of random names, and stops them at the end."""
    made = []

    def make() -> PocketCluster:
        made.append(PocketCluster(f"life-{secrets.token_hex(4)}"))
        return made[-1]

    yield make
    for cluster in made:
        cluster.stop(_quiet)


def _quiet(_step: str) -> None:
    """Progress that nobody watches."""


def _start(cluster: PocketCluster) -> Kube:
    cluster.start(_quiet)
    return Kube(TestCluster("pocket", cluster, cluster.kubeconfig()), "default")


def _tree(cluster: PocketCluster) -> list[psutil.Process]:
    launcher = psutil.Process(cluster._pid())
    return [launcher, *launcher.children(recursive=True)]


def _traces() -> set[str]:
    """What a cluster could leave on the machine: interfaces, mounts, named namespaces, rules."""
    rules = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=False).stdout.splitlines()
    netns = os.listdir("/run/netns") if os.path.isdir("/run/netns") else []
    mounts = [line.split(" ", 5)[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    # Docker's own come and go with other containers.
    links = [name for _, name in socket.if_nameindex() if not name.startswith(("veth", "br-", "docker"))]
    dockers = ("/var/lib/docker", "/run/docker", "/var/lib/containerd", "/run/containerd")
    return {*links, *rules, *(f"netns {name}" for name in netns), *(mount for mount in mounts if not mount.startswith(dockers))}


def _gone(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=WAIT)
    assert alive == []


def _command(state: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "pocketkube", "--state", str(state), "--name", "life", *options]


@contextlib.contextmanager
def _reserved(port: int) -> Iterator[None]:
    """Nobody who takes any free port gets this one; a cluster that asks for it does."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", port))
        yield


def _refused(command: list[str], **options) -> subprocess.CompletedProcess[str]:
    """Run a start that must fail, in seconds and with words instead of a traceback."""
    env = {**os.environ, "PYTHONPATH": str(ROOT / "lib")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30, env=env, **options)
    assert done.returncode != 0 and "Traceback" not in done.stderr, done.stderr
    return done


def _deployment(name: str, replicas: int = 2, image: str = NGINX) -> dict:
    labels = {"app": name}
    spec = {"terminationGracePeriodSeconds": 1, "containers": [{"name": "c", "image": image}]}
    template = {"metadata": {"labels": labels}, "spec": spec}
    body = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": body}


def test_a_stop_and_a_start_keep_everything_and_pods_come_back(new_cluster):
    cluster = new_cluster()
    kube = _start(cluster)
    kubeconfig = kube.kubeconfig.read_text()
    assert kube.kubeconfig.stat().st_mode & 0o777 == 0o600
    kube.apply(_deployment("web"))
    kube.kubectl("expose", "deployment", "web", "--port=80")
    kube.rollout("web")
    before = {kind: kube.get(kind, "web") for kind in ("deployment", "service")}
    pods = {pod["metadata"]["uid"] for pod in kube.list("pods")}
    processes = _tree(cluster)

    cluster.stop(_quiet)
    _gone(processes)
    assert cluster.status().state == "stopped"
    with pytest.raises(ClusterError, match="servicelab up"):
        cluster.kubeconfig()

    with _reserved(int(yaml.safe_load(kubeconfig)["clusters"][0]["cluster"]["server"].rpartition(":")[2])):
        kube = _start(cluster)
    assert kube.kubeconfig.read_text() == kubeconfig
    for kind, old in before.items():
        assert kube.get(kind, "web")["metadata"]["uid"] == old["metadata"]["uid"]
        assert kube.get(kind, "web")["spec"] == old["spec"]
    kube.wait("condition=Available", "deployment/web")
    assert {pod["metadata"]["uid"] for pod in kube.list("pods")} == pods
    address = before["service"]["spec"]["clusterIP"]
    answered = kube.wait(lambda: kube.node_run(kube.nodes[0], ["curl", "-sS", "-m", "5", f"http://{address}/"]).returncode == 0)
    assert answered


@pytest.mark.parametrize("victim", ["launcher", "init", "cluster"])
def test_killed_it_leaves_nothing_behind(new_cluster, victim):
    traces = _traces()
    cluster = new_cluster()
    kube = _start(cluster)
    kube.apply(_deployment("web"))
    kube.rollout("web")
    processes = _tree(cluster)
    assert len(processes) > 5
    assert not _traces() - traces, "nothing of it shows outside while it runs"
    launcher = processes[0]
    init = launcher.children()[0]
    chosen = {"launcher": launcher, "init": init, "cluster": init.children()[0]}[victim]

    # Held open, since the kernel gives the number of a namespace that is gone to the next one: a neighbour's.
    with open(f"/proc/{init.pid}/ns/mnt", "rb") as namespace:
        number = os.fstat(namespace.fileno()).st_ino
        chosen.send_signal(signal.SIGKILL)
        _gone(processes)
        assert not [pid for pid in psutil.pids() if _inode(pid) == number]
    assert not _traces() - traces
    assert cluster.status().state == "stopped"
    kube = _start(cluster)  # whatever stale files it left
    kube.wait("condition=Available", "deployment/web")


def _inode(pid: int) -> int | None:
    try:
        return os.stat(f"/proc/{pid}/ns/mnt").st_ino
    except OSError:
        return None  # it ended meanwhile


def test_it_ends_with_the_process_it_follows(new_cluster, monkeypatch):
    with subprocess.Popen(["sleep", "600"]) as owner:
        monkeypatch.setenv("SERVICELAB_POCKET_OWNER", str(owner.pid))
        cluster = new_cluster()
        _start(cluster)
        processes = _tree(cluster)
        owner.kill()
    _gone(processes)
    assert cluster.status().state == "stopped"


def test_kill_mid_apply_loses_no_accepted_write(new_cluster):
    cluster = new_cluster()
    kube = _start(cluster)
    post = _poster(kube.kubeconfig)
    accepted: list[str] = []
    enough = threading.Event()

    def write(writer: int) -> None:
        for number in range(100_000):
            name = f"w{writer}-{number}"
            try:
                post({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"n": str(number)}})
            except OSError:
                return  # killed: this one may or may not be there
            accepted.append(name)
            if len(accepted) > 60:
                enough.set()

    writers = [threading.Thread(target=write, args=(number,)) for number in range(3)]
    for writer in writers:
        writer.start()
    assert enough.wait(60)
    _tree(cluster)[2].send_signal(signal.SIGKILL)
    for writer in writers:
        writer.join(30)

    kube = _start(cluster)
    present = {one["metadata"]["name"] for one in kube.list("configmaps")}
    assert len(accepted) > 60 and set(accepted) <= present


def _poster(kubeconfig: Path):
    config = yaml.safe_load(kubeconfig.read_text())
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    context = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())

    def post(body: dict, token: str = user["token"]) -> int:
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        url = f"{cluster['server']}/api/v1/namespaces/default/configmaps"
        request = urllib.request.Request(url, json.dumps(body).encode(), headers, method="POST")
        with urllib.request.urlopen(request, timeout=20, context=context) as answer:
            return answer.status

    return post


def test_kill_during_a_rollout_and_it_completes_after_the_restart(new_cluster):
    cluster = new_cluster()
    kube = _start(cluster)
    kube.apply(_deployment("web", replicas=4))
    kube.rollout("web")
    kube.kubectl("set", "image", "deployment/web", "c=nginx:1.28-alpine")
    kube.wait(lambda: kube.get("deployment", "web")["status"].get("updatedReplicas", 0) >= 1)
    processes = _tree(cluster)
    processes[0].send_signal(signal.SIGKILL)
    _gone(processes)

    kube = _start(cluster)
    kube.rollout("web")
    pods = kube.wait(lambda: [p for p in kube.list("pods") if "deletionTimestamp" not in p["metadata"]])
    assert {pod["spec"]["containers"][0]["image"] for pod in pods} == {"nginx:1.28-alpine"}
    assert len(kube.wait(lambda: _exactly(kube.list("pods"), 4))) == 4


def _exactly(items: list, number: int) -> list | None:
    return items if len(items) == number else None


def test_two_clusters_side_by_side_know_nothing_of_each_other(new_cluster):
    first, second = new_cluster(), new_cluster()
    a, b = _start(first), _start(second)
    a.apply(_deployment("only-in-a", replicas=1))
    a.rollout("only-in-a")
    assert b.list("deployments") == []
    # The same node names and addresses, and different machines.
    ip = a.list("pods")[0]["status"]["podIP"]
    # without a probe a pod is ready when its program runs, which listens a moment later
    a.wait(lambda: a.node_run(a.nodes[0], ["curl", "-sS", "-m", "5", "-o", "/dev/null", f"http://{ip}/"]).returncode == 0)
    assert b.node_run(b.nodes[0], ["curl", "-sS", "-m", "5", "-o", "/dev/null", f"http://{ip}/"]).returncode != 0
    assert first.node_port_address(30080) != second.node_port_address(30080)
    with pytest.raises(urllib.error.HTTPError, match="401"):
        _poster(a.kubeconfig)({}, token=yaml.safe_load(b.kubeconfig.read_text())["users"][0]["user"]["token"])


def test_two_starts_at_once_make_one_cluster(new_cluster):
    cluster = new_cluster()
    failures = []

    def start() -> None:
        try:
            PocketCluster(cluster.name).start(_quiet)
        except ClusterError as error:
            failures.append(error)

    starts = [threading.Thread(target=start) for _ in range(2)]
    for one in starts:
        one.start()
    eventually(lambda: cluster.status().running, timeout=90)
    assert yaml.safe_load(cluster.kubeconfig().read_text())["kind"] == "Config", "it is there as soon as the cluster is said to run"
    for one in starts:
        one.join(90)
    assert failures == [] and cluster.status().running


def test_a_start_waits_for_the_process_before_that_is_still_ending(new_cluster):
    cluster = new_cluster()
    _start(cluster)
    launcher, _, process = _tree(cluster)[:3]
    launcher.send_signal(signal.SIGSTOP)  # it holds the state directory until it has seen the others' end
    process.send_signal(signal.SIGKILL)
    _gone([process])
    timer = threading.Timer(1.0, launcher.send_signal, [signal.SIGCONT])
    timer.start()
    _start(cluster)
    timer.join()
    assert cluster.status().running


def test_a_second_process_on_the_same_state_is_refused(new_cluster, state):
    cluster = new_cluster()
    _start(cluster)
    done = _refused(_command(state / "clusters" / cluster.name))
    assert done.returncode == 3
    assert f"is running already in {state / 'clusters' / cluster.name} (process {cluster._pid()})" in done.stderr
    assert cluster.status().running


def test_a_port_in_use_is_named(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for options in (["--api-port", str(port)], ["--publish", f"{port}:30080"]):
            done = _refused(_command(tmp_path / "s", *options))
            assert f"port {port} of 127.0.0.1 is in use" in done.stderr and "ss -ltnp" in done.stderr


def test_a_taken_node_port_moves_and_leads_to_the_node(tmp_path):
    """``auto``: what two clusters of one machine need."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        reader, writer = os.pipe()
        command = _command(tmp_path / "s", "--publish", f"auto:{port}", "--ready-fd", str(writer))
        env = {**os.environ, "PYTHONPATH": str(ROOT / "lib")}
        process = subprocess.Popen(command, pass_fds=[writer], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        os.close(writer)
        try:
            messages = []
            while select.select([reader], [], [], 60)[0] and (data := os.read(reader, 65536)):
                messages += [json.loads(line) for line in data.splitlines()]
            ready = messages[-1]["ready"]
            assert ready["ports"][str(port)] not in (0, port)
        finally:
            os.close(reader)
            process.terminate()
            words, _ = process.communicate(timeout=WAIT)
    assert process.returncode == 0 and f"port {port} of 127.0.0.1 is in use" in words


def test_a_published_node_port_reaches_its_service(new_cluster):
    cluster = new_cluster()
    kube = _start(cluster)
    kube.apply(_deployment("web", replicas=1))
    kube.apply(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "web"},
            "spec": {"type": "NodePort", "selector": {"app": "web"}, "ports": [{"port": 80, "nodePort": 30080}]},
        }
    )
    kube.rollout("web")

    def answer() -> bool:
        try:
            with urllib.request.urlopen(f"http://{cluster.node_port_address(30080)}/", timeout=5) as response:
                return b"nginx" in response.read()
        except OSError as error:
            raise AssertionError(str(error)) from error

    assert eventually(answer)


def test_a_state_directory_that_cannot_be_written_is_named(tmp_path):
    folder = tmp_path / "readonly"
    folder.mkdir()
    script = f'mount -t tmpfs -o ro none "{folder}" && exec "$@"'  # in a mount namespace: root may write anywhere else
    done = _refused(["unshare", "--mount", *(["-r"] if os.geteuid() else []), "sh", "-c", script, "sh", *_command(folder)])
    assert f"the state directory {folder} can't be written: Read-only file system" in done.stderr
    assert "SERVICELAB_STATE" in done.stderr


def test_a_full_disk_refuses_writes_with_words_and_loses_nothing(tmp_path):
    folder = tmp_path / "small"
    folder.mkdir()
    script = f'mount -t tmpfs -o size=60m none "{folder}" && head -c 4000000 /dev/zero > "{folder}/ballast" && exec "$@"'
    reader, writer = os.pipe()
    command = ["unshare", "--mount", *(["-r"] if os.geteuid() else []), "sh", "-c", script, "sh"]
    command += _command(folder, "--ready-fd", str(writer))
    env = {**os.environ, "PYTHONPATH": str(ROOT / "lib")}
    process = subprocess.Popen(command, pass_fds=[writer], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    os.close(writer)
    try:
        data = b""
        while select.select([reader], [], [], 60)[0] and (more := os.read(reader, 65536)):
            data += more
        kubeconfig = tmp_path / "kubeconfig"
        kubeconfig.write_bytes(Path(f"/proc/{process.pid}/root{folder}/kubeconfig").read_bytes())
        kubeconfig.chmod(0o600)
        post = _poster(kubeconfig)
        accepted = []
        for number in range(100):
            try:
                post({"metadata": {"name": f"big-{number}"}, "data": {"x": "x" * 900_000}})
            except urllib.error.HTTPError as error:
                refusal = json.loads(error.read())
                break
            accepted.append(f"big-{number}")
        assert refusal["kind"] == "Status" and refusal["code"] >= 500
        assert "full" in refusal["message"] or "No space left" in refusal["message"], refusal["message"]
        kube = Kube(TestCluster("pocket", None, kubeconfig), "default")
        assert {one["metadata"]["name"] for one in kube.list("configmaps")} >= set(accepted)
        assert len(accepted) > 1
        Path(f"/proc/{process.pid}/root{folder}/ballast").unlink()
        assert post({"metadata": {"name": "small"}}) == 201
    finally:
        os.close(reader)
        process.terminate()
        process.wait(WAIT)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--publish", "nonsense"], '"nonsense" is not HOSTPORT:NODEPORT'),
        (["--publish", "70000:30080"], "ports are 1 to 65535"),
        (["--api-port", "-1"], "is no port"),
        (["--name", "Not a name"], "lower case letters"),
    ],
)
def test_bad_options_are_explained(tmp_path, options, words):
    assert words in _refused(_command(tmp_path / "s", *options)).stderr


def test_a_stale_lock_and_socket_of_a_killed_cluster_do_not_matter(new_cluster, state):
    cluster = new_cluster()
    folder = state / "clusters" / cluster.name
    folder.mkdir(parents=True)
    (folder / "lock").write_text(f"{os.getpid()}\n")  # a process id that belongs to someone else now
    (folder / "kubeconfig").write_text("not: valid")
    bind_unix(folder / "control.sock").close()
    assert cluster.status().state == "absent"
    assert _start(cluster).kubectl("get", "nodes", "-o", "name").stdout.split() == [f"node/{name}" for name in _start(cluster).nodes]


def test_control_answers_bad_requests_with_words(new_cluster):
    cluster = new_cluster()
    _start(cluster)
    for request, words in (
        ({"op": "fly"}, 'unknown op "fly"'),
        ({"op": "run", "on": "moon", "argv": ["true"]}, 'no node "moon"'),
        ({"op": "run", "on": "outside", "argv": "true"}, "argv must be a list"),
        ({"op": "run", "on": "outside", "argv": ["no-such-program"]}, "no-such-program"),
        ({"op": "run", "on": "outside", "argv": ["sleep", "60"], "timeout": 0.2}, "did not end within 0.2 s"),
    ):
        with pytest.raises(ClusterError, match=words):
            cluster._ask(request, timeout=60)
    assert cluster.run_on_node("servicelab-worker", ["hostname"]).stdout == "servicelab-worker\n"
    assert cluster.run_on_node("servicelab-worker", ["cat"], input="as typed\n").stdout == "as typed\n"
    assert cluster.run_outside(["sh", "-c", "echo no >&2; exit 7"]).returncode == 7


def test_a_program_whose_caller_hangs_up_is_ended(new_cluster):
    cluster = new_cluster()
    _start(cluster)
    marker = f"31415.{secrets.randbelow(10**6)}"
    with socket.socket(socket.AF_UNIX) as link:
        folder = os.open(cluster._dir, os.O_PATH)
        link.connect(f"/proc/self/fd/{folder}/control.sock")
        os.close(folder)
        link.sendall(json.dumps({"op": "run", "on": "servicelab-worker", "argv": ["sleep", marker], "timeout": 600}).encode() + b"\n")
        eventually(lambda: _running(marker))
    eventually(lambda: not _running(marker))


def _running(word: str) -> bool:
    for pid in psutil.pids():
        try:
            if word.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                return True
        except OSError:
            continue  # it ended meanwhile
    return False


def test_an_ordinary_user_gets_a_cluster_in_a_user_namespace(state, tmp_path):
    as_user = []
    if os.geteuid() == 0:  # then a user without any entry, group or capability
        as_user = ["setpriv", "--reuid=64321", "--regid=64321", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all"]
    folder = tmp_path / "s"
    folder.mkdir()
    if as_user:
        os.chown(folder, 64321, 64321)
        for parent in (tmp_path, *tmp_path.parents):
            if parent.stat().st_mode & 0o001 == 0 and parent.is_relative_to(Path(tempfile.gettempdir())):
                parent.chmod(0o711)
    for needed in (["unshare", "-Urn", "true"], [sys.executable, "-c", "import aiohttp"]):
        tried = subprocess.run([*as_user, *needed], capture_output=True, text=True, check=False, cwd="/")
        if tried.returncode != 0:
            pytest.skip(f"an ordinary user can't run {needed[0]} here: {tried.stderr.strip()[-200:]}")
    reader, writer = os.pipe()
    env = {**os.environ, "PYTHONPATH": str(ROOT / "lib"), "PYTHONDONTWRITEBYTECODE": "1"}
    process = subprocess.Popen(
        [*as_user, *_command(folder, "--ready-fd", str(writer))], pass_fds=[writer], env=env, cwd="/", stderr=subprocess.PIPE, text=True
    )
    os.close(writer)
    try:
        data = b""
        while select.select([reader], [], [], 60)[0] and (more := os.read(reader, 65536)):
            data += more
        ready = json.loads(data.splitlines()[-1]).get("ready")
        assert ready, data
        (state / "clusters").mkdir(parents=True)
        (state / "clusters" / "alone").symlink_to(folder)
        kube = Kube(TestCluster("pocket", PocketCluster("alone"), Path(ready["kubeconfig"])), "default")
        kube.apply(_deployment("web", replicas=2))
        kube.rollout("web")
        ip = kube.list("pods")[0]["status"]["podIP"]
        kube.wait(lambda: "nginx" in kube.node_run("servicelab-worker", ["curl", "-sS", "-m", "5", f"http://{ip}/"]).stdout)
        assert psutil.Process(ready["pid"]).uids().real == (64321 if as_user else os.geteuid())
    finally:
        os.close(reader)
        process.terminate()
        process.communicate(timeout=WAIT)
