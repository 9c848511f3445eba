"""Waiting for the cluster by watching it, and saying why it takes so long."""

from __future__ import annotations

import base64
import dataclasses
import html
import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from . import settings
from .errors import LabError, NotFound, NotYet, WaitTimeout
from .rules import rules_for

if TYPE_CHECKING:
    from .client import Client
    from .lab import Lab

# what can change the answer to a condition in the learner's namespace
_WATCHED = ("pods", "deployments", "replicasets", "services", "endpointslices")


@dataclasses.dataclass(frozen=True)
class State:
    """One look at what is awaited: whether it is there, and a short sentence about it."""

    done: bool
    words: str
    share: float | None = None
    # a Service's ready endpoints
    addresses: frozenset[str] = frozenset()
    targets: frozenset[tuple[str, int]] = frozenset()


class Watcher:
    """Wakes a waiting loop whenever something of interest changes; the loop then looks for itself (level-triggered)."""

    def __init__(self, client: Client, namespace: str, kinds: tuple[str, ...] = _WATCHED) -> None:
        self.changed, self._stop = threading.Event(), threading.Event()
        self._threads = [
            threading.Thread(target=self._follow, args=(client, kind, namespace), daemon=True, name=f"servicelab-wait-{kind}")
            for kind in kinds
        ]

    def __enter__(self) -> Watcher:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()

    def _follow(self, client: Client, kind: str, namespace: str) -> None:
        try:
            for _ in client.watch(kind, namespace, stop=self._stop):
                self.changed.set()
        except LabError:
            # Not allowed to watch this kind (a student's Role), or the cluster lacks it: the loop's own look, once
            # in `tick` seconds, is then what notices.
            return

    def wait(self, seconds: float) -> None:
        """Until something changes, at most ``seconds``."""
        self.changed.wait(seconds)
        self.changed.clear()


def wait_for(
    lab: Lab, what: str | Callable[[], Any], *, timeout: float | None = None, namespace: str | None = None, gone: bool = False
) -> Any:
    """Waits until ``what`` holds; see ``Lab.wait_for``."""
    namespace = namespace or lab.namespace
    seconds = settings.wait_timeout() if timeout is None else float(timeout)
    if isinstance(what, str):
        look = _gone(lab.client, namespace, what) if gone else condition(lab, namespace, what)
        title = what
    else:
        look, title = _callable(what), _title(what)
    deadline = time.monotonic() + seconds
    tick = 1.0 if isinstance(what, str) else 0.25  # a callable may look at things that no watch announces
    state = look()
    if not state.done:
        with Watcher(lab.client, namespace) as watcher, _progress(title) as show:
            while not (state := look()).done:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise WaitTimeout(_too_late(lab, namespace, what, title, seconds, state))
                show(state, seconds - left)
                watcher.wait(min(tick, left))
    if isinstance(what, str):
        print(f"✓ {title} {state.words}")
        return None
    return look.result  # type: ignore[attr-defined]


def _title(what: Callable[[], Any]) -> str:
    name = getattr(what, "__name__", "the condition")
    doc = (what.__doc__ or "").strip().splitlines()
    return doc[0] if doc else ("the condition" if name == "<lambda>" else name.replace("_", " "))


class _callable:  # a function with a memory of its last result
    def __init__(self, what: Callable[[], Any]) -> None:
        self._what, self.result = what, None

    def __call__(self) -> State:
        try:
            self.result = self._what()
        except (NotYet, NotFound) as reason:
            return State(False, str(reason))
        return State(
            bool(self.result), "it is not so yet" if self.result is None or isinstance(self.result, bool) else f"it gives {self.result!r}"
        )


def _gone(client: Client, namespace: str, what: str) -> Callable[[], State]:
    kind, _, name = what.partition("/")

    def look() -> State:
        if "=" in name:
            left = client.list(kind, namespace, selector=name)
            return State(not left, "is gone" if not left else f"{len(left)} are still there")
        try:
            obj = client.get(kind, name, namespace)
        except NotFound:
            return State(True, "is gone")
        waits = ", ".join(obj["metadata"].get("finalizers") or [])
        return State(False, f"is still there{', held by ' + waits if waits else ''}")

    return look


