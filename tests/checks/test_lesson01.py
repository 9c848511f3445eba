"""Checks of lesson 01, both ways."""

import json
from types import SimpleNamespace

import pytest

from servicelab.checks import Missing, check
from servicelab.checks.looks import live_pods

MOVED = "sed -i 's/80;/8080;/' /etc/nginx/conf.d/default.conf && nginx -s reload"


def apply(asked, *names: str) -> None:
    for name in names:
        asked.run(f"apply -f {asked.lab.manifest(name)}")


def test_servers_and_addresses(asked):
    asked.fails("servers_run", saying="0 of 2 pods", hint="kubectl apply")
    apply(asked, "run-my-nginx.yaml")
    asked.passes("servers_run", replicas=2)
    asked.fails("servers_run", replicas=3, saying="2 of 3 pods", hint="kubectl apply")
    asked.run("scale deployment my-nginx --replicas=0")
    asked.kube.wait("delete", "pod", "-l", "run=my-nginx")
    asked.run("set image deployment/my-nginx my-nginx=no.such.registry/nothing:1", "scale deployment my-nginx --replicas=3")
    asked.fails("servers_run", replicas=3, saying="can't be pulled", hint="kubectl apply")
    asked.run("rollout undo deployment/my-nginx", "scale deployment my-nginx --replicas=2")
    asked.kube.rollout("my-nginx")

    before = [pod["status"]["podIP"] for pod in live_pods(asked.lab, "run=my-nginx")]  # those that end may not have had an address
    asked.fails("addresses_changed", before, saying="still in use", hint="kubectl delete pod -l run=my-nginx")
    asked.run("delete pods -l run=my-nginx")
    asked.passes("addresses_changed", before, replicas=2)


def test_reached_and_seen(asked):
    asked.fails("many_on_one_node", saying="0 of 2 pods", hint="kubectl apply")
    asked.fails("nodes_reach_pods", saying="0 of 2 pods", hint="kubectl apply")
    asked.fails("no_nat", saying="there is no pod curl", hint="manifests/curl.yaml")
    apply(asked, "run-my-nginx.yaml", "curl.yaml")
    asked.passes("no_nat")
    asked.passes("nodes_reach_pods")
    asked.fails("many_on_one_node", saying="no node runs two pods", hint="--replicas=6")
    asked.run("scale deployment my-nginx --replicas=6")
    asked.kube.rollout("my-nginx")
    asked.passes("many_on_one_node")
    # A server that runs and doesn't listen where it should.
    pod = asked.kube.list("pods", "run=my-nginx")[0]["metadata"]["name"]
    asked.kube.exec(pod, "sh", "-c", MOVED)
    asked.fails("many_on_one_node", saying="doesn't answer on port 80", hint=f"kubectl logs {pod}")
    asked.fails("no_nat", saying="doesn't answer", hint="kubectl get pods")
    asked.fails("nodes_reach_pods", saying="answers 000", hint="Does the pod still run?")


def test_one_network_in_a_pod(asked):
    asked.fails("one_network_in_a_pod", saying="there is no pod two-in-one", hint="kubectl apply")
    apply(asked, "two-in-one.yaml")
    asked.passes("one_network_in_a_pod")
    asked.kube.exec("two-in-one", "sh", "-c", MOVED, container="web")
    asked.fails("one_network_in_a_pod", saying="HTTP status 000", hint="kubectl describe pod")
    asked.kube.kubectl("exec", "two-in-one", "-c", "web", "--", "nginx", "-s", "quit", check=False)
    asked.run("delete pod two-in-one --wait=false")
    asked.fails("one_network_in_a_pod", saying="there is no pod two-in-one", hint="kubectl apply")


def test_port_conflict_and_its_end(asked):
    asked.fails("port_conflict", saying="there are no pods of host-port", hint="kubectl apply")
    asked.fails("ports_freed", saying="there is no Deployment host-port", hint="kubectl apply")
    apply(asked, "host-port.yaml")
    assert "1 waits" in asked.passes("port_conflict")
    asked.fails("ports_freed", saying="still claim port 8081", hint="kubectl patch deployment host-port")
    asked.run("scale deployment host-port --replicas=2")
    asked.fails("port_conflict", saying="none of the 2 pods", hint="more pods than nodes")
    asked.fails("ports_freed", saying="fewer pods, the same quarrel", hint="--replicas=3")
    asked.run("scale deployment host-port --replicas=3")
    without = [{"op": "remove", "path": "/spec/template/spec/containers/0/ports/0/hostPort"}]
    asked.kube.kubectl("patch", "deployment", "host-port", "--type=json", "-p", json.dumps(without))
    assert "3 pods run" in asked.passes("ports_freed")
    asked.fails("port_conflict", saying="none of the 3 pods", hint="hostPort")


def test_port_conflict_waits_for_a_pod_that_is_just_being_placed():
    """The scheduler writes that one pod fits nowhere before the API shows on which node it has put the other."""

    def pod(name: str, **conditions: str) -> dict:
        found = [{"type": type_, "status": status, "message": "no free ports"} for type_, status in conditions.items()]
        spec = {"containers": [{"name": "web", "ports": [{"containerPort": 80, "hostPort": 8081}]}]}
        return {"metadata": {"name": name}, "spec": spec, "status": {"conditions": found}}

    runs, waits = pod("a", PodScheduled="True", Ready="True"), pod("c", PodScheduled="False")
    lab = SimpleNamespace(list=lambda kind, selector: [runs, pod("b"), waits])
    with pytest.raises(Missing, match="pod b is Pending"):
        check.port_conflict.look(lab)
    lab = SimpleNamespace(list=lambda kind, selector: [runs, pod("b", PodScheduled="True", Ready="True"), waits])
    assert check.port_conflict.look(lab).startswith("2 pods own port 8081 of a node each; 1 waits")


def test_twins(asked):
    asked.fails("twins", saying="there is no pod twins", hint="kubectl apply")
    apply(asked, "twins.yaml", "curl.yaml")
    asked.fails("twins", saying="has exited with code 1", hint="only one of them can have port 80")
    asked.run("delete pod twins", "run twins --image=nginx:1.29-alpine")
    asked.fails("twins", saying="has 1 container with nginx", hint="two entries")

    def twins(port: int) -> dict:
        move = f"sed -i 's/80;/{port};/' /etc/nginx/conf.d/default.conf; exec nginx -g 'daemon off;'"
        image = "nginx:1.29-alpine"
        containers = [{"name": "one", "image": image}, {"name": "two", "image": image, "command": ["sh", "-c", move]}]
        spec = {"terminationGracePeriodSeconds": 1, "containers": containers}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "twins"}, "spec": spec}

    asked.run("delete pod twins")
    asked.kube.apply(twins(8081))
    asked.fails("twins", saying="nobody serves port 8080", hint="kubectl exec twins -c two")
    asked.run("delete pod twins")
    asked.kube.apply(twins(8080))
    assert "80 and 8080" in asked.passes("twins")
