"""The Kubernetes network model: every pod reaches every pod and node, without NAT."""

from __future__ import annotations

import pytest
from workloads import LISTENS

CLIENT = "curlimages/curl:8.16.0"
SERVER = "nginx:1.29-alpine"


def _pod(name: str, image: str, node: str) -> dict:
    container = {"name": name, "image": image}
    if image == CLIENT:
        container["command"] = ["sleep", "100000"]
    else:
        container["startupProbe"] = LISTENS
    spec = {"nodeName": node, "terminationGracePeriodSeconds": 1, "containers": [container]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}}, "spec": spec}


@pytest.fixture(scope="module")
def pods(kube):
    """A server and two clients: one on the server's node, one on the other worker."""
    _, worker, worker2 = kube.nodes
    kube.apply([_pod("server", SERVER, worker), _pod("near", CLIENT, worker), _pod("far", CLIENT, worker2)])
    kube.wait("condition=Ready", "pod/server", "pod/near", "pod/far")
    return {name: kube.get("pod", name)["status"]["podIP"] for name in ("server", "near", "far")}


@pytest.mark.parametrize("client", ["near", "far"])
def test_the_server_sees_the_client_pods_own_address(kube, pods, client):
    kube.exec(client, "curl", "-sS", "-m", "10", "-o", "/dev/null", f"http://{pods['server']}/?from={client}")
    kube.wait(lambda: any(f"from={client}" in line and line.startswith(pods[client] + " ") for line in _log(kube)))


def test_every_node_reaches_a_pod_with_its_own_address(kube, pods):
    for node in kube.nodes:
        done = kube.node_run(node, ["curl", "-sS", "-m", "10", "-o", "/dev/null", "-w", "%{local_ip}", f"http://{pods['server']}/?node={node}"])
        assert done.returncode == 0, done.stderr
        kube.wait(lambda node=node, ip=done.stdout: any(f"node={node} " in line and line.startswith(f"{ip} ") for line in _log(kube)))


def test_pods_of_one_node_get_addresses_of_its_cidr_and_differ(kube, pods):
    cidr = kube.get("node", kube.nodes[1])["spec"]["podCIDR"]
    prefix = cidr.rpartition(".")[0] + "."
    assert cidr.endswith("/24")
    assert pods["server"].startswith(prefix) and pods["near"].startswith(prefix) and not pods["far"].startswith(prefix)
    assert len(set(pods.values())) == 3


def test_a_pod_reaches_every_node(kube, pods):
    for node in kube.nodes:
        addresses = {one["type"]: one["address"] for one in kube.get("node", node)["status"]["addresses"]}
        # Nothing listens at port 9: refused (7) means that the node answered, while unreachable would take time (28).
        done = kube.kubectl("exec", "near", "--", "curl", "-sS", "-m", "10", f"http://{addresses['InternalIP']}:9/", check=False)
        assert "curl: (7)" in done.stderr


def test_outside_of_the_cluster_a_pods_address_means_nothing(kube, pods):
    # What curl says depends on what the network beyond makes of a strange address; the pod, in any case, sees nothing.
    kube.outside_run(["curl", "-sS", "-m", "2", "-o", "/dev/null", f"http://{pods['server']}/?outside"])
    assert not any("?outside" in line for line in _log(kube))


def test_a_dead_pods_address_is_not_given_to_the_next_one(kube, pods):
    node = kube.nodes[2]
    kube.apply(_pod("first", CLIENT, node))
    kube.wait("condition=Ready", "pod/first")
    before = kube.get("pod", "first")["status"]["podIP"]
    kube.kubectl("delete", "pod", "first", "--grace-period=0", "--force")
    kube.apply(_pod("second", CLIENT, node))
    kube.wait("condition=Ready", "pod/second")
    assert kube.get("pod", "second")["status"]["podIP"] != before


@pytest.mark.pocket
def test_pods_and_nodes_reach_nothing_outside_of_the_lab(kube, pods):
    """A documentation address (RFC 5737): pods are told at once, nodes by their gateway."""
    for run in (
        lambda: kube.kubectl("exec", "near", "--", "curl", "-sS", "-m", "10", "http://192.0.2.1/", check=False),
        lambda: kube.node_run(kube.nodes[1], ["curl", "-sS", "-m", "10", "http://192.0.2.1/"]),
    ):
        assert "curl: (7)" in run().stderr


@pytest.mark.pocket
def test_a_deleted_pods_route_cable_and_namespace_are_gone(kube, pods):
    node = kube.nodes[2]
    kube.apply(_pod("passing", CLIENT, node))
    kube.wait("condition=Ready", "pod/passing")
    pod = kube.get("pod", "passing")
    cable = "veth" + pod["metadata"]["uid"].replace("-", "")[:11]
    assert cable in kube.node_run(node, ["busybox", "ip", "link"]).stdout
    kube.kubectl("delete", "pod", "passing", "--now")
    assert pod["status"]["podIP"] not in kube.node_run(node, ["busybox", "ip", "route"]).stdout
    kube.wait(lambda: cable not in kube.node_run(node, ["busybox", "ip", "link"]).stdout)
    assert pod["metadata"]["uid"] not in kube.node_run(node, ["ls", "/run/netns"]).stdout


def _log(kube) -> list[str]:
    return kube.kubectl("logs", "server").stdout.splitlines()
