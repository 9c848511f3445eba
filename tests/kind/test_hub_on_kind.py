"""JupyterHub on a real cluster, as far as it goes without its chart: the hook with the hub's rights alone, and a server's pod in which a
whole lesson runs.

The image is built here from Debian's and Python's packages (about 1 GB, ten minutes), so it is asked for: `SERVICELAB_HUB=yes`.
`SERVICELAB_HUB_IMAGE` names one that Docker has already.
"""

from __future__ import annotations

import asyncio
import base64
import importlib
import os
import re
import secrets
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from harness import Kube
from servicelab.bundle import archive
from servicelab.classroom.create import create
from servicelab.classroom.delete import delete
from servicelab.classroom.group import current
from servicelab.classroom.names import Student

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy" / "jupyterhub"
pytestmark = [
    pytest.mark.kind,
    pytest.mark.skipif(os.environ.get("SERVICELAB_HUB") != "yes", reason="builds an image of 1 GB; SERVICELAB_HUB=yes asks for it"),
]


def run(*command: str, timeout: float = 900, **options) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, **options)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def node(cluster) -> str:
    return cluster.nodes[-1]


@pytest.fixture(scope="module")
def image(cluster, node, tmp_path_factory):
    """The single-user image, in Docker and on one node."""
    given = os.environ.get("SERVICELAB_HUB_IMAGE")
    name = given or f"servicelab-hub:t{secrets.token_hex(4)}"
    base = f"servicelab-base:t{secrets.token_hex(4)}"
    try:
        if not given:
            _debian(base, tmp_path_factory.mktemp("debian"))
            arguments = ["--network", "host", "--build-arg", f"BASE={base}", "-f", str(DEPLOY / "Dockerfile"), "-t", name]
            run("docker", "build", *arguments, str(ROOT), timeout=1800)
        run("kind", "load", "docker-image", name, "--name", cluster.cluster.name, "--nodes", node)
        yield name
    finally:
        remove = ["docker", "exec", node, "ctr", "-n", "k8s.io", "images", "rm", archive.full_name(name)]
        subprocess.run(remove, capture_output=True, check=False, timeout=60)
        if not given:
            subprocess.run(["docker", "rmi", "-f", name, base], capture_output=True, check=False, timeout=120)


def _debian(name: str, folder: Path) -> None:
    """An image of this machine's own Debian release, from the mirror that apt uses here."""
    if not shutil.which("debootstrap"):
        pytest.fail("debootstrap is not installed: apt-get install debootstrap")
    targets = run("apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME) $(LABEL)", "Created-By: Packages")
    mirror, codename = next((m[1], m[2]) for m in re.finditer(r"^(\S+) (\w+) Debian$", targets, re.M))
    tree = folder / "root"
    packages = "ca-certificates,curl,openssl,python3,python3-venv,tini"
    run("debootstrap", "--variant=minbase", f"--include={packages}", codename, str(tree), mirror, timeout=1800)
    # where this machine reaches packages through a proxy with certificates of its own, the build must know them
    for file in ("/etc/ssl/certs/ca-certificates.crt", "/etc/pip.conf"):
        if Path(file).exists():
            shutil.copy(file, tree / file[1:])
    shutil.rmtree(tree / "var/lib/apt/lists")
    with subprocess.Popen(["tar", "-C", str(tree), "-cf", "-", "."], stdout=subprocess.PIPE) as tar:
        run("docker", "import", "-", name, stdin=tar.stdout)
    shutil.rmtree(tree)


