"""Services as packets meet them: who answers, who is refused, whose address the server sees. The same on pocket and on kind."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections import Counter

import pytest
from workloads import HELD, HELD_FOR, LISTENS, deployment, let_go, pod, service

from harness import eventually

REFUSED = 7  # curl's exit status for "connection refused"


@pytest.fixture(scope="module")
def web(kube):
    """Two pods that answer with their names, on two nodes, and a client on each worker."""
    clients = [pod(f"client{number}", spec={"nodeSelector": {"kubernetes.io/hostname": kube.nodes[number]}}) for number in (1, 2)]
    kube.apply([deployment("web", startupProbe=LISTENS), *clients])
    kube.rollout("web")
    kube.wait("condition=Ready", "pod/client1", "pod/client2")
    return {each["metadata"]["name"]: each for each in kube.list("pods", "app=web")}


def curl(kube, client: str, url: str, times: int = 1) -> list[str]:
    """What some requests were answered, each over a connection of its own."""
    loop = f"for i in $(seq {times}); do curl -sS --max-time 20 {url} || exit $?; done"
    done = kube.kubectl("exec", client, "--", "sh", "-c", loop, check=False)
    assert done.returncode == 0, f"curl {url} in {client}: {done.returncode} {done.stderr}"
    return done.stdout.split()


def status(kube, client: str, url: str) -> int:
    """curl's exit status; 22 for an answer that is an HTTP error.

    Before a Service's rules are in the kernel, a packet to its address leaves the cluster, and some networks have a server that
    answers at any address: with an error, since it doesn't know the page.
    """
    return kube.kubectl("exec", client, "--", "curl", "-sf", "-o", "/dev/null", "--max-time", "3", url, check=False).returncode


def outside(kube, url: str, *options: str) -> tuple[int, str]:
    done = kube.outside_run(["curl", "-sS", "--max-time", "4", *options, url])
    return done.returncode, done.stdout.strip()


def seen(kube, names, path: str, times: int) -> dict[str, set[str]]:
    """The client addresses in each pod's access log for one path, once the logs have all requests (nginx writes after it answers)."""

    def logs() -> dict[str, list[str]]:
        lines = {name: [line for line in kube.kubectl("logs", name).stdout.splitlines() if f" /{path} " in line] for name in names}
        clients = {name: [line.split()[0] for line in lines[name] if " - - [" in line] for name in names}  # not those of the error log
        assert sum(map(len, clients.values())) >= times, clients
        return clients

    return {name: set(clients) for name, clients in eventually(logs).items()}


def cluster_ip(kube, name: str) -> str:
    return kube.get("service", name)["spec"]["clusterIP"]


def internal_ips(kube) -> list[str]:
    nodes = json.loads(kube.kubectl("get", "nodes", "-o", "json").stdout)["items"]
    found = {
        node["metadata"]["name"]: address["address"]
        for node in nodes
        for address in node["status"]["addresses"]
        if address["type"] == "InternalIP"
    }
    return [found[name] for name in kube.nodes]


def slices(kube, name: str) -> list[dict]:
    return kube.list("endpointslices", f"kubernetes.io/service-name={name}")


def endpoints(kube, name: str) -> list[dict]:
    return [endpoint for each in slices(kube, name) for endpoint in each.get("endpoints") or ()]


def test_every_ready_pod_answers_behind_one_address(kube, web):
    kube.apply(service("everyone", {"app": "web"}, port=8080))
    url = f"http://{cluster_ip(kube, 'everyone')}:8080"
    eventually(lambda: status(kube, "client1", url) == 0)
    answers = Counter(curl(kube, "client1", url, 40))
    assert set(answers) == set(web)
    assert min(answers.values()) >= 5


