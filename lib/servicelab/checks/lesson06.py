"""Checks of lesson 06, external exposure: what the machine outside of the cluster, and the learner's own, get for an answer."""

from __future__ import annotations

from servicelab import exposure
from servicelab.checks.framework import Missing, checker
from servicelab.checks.looks import endpoints, find, ready_pods
from servicelab.cloud import address_of
from servicelab.errors import LabError

APPLY = "kubectl apply -f ../manifests/nginx-node-ports.yaml"
TO_LOAD_BALANCER = """kubectl patch svc my-nginx -p '{"spec": {"type": "LoadBalancer"}}'"""
TO_LOCAL = """kubectl patch svc my-nginx -p '{"spec": {"externalTrafficPolicy": "Local"}}'"""
TO_CLUSTER_IP = """kubectl patch svc my-nginx -p '{"spec": {"type": "ClusterIP"}}'"""
START_CLOUD = "lab.cloud().start(); exposure.wait_for_address(lab, 'my-nginx')"
UNSEEN = "this cluster doesn't show its nodes"


def _service(lab, name: str, make: str) -> dict:
    """The Service, with endpoints behind it.

    Raises:
        Missing: it isn't there, or nothing stands behind it.
    """
    service = find(lab, "services", name)
    if service is None:
        raise Missing(f"there is no Service {name}", "kubectl get services", make, settles=False)
    if not any(endpoint.ready for endpoint in endpoints(lab, name)):
        raise Missing(
            f"{name} has no ready endpoint",
            "Do its selector and the pods' labels fit? kubectl describe service " + name,
            "kubectl get pods --show-labels",
            "kubectl set selector service " + name + " run=my-nginx",
        )
    return service


def _node_port(service: dict, make: str) -> int:
    port = next((port["nodePort"] for port in service["spec"].get("ports") or [] if port.get("nodePort")), None)
    if port is None:
        kind = service["spec"].get("type")
        raise Missing(
            f"{service['metadata']['name']} has no node port: it is of type {kind}",
            "Two types of Service have node ports.",
            "type: NodePort, or LoadBalancer",
            make,
            settles=False,
        )
    return port


@checker(lesson=6, title="every node answers at the node port")
def every_node_answers(lab) -> str:
    """From outside, every node answers at the node port of `my-nginx`, whether it runs a pod or not."""
    service = _service(lab, "my-nginx", "kubectl apply -f ../manifests/nginx-secure-app.yaml")
    port = _node_port(service, APPLY)
    nodes = list(lab.nodes)
    if not nodes:
        return f"{UNSEEN}; the node port is {port}"
    silent = [node.name for node in nodes if exposure.status(lab, f"http://{node.ip}:{port}") != "200"]
    if silent:
        hints = ("Are pods ready? kubectl get pods -l run=my-nginx", "kubectl describe svc my-nginx")
        if service["spec"].get("externalTrafficPolicy") == "Local":
            hints = ("externalTrafficPolicy is Local: then only nodes with a pod answer.", TO_LOCAL.replace("Local", "Cluster"))
        raise Missing(f"no answer at port {port} of {', '.join(silent)}", *hints)
    runs = {pod["spec"].get("nodeName") for pod in lab.list("pods", exposure.SERVERS)}
    return f"{len(nodes)} of {len(nodes)} nodes answer from outside, also {len([n for n in nodes if n.name not in runs])} without a pod"


@checker(lesson=6, title="reached from one's own machine")
def reached_from_here(lab) -> str:
    """This machine gets the page at the node ports, where the cluster has a way from here to them."""
    service = _service(lab, "my-nginx", APPLY)
    port = _node_port(service, APPLY)
    said = exposure.from_here(lab, port)
    if said.endswith("Welcome to nginx!"):
        return "this machine gets the page at the node port"
    try:
        lab.outside.url(port)
    except LabError:
        return f"node port {port} has no way to this machine, only 30080 and 30443 have; the nodes answer there"
    if lab.cluster.kind == "context":
        return f"node port {port} would be the way; whether this machine is let through is up to the cluster's owner"
    raise Missing(
        said,
        "Only some node ports have a way to this machine. Which does the Service have? kubectl get svc my-nginx",
        "The lab passes 30080 and 30443 on to localhost.",
        APPLY,
    )


def _external(lab, name: str, make: str) -> tuple[dict, str | None]:
    """The Service and its external address; None where no cloud may run.

    Raises:
        Missing: it is of another type, or it has none though it could.
    """
    service = _service(lab, name, make)
    if service["spec"].get("type") != "LoadBalancer":
        raise Missing(
            f"{name} is of type {service['spec'].get('type')}",
            "Only one type of Service is given an external address.",
            "type: LoadBalancer",
            make,
            settles=False,
        )
    address = address_of(service)
    if address is None and lab.cloud().allowed:
        raise Missing(
            f"the EXTERNAL-IP of {name} is pending",
            "Who gives addresses here? Does it run? print(lab.cloud())",
            START_CLOUD,
        )
    return service, address