def condition(lab: Lab, namespace: str, what: str) -> Callable[[], State]:
    """The condition named by ``kind/name`` or ``pods/label=value``.

    Raises:
        LabError: it isn't of that form.
    """
    kind, slash, name = what.partition("/")
    if not slash or not name or not kind:
        raise LabError(
            f'lab.wait_for({what!r}): say kind/name, such as "deployment/my-nginx", or pods/label=value, such as "pods/run=my-nginx".'
        )
    client = lab.client
    kind = {"deploy": "deployment", "po": "pod", "svc": "service", "rs": "replicaset", "no": "node"}.get(kind.lower(), kind.lower())
    singular = kind[:-1] if kind in ("deployments", "pods", "services", "replicasets", "nodes") else kind
    if "=" in name:
        return lambda: _pods_ready(client.list("pods", namespace, selector=name))
    pods_of = lambda selector: client.list("pods", namespace, selector=selector)
    judge = {
        "deployment": lambda obj: _deployment(obj, pods_of), "replicaset": _replicaset, "pod": _ListeningPod(lab), "node": _node,
    }.get(singular)  # fmt: skip
    if singular == "service":
        return _Service(lab, namespace, name)

    def look() -> State:
        try:
            obj = client.get(singular, name, namespace)
        except NotFound:
            return State(False, "is not there yet")
        return judge(obj) if judge else State(True, "is there")

    return look


def _condition(obj: dict, kind: str) -> dict:
    return next((c for c in obj.get("status", {}).get("conditions") or [] if c["type"] == kind), {})


def _deployment(obj: dict, pods_of: Callable[[str], list[dict]]) -> State:
    # the rule of `kubectl rollout status`
    want, status = obj["spec"].get("replicas", 1), obj.get("status", {})
    if status.get("observedGeneration", 0) < obj["metadata"].get("generation", 0):
        return State(False, "is not seen by its controller yet", 0)
    updated, available, total = status.get("updatedReplicas", 0), status.get("availableReplicas", 0), status.get("replicas", 0)
    done = updated == available == total == want
    words = f"is available ({available} of {want} pods)" if done else f"has {min(updated, available)} of {want} pods available"
    if total > updated:
        words += f", {total - updated} old to end"
    if done and want:
        # the status follows the pods a moment later: right after a pod was deleted it still counts that one
        ready = sum(_pod(pod).done for pod in pods_of(selector_text(obj["spec"]["selector"].get("matchLabels") or {})))
        if ready < want:
            return State(False, f"has {ready} of {want} pods ready", ready / want)
    return State(done, words, min(updated, available) / want if want else None)


def _replicaset(obj: dict) -> State:
    want, ready = obj["spec"].get("replicas", 1), obj.get("status", {}).get("readyReplicas", 0)
    return State(want == ready, f"has {ready} of {want} pods ready", ready / want if want else None)


def _pod(obj: dict) -> State:
    phase = obj.get("status", {}).get("phase", "Pending")
    if obj["metadata"].get("deletionTimestamp"):
        return State(False, "is terminating")
    if phase == "Succeeded":
        return State(True, "has succeeded")
    ready = _condition(obj, "Ready").get("status") == "True"
    return State(ready, "is ready" if ready else f"is {phase}, not ready")


def _node(obj: dict) -> State:
    ready = _condition(obj, "Ready").get("status") == "True"
    return State(ready, "is Ready" if ready else "is not Ready")


def _pods_ready(pods: list[dict]) -> State:
    # pods that end are on their way out of the answer: wait until they are gone, else what follows meets them
    ready = sum(_pod(p).done for p in pods)
    done = bool(pods) and ready == len(pods)
    return State(done, f"are ready ({ready} of {len(pods)})" if pods else "there is no such pod yet", ready / len(pods) if pods else None)


