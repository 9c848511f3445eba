"""All parts of the cluster, wired together in one asyncio event loop.

Data flows one way: API → store → informers → controllers, scheduler, kubelets, proxies, DNS. Each part knows the API
and, where it touches the machine, its node's network; none knows another part.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import socket
import time
from pathlib import Path

from pocketkube import credentials
from pocketkube.control import ControlServer
from pocketkube.network import Network, NetworkError

log = logging.getLogger(__name__)

API_PORT = 6443  # of the API server on the control plane node, as with kubeadm
CLUSTER_DNS = "10.96.0.10"
NODES = (  # name, InternalIP, pod CIDR
    ("servicelab-control-plane", "172.18.0.2", "10.244.0.0/24"),
    ("servicelab-worker", "172.18.0.3", "10.244.1.0/24"),
    ("servicelab-worker2", "172.18.0.4", "10.244.2.0/24"),
)
CONTROL_PLANE = NODES[0][0]
VERSION = {
    "major": "1",
    "minor": "34",
    "emulationMajor": "1",
    "emulationMinor": "34",
    "minCompatibilityMajor": "1",
    "minCompatibilityMinor": "33",
    "gitVersion": "v1.34.4",
    "gitCommit": "",
    "gitTreeState": "clean",
    "buildDate": "2025-11-11T00:00:00Z",
    "goVersion": "go1.24.9",
    "compiler": "gc",
    "platform": "linux/amd64",
}
READY_TIMEOUT = 60  # seconds
SHUTDOWN_GRACE = 2  # seconds that containers have to end by themselves when the cluster stops
RELAY_CHUNK = 65536  # bytes


class ClusterError(Exception):
    """The cluster can't start; the text says which part and why."""