class Hub:
    """A hub's namespace, its ServiceAccount with the rights of rights.yaml, and the hook as the hub loads it."""

    def __init__(self, cluster, folder: Path, monkey: pytest.MonkeyPatch) -> None:
        self.cluster, self.kube = cluster, Kube(cluster, f"hub-{secrets.token_hex(4)}")
        for mounted, source in _sources().items():
            (folder / mounted).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / source, folder / mounted)
        monkey.syspath_prepend(str(folder))
        self.hook = importlib.import_module("servicelab_hub.hub")
        group = current()
        text = (DEPLOY / "rights.yaml").read_text(encoding="utf-8")
        for old, new in (
            ("NAMESPACE", self.kube.name), ("servicelab-class-student", group.role), ("servicelab-class-pods", f"{group.space}-pods"),
            ("'student-'", f"'{group.prefix}'"), ("['kube-system', 'servicelab-class']", f"['kube-system', '{group.space}']"),
            ("servicelab-hub", f"servicelab-{self.kube.name}"),
        ):  # fmt: skip
            assert old in text
            text = text.replace(old, new)
        self.kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.kube.name}})
        self.kube.kubectl("create", "serviceaccount", "hub")
        self.kube.apply(text)
        token = self.kube.kubectl("create", "token", "hub").stdout.strip()
        entry = yaml.safe_load(Path(cluster.kubeconfig).read_text())["clusters"][0]["cluster"]
        ca = folder / "ca.crt"
        ca.write_bytes(base64.b64decode(entry["certificate-authority-data"]))
        self.api = self.hook.Api(entry["server"], lambda: token, str(ca))

    def prepare(self, user: str):
        return asyncio.run(self.hook.prepare(self.api, user, self.kube.name))

    def apply(self, kind: str, name: str, namespace: str | None, **rest):
        """As somebody who has broken into the hub."""
        group = {"Role": "rbac.authorization.k8s.io/v1", "RoleBinding": "rbac.authorization.k8s.io/v1"}
        group["ClusterRoleBinding"] = group["Role"]
        metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
        return asyncio.run(self.api.apply({"apiVersion": group.get(kind, "v1"), "kind": kind, "metadata": metadata, **rest}))

    def close(self) -> None:
        name = f"servicelab-{self.kube.name}"
        kinds = ["validatingadmissionpolicybinding", "validatingadmissionpolicy", "clusterrolebinding", "clusterrole"]
        for kind in kinds:
            self.kube.kubectl("delete", kind, name, "--ignore-not-found", check=False)
        self.kube.delete()


def _sources() -> dict[str, str]:
    given = dict(re.findall(r"--set-file hub\.extraFiles\.(\w+)\.stringData=(\S+)", (DEPLOY / "README.md").read_text(encoding="utf-8")))
    files = yaml.safe_load((DEPLOY / "values.yaml").read_text(encoding="utf-8"))["hub"]["extraFiles"]
    return {files[key]["mountPath"].removeprefix("/usr/local/etc/jupyterhub/"): given[key] for key in files}


class Teacher:
    kind, name = "context", "teacher"

    def __init__(self, file) -> None:
        self.file = file

    def kubeconfig(self) -> Path:
        return self.file


@pytest.fixture(scope="module")
def hub(cluster, tmp_path_factory):
    with pytest.MonkeyPatch.context() as monkey:
        monkey.setenv("SERVICELAB_CLASS", f"h{secrets.token_hex(4)}")
        monkey.setenv("SERVICELAB_STATE", str(tmp_path_factory.mktemp("state")))
        teacher = Teacher(cluster.kubeconfig)
        made = None
        try:
            assert not create(teacher, [Student("ada", "Ada L.")]).failed
            made = Hub(cluster, tmp_path_factory.mktemp("hub"), monkey)
            yield made
        finally:
            if made:
                made.close()
            delete(teacher)
            for name in [name for name in sys.modules if name.startswith("servicelab_hub")]:
                del sys.modules[name]


def test_the_hook_makes_a_user_at_home_twice(hub):
    assert hub.prepare("Zoë").namespace == f"{current().prefix}zoe"
    assert hub.prepare("Zoë").namespace == f"{current().prefix}zoe"
    assert hub.prepare("ada").name == "Ada L.", "a student of the teacher's list"
    with pytest.raises(hub.hook.Refused, match="become the same namespace"):
        hub.prepare("zoe")


