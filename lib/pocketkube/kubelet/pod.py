"""One pod on one node: brought to life, kept as its spec says, and taken down."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import shutil
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ..apiserver.api import ApiError
from ..images import Image, ImageError, default_pull_policy, full_name
from ..network import NetworkError
from . import probes, process, syscalls
from .environment import ConfigError, container_environment, expand
from .hostports import pod_host_ports
from .logs import LogFile, parse_time
from .node import now
from .sandbox import Container, ContainerConfig, PodSandbox, StartError, User, find_user
from .status import ContainerState, conditions, phase, rfc3339
from .volumes import VolumeError, Volumes

if TYPE_CHECKING:
    from .kubelet import Kubelet

_log = logging.getLogger(__name__)

CRASH_DELAY, CRASH_DELAY_MAX, CRASH_FORGET = 10.0, 300.0, 600.0  # seconds; kubelet's MaxContainerBackOff and what resets it
IMAGE_DELAY, IMAGE_DELAY_MAX = 10.0, 300.0
RETRY = 2.0  # seconds until a failed step is tried again; most are woken earlier by a change of what they lack
BACKOFF_EVENT = 15.0  # seconds between BackOff events
_UNPRIVILEGED = {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": f"0 {syscalls.last_group()}"}


class PodWorker:
    """Runs one pod. All of its work is in one task, which a change of anything it depends on wakes."""

    def __init__(self, kubelet: Kubelet, pod: dict) -> None:
        self.kubelet = kubelet
        self.pod = pod
        self.uid = pod["metadata"]["uid"]
        self.namespace, self.name = pod["metadata"]["namespace"], pod["metadata"]["name"]
        self.wake = asyncio.Event()
        self.removed = False  # the API object is gone
        self.sandbox: PodSandbox | None = None
        self.ip = ""
        self.host_network = bool(pod["spec"].get("hostNetwork"))
        self.init = [ContainerState(spec, init=True) for spec in pod["spec"].get("initContainers") or []]
        self.main = [ContainerState(spec) for spec in pod["spec"]["containers"]]
        for state in self.main:
            state.waiting = ("PodInitializing" if self.init else "ContainerCreating", "")
        for state in self.init:
            state.waiting = ("PodInitializing", "")
        self.directory = kubelet.root / "pods" / self.uid
        self.volumes = Volumes(
            pod,
            self.directory,
            kubelet.memory / "pods" / self.uid,
            find=self._find,
            token=lambda audience, lifetime: kubelet.service_account_token(self.pod, audience, lifetime),
            allocatable=kubelet.node_object.capacity,
        )
        started = (pod.get("status") or {}).get("startTime")
        self._started_at = parse_time(started) if started else time.time()
        self._was_running = False
        self._reported: dict | None = None
        self._failed_mount_at = 0.0
        self._terminal = (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
        self._evicted: tuple[str, str] | None = None
        self._terminating = False
        self.task = asyncio.ensure_future(self._run())

    # ----------------------------------------------------------------------------------------------------- inputs

    def update(self, pod: dict) -> None:
        """The API object has changed."""
        old, self.pod = self.pod, pod
        # The status is mostly this worker's own writing; of others' there are only the conditions of readiness gates.
        if pod["spec"].get("readinessGates") or pod["spec"] != old["spec"] or _identity(pod) != _identity(old):
            self.wake.set()

    def remove(self) -> None:
        """The API object is gone."""
        self.removed = True
        self.wake.set()

    def _find(self, resource: str, name: str) -> dict | None:
        return self.kubelet.api.informer(resource).get(self.namespace, name)

    def state(self, container: str) -> ContainerState | None:
        """A container by name."""
        for state in [*self.init, *self.main]:
            if state.name == container:
                return state
        return None

    def log_path(self, state: ContainerState, run: int) -> Path:
        """The log file of one run of a container."""
        return self.kubelet.logs / f"{self.namespace}_{self.name}_{self.uid}" / state.name / f"{run}.log"

    def lacks_configuration(self) -> bool:
        """Whether a container waits for a ConfigMap or Secret."""
        return any(s.waiting[0] == "CreateContainerConfigError" for s in [*self.init, *self.main])

    def event(self, kind: str, reason: str, message: str, state: ContainerState | None = None) -> None:
        """Records an event about the pod, or about one of its containers."""
        self.kubelet.record_event(self.pod, kind, reason, message, state)

    # ----------------------------------------------------------------------------------------------------- the loop

    async def _run(self) -> None:
        try:
            self._restore()
            while True:
                self.wake.clear()
                if self.removed or self.pod["metadata"].get("deletionTimestamp"):
                    try:
                        await self._terminate()
                        return
                    except Exception:  # such as a full disk: nothing is lost, every step can be done again
                        _log.exception("pod %s/%s: not taken down, next try in %s s", self.namespace, self.name, RETRY)
                        await asyncio.sleep(RETRY)
                        continue
                try:
                    delay = await self._sync()
                except Exception as error:
                    if isinstance(error, ApiError) and error.code == 404:
                        delay = RETRY  # deleted meanwhile: the informer says so next
                    else:
                        _log.exception("pod %s/%s: sync failed, next try in %s s", self.namespace, self.name, RETRY)
                        self.event("Warning", "FailedSync", f"error determining status: {error}")
                        delay = RETRY
                try:
                    await asyncio.wait_for(self.wake.wait(), delay)
                except asyncio.TimeoutError:
                    pass
        except asyncio.CancelledError:
            raise
        except Exception:
            _log.exception("pod %s/%s: given up", self.namespace, self.name)
            raise

    def _restore(self) -> None:
        """After a restart of the cluster: the containers of the last status have died with the old one."""
        status = self.pod.get("status") or {}
        for states, key in ((self.init, "initContainerStatuses"), (self.main, "containerStatuses")):
            known = {c["name"]: c for c in status.get(key) or []}
            for state in states:
                old = known.get(state.name)
                if old is None:
                    continue
                state.restarts = old.get("restartCount", 0)
                state.image, state.image_id = old.get("image", ""), old.get("imageID", "")
                ended = (old.get("state") or {}).get("terminated")
                running = (old.get("state") or {}).get("running")
                last = (old.get("lastState") or {}).get("terminated")
                if running:
                    self._was_running = True
                    ended = {
                        "containerID": old.get("containerID", ""),
                        "exitCode": 255,
                        "finishedAt": now(),
                        "reason": "Unknown",
                        "startedAt": running["startedAt"],
                    }
                if ended:
                    state.terminated, state.last, state.waiting = ended, last, ("", "")
                    state.run = state.restarts
                elif last:
                    state.last, state.run = last, state.restarts
        if self._was_running and not self._terminal:
            self.event("Normal", "SandboxChanged", "Pod sandbox changed, it will be killed and re-created.")

    async def _sync(self) -> float | None:
        """One look at everything; returns the seconds until the next look, if time alone makes a difference."""
        if self._terminal:
            return None
        delays: list[float] = []
        deadline = self.pod["spec"].get("activeDeadlineSeconds")
        if deadline is not None:
            left = self._started_at + deadline - time.time()
            if left <= 0:
                await self._fail("DeadlineExceeded", "Pod was active on the node longer than the specified deadline")
                return None
            delays.append(left)
        try:
            self.volumes.update(self.pod)
        except VolumeError as error:
            self._report()
            if time.monotonic() - self._failed_mount_at > RETRY or str(error) != self._failed_mount:
                self._failed_mount_at, self._failed_mount = time.monotonic(), str(error)
                self.event("Warning", "FailedMount", str(error))
            return min([*delays, self._mount_retry()])
        if self.sandbox is None:
            if not self._reported:
                self._report()  # after a restart of the cluster: not ready, before anything leads to the old address
            try:
                await self._make_sandbox()
            except (OSError, RuntimeError, NetworkError) as error:
                self.event("Warning", "FailedCreatePodSandBox", f"Failed to create pod sandbox: {error}")
                return RETRY
            self._report()
        self._note_ends()
        await self._sync_containers(delays)
        self._note_ends()
        self._report()
        if phase(self.pod, self.init, self.main) in ("Succeeded", "Failed") and not any(s.running for s in [*self.init, *self.main]):
            self._terminal = True
            await self._remove_sandbox()
            self._report(sandbox=False)
            return None
        return min(delays) if delays else None

    _failed_mount = ""
    _mount_delay = 0.5

    def _mount_retry(self) -> float:
        delay = self._mount_delay
        self._mount_delay = min(delay * 2, 122.0)  # the kubelet's: half a second, doubled up to two minutes
        return delay

    async def _sync_containers(self, delays: list[float]) -> bool:
        """Starts what should run. Returns whether all init containers are done."""
        policy = self.pod["spec"].get("restartPolicy", "Always")
        for state in self.init:
            if state.running:
                if state.sidecar and state.started:
                    continue
                return False
            if state.done:
                continue
            if state.terminated is not None and policy == "Never" and not state.sidecar:
                return False
            await self._start(state, delays)
            if not state.done:
                return False
        for state in self.main:
            if state.running:
                continue
            if state.terminated is not None:
                failed = state.terminated["exitCode"] != 0
                if policy == "Never" or (policy == "OnFailure" and not failed):
                    continue
            await self._start(state, delays)
            if self.pod["metadata"].get("deletionTimestamp") or self.removed:
                return True
        if all(s.terminated is not None and not s.running for s in self.main) and phase(self.pod, [], self.main) in ("Succeeded", "Failed"):
            await asyncio.gather(*(self._stop(s, self._grace()) for s in self.init if s.sidecar and s.running))
        return True

    # ------------------------------------------------------------------------------------------------------- sandbox

    async def _make_sandbox(self) -> None:
        node = self.kubelet.node
        spec = self.pod["spec"]
        if self.host_network:
            netns, self.ip = node.netns, node.ip
        else:
            made = await node.add_pod(self.uid)
            netns, self.ip = made.netns, made.ip
        hostname = spec.get("hostname") or self.name
        if self.host_network:
            hostname = node.name
        hostname = hostname[:63].rstrip("-.")
        sandbox = PodSandbox(self.kubelet.memory / "pods" / self.uid / "sandbox", netns, hostname)
        sandbox.create(
            hosts=self._hosts(hostname),
            resolv=self.kubelet.resolv_conf(self.pod),
            sysctls={} if self.host_network else {**_UNPRIVILEGED, **self._sysctls()},
        )
        self.sandbox = sandbox
        await self.kubelet.host_ports.set(self.uid, pod_host_ports(self.pod, self.ip))

    def _sysctls(self) -> dict[str, str]:
        wanted = (self.pod["spec"].get("securityContext") or {}).get("sysctls") or []
        return {s["name"]: s["value"] for s in wanted if s["name"].startswith("net.")}

    def _hosts(self, hostname: str) -> str:
        names = hostname
        if self.pod["spec"].get("subdomain") and not self.host_network:
            names = f"{hostname}.{self.pod['spec']['subdomain']}.{self.namespace}.svc.{self.kubelet.cluster_domain}\t{hostname}"
        text = (
            "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"
            "fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n"
            f"{self.ip}\t{names}\n"
        )
        aliases = self.pod["spec"].get("hostAliases") or []
        if aliases:
            text += "\n# Entries added by HostAliases.\n"
            text += "".join(f"{a['ip']}\t" + "\t".join(a.get("hostnames") or []) + "\n" for a in aliases)
        return text

    async def _remove_sandbox(self) -> None:
        for state in [*self.init, *self.main]:
            if state.container is not None:
                state.container.remove()
        if self.sandbox is not None:
            self.sandbox.remove()
            self.sandbox = None
        await self.kubelet.host_ports.set(self.uid, [])
        if not self.host_network:
            await self.kubelet.node.remove_pod(self.uid)

    # ---------------------------------------------------------------------------------------------------- containers

    async def _start(self, state: ContainerState, delays: list[float]) -> None:
        """Starts a container, unless it has to wait; then says so in ``state.waiting`` and ``delays``."""
        clock = time.monotonic()
        again = state.terminated is not None
        if again and clock < state.crash_until:
            message = f"back-off {_go_duration(state.crash_wait)} restarting failed container={state.name} pod={self._full_name()}"
            if state.waiting[0] != "CrashLoopBackOff":
                self.event("Warning", "BackOff", f"Back-off restarting failed container {state.name} in pod {self._full_name()}", state)
            state.waiting = ("CrashLoopBackOff", message)
            delays.append(state.crash_until - clock)
            return
        if state.image_error and clock < state.image_until:
            if state.waiting[0] == "ErrImagePull":
                state.waiting = ("ImagePullBackOff", f'Back-off pulling image "{state.spec["image"]}": ErrImagePull: {state.image_error}')
                self.event("Normal", "BackOff", f'Back-off pulling image "{state.spec["image"]}"', state)
                self.event("Warning", "Failed", "Error: ImagePullBackOff", state)
            delays.append(state.image_until - clock)
            return
        image = await self._image(state, delays)
        if image is None:
            return
        state.image_error, state.image_delay = "", 0.0
        try:
            config = self._config(state, image)
        except ConfigError as error:
            state.waiting = ("CreateContainerConfigError", str(error))
            self.event("Warning", "Failed", f"Error: {error}", state)
            delays.append(10.0)
            return
        except StartError as error:
            state.waiting = ("CreateContainerError", str(error))
            self.event("Warning", "Failed", f"Error: {error}", state)
            delays.append(10.0)
            return
        if again or state.last is not None or state.container is not None:
            if state.container is not None:
                state.container.remove()
            state.previous_run = state.run
            state.restarts += 1
            state.run = state.restarts
            state.last = state.terminated or state.last
        state.terminated, state.ready, state.started, state.stopping, state.restart_wanted = None, False, False, False, False
        state.image, state.image_id = image.name, image.id
        container = Container(self.sandbox, config, secrets.token_hex(32))
        state.container = container
        log = LogFile(self.log_path(state, state.run))
        state.log = log
        began = time.time()
        self.event("Normal", "Created", f"Created container: {state.name}", state)

        def output(stream: str, data: bytes) -> None:
            log.write(stream, data)
            if state.spec.get("stdinOnce") and not container.was_attached:
                container.remember(stream, data)
            for listener in tuple(container.listeners):
                listener(stream, data)

        try:
            await container.start(output)
        except StartError as error:
            log.close()
            state.terminated = {
                "containerID": f"containerd://{container.id}",
                "exitCode": 128,
                "finishedAt": rfc3339(began),
                "message": str(error),
                "reason": "StartError",
                "startedAt": "1970-01-01T00:00:00Z",
            }
            state.waiting = ("RunContainerError", str(error))
            container.pid = 0
            self._delay_restart(state)
            self.event("Warning", "Failed", f"Error: {error}", state)
            delays.append(max(1.0, state.crash_until - time.monotonic()))
            return
        state.waiting = ("", "")
        self.event("Normal", "Started", f"Started container {state.name}", state)
        self.kubelet.background(self._watch(container, log))
        hook = (state.spec.get("lifecycle") or {}).get("postStart")
        if hook:
            failure = await self._hook(state, hook)
            if failure:
                self.event("Warning", "FailedPostStartHook", "PostStartHook failed", state)
                self.event("Normal", "Killing", "FailedPostStartHook", state)
                await self._stop(state, self._grace(), event=False)
                return
        self._probe(state)

    async def _watch(self, container: Container, log: LogFile) -> None:
        await container.ended.wait()
        log.close()
        self.wake.set()

    async def _image(self, state: ContainerState, delays: list[float]) -> Image | None:
        reference = state.spec["image"]
        policy = state.spec.get("imagePullPolicy") or default_pull_policy(reference)
        try:
            present = self.kubelet.node_object.has_image(full_name(reference))
            if policy == "Never" and not present:
                state.waiting = ("ErrImageNeverPull", f'Container image "{reference}" is not present with pull policy of Never')
                self.event("Warning", "ErrImageNeverPull", state.waiting[1], state)
                self.event("Warning", "Failed", "Error: ErrImageNeverPull", state)
                delays.append(10.0)
                return None
            quiet = present and policy != "Always"
            if not quiet:
                self.event("Normal", "Pulling", f'Pulling image "{reference}"', state)
            began = time.monotonic()
            image = await self.kubelet.images.pull(reference)
            if quiet:
                self.event("Normal", "Pulled", f'Container image "{reference}" already present on machine', state)
            else:
                took = _go_milliseconds(time.monotonic() - began)
                text = f'Successfully pulled image "{reference}" in {took} ({took} including waiting). Image size: {image.size} bytes.'
                self.event("Normal", "Pulled", text, state)
            self.kubelet.node_object.add_image(image.name, image.size)
            return image
        except ImageError as error:
            if error.reason == "InvalidImageName":
                state.waiting = ("InvalidImageName", error.message)
                self.event("Warning", "InspectFailed", error.message, state)
                self.event("Warning", "Failed", "Error: InvalidImageName", state)
                delays.append(10.0)
                return None
            state.image_delay = min(max(IMAGE_DELAY, state.image_delay * 2), IMAGE_DELAY_MAX)
            state.image_until = time.monotonic() + state.image_delay
            state.image_error = error.message
            state.waiting = ("ErrImagePull", error.message)
            self.event("Warning", "Failed", f'Failed to pull image "{reference}": {error.message}', state)
            self.event("Warning", "Failed", "Error: ErrImagePull", state)
            delays.append(1.0)  # then it is ImagePullBackOff
            return None

    def _config(self, state: ContainerState, image: Image) -> ContainerConfig:
        spec, pod_spec = state.spec, self.pod["spec"]
        node = self.kubelet.node
        seen = {
            **self.pod,
            "status": {
                **(self.pod.get("status") or {}),
                "podIP": self.ip,
                "podIPs": [{"ip": self.ip}],
                "hostIP": node.ip,
                "hostIPs": [{"ip": node.ip}],
            },
        }
        variables = container_environment(
            seen,
            spec,
            services=self.kubelet.api.informer("services").values(),
            find=self._find,
            allocatable=self.kubelet.node_object.capacity,
        )
        security = {**_pod_security(pod_spec), **(spec.get("securityContext") or {})}
        base = image.layers[0]
        user = find_user(base, image.user)
        if security.get("runAsUser") is not None:
            user = find_user(base, str(security["runAsUser"]))
        if security.get("runAsGroup") is not None:
            user.gid = security["runAsGroup"]
        if security.get("runAsNonRoot") and user.uid == 0:
            why = "image will run as root" if security.get("runAsUser") is None else "runAsUser breaks non-root policy"
            text = f'container has runAsNonRoot and {why} (pod: "{self._full_name()}", container: {state.name})'
            if security.get("runAsUser") is not None:
                text = f'container\'s {why} (pod: "{self._full_name()}", container: {state.name})'
            raise ConfigError(text)
        pod_security = pod_spec.get("securityContext") or {}
        groups = [
            *(pod_security.get("supplementalGroups") or []),
            *([pod_security["fsGroup"]] if pod_security.get("fsGroup") is not None else []),
        ]
        user = User(user.uid, user.gid, tuple(dict.fromkeys(groups)), user.home)
        environment = {**image.environment, "HOSTNAME": self.sandbox.hostname, "HOME": user.home, **variables}
        if spec.get("tty"):
            environment.setdefault("TERM", "xterm")
        command = [expand(word, variables) for word in spec.get("command") or []]
        arguments = [expand(word, variables) for word in spec.get("args") or []]
        argv = command + arguments if command else [*image.entrypoint, *(arguments or image.command)]
        if not argv:
            raise StartError("failed to generate container spec: no command specified")
        capabilities = security.get("capabilities") or {}
        return ContainerConfig(
            name=state.name,
            image=image,
            argv=argv,
            environment=environment,
            directory=spec.get("workingDir") or image.directory,
            user=user,
            mounts=self.volumes.mounts(spec, variables),
            read_only_root=bool(security.get("readOnlyRootFilesystem")),
            stdin=bool(spec.get("stdin")),
            tty=bool(spec.get("tty")),
            add_capabilities=tuple(_capability(c) for c in capabilities.get("add") or []),
            drop_capabilities=tuple(_capability(c) for c in capabilities.get("drop") or []),
        )

    def _full_name(self) -> str:
        return f"{self.name}_{self.namespace}({self.uid})"

    # --------------------------------------------------------------------------------------------------------- probes

    def _probe(self, state: ContainerState) -> None:
        container, spec = state.container, state.spec
        started = asyncio.Event()
        state.probers = []

        def attempt(probe: dict):
            return lambda: probes.try_once(probe, container=container, spec=spec, pod_ip=self.ip, netns=self.kubelet.node.netns)

        def unhealthy(text: str) -> None:
            if container.running:
                self.event("Warning", "Unhealthy", text, state)

        def add(kind: str, key: str, result) -> None:
            if spec.get(key) and not (state.init and not state.sidecar):
                state.probers.append(
                    probes.Prober(kind, spec[key], attempt=attempt(spec[key]), started=started, result=result, unhealthy=unhealthy)
                )

        def on_startup(good: bool) -> None:
            if good:
                state.started = True
                started.set()
                if not spec.get("readinessProbe"):
                    state.ready = True
                self.wake.set()
            else:
                self._restart(state, "startup")

        def on_liveness(good: bool) -> None:
            if not good:
                self._restart(state, "liveness")

        def on_readiness(good: bool) -> None:
            state.ready = good and state.running
            self.wake.set()

        if spec.get("startupProbe"):
            add("Startup", "startupProbe", on_startup)
        else:
            state.started = True
            started.set()
            state.ready = not spec.get("readinessProbe")
        add("Liveness", "livenessProbe", on_liveness)
        add("Readiness", "readinessProbe", on_readiness)

    def _restart(self, state: ContainerState, probe: str) -> None:
        """A liveness or startup probe has failed for good: stop the container; its restart policy decides what follows."""
        if state.stopping or not state.running:
            return
        never = self.pod["spec"].get("restartPolicy", "Always") == "Never"
        self.event(
            "Normal",
            "Killing",
            f"Stopping container {state.name}" if never else f"Container {state.name} failed {probe} probe, will be restarted",
            state,
        )
        grace = (state.spec.get(f"{probe}Probe") or {}).get("terminationGracePeriodSeconds")
        self.kubelet.background(self._stop(state, self._grace() if grace is None else grace, event=False))

    # ----------------------------------------------------------------------------------------------------------- ends

    def _note_ends(self) -> None:
        """Takes down how containers ended that have ended since the last look."""
        for state in [*self.init, *self.main]:
            container = state.container
            if container is None or state.terminated is not None or not container.ended.is_set() or state.waiting[0] == "RunContainerError":
                continue
            for prober in state.probers:
                prober.stop()
            code = container.exit_code or 0
            ended = {
                "containerID": f"containerd://{container.id}",
                "exitCode": code,
                "finishedAt": rfc3339(container.finished_at),
                "reason": "Completed" if code == 0 else "Error",
                "startedAt": rfc3339(container.started_at),
            }
            message = container.termination_message()
            if not message and code and state.spec.get("terminationMessagePolicy") == "FallbackToLogsOnError":
                message = self._log_tail(state)
            if message:
                ended["message"] = message
            if container.finished_at - container.started_at > CRASH_FORGET:
                state.crash_delay = 0.0
            state.terminated, state.waiting, state.ready, state.started = ended, ("", ""), False, False
            self._delay_restart(state)

    def _delay_restart(self, state: ContainerState) -> None:
        # The first restart is at once, the second after 10 s, then twice as long each time.
        state.crash_until = time.monotonic() + state.crash_delay
        state.crash_wait = state.crash_delay
        state.crash_delay = min(max(CRASH_DELAY, state.crash_delay * 2), CRASH_DELAY_MAX)

    def _log_tail(self, state: ContainerState) -> str:
        path = self.log_path(state, state.run)
        if not path.exists():
            return ""
        lines = [line.split(b" ", 3)[3] for line in path.read_bytes().splitlines()[-80:]]
        return b"\n".join(lines)[-2048:].decode(errors="replace")

    def _grace(self) -> float:
        metadata = self.pod["metadata"]
        if metadata.get("deletionGracePeriodSeconds") is not None:
            return float(metadata["deletionGracePeriodSeconds"])
        return float(self.pod["spec"].get("terminationGracePeriodSeconds", 30))

    async def _stop(self, state: ContainerState, grace: float, *, event: bool = True) -> None:
        """preStop hook, stop signal, grace period, SIGKILL."""
        if not state.running:
            return
        state.stopping = True
        for prober in state.probers:
            prober.stop()
        if event:
            self.event("Normal", "Killing", f"Stopping container {state.name}", state)
        began = time.monotonic()
        hook = (state.spec.get("lifecycle") or {}).get("preStop")
        if hook and grace > 0:
            try:
                failure = await asyncio.wait_for(self._hook(state, hook), grace)
            except asyncio.TimeoutError:
                failure = f"the hook took longer than the grace period of {grace:g}s"
            if failure:
                self.event("Warning", "FailedPreStopHook", "PreStopHook failed", state)
                _log.info("pod %s/%s: preStop hook of %s failed: %s", self.namespace, self.name, state.name, failure)
        left = max(
            grace - (time.monotonic() - began), 2.0 if hook and grace > 0 else 0.0
        )  # the kubelet gives at least two seconds after a hook
        stop_signal = state.container.config.image.stop_signal
        if (state.spec.get("lifecycle") or {}).get("stopSignal"):
            stop_signal = state.spec["lifecycle"]["stopSignal"]
        await state.container.stop(left, stop_signal)
        state.stopping = False
        self.wake.set()

    async def _hook(self, state: ContainerState, hook: dict) -> str:
        """Runs a lifecycle hook; returns why it failed, or nothing."""
        container = state.container
        try:
            if "exec" in hook:
                code, output = await process.run(
                    container.exec_argv(hook["exec"].get("command") or []), env=container.exec_environment, timeout=3600
                )
                return (
                    ""
                    if code == 0
                    else f"command '{' '.join(hook['exec']['command'])}' exited with {code}: {output.decode(errors='replace')}"
                )
            if "sleep" in hook:
                sleeping = asyncio.ensure_future(container.ended.wait())
                await asyncio.wait([sleeping], timeout=hook["sleep"]["seconds"])
                sleeping.cancel()
                return ""
            if "httpGet" in hook:
                code, _ = await probes.http_get(self.kubelet.node.netns, hook["httpGet"], self.ip, state.spec, 30)
                return "" if 200 <= code < 400 else f"status code {code}"
        except (OSError, LookupError, asyncio.TimeoutError) as error:
            return str(error) or type(error).__name__
        return f"{', '.join(hook)} hooks are not supported"

    async def _fail(self, reason: str, message: str) -> None:
        self.event("Normal", reason, message)
        await asyncio.gather(*(self._stop(s, self._grace()) for s in [*self.init, *self.main]))
        self._note_ends()
        self._terminal = True
        self._evicted = (reason, message)
        await self._remove_sandbox()
        self._report(sandbox=False)

    async def _terminate(self) -> None:
        """Stops the containers and, when they have ended, lets the API object go."""
        self._terminating = True
        grace = 1.0 if self.removed else self._grace()
        stops = [asyncio.ensure_future(self._stop(s, grace)) for s in [*self.main, *self.init] if s.running]
        if stops:
            everything = asyncio.ensure_future(asyncio.wait(stops))
            while not everything.done():
                self.wake.clear()
                waking = asyncio.ensure_future(self.wake.wait())
                await asyncio.wait([everything, waking], return_when=asyncio.FIRST_COMPLETED)
                waking.cancel()
                # A second delete may have shortened the grace period (kubectl delete --now, --force).
                now_grace = 0.0 if self.removed else self._grace()
                if now_grace < grace and not everything.done():
                    grace = now_grace
                    if grace <= 1:
                        for state in [*self.main, *self.init]:
                            if state.running:
                                state.container.signal(signal.SIGKILL)
        self._note_ends()
        for state in [*self.init, *self.main]:
            for prober in state.probers:
                prober.stop()
        if not self.removed:
            try:
                self._report(sandbox=False)
            except ApiError as error:
                if error.code != 404:
                    raise
        await self._remove_sandbox()
        shutil.rmtree(self.kubelet.memory / "pods" / self.uid, ignore_errors=True)
        shutil.rmtree(self.directory, ignore_errors=True)
        shutil.rmtree(self.kubelet.logs / f"{self.namespace}_{self.name}_{self.uid}", ignore_errors=True)
        if not self.removed:
            try:
                self.kubelet.api.delete("pods", self.namespace, self.name, grace_seconds=0, uid=self.uid)
            except ApiError as error:
                if error.code not in (404, 409):
                    raise

    async def shutdown(self) -> None:
        """The cluster stops: end the processes, leave the API object as it is."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        for state in [*self.init, *self.main]:
            for prober in state.probers:
                prober.stop()
        await asyncio.gather(*(s.container.stop(1.0, s.container.config.image.stop_signal) for s in [*self.init, *self.main] if s.running))

    # --------------------------------------------------------------------------------------------------------- report

    def _report(self, *, sandbox: bool | None = None) -> None:
        """Writes the status, if it differs from the last one written."""
        api = self.kubelet.api
        try:
            pod = api.get("pods", self.namespace, self.name)
        except ApiError as error:
            if error.code == 404:
                return
            raise
        if pod["metadata"]["uid"] != self.uid:
            return
        old = pod.get("status") or {}
        stamp = now()
        current = "Failed" if self._evicted else phase(pod, self.init, self.main)
        have_sandbox = self.sandbox is not None if sandbox is None else sandbox
        volumes = {v["name"]: v for v in pod["spec"].get("volumes") or []}
        status = {k: v for k, v in old.items() if k in ("qosClass", "nominatedNodeName", "resize", "ephemeralContainerStatuses")}
        status |= {
            "observedGeneration": pod["metadata"].get("generation", 1),
            "phase": current,
            "conditions": conditions(
                pod, old.get("conditions") or [], stamp, phase_=current, init=self.init, main=self.main, sandbox=have_sandbox
            ),
            "hostIP": self.kubelet.node.ip,
            "hostIPs": [{"ip": self.kubelet.node.ip}],
            "startTime": old.get("startTime") or rfc3339(self._started_at),
            "containerStatuses": [s.api_status(volumes) for s in sorted(self.main, key=lambda s: s.name)],
        }
        status.setdefault("qosClass", _qos(pod["spec"]))
        if self.init:
            status["initContainerStatuses"] = [s.api_status(volumes) for s in self.init]
        if self.ip:
            status |= {"podIP": self.ip, "podIPs": [{"ip": self.ip}]}
        elif self._terminal and old.get("podIP"):
            status |= {"podIP": old["podIP"], "podIPs": old["podIPs"]}
        if self._evicted:
            status |= {"reason": self._evicted[0], "message": self._evicted[1]}
        self._reported = status
        if status != old:
            pod["status"] = status
            api.update("pods", pod, subresource="status")


def _identity(pod: dict) -> dict:
    return {k: v for k, v in pod["metadata"].items() if k not in ("resourceVersion", "managedFields")}


def _pod_security(spec: dict) -> dict:
    context = spec.get("securityContext") or {}
    return {k: v for k, v in context.items() if k in ("runAsUser", "runAsGroup", "runAsNonRoot")}


def _capability(name: str) -> str:
    return re.sub("^CAP_", "", name.upper())


def _go_duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


def _go_milliseconds(seconds: float) -> str:
    return f"{seconds:.3f}s" if seconds >= 1 else f"{max(1, round(seconds * 1000))}ms"


def _qos(spec: dict) -> str:
    """https://kubernetes.io/docs/concepts/workloads/pods/pod-qos/"""
    guaranteed, any_set = True, False
    for container in [*spec["containers"], *(spec.get("initContainers") or [])]:
        resources = container.get("resources") or {}
        requests, limits = resources.get("requests") or {}, resources.get("limits") or {}
        any_set = any_set or bool(requests or limits)
        guaranteed = guaranteed and all(limits.get(r) and requests.get(r, limits[r]) == limits[r] for r in ("cpu", "memory"))
    return "BestEffort" if not any_set else "Guaranteed" if guaranteed else "Burstable"