class Cluster:
    """One cluster, for as long as this process lives.

    Args:
        state: the private directory that everything is kept in.
        name: the cluster's name.
        api_socket: listening socket for the API, in the user's network.
        published: listening sockets in the user's network, each with the node port that it leads to.
        on_stop: called when a client asks the cluster to stop.
        launcher: id, outside, of the process to signal for the cluster to stop.
    """

    def __init__(self, state: Path, name: str, *, api_socket: socket.socket, published: list, on_stop, launcher: int):
        self.state = state
        self.name = name
        self.network = Network()
        self._api_socket = api_socket
        self._published = published
        self._on_stop = on_stop
        self._launcher = launcher
        self._started = time.time()
        self._stops: list = []  # what to undo, last first
        self.port = api_socket.getsockname()[1]

    async def start(self, tell=lambda phase: None) -> None:
        """Start every part, and return when all nodes are Ready.

        Args:
            tell: called with the name of each phase.

        Raises:
            ClusterError: with the part that failed.
        """
        try:
            await self._start(tell)
        except (OSError, NetworkError) as error:
            raise ClusterError(str(error)) from error

    async def _start(self, tell) -> None:
        tell("network")
        for name, ip, pod_cidr in NODES:
            self.network.add_node(name, ip, pod_cidr)
        network = asyncio.ensure_future(self.network.start())
        self._stops.append(self.network.stop)

        tell("api")
        # Imported while the network is built in its own thread.
        from pocketkube.apiserver.api import Api, ApiError
        from pocketkube.apiserver.http import make_app
        from pocketkube.images import Images
        from pocketkube.kubelet import Kubelet
        from pocketkube.proxy import Proxy
        from pocketkube.store import Store

        identity = credentials.load_or_create(self.state, addresses=("127.0.0.1", NODES[0][1], "10.96.0.1"), names=(CONTROL_PLANE,))
        (self.state / "store.sqlite").touch(mode=0o600)  # SQLite gives its journal the same mode
        store = Store(self.state / "store.sqlite")
        self._stops.append(store.close)
        self.api = Api(store)
        self.api.bootstrap(NODES[0][1], API_PORT)
        await network

        # In the order in which things may be taken for granted, so that stopping backwards takes nothing from
        # under anyone: first the machines, then what gives them work, then what lets clients in.
        tell("nodes")
        images = Images(self.state / "images")
        kubelets = {}
        for name, node in self.network.nodes.items():
            proxy = Proxy(self.api, node)
            await proxy.start()
            self._stops.append(proxy.stop)
            kubelets[name] = Kubelet(self.api, node, root=self.state / "nodes" / name, images=images, cluster_dns=CLUSTER_DNS)
        await asyncio.gather(*(kubelet.start() for kubelet in kubelets.values()))
        self._stops.append(lambda: _stop_kubelets(kubelets.values()))

        tell("controllers")
        from pocketkube import controllers
        from pocketkube.scheduler import Scheduler

        for controller in await controllers.start_all(self.api, ca_certificate=identity.ca):
            self._stops.append(controller.stop)
        scheduler = Scheduler(self.api)
        await scheduler.start()
        self._stops.append(scheduler.stop)
        await self._nodes_ready()

        tell("dns")
        from pocketkube.dns import DnsPods, DnsServer

        dns = DnsServer(self.api)
        self._stops.append(dns.close)
        self._dns_pods = DnsPods(self.api, self.network, dns)
        for resource, manifest in _dns_objects():
            try:
                self.api.create(resource, manifest)
            except ApiError as error:
                if error.reason != "AlreadyExists":
                    raise ClusterError(f"the API refused {resource} {manifest['metadata']['name']}: {error.message}") from error

        app = make_app(self.api, token=identity.token, kubelets=kubelets, version_info=VERSION)
        await self._serve_https(app, identity)
        for sock, port in self._published:
            relay = Relay(sock, NODES[0][1], port)
            await relay.start()
            self._stops.append(relay.stop)
        self._publish_kubeconfig(identity)
        # Last: whoever is told that the cluster runs finds its kubeconfig.
        control = ControlServer(self.state / "control.sock", self.network, status=self.status, stop=self._on_stop)
        await control.start()
        self._stops.append(control.stop)
        # What is alive now lives as long as the cluster: the garbage collector needn't walk it again and again.
        gc.collect()
        gc.freeze()

    async def stop(self) -> None:
        """Stop every part, last started first; a part that fails doesn't keep the others from stopping."""
        (self.state / "ready.json").unlink(missing_ok=True)
        for stop in reversed(self._stops):
            log.debug('stopping %r', stop)
            try:
                result = stop()
                if asyncio.iscoroutine(result):
                    await asyncio.wait_for(result, 20)
            except Exception:
                log.exception("while stopping: %r", stop)
        self._stops.clear()

    def status(self) -> dict:
        """What the control socket's ``status`` answers."""
        return {
            "name": self.name,
            "pid": self._launcher,
            "started": self._started,
            "server": f"https://127.0.0.1:{self.port}",
            "kubeconfig": str(self.state / "kubeconfig"),
            "version": VERSION["gitVersion"],
            "nodes": [{"name": name, "ip": ip, "podCIDR": cidr} for name, ip, cidr in NODES],
            "gateway": self.network.gateway,
            "ports": {str(node): sock.getsockname()[1] for sock, node in self._published},
        }

    async def _serve_https(self, app, identity) -> None:
        from aiohttp import web

        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1)
        await runner.setup()
        self._stops.append(runner.cleanup)
        context = identity.server_context()
        await web.SockSite(runner, self._api_socket, ssl_context=context).start()
        # The same server, where pods find it: behind the Service "kubernetes".
        inside = self.network.nodes[CONTROL_PLANE].socket(socket.AF_INET, socket.SOCK_STREAM)
        inside.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        inside.bind(("0.0.0.0", API_PORT))
        inside.listen(128)
        await web.SockSite(runner, inside, ssl_context=context).start()

    async def _nodes_ready(self) -> None:
        waiting = {name for name, _, _ in NODES}
        done = asyncio.Event()

        def changed(kind: str, node: dict, _old) -> None:
            conditions = (node.get("status") or {}).get("conditions") or []
            if kind != "DELETED" and any(one["type"] == "Ready" and one["status"] == "True" for one in conditions):
                waiting.discard(node["metadata"]["name"])
            if not waiting:
                done.set()

        self.api.informer("nodes").on_change(changed)
        try:
            await asyncio.wait_for(done.wait(), READY_TIMEOUT)
        except asyncio.TimeoutError:
            raise ClusterError(f"not Ready after {READY_TIMEOUT} s: {', '.join(sorted(waiting))}; see the log in {self.state}") from None

    def _publish_kubeconfig(self, identity) -> None:
        credentials.write_private(self.state / "api-port", str(self.port))
        credentials.write_private(self.state / "kubeconfig", identity.kubeconfig(self.name, f"https://127.0.0.1:{self.port}"))
        credentials.write_private(self.state / "ready.json", json.dumps(self.status()))