def test_the_hub_can_not_leave_the_class(hub):
    escapes = [
        ("Role", "servicelab-student", "kube-system", {"rules": [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]}),
        ("Role", "another", f"{current().prefix}ada", {"rules": [{"apiGroups": [""], "resources": ["nodes/proxy"], "verbs": ["*"]}]}),
        ("ServiceAccount", "default", "kube-system", {"automountServiceAccountToken": True}),
        ("Namespace", "kube-system", None, {}),
        ("Namespace", "mine", None, {}),
        ("ClusterRoleBinding", "mine", None, {"roleRef": _role("ClusterRole", "cluster-admin"), "subjects": [_hub(hub)]}),
        ("ClusterRoleBinding", "mine", None, {"roleRef": _role("ClusterRole", current().role), "subjects": [_hub(hub, "kube-system")]}),
        ("RoleBinding", "mine", "kube-system", {"roleRef": _role("ClusterRole", "cluster-admin"), "subjects": [_hub(hub)]}),
    ]
    for kind, name, namespace, rest in escapes:
        with pytest.raises(hub.hook.Refused, match=r"forbidden|denied|attempting to grant|may (write|bind|not)"):
            hub.apply(kind, name, namespace, **rest)
            pytest.fail(f"the hub could make the {kind} {name} in {namespace}")


def _role(kind: str, name: str) -> dict:
    return {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name}


def _hub(hub, namespace: str | None = None) -> dict:
    return {"kind": "ServiceAccount", "name": "hub", "namespace": namespace or hub.kube.name}


@pytest.fixture(scope="module")
def server(hub, image, node):
    """A pod as KubeSpawner makes it, in which the server doesn't run, but what a student does."""
    account = hub.prepare("Zoë").namespace
    container = {
        "name": "notebook", "image": image, "imagePullPolicy": "Never", "args": ["sleep", "infinity"],
        "env": [{"name": "SERVICELAB_HEADLESS", "value": "1"}, {"name": "SERVICELAB_STATE", "value": "/home/learner/state"}],
        "securityContext": {"runAsUser": 1000, "allowPrivilegeEscalation": False},
        "volumeMounts": [{"name": "home", "mountPath": "/home/learner"}],
    }  # fmt: skip
    spec = {
        "serviceAccountName": account, "nodeName": node, "terminationGracePeriodSeconds": 1, "containers": [container],
        "securityContext": {"fsGroup": 1000}, "volumes": [{"name": "home", "emptyDir": {}}], "enableServiceLinks": False,
    }  # fmt: skip
    hub.kube.create({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "jupyter-zoe"}, "spec": spec})
    hub.kube.wait("condition=Ready", "pod/jupyter-zoe")
    return lambda *command, check=True: hub.kube.kubectl("exec", "jupyter-zoe", "--", *command, check=check, timeout=900)


def test_connect_finds_the_namespace_by_the_account(server):
    said = server("python", "-c", "from servicelab import connect\nlab = connect()\nprint(lab.namespace, len(lab.pods()))").stdout
    assert f"{current().prefix}zoe 0" in said
    assert "servicelab-worker" in said or "worker" in said, "students may see the nodes"
    pinned = re.search(r"jupyterhub==(\S+)", (DEPLOY / "Dockerfile").read_text(encoding="utf-8"))[1]
    assert server("sh", "-c", "command -v jupyterhub-singleuser && jupyterhub --version").stdout.split()[-1] == pinned
    assert server("ls", "/home/learner/notebooks").stdout.split()[0] == "00-start-here.ipynb"
    assert "my-nginx" in server("cat", "/home/learner/manifests/run-my-nginx.yaml").stdout


def test_another_student_is_out_of_reach(server):
    code = "import os; from servicelab import connect; connect(show=False); os.execvp('kubectl', ['kubectl', *__import__('sys').argv[1:]])"
    for words in (["get", "pods", "-n", f"{current().prefix}ada"], ["get", "secrets", "-A"], ["get", "pods", "-n", "default"]):
        done = server("python", "-c", code, *words, check=False)
        assert done.returncode and "forbidden" in done.stderr, done.stdout


def test_a_whole_lesson_runs_in_the_pod(server, hub):
    done = server("servicelab", "smoke", "--only", "03", check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "holds" in done.stdout
    assert server("servicelab", "reset").returncode == 0
    student = Kube(hub.cluster, f"{current().prefix}zoe")
    student.wait(lambda: not student.list("pods"))
    assert [service["metadata"]["name"] for service in student.list("services")] == []
