"""What controllers, scheduler and proxy decide, without a cluster: pure functions and the work queue."""

from __future__ import annotations

import asyncio
import doctest
from datetime import datetime, timedelta, timezone

import pytest

from pocketkube import objects, proxy, quantity, scheduling
from pocketkube.controllers import base, deployment, endpoints, endpointslice, replicaset
from pocketkube.objects import timestamp
from pocketkube.proxy import Endpoint, Ruleset, endpoints_of, service_rules, transaction, usable

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=timezone.utc)


@pytest.mark.parametrize("module", [objects, proxy, quantity, scheduling, deployment, endpoints], ids=lambda module: module.__name__)
def test_the_examples_in_the_documentation(module):
    assert doctest.testmod(module).failed == 0


# --- the work queue -------------------------------------------------------------------------------------------------------


def test_a_key_added_while_it_is_worked_on_comes_once_more():
    async def run() -> None:
        queue = base.WorkQueue()
        queue.add("a")
        queue.add("a")
        assert await queue.take() == "a"
        queue.add("a")
        queue.add("b")
        assert await queue.take() == "b", "a is being worked on"
        queue.done("a")
        assert await queue.take() == "a"

    asyncio.run(asyncio.wait_for(run(), 5))


def test_failures_wait_longer_each_time_and_success_forgets_them():
    async def run() -> list[float]:
        queue = base.WorkQueue()
        delays = []
        for failed in (True, True, True, False, True):
            queue.add("a")
            await queue.take()
            delays.append(queue.done("a", failed=failed))
        queue.close()
        return delays

    first = base.FIRST_RETRY
    assert asyncio.run(asyncio.wait_for(run(), 5)) == [first, 2 * first, 4 * first, 0.0, first]


def test_the_earlier_of_two_appointments_counts():
    async def run() -> None:
        queue = base.WorkQueue()
        queue.add_after("a", 60)
        queue.add_after("a", 0.01)
        queue.add_after("a", 30)
        assert await queue.take() == "a"
        queue.close()

    asyncio.run(asyncio.wait_for(run(), 5))


# --- ReplicaSets ----------------------------------------------------------------------------------------------------------


def pod(name: str, *, node: str = "n1", phase: str = "Running", ready: bool = True, age: int = 100, **annotations: str) -> dict:
    made = timestamp(NOW - timedelta(seconds=age))
    return {
        "metadata": {
            "name": name,
            "uid": name,
            "namespace": "d",
            "creationTimestamp": made,
            "annotations": annotations,
            "labels": {"a": "b"},
        },
        "spec": {"nodeName": node, "containers": [{"name": "c"}]} if node else {"containers": [{"name": "c"}]},
        "status": {
            "phase": phase,
            "podIP": "10.0.0.1",
            "conditions": [{"type": "Ready", "status": str(ready), "lastTransitionTime": made}],
        },
    }


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (pod("z", node=""), pod("a")),
        (pod("z", phase="Pending"), pod("a")),
        (pod("z", ready=False), pod("a")),
        (pod("z", **{replicaset.DELETION_COST: "-5"}), pod("a")),
        (pod("z", node="crowded"), pod("a")),
        (pod("z", age=5), pod("a", age=5000)),
    ],
    ids=["unscheduled", "pending", "not ready", "cheap", "crowded node", "young"],
)
def test_which_pod_is_deleted_first(first, second):
    for order in ([first, second], [second, first]):
        assert replicaset.deletion_order(order, {"crowded": 3, "n1": 1}, NOW)[0]["metadata"]["name"] == "z"


def test_pods_of_about_the_same_age_are_chosen_by_uid():
    assert [each["metadata"]["name"] for each in replicaset.deletion_order([pod("b", age=9), pod("a", age=12)], {}, NOW)] == ["a", "b"]


# --- Deployments ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("replicas", "surge", "unavailable", "expected"),
    [(3, "25%", "25%", (1, 0)), (10, "25%", "25%", (3, 2)), (1, 0, 0, (0, 1)), (4, 0, "50%", (0, 2)), (100, "1%", "0%", (1, 0))],
)
def test_percentages_round_toward_more_pods(replicas, surge, unavailable, expected):
    rolling = {"maxSurge": surge, "maxUnavailable": unavailable}
    assert deployment.fenceposts({"spec": {"replicas": replicas, "strategy": {"rollingUpdate": rolling}}}) == expected


