"""Checks of lesson 02, Services."""

from __future__ import annotations

from servicelab import wire
from servicelab.checks.framework import Missing, checker
from servicelab.checks.looks import Endpoint, endpoints, find, is_ready, live_pods, ready_pod, ready_pods, status_of
from servicelab.traffic import ask

SELECTOR = "run=my-nginx"
EXPOSE = "kubectl expose deployment/my-nginx"
CLIENT = "kubectl apply -f ../manifests/curl.yaml"


def _service(lab, name: str, *hints: str) -> dict:
    service = find(lab, "services", name)
    if service is None:
        raise Missing(f"there is no Service {name} in namespace {lab.namespace}", *hints, settles=False)
    return service


def _ready_endpoints(lab, service: str) -> list[Endpoint]:
    return [endpoint for endpoint in endpoints(lab, service) if endpoint.ready]


def _selector_text(service: dict) -> str:
    return ",".join(f"{key}={value}" for key, value in (service["spec"].get("selector") or {}).items()) or "(none)"


def _behind(lab, name: str, *hints: str) -> tuple[dict, list[dict]]:
    """The Service, and the ready pods that its slices list, exactly the ready ones of my-nginx."""
    service = _service(lab, name, *hints)
    pods = ready_pods(lab, SELECTOR, 1, "kubectl apply -f ../manifests/run-my-nginx.yaml")
    listed = {endpoint.ip for endpoint in _ready_endpoints(lab, name)}
    if not listed:
        raise Missing(
            f"Service {name} has no endpoint: its selector is {_selector_text(service)}",
            "A Service finds pods by their labels. Which labels do yours have? kubectl get pods --show-labels",
            f"kubectl describe service {name} shows the selector and the endpoints.",
            f"kubectl patch service {name} -p " + """'{"spec": {"selector": {"run": "my-nginx"}}}'""",
        )
    wanted = {pod["status"]["podIP"] for pod in pods}
    if listed != wanted:
        raise Missing(
            f"Service {name} sends to {len(listed)} addresses, {len(listed & wanted)} of them of the {len(wanted)} ready pods of my-nginx",
            "A slice follows its pods within moments. Is a pod starting or ending just now? kubectl get pods",
            f"kubectl get endpointslices -l kubernetes.io/service-name={name}",
        )
    return service, pods


@checker(lesson=2, title="the Service finds its pods")
def service_found(lab) -> str:
    """The Service `my-nginx` exists, and its endpoints are the ready pods of the Deployment."""
    service, pods = _behind(lab, "my-nginx", "One command makes a Service for a Deployment.", EXPOSE)
    # The lesson shows the older list too, which another controller keeps.
    older = find(lab, "endpoints", "my-nginx") or {}
    listed = {each["ip"] for subset in older.get("subsets") or [] for each in subset.get("addresses") or []}
    if listed != {pod["status"]["podIP"] for pod in pods}:
        raise Missing(f"the Endpoints of my-nginx still list {len(listed)} of its {len(pods)} pods", "kubectl get endpoints my-nginx")
    return f"Service my-nginx, {service['spec']['clusterIP']} port {service['spec']['ports'][0]['port']}, has {len(pods)} pods behind it"


@checker(lesson=2, title="the endpoints follow the pods")
def endpoints_follow(lab, replicas: int = 2) -> str:
    """The EndpointSlices list exactly the ready pods, and as many as wanted are ready."""
    ready_pods(lab, SELECTOR, replicas, "kubectl get pods -l run=my-nginx")
    _, pods = _behind(lab, "my-nginx", EXPOSE)
    return f"the slices list {len(pods)} addresses: those of the {len(pods)} pods that are ready now"


@checker(lesson=2, title="every pod gets its share")
def load_is_shared(lab) -> str:
    """Of 60 requests to the Service every pod behind it answers some."""
    ready_pod(lab, "curl", CLIENT)
    service, pods = _behind(lab, "my-nginx", EXPOSE)
    tally = ask(lab, f"http://{service['spec']['clusterIP']}:{service['spec']['ports'][0]['port']}", servers=SELECTOR, times=60)
    if tally.succeeded < tally.sent:
        raise Missing(f"{tally.sent - tally.succeeded} of {tally.sent} requests got no answer", "kubectl describe service my-nginx")
    idle = [name for name, count in tally.answered.items() if not count]
    if idle:
        sticky = service["spec"].get("sessionAffinity") == "ClientIP"
        raise Missing(
            f"{', '.join(idle)} got none of {tally.sent} requests",
            "Does the Service bind each client to one pod? Look at Session Affinity in kubectl describe service my-nginx."
            if sticky
            else "kubectl get pods -l run=my-nginx -o wide",
            settles=not sticky,
        )
    return f"60 of 60 requests were answered, and each of {len(pods)} pods answered some of them"


