"""Checks of lesson 03, Environment variables."""

from __future__ import annotations

from collections import Counter

from servicelab.checks.framework import Missing, checker
from servicelab.checks.looks import environment, find, is_ready, live_pods, ready_pod, ready_pods, trouble

SELECTOR = "run=my-nginx"
APPLY = "kubectl apply -f ../manifests/run-my-nginx.yaml"
SERVICE = "kubectl apply -f ../manifests/nginx-svc.yaml"


def _service_ip(lab, name: str, *hints: str) -> str:
    service = find(lab, "services", name)
    if service is None:
        raise Missing(f"there is no Service {name} in namespace {lab.namespace}", *hints, settles=False)
    return service["spec"]["clusterIP"]


def _replacing(deployment: dict) -> bool:
    """Whether pods of the version before are still there, or the controller has not yet seen that it is to replace them."""
    meta, status = deployment.get("metadata", {}), deployment.get("status", {})
    if status.get("observedGeneration", 0) < meta.get("generation", 0):
        return True
    counts = [status.get(name, 0) for name in ("replicas", "updatedReplicas", "availableReplicas")]
    return len({*counts, deployment.get("spec", {}).get("replicas", 1)}) > 1


@checker(lesson=3, title="pods older than the Service don't know it")
def variables_missing(lab) -> str:
    """The Service `my-nginx` exists, and no pod of the Deployment has its variables."""
    _service_ip(lab, "my-nginx", SERVICE)
    pods = ready_pods(lab, SELECTOR, 1, APPLY)
    knowing = [pod["metadata"]["name"] for pod in pods if "MY_NGINX_SERVICE_HOST" in environment(lab, pod["metadata"]["name"])]
    if knowing:
        raise Missing(
            f"{knowing[0]} has MY_NGINX_SERVICE_HOST: it started after the Service was there",
            "Run the preparation cell again: it starts the pods first.",
            settles=False,
        )
    return f"the Service exists, and none of {len(pods)} pods has its variables: they are older than it"


@checker(lesson=3, title="new pods know the Service")
def variables_set(lab, replicas: int = 2) -> str:
    """Every pod of `my-nginx` has the Service's present address in MY_NGINX_SERVICE_HOST."""
    ip = _service_ip(lab, "my-nginx", SERVICE)
    pods = ready_pods(lab, SELECTOR, replicas, f"kubectl scale deployment my-nginx --replicas={replicas}")
    for pod in pods:
        name = pod["metadata"]["name"]
        host = environment(lab, name).get("MY_NGINX_SERVICE_HOST")
        if host != ip:
            state = f"MY_NGINX_SERVICE_HOST={host}, an address of the past" if host else "no MY_NGINX_SERVICE_HOST"
            raise Missing(
                f"pod {name} has {state}; the Service is at {ip}",
                "A process gets its environment once, at its start. What would a new pod get?",
                f"kubectl scale deployment my-nginx --replicas=0; kubectl scale deployment my-nginx --replicas={replicas}",
            )
    return f"{len(pods)} pods have MY_NGINX_SERVICE_HOST={ip}, the Service's address"


@checker(lesson=3, title="the pods are spread over the nodes")
def pods_spread(lab, replicas: int = 2) -> str:
    """No worker runs two pods of `my-nginx` more than another."""
    pods = ready_pods(lab, SELECTOR, replicas, APPLY)
    workers = [node["metadata"]["name"] for node in lab.list("nodes") if not node["spec"].get("taints")]
    counts = Counter(pod["spec"]["nodeName"] for pod in pods)
    loads = [counts.get(name, 0) for name in workers] or list(counts.values())
    if max(loads) - min(loads) > 1:
        raise Missing(
            f"the pods are spread as {' and '.join(map(str, sorted(loads)))}",
            "The scheduler weighs many things, and spreads as well as they allow. Let it decide again.",
            "kubectl rollout restart deployment my-nginx",
            settles=False,
        )
    return f"{len(pods)} pods on {len(counts)} nodes"


@checker(lesson=3, title="the variables are not in the pod's spec")
def kubelet_adds_them(lab) -> str:
    """No pod of `my-nginx` has the variables in its spec, and each has them in its environment."""
    pods = ready_pods(lab, SELECTOR, 1, APPLY)
    for pod in pods:
        written = [e["name"] for c in pod["spec"]["containers"] for e in c.get("env", []) if e["name"].startswith("MY_NGINX_")]
        if written:
            raise Missing(f"{written[0]} stands in the spec of {pod['metadata']['name']}", "Take it out of the Deployment.", settles=False)
        if "MY_NGINX_SERVICE_HOST" not in environment(lab, pod["metadata"]["name"]):
            raise Missing(f"{pod['metadata']['name']} has no MY_NGINX_SERVICE_HOST", "Is it older than the Service? See above.")
    return "in the API the pods have no such variable; in their containers they have: the kubelet put it there"