async def _stop_kubelets(kubelets) -> None:
    """Let containers end by themselves for a moment; the kernel ends those that don't, with their PID namespace."""
    stops = [asyncio.ensure_future(kubelet.stop()) for kubelet in kubelets]
    _, late = await asyncio.wait(stops, timeout=SHUTDOWN_GRACE)
    for stop in late:
        stop.cancel()


class Relay:
    """What kind's ``extraPortMappings`` do: a port of 127.0.0.1 that leads to a node port.

    Args:
        sock: a listening socket in the user's network.
        host: the node's address.
        port: the port on it.
    """

    def __init__(self, sock: socket.socket, host: str, port: int):
        self._sock = sock
        self._host = host
        self._port = port
        self._server: asyncio.AbstractServer | None = None
        self._connections: set[asyncio.Task] = set()

    async def start(self) -> None:
        """Accept connections."""
        self._server = await asyncio.start_server(self._accept, sock=self._sock, limit=RELAY_CHUNK)

    async def stop(self) -> None:
        """Close the port and every connection."""
        self._server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        self._connections.add(task)
        onward = None
        try:
            # This process lives in the network "outside", so this comes from 172.18.0.1, as on kind.
            back, onward = await asyncio.open_connection(self._host, self._port, limit=RELAY_CHUNK)
            await asyncio.gather(_pump(reader, onward), _pump(back, writer))
        except OSError as error:
            # Refused, or reset: hand it on as the reset that a client of the node itself would see.
            log.debug("relay to %s:%s: %s", self._host, self._port, error)
            writer.transport.abort()
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            self._connections.discard(task)
            if onward is not None:
                onward.close()
            writer.close()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while data := await source.read(RELAY_CHUNK):
        sink.write(data)
        await sink.drain()
    if sink.can_write_eof():
        sink.write_eof()


def _dns_objects():
    """The objects that kubeadm makes for CoreDNS, without what has no meaning here (its RBAC, its probes)."""
    labels = {"k8s-app": "kube-dns"}
    yield "serviceaccounts", {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "coredns", "namespace": "kube-system"}}
    yield (
        "services",
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": "kube-dns",
                "namespace": "kube-system",
                "labels": {**labels, "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS"},
            },
            "spec": {
                "clusterIP": CLUSTER_DNS,
                "selector": labels,
                "ports": [
                    {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
                    {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53},
                    {"name": "metrics", "port": 9153, "protocol": "TCP", "targetPort": 9153},
                ],
            },
        },
    )
    yield (
        "deployments",
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "coredns", "namespace": "kube-system", "labels": labels},
            "spec": {
                "replicas": 2,
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}},
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {
                        "serviceAccountName": "coredns",
                        "dnsPolicy": "Default",
                        "nodeSelector": {"kubernetes.io/os": "linux", "node-role.kubernetes.io/control-plane": ""},
                        "tolerations": [
                            {"key": "CriticalAddonsOnly", "operator": "Exists"},
                            {"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"},
                        ],
                        "containers": [
                            {
                                "name": "coredns",
                                "image": "registry.k8s.io/coredns/coredns:v1.12.1",
                                "imagePullPolicy": "IfNotPresent",
                                "args": ["-conf", "/etc/coredns/Corefile"],
                                "ports": [
                                    {"name": "dns", "containerPort": 53, "protocol": "UDP"},
                                    {"name": "dns-tcp", "containerPort": 53, "protocol": "TCP"},
                                ],
                                "resources": {"requests": {"cpu": "100m", "memory": "70Mi"}, "limits": {"memory": "170Mi"}},
                            }
                        ],
                    },
                },
            },
        },
    )

