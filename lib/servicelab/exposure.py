"""The Service seen from outside of the cluster: who gets an answer where, and whom the server believes to be talking to."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

from servicelab.cloud import address_of
from servicelab.errors import LabError, NotYet
from servicelab.traffic import ask

SERVERS = "run=my-nginx"


def status(lab, url: str, *, client: str | None = None) -> str:
    """The HTTP status of one request, or "000" when nobody answers within a few seconds.

    Certificates are not checked: this asks whether there is an answer, and lesson 05 asks from whom.

    Args:
        lab: what `connect()` gave.
        url: where to send it.
        client: a pod to ask from; None asks from the machine outside of the cluster.
    """
    command = f"curl -sk -o /dev/null --connect-timeout 1.5 --max-time 5 -w '%{{http_code}}' {shlex.quote(url)}"
    said = lab.run_in_pod(client, command) if client else lab.outside.run(command)
    found = re.search(r"\b\d{3}\b", said)
    return found[0] if found else "000"


def answer(lab, url: str, *, client: str | None = None) -> str:
    """Whether the lesson's page comes from a URL: "the page" or "nothing"; who else may answer at that address doesn't count.

    Args:
        lab: what `connect()` gave.
        url: where to ask.
        client: a pod to ask from; None asks from the machine outside of the cluster.
    """
    command = f"curl -sk --connect-timeout 1.5 --max-time 5 {shlex.quote(url)}"
    said = lab.run_in_pod(client, command) if client else lab.outside.run(command)
    return "the page" if "Welcome to nginx!" in said else "nothing"


def from_here(lab, node_port: int, *, name: str | None = None, ca: str | Path | None = None) -> str:
    """Ask a node port from the learner's own machine, and say in one line what came.

    Args:
        lab: what `connect()` gave.
        node_port: the port on the nodes.
        name: the server's name, where it is to be asked by TLS; the certificate must be for this name.
        ca: the file of the certificate to trust, for TLS.

    Returns:
        The address, with the title of the page that came, or the reason why none did.
    """
    try:
        url = lab.outside.url(node_port)
    except LabError as error:
        return f"not reached from this machine: {error}"
    where = urlsplit(url).netloc
    # The rules on the node follow a moment after a change, and what passes the port on to the node answers before that.
    command = ["curl", "-sS", "--max-time", "10", "--retry", "6", "--retry-delay", "1", "--retry-all-errors"]
    if name:
        command += ["--cacert", str(ca), "--connect-to", f"{name}:443:{where}", f"https://{name}"]
    else:
        command += [url]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    title = re.search(r"<title>(.*?)</title>", done.stdout)
    shown = f"https://{where} (as {name})" if name else url
    return f"{shown}: {title[1] if title else (done.stderr.strip().splitlines() or ['no page'])[0]}"


def outside_address(lab) -> str:
    """The address that the machine outside sends from, when it talks to the nodes."""
    nodes = lab.nodes
    route = lab.outside.run(f"ip -o route get {nodes[0].ip}") if nodes else ""
    found = re.search(r"\bsrc (\S+)", route)
    if not found:
        raise LabError(f"The address of the machine outside is not known: its routing table says {route!r} for a node's address.")
    return found[1]


def seen_as(lab, service: str, *, times: int = 4) -> frozenset[str]:
    """Send requests from outside to every node's node port, and collect the client addresses in the servers' access logs."""
    port = lab.service(service).node_ports[0]
    seen: frozenset[str] = frozenset()
    for node in lab.nodes:
        if status(lab, f"http://{node.ip}:{port}") == "200":
            seen |= ask(lab, f"http://{node.ip}:{port}", servers=SERVERS, times=times, client=None).clients
    return seen


def external_address(lab, service: str) -> str | None:
    """The address in the Service's status that a load balancer answers at, or None."""
    return address_of(lab.get("services", service))


def wait_for_address(lab, service: str) -> None:
    """Wait until the Service has an external address and the outside gets an answer there. Where no cloud may run, say so instead."""
    if not lab.cloud().allowed and external_address(lab, service) is None:
        print(lab.cloud())
        return
    port = lab.service(service).ports[0]

    def answers() -> bool:
        address = external_address(lab, service)
        if not address:
            raise NotYet(f"{service} has no external address yet. {lab.cloud()}")
        if status(lab, f"http://{address}:{port}") != "200":  # until the rules are there, someone else may answer at it
            raise NotYet(f"{service} has the address {address}, and nobody answers there yet")
        return True

    lab.wait_for(answers)


def wait_for_policy(lab, service: str) -> None:
    """Wait until every node does as the Service's externalTrafficPolicy says: with Local, only nodes with a ready pod answer."""
    local = lab.get("services", service)["spec"].get("externalTrafficPolicy") == "Local"

    def nodes_follow() -> bool:
        spots = lab.endpoints(service)
        with_pod = set(spots[spots["ready"].astype(bool)]["node"])
        port = lab.service(service).node_ports[0]
        for node in lab.nodes:
            answered = status(lab, f"http://{node.ip}:{port}") == "200"
            if answered != (not local or node.name in with_pod):
                raise NotYet(f"{node.name} {'still answers' if answered else 'does not answer yet'} at port {port}")
        # Nodes with a pod answer in any case. Whether they follow shows in what the servers log as the sender.
        if lab.nodes and lab.quick_nodes and seen_as(lab, service, times=1).issubset({outside_address(lab)}) != local:
            raise NotYet(f"the servers {'do not see' if local else 'still see'} the machine outside by its own address")
        address = external_address(lab, service)
        if address and status(lab, f"http://{address}:{lab.service(service).ports[0]}") != "200":
            raise NotYet(f"nobody answers at {address} yet")
        return True

    lab.wait_for(nodes_follow)


def wait_for_silence(lab, url: str) -> None:
    """Wait until the outside gets no answer there any more."""

    def silent() -> bool:
        if answer(lab, url) != "nothing":
            raise NotYet(f"{url} still answers")
        return True

    lab.wait_for(silent)
    print(f"{url} answers no more")
