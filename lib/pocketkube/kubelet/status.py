"""A pod's status, computed from the states of its containers.

https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from .sandbox import Container


def rfc3339(seconds: float) -> str:
    """A time since 1970 as metav1.Time."""
    return datetime.fromtimestamp(int(seconds), timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class ContainerState:
    """What the kubelet knows of one container of a pod, over all of its runs."""

    spec: dict
    init: bool = False
    container: Container | None = None  # the present run, or the last one
    run: int = 0  # number of the present run; also the name of its log file
    restarts: int = 0
    terminated: dict | None = None  # how the present run ended
    last: dict | None = None  # how the run before ended
    waiting: tuple[str, str] = ("ContainerCreating", "")
    ready: bool = False
    started: bool = False
    image: str = ""
    image_id: str = ""
    crash_delay: float = 0.0  # the next one
    crash_wait: float = 0.0  # the present back-off, in seconds
    crash_until: float = 0.0
    image_delay: float = 0.0
    image_until: float = 0.0
    image_error: str = ""
    stopping: bool = False
    restart_wanted: bool = False
    probers: list = field(default_factory=list)
    previous_run: int | None = None
    log: Any = None

    @property
    def name(self) -> str:
        """The container's name."""
        return self.spec["name"]

    @property
    def running(self) -> bool:
        """Whether it runs now."""
        return self.terminated is None and self.container is not None and self.container.running

    @property
    def sidecar(self) -> bool:
        """An init container that keeps running beside the others (restartPolicy: Always)."""
        return self.init and self.spec.get("restartPolicy") == "Always"

    @property
    def done(self) -> bool:
        """Of an init container: whether the next one may start."""
        if self.sidecar:
            return self.running and self.started
        return self.terminated is not None and self.terminated["exitCode"] == 0

    def api_state(self) -> dict:
        """core/v1 ContainerState."""
        if self.running:
            return {"running": {"startedAt": rfc3339(self.container.started_at)}}
        if self.terminated is not None and not self.waiting[0]:
            return {"terminated": self.terminated}
        reason, message = self.waiting
        return {"waiting": {"reason": reason, **({"message": message} if message else {})}}

    def api_status(self, volumes: dict[str, dict]) -> dict:
        """core/v1 ContainerStatus."""
        state = self.api_state()
        last = self.last
        if "waiting" in state and self.terminated is not None:
            last = self.terminated
        status: dict[str, Any] = {
            "name": self.name,
            "state": state,
            "lastState": {"terminated": last} if last else {},
            "ready": self.ready if not self.init or self.sidecar else self.done,
            "restartCount": self.restarts,
            "image": self.image or self.spec["image"],
            "imageID": self.image_id,
            "started": self.started and self.running,
        }
        current = self.terminated or last
        if self.running:
            status["containerID"] = f"containerd://{self.container.id}"
        elif current and current.get("containerID"):
            status["containerID"] = current["containerID"]
        if self.running or current:
            status["resources"] = self.spec.get("resources") or {}
            if (self.spec.get("resources") or {}).get("requests"):
                status["allocatedResources"] = self.spec["resources"]["requests"]
        mounts = []
        for mount in self.spec.get("volumeMounts") or []:
            shown = {"mountPath": mount["mountPath"], "name": mount["name"]}
            if mount.get("readOnly"):
                shown |= {"readOnly": True, "recursiveReadOnly": "Disabled"}
            mounts.append(shown)
        if mounts:
            status["volumeMounts"] = mounts
        return status


def phase(pod: dict, init: list[ContainerState], main: list[ContainerState]) -> str:
    """The pod's phase (kubelet's getPhase)."""
    policy = pod["spec"].get("restartPolicy", "Always")
    for state in init:
        if state.done:
            continue
        if state.terminated is not None and policy == "Never" and not state.sidecar:
            return "Failed"
        if not (state.sidecar and (state.terminated or state.last)):
            return "Pending"
    waiting = running = stopped = succeeded = 0
    for state in main:
        if state.running:
            running += 1
        elif state.terminated is not None or state.last is not None:
            stopped += 1
            ended = state.terminated or state.last
            succeeded += ended["exitCode"] == 0
        else:
            waiting += 1
    if waiting:
        return "Pending"
    if running or policy == "Always":
        return "Running"
    if stopped == succeeded:
        return "Succeeded"
    return "Failed" if policy == "Never" else "Running"


def conditions(
    pod: dict, old: list[dict], now: str, *, phase_: str, init: list[ContainerState], main: list[ContainerState], sandbox: bool
) -> list[dict]:
    """The kubelet's five conditions; those of others (readiness gates) are kept."""
    generation = pod["metadata"].get("generation", 1)
    before = {c["type"]: c for c in old}

    def condition(kind: str, status: bool, reason: str = "", message: str = "") -> dict:
        result = {"type": kind, "status": "True" if status else "False", "observedGeneration": generation, "lastProbeTime": None}
        if reason:
            result["reason"] = reason
        if message:
            result["message"] = message
        same = before.get(kind, {}).get("status") == result["status"]
        result["lastTransitionTime"] = before[kind]["lastTransitionTime"] if same else now
        return result

    over = phase_ in ("Succeeded", "Failed")
    incomplete = [s.name for s in init if not s.done and not (over and s.sidecar)]
    unready = [s.name for s in [*(s for s in init if s.sidecar), *main] if not s.ready]
    result = [condition("PodReadyToStartContainers", sandbox)]
    if phase_ == "Succeeded":
        result.append(condition("Initialized", True, "PodCompleted"))
        result += [condition(kind, False, "PodCompleted") for kind in ("Ready", "ContainersReady")]
    else:
        result.append(
            condition("Initialized", False, "ContainersNotInitialized", f"containers with incomplete status: [{' '.join(incomplete)}]")
            if incomplete
            else condition("Initialized", True)
        )
        if phase_ == "Failed":
            result += [condition(kind, False, "PodFailed") for kind in ("Ready", "ContainersReady")]
        elif unready:
            text = f"containers with unready status: [{' '.join(unready)}]"
            result += [condition(kind, False, "ContainersNotReady", text) for kind in ("Ready", "ContainersReady")]
        else:
            gates = [g["conditionType"] for g in pod["spec"].get("readinessGates") or []]
            closed = [g for g in gates if before.get(g, {}).get("status") != "True"]
            if closed:
                result.append(
                    condition(
                        "Ready",
                        False,
                        "ReadinessGatesNotReady",
                        "; ".join(
                            f'corresponding condition of pod readiness gate "{g}" does not exist.'
                            if g not in before
                            else f'the status of pod readiness gate "{g}" is not "True", but {before[g]["status"]}'
                            for g in closed
                        ),
                    )
                )
            else:
                result.append(condition("Ready", True))
            result.append(condition("ContainersReady", True))
    scheduled = before.get("PodScheduled")
    result.append({**scheduled, "observedGeneration": generation} if scheduled else condition("PodScheduled", True))
    known = {c["type"] for c in result}
    return result + [c for c in old if c["type"] not in known]