SETTLE = 5.0
"""Seconds after something is ready for which the rest is waited for: a Service's other pods, and servers that were only just started.
One that never comes must not hold the wait, and what comes within a moment must not make two runs differ."""


class _ListeningPod:
    """Whether a pod is ready, and its servers listen on the ports that it declares: without a probe, Ready says only that they were
    started."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._first: float | None = None

    def __call__(self, obj: dict) -> State:
        state, ip = _pod(obj), obj.get("status", {}).get("podIP")
        if not state.done or obj["status"]["phase"] != "Running" or not ip:
            return state
        self._first = self._first or time.monotonic()
        ports = [p for c in obj["spec"]["containers"] for p in c.get("ports") or [] if p.get("protocol", "TCP") == "TCP"]
        if time.monotonic() - self._first < SETTLE and (deaf := _deaf(self._lab, {(ip, p["containerPort"]) for p in ports})):
            return State(False, f"is ready, but nobody listens at {', '.join(deaf)} yet")
        return state


def _deaf(lab: Lab, targets: Iterable[tuple[str, int]]) -> list[str]:
    """The pods' addresses and ports that take no connection from a node yet; where nodes can't be asked cheaply, none."""
    if not targets or not lab.quick_nodes:
        return []
    each = " ".join(f"{ip}/{port}" for ip, port in sorted(targets))
    # a bare connection that sends nothing leaves no line in the server's access log
    connect = 'timeout 1 bash -c "exec 3<>/dev/tcp/$t" 2>/dev/null || echo "$t"'
    ran = lab.nodes[0].run(f"command -v bash >/dev/null || exit 0; for t in {each}; do {connect}; done")
    return [word.replace("/", ":") for word in ran.split()]


class _Service:
    """Whether a Service has endpoints that answer; all its pods, when they are about to be ready anyway."""

    def __init__(self, lab: Lab, namespace: str, name: str) -> None:
        self._lab, self._namespace, self._name = lab, namespace, name
        self._first: float | None = None

    def __call__(self) -> State:
        state = look_at_service(self._lab, self._namespace, self._name)
        if not state.done:
            return state
        self._first = self._first or time.monotonic()
        selector = self._lab.client.get("services", self._name, self._namespace)["spec"].get("selector")
        if time.monotonic() - self._first >= SETTLE:
            return state
        if selector:
            pods = self._lab.client.list("pods", self._namespace, selector=selector_text(selector))
            # a pod's readiness, or its end, reaches the EndpointSlice a moment later: compare both
            if not _are_of(state.addresses, pods) or not all(_pod(p).done for p in pods):
                return State(False, f"{state.words}, of {len(pods)} pods that its selector finds")
        if deaf := _deaf(self._lab, state.targets):
            return State(False, f"{state.words}, but nobody listens at {', '.join(deaf)} yet")
        return state


def look_at_service(lab: Lab, namespace: str, name: str) -> State:
    """Whether a Service has ready endpoints, and every node and DNS server knows them; one look."""
    try:
        service = lab.client.get("services", name, namespace)
    except NotFound:
        return State(False, "is not there yet")
    spec = service["spec"]
    if spec.get("type") == "ExternalName":
        return State(True, f"is a name for {spec.get('externalName')}")
    slices = lab.client.list("endpointslices", namespace, selector=f"kubernetes.io/service-name={name}")
    slices = [s for s in slices if _is_of(s, service) and (s.get("ports") is not None or spec.get("clusterIP") == "None")]
    count, ready = _distinct([e for s in slices for e in s.get("endpoints") or []]), _distinct([e for s in slices for e in _ready(s)])
    if not ready:
        return State(False, "has no ready endpoint" if not count else f"has {count} endpoints, none of them ready")
    if mute := _mute_nodes(lab, spec, slices):
        return State(False, f"has ready endpoints, but {', '.join(mute)} can't connect to its address yet")
    if behind := _dns_behind(lab, f"{name}.{namespace}.svc.cluster.local", spec, slices):
        return State(False, f"has ready endpoints, but DNS at {', '.join(behind)} doesn't tell its address yet")
    addresses = frozenset(address for s in slices for endpoint in _ready(s) for address in endpoint["addresses"])
    targets = frozenset(
        (address, port["port"])
        for s in slices
        for port in s.get("ports") or []
        if port.get("port") and port.get("protocol", "TCP") == "TCP"
        for endpoint in _ready(s)
        for address in endpoint["addresses"]
    )
    return State(True, f"has {ready} ready endpoint{'s' if ready != 1 else ''}", addresses=addresses, targets=targets)


def _is_of(endpointslice: dict, service: dict) -> bool:
    """Whether a slice is this Service's, or nobody's: one of a deleted Service of the same name goes a moment after it."""
    owners = {o["uid"] for o in endpointslice["metadata"].get("ownerReferences") or [] if o["kind"] == "Service"}
    return not owners or service["metadata"]["uid"] in owners


def _are_of(addresses: frozenset[str], pods: list[dict]) -> bool:
    """Whether each pod has one of these addresses at least, and nobody else has any."""
    ips = [{ip["ip"] for ip in pod.get("status", {}).get("podIPs") or []} for pod in pods]
    return all(ips_of_one & addresses for ips_of_one in ips) and addresses <= set().union(*ips)


def _ready(endpointslice: dict) -> list[dict]:
    return [e for e in endpointslice.get("endpoints") or [] if (e.get("conditions") or {}).get("ready", True) is not False]


def _distinct(endpoints: list[dict]) -> int:
    """How many there are; one may stand in several slices for a moment, such as those of a Service that was made anew."""
    return len({(e.get("targetRef") or {}).get("uid") or e["addresses"][0] for e in endpoints})


def _mute_nodes(lab: Lab, spec: dict, slices: list[dict]) -> list[str]:
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
            return [node for node, listing in listings.items() if not _in_the_rules(listing.stdout, spec, ports, slices)]
        # kube-proxy of another mode: a bare TCP connection that sends nothing leaves no line in the server's access log
        probe = "; ".join(f"timeout 2 bash -c 'exec 3<>/dev/tcp/{ip}/{port['port']}' || exit 1" for port in ports)
        # 127: the program isn't there: no verdict
        return [node for node, ran in lab.run_on_nodes(probe).items() if ran.returncode not in (0, 127)]
    pods = {p["spec"]["nodeName"]: p["metadata"]["name"] for p in lab.list("pods") if _pod(p).done and p["status"]["phase"] == "Running"}
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


def _dns_behind(lab: Lab, name: str, spec: dict, slices: list[dict]) -> list[str]:
    """The addresses of the cluster's DNS servers that answer otherwise than the API does: each follows it a moment later.

    A node asks each of them, since the Service kube-dns leads to any one. A server that can't be asked has no verdict.
    """
    if not lab.quick_nodes:
        return []
    from dnslib import QTYPE, RCODE, DNSError, DNSRecord

    headless = spec.get("clusterIP") in (None, "None")
    wanted = {a for s in slices for e in _ready(s) for a in e["addresses"]} if headless else {spec["clusterIP"]}
    if any(":" in address for address in wanted):  # IPv6: not in kind's or pocket's cluster
        return []
    try:
        of_dns = lab.client.list("endpointslices", "kube-system", selector="kubernetes.io/service-name=kube-dns")
    except LabError:
        return []
    servers = sorted({a for s in of_dns for e in _ready(s) for a in e["addresses"]})
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


def _in_the_rules(ruleset: str, spec: dict, ports: list[dict], slices: list[dict]) -> bool:
    """Whether a node's rules lead each port to the ready endpoints, all of them and no other, and its node port to somewhere."""
    for port in ports:
        ends = {
            f"{address}:{end['port']}"
            for s in slices
            for end in s.get("ports") or []
            if (end.get("name") or "") == port.get("name", "")
            for endpoint in _ready(s)
            for address in endpoint["addresses"]
        }
        found = set(rules_for(ruleset, spec["clusterIP"], port["port"]).targets)
        # with a traffic distribution, each node has endpoints of its own choice
        if not (found and found <= ends if spec.get("trafficDistribution") else found == ends):
            return False
        if port.get("nodePort") and f"tcp . {port['nodePort']} " not in ruleset:
            return False
    return True


