"""The model behind the pictures: what API objects mean, and how watch events change it."""

import pytest
from view_objects import endpoint_slice, pod, service, world

from servicelab.views.world import World, owner_of, pod_state


@pytest.mark.parametrize(
    ("obj", "state"),
    [
        (pod("a"), ("ready", "")),
        (pod("a", ready=False), ("not ready", "")),
        (pod("a", ready=False, waiting="CrashLoopBackOff"), ("not ready", "CrashLoopBackOff")),
        (pod("a", ready=False, phase="Pending", waiting="ImagePullBackOff"), ("pending", "ImagePullBackOff")),
        (pod("a", phase="Pending", node="", conditions=[{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]),
         ("pending", "Unschedulable")),
        (pod("a", deleting=True), ("terminating", "")),
        (pod("a", phase="Failed", ready=False, reason="Evicted"), ("failed", "Evicted")),
        (pod("a", phase="Succeeded", ready=False), ("done", "Completed")),
        ({"metadata": {"name": "bare"}}, ("pending", "")),
    ],
)  # fmt: skip
def test_a_pods_state_and_its_reason_in_kubernetes_own_word(obj, state):
    assert pod_state(obj) == state


def test_a_pods_owner_is_the_deployment_and_not_its_replicaset():
    assert owner_of(pod("my-nginx-66b6c48dd5-x7k2p", owner="my-nginx")) == "my-nginx"
    stateful = pod("db-0")
    stateful["metadata"]["ownerReferences"] = [{"kind": "StatefulSet", "name": "db", "controller": True}]
    assert owner_of(stateful) == "db"
    assert owner_of(pod("curl")) == "curl"


def test_watch_events_change_the_world_and_a_fresh_list_replaces_it():
    seen = World()
    seen.replace("pods", [pod("a"), pod("b")])
    seen.apply("pods", "ADDED", pod("c"))
    seen.apply("pods", "MODIFIED", pod("a", deleting=True))
    seen.apply("pods", "DELETED", pod("b"))
    seen.apply("pods", "DELETED", pod("never-there"))
    assert {p.name: p.state for p in seen.pods()} == {"a": "terminating", "c": "ready"}
    seen.replace("pods", [pod("d")])
    assert [p.name for p in seen.pods()] == ["d"]


def test_endpoints_of_several_slices_are_joined_and_unset_readiness_means_ready():
    one, two = pod("a", ip="10.244.1.10"), pod("b", ip="10.244.1.9", deleting=True)
    unset = endpoint_slice("web", pod("c", ip="10.244.2.3"))
    unset["endpoints"][0]["conditions"] = {}
    empty = {"metadata": {"name": "web-empty", "namespace": "default", "labels": {"kubernetes.io/service-name": "web"}}, "endpoints": None}
    seen = world(
        [one, two], [service("web")], [endpoint_slice("web", one), endpoint_slice("web", two), unset, empty, endpoint_slice("else", one)]
    )
    assert [(e.address, e.ready, e.serving, e.terminating) for e in seen.endpoints("web")] == [
        ("10.244.1.9", False, True, True),
        ("10.244.1.10", True, True, False),
        ("10.244.2.3", True, True, False),
    ]


def test_a_service_selects_by_all_of_its_labels_and_without_a_selector_nothing():
    pods = [pod("a", labels={"tier": "x"}), pod("b", labels={"tier": "y"})]
    seen = world(pods, [service("both", selector={"app": "a", "tier": "x"}), service("none", selector={})])
    assert [p.name for p in seen.selected(seen.service("both"))] == ["a"]
    assert seen.selected(seen.service("none")) == []


def test_nodes_that_may_not_be_listed_are_known_by_their_pods():
    seen = World()
    seen.replace("pods", [pod("a", node="worker7"), pod("b", node="")])
    assert seen.nodes() == [("worker7", False)]