@checker(lesson=2, title="the cluster IP is on no machine and on no cable")
def cluster_ip_is_virtual(lab) -> str:
    """The cluster IP is on no interface, requests to it are answered, and no packet to it leaves a node."""
    ready_pod(lab, "curl", CLIENT)
    service, pods = _behind(lab, "my-nginx", EXPOSE)
    ip = service["spec"]["clusterIP"]
    if not lab.nodes_allowed:
        status = status_of(lab, "curl", f"http://{ip}")
        if status != "200":
            raise Missing(f"{ip} answers with HTTP status {status}", "kubectl describe service my-nginx")
        return f"{ip} answers (this cluster doesn't let you onto its nodes to look for it there)"
    owners = [node.name for node in lab.nodes if f" {ip}/" in node.run("ip -o addr")]
    if owners:
        why = "That is how kube-proxy's ipvs mode works; this lab expects its nftables mode."
        raise Missing(f"{ip} is configured on {', '.join(owners)}", why, settles=False)
    with wire.watch(lab, service=ip, pods=[pod["status"]["podIP"] for pod in pods]) as counted:
        tally = ask(lab, f"http://{ip}", servers=SELECTOR, times=20)
    if tally.succeeded < tally.sent:
        raise Missing(f"{tally.sent - tally.succeeded} of {tally.sent} requests to {ip} got no answer", "kubectl describe service my-nginx")
    if counted.total("service"):
        raise Missing(f"{counted.total('service')} packets to {ip} left a node untranslated", "Is kube-proxy running on each node?")
    return f"{ip} is on no interface of {len(list(lab.nodes))} nodes, answered 20 of 20 requests, and no packet to it left a node"


@checker(lesson=2, title="a Service finds a port by its name")
def named_port(lab) -> str:
    """The Service `named-port` sends to the port that its pod calls `web`, and gets an answer."""
    apply = "kubectl apply -f ../manifests/named-port.yaml"
    service = _service(lab, "named-port", apply)
    port = service["spec"]["ports"][0]
    if isinstance(port.get("targetPort"), int):
        raise Missing(f"named-port sends to port {port['targetPort']}, a number", "targetPort may be a name.", apply, settles=False)
    pod = ready_pod(lab, "named-port", apply)
    names = {p.get("name"): p["containerPort"] for c in pod["spec"]["containers"] for p in c.get("ports", [])}
    if port["targetPort"] not in names:
        raise Missing(
            f"no container of the pod named-port calls a port {port['targetPort']}",
            "The name stands in the container's list of ports: spec.containers[].ports[].name",
            f"kubectl delete pod named-port; {apply}",
            settles=False,
        )
    ready_pod(lab, "curl", CLIENT)
    status = status_of(lab, "curl", f"http://{service['spec']['clusterIP']}:{port['port']}")
    if status != "200":
        raise Missing(f"named-port answers with HTTP status {status}", "kubectl describe service named-port")
    return f"named-port takes port {port['port']} and sends to {port['targetPort']}, which is port {names[port['targetPort']]} in the pod"


@checker(lesson=2, title="the mistyped Service finds its pods")
def typo_mended(lab) -> str:
    """Exercise: the Service `my-nginx-typo` has a selector that finds the pods of my-nginx, and answers."""
    service = _service(lab, "my-nginx-typo", "kubectl apply -f ../manifests/nginx-svc-typo.yaml")
    selector = service["spec"].get("selector") or {}
    found = [pod for pod in live_pods(lab, _selector_text(service)) if is_ready(pod)] if selector else []
    if not found:
        near = live_pods(lab, SELECTOR)
        relabelled = f"; {len(near)} pods have the label run=my-nginx" if near else "; no pod has the label run=my-nginx any more"
        raise Missing(
            f"no pod has the label {_selector_text(service)}, which my-nginx-typo selects{relabelled}",
            "Lay the two side by side: kubectl describe service my-nginx-typo, and kubectl get pods --show-labels",
            "Read the value in the selector letter by letter.",
            """kubectl patch service my-nginx-typo -p '{"spec": {"selector": {"run": "my-nginx"}}}'""",
            settles=False,
        )
    if not live_pods(lab, SELECTOR):
        raise Missing(
            "the pods got the mistyped label, so the Service my-nginx has lost them",
            "Mend the Service, not the pods: other Services find them by the label that they had.",
            "kubectl label pods -l run=my-ngnix run=my-nginx --overwrite",
            settles=False,
        )
    if not _ready_endpoints(lab, "my-nginx-typo"):
        look = "kubectl get endpointslices -l kubernetes.io/service-name=my-nginx-typo"
        raise Missing("the selector fits, and the slice isn't filled yet", look)
    ready_pod(lab, "curl", CLIENT)
    status = status_of(lab, "curl", f"http://{service['spec']['clusterIP']}")
    if status != "200":
        raise Missing(f"my-nginx-typo has endpoints, and answers with HTTP status {status}", "Which targetPort does it send to?")
    return f"my-nginx-typo selects {_selector_text(service)}, finds {len(found)} pods, and answers"