def test_a_pod_sees_its_client_s_own_address_and_itself_from_its_node(kube, web):
    kube.apply(service("source", {"app": "web"}))
    url = f"http://{cluster_ip(kube, 'source')}"
    eventually(lambda: status(kube, "client1", url) == 0)
    curl(kube, "client1", f"{url}/from-client -o /dev/null", 12)
    client = kube.get("pod", "client1")["status"]["podIP"]
    assert set().union(*seen(kube, web, "from-client", 12).values()) == {client}
    name, other = web
    eventually(lambda: status(kube, name, url) == 0)  # each node has rules of its own
    curl(kube, name, f"{url}/from-itself -o /dev/null", 20)
    own = web[name]["status"]["podIP"]
    logged = seen(kube, web, "from-itself", 20)
    assert logged[name] and own not in logged[name], "a pod that reaches itself through its Service is masqueraded"
    assert logged[other] == {own}


def test_no_endpoints_and_unknown_ports_are_refused(kube, web):
    kube.apply([service("empty", {"app": "nobody"}), service("refusing", {"app": "web"})])
    for client in ("client1", "client2"):
        eventually(lambda client=client: status(kube, client, f"http://{cluster_ip(kube, 'empty')}") == REFUSED)
        eventually(lambda client=client: status(kube, client, f"http://{cluster_ip(kube, 'refusing')}:81") == REFUSED)
    connect = f"import socket\ntry: socket.create_connection(('{cluster_ip(kube, 'empty')}', 80), 3)\nexcept OSError as e: print(e.errno)"
    eventually(lambda: kube.python_on_node(kube.nodes[1], connect).strip() == "111")


