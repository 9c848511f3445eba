"""Checks of lesson 00, Start here."""

from __future__ import annotations

from servicelab.checks.framework import Missing, checker
from servicelab.checks.looks import WATCH_IT, find, ready_pod, trouble


@checker(lesson=0, title="the pod hello runs")
def hello_runs(lab) -> str:
    """The pod `hello` runs nginx and is ready."""
    pod = ready_pod(
        lab,
        "hello",
        "`kubectl run` makes a pod: it wants a name and an image.",
        "kubectl run hello --image=nginx:1.29-alpine",
    )
    return f"pod hello is ready on node {pod['spec']['nodeName']} with address {pod['status']['podIP']}"


@checker(lesson=0, title="the pod client stays")
def client_stays(lab) -> str:
    """The pod `client` runs the curl image and stays."""
    pod = find(lab, "pods", "client")
    if pod is None:
        raise Missing(
            "there is no pod client yet",
            "`kubectl run` makes a pod. The image is curlimages/curl:8.16.0.",
            "curl's own program ends at once; give the pod another to run: `kubectl run NAME --image=… --command -- PROGRAM …`",
            "kubectl run client --image=curlimages/curl:8.16.0 --command -- sleep infinity",
            settles=False,
        )
    image = pod["spec"]["containers"][0]["image"]
    if "curl" not in image:
        raise Missing(
            f"pod client runs {image}, which is not the curl image",
            "A pod's name can't be taken twice: delete it, and make it again with the other image.",
            "kubectl delete pod client, then kubectl run client --image=curlimages/curl:8.16.0 --command -- sleep infinity",
            settles=False,
        )
    status = next(iter(pod["status"].get("containerStatuses", [])), {})
    if status.get("restartCount") or pod["status"].get("phase") in ("Succeeded", "Failed"):
        raise Missing(
            f"{trouble(pod)}; it starts and ends at once",
            "A container lives as long as its program does. What does `curl` do when it is told nothing to fetch?",
            "Give it a program that goes on: `sleep infinity`. The words after `--command --` are the program.",
            "kubectl delete pod client; kubectl run client --image=curlimages/curl:8.16.0 --command -- sleep infinity",
            settles=False,
        )
    if not status.get("ready"):
        raise Missing(trouble(pod), WATCH_IT, "kubectl describe pod client")
    return f"pod client is running {' '.join(pod['spec']['containers'][0].get('command') or pod['spec']['containers'][0].get('args', []))}"


@checker(lesson=0, title="client has talked to hello")
def client_asked_hello(lab) -> str:
    """The access log of `hello` has a request from `client`'s own address."""
    hello = ready_pod(lab, "hello", "kubectl run hello --image=nginx:1.29-alpine")
    client = ready_pod(lab, "client", "First do the exercise above: `check.client_stays(lab)`.")
    address = client["status"]["podIP"]
    requests = [line for line in lab.kubectl("logs", "hello", "--tail=1000").splitlines() if line.startswith(f"{address} ")]
    if not requests:
        others = sum('"GET ' in line for line in lab.kubectl("logs", "hello", "--tail=1000").splitlines())
        elsewhere = f" (it has {others} from elsewhere)" if others else ""
        raise Missing(
            f"hello's access log has no request from client's address {address}{elsewhere}",
            "`kubectl exec client -- PROGRAM` runs a program in client. Which address has hello? `kubectl get pods -o wide` knows.",
            f"kubectl exec client -- curl -s http://{hello['status']['podIP']}",
        )
    return f"hello's access log has {'a request' if len(requests) == 1 else 'requests'} from client's address {address}"
