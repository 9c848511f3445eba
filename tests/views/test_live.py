"""The views on a live cluster: what they show is what is there, and follows when it changes."""

import threading
import time
from pathlib import Path

import pytest

from harness import eventually
from servicelab import connecting
from servicelab.errors import LabError, NotFound
from servicelab.lab import Lab
from servicelab.rules import rules_for
from servicelab.views.topology import parts

IMAGE = "nginx:1.29-alpine"


@pytest.fixture(scope="module")
def lab(kube):
    made = Lab(kube.cluster.cluster, connecting.with_namespace(Path(kube.kubeconfig), kube.name), kube.name)
    made.apply("run-my-nginx.yaml", replicas=2)
    made.apply("nginx-svc.yaml")
    made.apply("curl.yaml")
    for what in ("deployment/my-nginx", "pod/curl", "service/my-nginx"):
        made.wait_for(what)
    yield made
    made.close()


@pytest.fixture
def closing():
    """Views to close at the test's end, and the check that their threads end with them."""
    views = []
    yield views
    for view in views:
        view.close()
    eventually(lambda: not any(thread.name == "servicelab-view" for thread in threading.enumerate()))


def scale(lab, replicas):
    lab.kubectl("scale", "deployment", "my-nginx", f"--replicas={replicas}")


def test_topology_follows_a_scale_a_death_and_a_service(lab, closing):
    view = lab.view.topology()
    closing.append(view)
    assert "pods of my-nginx: 2 ready" in view.text()
    before = view.text()
    scale(lab, 3)
    assert view.text() == before  # nobody has looked at it, so it doesn't watch
    view.viewers = 1
    eventually(lambda: "pods of my-nginx: 3 ready" in view.text() and parts(view)["line"] == 3)
    victim = lab.pod("run=my-nginx").name
    lab.kubectl("delete", "pod", victim, "--wait=false")
    eventually(lambda: victim not in view.now.label and "3 ready" in view.text() and "3 pods ready behind it" in view.text())
    lab.kubectl("create", "service", "clusterip", "another", "--tcp=81:80")
    eventually(lambda: "another" in view.text())
    lab.kubectl("delete", "service", "another")
    eventually(lambda: "another" not in view.text())
    scale(lab, 2)
    eventually(lambda: "pods of my-nginx: 2 ready" in view.text())
    view.viewers = 0
    eventually(lambda: not view._observer.running)


def test_who_answered_headless_has_it_all_at_once(lab, closing, monkeypatch):
    monkeypatch.setenv("SERVICELAB_HEADLESS", "1")
    lab.wait_for("service/my-nginx")
    view = lab.view.who_answered(rate=10, seconds=3)
    closing.append(view)
    assert view.text() == "30 requests to http://my-nginx: 30 answered, by 2 of 2 ready pods of my-nginx"
    logged = sum(pod.count("servicelab-") for pod in (lab.kubectl("logs", name) for name in lab.pods("run=my-nginx")["name"]))
    assert sum(view.tally.by_pod.values()) == 30 <= logged


def test_who_answered_goes_on_while_a_pod_dies_and_stops_when_told(lab, closing, monkeypatch):
    monkeypatch.setenv("SERVICELAB_HEADLESS", "")
    view = lab.view.who_answered(rate=10, seconds=600)
    closing.append(view)
    assert view.text() == "requests to http://my-nginx: none sent yet"
    view.viewers = 1
    eventually(lambda: len(view.tally.by_pod) == 2)
    victim = lab.pod("run=my-nginx")
    lab.kubectl("delete", "pod", victim.name, "--wait=false")
    eventually(lambda: len(view.tally.by_pod) == 3)  # the successor answers, without anybody having told the view of it
    assert any(kind[1].startswith("pod:") and "gone" in str(kind) for kind in view.now.children) or victim.name in view.now.label
    view.running = False
    eventually(lambda: not view._background.alive)
    before = view.tally
    assert before.sent < 6000
    view.running = True
    eventually(lambda: view.tally.sent >= 3)
    assert view.tally is not before
    view.viewers = 0
    eventually(lambda: not view.running)


def test_who_answered_says_what_is_missing(lab, closing, monkeypatch):
    monkeypatch.setenv("SERVICELAB_HEADLESS", "1")
    with pytest.raises(NotFound, match=r"no pod 'nobody'.*curl\.yaml"):
        lab.view.who_answered(client="nobody")
    with pytest.raises(NotFound, match="nothing-here"):
        lab.view.who_answered("nothing-here")
    with pytest.raises(LabError, match="at most 20"):
        lab.view.who_answered(rate=500)
    with pytest.raises(LabError, match="at most 600"):
        lab.view.who_answered(seconds=-1)
    view = lab.view.who_answered(rate=10, seconds=0.5, url="http://my-nginx:81")
    closing.append(view)
    assert "0 answered" in view.text()
    assert "5 × no connection to my-nginx:81" in view.text()