def _too_late(lab: Lab, namespace: str, what: Any, title: str, seconds: float, state: State) -> str:
    text = f"{title}: {state.words} after {seconds:g} s."
    if isinstance(what, str):
        reasons = why_late(lab.client, namespace, what)
        text += "".join(f"\n  {r}" for r in reasons)
        kind, _, name = what.partition("/")
        see = f"kubectl get pods -l {name}" if "=" in name else f"kubectl describe {kind} {name}"
        text += f"\nNext: {see}"
    return text


# -- why it takes so long ----------------------------------------------------------------------------------------------


def why_late(client: Client, namespace: str, what: str) -> list[str]:
    """What stands in the way of ``kind/name``: scheduler's words, container states, events, a selector that matches nothing."""
    kind, _, name = what.partition("/")
    try:
        if "=" in name:
            pods = client.list("pods", namespace, selector=name)
            return _pods_late(client, namespace, pods) or ([f"no pod has the label {name}"] if not pods else [])
        if kind.startswith(("service", "svc")):
            return _service_late(client, namespace, name)
        obj = client.get(kind, name, namespace)
        if kind.startswith("po"):
            return _pods_late(client, namespace, [obj])
        if kind.startswith(("deploy", "replicaset", "rs")):
            return _owner_late(client, namespace, obj)
        return [
            f"{c['type']}: {c.get('message') or c.get('reason')}"
            for c in obj.get("status", {}).get("conditions") or []
            if c["status"] != "True"
        ]
    except NotFound:
        return [f"there is no {kind} {name!r} in namespace {namespace!r}"]
    except LabError as error:
        return [str(error)]


