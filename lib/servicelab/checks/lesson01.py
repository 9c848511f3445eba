"""Checks of lesson 01, Pod networking."""

from __future__ import annotations

from collections import Counter

from servicelab.checks.framework import Missing, checker
from servicelab.checks.looks import condition, find, is_ready, live_pods, ready_pod, ready_pods, status_of, trouble
from servicelab.traffic import ask

SELECTOR = "run=my-nginx"
APPLY = "kubectl apply -f ../manifests/run-my-nginx.yaml"


def _host_ports(pod: dict) -> list[int]:
    return [port["hostPort"] for c in pod["spec"]["containers"] for port in c.get("ports", []) if port.get("hostPort")]


@checker(lesson=1, title="a node's port has one owner")
def port_conflict(lab) -> str:
    """Pods of `host-port` run on some nodes, and one waits because its port is taken on all of them."""
    pods = live_pods(lab, "run=host-port")
    if not pods:
        coming = find(lab, "deployments", "host-port") is not None
        raise Missing("there are no pods of host-port", "kubectl apply -f ../manifests/host-port.yaml", settles=coming)
    unscheduled = [c for pod in pods if (c := condition(pod, "PodScheduled")) and c["status"] == "False"]
    if not any("free ports" in c.get("message", "") for c in unscheduled):
        raise Missing(
            f"none of the {len(pods)} pods of host-port waits for a free port",
            "There must be more pods than nodes that may run them, each with a hostPort.",
            "kubectl delete deployment host-port; kubectl apply -f ../manifests/host-port.yaml",
        )
    starting = [pod for pod in pods if (condition(pod, "PodScheduled") or {}).get("status") != "False" and not is_ready(pod)]
    if starting:
        raise Missing(trouble(starting[0]), "kubectl get pods -l run=host-port")
    running = sum(is_ready(pod) for pod in pods)
    waits = "1 waits" if len(unscheduled) == 1 else f"{len(unscheduled)} wait"
    return f"{running} pods own port {_host_ports(pods[0])[0]} of a node each; {waits} for a node where it is free"


@checker(lesson=1, title="the servers run")
def servers_run(lab, replicas: int = 2) -> str:
    """As many pods of `my-nginx` as wanted are ready, each with an address of its own."""
    pods = ready_pods(lab, SELECTOR, replicas, APPLY)
    addresses = {pod["status"]["podIP"] for pod in pods}
    if len(addresses) < len(pods):
        raise Missing(f"{len(pods)} pods have only {len(addresses)} addresses between them", "Do they use the host's network?")
    return f"{len(pods)} pods, {len(addresses)} addresses"


@checker(lesson=1, title="many servers share a node and its port number")
def many_on_one_node(lab) -> str:
    """Some node runs several pods of `my-nginx`, all on port 80, and every pod answers."""
    pods = ready_pods(lab, SELECTOR, 2, APPLY)
    most = max(Counter(pod["spec"]["nodeName"] for pod in pods).values())
    if most < 2:
        raise Missing(
            f"no node runs two pods of my-nginx: {len(pods)} pods on {len({p['spec']['nodeName'] for p in pods})} nodes",
            "Ask for more pods than there are nodes.",
            "kubectl scale deployment my-nginx --replicas=6",
        )
    ready_pod(lab, "curl", "kubectl apply -f ../manifests/curl.yaml")
    for pod in pods:
        status = status_of(lab, "curl", f"http://{pod['status']['podIP']}:80")
        if status != "200":
            name = pod["metadata"]["name"]
            raise Missing(f"pod {name} doesn't answer on port 80 (HTTP status {status})", f"kubectl logs {name}")
    return f"all {len(pods)} pods answer on their own port 80, with several of them on one node"


@checker(lesson=1, title="every node reaches every pod")
def nodes_reach_pods(lab, replicas: int = 2) -> str:
    """Each node fetches a page from each pod of `my-nginx`, by its address."""
    pods = ready_pods(lab, SELECTOR, replicas, APPLY)
    if not lab.nodes_allowed:
        return f"{len(pods)} pods are ready (this cluster doesn't let you onto its nodes to try them from there)"
    for node in lab.nodes:
        for pod in pods:
            ip = pod["status"]["podIP"]
            answer = node.run(f"curl -s -o /dev/null --max-time 3 -w '%{{http_code}}' http://{ip}").strip()
            if answer != "200":
                raise Missing(f"from {node.name}, {ip} answers {answer or 'nothing'}", "Does the pod still run? kubectl get pods -o wide")
    return f"{len(list(lab.nodes))} nodes reach {len(pods)} pods by their own addresses"


@checker(lesson=1, title="the server sees the client's own address")
def no_nat(lab, replicas: int = 2) -> str:
    """Requests from the pod `curl` to each pod of `my-nginx` arrive with `curl`'s own address."""
    client = ready_pod(lab, "curl", "kubectl apply -f ../manifests/curl.yaml")
    pods = ready_pods(lab, SELECTOR, replicas, APPLY)
    own = client["status"]["podIP"]
    for pod in pods:
        tally = ask(lab, f"http://{pod['status']['podIP']}", servers=SELECTOR, times=1)
        if not tally.succeeded:
            raise Missing(f"pod {pod['metadata']['name']} doesn't answer", "kubectl get pods -l run=my-nginx -o wide")
        if tally.clients != {own}:
            raise Missing(
                f"the server's log says that the request came from {', '.join(sorted(tally.clients)) or 'nobody'}, and not from {own}",
                "Something on the way rewrites the source address: which network does this cluster use?",
            )
    return f"{len(pods)} servers saw the client pod's own address, {own}: nobody rewrote it on the way"


