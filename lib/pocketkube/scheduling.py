"""Which nodes a pod can run on, and which of them is best: the scheduler's decisions as pure functions.

The filters run in the order of the default scheduler's plugins, and the first that fails gives a node's reason, in the
words of kube-scheduler 1.34. See https://kubernetes.io/docs/concepts/scheduling-eviction/kube-scheduler/.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from .objects import controller_of, deleting, labels_of, pod_finished, selects
from .quantity import parse_quantity

Key = tuple[str, str]

NO_VICTIMS = "No preemption victims found for incoming pod"
NOT_HELPFUL = "Preemption is not helpful for scheduling"


@dataclass
class NodeState:
    """A node and the pods that are on it or on their way to it."""

    node: dict
    pods: dict[Key, dict] = field(default_factory=dict)
    requested: dict[str, Decimal] = field(default_factory=lambda: defaultdict(Decimal))

    @property
    def name(self) -> str:
        return self.node["metadata"]["name"]

    def add(self, key: Key, pod: dict) -> None:
        """Count a pod in."""
        self.remove(key)
        self.pods[key] = pod
        for resource, amount in requests(pod).items():
            self.requested[resource] += amount

    def remove(self, key: Key) -> None:
        """Count a pod out, if it is in."""
        pod = self.pods.pop(key, None)
        if pod is not None:
            for resource, amount in requests(pod).items():
                self.requested[resource] -= amount


@dataclass(frozen=True)
class Rejection:
    """Why a node won't do, and whether removing other pods from it could change that."""

    reason: str
    preemption_helps: bool = False


def requests(pod: dict) -> dict[str, Decimal]:
    """Return what a pod asks for: the sum of its containers, or its largest init container if that is more."""
    spec = pod["spec"]
    total: dict[str, Decimal] = defaultdict(Decimal)
    for container in spec["containers"]:
        for resource, amount in (container.get("resources", {}).get("requests") or {}).items():
            total[resource] += parse_quantity(amount)
    for container in spec.get("initContainers") or ():
        for resource, amount in (container.get("resources", {}).get("requests") or {}).items():
            total[resource] = max(total[resource], parse_quantity(amount))
    return total


def tolerates(toleration: Mapping, taint: Mapping) -> bool:
    """Whether one toleration covers one taint.

    >>> tolerates({"operator": "Exists"}, {"key": "a", "value": "b", "effect": "NoSchedule"})
    True
    """
    if toleration.get("effect") and toleration["effect"] != taint["effect"]:
        return False
    if toleration.get("key") and toleration["key"] != taint["key"]:
        return False
    if toleration.get("operator", "Equal") == "Exists":
        return True
    return bool(toleration.get("key")) and toleration.get("value", "") == taint.get("value", "")


def untolerated(pod: dict, node: dict, effects: set[str]) -> list[dict]:
    """Return the node's taints with one of the effects that the pod does not tolerate."""
    tolerations = pod["spec"].get("tolerations") or ()
    taints = [taint for taint in node["spec"].get("taints") or () if taint["effect"] in effects]
    return [taint for taint in taints if not any(tolerates(toleration, taint) for toleration in tolerations)]


def term_matches(term: Mapping, node: dict) -> bool:
    """Whether a node selector term holds; an empty one matches no node."""
    if not term.get("matchExpressions") and not term.get("matchFields"):
        return False
    fields = {"metadata.name": node["metadata"]["name"]}
    return selects({"matchExpressions": term.get("matchExpressions")}, labels_of(node)) and selects(
        {"matchExpressions": term.get("matchFields")}, fields
    )


