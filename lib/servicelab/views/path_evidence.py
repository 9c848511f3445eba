"""Follow one request, from a pod to a URL, and note at each step what the cluster itself says about it. No picture here."""

from __future__ import annotations

import re
import secrets
import shlex
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from servicelab.errors import LabError, NotAllowed
from servicelab.rules import Rules, Tracked, rules_for, tracked
from servicelab.views.curl import reason_of

if TYPE_CHECKING:
    from servicelab.handles import PodHandle
    from servicelab.lab import Lab


@dataclass(frozen=True)
class Step:
    """One step of the way.

    Attributes:
        key: ``name``, ``route``, ``rule``, ``rewrite``, ``arrive`` or ``back``.
        says: What happens, in a sentence; the text twin is made of these.
        where: The machine that was asked.
        command: What was asked of it, as it can be typed; empty where nothing was.
        evidence: What it answered: the lines that matter.
    """

    key: str
    says: str
    where: str
    command: str = ""
    evidence: tuple[str, ...] = ()


@dataclass
class Path:
    """All that was seen of one request.

    Attributes:
        dialled: The address that the client sent to, ``address:port``.
        reached: The address that the packet really went to, if that was seen.
        target: The pod at that address: name and node, each empty when unknown.
        code: The HTTP status, 0 when there was no answer.
    """

    client: str
    client_ip: str
    client_node: str
    url: str
    steps: list[Step] = field(default_factory=list)
    service: str = ""
    dns: str = ""
    dialled: str = ""
    local: str = ""
    reached: str = ""
    target: tuple[str, str] = ("", "")
    code: int = 0

    def step(self, key: str) -> Step | None:
        """The step of this key."""
        return next((step for step in self.steps if step.key == key), None)


def follow(lab: Lab, client: str, url: str) -> Path:
    """Send one request and follow it.

    Args:
        lab: Whose cluster.
        client: A pod with curl: its name, a label selector, or ``deployment/NAME``.
        url: Where to, such as ``http://my-nginx``.

    Raises:
        NotFound: There is no such pod.
        LabError: The pod isn't running, has no curl, or the URL is none.
    """
    parts = urlsplit(url if "//" in url else f"http://{url}")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise LabError(f"{url!r} is no URL to follow; give one such as http://my-nginx or https://my-nginx:8443.")
    pod = lab.pod(client)
    if pod.object.get("status", {}).get("phase") != "Running":
        phase = pod.object.get("status", {}).get("phase", "unknown")
        raise LabError(
            f"The pod {pod.name} is {phase}, not Running, so nothing can be sent from it. kubectl describe pod {pod.name} says why."
        )
    port = parts.port or (443 if parts.scheme == "https" else 80)
    path = Path(pod.name, pod.ip, pod.node, parts.geturl())

    ip = _name_step(path, pod, parts.hostname)
    sent = _send(pod, path.url)
    ip = sent["remote_ip"] or ip
    if not ip:
        path.steps.append(Step("arrive", f"there is no address to send to: {sent['error']}", pod.name, sent["command"], (sent["error"],)))
        return path
    path.dialled, path.local, path.code = f"{ip}:{port}", f"{sent['local_ip']}:{sent['local_port']}", sent["code"]
    service = _service_at(lab, ip, parts.hostname)
    path.service = service["metadata"]["name"] if service else ""

    _route_step(path, pod, ip)
    rules = _rule_step(path, lab, ip, port, service)
    _rewrite_step(path, lab, pod, rules, sent, service)
    _arrive_steps(path, lab, sent, service)
    return path