def test_slices_and_endpoints_say_the_same(kube, web):
    both = [{"name": "plain", "port": 80, "targetPort": "http"}, {"name": "again", "port": 81, "targetPort": 80}]
    kube.apply(service("described", {"app": "web"}, ports=both))
    kube.wait(lambda: len(endpoints(kube, "described")) == 2)
    (each,) = slices(kube, "described")
    made = kube.get("service", "described")
    assert re.fullmatch(r"described-[a-z0-9]{5}", each["metadata"]["name"])
    assert each["metadata"]["generateName"] == "described-"
    assert each["metadata"]["labels"] == {
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
        "kubernetes.io/service-name": "described",
    }
    (owner,) = each["metadata"]["ownerReferences"]
    assert owner == {
        "apiVersion": "v1",
        "kind": "Service",
        "name": "described",
        "uid": made["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
    for endpoint in each["endpoints"]:
        behind = web[endpoint["targetRef"]["name"]]
        assert endpoint == {
            "addresses": [behind["status"]["podIP"]],
            "conditions": {"ready": True, "serving": True, "terminating": False},
            "nodeName": behind["spec"]["nodeName"],
            "targetRef": {
                "kind": "Pod",
                "namespace": kube.name,
                "name": behind["metadata"]["name"],
                "uid": behind["metadata"]["uid"],
            },
        }
    kube.wait(lambda: kube.kubectl("get", "endpoints", "described", check=False).returncode == 0)
    kube.wait(lambda: kube.get("endpoints", "described").get("subsets"))
    legacy = kube.get("endpoints", "described")
    (subset,) = legacy["subsets"]
    assert [address["ip"] for address in subset["addresses"]] == sorted(each["status"]["podIP"] for each in web.values())
    assert legacy["metadata"]["labels"] == {"endpoints.kubernetes.io/managed-by": "endpoint-controller"}
    # Controllers sort ports by a hash; people see the order in kubectl's tables.
    assert [port["name"] for port in each["ports"]] == ["again", "plain"]
    assert [port["name"] for port in subset["ports"]] == ["again", "plain"]


def test_a_named_port_is_looked_up_in_each_pod(kube):
    kube.apply(
        [
            deployment("port-a", 1, ports=[{"name": "www", "containerPort": 80}]),
            deployment("port-b", 1, ports=[{"name": "www", "containerPort": 8099}]),
            deployment("port-c", 1, ports=[{"name": "other", "containerPort": 80}]),
        ]
    )
    for name in ("port-a", "port-b", "port-c"):
        kube.kubectl("patch", "deployment", name, "-p", '{"spec":{"template":{"metadata":{"labels":{"group":"named"}}}}}')
        kube.rollout(name)
    kube.apply(service("named", {"group": "named"}, target="www"))

    def ports() -> bool:
        found = {(port["port"], len(each["endpoints"] or ())) for each in slices(kube, "named") for port in each["ports"] or ()}
        assert found == {(80, 1), (8099, 1)}
        return True

    kube.wait(ports)


def test_a_pod_that_is_not_ready_gets_no_traffic_unless_so_published(kube, web):
    probe = {"exec": {"command": ["test", "-e", "/tmp/ready"]}, "periodSeconds": 1, "timeoutSeconds": 20, "failureThreshold": 1}
    kube.apply([deployment("moody", 1, readinessProbe=probe), service("moody", {"app": "moody"})])
    kube.apply(service("moody-all", {"app": "moody"}, publishNotReadyAddresses=True))
    name = kube.wait(lambda: [each["metadata"]["name"] for each in kube.list("pods", "app=moody") if each["status"].get("podIP")])[0]
    url, published = (f"http://{cluster_ip(kube, each)}" for each in ("moody", "moody-all"))
    kube.wait(
        lambda: [each["conditions"] for each in endpoints(kube, "moody")] == [{"ready": False, "serving": False, "terminating": False}]
    )
    kube.wait(lambda: [each["conditions"]["ready"] for each in endpoints(kube, "moody-all")] == [True])
    eventually(lambda: status(kube, "client1", published) == 0)
    eventually(lambda: status(kube, "client1", url) == REFUSED)
    kube.wait(lambda: (kube.get("endpoints", "moody").get("subsets") or [{}])[0].get("notReadyAddresses"))
    kube.exec(name, "touch", "/tmp/ready")
    eventually(lambda: status(kube, "client1", url) == 0)
    kube.exec(name, "rm", "/tmp/ready")
    eventually(lambda: status(kube, "client1", url) == REFUSED)


def test_a_terminating_pod_leaves_and_its_connections_stay(kube, web):
    held = deployment("leaving", 2, pod={"terminationGracePeriodSeconds": HELD_FOR}, lifecycle=HELD)
    kube.apply([held, service("leaving", {"app": "leaving"})])
    kube.rollout("leaving")
    url = f"http://{cluster_ip(kube, 'leaving')}"
    eventually(lambda: status(kube, "client1", url) == 0)
    victim = kube.list("pods", "app=leaving")[0]["metadata"]["name"]
    kube.kubectl("delete", "pod", victim, "--wait=false")

    def conditions() -> bool:
        found = {each["targetRef"]["name"]: each["conditions"] for each in endpoints(kube, "leaving")}
        assert found[victim] == {"ready": False, "serving": True, "terminating": True}
        return True

    kube.wait(conditions)
    eventually(lambda: victim not in curl(kube, "client1", url, 12), timeout=HELD_FOR / 2)
    kube.rollout("leaving")  # the victim's successor runs
    let_go(kube, *(each["metadata"]["name"] for each in kube.list("pods", "app=leaving")))


def test_the_last_pods_serve_on_while_they_terminate(kube, web):
    held = deployment("last", 1, pod={"terminationGracePeriodSeconds": HELD_FOR}, lifecycle=HELD)
    kube.apply([held, service("last", {"app": "last"})])
    kube.rollout("last")
    (name,) = (each["metadata"]["name"] for each in kube.list("pods", "app=last"))
    url = f"http://{cluster_ip(kube, 'last')}"
    eventually(lambda: status(kube, "client1", url) == 0)
    kube.kubectl("scale", "deployment/last", "--replicas=0")
    kube.wait(lambda: [each["conditions"]["terminating"] for each in endpoints(kube, "last")] == [True])
    assert status(kube, "client1", url) == 0
    let_go(kube, name)
    eventually(lambda: status(kube, "client1", url) == REFUSED)


def test_a_client_with_affinity_keeps_its_pod(kube, web):
    kube.apply(service("sticky", {"app": "web"}, sessionAffinity="ClientIP"))
    url = f"http://{cluster_ip(kube, 'sticky')}"
    eventually(lambda: status(kube, "client1", url) == 0)
    assert len(set(curl(kube, "client1", url, 20))) == 1


def test_a_node_port_on_every_node_hides_the_client(kube, web):
    kube.apply(service("door", {"app": "web"}, type="NodePort"))
    port = kube.get("service", "door")["spec"]["ports"][0]["nodePort"]
    assert 30000 <= port <= 32767
    for address in internal_ips(kube):
        eventually(lambda address=address: outside(kube, f"http://{address}:{port}")[0] == 0)
        for _ in range(4):
            eventually(lambda address=address: outside(kube, f"http://{address}:{port}/through-the-door")[0] == 0)
    addresses = set().union(*seen(kube, web, "through-the-door", 4 * len(kube.nodes)).values())
    # Masqueraded: each pod saw a node's address (of its cable to the node, or of its own node's end of the pod's).
    gateways = {re.sub(r"\d+$", "1", each["status"]["podIP"]) for each in web.values()}
    assert addresses and addresses <= {*internal_ips(kube), *gateways}


def test_a_local_node_port_shows_the_client_and_answers_only_where_a_pod_is(kube, web):
    kube.apply(deployment("local", 1, pod={"nodeSelector": {"kubernetes.io/hostname": kube.nodes[1]}}))
    kube.apply(service("local", {"app": "local"}, type="NodePort", externalTrafficPolicy="Local"))
    kube.rollout("local")
    port = kube.get("service", "local")["spec"]["ports"][0]["nodePort"]
    name = kube.list("pods", "app=local")[0]["metadata"]["name"]
    _, here, there = internal_ips(kube)
    eventually(lambda: outside(kube, f"http://{here}:{port}/kept")[0] == 0)
    kept = seen(kube, [name], "kept", 1)[name]
    gateway = re.sub(r"\d+$", "1", kube.get("pod", name)["status"]["podIP"])
    assert kept and not kept & {here, there, gateway}
    # dropped: another node may have a pod, so this one keeps silent
    eventually(lambda: outside(kube, f"http://{there}:{port}", "--connect-timeout", "1.5")[0] == 28)
    eventually(lambda: status(kube, "client2", f"http://{there}:{port}") == 0)  # from inside the cluster every node will do


def test_internal_traffic_policy_local(kube, web):
    kube.apply(deployment("near", 1, pod={"nodeSelector": {"kubernetes.io/hostname": kube.nodes[1]}}))
    kube.apply(service("near", {"app": "near"}, internalTrafficPolicy="Local"))
    kube.rollout("near")
    url = f"http://{cluster_ip(kube, 'near')}"
    eventually(lambda: status(kube, "client1", url) == 0)
    eventually(lambda: status(kube, "client2", url) == 28)


def test_a_headless_service_has_endpoints_but_no_rules(kube, web):
    kube.apply(service("headless", {"app": "web"}, clusterIP="None"))
    kube.wait(lambda: len(endpoints(kube, "headless")) == 2)
    (each,) = slices(kube, "headless")
    assert each["metadata"]["labels"]["service.kubernetes.io/headless"] == ""
    rules = kube.node_run(kube.nodes[1], ["nft", "list", "table", "ip", "kube-proxy"]).stdout
    assert f"{kube.name}/headless" not in rules


def test_the_rules_are_named_as_kube_proxy_names_them(kube, web):
    kube.apply(service("ruled", {"app": "web"}, type="NodePort", port=8081))
    made = kube.get("service", "ruled")
    address, node_port = made["spec"]["clusterIP"], made["spec"]["ports"][0]["nodePort"]
    path = f"{kube.name}/ruled/tcp/"

    def rules(node: str) -> str:
        text = kube.node_run(node, ["nft", "list", "table", "ip", "kube-proxy"]).stdout
        assert f"service-{_hash(path)}-{path} {{" in text
        return text

    for node in kube.nodes:
        text = kube.wait(lambda node=node: rules(node))
        flat = re.sub(r"\s+", " ", text)
        chain = f"service-{_hash(path)}-{path}"
        assert f"{address} . tcp . 8081 : goto {chain}" in flat
        assert f"tcp . {node_port} : goto external-{_hash(path)}-{path}" in flat
        assert f"ip daddr {address} ip saddr != 10.244.0.0/16 jump mark-for-masquerade" in flat
        for each in web.values():
            endpoint = f"{path}__{each['status']['podIP']}/80"
            assert f"goto endpoint-{_hash(endpoint)}-{endpoint}" in flat
            assert f"meta l4proto tcp dnat to {each['status']['podIP']}:80" in flat
    kube.kubectl("delete", "service", "ruled")
    for node in kube.nodes:
        eventually(
            lambda node=node: (
                not re.search(rf"goto \S*{re.escape(path)}", kube.node_run(node, ["nft", "list", "table", "ip", "kube-proxy"]).stdout)
            )
        )


def _hash(name: str) -> str:
    return base64.b32encode(hashlib.sha256(name.encode()).digest()).decode()[:8]


def test_hand_made_slices_and_endpoints_are_served(kube, web):
    name, behind = next(iter(web.items()))
    address = behind["status"]["podIP"]
    manual = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "manual-1", "labels": {"kubernetes.io/service-name": "manual"}},
        "addressType": "IPv4",
        "ports": [{"name": "", "port": 80, "protocol": "TCP"}],
        "endpoints": [{"addresses": [address]}],
    }
    legacy = {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {"name": "legacy"},
        "subsets": [{"addresses": [{"ip": address}], "ports": [{"port": 80}]}],
    }
    kube.apply([service("manual", None, target=80), manual, service("legacy", None, target=80), legacy])
    for each in ("manual", "legacy"):
        url = f"http://{cluster_ip(kube, each)}"
        eventually(lambda url=url: status(kube, "client2", url) == 0)
        assert set(curl(kube, "client2", url, 3)) == {name}
    (mirror,) = slices(kube, "legacy")
    assert mirror["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"] == "endpointslicemirroring-controller.k8s.io"
    kube.kubectl("delete", "endpoints", "legacy")
    kube.wait(lambda: not slices(kube, "legacy"))
    eventually(lambda: status(kube, "client2", f"http://{cluster_ip(kube, 'legacy')}") == REFUSED)