@checker(lesson=2, title="one client, one pod")
def one_client_one_pod(lab) -> str:
    """With session affinity all requests of one client are answered by one pod."""
    ready_pod(lab, "curl", CLIENT)
    service, _ = _behind(lab, "my-nginx", EXPOSE)
    if service["spec"].get("sessionAffinity") != "ClientIP":
        raise Missing(
            f"the Service's session affinity is {service['spec'].get('sessionAffinity')}",
            "It is a field of the Service's spec.",
            """kubectl patch service my-nginx -p '{"spec": {"sessionAffinity": "ClientIP"}}'""",
            settles=False,
        )
    tally = ask(lab, f"http://{service['spec']['clusterIP']}", servers=SELECTOR, times=20)
    busy = [name for name, count in tally.answered.items() if count]
    if tally.succeeded < tally.sent or len(busy) != 1:
        later = "The rules on the nodes follow the Service a moment later. Run the cell again."
        raise Missing(f"{len(busy)} pods answered {tally.succeeded} of {tally.sent} requests", later)
    return "one pod answered all 20 requests of the one client"


@checker(lesson=2, title="a second Service for the same pods")
def second_service(lab) -> str:
    """Exercise: the Service `my-nginx-alt` takes port 8080 and sends to port 80 of the pods of my-nginx."""
    make = "kubectl expose deployment my-nginx --name my-nginx-alt --port 8080 --target-port 80"
    service = _service(
        lab,
        "my-nginx-alt",
        "The command is the one that made my-nginx; it wants another name, another port, and where to send to.",
        "kubectl expose --help: look at --name, --port and --target-port.",
        make,
    )
    again = f"kubectl delete service my-nginx-alt; {make}"
    ports = service["spec"].get("ports") or []
    if 8080 not in [port["port"] for port in ports]:
        raise Missing(
            f"my-nginx-alt takes port {', '.join(str(port['port']) for port in ports) or '(none)'}, not 8080",
            "`port` is what clients call; `targetPort` is where the pods listen.",
            "Mend it with kubectl edit service my-nginx-alt, or delete it and make it anew with --port 8080.",
            again,
            settles=False,
        )
    found = {endpoint.ip for endpoint in _ready_endpoints(lab, "my-nginx-alt")}
    pods = ready_pods(lab, SELECTOR, 1)
    if found != {pod["status"]["podIP"] for pod in pods}:
        raise Missing(
            f"my-nginx-alt finds {len(found)} pods, not the {len(pods)} of my-nginx: its selector is {_selector_text(service)}",
            "Compare the selectors of the two Services: kubectl get services -o wide",
            "The pods have the label run=my-nginx.",
            again,
        )
    target = next(port.get("targetPort", port["port"]) for port in ports if port["port"] == 8080)
    if target not in (80, "http"):
        raise Missing(
            f"my-nginx-alt sends to port {target} of the pods, and nobody listens there",
            "`port` is what clients call; `targetPort` is where the pods listen. On which port does nginx listen?",
            "kubectl describe service my-nginx-alt shows TargetPort.",
            again,
            settles=False,
        )
    ready_pod(lab, "curl", CLIENT)
    status = status_of(lab, "curl", f"http://{service['spec']['clusterIP']}:8080")
    if status != "200":
        raise Missing(f"port 8080 of my-nginx-alt answers with HTTP status {status}", "kubectl describe service my-nginx-alt")
    return f"my-nginx-alt takes port 8080 and sends to port 80 of the same {len(pods)} pods"