def _name_step(path: Path, pod: PodHandle, host: str) -> str:
    """Ask the name of the pod's own DNS server, as the pod's resolver would; the address, or empty."""
    if re.fullmatch(r"[\d.]+", host):
        return host
    config = pod.run(["cat", "/etc/resolv.conf"])
    path.dns = next(iter(re.findall(r"^nameserver (\S+)", config, re.MULTILINE)), "")
    search = next(iter(re.findall(r"^search (.*)$", config, re.MULTILINE)), "").split()
    dots = int(next(iter(re.findall(r"ndots:(\d+)", config)), "1"))
    full = [f"{host}.{domain}" for domain in search]
    names = [host.rstrip(".")] if host.endswith(".") else [*full, host] if host.count(".") < dots else [host, *full]
    answer = ""
    for name in names:
        answer = pod.run(["nslookup", name])
        found = re.findall(r"^Address(?: \d+)?:\s+([\d.]+)(?!\S)", answer.partition("Name:")[2], re.MULTILINE)
        if found:
            said = [line for line in answer.splitlines() if line.startswith(("Name:", "Address")) and not line.rstrip().endswith(":53")]
            says = f"{host} is asked as {name} of {path.dns}, and the answer is {' and '.join(sorted(found))}"
            path.steps.append(
                Step("name", says, pod.name, f"nslookup {name}", (f"search {' '.join(search)}", *sorted(set(said), reverse=True)))
            )
            return found[0]
        if "not found" in answer and "nslookup" in answer and "sh:" in answer:
            break
    says = f"{host} is asked of {path.dns}, and there is no such name"
    path.steps.append(Step("name", says, pod.name, f"nslookup {host}", tuple(answer.split("\n")[-2:])))
    return ""


def _send(pod: PodHandle, url: str) -> dict:
    """Send the request, marked in its User-Agent, so that the log of the pod that answers can be told apart."""
    mark = f"servicelab-{secrets.token_hex(4)}"
    form = r"%{http_code} %{exitcode} %{local_ip} %{local_port} %{remote_ip}|%{errormsg}\n"
    command = f"curl -sk -o /dev/null --max-time 5 -A {mark} -w {shlex.quote(form)} {shlex.quote(url)}"
    said = pod.run(command)
    found = re.search(r"^(\d{3}) (\d+) ([\d.]*) (-?\d*) ([\d.]*)\|(.*)$", said, re.MULTILINE)
    if not found:
        raise LabError(
            f"Nothing could be sent from pod {pod.name}: {said or 'curl said nothing'}. It needs a shell and curl, as in curlimages/curl."
        )
    code, exit_code, local_ip, local_port, remote_ip, error = found.groups()
    return {
        "mark": mark, "code": int(code), "error": reason_of(error) or (f"curl ended with {exit_code}" if exit_code != "0" else ""),
        "local_ip": local_ip or pod.ip, "local_port": local_port, "remote_ip": remote_ip, "command": f"curl -s {shlex.quote(url)}",
    }  # fmt: skip


def _service_at(lab: Lab, ip: str, host: str) -> dict | None:
    """The Service with this cluster IP, or the one that the name means, in whichever namespace it is."""
    labels = host.split(".")
    for namespace in dict.fromkeys([*labels[1:2], lab.namespace]):
        try:
            services = lab.list("services", namespace=namespace)
        except NotAllowed:
            continue
        for service in services:
            spec = service["spec"]
            headless = spec.get("clusterIP") == "None" and service["metadata"]["name"] == labels[0]
            if ip in (spec.get("clusterIPs") or [spec.get("clusterIP")]) or headless:
                return service
    return None


def _is_virtual(service: dict | None, ip: str) -> bool:
    return service is not None and ip in (service["spec"].get("clusterIPs") or [service["spec"].get("clusterIP")])


def _route_step(path: Path, pod: PodHandle, ip: str) -> None:
    """Which way the pod's own kernel sends it, and that the address is on no card of the pod."""
    said = pod.run(f"ip route get {ip}")
    found = re.search(r"(?:via ([\d.]+) )?dev (\S+)", said)
    if not found:
        table = pod.run(["cat", "/proc/net/route"])
        path.steps.append(
            Step("route", f"{ip} leaves {pod.name} by its default route", pod.name, "cat /proc/net/route", tuple(table.splitlines()[:2]))
        )
        return
    gateway, device = found.groups()
    onward = f" to {gateway}, its node" if gateway else ""
    path.steps.append(
        Step(
            "route",
            f"the packet to {ip} leaves {pod.name} through {device}{onward}",
            pod.name,
            f"ip route get {ip}",
            (said.splitlines()[0].strip(),),
        )
    )


