"""Checks of lesson 04, both ways."""

import json

import pytest

from harness import eventually
from servicelab.checks.lesson04 import RUN_CURL
from servicelab.reachability import dns_behind


@pytest.fixture
def servers(asked):
    """Two servers run; there is neither a Service nor a client."""
    asked.run(f"apply -f {asked.lab.manifest('run-my-nginx.yaml')}")
    asked.kube.rollout("my-nginx")
    return asked


def run_curl(asked) -> None:
    asked.run(RUN_CURL.removeprefix("kubectl "))
    asked.kube.wait("condition=Ready", "pod/curl")


def service(asked, name: str, **spec) -> None:
    asked.kube.kubectl("delete", "service", name, "--ignore-not-found")
    spec = {"selector": {"run": "my-nginx"}, "ports": [{"port": 80}]} | spec
    asked.kube.create({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec})


def test_names(servers):
    servers.fails("name_leads_to_service", saying="there is no pod curl", hint="kubectl run curl")
    run_curl(servers)
    servers.fails("name_leads_to_service", saying="there is no Service my-nginx", hint="kubectl expose")
    service(servers, "my-nginx", ports=[{"port": 80, "targetPort": 8080}])
    servers.fails("name_leads_to_service", saying="answers with nothing", hint="kubectl describe service my-nginx")
    service(servers, "my-nginx", clusterIP="None")
    servers.fails("name_leads_to_service", saying="its cluster IP is None", hint="headless")
    service(servers, "my-nginx")
    assert "status 200" in servers.passes("name_leads_to_service")


def test_order(servers):
    service(servers, "late")
    run_curl(servers)
    servers.fails("order_does_not_matter", saying="has variables of late", hint="kubectl delete service late")
    servers.run("delete service late", "delete pod curl --now")
    run_curl(servers)
    servers.fails("order_does_not_matter", saying="there is no Service late", hint="--name=late")
    service(servers, "late", selector={"run": "nobody"})
    servers.fails("order_does_not_matter", saying="late has no endpoints", hint="kubectl describe service late")
    service(servers, "late")
    assert "by its name" in servers.passes("order_does_not_matter")


def test_headless(servers):
    run_curl(servers)
    servers.fails("headless_names_pods", pods=2, saying="no Service my-nginx-headless", hint="my-nginx-headless.yaml")
    service(servers, "my-nginx-headless")
    servers.fails("headless_names_pods", pods=2, saying="it is not headless", hint="can't be changed later")
    service(servers, "my-nginx-headless", clusterIP="None", selector={"run": "curl"})
    servers.fails("headless_names_pods", pods=2, saying="DNS names 1 addresses, and 2 pods are ready", hint="kubectl describe service")
    servers.run("delete service my-nginx-headless", f"apply -f {servers.lab.manifest('my-nginx-headless.yaml')}")
    servers.passes("headless_names_pods", pods=2)
    servers.fails("headless_names_pods", pods=3, saying="2 of 3 pods", hint="--replicas=3")
    servers.run("scale deployment my-nginx --replicas=3")
    assert "3 pods" in servers.passes("headless_names_pods", pods=3)


def test_port_by_name(servers):
    run_curl(servers)
    port = {"name": "http", "port": 8080, "targetPort": 80}
    servers.fails("port_by_name", saying="there is no Service web", hint="targetPort: 80")
    service(servers, "web")
    servers.fails("port_by_name", saying="listens on 80, not on 8080", hint="port: 8080")
    service(servers, "web", ports=[{"port": 8080, "targetPort": 80}])
    servers.fails("port_by_name", saying="isn't named http", hint="name: http")
    service(servers, "web", ports=[port | {"targetPort": 8080}])
    servers.fails("port_by_name", saying="sends to port 8080 of the pods", hint="targetPort: 80")
    service(servers, "web", ports=[port], selector={"run": "nobody"})
    servers.fails("port_by_name", saying="web has no endpoints", hint="kubectl set selector")
    service(servers, "web", ports=[port], clusterIP="None")
    servers.fails("port_by_name", saying="web is headless", hint="cluster IP")
    service(servers, "web", ports=[port])
    assert "_http._tcp.web says 8080" in servers.passes("port_by_name")


def test_alias(servers):
    run_curl(servers)
    service(servers, "my-nginx")
    servers.fails("alias_without_address", saying="there is no Service website", hint="kubectl create service externalname")
    service(servers, "website")
    servers.fails("alias_without_address", saying="type ClusterIP, not an alias", hint="ExternalName")
    servers.run("delete service website", "create service externalname website --external-name=my-nginx")
    servers.fails("alias_without_address", saying="isn't the complete name", hint="no search list")
    patch = json.dumps({"spec": {"externalName": f"my-nginx.{servers.kube.name}.svc.cluster.local"}})
    servers.kube.kubectl("patch", "service", "website", "--patch", patch)
    assert "another name for my-nginx" in servers.passes("alias_without_address")


def test_a_service_that_was_awaited_is_known_to_every_dns_server(servers, capsys):
    lab = servers.lab
    service(servers, "my-nginx-headless", clusterIP="None")
    lab.wait_for("service/my-nginx-headless")
    assert "2 ready endpoints" in capsys.readouterr().out
    dns = {pod["status"]["podIP"] for pod in lab.list("pods", "k8s-app=kube-dns", "kube-system")}
    name, spec = f"my-nginx-headless.{lab.namespace}.svc.cluster.local", {"clusterIP": "None"}
    pods = [pod["status"]["podIP"] for pod in lab.list("pods", "run=my-nginx")]
    slices = lambda *addresses: [{"endpoints": [{"addresses": [each]} for each in addresses]}]
    assert dns_behind(lab, name, spec, slices(*pods)) == []
    # as it is when the API knows a pod more than they do, a pod less, another address, or another name
    for others in (
        (name, spec, slices(*pods, "10.244.0.99")),
        (name, spec, slices(pods[0])),
        (name, {"clusterIP": "10.96.0.99"}, []),
        (f"not-{name}", spec, slices(*pods)),
    ):
        eventually(lambda others=others: set(dns_behind(lab, *others)) == dns)  # a lost packet is no verdict
