"""Checks of lesson 06, both ways, and the cloud controller behind them."""

import json

import pytest

from harness import eventually
from servicelab import certificates, exposure, tls

DOOR = "expose deployment my-nginx --name=my-nginx-web --type=LoadBalancer"


@pytest.fixture
def exposed(asked):
    """The secured servers with node ports that the cluster chose, and the pod curl; the cloud controller is off, and off in the end."""
    lab = asked.lab
    tls.rotate(lab, certificates.self_signed("my-nginx", key_type="ec"))
    for name in ("nginxconfigmap.yaml", "nginx-secure-app.yaml", "curl.yaml"):
        asked.run(f"apply -f {lab.manifest(name)}")
    asked.run("scale deployment my-nginx --replicas=2")
    asked.kube.rollout("my-nginx")
    asked.kube.wait("condition=Ready", "pod/curl")
    yield asked
    lab.cloud().stop()


def patch(asked, name: str = "my-nginx", **spec) -> None:
    asked.kube.kubectl("patch", "service", name, "--patch", json.dumps({"spec": spec}))


def given(lab) -> set[str]:
    """The addresses that lie on nodes for LoadBalancer Services."""
    return {row.split()[3].split("/")[0] for node in lab.nodes for row in node.run("ip -o -4 addr show label eth0:lab").splitlines()}


def test_node_ports(exposed):
    assert "3 of 3 nodes" in exposed.passes("every_node_answers")
    patch(exposed, externalTrafficPolicy="Local")
    exposed.fails("every_node_answers", saying="-control-plane", hint="externalTrafficPolicy is Local")
    patch(exposed, externalTrafficPolicy="Cluster", selector={"run": "nobody"})
    exposed.fails("every_node_answers", saying="no ready endpoint", hint="kubectl set selector")
    exposed.fails("reached_from_here", saying="no ready endpoint", hint="kubectl set selector")
    patch(exposed, selector={"run": "my-nginx"}, type="ClusterIP")
    exposed.fails("every_node_answers", saying="has no node port", hint="type: NodePort")
    exposed.run("delete service my-nginx")
    exposed.fails("every_node_answers", saying="there is no Service my-nginx", hint="nginx-secure-app.yaml")
    exposed.fails("reached_from_here", saying="there is no Service my-nginx", hint="nginx-node-ports.yaml")


def test_load_balancer_and_policy(exposed):
    lab = exposed.lab
    exposed.fails("external_address_answers", saying="is of type NodePort", hint="LoadBalancer")
    patch(exposed, type="LoadBalancer")
    exposed.fails("external_address_answers", saying="is pending", hint="lab.cloud()")
    lab.cloud().start()
    exposure.wait_for_address(lab, "my-nginx")
    address = exposure.external_address(lab, "my-nginx")
    assert address in exposed.passes("external_address_answers")
    assert address in given(lab)

    exposed.fails("client_address_is_kept", saying="externalTrafficPolicy of my-nginx is Cluster", hint="Local")
    patch(exposed, externalTrafficPolicy="Local")
    exposed.passes("client_address_is_kept")
    # With one pod left, the address must follow it, wherever it is.
    exposed.run("scale deployment my-nginx --replicas=1")

    def at_home() -> bool:
        homes = lab.endpoints("my-nginx")["node"].tolist()
        assert len(homes) == 1, f"endpoints on {homes}"
        return "eth0:lab" in lab.nodes[homes[0]].run(f"ip -o -4 addr show to {address}")

    eventually(at_home)
    eventually(lambda: exposure.status(lab, f"http://{address}:8080") == "200")

    exposed.fails("second_front_door", saying="there is no Service my-nginx-web", hint="--type=LoadBalancer")
    exposed.run(f"{DOOR} --port=8080 --target-port=80")
    exposed.fails("second_front_door", saying="listens on 8080", hint="--port=80")
    exposed.run("delete service my-nginx-web", f"{DOOR} --port=80 --target-port=8080")
    exposed.fails("second_front_door", saying="sends to port 8080 of the pods", hint="targetPort")
    exposed.run("delete service my-nginx-web", f"{DOOR} --port=80")
    assert "a second front door" in exposed.passes("second_front_door")
    second = exposure.external_address(lab, "my-nginx-web")
    assert second != address
    exposed.run("delete service my-nginx-web")
    eventually(lambda: second not in given(lab))

    # A controller that was killed leaves everything as it is; another one, which remembers nothing, takes it back.
    lab.cloud().pause()
    eventually(lambda: exposure.status(lab, f"http://{address}:8080") == "200")  # one request may take too long on a busy machine
    lab.cloud().stop()
    assert address not in given(lab)
    lab.cloud()._ip("del", address, lab.nodes[0].name)  # as where another controller was quicker: no error
    assert exposure.external_address(lab, "my-nginx") is None
    eventually(lambda: exposure.answer(lab, f"http://{address}:8080") == "nothing")


def test_closed_door(exposed):
    exposed.fails("door_is_closed", saying="is of type NodePort", hint="kubectl patch")
    exposed.run("delete service my-nginx")
    exposed.fails("door_is_closed", saying="there is no Service my-nginx", hint="It was to stay")
    exposed.run("expose deployment my-nginx --port=8080 --target-port=8080")
    exposed.fails("door_is_closed", saying="nobody answers inside", hint="8080 and 443")
    exposed.run("delete service my-nginx", f"apply -f {exposed.lab.manifest('nginx-secure-app.yaml')}")
    patch(exposed, type="ClusterIP")
    exposed.passes("door_is_closed")
    assert exposed.lab.service("my-nginx").node_ports == ()


def test_a_policy_is_awaited_where_it_shows_in_the_logs(exposed, monkeypatch):
    lab, own = exposed.lab, exposure.outside_address(exposed.lab)
    patch(exposed, externalTrafficPolicy="Local")
    exposure.wait_for_policy(lab, "my-nginx")
    assert exposure.seen_as(lab, "my-nginx", times=2) == {own}

    # A node with a pod answers before it follows, too; then the servers see its own address.
    seen = iter([{own, "10.244.1.1"}, {"10.244.1.1"}, {own}])
    monkeypatch.setattr(exposure, "seen_as", lambda *_, **__: frozenset(next(seen)))
    exposure.wait_for_policy(lab, "my-nginx")
    assert next(seen, "all was asked for") == "all was asked for"
