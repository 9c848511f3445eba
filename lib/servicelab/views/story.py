"""What became of a Service's pods and endpoints, and when: a history made from watch events. No widget, no network."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from servicelab.views.world import World


@dataclass
class Life:
    """One pod's history; times are seconds from the start of the story.

    Attributes:
        states: ``(since, state)``: ``pending``, ``not ready``, ``ready``, ``terminating``, ``failed``, ``done``, ``gone``.
        membership: ``(since, how)``: ``in`` (ready in the EndpointSlice), ``out`` (not in it, or not ready), ``serving`` (ending, but
            still serving).
    """

    uid: str
    name: str
    address: str = ""
    states: list[tuple[float, str]] = field(default_factory=list)
    membership: list[tuple[float, str]] = field(default_factory=list)

    @property
    def state(self) -> str:
        """The state now."""
        return self.states[-1][1]

    @property
    def member(self) -> bool:
        """Whether new connections may be sent to it now."""
        return bool(self.membership) and self.membership[-1][1] == "in"

    def told(self) -> str:
        """The life in words, such as ``pending → ready``, without moments so short that a watch may miss them."""
        kept = [state for _, state in self.states]
        first = kept.index("ready") if "ready" in kept else 0  # on the way to it, a pod may be seen running but not ready, or not
        kept = [state for place, state in enumerate(kept) if not (place < first and state == "not ready")]
        return " → ".join(state for place, state in enumerate(kept) if place == 0 or state != kept[place - 1])


@dataclass
class Story:
    """The lives of all pods that a Service has had since the story began."""

    service: str
    lives: dict[str, Life] = field(default_factory=dict)
    counts: list[tuple[float, int]] = field(default_factory=list)

    def look(self, at: float, world: World) -> bool:
        """Write down what is different from the last look; False if nothing is."""
        service = world.service(self.service)
        endpoints = {endpoint.pod_uid: endpoint for endpoint in world.endpoints(self.service) if endpoint.pod_uid}
        pods = {pod.uid: pod for pod in world.pods()}
        selected = {pod.uid for pod in world.selected(service)} if service else set()
        changed = False
        for uid in sorted(selected | endpoints.keys(), key=lambda uid: (pods[uid].created, pods[uid].name) if uid in pods else ("", uid)):
            if uid not in self.lives and uid in pods and pods[uid].state not in ("done", "failed"):
                self.lives[uid] = Life(uid, pods[uid].name)
        for uid, life in self.lives.items():
            pod, endpoint = pods.get(uid), endpoints.get(uid)
            if pod is not None and pod.ip:
                life.address = pod.ip
            state = pod.state if pod is not None else "gone"
            how = "out"
            if endpoint is not None:
                how = "in" if endpoint.ready else ("serving" if endpoint.serving and endpoint.terminating else "out")
            changed |= _note(life.states, at, state) | _note(life.membership, at, how)
        changed |= _note(self.counts, at, sum(endpoint.ready for endpoint in endpoints.values()))
        return changed

    def settled(self) -> bool:
        """Whether nothing is on its way: every pod is ready and in the EndpointSlice, or gone and out of it."""
        return bool(self.counts) and all(
            (life.state == "ready" and life.member) or (life.state in ("gone", "done", "failed", "not ready") and not life.member)
            for life in self.lives.values()
        )  # fmt: skip

    def text(self) -> str:
        """The story in lines that don't depend on chance: what became of how many pods, and how many endpoints there were."""
        if not self.counts:
            return f"endpoints of {self.service}: nothing seen yet"
        lines = [f"endpoints of {self.service}: {_count(self.counts[0][1])} at the start, {_count(self.counts[-1][1])} at the end"]
        for told, number in sorted(Counter(life.told() for life in self.lives.values()).items()):
            lines.append(f"  {number} × {told}")
        return "\n".join(lines)


def _note(history: list, at: float, what: str | int) -> bool:
    if history and history[-1][1] == what:
        return False
    history.append((at, what))
    return True


def _count(number: int) -> str:
    return f"{number} ready"
