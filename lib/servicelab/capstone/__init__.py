"""The capstone: a small application of three Services, whose callers call by name, broken in up to six ways.

    shop = lab.break_it()      # builds it, and says who calls whom
    lab.board()                # which of the connections work by now, live

Names, ports and faults follow from a seed (``plan.py``), the objects from the plan (``objects.py``). What works is read from the callers'
own logs (``calls.py``).
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from servicelab import settings
from servicelab.capstone import calls, objects, solutions
from servicelab.capstone.calls import Call
from servicelab.capstone.plan import FAULTS, Plan, make, other_namespace
from servicelab.errors import LabError, NotAllowed, NotFound, NotYet

if TYPE_CHECKING:
    from servicelab.lab import Lab

__all__ = ["FAULTS", "Shop", "break_it", "find", "is_ours", "remove"]

HEADLESS_SEED = 14
STEADY_SECONDS = 4.0  # what callers say must hold so long, two rounds of calls: their first ones meet DNS and rules half made
SETTLE_SECONDS = 300.0


class Shop:
    """An application in the cluster: what ``lab.break_it()`` returns.

    Attributes:
        plan: what follows from its seed. It names the faults: look only when you have given up.
    """

    def __init__(self, lab: Lab, plan: Plan, note: str = "") -> None:
        self._lab, self.plan, self._note = lab, plan, note

    def calls(self, *, rounds: int = 1) -> list[Call]:
        """The latest call of each caller; of several rounds the latest that failed, if one did."""
        return calls.read(self._lab, self.plan, rounds=rounds)

    def solution(self, fault: str) -> list[str]:
        """The commands that mend one of the faults in this very application, as one would type them.

        Args:
            fault: one of ``selector``, ``port``, ``readiness``, ``secret``, ``name``, ``certificate``.

        Raises:
            LabError: there is no such fault.
        """
        return solutions.of(self.plan, fault)

    def __repr__(self) -> str:
        return self.plan.text() + (f"\n{self._note}" if self._note else "")


def break_it(lab: Lab, seed: int | None = None, *, faults: Iterable[str] = FAULTS) -> Shop:
    """Builds an application, breaks it, and returns once every caller calls and every fault shows.

    Args:
        lab: what `connect()` gave.
        seed: which application and which mistakes; the same number gives the same. None keeps the one that is there, or
            makes one by chance (in a headless run always the same, made anew).
        faults: which of the faults; all six by default.

    Raises:
        LabError: something of the same name, that isn't ours, is in its way.
        WaitTimeout: it doesn't settle; says what is missing.

    Example:
        >>> lab.break_it(seed=42)  # doctest: +SKIP
    """
    there = find(lab)
    if seed is None and there is not None and not settings.headless():
        there._note = "(It was there already and is as you left it. lab.break_it(seed=…), with another number, builds another.)"
        return there
    if seed is None:
        seed = HEADLESS_SEED if settings.headless() else random.SystemRandom().randrange(1, 10_000)
    remove(lab)
    plan = make(seed, lab.namespace, faults=faults)
    why = _make_namespace(lab, plan)
    if why:
        plan = make(seed, lab.namespace, second=False, faults=faults)
    _create(lab, plan)
    shop = Shop(lab, plan, why)
    _settle(lab, shop)
    return shop


def find(lab: Lab) -> Shop | None:
    """The application that is in the learner's namespace, or None."""
    try:
        data = lab.get("configmaps", objects.RECORD).get("data") or {}
    except NotFound:
        return None
    try:
        return Shop(lab, make(int(data["seed"]), lab.namespace, second=bool(data["other"]), faults=data["faults"].split()))
    except (KeyError, ValueError):
        return None  # a ConfigMap of that name which isn't ours


def is_ours(obj: dict) -> bool:
    """Whether an object belongs to an application of this module."""
    return (obj["metadata"].get("labels") or {}).get(objects.LABEL) == objects.MADE


def leftovers(lab: Lab) -> list[tuple[str, str]]:
    """What of it no label in the learner's namespace tells: its second namespace, and Secrets that were replaced; (kind, name)."""
    found = []
    other = other_namespace(lab.namespace)
    try:
        labels = lab.client.get("namespaces", other)["metadata"].get("labels") or {}
        if labels.get(objects.OWNER) == lab.namespace:
            found.append(("namespace", other))
    except (NotFound, NotAllowed):
        pass  # none, or none that this learner could have made
    shop = find(lab)
    if shop is not None:
        third = shop.plan.servers[2]
        names = {third.secret, third.users, shop.plan.callers[3].secret}
        found += [("secret", s["metadata"]["name"]) for s in lab.list("secrets") if s["metadata"]["name"] in names]
    return found


