"""What the callers of the application get: their own requests, read from their own logs."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from servicelab.capstone.plan import Caller, Plan
from servicelab.errors import LabError, NotFound

if TYPE_CHECKING:
    from servicelab.lab import Lab

LINE = re.compile(r"^(?P<url>\S+): status (?P<status>\d{3}), exit code (?P<code>\d+) ?(?P<error>.*)$")
WORDS = {
    6: "the name is not known", 7: "nobody takes the connection", 28: "no answer within 3 s", 35: "the TLS handshake fails",
    60: "the certificate is refused",
}  # fmt: skip
NOT_RUNNING = -1


@dataclass(frozen=True)
class Call:
    """The latest call of one caller.

    Attributes:
        caller: who called.
        url: what was called.
        code: curl's exit code; `NOT_RUNNING` when the caller doesn't run, or hasn't called yet.
        status: the HTTP status, 0 without one.
        said: curl's own complaint, or why the caller doesn't run.
    """

    caller: Caller
    url: str
    code: int
    status: int = 0
    said: str = ""

    @property
    def works(self) -> bool:
        """Whether the caller got what it wanted."""
        return self.status == 200

    @property
    def words(self) -> str:
        """What came of it, in the same few words for the same trouble."""
        if self.status:
            return f"status {self.status}"
        if self.code == NOT_RUNNING:
            return f"caller not running: {self.said}"
        return WORDS.get(self.code, f"curl's exit code {self.code}")


def read(lab: Lab, plan: Plan, *, rounds: int = 1) -> list[Call]:
    """The latest call of each caller, in the plan's order; of several rounds the latest that failed, if one did.

    Raises:
        LabError: the cluster doesn't answer, or doesn't allow it.
    """
    pods: dict[str, list[dict]] = {}
    for where in dict.fromkeys(caller.namespace for caller in plan.callers):
        pods[where] = lab.client.list("pods", where)
    with ThreadPoolExecutor(max_workers=len(plan.callers)) as pool:
        return list(pool.map(lambda caller: _latest(lab, caller, pods[caller.namespace], rounds), plan.callers))


def _latest(lab: Lab, caller: Caller, pods: list[dict], rounds: int) -> Call:
    pod = newest([p for p in pods if (p["metadata"].get("labels") or {}).get("app") == caller.name])
    if pod is None:
        return Call(caller, caller.url, NOT_RUNNING, said="it has no pod")
    env = {e["name"]: e.get("value", "") for e in pod["spec"]["containers"][0].get("env") or []}
    url = env.get("URL", caller.url)
    why = held_up(pod)
    if why:
        return Call(caller, url, NOT_RUNNING, said=why)
    try:
        lines = lab.client.logs(pod["metadata"]["name"], caller.namespace, tail=rounds).splitlines()
    except NotFound:
        return Call(caller, url, NOT_RUNNING, said="its pod has just gone")
    found = [match for line in reversed(lines) if (match := LINE.match(line))]
    if len(found) < rounds:
        return Call(caller, url, NOT_RUNNING, said="it has not called yet" if not found else "it has only begun to call")
    told = [Call(caller, each["url"], int(each["code"]), int(each["status"]), each["error"].strip()) for each in found]
    return next((call for call in told if not call.works), told[0])


def newest(pods: list[dict]) -> dict[str, Any] | None:
    """The pod whose word counts: one that runs before one that doesn't, the younger before the older; none that is ending."""
    living = [p for p in pods if not p["metadata"].get("deletionTimestamp")]
    return max(living, key=lambda p: (not held_up(p), p["metadata"]["creationTimestamp"], p["metadata"]["name"]), default=None)


def held_up(pod: dict) -> str:
    """Why a pod's container doesn't run, in Kubernetes' own word; empty when it runs."""
    for status in pod.get("status", {}).get("containerStatuses") or []:
        state = status["state"]
        if "running" in state:
            return ""
        return (state.get("waiting") or state.get("terminated") or {}).get("reason") or "waiting"
    return pod.get("status", {}).get("phase") or "Pending"


def trouble(error: LabError) -> str:
    """A cluster that doesn't answer, in one line for a picture's notice."""
    return f"The calls could not be read: {error}"
