"""Checks of lesson 03, both ways."""

import json

import pytest

from harness import eventually


@pytest.fixture
def old(asked):
    """The servers run, and are older than their Service."""
    asked.run(f"apply -f {asked.lab.manifest('run-my-nginx.yaml')}")
    asked.kube.rollout("my-nginx")
    return asked


def anew(asked) -> None:
    asked.run("scale deployment my-nginx --replicas=0")
    asked.kube.wait("delete", "pod", "-l", "run=my-nginx")
    asked.run("scale deployment my-nginx --replicas=2")
    asked.kube.rollout("my-nginx")


def test_variables(old):
    service = f"apply -f {old.lab.manifest('nginx-svc.yaml')}"
    for name in ("variables_missing", "variables_set", "quiet_pod"):
        old.fails(name, saying="there is no Service my-nginx", hint="nginx-svc.yaml")
    old.run(service)
    old.passes("variables_missing")
    old.fails("variables_set", saying="no MY_NGINX_SERVICE_HOST", hint="--replicas=0")
    old.fails("kubelet_adds_them", saying="no MY_NGINX_SERVICE_HOST", hint="older than the Service")
    old.fails("variables_set", replicas=3, saying="2 of 3 pods", hint="--replicas=3")
    anew(old)
    old.passes("variables_set")
    old.passes("kubelet_adds_them")
    old.fails("variables_missing", saying="it started after the Service", hint="preparation cell")
    old.run("delete service my-nginx", service)
    old.fails("variables_set", saying="an address of the past", hint="would a new pod get")
    old.run("set env deployment/my-nginx MY_NGINX_SERVICE_HOST=by-hand")
    old.kube.rollout("my-nginx")
    old.fails("kubelet_adds_them", saying="stands in the spec", hint="Take it out")


def test_spread(old):
    assert "2 nodes" in old.passes("pods_spread", replicas=2)
    old.fails("pods_spread", replicas=5, saying="2 of 5 pods", hint="kubectl apply")
    node = old.kube.list("pods", "run=my-nginx")[0]["spec"]["nodeName"]
    pinned = {"spec": {"template": {"spec": {"nodeSelector": {"kubernetes.io/hostname": node}}}}}
    old.kube.kubectl("patch", "deployment", "my-nginx", "-p", json.dumps(pinned))
    old.kube.rollout("my-nginx")
    old.fails("pods_spread", replicas=2, saying="spread as 0 and 2", hint="kubectl rollout restart")
    old.run("scale deployment my-nginx --replicas=0")
    old.fails("pods_spread", replicas=2, saying="0 of 2 pods", hint="kubectl apply")


def test_quiet(old):
    old.run(f"apply -f {old.lab.manifest('nginx-svc.yaml')}")
    old.fails("quiet_pod", saying="there is no pod quiet", hint="kubectl apply")
    old.run("run quiet --image=curlimages/curl:8.16.0 --command -- sleep infinity")
    old.fails("quiet_pod", saying="variables of Services", hint="enableServiceLinks: false")
    old.run("delete pod quiet --grace-period=1", f"apply -f {old.lab.manifest('quiet.yaml')}")
    old.passes("quiet_pod")


def test_frontend_and_a_restart_without_a_pause(old):
    pod = "run frontend --image=curlimages/curl:8.16.0 --command -- sleep infinity"
    remove_pod = "delete pod frontend --grace-period=1"
    service = "expose deployment my-nginx --name backend --port 8080 --target-port 80"
    name = "frontend_knows_backend"
    old.fails(name, saying="there is no Service backend", hint="Does the order matter")
    old.fails("told_without_pause", saying="there is no Service backend", hint="exercise above")
    old.run(pod)
    old.kube.wait("condition=Ready", "pod/frontend")
    old.fails(name, saying="already: too early", hint="First the Service")
    old.run("expose deployment my-nginx --name backend --port 80")
    old.fails(name, saying="takes port 80, not 8080", hint="--target-port")
    old.run("delete service backend", service)
    old.fails(name, saying="has no BACKEND_SERVICE_HOST", hint="which of the two is older".capitalize())
    old.run(remove_pod)
    old.fails(name, saying="there is no pod frontend", hint=pod)
    old.run(pod)
    old.passes(name)
    old.run("delete service backend", service)
    old.fails(name, saying="frontend was told of", hint="kubectl delete pod frontend")
    old.run(remove_pod, pod)
    old.passes(name)

    old.fails("told_without_pause", saying="2 of 2 pods of my-nginx don't know", hint="kubectl rollout restart")
    anew(old)
    old.fails("told_without_pause", saying="weren't replaced by a rolling restart", hint="kubectl rollout restart")
    old.run("rollout restart deployment my-nginx")
    assert "know backend" in old.passes("told_without_pause")
    # asked at once: the pods are still being replaced. (kubectl refuses a second restart within the same second.)
    old.run("delete service backend", service)
    eventually(lambda: old.run("rollout restart deployment my-nginx") or True)
    assert "know backend" in old.passes("told_without_pause")
