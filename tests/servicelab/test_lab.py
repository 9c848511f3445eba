"""The Lab against a live cluster."""

from __future__ import annotations

import pytest

from servicelab.errors import CommandFailed, LabError, NotFound


@pytest.fixture(scope="module")
def web(kube, lab):
    kube.kubectl("create", "deployment", "web", "--image=nginx:1.29-alpine", "--replicas=2", "--port=80")
    kube.kubectl("expose", "deployment", "web", "--name=mine", "--type=NodePort")
    lab.wait_for("deployment/web")
    lab.wait_for("service/mine")  # after it, so that no pod comes late: both are in the EndpointSlice and in the rules
    return lab


def test_tables_have_kubectls_columns(web):
    pods = web.pods("app=web")
    assert list(pods.columns) == ["name", "ready", "status", "restarts", "age", "ip", "node"]
    assert list(pods["ready"]) == ["1/1", "1/1"]
    assert list(pods["name"]) == sorted(pods["name"])
    services = web.services()
    assert list(services.columns) == ["name", "type", "cluster-ip", "external-ip", "port(s)", "age", "selector"]
    assert services.loc[0, "type"] == "NodePort"
    endpoints = web.endpoints("mine")
    assert sorted(endpoints["address"]) == sorted(pods["ip"])
    assert endpoints["ready"].all()
    assert not endpoints["terminating"].any()
    assert web.pods("app=nobody").empty
    with pytest.raises(NotFound, match='services "nobody" not found'):
        web.endpoints("nobody")


def test_pods_by_name_label_and_deployment(web, kube):
    by_label = web.pod("app=web")
    assert web.pod(by_label.name) == by_label
    assert web.pod("deployment/web").labels["app"] == "web"
    assert by_label.run("hostname") == by_label.name
    kube.wait(lambda: "start worker process" in by_label.logs())
    with pytest.raises(NotFound, match="has the labels app=nobody"):
        web.pod("app=nobody")


def test_run_in_pod(web):
    name = web.pod("app=web").name
    assert web.run_in_pod(name, "echo out; echo err >&2; exit 3") == "out\nerr"
    assert web.run_in_pod(name, ["echo", "a b", "$HOME"]) == "a b $HOME"
    with pytest.raises(CommandFailed, match="exit code 3") as caught:
        web.run_in_pod(name, "exit 3", check=True)
    assert caught.value.returncode == 3
    with pytest.raises(NotFound, match="There is no pod 'nobody'"):
        web.run_in_pod("nobody", "true")
    with pytest.raises(CommandFailed, match="container nope is not valid for pod"):
        web.run_in_pod(name, "true", container="nope")
    with pytest.raises(CommandFailed, match=r"did not end within 1 s"):
        web.run_in_pod(name, "sleep 20", timeout=1)


def test_exec_into_a_pod_that_has_ended(web, kube):
    kube.kubectl("run", "ended", "--image=nginx:1.29-alpine", "--restart=Never", "--command", "--", "true")
    kube.wait("jsonpath={.status.phase}=Succeeded", "pod/ended")
    with pytest.raises(CommandFailed, match=r"(?i)cannot exec.*completed pod"):
        web.run_in_pod("ended", "true")


def test_nodes(web):
    nodes = list(web.nodes)
    assert nodes[0].role == "control-plane"
    assert [n.role for n in web.workers] == ["worker", "worker"]
    assert nodes[1].ip in nodes[1].run("ip -4 addr show eth0")
    assert nodes[1].run("echo out; exit 2") == "out"
    with pytest.raises(CommandFailed, match=r"on .*worker ended with exit code 2"):
        nodes[1].run("exit 2", check=True)
    with pytest.raises(NotFound, match=r"no node 'nope'; there are .*control-plane"):
        web.nodes["nope"]
    assert nodes[0].name in web.nodes


def test_outside_is_no_node_and_reaches_node_ports(web):
    port = web.service("mine").node_ports[0]
    addresses = {n.ip for n in web.nodes}
    mine = web.outside.run("ip -4 -o addr show scope global").split()
    assert not addresses & {word.split("/")[0] for word in mine}
    for ip in addresses:
        assert web.outside.run(f"curl -s -o /dev/null -w '%{{http_code}}' --retry 5 --retry-connrefused http://{ip}:{port}") == "200"
    assert web.outside.url(30080).startswith("http://localhost:")
    with pytest.raises(LabError, match="isn't reached from this machine"):
        web.outside.url(31999)


def test_kubectl_speaks_for_itself(web):
    assert web.kubectl("get", "deployment", "web", "-o", "name") == "deployment.apps/web\n"
    with pytest.raises(CommandFailed, match=r'deployments\.apps "nobody" not found') as caught:
        web.kubectl("get", "deployment", "nobody")
    assert caught.value.returncode == 1
    assert "not found" in web.kubectl("get", "deployment", "nobody", check=False)
    assert (
        web.kubectl("apply", "-f", "-", input="apiVersion: v1\nkind: ConfigMap\nmetadata: {name: stdin}\n") == "configmap/stdin created\n"
    )


def test_kr8s_sees_the_same(web):
    names = {pod.name for pod in web.api.get("pods", label_selector="app=web")}
    assert names == set(web.pods("app=web")["name"])


def test_reset_removes_what_lessons_made_and_nothing_else(web, kube, capsys):
    web.apply("run-my-nginx.yaml", replicas=1)
    kube.kubectl("expose", "deployment", "my-nginx")
    kube.kubectl("create", "configmap", "mine")
    web.wait_for("deployment/my-nginx")
    capsys.readouterr()
    web.reset()
    assert capsys.readouterr().out == "✓ what the lessons made is removed\n"
    left = kube.kubectl("get", "deployments,services,configmaps,pods", "-o", "name").stdout
    assert "my-nginx" not in left
    for kept in ("deployment.apps/web", "service/mine", "configmap/mine", "pod/web-"):
        assert kept in left
    web.reset(quiet=True)
    assert capsys.readouterr().out == ""


def test_apply_takes_parameters(web, kube, capsys):
    web.apply("run-my-nginx.yaml", replicas=3, image="nginx:1.28", node_port=None)
    assert capsys.readouterr().out == "✓ deployment/my-nginx applied from run-my-nginx.yaml\n"
    spec = kube.get("deployment", "my-nginx")["spec"]
    assert spec["replicas"] == 3
    assert spec["template"]["spec"]["containers"][0]["image"] == "nginx:1.28"
    web.reset(quiet=True)
    with pytest.raises(LabError, match=r"'replica' is no parameter of a manifest; there are replicas, image, node_port"):
        web.apply("run-my-nginx.yaml", replica=3)
    with pytest.raises(LabError, match=r"Nothing in run-my-nginx.yaml takes the parameter node_port=30080"):
        web.apply("run-my-nginx.yaml", node_port=30080)
    with pytest.raises(NotFound, match=r"no manifest 'nope.yaml' in manifests/; there are: .*run-my-nginx.yaml"):
        web.apply("nope.yaml")
    with pytest.raises(NotFound):
        web.manifest("../pyproject.toml")


def test_card_says_where_you_are(web):
    from servicelab.card import Card

    card = Card(web)
    assert f"namespace   {web.namespace}" in repr(card)
    assert web.namespace in card._repr_html_()
    assert "worker2" in repr(card)
