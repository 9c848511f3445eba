"""What several checks look at: objects by name, a pod's readiness and its trouble in words, a Service's endpoints."""

from __future__ import annotations

from dataclasses import dataclass

from servicelab.checks.framework import Missing

WATCH_IT = "`kubectl get pods -o wide` shows what each pod is doing; `kubectl describe pod NAME` tells why, in the events at its end."


def find(lab, kind: str, name: str) -> dict | None:
    """The object of that name in the learner's namespace, or None.

    Args:
        lab: what `connect()` gave.
        kind: the plural, such as `pods`.
        name: the object's name.
    """
    return next((item for item in lab.list(kind) if item["metadata"]["name"] == name), None)


def live_pods(lab, selector: str) -> list[dict]:
    """The pods that a selector finds and that aren't on their way out, by name."""
    pods = [pod for pod in lab.list("pods", selector) if not pod["metadata"].get("deletionTimestamp")]
    return sorted(pods, key=lambda pod: pod["metadata"]["name"])


def condition(obj: dict, type_: str) -> dict | None:
    """A condition of an object's status, such as `Ready`, or None when it isn't there."""
    return next((c for c in obj.get("status", {}).get("conditions", []) if c["type"] == type_), None)


def is_ready(pod: dict) -> bool:
    """Whether the pod's Ready condition is True."""
    return (condition(pod, "Ready") or {}).get("status") == "True"


def trouble(pod: dict) -> str:
    """What keeps a pod from being ready, in a few words: the scheduler's, the kubelet's or the container's.

    Example:
        `pod client: its container client has exited with code 2 and is being restarted (CrashLoopBackOff)`
    """
    name = pod["metadata"]["name"]
    scheduled = condition(pod, "PodScheduled")
    if scheduled and scheduled["status"] == "False":
        return f"pod {name} is on no node yet: {scheduled.get('message', scheduled.get('reason', 'not scheduled'))}"
    for status in pod["status"].get("containerStatuses", []):
        if status.get("ready"):
            continue
        container = status["name"]
        waiting = status["state"].get("waiting")
        ended = status["state"].get("terminated") or status.get("lastState", {}).get("terminated")
        if waiting and waiting.get("reason") in ("ErrImagePull", "ImagePullBackOff", "InvalidImageName"):
            return f"pod {name}: the image {status['image']} of its container {container} can't be pulled ({waiting['reason']})"
        if ended:
            again = f" and is being restarted ({waiting['reason']})" if waiting and waiting.get("reason") else ""
            return f"pod {name}: its container {container} has exited with code {ended.get('exitCode')}{again}"
        if waiting:
            return f"pod {name}: its container {container} isn't running yet ({waiting.get('reason', 'waiting')})"
        return f"pod {name}: its container {container} runs, and isn't ready yet"
    return f"pod {name} is {pod['status'].get('phase', 'Pending')}, and isn't ready yet"


def ready_pod(lab, name: str, *hints: str) -> dict:
    """The pod of that name, ready.

    Args:
        lab: what `connect()` gave.
        name: the pod's name.
        hints: for when there is no such pod.

    Raises:
        Missing: there is none, it is on its way out, or not ready; then with what keeps it.
    """
    pod = find(lab, "pods", name)
    if pod is None or pod["metadata"].get("deletionTimestamp"):
        raise Missing(f"there is no pod {name} in namespace {lab.namespace}", *hints, settles=pod is not None)
    if not is_ready(pod):
        raise Missing(trouble(pod), WATCH_IT, f"kubectl describe pod {name}", f"kubectl logs {name} --all-containers")
    return pod


def ready_pods(lab, selector: str, at_least: int, *hints: str) -> list[dict]:
    """The ready pods that a selector finds.

    Raises:
        Missing: when fewer than `at_least` are ready; with the trouble of the first that isn't.
    """
    pods = live_pods(lab, selector)
    ready = [pod for pod in pods if is_ready(pod)]
    if len(ready) < at_least:
        why = next((trouble(pod) for pod in pods if not is_ready(pod)), f"{len(pods)} with label {selector} exist")
        raise Missing(f"{len(ready)} of {at_least} pods with label {selector} are ready: {why}", *(hints or (WATCH_IT,)))
    return ready


@dataclass(frozen=True)
class Endpoint:
    """One address behind a Service.

    Attributes:
        ip: the pod's address.
        ports: the ports that the Service sends to.
        ready: whether the Service sends to it.
        pod: the pod's name, or "" when the slice names none.
    """

    ip: str
    ports: tuple[int, ...]
    ready: bool
    pod: str


def endpoints(lab, service: str) -> list[Endpoint]:
    """What stands in the Service's EndpointSlices, in the order of the addresses."""
    found = []
    for piece in lab.list("endpointslices", f"kubernetes.io/service-name={service}"):
        ports = tuple(port["port"] for port in piece.get("ports") or [] if port.get("port") is not None)
        for endpoint in piece.get("endpoints") or []:
            # An absent `ready` means ready (EndpointConditions, discovery.k8s.io/v1).
            ready = endpoint.get("conditions", {}).get("ready") is not False
            pod = (endpoint.get("targetRef") or {}).get("name", "")
            found += [Endpoint(address, ports, ready, pod) for address in endpoint["addresses"]]
    return sorted(found, key=lambda endpoint: endpoint.ip)


def status_of(lab, client: str, url: str, container: str | None = None) -> str:
    """The HTTP status that a pod's curl gets, or "000" when nobody answers.

    Args:
        lab: what `connect()` gave.
        client: the name of a pod that has curl.
        url: what to fetch.
        container: which of the pod's containers, when it has several.
    """
    fetch = ["curl", "-s", "-o", "/dev/null", "--max-time", "3", "-w", "%{http_code}", url]
    # kubectl adds a line of its own when curl fails; the status is the first word in any case.
    return (lab.run_in_pod(client, fetch, container=container).split() or ["000"])[0][:3]


def environment(lab, pod: str) -> dict[str, str]:
    """The environment variables that a new process in a pod gets."""
    lines = lab.run_in_pod(pod, ["printenv"]).splitlines()
    return dict(line.rstrip("\r").split("=", 1) for line in lines if "=" in line)
