"""A cluster of the user's own, named as a context: the test cluster itself is one, seen through its kubeconfig alone."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

LIB = Path(__file__).resolve().parents[2] / "lib"

PRELUDE = """
from servicelab import connect
def show(what):
    try:
        print(what())
    except Exception as error:
        print(type(error).__name__, error)
def answer(lab):
    # nobody here can see that each CoreDNS has heard of the Service, and each kube-proxy has made its rules: ask until it answers
    ask = "curl -s -o /dev/null -w '%{http_code}' http://my-nginx"
    return lab.wait_for(lambda: (said := lab.run_in_pod("deployment/my-nginx", ask)) == "200" and said)
"""


@pytest.fixture
def program(tmp_path):
    """Runs Python whose user has this kubeconfig; as in a notebook's kernel, connect() changes that program's environment."""

    def run(code: str, config: dict, context: str, **environment: str) -> str:
        file = tmp_path / "users-own"
        file.write_text(yaml.safe_dump(config))
        before = file.read_bytes()
        env = {k: v for k, v in os.environ.items() if k not in ("SERVICELAB_USER_KUBECONFIG", "SERVICELAB_NAME")} | {
            "PYTHONPATH": str(LIB), "KUBECONFIG": str(file), "SERVICELAB_CLUSTER": f"context:{context}", "SERVICELAB_HEADLESS": "1",
            "SERVICELAB_STATE": str(tmp_path / "state"), "SERVICELAB_NODE_IMAGE": "nginx:1.29-alpine", **environment,
        }  # fmt: skip
        done = subprocess.run([sys.executable, "-c", PRELUDE + code], env=env, capture_output=True, text=True, timeout=400, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert file.read_bytes() == before, "the user's own kubeconfig was changed"
        return done.stdout

    return run


def _config(kube, user: dict | None = None, namespace: str | None = None, name: str = "theirs") -> dict:
    config = yaml.safe_load(Path(kube.kubeconfig).read_text())
    cluster, own = config["clusters"][0]["cluster"], config["users"][0]["user"]
    context = {"cluster": "c", "user": "u", **({"namespace": namespace} if namespace else {})}
    return {
        "apiVersion": "v1", "kind": "Config", "current-context": "another", "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": user or own}],
        "contexts": [{"name": name, "context": context}, {"name": "another", "context": {**context, "namespace": "kube-system"}}],
    }  # fmt: skip


def test_the_lessons_keep_to_the_contexts_namespace(kube, program):
    out = program(
        """
lab = connect()
lab.kubectl("create", "deployment", "my-nginx", "--image=nginx:1.29-alpine", "--port=80")
lab.wait_for("deployment/my-nginx")
lab.kubectl("expose", "deployment", "my-nginx")
lab.wait_for("service/my-nginx")
show(lambda: answer(lab))
show(lambda: [n.role for n in lab.nodes])
lab.reset()
""",
        _config(kube, namespace=kube.name),
        "theirs",
    )
    assert "your own cluster, context theirs" in out
    assert f"namespace   {kube.name}" in out
    assert "\n200\n['control-plane', 'worker', 'worker']\n" in out
    assert kube.kubectl("get", "deployments,services", "-o", "name").stdout == ""


@pytest.mark.kind
def test_node_steps_through_a_privileged_pod_that_goes_again(kube, program):
    code = """
lab = connect()
show(lambda: lab.nodes_allowed)
node = lab.workers[0]
print(node.run("hostname") == node.name, node.ip in node.run("ip -4 -o addr show eth0"))
"""
    out = program(code, _config(kube, namespace=kube.name), "theirs")
    assert "True\nTrue True\n" in out
    kube.wait(lambda: "servicelab-node" not in kube.kubectl("get", "pods", "-o", "name").stdout)


@pytest.mark.kind
def test_a_student_with_few_rights(kube, program):
    kube.kubectl("label", "namespace", kube.name, "pod-security.kubernetes.io/enforce=baseline")
    kube.kubectl("create", "serviceaccount", "student")
    resources = "pods,pods/exec,pods/log,services,configmaps,events,deployments.apps,replicasets.apps,endpointslices.discovery.k8s.io"
    kube.kubectl("create", "role", "student", "--verb=*", f"--resource={resources}")
    kube.kubectl("create", "rolebinding", "student", "--role=student", f"--serviceaccount={kube.name}:student")
    token = kube.kubectl("create", "token", "student").stdout.strip()
    out = program(
        """
lab = connect()
lab.kubectl("create", "deployment", "my-nginx", "--image=nginx:1.29-alpine", "--port=80")
lab.kubectl("expose", "deployment", "my-nginx")
lab.wait_for("service/my-nginx")
show(lambda: answer(lab))
show(lambda: (lab.nodes_allowed, lab.nodes_why))
show(lambda: lab.get("pods", "x", "default"))
show(lambda: connect(namespace="kube-system"))
lab = connect(show=False)
lab.reset()
""",
        _config(kube, user={"token": token}, namespace=kube.name, name="student"),
        "student",
    )
    assert "nodes       not shown to you here" in out
    assert "\n200\n" in out
    assert '(False, "this cluster does not let you run commands on its nodes' in out.replace("'", '"')
    assert "violates PodSecurity" in out
    assert 'NotAllowed pods "x" is forbidden' in out
    assert "NotAllowed You may not work in the namespace 'kube-system'" in out
    assert kube.kubectl("get", "deployments,services", "-o", "name").stdout == ""


def test_never_by_default(kube, program):
    """Without a cluster named, the user's current context is not even looked at."""
    code = "import servicelab.clusters as c; show(lambda: c.choose(name='nobody').kind)"
    out = program(code, _config(kube), "theirs", SERVICELAB_CLUSTER="")
    assert out.strip() in ("kind", "pocket") or out.startswith("ClusterError No cluster can be started")


@pytest.mark.kind
def test_inside_a_pod_connect_finds_the_cluster_and_its_namespace(kube, program, tmp_path):
    """As a JupyterHub user meets it: a ServiceAccount's files, and the API server's address in the environment."""
    kube.kubectl("create", "serviceaccount", "inside")
    kube.kubectl("create", "rolebinding", "inside", "--clusterrole=edit", f"--serviceaccount={kube.name}:inside")
    config = _config(kube)
    account = tmp_path / "serviceaccount"
    account.mkdir()
    (account / "token").write_text(kube.kubectl("create", "token", "inside").stdout.strip())
    (account / "ca.crt").write_bytes(base64.b64decode(config["clusters"][0]["cluster"]["certificate-authority-data"]))
    (account / "namespace").write_text(kube.name)
    host, port = config["clusters"][0]["cluster"]["server"].removeprefix("https://").rsplit(":", 1)
    code = f"""
import pathlib, subprocess
import servicelab.client, servicelab.clusters.context
servicelab.client.SERVICE_ACCOUNT = servicelab.clusters.context.SERVICE_ACCOUNT = pathlib.Path({str(account)!r})
lab = connect()
lab.kubectl("run", "hello", "--image=nginx:1.29-alpine")
lab.wait_for("pod/hello")
print(subprocess.run("kubectl get pods -o name", shell=True, capture_output=True, text=True).stdout)
"""
    out = program(code, config, "theirs", SERVICELAB_CLUSTER="", KUBERNETES_SERVICE_HOST=host, KUBERNETES_SERVICE_PORT=port)
    assert f"namespace   {kube.name}" in out
    assert "✓ pod/hello is ready\npod/hello\n" in out
