"""Checks of lesson 04, DNS. They ask from the pod `curl`, as a program in the cluster does."""

from __future__ import annotations

import re
from dataclasses import dataclass

from servicelab import conditions
from servicelab.checks.framework import Missing, checker
from servicelab.checks.looks import endpoints, environment, find, live_pods, ready_pod, ready_pods, status_of

RUN_CURL = "kubectl run curl --image=curlimages/curl:8.16.0 --command -- sleep infinity"
SELECTOR = "run=my-nginx"
APPLY = "kubectl apply -f ../manifests/run-my-nginx.yaml"


@dataclass(frozen=True)
class Reply:
    """What a DNS server answered.

    Attributes:
        addresses: A records.
        services: SRV records, as (port, target).
        alias: the target of a CNAME record, or "".
        exists: False if the server said NXDOMAIN.
    """

    addresses: tuple[str, ...]
    services: tuple[tuple[int, str], ...]
    alias: str
    exists: bool


def dns(lab, name: str, kind: str = "a", client: str = "curl") -> Reply:
    """Ask the cluster's DNS server from a pod, by `nslookup`, for one complete name (nothing is appended)."""
    said = lab.run_in_pod(client, ["nslookup", f"-type={kind}", name.rstrip(".") + "."])
    answer = said.split("\n\n", 1)[-1]  # what comes before the first empty line is the server's own address
    aliases = re.findall(r"canonical name = (\S+?)\.?\s", answer + "\n")
    return Reply(
        addresses=tuple(sorted(re.findall(r"^Address(?: \d+)?:\s+([\d.]+)\s*$", answer, re.M))),
        services=tuple(sorted((int(port), target.rstrip(".")) for port, target in re.findall(r"service = \d+ \d+ (\d+) (\S+)", answer))),
        alias=aliases[0] if aliases else "",
        exists="NXDOMAIN" not in answer,
    )


def full(lab, service: str) -> str:
    """The complete DNS name of a Service in the learner's namespace."""
    return f"{service}.{lab.namespace}.svc.cluster.local"


@checker(lesson=4, title="a name leads to the Service")
def name_leads_to_service(lab) -> str:
    """The pod `curl` asks for `my-nginx`, is told its cluster IP, and gets the page."""
    ready_pod(lab, "curl", RUN_CURL)
    service = find(lab, "services", "my-nginx")
    if service is None:
        raise Missing("there is no Service my-nginx", "DNS names are made from Services.", "kubectl expose deployment my-nginx")
    told = dns(lab, full(lab, "my-nginx")).addresses
    if told != (service["spec"]["clusterIP"],):
        raise Missing(
            f"DNS says {', '.join(told) or 'nothing'} for my-nginx, and its cluster IP is {service['spec']['clusterIP']}",
            "Is the Service headless? Then DNS answers with pods.",
            "kubectl get service my-nginx; kubectl exec curl -- cat /etc/resolv.conf",
        )
    status = status_of(lab, "curl", "http://my-nginx")
    if status != "200":
        raise Missing(
            f"the name leads to {told[0]}, and http://my-nginx answers with {status if status != '000' else 'nothing'}",
            "The name is right. So look behind the Service: kubectl get endpointslices -l kubernetes.io/service-name=my-nginx",
            "Do its selector and port fit the pods? kubectl describe service my-nginx",
        )
    return f"my-nginx is {told[0]}, and answers with status {status}"


@checker(lesson=4, title="an older pod reaches a newer Service by name")
def order_does_not_matter(lab) -> str:
    """The pod `curl` is older than the Service `late`, has no variables of it, and reaches it by name."""
    ready_pod(lab, "curl", RUN_CURL)
    if find(lab, "services", "late") is None:
        raise Missing("there is no Service late", "kubectl expose deployment my-nginx --name=late --port=80", settles=False)
    if any(name.startswith("LATE_SERVICE") for name in environment(lab, "curl")):
        raise Missing(
            "the pod curl has variables of late: it was started after the Service, and then nothing is shown",
            "Variables are fixed when a container starts. First no Service, then the pod, then the Service.",
            f"kubectl delete service late; kubectl delete pod curl --now; {RUN_CURL}",
            "then: kubectl expose deployment my-nginx --name=late --port=80",
            settles=False,
        )
    if not endpoints(lab, "late"):
        raise Missing("the Service late has no endpoints", "Which pods does it select? kubectl describe service late", APPLY)
    status = status_of(lab, "curl", "http://late")
    if status != "200":
        raise Missing(f"http://late answers with {status if status != '000' else 'nothing'}", "kubectl describe service late")
    return "the older pod has no variable of late, and reaches it by its name"