@checker(lesson=3, title="a pod may decline the variables")
def quiet_pod(lab) -> str:
    """The pod `quiet` has enableServiceLinks false, no variables of my-nginx, and those of the API server."""
    _service_ip(lab, "my-nginx", SERVICE)
    pod = ready_pod(lab, "quiet", "kubectl apply -f ../manifests/quiet.yaml")
    names = [name for name in environment(lab, "quiet") if "SERVICE" in name]
    loud = [name for name in names if not name.startswith("KUBERNETES_")]
    if loud or pod["spec"].get("enableServiceLinks", True):
        raise Missing(f"pod quiet has {len(loud)} variables of Services", "enableServiceLinks: false belongs in its spec.", settles=False)
    if "KUBERNETES_SERVICE_HOST" not in names:
        raise Missing("pod quiet has not even KUBERNETES_SERVICE_HOST", "kubectl exec quiet -- printenv")
    return "pod quiet knows of no Service but the API server's own"


@checker(lesson=3, title="frontend finds backend by its variables")
def frontend_knows_backend(lab) -> str:
    """Exercise: the pod `frontend` has BACKEND_SERVICE_HOST and _PORT of the Service `backend` (port 8080), and gets an answer there."""
    make_service = "kubectl expose deployment my-nginx --name backend --port 8080 --target-port 80"
    make_pod = "kubectl run frontend --image=curlimages/curl:8.16.0 --command -- sleep infinity"
    service = find(lab, "services", "backend")
    pod = find(lab, "pods", "frontend")
    if service is None:
        early = "; and the pod frontend is there already: too early" if pod else ""
        raise Missing(
            f"there is no Service backend{early}",
            "Two things to make. Does the order matter?",
            "First the Service: kubectl expose deployment my-nginx, with a name, a port and a target port.",
            make_service,
            settles=False,
        )
    ports = [port["port"] for port in service["spec"]["ports"]]
    if ports[0] != 8080:
        raise Missing(
            f"backend takes port {ports[0]}, not 8080",
            "`--port` is what clients call, `--target-port` where the pods listen.",
            f"kubectl delete service backend; {make_service}",
            settles=False,
        )
    if pod is None or pod["metadata"].get("deletionTimestamp"):
        what_for = "Now the client: an image with curl, and a program that stays."
        raise Missing("there is no pod frontend", what_for, make_pod, settles=pod is not None)
    anew = f"kubectl delete pod frontend; {make_pod}"
    if not is_ready(pod):
        raise Missing(trouble(pod), "Does its program stay? As in lesson 00: `--command -- sleep infinity`", anew)
    known = environment(lab, "frontend")
    address = (known.get("BACKEND_SERVICE_HOST"), known.get("BACKEND_SERVICE_PORT"))
    if address[0] is None:
        declined = pod["spec"].get("enableServiceLinks") is False
        raise Missing(
            "frontend has no BACKEND_SERVICE_HOST" + (": it declines them (enableServiceLinks: false)" if declined else ""),
            "Declining is the pod's choice: what does its spec say?" if declined else "Which of the two is older, the pod or the Service?",
            "A pod can't be told later: delete it and make it anew.",
            anew,
            settles=False,
        )
    if address != (service["spec"]["clusterIP"], "8080"):
        raise Missing(
            f"frontend was told of {':'.join(filter(None, address))}, and backend is at {service['spec']['clusterIP']}:8080",
            "The Service was made anew after the pod started. The pod still has the old one's address.",
            anew,
            settles=False,
        )
    fetch = "curl -s -o /dev/null --max-time 3 -w '%{http_code}' http://$BACKEND_SERVICE_HOST:$BACKEND_SERVICE_PORT"
    status = (lab.run_in_pod("frontend", fetch).split() or ["000"])[0]
    if status != "200":
        raise Missing(f"frontend knows backend, and gets HTTP status {status} there", "Where does backend send to? nginx listens on 80.")
    return f"frontend was told of {address[0]}:{address[1]}, and got an answer there"


@checker(lesson=3, title="the servers learn of backend without a pause")
def told_without_pause(lab, replicas: int = 2) -> str:
    """Exercise: the pods of my-nginx have backend's variables, brought by a rolling restart rather than by hand."""
    ip = _service_ip(lab, "backend", "First do the exercise above: `check.frontend_knows_backend(lab)`.")
    deployment = find(lab, "deployments", "my-nginx") or {}  # before its pods: once no more are to be replaced, those seen later stay
    pods = ready_pods(lab, SELECTOR, replicas, f"kubectl scale deployment my-nginx --replicas={replicas}")
    unaware = [p["metadata"]["name"] for p in pods if environment(lab, p["metadata"]["name"]).get("BACKEND_SERVICE_HOST") != ip]
    if unaware:
        raise Missing(
            f"{len(unaware)} of {len(pods)} pods of my-nginx don't know where backend is",
            "They must start anew. Scaling to 0 would do it, but then nobody serves for a while.",
            "`kubectl rollout` has a subcommand that replaces pods one after the other.",
            "kubectl rollout restart deployment my-nginx",
            settles=_replacing(deployment),
        )
    template = deployment.get("spec", {}).get("template", {}).get("metadata", {})
    if "kubectl.kubernetes.io/restartedAt" not in template.get("annotations", {}):
        raise Missing(
            "the pods know backend, but they weren't replaced by a rolling restart: there was a pause, or luck",
            "`kubectl rollout` has a subcommand for it.",
            "kubectl rollout restart deployment my-nginx",
            settles=False,
        )
    if _replacing(deployment) or len(live_pods(lab, SELECTOR)) != len(pods):
        raise Missing("the restart is still under way", "kubectl rollout status deployment my-nginx")
    return f"all {len(pods)} pods were replaced one after the other, and know backend at {ip}"
