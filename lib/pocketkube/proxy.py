"""kube-proxy: Services and EndpointSlices as nftables rules on one node.

Tables, chains, maps and sets bear the names that kube-proxy's nftables mode gives them (KEP-3866), and so does what is in
them: whoever has read `nft list table ip kube-proxy` here can read it on a real node.

A packet's way: `services` looks its destination up in the map `service-ips` (or `service-nodeports`), which leads to the
service's chain; that picks an endpoint's chain at random; the endpoint's chain translates the destination. Replies need no
rule: connection tracking undoes the translation. Established connections never see a rule again, so changes don't hurt them.

The rules are kept by difference: `Ruleset` describes what should be, `transaction` what to tell nft to get there from what
is. One change is one atomic transaction.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

from .objects import key_of, labels_of

if TYPE_CHECKING:
    from .apiserver.api import Api
    from .network import NodeNetwork

Key = tuple[str, str]

TABLE = "ip kube-proxy"
SERVICE_NAME = "kubernetes.io/service-name"
PROXY_NAME = "service.kubernetes.io/service-proxy-name"
DEFAULT_AFFINITY_SECONDS = 10800
MARK = "0x00004000"
LONGEST_NAME = 250
LONGEST_REST = 0.08
"""Seconds between two transactions at most, while changes keep coming."""

SERVICE_ADDRESS = "type ipv4_addr . inet_proto . inet_service : verdict"
NODE_PORT = "type inet_proto . inet_service : verdict"

log = logging.getLogger("pocketkube.kube-proxy")


@lru_cache(maxsize=8192)
def hashed(name: str) -> str:
    """Return a name with the hash in front that kube-proxy puts there, so that cut-off names stay unique.

    >>> hashed("default/kubernetes/tcp/https")
    '2QRHZV4L-default/kubernetes/tcp/https'
    """
    digest = base64.b32encode(hashlib.sha256(name.encode()).digest()).decode()[:8]
    full = f"{digest}-{name}"
    return full if len(full) <= LONGEST_NAME else full[: LONGEST_NAME - 3] + "..."


@dataclass(frozen=True)
class Endpoint:
    """One address behind a service port, as an EndpointSlice tells it."""

    ip: str
    port: int
    node: str | None = None
    ready: bool = True
    serving: bool = True
    terminating: bool = False


@dataclass
class Ruleset:
    """What should be in the table besides the fixed chains: part of it for one service, or all of it together.

    Attributes:
        chains: For each chain its rules.
        sets: For each set its declaration (only affinity sets; the others are fixed).
        elements: For each map or set its elements: key → the rest of the line (`` : goto …`` or nothing).
    """

    chains: dict[str, tuple[str, ...]] = field(default_factory=dict)
    sets: dict[str, str] = field(default_factory=dict)
    elements: dict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))

    def merge(self, other: Ruleset) -> None:
        """Add another part; of two claims to the same element the first wins, as with kube-proxy."""
        self.chains.update(other.chains)
        self.sets.update(other.sets)
        for name, elements in other.elements.items():
            for key, rest in elements.items():
                self.elements[name].setdefault(key, rest)


def endpoints_of(slices: Iterable[dict], port_name: str, protocol: str) -> list[Endpoint]:
    """Return the distinct endpoints of one service port; addresses that are not IPv4 are left out.

    A condition that is absent counts as: ready, as serving as it is ready, not terminating (the API's defaults).
    """
    found: dict[tuple[str, int], Endpoint] = {}
    for each in slices:
        if each.get("addressType") != "IPv4":
            continue
        for port in each.get("ports") or ():
            if (port.get("name") or "") != port_name or port.get("protocol", "TCP") != protocol or port.get("port") is None:
                continue
            for item in each.get("endpoints") or ():
                conditions = item.get("conditions") or {}
                ready = conditions.get("ready") is not False
                serving = conditions.get("serving")
                endpoint = Endpoint(
                    ip=item["addresses"][0],
                    port=port["port"],
                    node=item.get("nodeName"),
                    ready=ready,
                    serving=ready if serving is None else serving,
                    terminating=bool(conditions.get("terminating")),
                )
                present = found.get((endpoint.ip, endpoint.port))
                if present is None or (endpoint.ready and not present.ready):
                    found[endpoint.ip, endpoint.port] = endpoint
    return [found[key] for key in sorted(found)]


def usable(endpoints: Iterable[Endpoint]) -> list[Endpoint]:
    """Return the ready endpoints, or, when there is none, those that still serve while they terminate (KEP-1669)."""
    endpoints = list(endpoints)
    ready = [endpoint for endpoint in endpoints if endpoint.ready]
    return ready or [endpoint for endpoint in endpoints if endpoint.serving and endpoint.terminating]


def is_proxied(service: dict) -> bool:
    """Whether kube-proxy has anything to do with the Service: it has a cluster IP and nobody else proxies it."""
    spec = service["spec"]
    address = spec.get("clusterIP")
    return bool(address) and address != "None" and spec.get("type") != "ExternalName" and PROXY_NAME not in labels_of(service)


def load_balancer_addresses(service: dict) -> list[str]:
    """Return the addresses that a load balancer has and that nodes should accept (ipMode VIP, the default)."""
    if service["spec"].get("type") != "LoadBalancer":
        return []
    ingress = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    return [item["ip"] for item in ingress if item.get("ip") and ":" not in item["ip"] and item.get("ipMode", "VIP") == "VIP"]


class PortRules:
    """The rules of one port of one Service on one node.

    Args:
        service: The Service.
        port: One of its ports.
        endpoints: All endpoints of that port.
        node: The node's name, for the traffic policies ``Local``.
        pod_cidr: The range of all pods; what comes from elsewhere is masqueraded on its way to a cluster IP.
    """

    def __init__(self, service: dict, port: dict, endpoints: list[Endpoint], node: str, pod_cidr: str) -> None:
        spec = service["spec"]
        self.service, self.port, self.pod_cidr = service, port, pod_cidr
        self.protocol = port.get("protocol", "TCP").lower()
        namespace, name = key_of(service)
        self.path = f"{namespace}/{name}/{self.protocol}/{port.get('name', '')}"
        self.comment = f"{namespace}/{name}"
        self.cluster = usable(endpoints)
        self.local = usable(endpoint for endpoint in endpoints if endpoint.node == node)
        self.internal_local = spec.get("internalTrafficPolicy", "Cluster") == "Local"
        self.external_local = spec.get("externalTrafficPolicy", "Cluster") == "Local"
        self.external_ips = [address for address in spec.get("externalIPs") or () if ":" not in address]
        self.load_balancer = load_balancer_addresses(service)
        self.node_port = port.get("nodePort") if spec.get("type") in {"NodePort", "LoadBalancer"} else None
        if spec.get("type") == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts") is False and not self.node_port:
            self.node_port = None
        affinity = (spec.get("sessionAffinityConfig") or {}).get("clientIP") or {}
        self.affinity = affinity.get("timeoutSeconds", DEFAULT_AFFINITY_SECONDS) if spec.get("sessionAffinity") == "ClientIP" else None

    def rules(self) -> Ruleset:
        """Return the port's part of the ruleset."""
        result = Ruleset()
        external = bool(self.external_ips or self.load_balancer or self.node_port)
        has_internal = bool(self.local if self.internal_local else self.cluster) and bool(self.cluster or self.local)
        has_external = bool(self.local if self.external_local else self.cluster)
        has_any = bool(self.cluster or self.local)
        service_chain, local_chain = f"service-{hashed(self.path)}", f"local-{hashed(self.path)}"
        internal_chain = local_chain if self.internal_local else service_chain
        external_chain = f"external-{hashed(self.path)}"
        self._elements(result, internal_chain, external_chain, has_any, has_internal, has_external)
        masquerade = f"ip daddr {self.service['spec']['clusterIP']} ip saddr != {self.pod_cidr} jump mark-for-masquerade"
        used: dict[str, Endpoint] = {}
        for chain, endpoints, wanted in (
            (service_chain, self.cluster, not self.internal_local or external),
            (local_chain, self.local, self.internal_local or (external and self.external_local)),
        ):
            if endpoints and wanted:
                chains = {self._endpoint_chain(endpoint): endpoint for endpoint in endpoints}
                used |= chains
                first = (masquerade,) if has_internal and chain == internal_chain else ()
                result.chains[chain] = (*first, *self._choice(list(chains)))
        for chain, endpoint in used.items():
            result.chains[chain] = self._endpoint_rules(chain, endpoint)
            if self.affinity is not None:
                name = self._affinity_set(chain)
                result.sets[name] = f"type ipv4_addr; flags dynamic,timeout; size 65535; timeout {self.affinity}s;"
        if has_any and external:
            result.chains[external_chain] = self._external_rules(service_chain, local_chain, has_external)
        return result

    def _endpoint_chain(self, endpoint: Endpoint) -> str:
        return f"endpoint-{hashed(f'{self.path}__{endpoint.ip}/{endpoint.port}')}"

    @staticmethod
    def _affinity_set(endpoint_chain: str) -> str:
        return endpoint_chain.replace("endpoint-", "affinity-", 1)

    def _choice(self, chains: list[str]) -> tuple[str, ...]:
        """Return the rules that pick an endpoint: the one that this client had before, else any of them."""
        sticky = ()
        if self.affinity is not None:
            sticky = tuple(f"ip saddr @{self._affinity_set(chain)} goto {chain}" for chain in chains)
        choices = ", ".join(f"{index} : goto {chain}" for index, chain in enumerate(chains))
        return (*sticky, f"numgen random mod {len(chains)} vmap {{ {choices} }}")

    def _endpoint_rules(self, chain: str, endpoint: Endpoint) -> tuple[str, ...]:
        # A pod that meets itself behind its own Service must see another source, or it would answer itself directly.
        rules = [f"ip saddr {endpoint.ip} jump mark-for-masquerade"]
        if self.affinity is not None:
            rules.append(f"update @{self._affinity_set(chain)} {{ ip saddr }}")
        rules.append(f"meta l4proto {self.protocol} dnat to {endpoint.ip}:{endpoint.port}")
        return tuple(rules)

    def _external_rules(self, service_chain: str, local_chain: str, has_external: bool) -> tuple[str, ...]:
        if not self.external_local:
            # The reply must come back through this node, so the pod sees the node as its client.
            return ("jump mark-for-masquerade", f"goto {service_chain}")
        rules = [
            f'ip saddr {self.pod_cidr} goto {service_chain} comment "short-circuit pod traffic"',
            'fib saddr type local jump mark-for-masquerade comment "masquerade local traffic"',
            f'fib saddr type local goto {service_chain} comment "short-circuit local traffic"',
        ]
        if has_external:
            rules.append(f"goto {local_chain}")
        return tuple(rules)

    def _elements(
        self, result: Ruleset, internal_chain: str, external_chain: str, has_any: bool, has_internal: bool, has_external: bool
    ) -> None:
        spec, elements, number = self.service["spec"], result.elements, self.port["port"]
        cluster_ip = spec["clusterIP"]
        elements["cluster-ips"][cluster_ip] = ""
        # Without any endpoint the client hears so at once; without a local one another node may do better: silence.
        refusal = "drop" if has_any else "goto reject-chain"
        destination = f"{cluster_ip} . {self.protocol} . {number}"
        if has_internal:
            elements["service-ips"][destination] = f" : goto {internal_chain}"
        else:
            elements["no-endpoint-services"][destination] = f' comment "{self.comment}" : {refusal}'
        for address in [*self.external_ips, *self.load_balancer]:
            destination = f"{address} . {self.protocol} . {number}"
            if has_any:
                elements["service-ips"][destination] = f" : goto {external_chain}"
            if not has_external:
                elements["no-endpoint-services"][destination] = f' comment "{self.comment}" : {refusal}'
        if self.node_port:
            destination = f"{self.protocol} . {self.node_port}"
            if has_any:
                elements["service-nodeports"][destination] = f" : goto {external_chain}"
            if not has_external:
                elements["no-endpoint-nodeports"][destination] = f' comment "{self.comment}" : {refusal}'
        sources = [source for source in spec.get("loadBalancerSourceRanges") or () if ":" not in source]
        if self.load_balancer and sources:
            firewall = f"firewall-{hashed(self.path)}"
            for address in self.load_balancer:
                elements["firewall-ips"][f"{address} . {self.protocol} . {number}"] = f" : goto {firewall}"
            # A load balancer's own address among the sources: a node that talks to it may have it itself.
            result.chains[firewall] = (f"ip saddr != {{ {', '.join([*sources, *self.load_balancer])} }} drop",)


def service_rules(service: dict, slices: Iterable[dict], node: str, pod_cidr: str) -> Ruleset:
    """Return all rules of one Service on one node; none for one that kube-proxy has nothing to do with."""
    result = Ruleset()
    if not is_proxied(service):
        return result
    slices = list(slices)
    for port in service["spec"].get("ports") or ():
        endpoints = endpoints_of(slices, port.get("name", ""), port.get("protocol", "TCP"))
        result.merge(PortRules(service, port, endpoints, node, pod_cidr).rules())
    return result


def base_rules(service_cidr: str, node_ip: str) -> str:
    """Return the commands that make the table anew: the fixed chains, and maps without elements."""
    return f"""\
add table {TABLE} {{ comment "rules for kube-proxy"; }}
delete table {TABLE}
table {TABLE} {{
 comment "rules for kube-proxy"
 set cluster-ips {{ type ipv4_addr; comment "Active ClusterIPs"; }}
 set nodeport-ips {{ type ipv4_addr; comment "IPs that accept NodePort traffic"; elements = {{ {node_ip} }}; }}
 map no-endpoint-services {{ {SERVICE_ADDRESS}; comment "vmap to drop or reject packets to services with no endpoints"; }}
 map no-endpoint-nodeports {{ {NODE_PORT}; comment "vmap to drop or reject packets to service nodeports with no endpoints"; }}
 map firewall-ips {{ {SERVICE_ADDRESS}; comment "destinations that are subject to LoadBalancerSourceRanges"; }}
 map service-ips {{ {SERVICE_ADDRESS}; comment "ClusterIP, ExternalIP and LoadBalancer IP traffic"; }}
 map service-nodeports {{ {NODE_PORT}; comment "NodePort traffic"; }}
 chain nodeport-endpoints-check {{ ip daddr @nodeport-ips meta l4proto . th dport vmap @no-endpoint-nodeports; }}
 chain service-endpoints-check {{ ip daddr . meta l4proto . th dport vmap @no-endpoint-services; }}
 chain firewall-check {{ ip daddr . meta l4proto . th dport vmap @firewall-ips; }}
 chain services {{
  ip daddr . meta l4proto . th dport vmap @service-ips
  ip daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports
 }}
 chain masquerading {{
  meta mark & {MARK} == 0x00000000 return
  meta mark set meta mark ^ {MARK}
  masquerade fully-random
 }}
 chain cluster-ips-check {{
  ip daddr @cluster-ips reject comment "Reject traffic to invalid ports of ClusterIPs"
  ip daddr {service_cidr} drop comment "Drop traffic to unallocated ClusterIPs"
 }}
 chain mark-for-masquerade {{ meta mark set meta mark | {MARK}; }}
 chain reject-chain {{ comment "helper for @no-endpoint-services / @no-endpoint-nodeports"; reject; }}
 chain filter-prerouting-pre-dnat {{
  type filter hook prerouting priority dstnat - 10; policy accept;
  ct state new jump firewall-check
 }}
 chain filter-output-pre-dnat {{
  type filter hook output priority -110; policy accept;
  ct state new jump firewall-check
 }}
 chain filter-input {{
  type filter hook input priority filter; policy accept;
  ct state new jump nodeport-endpoints-check
  ct state new jump service-endpoints-check
 }}
 chain filter-forward {{
  type filter hook forward priority filter; policy accept;
  ct state new jump service-endpoints-check
  ct state new jump cluster-ips-check
 }}
 chain filter-output {{
  type filter hook output priority filter; policy accept;
  ct state new jump service-endpoints-check
  ct state new jump cluster-ips-check
 }}
 chain nat-prerouting {{ type nat hook prerouting priority dstnat; policy accept; jump services; }}
 chain nat-output {{ type nat hook output priority -100; policy accept; jump services; }}
 chain nat-postrouting {{ type nat hook postrouting priority srcnat; policy accept; jump masquerading; }}
}}
"""


def transaction(before: Ruleset, after: Ruleset) -> tuple[str, str]:
    """Return what to tell nft to get from one ruleset to another.

    Returns:
        The change itself, in which chains that are needed no more are emptied, and the commands that delete those chains
        and sets. Both are meant for one transaction; on kernels that refuse to delete a chain whose last reference goes in
        the same transaction, for two.
    """
    added, filled, removed, deleted = [], [], [], []
    added += [f"add set {TABLE} {name} {{ {text} }}" for name, text in after.sets.items() if name not in before.sets]
    for chain, rules in after.chains.items():
        if chain not in before.chains:
            added.append(f"add chain {TABLE} {chain}")
        elif before.chains[chain] != rules:
            added.append(f"flush chain {TABLE} {chain}")
        else:
            continue
        filled += [f"add rule {TABLE} {chain} {rule}" for rule in rules]
    for name in dict.fromkeys([*before.elements, *after.elements]):
        old, new = before.elements.get(name, {}), after.elements.get(name, {})
        gone = [key for key, rest in old.items() if new.get(key) != rest]
        fresh = [f"{key}{rest}" for key, rest in new.items() if old.get(key) != rest]
        # A map's element is deleted with the verdict it has: so it is named in full.
        removed += [f"delete element {TABLE} {name} {{ {', '.join(_plain(key, old[key]) for key in gone)} }}"] if gone else []
        filled_elements = [f"add element {TABLE} {name} {{ {', '.join(fresh)} }}"] if fresh else []
        removed += filled_elements
    stale = [chain for chain in before.chains if chain not in after.chains]
    removed += [f"flush chain {TABLE} {chain}" for chain in stale]
    deleted += [f"delete chain {TABLE} {chain}" for chain in stale]
    deleted += [f"delete set {TABLE} {name}" for name in before.sets if name not in after.sets]
    change = [*added, *filled, *removed]
    return "".join(f"{line}\n" for line in change), "".join(f"{line}\n" for line in deleted)


def _plain(key: str, rest: str) -> str:
    """Return an element with its verdict but without its comment, which is no part of its identity."""
    return f"{key} :{rest.rpartition(' :')[2]}" if rest else key


class Proxy:
    """Keeps one node's rules as Services and EndpointSlices say.

    Changes that come together go into one transaction: the first one is acted upon at once, those that arrive while nft
    works, or within as long as it just took, together afterwards.

    Args:
        api: The API.
        node: The node whose rules to write.
        service_cidr: The range of cluster IPs.
        pod_cidr: The range of all pods.
    """

    def __init__(self, api: Api, node: NodeNetwork, *, service_cidr: str = "10.96.0.0/16", pod_cidr: str = "10.244.0.0/16") -> None:
        self.node, self.service_cidr, self.pod_cidr = node, service_cidr, pod_cidr
        self.services = api.informer("services")
        self.slices = api.informer("endpointslices")
        self._slices_of: dict[Key, dict[Key, dict]] = defaultdict(dict)
        self._parts: dict[Key, Ruleset] = {}
        self._dirty: set[Key] = set()
        self._changed = asyncio.Event()
        self._applied: Ruleset | None = None
        self._leftover = ""
        self._task: asyncio.Task | None = None
        self._started = False

    async def start(self) -> None:
        """Write the rules for what there is, then follow the changes."""
        self.services.on_change(self._service_changed)
        self.slices.on_change(self._slice_changed)
        self._dirty.update(key_of(service) for service in self.services.values())
        for each in self.slices.values():
            self._slice_changed("ADDED", each, None)
        await self._sync()
        self._task = asyncio.get_running_loop().create_task(self._work(), name=f"kube-proxy {self.node.name}")

    async def stop(self) -> None:
        """Follow no more changes; the rules stay, as when a real kube-proxy stops."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    def _service_changed(self, _type: str, service: dict, _old: dict | None) -> None:
        self._dirty.add(key_of(service))
        self._changed.set()

    def _slice_changed(self, type_: str, obj: dict, old: dict | None) -> None:
        for each, gone in ((old, True), (obj, type_ == "DELETED")):
            name = labels_of(each).get(SERVICE_NAME) if each is not None else None
            if name is None:
                continue
            service = (obj["metadata"]["namespace"], name)
            if gone:
                self._slices_of[service].pop(key_of(obj), None)
            else:
                self._slices_of[service][key_of(obj)] = obj
            self._dirty.add(service)
        self._changed.set()

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            await self._changed.wait()
            began = loop.time()
            try:
                await self._sync()
                failures = 0
            except asyncio.CancelledError:
                raise
            except Exception as error:
                failures += 1
                delay = min(10.0, 0.1 * 2**failures)
                log.error("%s: the rules could not be written, all of them are written anew in %.1f s: %s", self.node.name, delay, error)
                self._applied = None
                self._changed.set()
                await asyncio.sleep(delay)
                continue
            # More rest than work: a burst of changes shares transactions, a single one never waits.
            await asyncio.sleep(min(LONGEST_REST, 3 * (loop.time() - began)))

    async def _sync(self) -> None:
        self._changed.clear()
        dirty, self._dirty = self._dirty, set()
        for key in dirty:
            service = self.services.get(*key)
            slices = self._slices_of.get(key, {})
            if service is None:
                self._parts.pop(key, None)
                if not slices:
                    self._slices_of.pop(key, None)
            else:
                self._parts[key] = service_rules(service, slices.values(), self.node.name, self.pod_cidr)
        wanted = Ruleset()
        for part in self._parts.values():
            wanted.merge(part)
        await self._apply(wanted)

    async def _apply(self, wanted: Ruleset) -> None:
        if self._applied is None:
            change, _ = transaction(Ruleset(), wanted)
            await self.node.nft(base_rules(self.service_cidr, self.node.ip) + change)
            self._leftover = ""
        else:
            change, deletions = transaction(self._applied, wanted)
            if not change and not deletions:
                return
            await self._change(wanted, change, deletions)
        self._applied = wanted

    async def _change(self, wanted: Ruleset, change: str, deletions: str) -> None:
        # A chain that waits to be deleted may be wanted again.
        names = {line.rsplit(" ", 1)[1] for line in self._leftover.splitlines()}
        if names & (wanted.chains.keys() | wanted.sets.keys()):
            self._leftover = "".join(
                f"{line}\n" for line in self._leftover.splitlines() if line.rsplit(" ", 1)[1] not in wanted.chains | wanted.sets
            )
        try:
            await self.node.nft(self._leftover + change + deletions)
            self._leftover = ""
        except Exception as error:
            if not deletions or "busy" not in str(error).lower():
                raise
            await self.node.nft(self._leftover + change)
            self._leftover = deletions