def test_a_load_balancer_is_served_once_it_has_an_address(kube, web):
    kube.apply(service("balanced", {"app": "web"}, type="LoadBalancer"))
    row = kube.kubectl("get", "service", "balanced", "--no-headers").stdout.split()
    assert row[3] == "<pending>"
    number = sum(kube.name.encode()) % 200 + 20  # any address that is nobody else's
    address = f"198.51.100.{number}"
    status_patch = json.dumps({"status": {"loadBalancer": {"ingress": [{"ip": address}]}}})
    kube.kubectl("patch", "service", "balanced", "--subresource=status", "--type=merge", "-p", status_patch)
    eventually(lambda: status(kube, "client1", f"http://{address}") == 0)
    assert set(curl(kube, "client1", f"http://{address}", 24)) == set(web)


def test_a_selector_that_changes_moves_the_traffic(kube, web):
    kube.apply(deployment("blue", 1))
    kube.rollout("blue")
    kube.apply(service("moving", {"app": "blue"}))
    url = f"http://{cluster_ip(kube, 'moving')}"
    blue = kube.list("pods", "app=blue")[0]["metadata"]["name"]
    eventually(lambda: set(curl(kube, "client1", url, 3)) == {blue})
    (before,) = slices(kube, "moving")
    kube.kubectl("set", "selector", "service/moving", "app=web")
    eventually(lambda: set(curl(kube, "client1", url, 12)) == set(web))
    (after,) = slices(kube, "moving")
    assert after["metadata"]["name"] == before["metadata"]["name"]
