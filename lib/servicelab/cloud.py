"""A cloud controller small enough to be read in one sitting: it gives Services of type LoadBalancer an address that answers.

Kubernetes has the type LoadBalancer, but no load balancers: it waits for a controller of the cloud that it runs in to rent one and
to write its address into ``status.loadBalancer.ingress``. This is such a controller for the lab. Its "cloud" is the network
that the nodes are on: it takes an unused address there, writes it into the Service's status, and puts it on a node. The rest is
kube-proxy's: every node translates packets for that address to the Service's pods, as it does for a cluster IP.

It is built as every Kubernetes controller is:

* **watch**: it is told of each change of a Service or an EndpointSlice, and looks at nothing in between;
* **reconcile**: at each change it compares everything that should be with everything that is, and mends the difference; so it
  may miss an event, be stopped, or start in the middle;
* **no memory of its own**: what it has given out stands in the Services' status and on the nodes (label ``eth0:lab``).

Source: Kubernetes documentation, "Service: type LoadBalancer" and "Cloud Controller Manager".
"""

from __future__ import annotations

import ipaddress
import json
import subprocess
import threading
import zlib

LABEL = "lab"  # addresses on a node that are ours are called eth0:lab by `ip addr`


class Cloud:
    """The controller for the LoadBalancer Services of one namespace; use it as ``with lab.cloud():``, or start() and stop().

    Args:
        lab: the learner's Lab. Its nodes must be allowed to be entered: an address has to be put on one.
    """

    def __init__(self, lab):
        self.lab = lab
        self.did: list[str] = []  # what it did, one sentence each; shown by print(cloud)
        self._changed, self._stopping = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self._watches: dict[str, subprocess.Popen] = {}

    def start(self) -> Cloud:
        """Start to watch; a second start does nothing. Where nodes can't be entered it stays off, and says so."""
        if self.allowed and not (self._thread and self._thread.is_alive()):
            self._stopping.clear()
            self._changed.set()  # the first look needs no event
            self._thread = threading.Thread(target=self._run, name="cloud-controller", daemon=True)
            self._thread.start()
            for resource in ("services", "endpointslices"):
                threading.Thread(target=self._watch, args=(resource,), name=f"cloud-watch-{resource}", daemon=True).start()
        return self

    def stop(self) -> None:
        """Stop watching and take every address back; also those that an earlier, killed controller of this namespace gave."""
        self._stopping.set()
        self._changed.set()
        for watch in list(self._watches.values()):
            watch.terminate()
        if self._thread:
            self._thread.join(timeout=60)
        if self.allowed:
            for service in self._services():
                if _address(service):
                    self._set_address(service, None)
            self._clean_nodes()

    @property
    def allowed(self) -> bool:
        """Whether this lab lets us put addresses on nodes (not on a cluster of your own, which may have a cloud already)."""
        return self.lab.nodes_allowed and self.lab.cluster.kind != "context"

    def reconcile(self) -> None:
        """Make what is into what should be: the whole controller."""
        for service in self._services():
            if service["spec"]["type"] != "LoadBalancer" or service["spec"].get("loadBalancerClass"):
                if _address(service) and not service["spec"].get("loadBalancerClass"):  # it was one of ours; it no longer is
                    self._set_address(service, None)
                continue
            address = _address(service) or self._set_address(service, self._unused_address())
            node, holders = self._node_for(service), self._holders(address)
            for holder in holders - {node}:
                self._ip(holder, "del", address)
            if node and node not in holders:
                self._ip(node, "add", address)
                # Neighbours may remember another node for it. A request sent from the new address makes this node ask for some
                # address by ARP, and from that question they learn the new one.
                self.lab.nodes[node].run(f"curl -s --max-time 0.3 --interface {address} http://{self._network()[-2]}/ || true")
        self._clean_nodes()

    def _run(self) -> None:
        while self._changed.wait() and not self._stopping.is_set():
            self._changed.clear()
            try:
                self.reconcile()
            except Exception as error:  # an object that changed under our hands, a cluster that restarts: look again soon
                self.did.append(f"will try again: {str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__}")
                self._stopping.wait(1)
                self._changed.set()

    def _watch(self, resource: str) -> None:
        while not self._stopping.is_set():  # a watch ends when the API server closes it: open the next, and look at everything again
            command = ["kubectl", "get", resource, "--namespace", self.lab.namespace, "--watch", "--output", "name"]
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as watch:
                self._watches[resource] = watch
                if self._stopping.is_set():
                    watch.terminate()
                for _line in watch.stdout:
                    self._changed.set()
            self._changed.set()
            self._stopping.wait(0.5)

    def _services(self, everywhere: bool = False) -> list[dict]:
        where = ["--all-namespaces"] if everywhere else ["--namespace", self.lab.namespace]
        return json.loads(self.lab.kubectl("get", "services", *where, "--output", "json"))["items"]

    def _set_address(self, service: dict, address: str | None) -> str | None:
        name = service["metadata"]["name"]
        patch = {"status": {"loadBalancer": {"ingress": [{"ip": address}] if address else None}}}
        where = ["--namespace", self.lab.namespace, "--subresource", "status", "--type", "merge"]
        self.lab.kubectl("patch", "service", name, *where, "--patch", json.dumps(patch))
        self.did.append(f"Service {name}: address {address} given" if address else f"Service {name}: address taken back")
        return address

    def _unused_address(self) -> str:
        """Take an address near the end of the nodes' network that no Service has and nobody on the wire answers for."""
        network, taken = self._network(), {_address(service) for service in self._services(everywhere=True)}
        pool = [str(network[-i]) for i in range(6, min(56, network.num_addresses // 2))]
        start = zlib.crc32(self.lab.namespace.encode()) % len(pool)  # two labs that look at once should not take the same
        asking = next(iter(self.lab.nodes))
        for address in pool[start:] + pool[:start]:
            probe = f"curl -s --max-time 0.5 http://{address}:9/ ; ip neigh show {address}"
            if address not in taken and "lladdr" not in asking.run(probe):
                return address
        raise RuntimeError(f"no unused address is left between {pool[-1]} and {pool[0]}")

    def _node_for(self, service: dict) -> str | None:
        """Choose the node that answers for the address; with externalTrafficPolicy Local only one with a ready pod will do."""
        name = service["metadata"]["name"]
        selector = f"--selector=kubernetes.io/service-name={name}"
        slices = self.lab.kubectl("get", "endpointslices", selector, "--namespace", self.lab.namespace, "--output", "json")
        endpoints = [endpoint for item in json.loads(slices)["items"] for endpoint in item.get("endpoints") or []]
        ready = {e.get("nodeName") for e in endpoints if (e.get("conditions") or {}).get("ready") is not False}
        local = service["spec"].get("externalTrafficPolicy") == "Local"
        fit = [node.name for node in self.lab.nodes if node.role != "control-plane" and (not local or node.name in ready)]
        holding = self._holders(_address(service) or "")
        return next((name for name in fit if name in holding), fit[0] if fit else None)

    def _holders(self, address: str) -> set[str]:
        return {node for node, addresses in self._given().items() if address in addresses}

    def _given(self) -> dict[str, list[str]]:
        """Read from the nodes which addresses carry our label."""
        lines = {node.name: node.run("ip -o -4 addr show").splitlines() for node in self.lab.nodes}
        return {name: [line.split()[3].split("/")[0] for line in rows if f":{LABEL}" in line] for name, rows in lines.items()}

    def _clean_nodes(self) -> None:
        wanted = {_address(service) for service in self._services(everywhere=True)}
        for node, addresses in self._given().items():
            for address in set(addresses) - wanted:
                self._ip(node, "del", address)

    def _ip(self, node: str, verb: str, address: str) -> None:
        self.lab.nodes[node].run(f"ip addr {verb} {address}/32 dev eth0" + (f" label eth0:{LABEL}" if verb == "add" else ""))
        self.did.append(f"{address} {'put on' if verb == 'add' else 'taken off'} {node}")

    def _network(self) -> ipaddress.IPv4Network:
        node = next(iter(self.lab.nodes))
        rows = [line.split()[3] for line in node.run("ip -o -4 addr show").splitlines()]
        return next(ipaddress.ip_interface(row).network for row in rows if row.split("/")[0] == node.ip)

    def __enter__(self) -> Cloud:
        return self.start()

    def __exit__(self, *exc) -> None:
        self.stop()

    def __repr__(self) -> str:
        """Say whether it runs, and what it has done so far."""
        if not self.allowed:
            return "cloud controller: off, since addresses can't be put on the nodes of this cluster from here"
        running = self._thread is not None and self._thread.is_alive()
        return "\n".join([f"cloud controller: {'running' if running else 'stopped'}", *(f"  {line}" for line in self.did)])


def _address(service: dict) -> str | None:
    ingress = (service.get("status", {}).get("loadBalancer") or {}).get("ingress") or [{}]
    return ingress[0].get("ip")
