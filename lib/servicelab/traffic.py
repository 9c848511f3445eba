"""Send real requests and find out, from the servers' own access logs, which pod answered each."""

from __future__ import annotations

import secrets
import shlex
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Tally:
    """Who answered.

    Attributes:
        answered: how many of the requests each pod has in its access log, by the pod's name; pods that got none are in it with 0.
        sent: how many requests were sent.
        succeeded: how many got an HTTP answer, of whatever status.
        clients: the addresses from which the servers say that the requests came.
    """

    answered: dict[str, int]
    sent: int
    succeeded: int
    clients: frozenset[str]


def ask(lab, url: str, *, servers: str, times: int = 20, client: str | None = "curl") -> Tally:
    """Send requests from a pod, each over a connection of its own, and count them in the servers' logs.

    Each request carries a mark that is new in every call (as its User-Agent), so what else the servers have logged doesn't count.

    Args:
        lab: what `connect()` gave.
        url: where to send them, as seen from the client pod.
        servers: the label selector of the pods that may answer; they must log the User-Agent, as nginx does.
        times: how many requests.
        client: the pod to send from; it has sh and curl. None sends from the machine outside of the cluster.

    Returns:
        Tally: from the logs, once they account for every answer, or when `lab.patience` ends.

    Example:
        ask(lab, "http://my-nginx", servers="run=my-nginx", times=100).answered
    """
    mark = f"lab-{secrets.token_hex(8)}"
    one = f"curl -s -o /dev/null --max-time 3 -A {mark} -w '%{{http_code}}\\n' {shlex.quote(url)}"
    loop, patience = f"i=0; while [ $i -lt {times} ]; do {one}; i=$((i+1)); done; true", 30 + 4 * times
    output = lab.outside.run(loop, timeout=patience) if client is None else lab.run_in_pod(client, loop, timeout=patience)
    succeeded = sum(line.strip() not in ("", "000") for line in output.splitlines())
    deadline = time.monotonic() + lab.patience
    while True:
        answered, clients = _read_logs(lab, servers, mark)
        # The log line is written after the answer is sent, and reaches the kubelet a moment later.
        if sum(answered.values()) >= succeeded or time.monotonic() > deadline:
            return Tally(answered, times, succeeded, frozenset(clients))
        time.sleep(0.2)


def _read_logs(lab, servers: str, mark: str) -> tuple[dict[str, int], set[str]]:
    answered: dict[str, int] = {}
    clients: set[str] = set()
    for pod in lab.list("pods", servers):
        if pod["status"].get("phase") != "Running" or pod["metadata"].get("deletionTimestamp"):
            continue
        name = pod["metadata"]["name"]
        lines = [line for line in lab.kubectl("logs", name, "--tail=2000").splitlines() if mark in line]
        answered[name] = len(lines)
        clients.update(line.split(" ", 1)[0] for line in lines)
    return answered, clients