def _rule_step(path: Path, lab: Lab, ip: str, port: int, service: dict | None) -> Rules | None:
    """The client's node's own rules for the address."""
    node = path.client_node
    if not _is_virtual(service, ip):
        what = (
            f"Service {path.service} is headless: the name gave a pod's own address" if service else f"{ip} is not the address of a Service"
        )
        path.steps.append(Step("rule", f"{what}, so no rule is needed", node))
        return None
    if not lab.nodes_allowed or node not in lab.nodes:
        known = _ready_addresses(lab, service)
        says = f"the node can't be entered here; its rules are made from the EndpointSlices, which have {len(known)} ready"
        path.steps.append(
            Step("rule", says, "API server", f"kubectl get endpointslices -l kubernetes.io/service-name={path.service}", tuple(known))
        )
        return None
    command = "nft list table ip kube-proxy"
    rules = Rules("", "", (), False)
    deadline = time.monotonic() + (5 if path.code else 1)
    while not (rules.lookup or rules.refused) and time.monotonic() < deadline:  # rules follow a change of the Service a moment later
        listing = lab.nodes[node].run(command)
        rules = rules_for(listing, ip, port)
    if rules.refused:
        says = f"the kernel of {node} knows {path.dialled} as a Service without endpoints, and refuses the packet"
        path.steps.append(Step("rule", says, node, command, (f"no-endpoint-services: {ip} . tcp . {port} : goto reject-chain",)))
    elif rules.lookup:
        count = len(rules.targets)
        picks = f"one of {count} endpoints, at random" if count != 1 else "its only endpoint"
        says = f"the kernel of {node} has a rule for {path.dialled}: pick {picks}"
        path.steps.append(Step("rule", says, node, command, tuple(line for line in (rules.lookup, rules.choice) if line)))
    else:
        says = (
            f"no rule for {path.dialled} was found on {node}: port {port} is none of the Service's, or its kube-proxy works in another mode"
        )
        path.steps.append(Step("rule", says, node, command, tuple(listing.splitlines()[:2])))
    return rules


def _ready_addresses(lab: Lab, service: dict) -> list[str]:
    return sorted(
        address
        for piece in _slices(lab, service)
        for endpoint in piece.get("endpoints") or []
        if (endpoint.get("conditions") or {}).get("ready") is not False
        for address in endpoint["addresses"]
    )


def _rewrite_step(path: Path, lab: Lab, pod: PodHandle, rules: Rules | None, sent: dict, service: dict | None) -> None:
    """What became of the address: as the kernel's table of connections has it, or as the log of the pod that answered shows."""
    ip = path.dialled.partition(":")[0]
    if not _is_virtual(service, ip):
        path.reached = path.dialled
        return
    if rules is not None and rules.refused:
        return
    entry: Tracked | None = None
    if rules is not None and sent["remote_ip"]:
        command = f"conntrack -L -p tcp --src {sent['local_ip']} --sport {sent['local_port']} 2>/dev/null || cat /proc/net/nf_conntrack"
        entry = tracked(lab.nodes[path.client_node].run(command), f"{sent['local_ip']}:{sent['local_port']}")
    if entry is not None:
        path.reached = entry.answered_by
        rule = next((rule for target, rule in rules.rewrites if target == entry.answered_by), "") if rules else ""
        evidence = tuple(line for line in (rule, _ends_of(entry.line)) if line)
        shown = f"conntrack -L -p tcp --sport {sent['local_port']}"
        says = f"the packet to {entry.dialled} becomes a packet to {entry.answered_by}"
        path.steps.append(Step("rewrite", says, path.client_node, shown, evidence))
        return
    answered = _who_logged(lab, sent["mark"], service) if path.code else None
    if answered is not None:
        name, address, line = answered
        target_port = _target_port(lab, service, int(path.dialled.rpartition(":")[2]))
        path.reached = f"{address}:{target_port}" if target_port else address
        says = f"the packet to {path.dialled} becomes a packet to {path.reached}"
        path.steps.append(Step("rewrite", says, "API server", f"kubectl logs {name}", (line,)))


