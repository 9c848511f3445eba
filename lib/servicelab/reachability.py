"""Whether what the API says has reached the nodes, the DNS servers and the servers in pods: each follows it a moment later."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import TYPE_CHECKING

from . import readiness
from .errors import LabError
from .rules import rules_for

if TYPE_CHECKING:
    from .lab import Lab


def ready_endpoints(endpointslice: dict) -> list[dict]:
    """The endpoints that may get traffic; no condition means ready (EndpointConditions of the API)."""
    return [e for e in endpointslice.get("endpoints") or [] if (e.get("conditions") or {}).get("ready", True) is not False]


def deaf_ports(lab: Lab, targets: Iterable[tuple[str, int]]) -> list[str]:
    """The pods' addresses and ports that take no connection from a node yet; where nodes can't be asked cheaply, none."""
    if not targets or not lab.quick_nodes:
        return []
    each = " ".join(f"{ip}/{port}" for ip, port in sorted(targets))
    # a bare connection that sends nothing leaves no line in the server's access log
    connect = 'timeout 1 bash -c "exec 3<>/dev/tcp/$t" 2>/dev/null || echo "$t"'
    ran = lab.nodes[0].run(f"command -v bash >/dev/null || exit 0; for t in {each}; do {connect}; done")
    return [word.replace("/", ":") for word in ran.split()]


def mute_nodes(lab: Lab, spec: dict, slices: list[dict]) -> list[str]:
    """Nodes whose kernel does not pass connections to the Service on yet: kube-proxy follows a moment after the API.

    Where the nodes can be entered, their rules are read. A connection alone proves little there: one that no rule translates leaves
    the cluster, and some networks have a server that answers at any address. Where the nodes aren't ours to ask, the learner's own
    pods connect: one that runs on each node.
    """
    ip = spec.get("clusterIP")
    ports = [p for p in spec.get("ports") or [] if p.get("protocol", "TCP") == "TCP"]
    if not ip or ip == "None" or not ports or spec.get("internalTrafficPolicy") == "Local":
        return []
    if lab.quick_nodes:
        listings = lab.run_on_nodes("nft list table ip kube-proxy")
        if all(listing.returncode == 0 for listing in listings.values()):
            return [node for node, listing in listings.items() if not in_the_rules(listing.stdout, spec, ports, slices)]
        # kube-proxy of another mode: a bare TCP connection that sends nothing leaves no line in the server's access log
        probe = "; ".join(f"timeout 2 bash -c 'exec 3<>/dev/tcp/{ip}/{port['port']}' || exit 1" for port in ports)
        # 127: the program isn't there: no verdict
        return [node for node, ran in lab.run_on_nodes(probe).items() if ran.returncode not in (0, 127)]
    running = [p for p in lab.list("pods") if readiness.of_pod(p).done and p["status"]["phase"] == "Running"]
    pods = {p["spec"]["nodeName"]: p["metadata"]["name"] for p in running}
    mute = []
    for node, pod in sorted(pods.items()):
        # curl's telnet connects, sends nothing, and says when it was connected: never is 0.000000
        probe = "; ".join(f"curl -s -m 0.5 -w '%{{time_connect}}\\n' telnet://{ip}:{port['port']} </dev/null" for port in ports)
        try:
            said = lab.run_in_pod(pod, probe)
        except LabError:
            continue  # the pod went, or has no shell: no verdict from this node
        if "0.000000" in said.split():
            mute.append(node)
    return mute


def dns_behind(lab: Lab, name: str, spec: dict, slices: list[dict]) -> list[str]:
    """The addresses of the cluster's DNS servers that answer otherwise than the API does: each follows it a moment later.

    A node asks each of them, since the Service kube-dns leads to any one. A server that can't be asked has no verdict.
    """
    if not lab.quick_nodes:
        return []
    from dnslib import QTYPE, RCODE, DNSError, DNSRecord

    headless = spec.get("clusterIP") in (None, "None")
    wanted = {a for s in slices for e in ready_endpoints(s) for a in e["addresses"]} if headless else {spec["clusterIP"]}
    if any(":" in address for address in wanted):  # IPv6: not in kind's or pocket's cluster
        return []
    try:
        of_dns = lab.client.list("endpointslices", "kube-system", selector="kubernetes.io/service-name=kube-dns")
    except LabError:
        return []
    servers = sorted({a for s in of_dns for e in ready_endpoints(s) for a in e["addresses"]})
    question = base64.b64encode(DNSRecord.question(name).pack()).decode()
    ask = "exec 3<>/dev/udp/{}/53 && echo {} | base64 -d >&3 && timeout 2 dd bs=4096 count=1 status=none <&3 | base64 -w0; echo"
    script = "\n".join(ask.format(server, question) for server in servers)
    behind = []
    for server, line in zip(servers, lab.nodes[0].run(["bash", "-c", f"exec 2>/dev/null\n{script}"]).splitlines(), strict=False):
        try:
            reply = DNSRecord.parse(base64.b64decode(line))
        except (DNSError, ValueError):
            continue
        whole = reply.header.rcode in (RCODE.NOERROR, RCODE.NXDOMAIN) and not reply.header.tc
        if whole and {str(record.rdata) for record in reply.rr if record.rtype == QTYPE.A} != wanted:
            behind.append(server)
    return behind


def in_the_rules(ruleset: str, spec: dict, ports: list[dict], slices: list[dict]) -> bool:
    """Whether a node's rules lead each port to the ready endpoints, all of them and no other, and its node port to somewhere."""
    for port in ports:
        ends = {
            f"{address}:{end['port']}"
            for s in slices
            for end in s.get("ports") or []
            if (end.get("name") or "") == port.get("name", "")
            for endpoint in ready_endpoints(s)
            for address in endpoint["addresses"]
        }
        found = set(rules_for(ruleset, spec["clusterIP"], port["port"]).targets)
        # with a traffic distribution, each node has endpoints of its own choice
        if not (found and found <= ends if spec.get("trafficDistribution") else found == ends):
            return False
        if port.get("nodePort") and f"tcp . {port['nodePort']} " not in ruleset:
            return False
    return True
