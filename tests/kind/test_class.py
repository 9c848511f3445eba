"""A class on a real cluster: made, made again, interrupted, refused; what its students may do, and what they may not."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from harness import eventually
from servicelab import connecting, kubectl
from servicelab.classroom import Classroom, access, node_steps, roster
from servicelab.classroom.board import Board
from servicelab.classroom.create import create, renew
from servicelab.classroom.delete import delete
from servicelab.classroom.group import current
from servicelab.classroom.names import Student, listed
from servicelab.classroom.node_client import NodeSteps
from servicelab.classroom.reset import reset
from servicelab.client import ApiError, Client
from servicelab.clusters.context import ContextCluster
from servicelab.errors import ClusterError, CommandFailed, LabError, NotAllowed, NotFound, WaitTimeout
from servicelab.lab import Lab

pytestmark = pytest.mark.kind

ADA, BOB = Student("ada", "Ada"), Student("bob", "Bob")
NGINX = "nginx:1.29-alpine"


@dataclass
class Someone:
    """A user of the cluster, by their kubeconfig, in the place of a teacher."""

    file: Path
    kind: str = "context"
    name: str = "someone"

    def kubeconfig(self) -> Path:
        return self.file


class Class:
    """The class of this module: of a random name, so that none that is on the cluster already is touched."""

    def __init__(self, cluster, folder: Path) -> None:
        self.teacher = Someone(cluster.kubeconfig)
        self.client = Client(cluster.kubeconfig)
        self.folder = folder
        self.group = current()

    def create(self, students, **options):
        return create(self.teacher, students, out=self.folder, **options)

    def file(self, student: Student) -> Path:
        return access.file_of(self.folder, student)

    def as_(self, student: Student) -> Client:
        return Client(self.file(student))

    def lab(self, student: Student) -> Lab:
        cluster = ContextCluster(student.namespace)
        cluster._file = self.file(student)
        cluster.namespace = student.namespace
        return Lab(cluster, self.file(student), student.namespace)


def names_of(objects) -> list[str]:
    return [each["metadata"]["name"] for each in objects]


@pytest.fixture(scope="module")
def school(cluster, tmp_path_factory):
    before = os.environ.get("SERVICELAB_CLASS")
    os.environ["SERVICELAB_CLASS"] = f"t{secrets.token_hex(4)}"
    folder = tmp_path_factory.mktemp("class")
    made = Class(cluster, folder)
    state = os.environ.get("SERVICELAB_STATE")
    os.environ["SERVICELAB_STATE"] = str(tmp_path_factory.mktemp("state"))
    try:
        outcome = made.create([ADA, BOB], with_node_steps=True)
        assert not outcome.failed and set(outcome.files) == {ADA, BOB}
        for student in (ADA, BOB):  # pods are refused until their namespace's ServiceAccount is there
            eventually(lambda where=student.namespace: "default" in names_of(made.client.list("serviceaccounts", where)))
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "mine"}, "spec": {"containers": [{"name": "web", "image": NGINX}]}}
        pod["spec"]["terminationGracePeriodSeconds"] = 1
        made.as_(BOB).request("POST", f"/api/v1/namespaces/{BOB.namespace}/pods", pod)
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "diary"}, "stringData": {"page": "1"}}
        made.as_(BOB).request("POST", f"/api/v1/namespaces/{BOB.namespace}/secrets", secret)
        made.lab(BOB).wait_for("pod/mine")
        yield made
    finally:
        delete(made.teacher, out=folder)
        assert not roster.namespaces(made.client)
        for name, value in (("SERVICELAB_CLASS", before), ("SERVICELAB_STATE", state)):
            os.environ.pop(name) if value is None else os.environ.update({name: value})


# -- made, again, halfway ------------------------------------------------------------------------------------------------


def test_running_it_again_adds_and_keeps(school):
    before = school.file(ADA).read_bytes()
    outcome = school.create([ADA, Student("cy", "Cy")])
    assert outcome.kept == {ADA} and school.file(ADA).read_bytes() == before
    assert [one.key for one in roster.students(school.client)] == ["ada", "bob", "cy"]
    assert node_steps.present(school.client)[0], "node steps stay as they were"


def test_interrupted_and_run_again(school):
    names = listed([f"late {n}" for n in range(4)])

    def interrupted(student):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        school.create(names, done=interrupted)
    outcome = school.create(names)
    assert not outcome.failed and set(outcome.files) == set(names)
    for student in names:
        assert school.as_(student).list("pods", student.namespace) == []


def test_a_namespace_that_is_not_the_classs(school):
    alien = Student(f"alien-{secrets.token_hex(3)}", "Alien")
    school.client.request("POST", "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": alien.namespace}})
    try:
        before = school.client.get("namespaces", alien.namespace)
        with pytest.raises(LabError, match=rf"Nothing was made: this namespace is in the cluster already.*{alien.namespace}"):
            school.create([alien, Student("never", "Never")])
        assert school.client.get("namespaces", alien.namespace)["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]
        with pytest.raises(NotFound):
            school.client.get("namespaces", Student("never", "").namespace)
        assert alien not in roster.students(school.client)
    finally:
        school.client.request("DELETE", f"/api/v1/namespaces/{alien.namespace}")


def test_a_teacher_who_may_not(school):
    with pytest.raises(NotAllowed, match=r"You may not make a class.*create namespaces.*cluster-admin"):
        create(Someone(school.file(ADA)), [Student("x", "X")], out=school.folder)


def test_a_small_class_is_deleted_and_only_that(cluster, tmp_path, monkeypatch, school):
    monkeypatch.setenv("SERVICELAB_CLASS", f"d{secrets.token_hex(4)}")
    create(school.teacher, [ADA], out=tmp_path)
    (tmp_path / "other.kubeconfig").write_text("someone's own")
    gone = delete(school.teacher, out=tmp_path)
    assert set(gone) == {ADA.namespace, current().space}
    assert school.as_(BOB).get("pods", "mine", f"{school.group.prefix}bob"), "the other class's things stay"
    assert (tmp_path / "other.kubeconfig").exists()
    assert not access.file_of(tmp_path, ADA).exists()
    assert delete(school.teacher, out=tmp_path) == []


# -- tokens ----------------------------------------------------------------------------------------------------------------


def connect_with(file: Path, monkeypatch, tmp_path):
    for name, value in (("KUBECONFIG", str(file)), ("SERVICELAB_USER_KUBECONFIG", str(file)), ("SERVICELAB_STATE", str(tmp_path))):
        monkeypatch.setenv(name, value)
    context = yaml.safe_load(file.read_text())["current-context"]
    return connecting.connect(f"context:{context}", show=False)


def test_connect_takes_the_students_namespace(school, monkeypatch, tmp_path):
    lab = connect_with(school.file(ADA), monkeypatch, tmp_path)
    assert lab.namespace == ADA.namespace and not lab.nodes_allowed and "students may not" in lab.nodes_why
    assert len(lab.nodes) >= 1
    connecting._close_all()


def test_a_renewed_kubeconfig_ends_the_earlier_one(school, monkeypatch, tmp_path):
    eve = Student("eve", "Eve")
    school.create([eve])
    old = tmp_path / "old.kubeconfig"
    old.write_bytes(school.file(eve).read_bytes())
    renew(school.teacher, eve, out=school.folder)

    def refused():
        with pytest.raises(ApiError) as caught:
            Client(old).list("pods", eve.namespace)
        return caught.value.code == 401

    def looked():  # the API server remembers a token's verdict for some seconds
        try:
            return refused()
        except pytest.fail.Exception as error:
            raise AssertionError("still accepted") from error

    eventually(looked)
    with pytest.raises(ClusterError, match=r"no longer accepts your kubeconfig: .*renewed or deleted.*servicelab class renew eve"):
        connect_with(old, monkeypatch, tmp_path)
    assert school.as_(eve).list("pods", eve.namespace) == []


def test_an_expired_token_is_told_apart(school, monkeypatch, tmp_path):
    file = tmp_path / "expired.kubeconfig"
    config = yaml.safe_load(school.file(ADA).read_text())
    head, _, signature = config["users"][0]["user"]["token"].split(".")
    said = access.claims(config["users"][0]["user"]["token"]) | {"exp": int(time.time()) - 60}
    import base64

    body = base64.urlsafe_b64encode(json.dumps(said).encode()).rstrip(b"=").decode()
    config["users"][0]["user"]["token"] = f"{head}.{body}.{signature}"
    file.write_text(yaml.safe_dump(config))
    with pytest.raises(ClusterError, match="its token expired on"):
        connect_with(file, monkeypatch, tmp_path)
    status = ContextCluster(yaml.safe_load(file.read_text())["current-context"]).status()
    assert status.state == "broken" and "its token expired on" in status.detail, "`./lab` says so, too"


# -- a student's own things ------------------------------------------------------------------------------------------------


def test_a_quota_reached_in_a_lesson_is_told(school):
    lab = school.lab(ADA)
    path = f"/api/v1/namespaces/{ADA.namespace}/resourcequotas/servicelab-class"
    hard = lambda pods: school.client.request(
        "PATCH", path, {"spec": {"hard": {"pods": pods}}}, content_type="application/merge-patch+json"
    )
    hard("1")
    try:
        eventually(lambda: lab.get("resourcequotas", "servicelab-class")["status"].get("hard", {}).get("pods") == "1")
        lab.kubectl("create", "deployment", "many", f"--image={NGINX}", "--replicas=3")
        eventually(lambda: "ReplicaFailure" in [each["type"] for each in lab.get("deployments", "many")["status"].get("conditions", [])])
        with pytest.raises(WaitTimeout, match=r"exceeded quota"):
            lab.wait_for("deployment/many", timeout=1)
        lab.kubectl("delete", "deployment", "many")
        lab.kubectl("create", "configmap", "fine")
    finally:
        hard("24")
        lab.kubectl("delete", "deployment", "many", "--ignore-not-found")


def test_the_board_follows_and_resets(school):
    lab = school.lab(ADA)
    lab.apply("nginx-svc.yaml")
    board = Board(school.client).read()
    board.follow()
    try:
        lab.progress.record("check", "01.servers_run", False, "none", "apply it", 2)
        state = lambda: next(row for row in board.rows() if row.student == ADA)
        eventually(lambda: state().stuck is not None and state().hint == "hint 2: apply it")
        lab.progress.record("check", "01.servers_run", True, "2 pods")
        eventually(lambda: state().stuck is None and state().passed == 1)
    finally:
        board.stop()
    reset(school.teacher, ADA)
    with pytest.raises(NotFound):
        lab.get("services", "my-nginx")
    assert lab.progress.entries()["check.01.servers_run"].passed, "the record stays"


def test_the_widget_shows_the_class(school, monkeypatch):
    monkeypatch.setenv("SERVICELAB_HEADLESS", "1")
    classroom = Classroom(school.teacher)
    board = classroom.board(hide_names=True)
    try:
        assert {"ada", "bob"} <= {row["key"] for row in board.rows}
        assert "Bob" not in board.text() and "Student 1" in board.text()
        school.lab(BOB).apply("nginx-svc.yaml")
        board._message(board, {"do": "reset", "student": "bob"}, [])
        eventually(lambda: "is reset" in board.notice and not board.resetting)
        assert "Bob" not in board.notice
        board._message(board, {"do": "reset", "student": "../default"}, [])
        assert not board.resetting
    finally:
        board.close()
    school.lab(BOB).get("pods", "mine")  # not made by a lesson: stays


# -- another's things: refused everywhere ------------------------------------------------------------------------------------

B = "{bob}"
POD = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": {"containers": [{"name": "c", "image": NGINX}]}}
ADMIN = {
    "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "x"},
    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
    "subjects": [{"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": "system:authenticated"}],
}  # fmt: skip
TOKEN = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
RBAC = "/apis/rbac.authorization.k8s.io/v1"
FORBIDDEN = [
    *[
        ("GET", f"/api/v1{where}/{kind}", None)
        for where in ("/namespaces/{bob}", "", "/namespaces/kube-system", "/namespaces/default", "/namespaces/{class}")
        for kind in ("secrets", "configmaps", "events", *(() if "kube-system" in where else ("pods", "services")))
    ],
    *[("GET", f"/api/v1/namespaces/{{bob}}/{kind}?watch=1", None) for kind in ("pods", "secrets", "services", "configmaps")],
    ("GET", "/apis/apps/v1/namespaces/{bob}/deployments", None),
    ("GET", "/apis/discovery.k8s.io/v1/namespaces/{bob}/endpointslices", None),
    ("GET", "/api/v1/namespaces/{bob}/pods/mine", None),
    ("GET", "/api/v1/namespaces/{bob}/pods/mine/log", None),
    ("GET", "/api/v1/namespaces/{bob}/secrets/diary", None),
    ("GET", "/api/v1/namespaces/{bob}/pods/mine/proxy/", None),
    ("GET", "/api/v1/namespaces/{bob}/pods/mine:80/proxy/", None),
    ("GET", "/api/v1/namespaces/{bob}/services/my-nginx/proxy/", None),
    ("GET", "/api/v1/namespaces/{bob}", None),
    ("GET", "/api/v1/namespaces", None),
    ("POST", "/api/v1/namespaces/{bob}/pods", POD),
    ("POST", "/api/v1/namespaces/{bob}/services", {}),
    ("POST", "/api/v1/namespaces/default/pods", POD),
    ("POST", "/api/v1/namespaces/{class}/pods", POD),
    ("POST", "/api/v1/namespaces/{bob}/pods/mine/exec?command=id&stdout=1", None),
    ("POST", "/api/v1/namespaces/{bob}/pods/mine/attach?stdout=1", None),
    ("POST", "/api/v1/namespaces/{bob}/pods/mine/portforward", None),
    ("POST", "/api/v1/namespaces/{bob}/pods/mine/eviction", {}),
    ("PATCH", "/api/v1/namespaces/{bob}/pods/mine", {"metadata": {"labels": {"x": "y"}}}),
    ("PATCH", "/api/v1/namespaces/{bob}/configmaps/servicelab-progress", {"data": {"check.01.a": "{}"}}),
    ("DELETE", "/api/v1/namespaces/{bob}/pods/mine", None),
    ("DELETE", "/api/v1/namespaces/{bob}/pods", None),
    ("DELETE", "/api/v1/namespaces/{bob}", None),
    ("DELETE", "/api/v1/namespaces/{ada}", None),
    # becoming more than a student
    ("POST", "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x"}}),
    ("POST", "/api/v1/namespaces/{bob}/serviceaccounts/student/token", TOKEN),
    ("POST", "/api/v1/namespaces/{ada}/serviceaccounts/student/token", TOKEN),
    ("POST", "/api/v1/namespaces/kube-system/serviceaccounts/default/token", TOKEN),
    ("POST", f"{RBAC}/namespaces/{{ada}}/rolebindings", ADMIN),
    ("POST", f"{RBAC}/clusterrolebindings", ADMIN | {"kind": "ClusterRoleBinding"}),
    ("PATCH", f"{RBAC}/namespaces/{{ada}}/roles/servicelab-student", {"rules": []}),
    ("PATCH", "/api/v1/namespaces/{ada}", {"metadata": {"labels": {"servicelab.io/for": "me"}}}),
    ("PATCH", "/api/v1/namespaces/{ada}/resourcequotas/servicelab-class", {"spec": {"hard": {"pods": "999"}}}),
    ("DELETE", "/api/v1/namespaces/{ada}/resourcequotas/servicelab-class", None),
    ("DELETE", "/api/v1/namespaces/{ada}/limitranges/servicelab-class", None),
    ("GET", "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies", None),
    ("DELETE", "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies/{class}-pods", None),
    ("POST", "/apis/certificates.k8s.io/v1/certificatesigningrequests", {}),
    # others' traffic, others' nodes
    ("POST", "/apis/discovery.k8s.io/v1/namespaces/{ada}/endpointslices", {}),
    ("POST", "/api/v1/namespaces/{ada}/endpoints", {}),
    ("PATCH", "/api/v1/namespaces/{ada}/services/x/status", {}),
    ("PATCH", "/api/v1/namespaces/{ada}/pods/x/ephemeralcontainers", {}),
    ("PATCH", "/api/v1/nodes/{node}", {"spec": {"unschedulable": True}}),
    ("GET", "/api/v1/nodes/{node}/proxy/pods", None),
    ("POST", "/api/v1/nodes/{node}/proxy/run/{bob}/mine/web?cmd=id", None),
    ("GET", "/apis/metrics.k8s.io/v1beta1/pods", None),
    ("GET", "/logs/", None),
    ("GET", "/metrics", None),
    # the pods for node steps
    ("GET", "/api/v1/namespaces/{class}/pods/{steps}", None),
    ("DELETE", "/api/v1/namespaces/{class}/pods/{steps}", None),
    ("POST", "/api/v1/namespaces/{class}/pods/{steps}/exec?command=id&stdout=1", None),
    ("GET", "/api/v1/namespaces/{class}/pods/{steps}/exec?command=id&stdout=1", None),
    ("POST", "/api/v1/namespaces/{class}/pods/{steps}/portforward", None),
    ("POST", "/api/v1/namespaces/{class}/pods/{steps}:{port}/proxy/fetch", {}),
    ("GET", "/api/v1/namespaces/{class}/pods/{steps}:10250/proxy/pods", None),
    ("GET", "/api/v1/namespaces/{class}/pods/{steps}:22/proxy/", None),
    ("GET", "/api/v1/namespaces/{class}/pods/{steps}/proxy/", None),
    ("GET", "/api/v1/namespaces/{class}/pods/https:{steps}:10250/proxy/pods", None),
    ("GET", "/api/v1/namespaces/{class}/configmaps/node-steps", None),
]


def filled(school, path: str) -> str:
    steps, port = node_steps.present(school.client)
    node = steps[0].removeprefix("node-steps-")
    values = {"ada": ADA.namespace, "bob": BOB.namespace, "class": current().space, "node": node, "steps": steps[0], "port": port}
    for name, value in values.items():
        path = path.replace(f"{{{name}}}", str(value))
    return path


@pytest.mark.parametrize(("method", "path", "body"), FORBIDDEN, ids=[f"{m} {p}" for m, p, _ in FORBIDDEN])
def test_refused_to_a_student(school, method, path, body):
    content = "application/merge-patch+json" if method == "PATCH" else "application/json"
    with pytest.raises(NotAllowed):
        school.as_(ADA).request(method, filled(school, path), body, content_type=content)


def test_what_is_refused_is_there(school):
    """Else the refusals above would prove nothing."""
    for path in ("/api/v1/namespaces/{bob}/pods/mine", "/api/v1/namespaces/{bob}/secrets/diary", "/api/v1/namespaces/{class}/pods/{steps}"):
        school.client.request("GET", filled(school, path))
    assert school.as_(BOB).get("pods", "mine", BOB.namespace)


@pytest.mark.parametrize(
    "words",
    [
        ("exec", "mine", "--", "id"),
        ("logs", "mine"),
        ("port-forward", "pod/mine", ":80"),
        ("attach", "mine"),
        ("get", "pods", "--watch"),
        ("cp", "mine:/etc/hostname", "/dev/null"),
        ("get", "secrets", "--as=system:admin"),
        ("get", "pods", "--as=x", "--as-group=system:masters"),
    ],
)
def test_kubectl_as_a_student_in_anothers_namespace(school, words):
    done = kubectl.run(*words, kubeconfig=school.file(ADA), namespace=BOB.namespace, timeout=30)
    assert done.returncode != 0 and "orbidden" in done.stderr


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"hostNetwork": True}, "node's network"),
        ({"hostPID": True}, "node's network, processes"),
        ({"containers": [{"name": "c", "image": NGINX, "securityContext": {"privileged": True}}]}, "privileged"),
        ({"containers": [{"name": "c", "image": NGINX, "securityContext": {"capabilities": {"add": ["NET_ADMIN"]}}}]}, "capabilities"),
        ({"initContainers": [{"name": "i", "image": NGINX, "securityContext": {"privileged": True}}]}, "privileged"),
        ({"containers": [{"name": "c", "image": NGINX, "ports": [{"containerPort": 80, "hostPort": 10250}]}]}, "no port of its node but"),
        ({"containers": [{"name": "c", "image": NGINX, "securityContext": {"procMount": "Unmasked"}}], "hostUsers": False}, "loosen"),
        ({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}, "volumes of these kinds only"),
        ({"tolerations": [{"operator": "Exists"}]}, "tolerate taints"),
        ({"nodeName": "{node}"}, "where the scheduler puts it"),
        ({"securityContext": {"seccompProfile": {"type": "Unconfined"}}}, "loosen"),
        ({"priorityClassName": "system-node-critical"}, "priority"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_pods_that_would_reach_beyond_their_namespace(school, change, why):
    pod = json.loads(filled(school, json.dumps(POD | {"spec": POD["spec"] | change})))
    with pytest.raises((NotAllowed, ApiError), match=why):
        school.as_(ADA).request("POST", f"/api/v1/namespaces/{ADA.namespace}/pods", pod, params={"dryRun": "All"})


def test_the_lessons_own_host_port_is_let_through(school):
    spec = {"containers": [{"name": "c", "image": NGINX, "ports": [{"containerPort": 80, "hostPort": 8081}]}]}
    school.as_(ADA).request("POST", f"/api/v1/namespaces/{ADA.namespace}/pods", POD | {"spec": spec}, params={"dryRun": "All"})


@pytest.mark.parametrize(
    ("kind", "body", "why"),
    [
        ("services", {"kind": "Service", "spec": {"ports": [{"port": 80}], "externalIPs": ["192.0.2.4"]}}, "externalIPs"),
        ("secrets", {"kind": "Secret", "type": "kubernetes.io/service-account-token"}, "never expire"),
    ],
)
def test_services_and_secrets_that_reach_beyond(school, kind, body, why):
    body = {"apiVersion": "v1", "metadata": {"name": "x", "annotations": {"kubernetes.io/service-account.name": "student"}}, **body}
    with pytest.raises((NotAllowed, ApiError), match=why):
        school.as_(ADA).request("POST", f"/api/v1/namespaces/{ADA.namespace}/{kind}", body, params={"dryRun": "All"})


# -- node steps --------------------------------------------------------------------------------------------------------------


def test_node_steps_show_what_a_node_shows(school, cluster):
    steps = NodeSteps(school.as_(ADA), ADA.namespace)
    pods = [name.removeprefix("node-steps-") for name in node_steps.present(school.client)[0]]
    assert set(pods) == set(cluster.nodes)
    pod = school.client.get("pods", "mine", BOB.namespace)["status"]["podIP"]
    for node in pods:
        ask = lambda command, node=node: steps.run(node, ["sh", "-c", command])
        own = school.client.get("nodes", node)["status"]["addresses"][0]["address"]
        assert f" {own}/" in ask("ip -o addr").stdout
        assert ask(f"curl -s -o /dev/null --max-time 3 -w '%{{http_code}}' http://{pod}").stdout == "200"
        assert "<h1>" in ask(f"curl -s http://{pod} | grep '<h1>'").stdout
        assert ask("curl -s --max-time 3 http://localhost:80 || echo 'nobody listens'").stdout == "nobody listens\n"
    lab = school.lab(ADA)
    lab.apply("nginx-svc.yaml")
    ip = lab.service("my-nginx").ip
    try:
        seen = lambda: steps.run(pods[0], ["sh", "-c", "nft list table ip kube-proxy"]).stdout
        eventually(lambda: ip in seen())
    finally:
        lab.kubectl("delete", "service", "my-nginx")


@pytest.mark.parametrize(
    "command",
    [
        "id",
        "nft -f - <<'END'\nflush ruleset\nEND",
        "nft flush ruleset",
        "nft list table ip kube-proxy; id",
        "ip addr add 192.0.2.1/32 dev lo",
        "curl -s http://169.254.169.254/",
        "curl -s http://10.96.0.1:443",
        "curl -s http://172.18.0.2:10250",
        "curl -s --max-time 3 http://localhost:10248",
        "curl -s -X POST http://10.244.1.2",
        "curl -s http://10.244.1.2/delete",
        "curl -s file:///etc/shadow",
    ],
)
def test_node_steps_do_nothing_else(school, command):
    steps = NodeSteps(school.as_(ADA), ADA.namespace)
    node = node_steps.present(school.client)[0][0].removeprefix("node-steps-")
    assert steps.run(node, ["sh", "-c", command]) is None


@pytest.mark.parametrize(
    "path",
    [
        "fetch?ip=169.254.169.254&port=80",
        "fetch?ip=127.0.0.1&port=10248",
        "fetch?ip=10.96.0.1&port=443",
        "fetch?ip=172.18.0.2&port=10250",
        "fetch?ip=10.244.1.2@172.18.0.2&port=80",
        "fetch?ip=10.244.1.2&port=80/secret",
        "fetch?ip=0x7f000001&port=80",
        "fetch?port=80",
        "../etc/passwd",
        "nft/../../etc/passwd",
        "%2e%2e/%2e%2e/etc/passwd",
        "nothing",
        "",
    ],
)
def test_the_pods_for_node_steps_give_nothing_else(school, path):
    try:
        answer = school.as_(ADA).raw(filled(school, f"/api/v1/namespaces/{{class}}/pods/{{steps}}:{{port}}/proxy/{path}"))
    except NotAllowed:
        return  # refused by the API server, before it came to the pod
    assert answer.status_code in (400, 403, 404), answer.text[:200]
    assert "root:" not in answer.text


def test_without_node_steps_the_cell_says_why(school):
    lab = school.lab(ADA)
    said = lab.workers[0].run("conntrack -L")
    assert said.startswith("(not run on ") and "students may not run commands" in said
    node_steps.remove(school.client)
    lab = school.lab(ADA)
    said = lab.workers[0].run("curl -s -o /dev/null --max-time 3 -w '%{http_code}' http://10.244.1.2")
    assert "students may not" in said and "on a node of a cluster of your own: 200" in said


def test_a_command_in_a_cell_fails_in_kubectls_words(school):
    lab = school.lab(ADA)
    with pytest.raises(CommandFailed, match=r"(?i)forbidden"):
        lab.kubectl("get", "pods", namespace=BOB.namespace)
    environment = {**os.environ, "KUBECONFIG": str(school.file(ADA))}
    assert subprocess.run([kubectl.find(), "version"], capture_output=True, check=False, env=environment).returncode == 0