@checker(lesson=6, title="an external address that answers")
def external_address_answers(lab) -> str:
    """`my-nginx` is a LoadBalancer with an external address, and the outside gets answers there, by http and https."""
    _, address = _external(lab, "my-nginx", TO_LOAD_BALANCER)
    if address is None:
        return "my-nginx waits for an external address: " + str(lab.cloud())
    for url in (f"http://{address}:8080", f"https://{address}:443"):
        if exposure.status(lab, url) != "200":
            raise Missing(
                f"{address} was given to my-nginx, and nobody answers at {url}",
                "Is the address on a node? " + "for node in lab.nodes: print(node, node.run('ip -o -4 addr show eth0'))",
                "lab.cloud() tells what the controller has done",
            )
    return f"my-nginx answers at {address}, by http and https"


@checker(lesson=6, title="the client's own address is kept")
def client_address_is_kept(lab) -> str:
    """With externalTrafficPolicy Local, the servers see the address of the machine outside."""
    service = _service(lab, "my-nginx", APPLY)
    _node_port(service, APPLY)
    policy = service["spec"].get("externalTrafficPolicy")
    if policy != "Local":
        raise Missing(
            f"externalTrafficPolicy of my-nginx is {policy}: nodes put their own address in as the sender",
            "Which value makes a node send only to pods of its own?",
            TO_LOCAL,
            settles=False,
        )
    if not lab.nodes:
        return f"externalTrafficPolicy is Local; {UNSEEN}"
    seen, own = exposure.seen_as(lab, "my-nginx", times=3), exposure.outside_address(lab)
    if seen != {own}:
        raise Missing(
            f"the servers see {', '.join(sorted(seen)) or 'nobody'}, and the machine outside is {own}",
            "The rules follow a moment after the change.",
            "Look for the request in the logs: kubectl logs -l run=my-nginx",
        )
    return f"the servers see the machine outside by its own address, {own}"


@checker(lesson=6, title="a second front door")
def second_front_door(lab) -> str:
    """Exercise: `my-nginx-web` is a LoadBalancer for the same pods with an address of its own, at port 80 and no other."""
    make = "kubectl expose deployment my-nginx --name=my-nginx-web --port=80 --type=LoadBalancer"
    service, address = _external(lab, "my-nginx-web", make)
    ports = [port["port"] for port in service["spec"].get("ports") or []]
    if ports != [80]:
        raise Missing(
            f"my-nginx-web listens on {', '.join(map(str, ports))}; it should be 80 and nothing else",
            "`port` is what clients use.",
            "kubectl edit service my-nginx-web",
            f"kubectl delete service my-nginx-web; {make}",
            settles=False,
        )
    if address is None:
        return "my-nginx-web is a LoadBalancer at port 80, and waits for an address: " + str(lab.cloud())
    if exposure.status(lab, f"http://{address}") != "200":
        targets = sorted({port for endpoint in endpoints(lab, "my-nginx-web") for port in endpoint.ports})
        raise Missing(
            f"nobody answers at http://{address}; my-nginx-web sends to port {', '.join(map(str, targets))} of the pods",
            "At which port do the pods speak plain http? That is the targetPort.",
            f"kubectl delete service my-nginx-web; {make}",
        )
    first = find(lab, "services", "my-nginx")
    if first is not None and address == address_of(first):
        raise Missing(f"both Services have {address}", "Each should have an address of its own.", settles=False)
    return f"a second front door at {address}, port 80"


@checker(lesson=6, title="the door is closed")
def door_is_closed(lab) -> str:
    """Exercise: `my-nginx` is of type ClusterIP, answers inside of the cluster, and has neither node ports nor an external address."""
    service = _service(lab, "my-nginx", "It was to stay: " + APPLY)
    spec = service["spec"]
    if spec.get("type") != "ClusterIP":
        raise Missing(
            f"my-nginx is of type {spec.get('type')}: nodes still answer for it",
            "Each type includes the one before it: ClusterIP, NodePort, LoadBalancer. Which has no door to the outside?",
            "Its type can be changed in place: kubectl patch, or kubectl edit svc my-nginx",
            TO_CLUSTER_IP,
            settles=False,
        )
    if spec.get("clusterIP") in (None, "", "None"):
        raise Missing("my-nginx is headless now, and its port 8080 leads nowhere", "It should keep its cluster IP.", APPLY, settles=False)
    left = [port["nodePort"] for port in spec.get("ports") or [] if port.get("nodePort")]
    if left or address_of(service):
        raise Missing(f"my-nginx still has {left or address_of(service)}", "kubectl get svc my-nginx -o yaml", TO_CLUSTER_IP)
    ready_pods(lab, "run=my-nginx", 1)
    inside = exposure.status(lab, f"http://{spec['clusterIP']}:8080", client="curl")
    if inside != "200":
        ports = "Are its ports as before? 8080 and 443: kubectl describe svc my-nginx"
        raise Missing("nobody answers inside of the cluster either", ports, APPLY)
    if exposure.answer(lab, f"http://{spec['clusterIP']}:8080") != "nothing" and lab.cluster.kind != "context":
        raise Missing(f"the outside still gets an answer at {spec['clusterIP']}", "kubectl get svc my-nginx -o yaml")
    return "inside of the cluster my-nginx answers, and outside nobody does"