def selector_text(labels: dict[str, str]) -> str:
    """Labels as kubectl takes them: ``a=b,c=d``."""
    return ",".join(f"{k}={v}" for k, v in labels.items())


def _owner_late(client: Client, namespace: str, obj: dict) -> list[str]:
    selector = selector_text(obj["spec"].get("selector", {}).get("matchLabels") or {})
    reasons = _pods_late(client, namespace, client.list("pods", namespace, selector=selector))
    for type_ in ("ReplicaFailure", "Progressing"):
        c = _condition(obj, type_)
        if c and (type_ == "ReplicaFailure" or c.get("status") == "False"):
            reasons.append(f"{c.get('reason')}: {c.get('message')}")
    if not reasons:
        for rs in client.list("replicasets", namespace, selector=selector):
            reasons += _warnings(client, namespace, rs)
    return list(dict.fromkeys(reasons))


def _service_late(client: Client, namespace: str, name: str) -> list[str]:
    service = client.get("services", name, namespace)
    labels = service["spec"].get("selector") or {}
    if not labels:
        return ["the Service has no selector, so nobody fills its EndpointSlices"]
    pods = client.list("pods", namespace, selector=selector_text(labels))
    if not pods:
        return [f"no pod has the labels {selector_text(labels)} that its selector asks for"]
    reasons = _pods_late(client, namespace, pods)
    for port in service["spec"].get("ports") or []:
        target = port.get("targetPort")
        if isinstance(target, str) and not any(
            p.get("name") == target for pod in pods for c in pod["spec"]["containers"] for p in c.get("ports") or []
        ):
            reasons.append(f"no container names a port {target!r}, which is the Service's targetPort")
    return reasons


