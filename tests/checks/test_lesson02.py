"""Checks of lesson 02, both ways."""

import json

import pytest

from servicelab.checks import check, lesson02


@pytest.fixture
def served(asked):
    """The servers and the client run; there is no Service yet."""
    for name in ("run-my-nginx.yaml", "curl.yaml"):
        asked.run(f"apply -f {asked.lab.manifest(name)}")
    asked.kube.rollout("my-nginx")
    asked.kube.wait("condition=Ready", "pod/curl")
    return asked


def patch(asked, service: str, **spec) -> None:
    asked.kube.kubectl("patch", "service", service, "-p", json.dumps({"spec": spec}))


def test_the_service_and_its_endpoints(served):
    for name in ("service_found", "endpoints_follow", "load_is_shared", "cluster_ip_is_virtual", "one_client_one_pod"):
        served.fails(name, saying="there is no Service my-nginx", hint="kubectl expose deployment/my-nginx")
    served.run("expose deployment/my-nginx")
    for name in ("service_found", "endpoints_follow", "load_is_shared", "cluster_ip_is_virtual"):
        served.passes(name)
    served.fails("endpoints_follow", replicas=3, saying="2 of 3 pods", hint="kubectl get pods")

    served.fails("one_client_one_pod", saying="session affinity is None", hint="sessionAffinity")
    patch(served, "my-nginx", sessionAffinity="ClientIP")
    served.passes("one_client_one_pod")
    served.fails("load_is_shared", saying="got none of 60 requests", hint="Session Affinity")
    patch(served, "my-nginx", sessionAffinity="None")
    served.passes("load_is_shared")

    patch(served, "my-nginx", ports=[{"port": 80, "protocol": "TCP", "targetPort": 8080}])
    for name in ("load_is_shared", "cluster_ip_is_virtual"):
        served.fails(name, saying="got no answer", hint="kubectl describe service my-nginx")
    patch(served, "my-nginx", selector={"run": "somebody-else"})
    for name in ("service_found", "endpoints_follow", "load_is_shared", "cluster_ip_is_virtual", "one_client_one_pod"):
        served.fails(name, saying="no endpoint: its selector is run=somebody-else", hint="kubectl get pods --show-labels")
    patch(served, "my-nginx", selector={"run": "curl"})
    served.fails("service_found", saying="sends to 1 addresses, 0 of them", hint="kubectl get endpointslices")


def test_the_older_list_may_come_later(served, monkeypatch):
    served.run("expose deployment/my-nginx")
    served.passes("service_found")
    real = lesson02.find
    monkeypatch.setattr(lesson02, "find", lambda lab, kind, name: None if kind == "endpoints" else real(lab, kind, name))
    served.fails("service_found", saying="still list 0 of its 2 pods", hint="kubectl get endpoints my-nginx")


def test_second_service(served):
    served.fails("second_service", saying="there is no Service my-nginx-alt", hint="--target-port 80")
    served.run("expose deployment my-nginx --name my-nginx-alt --port 80")
    served.fails("second_service", saying="takes port 80, not 8080", hint="--port 8080")
    served.run("delete service my-nginx-alt", "expose deployment my-nginx --name my-nginx-alt --port 8080")
    served.fails("second_service", saying="sends to port 8080 of the pods, and nobody listens", hint="kubectl describe service")
    served.run("delete service my-nginx-alt", "create service clusterip my-nginx-alt --tcp=8080:80")
    served.fails("second_service", saying="its selector is app=my-nginx-alt", hint="run=my-nginx")
    served.run("delete service my-nginx-alt", "expose deployment my-nginx --name my-nginx-alt --port 8080 --target-port 80")
    assert "port 8080" in served.passes("second_service")


def test_typo(served):
    served.fails("typo_mended", saying="there is no Service my-nginx-typo", hint="kubectl apply")
    served.run(f"apply -f {served.lab.manifest('nginx-svc-typo.yaml')}")
    served.fails("typo_mended", saying="no pod has the label run=my-ngnix", hint="letter by letter")
    patch(served, "my-nginx-typo", selector={"run": "my-nginx"}, ports=[{"port": 80, "protocol": "TCP", "targetPort": 8080}])
    served.fails("typo_mended", saying="answers with HTTP status 000", hint="targetPort")
    patch(served, "my-nginx-typo", ports=[{"port": 80, "protocol": "TCP", "targetPort": 80}])
    assert "answers" in served.passes("typo_mended")


def test_named_port(served):
    served.fails("named_port", saying="there is no Service named-port", hint="kubectl apply")
    served.run(f"apply -f {served.lab.manifest('named-port.yaml')}")
    assert "which is port 80" in served.passes("named_port")
    patch(served, "named-port", ports=[{"port": 8080, "protocol": "TCP", "targetPort": 80}])
    served.fails("named_port", saying="a number", hint="may be a name")
    patch(served, "named-port", ports=[{"port": 8080, "protocol": "TCP", "targetPort": "www"}])
    served.fails("named_port", saying="no container of the pod named-port calls a port www", hint="list of ports")
    served.run("delete pod named-port")
    served.fails("named_port", saying="there is no pod named-port", hint="kubectl apply")


def test_hints_of_a_repeated_call_become_plainer(served):
    hints = [check.second_service.result(served.lab).hint for _ in range(4)]
    assert hints[0] != hints[1] != hints[2] == hints[3]
    assert "kubectl expose deployment my-nginx --name my-nginx-alt" in hints[2]
