"""Where pods go, and what the scheduler says when they go nowhere. The same on pocket and on kind."""

from __future__ import annotations

import json
from collections import Counter

from workloads import deployment, pod

PREEMPTION = "no new claims to deallocate, preemption: 0/3 nodes are available:"


def unschedulable(kube, name: str) -> str:
    """Wait for the scheduler's message about a pod, and see that condition and event agree."""

    def message() -> str:
        found = kube.get("pod", name)
        for condition in found["status"].get("conditions", []):
            if condition["type"] == "PodScheduled":
                assert (condition["status"], condition["reason"]) == ("False", "Unschedulable")
                return condition["message"]
        return ""

    text = kube.wait(message)
    assert kube.get("pod", name)["status"]["phase"] == "Pending"

    def agrees() -> bool:
        found = [(each["message"], each["type"], each["reportingComponent"]) for each in events(kube, name, "FailedScheduling")]
        assert (text, "Warning", "default-scheduler") in found, found
        return True

    kube.wait(agrees)
    return text


def events(kube, name: str, reason: str) -> list[dict]:
    """A pod's events of one kind; the scheduler sends them on the side."""
    return [each for each in kube.list("events") if each["involvedObject"]["name"] == name and each["reason"] == reason]


def node_of(kube, name: str) -> str:
    return kube.wait(lambda: kube.get("pod", name)["spec"].get("nodeName"))


def on(node: str) -> dict:
    return {"nodeSelector": {"kubernetes.io/hostname": node}}


def test_the_pods_of_one_owner_are_spread_over_the_workers(kube):
    kube.apply(deployment("spread", 4))
    kube.rollout("spread")
    places = Counter(each["spec"]["nodeName"] for each in kube.list("pods", "app=spread"))
    assert places == {kube.nodes[1]: 2, kube.nodes[2]: 2}
    name = kube.list("pods", "app=spread")[0]["metadata"]["name"]
    node = kube.get("pod", name)["spec"]["nodeName"]
    (scheduled,) = kube.wait(lambda: events(kube, name, "Scheduled"))
    assert scheduled["message"] == f"Successfully assigned {kube.name}/{name} to {node}"


def test_a_node_selector_that_no_node_has(kube):
    kube.apply(pod("nowhere", spec={"nodeSelector": {"disk": "ssd"}}))
    assert unschedulable(kube, "nowhere") == (
        "0/3 nodes are available: 1 node(s) had untolerated taint(s), 2 node(s) didn't match Pod's node affinity/selector. "
        f"{PREEMPTION} 3 Preemption is not helpful for scheduling."
    )


def test_a_host_port_can_be_had_once_a_node_and_is_given_on_when_free(kube):
    ports = [{"containerPort": 80, "hostPort": 28080}]
    kube.apply([pod("first", spec=on(kube.nodes[1]), ports=ports)])
    kube.wait("condition=Ready", "pod/first")
    kube.apply([pod("second", spec=on(kube.nodes[1]), ports=ports)])
    assert unschedulable(kube, "second") == (
        "0/3 nodes are available: 1 node(s) didn't have free ports for the requested pod ports, "
        "1 node(s) didn't match Pod's node affinity/selector, 1 node(s) had untolerated taint(s). "
        f"{PREEMPTION} 1 No preemption victims found for incoming pod, 2 Preemption is not helpful for scheduling."
    )
    kube.apply([pod("udp", spec=on(kube.nodes[1]), ports=[{"containerPort": 80, "hostPort": 28080, "protocol": "UDP"}])])
    assert node_of(kube, "udp") == kube.nodes[1]
    kube.kubectl("delete", "pod", "first")
    kube.wait("condition=Ready", "pod/second")


def test_more_than_any_node_has(kube):
    kube.apply(pod("huge", resources={"requests": {"cpu": "4000", "memory": "9Ti"}}))
    assert unschedulable(kube, "huge") == (
        "0/3 nodes are available: 1 node(s) had untolerated taint(s), 2 Insufficient cpu, 2 Insufficient memory. "
        f"{PREEMPTION} 3 Preemption is not helpful for scheduling."
    )


def test_pods_that_keep_apart(kube):
    term = {"labelSelector": {"matchLabels": {"app": "apart"}}, "topologyKey": "kubernetes.io/hostname"}
    apart = {"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}
    kube.apply(deployment("apart", 3, pod=apart))

    def settled() -> list:
        pods = kube.list("pods", "app=apart")
        assert len([each for each in pods if each["spec"].get("nodeName")]) == 2
        return [each for each in pods if not each["spec"].get("nodeName") and each["status"].get("conditions")]

    (left,) = kube.wait(settled)
    assert unschedulable(kube, left["metadata"]["name"]) == (
        "0/3 nodes are available: 1 node(s) had untolerated taint(s), 2 node(s) didn't match pod anti-affinity rules. "
        f"{PREEMPTION} 1 Preemption is not helpful for scheduling, 2 No preemption victims found for incoming pod."
    )


def test_spread_constraints(kube):
    def constraint(key: str) -> dict:
        selector = {"matchLabels": {"app": key.rpartition("/")[2]}}
        return {
            "topologySpreadConstraints": [
                {"maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": "DoNotSchedule", "labelSelector": selector}
            ]
        }

    kube.apply(pod("unzoned", {"app": "shelf"}, spec=constraint("example.com/shelf")))
    assert unschedulable(kube, "unzoned") == (
        "0/3 nodes are available: 1 node(s) had untolerated taint(s), "
        "2 node(s) didn't match pod topology spread constraints (missing required label). "
        f"{PREEMPTION} 3 Preemption is not helpful for scheduling."
    )


def test_affinity_brings_pods_together(kube):
    kube.apply(pod("host", {"team": "a"}, spec=on(kube.nodes[2])))
    term = {"labelSelector": {"matchLabels": {"team": "a"}}, "topologyKey": "kubernetes.io/hostname"}
    kube.apply(pod("guest", spec={"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}))
    assert node_of(kube, "guest") == kube.nodes[2]


def test_a_toleration_and_a_node_affinity_lead_to_the_control_plane(kube):
    expression = {"key": "node-role.kubernetes.io/control-plane", "operator": "Exists"}
    required = {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}
    spec = {
        "tolerations": [{"key": "node-role.kubernetes.io/control-plane", "operator": "Exists", "effect": "NoSchedule"}],
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}},
    }
    kube.apply(pod("chief", spec=spec))
    assert node_of(kube, "chief") == kube.nodes[0]


def test_a_node_name_is_taken_without_asking(kube):
    kube.apply(pod("direct", spec={"nodeName": kube.nodes[0]}))
    kube.wait("condition=Ready", "pod/direct")
    assert not events(kube, "direct", "Scheduled")


def test_a_pod_with_another_scheduler_waits_for_it(kube):
    kube.apply([pod("other", spec={"schedulerName": "mine"}), pod("gated", spec={"schedulingGates": [{"name": "example.com/wait"}]})])
    kube.apply(pod("after"))
    node_of(kube, "after")
    assert "nodeName" not in kube.get("pod", "other")["spec"]
    assert "nodeName" not in kube.get("pod", "gated")["spec"]
    kube.kubectl("patch", "pod", "gated", "--type=json", "-p", json.dumps([{"op": "remove", "path": "/spec/schedulingGates"}]))
    assert node_of(kube, "gated")