def _pods_late(client: Client, namespace: str, pods: list[dict]) -> list[str]:
    reasons = []
    for pod in pods:
        if _pod(pod).done:
            continue
        name, status = pod["metadata"]["name"], pod.get("status", {})
        if pod["metadata"].get("deletionTimestamp"):
            reasons.append(f"pod {name} is terminating")
            continue
        found = []
        scheduled = _condition(pod, "PodScheduled")
        if scheduled.get("status") == "False":
            found.append(f"{scheduled.get('reason')}: {scheduled.get('message')}")
        for c in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
            state = c.get("state") or {}
            if (waiting := state.get("waiting")) and waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
                found.append(f"container {c['name']}: {waiting['reason']} {waiting.get('message') or ''}".rstrip())
            if ended := (state.get("terminated") or (c.get("lastState") or {}).get("terminated")):
                found.append(f"container {c['name']} ended with exit code {ended.get('exitCode')} ({ended.get('reason')})")
        if not found or (status.get("phase") == "Running" and _condition(pod, "Ready").get("status") != "True"):
            found += _warnings(client, namespace, pod)
        reasons += [f"pod {name}: {text}" for text in dict.fromkeys(found)] or [f"pod {name} is {status.get('phase', 'Pending')}"]
    return reasons


def _warnings(client: Client, namespace: str, obj: dict, most: int = 3) -> list[str]:
    """The latest warning events about an object."""
    try:
        events = client.list("events", namespace, fields=f"involvedObject.uid={obj['metadata']['uid']},type=Warning")
    except LabError:
        return []  # a student may not be allowed to read events: the states above must do
    latest = sorted(events, key=lambda e: e.get("lastTimestamp") or e.get("eventTime") or "")[-most:]
    return [f"{e.get('reason')}: {' '.join((e.get('message') or '').split())}" for e in latest]


# -- showing it --------------------------------------------------------------------------------------------------------


class _Silent:
    """Nobody watches: only the result is printed."""

    def __enter__(self) -> Callable[[State, float], None]:
        return lambda state, seconds: None

    def __exit__(self, *_: object) -> None:
        return None


class _Bar:
    """A widget in a notebook; when the waiting is over, its place in the cell's outputs is left empty.

    A closed widget alone would leave its id there, and a notebook that is opened again would show "model not found".
    """

    def __init__(self, title: str) -> None:
        self._title, self._widget, self._shown = title, None, None

    def __enter__(self) -> Callable[[State, float], None]:
        return self._show

    def _show(self, state: State, seconds: float) -> None:
        if seconds < 0.4 and self._widget is None:
            return  # most waits are over before a bar could be read
        value = "" if state.share is None else f' value="{state.share:.2f}"'
        bar = f'<progress max="1"{value} style="width:12em"></progress>'
        text = f"{bar} {html.escape(self._title)} {html.escape(state.words)} · {seconds:.0f} s"
        if self._widget is None:
            import ipywidgets
            from IPython.display import display

            self._widget = ipywidgets.HTML(text)
            self._shown = display(self._widget, display_id=True)
        else:
            self._widget.value = text

    def __exit__(self, *_: object) -> None:
        if self._widget is not None:
            self._shown.update({"text/plain": ""}, raw=True)
            self._widget.close()


class _Line:
    """A line in a terminal that is written over and wiped at the end."""

    def __init__(self, title: str) -> None:
        from rich.console import Console

        self._title = title
        self._status = Console(stderr=True).status(title)

    def __enter__(self) -> Callable[[State, float], None]:
        self._status.start()
        return lambda state, seconds: self._status.update(f"{self._title} {state.words} · {seconds:.0f} s")

    def __exit__(self, *_: object) -> None:
        self._status.stop()


def _progress(title: str) -> _Silent | _Bar | _Line:
    if settings.headless():
        return _Silent()
    if in_notebook():
        return _Bar(title)
    import sys

    return _Line(title) if sys.stderr.isatty() else _Silent()


def in_notebook() -> bool:
    """Whether a Jupyter kernel runs this code."""
    import sys

    if "IPython" not in sys.modules:
        return False
    shell = sys.modules["IPython"].get_ipython()
    return shell is not None and hasattr(shell, "kernel")