def affinity_holds(pod: dict, node: dict) -> bool:
    """Whether the node fits nodeSelector and the required node affinity."""
    labels = labels_of(node)
    if any(labels.get(name) != value for name, value in (pod["spec"].get("nodeSelector") or {}).items()):
        return False
    affinity = (pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    return required is None or any(term_matches(term, node) for term in required["nodeSelectorTerms"])


def host_ports(pod: dict) -> set[tuple[str, str, int]]:
    """Return (host IP, protocol, port) of each port that the pod wants on its node."""
    containers = [*pod["spec"]["containers"], *(c for c in pod["spec"].get("initContainers") or () if c.get("restartPolicy") == "Always")]
    return {
        (port.get("hostIP") or "0.0.0.0", port.get("protocol", "TCP"), port["hostPort"])
        for container in containers
        for port in container.get("ports") or ()
        if port.get("hostPort")
    }


def ports_free(pod: dict, state: NodeState) -> bool:
    """Whether no pod on the node holds one of the host ports; 0.0.0.0 overlaps with every address."""
    wanted = host_ports(pod)
    if not wanted:
        return True
    held = {port for other in state.pods.values() for port in host_ports(other)}
    return not any(
        protocol == other_protocol and port == other_port and (ip == other_ip or "0.0.0.0" in {ip, other_ip})
        for ip, protocol, port in wanted
        for other_ip, other_protocol, other_port in held
    )


def resource_rejection(pod: dict, state: NodeState) -> list[Rejection]:
    """Return what the node is too small for. Preemption can help only where the node could hold the pod when empty."""
    allocatable = {name: parse_quantity(amount) for name, amount in (state.node.get("status", {}).get("allocatable") or {}).items()}
    found = []
    if len(state.pods) + 1 > allocatable.get("pods", Decimal(110)):
        found.append(Rejection("Too many pods", preemption_helps=True))
    for resource, amount in sorted(requests(pod).items()):
        available = allocatable.get(resource, Decimal(0))
        if amount > 0 and amount > available - state.requested[resource]:
            found.append(Rejection(f"Insufficient {resource}", preemption_helps=amount <= available))
    return found


class Placement:
    """One pod to place and the nodes it could go to.

    Args:
        pod: The pod.
        nodes: All nodes with their pods.
        namespace_labels: Returns a namespace's labels, for affinity terms with a namespaceSelector.
    """

    def __init__(
        self, pod: dict, nodes: Iterable[NodeState], namespace_labels: Callable[[str], Mapping[str, str]] = lambda _name: {}
    ) -> None:
        self.pod = pod
        self.nodes = list(nodes)
        self.namespace_labels = namespace_labels
        self.namespace = pod["metadata"]["namespace"]

    def choose(self) -> tuple[str | None, dict[str, list[Rejection]]]:
        """Return the best node's name, or None and every node's rejections."""
        rejections = {state.name: self._filter(state) for state in self.nodes}
        feasible = [state for state in self.nodes if not rejections[state.name]]
        if not feasible:
            return None, rejections
        scores = {state.name: self._score(state) for state in feasible}
        best = min(scores.values())
        return random.choice([name for name, score in scores.items() if score == best]), rejections

    # --- filters ---------------------------------------------------------------------------------------------------

    def _filter(self, state: NodeState) -> list[Rejection]:
        node, pod = state.node, self.pod
        cordon = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}
        if node["spec"].get("unschedulable") and not any(tolerates(t, cordon) for t in pod["spec"].get("tolerations") or ()):
            return [Rejection("node(s) were unschedulable")]
        if untolerated(pod, node, {"NoSchedule", "NoExecute"}):
            return [Rejection("node(s) had untolerated taint(s)")]
        if not affinity_holds(pod, node):
            return [Rejection("node(s) didn't match Pod's node affinity/selector")]
        if not ports_free(pod, state):
            return [Rejection("node(s) didn't have free ports for the requested pod ports", preemption_helps=True)]
        if short := resource_rejection(pod, state):
            return short
        return self._spread(state) or self._pod_affinity(state)

    def _spread(self, state: NodeState) -> list[Rejection]:
        for constraint in self.pod["spec"].get("topologySpreadConstraints") or ():
            if constraint.get("whenUnsatisfiable", "DoNotSchedule") != "DoNotSchedule":
                continue
            key = constraint["topologyKey"]
            here = labels_of(state.node).get(key)
            if here is None:
                return [Rejection("node(s) didn't match pod topology spread constraints (missing required label)")]
            counts = self._domain_counts(constraint)
            lowest = min(counts.values(), default=0)
            if len(counts) < constraint.get("minDomains", 1):
                lowest = 0
            selector = self._spread_selector(constraint)
            itself = 1 if selects(selector, labels_of(self.pod)) else 0
            if counts.get(here, 0) + itself - lowest > constraint["maxSkew"]:
                return [Rejection("node(s) didn't match pod topology spread constraints", preemption_helps=True)]
        return []

    def _spread_selector(self, constraint: Mapping) -> dict:
        selector = dict(constraint.get("labelSelector") or {})
        mine = labels_of(self.pod)
        extra = {name: mine[name] for name in constraint.get("matchLabelKeys") or () if name in mine}
        return {**selector, "matchLabels": {**(selector.get("matchLabels") or {}), **extra}}

    def _domain_counts(self, constraint: Mapping) -> Counter[str]:
        """Count matching pods in each topology domain, over the nodes that the pod's affinity (and taints, if asked) allow."""
        selector = self._spread_selector(constraint)
        counts: Counter[str] = Counter()
        for state in self.nodes:
            domain = labels_of(state.node).get(constraint["topologyKey"])
            if domain is None:
                continue
            if constraint.get("nodeAffinityPolicy", "Honor") == "Honor" and not affinity_holds(self.pod, state.node):
                continue
            if constraint.get("nodeTaintsPolicy", "Ignore") == "Honor" and untolerated(self.pod, state.node, {"NoSchedule", "NoExecute"}):
                continue
            counts[domain] += sum(
                other["metadata"]["namespace"] == self.namespace and not deleting(other) and selects(selector, labels_of(other))
                for other in state.pods.values()
            )
        return counts

    def _pod_affinity(self, state: NodeState) -> list[Rejection]:
        affinity = self.pod["spec"].get("affinity") or {}
        required = "requiredDuringSchedulingIgnoredDuringExecution"
        for term in (affinity.get("podAffinity") or {}).get(required) or ():
            if not self._affinity_met(term, state):
                return [Rejection("node(s) didn't match pod affinity rules")]
        for term in (affinity.get("podAntiAffinity") or {}).get(required) or ():
            if any(self._term_selects(term, self.pod, other) for other in self._pods_in_domain(term["topologyKey"], state)):
                return [Rejection("node(s) didn't match pod anti-affinity rules", preemption_helps=True)]
        for other_state in self.nodes:
            for other in other_state.pods.values():
                terms = ((other["spec"].get("affinity") or {}).get("podAntiAffinity") or {}).get(required) or ()
                for term in terms:
                    domain = labels_of(other_state.node).get(term["topologyKey"])
                    same = domain is not None and labels_of(state.node).get(term["topologyKey"]) == domain
                    if same and self._term_selects(term, other, self.pod):
                        return [Rejection("node(s) didn't satisfy existing pods anti-affinity rules", preemption_helps=True)]
        return []

    def _affinity_met(self, term: Mapping, state: NodeState) -> bool:
        if labels_of(state.node).get(term["topologyKey"]) is None:
            return False
        if any(self._term_selects(term, self.pod, other) for other in self._pods_in_domain(term["topologyKey"], state)):
            return True
        # The first pod of a group that wants to be together may go anywhere.
        anywhere = any(self._term_selects(term, self.pod, other) for each in self.nodes for other in each.pods.values())
        return not anywhere and self._term_selects(term, self.pod, self.pod)

    def _pods_in_domain(self, topology_key: str, state: NodeState) -> Iterable[dict]:
        domain = labels_of(state.node).get(topology_key)
        if domain is None:
            return
        for each in self.nodes:
            if labels_of(each.node).get(topology_key) == domain:
                yield from (pod for pod in each.pods.values() if not pod_finished(pod))

    def _term_selects(self, term: Mapping, holder: dict, other: dict) -> bool:
        namespaces = set(term.get("namespaces") or ())
        namespace = other["metadata"]["namespace"]
        if term.get("namespaceSelector") is not None:
            if selects(term["namespaceSelector"], self.namespace_labels(namespace)):
                namespaces.add(namespace)
        elif not namespaces:
            namespaces.add(holder["metadata"]["namespace"])
        return namespace in namespaces and selects(term.get("labelSelector"), labels_of(other))

    # --- scores ----------------------------------------------------------------------------------------------------

    def _score(self, state: NodeState) -> tuple:
        """Return a node's score; the lowest wins.

        In order: soft taints, preferred node affinity, preferred pod (anti-)affinity and soft spreading, pods of the same
        owner, all pods.
        """
        affinity = self.pod["spec"].get("affinity") or {}
        preferred = "preferredDuringSchedulingIgnoredDuringExecution"
        node_weight = sum(
            item["weight"]
            for item in (affinity.get("nodeAffinity") or {}).get(preferred) or ()
            if term_matches(item["preference"], state.node)
        )
        pod_weight = 0
        for name, sign in (("podAffinity", 1), ("podAntiAffinity", -1)):
            for item in (affinity.get(name) or {}).get(preferred) or ():
                term = item["podAffinityTerm"]
                matching = sum(self._term_selects(term, self.pod, other) for other in self._pods_in_domain(term["topologyKey"], state))
                pod_weight += sign * item["weight"] * matching
        soft = 0
        for constraint in self.pod["spec"].get("topologySpreadConstraints") or ():
            if constraint.get("whenUnsatisfiable") == "ScheduleAnyway":
                soft += self._domain_counts(constraint).get(labels_of(state.node).get(constraint["topologyKey"], ""), 0)
        return (
            len(untolerated(self.pod, state.node, {"PreferNoSchedule"})),
            -node_weight,
            -pod_weight + soft,
            self._siblings(state),
            sum(not deleting(other) for other in state.pods.values()),
        )

    def _siblings(self, state: NodeState) -> int:
        owner = controller_of(self.pod)
        if owner is None:
            return 0
        return sum(
            (reference := controller_of(other)) is not None and reference["uid"] == owner["uid"] and not deleting(other)
            for other in state.pods.values()
        )


def explain(rejections: Mapping[str, list[Rejection]]) -> str:
    """Return kube-scheduler's message for a pod that fits nowhere.

    >>> explain({"a": [Rejection("node(s) had untolerated taint(s)")]})[:65]
    '0/1 nodes are available: 1 node(s) had untolerated taint(s). no n'
    """
    if not rejections:
        return "no nodes available to schedule pods"
    reasons = Counter(rejection.reason for found in rejections.values() for rejection in found)
    total = len(rejections)
    listed = ", ".join(sorted(f"{count} {reason}" for reason, count in reasons.items()))
    # Preemption looks at a node only if everything that keeps the pod off could be changed by removing others.
    helps = Counter(NO_VICTIMS if all(r.preemption_helps for r in found) else NOT_HELPFUL for found in rejections.values())
    preemption = ", ".join(sorted(f"{count} {reason}" for reason, count in helps.items()))
    return f"0/{total} nodes are available: {listed}. no new claims to deallocate, preemption: 0/{total} nodes are available: {preemption}."