def test_the_hash_is_of_the_template_alone():
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    labelled = {"metadata": {"labels": {"a": "b", "pod-template-hash": "x"}}, "spec": template["spec"]}
    assert deployment.same_template(template, labelled)
    other = {**template, "spec": {"containers": [{"name": "c", "image": "j"}]}}
    assert not deployment.same_template(template, other)
    assert deployment.template_hash(template) != deployment.template_hash(other)
    assert deployment.template_hash(template) != deployment.template_hash(template, 1)


# --- EndpointSlices -------------------------------------------------------------------------------------------------------


def slice_of(name: str, addresses: list[str], ports: list[dict] | None) -> dict:
    return {
        "metadata": {"name": name, "namespace": "d", "labels": {"kubernetes.io/service-name": "s"}},
        "addressType": "IPv4",
        "ports": ports,
        "endpoints": [{"addresses": [address], "conditions": {"ready": True}, "nodeName": "n1"} for address in addresses],
    }


PORTS = [{"name": "", "port": 80, "protocol": "TCP"}]


def wanted(*addresses: str) -> dict:
    return {endpointslice.port_key(PORTS): (PORTS, [{"addresses": [address]} for address in addresses])}


def test_endpoints_stay_where_they_are():
    present = slice_of("s-1", ["10.0.0.3", "10.0.0.1"], PORTS)
    ((kept, _, listed),) = endpointslice.arrange([present], wanted("10.0.0.1", "10.0.0.2", "10.0.0.3"))
    assert kept is present
    assert [each["addresses"][0] for each in listed] == ["10.0.0.3", "10.0.0.1", "10.0.0.2"]


def test_an_empty_service_keeps_one_slice_and_uses_it_again():
    present = slice_of("s-1", ["10.0.0.1"], PORTS)
    assert endpointslice.arrange([present], {}) == [(present, [], [])]
    placeholder = slice_of("s-1", [], None)
    ((kept, ports, listed),) = endpointslice.arrange([placeholder], wanted("10.0.0.9"))
    assert (kept, ports, len(listed)) == (placeholder, PORTS, 1)
    assert endpointslice.arrange([], {}) == [(None, [], [])]


def test_a_slice_holds_a_hundred():
    plan = endpointslice.arrange([], wanted(*(f"10.0.{number // 250}.{number % 250}" for number in range(230))))
    assert [len(listed) for _, _, listed in plan] == [100, 100, 30]


def test_kube_proxy_reads_absent_conditions_as_ready():
    item = slice_of("s-1", ["10.0.0.1"], PORTS)
    item["endpoints"] = [
        {"addresses": ["10.0.0.1"]},
        {"addresses": ["10.0.0.2"], "conditions": {"ready": False}},
        {"addresses": ["10.0.0.3"], "conditions": {"ready": False, "serving": True, "terminating": True}},
    ]
    found = endpoints_of([item], "", "TCP")
    assert [(each.ip, each.ready, each.serving, each.terminating) for each in found] == [
        ("10.0.0.1", True, True, False),
        ("10.0.0.2", False, False, False),
        ("10.0.0.3", False, True, True),
    ]
    assert [each.ip for each in usable(found)] == ["10.0.0.1"]
    assert [each.ip for each in usable(found[1:])] == ["10.0.0.3"]
    assert usable([Endpoint("10.0.0.2", 80, ready=False, serving=False)]) == []


# --- rules ----------------------------------------------------------------------------------------------------------------