@checker(lesson=1, title="containers of a pod meet on localhost")
def one_network_in_a_pod(lab) -> str:
    """In the pod `two-in-one` the client container reaches the server container on localhost."""
    ready_pod(lab, "two-in-one", "kubectl apply -f ../manifests/two-in-one.yaml")
    status = status_of(lab, "two-in-one", "http://localhost", container="client")
    if status != "200":
        raise Missing(f"on localhost the client container gets HTTP status {status}", "kubectl describe pod two-in-one")
    return "the container client reached the container web on localhost"


@checker(lesson=1, title="every server is replaced, under another address")
def addresses_changed(lab, before: list[str], replicas: int = 2) -> str:
    """As many pods of `my-nginx` as wanted are ready, and none has an address from `before`."""
    pods = ready_pods(lab, SELECTOR, replicas, APPLY)
    kept = {pod["status"]["podIP"] for pod in pods} & set(before)
    if kept:
        raise Missing(f"{', '.join(sorted(kept))} is still in use", "kubectl delete pod -l run=my-nginx")
    return f"{len(pods)} new pods, and none has an address of those before"


@checker(lesson=1, title="all host-port pods find a node")
def ports_freed(lab) -> str:
    """Exercise: all pods of the Deployment `host-port` run, and none claims a port of its node."""
    deployment = find(lab, "deployments", "host-port")
    if deployment is None:
        raise Missing("there is no Deployment host-port", "kubectl apply -f ../manifests/host-port.yaml", settles=False)
    wanted = deployment["spec"].get("replicas", 1)
    ports = [p for c in deployment["spec"]["template"]["spec"]["containers"] for p in c.get("ports", []) if p.get("hostPort")]
    if wanted < 3:
        raise Missing(
            f"host-port wants {wanted} pods now: fewer pods, the same quarrel",
            "The exercise is to run all three.",
            "kubectl scale deployment host-port --replicas=3",
            settles=False,
        )
    if ports:
        raise Missing(
            f"the pods of host-port still claim port {ports[0]['hostPort']} of their node",
            "Which line of manifests/host-port.yaml claims the node's port? A pod doesn't need it to be reached.",
            "Take the line `hostPort` out of the Deployment: `kubectl edit deployment host-port`, or patch it.",
            "kubectl patch deployment host-port --type=json"
            """ -p '[{"op": "remove", "path": "/spec/template/spec/containers/0/ports/0/hostPort"}]'""",
            settles=False,
        )
    pods = live_pods(lab, "run=host-port")
    if any(_host_ports(pod) for pod in pods):
        raise Missing("the Deployment is right; pods from before are still being replaced", "kubectl rollout status deployment host-port")
    return f"{len(ready_pods(lab, 'run=host-port', wanted))} pods run, and none claims a port of its node"


@checker(lesson=1, title="two servers in one pod, on two ports")
def twins(lab) -> str:
    """Exercise: both containers of the pod `twins` serve HTTP, one on port 80 and one on 8080."""
    pod = find(lab, "pods", "twins")
    if pod is None or pod["metadata"].get("deletionTimestamp"):
        raise Missing("there is no pod twins", "kubectl apply -f ../manifests/twins.yaml", settles=pod is not None)
    servers = [c for c in pod["spec"]["containers"] if "nginx" in c["image"]]
    if len(servers) < 2:
        raise Missing(
            f"pod twins has {len(servers)} container with nginx",
            "Both servers are to live in the one pod: two entries under `containers`, as in manifests/twins.yaml.",
            settles=False,
        )
    down = [s for s in pod["status"].get("containerStatuses", []) if not s.get("ready")]
    crashed = [s for s in down if s.get("restartCount") or s["state"].get("terminated")]
    if crashed:
        name = crashed[0]["name"]
        raise Missing(
            f"{trouble(pod)}",
            f"What did it say before it died? kubectl logs twins -c {name}",
            "The two containers share one address, so they share its ports too: only one of them can have port 80.",
            f"Let {name} listen on 8080: give it the command"
            """ ["sh", "-c", "sed -i 's/80;/8080;/' /etc/nginx/conf.d/default.conf; exec nginx -g 'daemon off;'"] """
            "and make the pod anew (delete, then apply).",
            settles=False,
        )
    if down or not is_ready(pod):
        raise Missing(trouble(pod), "kubectl get pod twins", "kubectl describe pod twins")
    ready_pod(lab, "curl", "kubectl apply -f ../manifests/curl.yaml")
    for port in (80, 8080):
        status = status_of(lab, "curl", f"http://{pod['status']['podIP']}:{port}")
        if status != "200":
            raise Missing(
                f"both containers run, but nobody serves port {port} of the pod's address",
                "One server is to have port 80, the other 8080.",
                "kubectl exec twins -c two -- cat /etc/nginx/conf.d/default.conf shows on which port it listens.",
            )
    return f"one address, {pod['status']['podIP']}, and a server on each of its ports 80 and 8080"