def test_endpoints_over_time_sees_a_pod_replaced(lab, closing):
    lab.wait_for("deployment/my-nginx")
    lab.wait_for("pods/run=my-nginx")  # one that the test before has deleted is gone
    lab.wait_for("service/my-nginx")
    view = lab.view.endpoints_over_time()
    closing.append(view)
    assert view.text() == "endpoints of my-nginx: 2 ready at the start, 2 ready at the end\n  2 × ready"
    lab.kubectl("delete", "pod", lab.pod("run=my-nginx").name, "--wait=false")
    picture = view.picture()
    assert picture.text() == (
        "endpoints of my-nginx: 2 ready at the start, 2 ready at the end\n"
        "  1 × pending → ready\n  1 × ready\n  1 × ready → terminating → gone"
    )
    assert [number for _, number in view._story.counts] == [2, 1, 2]
    view.viewers = 1
    view.viewers = 0  # removed from the page: it stops, and still tells what it saw
    eventually(lambda: not view._background.alive)
    assert view.picture(timeout=1).text() == picture.text()
    with pytest.raises(NotFound):
        lab.view.endpoints_over_time("nothing-here")


def test_packet_path_from_pod_to_pod_with_the_nodes_own_rules(lab, closing):
    lab.wait_for("service/my-nginx")
    view = lab.view.packet_path("curl", "http://my-nginx")
    closing.append(view)
    path, ip = view.path, lab.service("my-nginx").ip
    assert [step.key for step in path.steps] == ["name", "route", "rule", "rewrite", "arrive", "back"]
    assert path.dialled == f"{ip}:80"
    assert path.code == 200
    servers = {pod["status"]["podIP"]: pod["metadata"]["name"] for pod in lab.list("pods", "run=my-nginx")}
    assert path.target[0] == servers[path.reached.partition(":")[0]]
    assert f"{ip} . tcp . 80" in path.step("rule").evidence[0]
    assert "one of 2 endpoints" in path.step("rule").says
    assert f"dnat to {path.reached}" in path.step("rewrite").evidence[0]
    assert f"dst={ip}" in path.step("rewrite").evidence[1]  # the kernel's own table of connections
    assert len(view.scenes) == 6


def test_packet_path_where_it_ends_early(lab, closing):
    lab.kubectl("create", "service", "clusterip", "empty", "--tcp=80:80")
    try:
        ip, node = lab.service("empty").ip, lab.nodes[lab.pod("curl").node]
        eventually(lambda: rules_for(node.run("nft list table ip kube-proxy"), ip, 80).refused)
        started = time.monotonic()
        view = lab.view.packet_path("curl", "empty")
        closing.append(view)
        assert "Service without endpoints" in view.path.step("rule").says
        assert view.path.code == 0
        assert "no answer" in view.text()
        assert time.monotonic() - started < 120
    finally:
        lab.kubectl("delete", "service", "empty")
    view = lab.view.packet_path("curl", "http://no-such-name")
    closing.append(view)
    assert "there is no such name" in view.text()
    with pytest.raises(LabError, match="no URL to follow"):
        lab.view.packet_path("curl", "ftp://my-nginx")


def test_packet_path_without_nodes_says_what_is_known_without_them(lab, closing, monkeypatch):
    monkeypatch.setattr(type(lab), "nodes_allowed", property(lambda self: False))
    view = lab.view.packet_path("curl", "http://my-nginx")
    closing.append(view)
    assert "the node can't be entered here" in view.path.step("rule").says
    assert len(view.path.step("rule").evidence) == 2
    assert "GET / HTTP" in view.path.step("rewrite").evidence[0]  # the log of the pod that answered
    assert view.path.reached.endswith(":80")


def test_port_map_and_certificate_of_what_is_there(lab, closing):
    view = lab.view.port_map()
    closing.append(view)
    assert view.text() == "Service my-nginx (ClusterIP), 2 ready pods\n  port 80/TCP → targetPort 80 → container my-nginx"
    with pytest.raises(NotFound):
        lab.view.certificate("no-such-secret")
    with pytest.raises(LabError, match="can't be shown"):
        lab.view.certificate("-----BEGIN CERTIFICATE-----\nrubbish\n-----END CERTIFICATE-----")
    assert repr(lab.view).startswith("lab.view: board(), certificate(), debugging_tree(), endpoints_over_time(), packet_path()")
