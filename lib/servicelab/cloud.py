"""A cloud controller small enough to be read in one sitting: it gives Services of type LoadBalancer an address that answers.

Kubernetes has the type LoadBalancer, but no load balancers: it waits for a controller of the cloud that it runs in to rent one and
to write its address into ``status.loadBalancer.ingress``. This controller's "cloud" is the network of the nodes: it takes an unused
address there, writes it into the Service's status, and puts it on a node. kube-proxy does the rest, as for a cluster IP.

It is built as every Kubernetes controller is: it *watches* Services and EndpointSlices; at each change it *reconciles*, that is,
compares everything that should be with everything that is, and mends the difference; and it has *no memory of its own*: what it has
given out stands in the Services' status and on the nodes (label ``eth0:lab``), so it may be killed and started again at any moment.

Source: Kubernetes documentation, "Service: type LoadBalancer" and "Cloud Controller Manager".
"""

from __future__ import annotations

import ipaddress
import threading
import zlib

LABEL = "eth0:lab"  # how `ip addr` shows the addresses that are ours


class CloudController:
    """The controller for the LoadBalancer Services of one namespace: ``with lab.cloud():``, or start() and stop()."""

    def __init__(self, lab):
        self.lab = lab
        self.did: list[str] = []  # one sentence for each deed; print(controller) shows them
        self._changed, self._stop = threading.Event(), threading.Event()
        self._threads: list[threading.Thread] = []

    @property
    def allowed(self) -> bool:
        """Whether addresses may be put on the nodes; never on a cluster of the learner's own, which may have a cloud already."""
        return self.lab.nodes_allowed and self.lab.cluster.kind in ("kind", "pocket")

    def start(self) -> CloudController:
        """Begin to watch; a second start does nothing. Where it isn't `allowed` it stays off, and says so when shown."""
        if self.allowed and not self._threads:
            self._stop.clear()
            self._changed.set()  # the first look needs no event
            self.did.clear()
            work = [(self._run, ()), (self._watch, ("services",)), (self._watch, ("endpointslices",))]
            self._threads = [threading.Thread(target=f, args=a, name="cloud-controller", daemon=True) for f, a in work]
            for thread in self._threads:
                thread.start()
        return self

    def pause(self) -> None:
        """Stop watching, and leave everything as it is: what was given out goes on to work."""
        self._stop.set()
        self._changed.set()
        for thread in self._threads:
            thread.join(timeout=30)
        self._threads = []

    def stop(self) -> None:
        """Stop watching and take every address back; also what a controller that was killed has left behind."""
        self.pause()
        if self.allowed:
            for service in self._services(self.lab.namespace):
                if address_of(service):
                    self._give(service, None)
            self._take_off_what_no_service_has()

    def reconcile(self) -> None:
        """Make what is into what should be. This is the whole controller."""
        for service in self._services(self.lab.namespace):
            spec, address = service["spec"], address_of(service)
            if spec.get("loadBalancerClass"):
                continue  # another controller's, by name
            if spec["type"] != "LoadBalancer":
                if address:
                    self._give(service, None)
                continue
            if not address:
                address = self._give(service, self._unused_address())
            holders = {name for name, addresses in self._given().items() if address in addresses}
            node = self._node_for(service, holders)
            for holder in holders - {node}:
                self._ip("del", address, holder)
            if node and node not in holders:
                self._ip("add", address, node)
        self._take_off_what_no_service_has()

    def _watch(self, kind: str) -> None:
        for _event in self.lab.client.watch(kind, self.lab.namespace, stop=self._stop):
            self._changed.set()

    def _run(self) -> None:
        while self._changed.wait() and not self._stop.is_set():
            self._changed.clear()
            try:
                self.reconcile()
            except Exception as error:  # an object changed under our hands, or the cluster restarts: look again soon
                self.did.append(f"will try again: {error}")
                self._stop.wait(1)
                self._changed.set()

    def _services(self, namespace: str | None) -> list[dict]:
        return self.lab.client.list("services", namespace)

    def _give(self, service: dict, address: str | None) -> str | None:
        """Write the address into the Service's status; None takes it back."""
        name = service["metadata"]["name"]
        status = {"loadBalancer": {"ingress": [{"ip": address}] if address else None}}
        self.did.append(f"Service {name}: {f'given the address {address}' if address else 'its address is taken back'}")
        path = self.lab.client.path("services", self.lab.namespace, name) + "/status"
        self.lab.client.request("PATCH", path, {"status": status}, content_type="application/merge-patch+json")
        return address

    def _unused_address(self) -> str:
        """An address near the end of the nodes' network that no Service has, and that nobody on the wire answers for."""
        network, taken = self._network(), {address_of(service) for service in self._services(None)}
        pool = [str(network[-i]) for i in range(6, min(56, network.num_addresses // 2))]
        start = zlib.crc32(self.lab.namespace.encode()) % len(pool)  # two controllers that look at once should not take the same
        for address in pool[start:] + pool[:start]:
            probe = f"curl -s --max-time 0.5 http://{address}:9/; ip neigh show {address}"  # any packet makes the kernel ask by ARP
            if address not in taken and "lladdr" not in self.lab.nodes[0].run(probe):
                return address
        raise RuntimeError(f"no address is unused between {pool[-1]} and {pool[0]}")

    def _node_for(self, service: dict, holders: set[str]) -> str | None:
        """The node that is to answer; with externalTrafficPolicy Local one with a ready pod, since others drop the packets."""
        slices = self.lab.list("endpointslices", f"kubernetes.io/service-name={service['metadata']['name']}")
        endpoints = [endpoint for piece in slices for endpoint in piece.get("endpoints") or []]
        ready = {e.get("nodeName") for e in endpoints if (e.get("conditions") or {}).get("ready") is not False}
        local = service["spec"].get("externalTrafficPolicy") == "Local"
        fit = [node.name for node in self.lab.workers if not local or node.name in ready]
        return next((name for name in fit if name in holders), fit[0] if fit else None)  # it stays where it is, if it may

    def _given(self) -> dict[str, set[str]]:
        """By node, the addresses on it that carry our label."""
        rows = {node.name: node.run(f"ip -o -4 addr show label {LABEL}", check=True).splitlines() for node in self.lab.nodes}
        return {name: {row.split()[3].split("/")[0] for row in lines} for name, lines in rows.items()}

    def _take_off_what_no_service_has(self) -> None:
        given = self._given()  # first: what another controller puts on a node stands in a Service's status before that
        wanted = {address_of(service) for service in self._services(None)}
        for node, addresses in given.items():
            for address in addresses - wanted:
                self._ip("del", address, node)

    def _ip(self, verb: str, address: str, node: str) -> None:
        self.did.append(f"{address} {'put on' if verb == 'add' else 'taken off'} node {node}")
        label = f" label {LABEL}" if verb == "add" else ""
        quicker = f" || ! ip -o -4 addr show to {address} | grep -q ." if verb == "del" else ""  # another controller may have been
        self.lab.nodes[node].run(f"ip addr {verb} {address}/32 dev eth0{label}{quicker}", check=True)
        if verb == "add":  # Neighbours may know it from another node: a question that comes from the address tells them where it is now.
            self.lab.nodes[node].run(f"curl -s --max-time 0.3 --interface {address} http://{self._network()[-2]}/")

    def _network(self) -> ipaddress.IPv4Network:
        node = self.lab.nodes[0]
        rows = [row.split()[3] for row in node.run("ip -o -4 addr show", check=True).splitlines()]
        return next(ipaddress.ip_interface(row).network for row in rows if row.startswith(f"{node.ip}/"))

    def __enter__(self) -> CloudController:
        return self.start()

    def __exit__(self, *exc) -> None:
        self.stop()

    def __repr__(self) -> str:
        if not self.allowed:
            return "cloud controller: off. It would put addresses on nodes, and this cluster doesn't let the lab do that"
        return "\n".join([f"cloud controller: {'running' if self._threads else 'stopped'}", *(f"  {line}" for line in self.did)])


def address_of(service: dict) -> str | None:
    """The address in a Service's status that a load balancer answers at, or None."""
    ingress = (service.get("status", {}).get("loadBalancer") or {}).get("ingress") or [{}]
    return ingress[0].get("ip")