def remove(lab: Lab) -> None:
    """Removes the application, its second namespace with it, and nothing else, and waits until it is gone.

    Raises:
        WaitTimeout: something doesn't go; names it.
    """
    from servicelab.reset import delete_and_wait

    def ours() -> list[tuple[str, str]]:
        found = leftovers(lab)
        for kind in ("service", "deployment", "secret", "configmap"):
            found += [(kind, o["metadata"]["name"]) for o in lab.list(kind) if is_ours(o)]
        return sorted(set(found), key=lambda made: made[0] != "service")

    delete_and_wait(lab, ours)


def _make_namespace(lab: Lab, plan: Plan) -> str:
    """Makes the second namespace; else why there is none, in a sentence."""
    without = "so the sixth fault is another one of its kind, within your namespace."
    try:
        lab.client.request("POST", "/api/v1/namespaces", objects.namespace(plan))
    except NotAllowed:
        return f"(You may not make a second namespace in this cluster, {without})"
    except LabError as error:
        if getattr(error, "code", 0) != 409:
            raise
        return f"(There is a namespace {plan.other} that isn't ours, {without})"
    return ""


def _create(lab: Lab, plan: Plan) -> None:
    made = objects.of(plan)
    for obj in made:
        where = obj["metadata"]["namespace"]
        try:
            lab.client.request("POST", lab.client.path(obj["kind"], where), obj)
        except LabError as error:
            if getattr(error, "code", 0) != 409:
                raise
            what = f"{obj['kind'].lower()} {obj['metadata']['name']}"
            raise LabError(
                f"There is a {what} in namespace {where} already that is none of the capstone's. Delete or rename it, take another seed "
                "(lab.break_it(seed=…)), or work in another namespace (connect(namespace=…)). lab.reset() removes what was made so far."
            ) from error


def _settle(lab: Lab, shop: Shop) -> None:
    """Waits until every part does what the plan says that it does, and has done so for a while.

    Raises:
        WaitTimeout: it doesn't come to that; names the part.
    """
    since: list[float] = []

    def settled() -> bool:
        """the application stands"""
        why = _unsettled(lab, shop)
        if why:
            since.clear()
            raise NotYet(why)
        if not since:
            since.append(time.monotonic())
        if (left := since[0] + STEADY_SECONDS - time.monotonic()) > 0:
            raise NotYet(f"looking whether it stays so, {left:.0f} s more")
        return True

    lab.wait_for(settled, timeout=SETTLE_SECONDS)


def _unsettled(lab: Lab, shop: Shop) -> str:
    """What isn't yet as the plan wants it; empty when all is."""
    plan = shop.plan
    for server in plan.servers:
        pods = [p for p in lab.list("pods", f"app={server.name}") if not p["metadata"].get("deletionTimestamp")]
        if len(pods) < server.replicas or any(calls.held_up(pod) for pod in pods):
            return f"the pods of {server.name} are starting"
        ready = lab.get("deployments", server.name).get("status", {}).get("readyReplicas") or 0
        unready = server.name == plan.misread and "readiness" in plan.faults
        if ready != (0 if unready else server.replicas):
            return f"{ready} of {server.replicas} pods of {server.name} are ready"
    for call in shop.calls():
        expected = _expected(plan, call)
        if expected:
            return expected
    return ""


_CODES = {"name": (6,), "selector": (7, 28), "readiness": (7, 28), "port": (7, 28), "certificate": (60,)}


def _expected(plan: Plan, call: Call) -> str:
    """Whether a caller gets what its faults make it get: empty, or else what it gets."""
    faults = plan.in_the_way(call.caller)
    if not faults:
        return "" if call.works else f"{call.caller.name} gets no answer yet: {call.words}"
    if faults[0] == "secret":
        return "" if call.said == "CreateContainerConfigError" else f"{call.caller.name} is starting: {call.said or call.words}"
    return "" if call.code in _CODES[faults[0]] else f"{call.caller.name}: {call.words}"