def a_service(**spec) -> dict:
    body = {"clusterIP": "10.96.0.9", "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30001}], **spec}
    return {"metadata": {"name": "s", "namespace": "d"}, "spec": body}


def rules(spec: dict, addresses: list[str], node: str = "n1") -> Ruleset:
    return service_rules(a_service(**spec), [slice_of("s-1", addresses, PORTS)], node, "10.244.0.0/16")


def test_no_change_is_no_transaction_and_a_way_back_exists():
    before, after = rules({}, ["10.0.0.1", "10.0.0.2"]), rules({}, ["10.0.0.2"])
    assert transaction(after, rules({}, ["10.0.0.2"])) == ("", "")
    change, deletions = transaction(before, after)
    assert "flush chain ip kube-proxy service-" in change
    (gone,) = before.chains.keys() - after.chains.keys()
    assert deletions == f"delete chain ip kube-proxy {gone}\n"
    back, nothing = transaction(after, before)
    assert f"add chain ip kube-proxy {gone}" in back and nothing == ""


def test_one_endpoint_more_touches_nothing_but_its_service():
    before, after = rules({}, ["10.0.0.1"]), rules({}, ["10.0.0.1", "10.0.0.2"])
    other = service_rules({**a_service(clusterIP="10.96.0.10"), "metadata": {"name": "other", "namespace": "d"}}, [], "n1", "10.244.0.0/16")
    for each in (before, after):
        each.merge(other)
    change, _ = transaction(before, after)
    assert "other" not in change
    assert "service-ips" not in change


def test_a_service_without_local_endpoints_is_dropped_not_refused():
    spec = {"type": "NodePort", "externalTrafficPolicy": "Local"}
    here, there, empty = rules(spec, ["10.0.0.1"]), rules(spec, ["10.0.0.1"], node="n2"), rules(spec, [])
    assert "tcp . 30001" not in here.elements["no-endpoint-nodeports"]
    assert there.elements["no-endpoint-nodeports"]["tcp . 30001"] == ' comment "d/s" : drop'
    assert there.elements["service-nodeports"]["tcp . 30001"].startswith(" : goto external-")
    assert empty.elements["no-endpoint-nodeports"]["tcp . 30001"] == ' comment "d/s" : goto reject-chain'


@pytest.mark.parametrize("spec", [{"clusterIP": "None"}, {"type": "ExternalName", "clusterIP": ""}])
def test_services_without_a_cluster_ip_have_no_rules(spec):
    found = rules(spec, ["10.0.0.1"])
    assert (found.chains, dict(found.elements)) == ({}, {})


# --- scheduling -----------------------------------------------------------------------------------------------------------


def node(name: str, cpu: str = "2") -> scheduling.NodeState:
    return scheduling.NodeState(
        {
            "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
            "spec": {},
            "status": {"allocatable": {"cpu": cpu, "pods": "110"}},
        }
    )


def test_requests_of_placed_pods_count():
    asking = pod("new", node="")
    asking["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "1500m"}}
    states = [node("n1"), node("n2")]
    states[0].add(("d", "old"), {**asking, "metadata": {**asking["metadata"], "name": "old"}})
    assert scheduling.Placement(asking, states).choose()[0] == "n2"
    states[1].add(("d", "other"), asking)
    chosen, rejections = scheduling.Placement(asking, states).choose()
    assert chosen is None
    assert scheduling.explain(rejections) == (
        "0/2 nodes are available: 2 Insufficient cpu. no new claims to deallocate, "
        "preemption: 0/2 nodes are available: 2 No preemption victims found for incoming pod."
    )
    states[1].remove(("d", "other"))
    assert scheduling.Placement(asking, states).choose()[0] == "n2"


def test_no_node_at_all():
    assert scheduling.explain(scheduling.Placement(pod("p", node=""), []).choose()[1]) == "no nodes available to schedule pods"


@pytest.mark.parametrize(
    ("toleration", "expected"),
    [
        ({"key": "a", "operator": "Exists"}, True),
        ({"key": "a", "value": "b"}, True),
        ({"key": "a", "value": "c"}, False),
        ({"key": "a", "operator": "Exists", "effect": "NoExecute"}, False),
        ({"operator": "Exists"}, True),
        ({"key": "b", "operator": "Exists"}, False),
    ],
)
def test_tolerations(toleration, expected):
    assert scheduling.tolerates(toleration, {"key": "a", "value": "b", "effect": "NoSchedule"}) is expected


@pytest.mark.parametrize("text", ["", "x", "1Qi", "1 Gi", "--1"])
def test_what_is_not_a_quantity_is_refused(text):
    with pytest.raises(ValueError, match="is not a quantity"):
        quantity.parse_quantity(text)