@checker(lesson=4, title="a headless Service's name leads to its pods")
def headless_names_pods(lab, pods: int = 3) -> str:
    """DNS answers for `my-nginx-headless` with the addresses of exactly the ready pods."""
    ready_pod(lab, "curl", RUN_CURL)
    apply = "kubectl apply -f ../manifests/my-nginx-headless.yaml"
    service = find(lab, "services", "my-nginx-headless")
    if service is None:
        raise Missing("there is no Service my-nginx-headless", apply, settles=False)
    if service["spec"].get("clusterIP") != "None":
        raise Missing(
            f"my-nginx-headless has the address {service['spec'].get('clusterIP')}: it is not headless",
            "Headless means clusterIP: None, and that can't be changed later.",
            f"kubectl delete service my-nginx-headless; {apply}",
            settles=False,
        )
    ready = ready_pods(lab, SELECTOR, pods, f"kubectl scale deployment my-nginx --replicas={pods}")
    wanted = {pod["status"]["podIP"] for pod in ready}
    told = set(dns(lab, full(lab, "my-nginx-headless")).addresses)
    if told != wanted or len(live_pods(lab, SELECTOR)) != len(wanted):
        raise Missing(
            f"DNS names {len(told)} addresses, and {len(wanted)} pods are ready",
            "Does it select the same pods? kubectl describe service my-nginx-headless",
            "kubectl get endpointslices -l kubernetes.io/service-name=my-nginx-headless",
        )
    state = conditions.condition(lab, lab.namespace, "service/my-nginx-headless")()  # the other DNS servers follow, too
    if not state.done:
        raise Missing(f"my-nginx-headless {state.words}", "kubectl get endpointslices -l kubernetes.io/service-name=my-nginx-headless")
    return f"my-nginx-headless leads to the {len(told)} pods themselves"


@checker(lesson=4, title="DNS tells a Service's port")
def port_by_name(lab) -> str:
    """Exercise: `_http._tcp.web` answers 8080, and http://web:8080 shows the page."""
    ready_pod(lab, "curl", RUN_CURL)
    service = find(lab, "services", "web")
    if service is None:
        raise Missing(
            "there is no Service web",
            "It has the selector of my-nginx, one port, and that port has a name.",
            "SRV records are made from *named* ports: under spec.ports, give name, port and targetPort.",
            "spec: {selector: {run: my-nginx}, ports: [{name: http, port: 8080, targetPort: 80}]}",
            settles=False,
        )
    ports = service["spec"].get("ports") or []
    if service["spec"].get("clusterIP") == "None":
        raise Missing("web is headless", "It should have a cluster IP: leave clusterIP out.", "kubectl delete service web", settles=False)
    if 8080 not in {port["port"] for port in ports}:
        heard = ", ".join(str(port["port"]) for port in ports) or "none"
        raise Missing(f"web listens on {heard}, not on 8080", "`port` is what clients use.", "port: 8080, targetPort: 80", settles=False)
    if not any(port.get("name") == "http" and port["port"] == 8080 for port in ports):
        raise Missing(
            "port 8080 of web isn't named http, so there is no record _http._tcp.web",
            "What DNS calls `_http` is the *name* of the port.",
            "kubectl edit service web, or apply it again with name: http at the port.",
            settles=False,
        )
    if not endpoints(lab, "web"):
        raise Missing(
            "web has no endpoints",
            "Its selector finds no pod. Compare: kubectl get pods --show-labels",
            "kubectl set selector service web run=my-nginx",
        )
    if status_of(lab, "curl", "http://web:8080") != "200":
        targets = {endpoint.ports for endpoint in endpoints(lab, "web")}
        raise Missing(
            f"nobody answers at http://web:8080; it sends to port {', '.join(str(p) for ports in targets for p in ports)} of the pods",
            "On which port does nginx listen? That is the targetPort.",
            "targetPort: 80",
        )
    records = dns(lab, f"_http._tcp.{full(lab, 'web')}", "srv").services
    if {port for port, _ in records} != {8080}:
        ask = f"kubectl exec curl -- nslookup -type=srv _http._tcp.{full(lab, 'web')}"
        raise Missing(f"DNS says {records or 'nothing'} for _http._tcp.web", ask)
    return "_http._tcp.web says 8080, and http://web:8080 answers"


@checker(lesson=4, title="an alias without an address")
def alias_without_address(lab) -> str:
    """Exercise: `website` is an ExternalName Service for my-nginx, and http://website shows the page."""
    ready_pod(lab, "curl", RUN_CURL)
    target = full(lab, "my-nginx")
    command = f"kubectl create service externalname website --external-name={target}"
    service = find(lab, "services", "website")
    if service is None:
        raise Missing(
            "there is no Service website",
            "It neither has an address nor selects pods: it only gives another name to ask for.",
            "The type is ExternalName; kubectl create service externalname --help",
            command,
            settles=False,
        )
    if service["spec"].get("type") != "ExternalName":
        kind = "headless" if service["spec"].get("clusterIP") == "None" else service["spec"].get("type")
        raise Missing(
            f"website is a Service of type {kind}, not an alias",
            "Type ExternalName is the one that is nothing but a DNS name.",
            f"kubectl delete service website; {command}",
            settles=False,
        )
    name = service["spec"].get("externalName", "").rstrip(".")
    if name != target:
        raise Missing(
            f"website is an alias of {name}, which isn't the complete name of my-nginx",
            "An alias goes to DNS as it is: no search list makes it longer.",
            f"kubectl delete service website; {command}",
            settles=False,
        )
    alias = dns(lab, full(lab, "website")).alias or dns(lab, full(lab, "website"), "cname").alias
    if alias != target:
        raise Missing(f"DNS says {alias or 'no alias'} for website", f"kubectl exec curl -- nslookup -type=cname {full(lab, 'website')}")
    if status_of(lab, "curl", "http://website") != "200":
        raise Missing("nobody answers at http://website", "Does my-nginx answer? kubectl exec curl -- curl -s http://my-nginx")
    return "website is another name for my-nginx, with no address of its own"