def _target_port(lab: Lab, service: dict, port: int) -> int | None:
    """The pods' port behind a Service's port, as its EndpointSlices have it."""
    name = next((entry.get("name", "") for entry in service["spec"].get("ports") or [] if entry["port"] == port), None)
    for piece in _slices(lab, service):
        for entry in piece.get("ports") or []:
            if (entry.get("name") or "") == name:
                return entry.get("port")
    return None


def _slices(lab: Lab, service: dict) -> list[dict]:
    meta = service["metadata"]
    return lab.list("endpointslices", f"kubernetes.io/service-name={meta['name']}", meta["namespace"])


def _ends_of(line: str) -> str:
    """The two pairs of addresses out of a conntrack entry."""
    kept = re.findall(r"(?:src|dst|sport|dport)=\S+", line)
    return f"{' '.join(kept[:4])}  ⇄  {' '.join(kept[4:8])}"


def _who_logged(lab: Lab, mark: str, service: dict) -> tuple[str, str, str] | None:
    """The pod of the Service whose log has the mark: (name, address, line)."""
    selector = ",".join(f"{key}={value}" for key, value in (service["spec"].get("selector") or {}).items())
    if not selector:
        return None
    namespace = service["metadata"]["namespace"]
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        for pod in lab.list("pods", selector, namespace):
            name = pod["metadata"]["name"]
            log = lab.kubectl("logs", name, "--tail=50", check=False, namespace=namespace)
            for line in log.splitlines():
                if mark in line:
                    return name, pod["status"].get("podIP", ""), line.replace(mark, "curl")
        time.sleep(0.2)
    return None


def _arrive_steps(path: Path, lab: Lab, sent: dict, service: dict | None) -> None:
    """Where it arrived, and how the answer found back."""
    address = path.reached.partition(":")[0]
    namespace = service["metadata"]["namespace"] if service else lab.namespace
    pods = lab.list("pods", namespace=namespace) if address else []
    at = [pod for pod in pods if pod.get("status", {}).get("podIP") == address and not pod["spec"].get("hostNetwork")]
    if at:
        path.target = (at[0]["metadata"]["name"], at[0]["spec"].get("nodeName", ""))
    machine = next((seen.name for seen in lab.nodes if seen.ip == address), "") if not at and address else ""
    name, node = path.target
    outcome = f"it answers {path.code}" if path.code else f"no answer comes: {sent['error']}"
    if not address:
        outcome = f"the answer was {path.code}" if path.code else f"no answer came: {sent['error']}"
        path.steps.append(Step("arrive", outcome, path.client, sent["command"], (sent["error"] or f"HTTP {path.code}",)))
        return
    where = (
        f"pod {name} on {node}"
        if name
        else f"{path.reached}, {f'a port of {machine} itself' if machine else f'which is no pod of namespace {namespace}'}"
    )
    command, evidence = (f"kubectl get pod {name} -o wide", (f"{name}  {address}  {node}",)) if name else ("", ())
    if name and lab.nodes_allowed and path.client_node in lab.nodes:
        command = f"ip route get {address}"
        evidence = (lab.nodes[path.client_node].run(command).splitlines()[0].strip(), f"{name}  {address}  {node}")
    path.steps.append(Step("arrive", f"the packet reaches {where}: {outcome}", path.client_node if name else "", command, evidence))
    if path.code and path.reached != path.dialled:
        says = f"the answer comes from {path.reached}; {path.client_node} writes {path.dialled} over it, so {path.client} never knows"
        form = "'%{remote_ip}'"
        path.steps.append(
            Step("back", says, path.client, f"curl -s -o /dev/null -w {form} {path.url}", (f"{sent['remote_ip']} (as curl sees it)",))
        )
