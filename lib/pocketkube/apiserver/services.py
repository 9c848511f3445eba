"""Addresses and ports for Services: cluster IPs from the service range, node ports from theirs.

The allocations are the Services themselves: nothing else is kept, so nothing can leak or disagree with them.
"""

from __future__ import annotations

import ipaddress
import random
from typing import Any

from . import errors
from .errors import FieldError, invalid
from .resources import BY_PLURAL

SERVICE = BY_PLURAL["services"]


def _band(size: int, step: int, largest: int) -> int:
    """How many of a range's first values are left to those who choose theirs; none of a small range."""
    return min(max(16, size // step), largest) if size > 32 else 0


class Allocator:
    """Gives Services their cluster IPs and node ports.

    Args:
        services: the live table of Services.
        service_cidr: the range of cluster IPs.
        node_port_range: the first and last node port.
    """

    def __init__(self, services: dict[Any, dict[str, Any]], service_cidr: str, node_port_range: tuple[int, int]):
        self._services = services
        self.network = ipaddress.ip_network(service_cidr)
        self.first_port, self.last_port = node_port_range
        # As KEP-3070 divides the range: the lower band is left to those who choose their address themselves.
        self._band = _band(self.network.num_addresses, 16, 256)

    def used_ips(self) -> set[str]:
        """Cluster IPs in use."""
        return {ip for service in self._services.values() for ip in service["spec"].get("clusterIPs") or [] if ip != "None"}

    def used_ports(self) -> set[tuple[str, int]]:
        """Node ports in use, each with its protocol; a LoadBalancer's health check port counts too."""
        ports = {
            (port.get("protocol", "TCP"), port["nodePort"])
            for service in self._services.values() for port in service["spec"].get("ports") or [] if port.get("nodePort")
        }
        ports |= {("TCP", service["spec"]["healthCheckNodePort"]) for service in self._services.values()
                  if service["spec"].get("healthCheckNodePort")}
        return ports

    def prepare(self, service: dict[str, Any], old: dict[str, Any] | None = None) -> None:
        """Bring the fields that belong together into line, before validation, without allocating anything."""
        spec = service["spec"]
        before = old["spec"] if old else {}
        if spec["type"] == "ExternalName":
            if before and before["type"] != "ExternalName":
                # A change of type lets go of the addresses, unless the client insists on another.
                if spec.get("clusterIP") == before.get("clusterIP"):
                    spec.pop("clusterIP", None)
                    spec.pop("clusterIPs", None)
                for key in ("ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy", "externalTrafficPolicy",
                            "allocateLoadBalancerNodePorts"):
                    spec.pop(key, None)
                for port in spec.get("ports") or []:
                    port.pop("nodePort", None)
            return
        if before and before["type"] != "ExternalName":
            if not spec.get("clusterIP"):
                spec["clusterIP"] = before.get("clusterIP", "")
                spec["clusterIPs"] = list(before.get("clusterIPs") or [])
            elif spec["clusterIP"] != before.get("clusterIP") and spec.get("clusterIPs") == before.get("clusterIPs"):
                spec["clusterIPs"] = [spec["clusterIP"]]
            for key in ("ipFamilies", "ipFamilyPolicy"):
                if not spec.get(key) and before.get(key):
                    spec[key] = before[key]
            self._keep_ports(spec, before)
        if spec.get("clusterIPs") and not spec.get("clusterIP"):
            spec["clusterIP"] = spec["clusterIPs"][0]
        elif spec.get("clusterIP") and not spec.get("clusterIPs"):
            spec["clusterIPs"] = [spec["clusterIP"]]

    @staticmethod
    def _keep_ports(spec: dict[str, Any], before: dict[str, Any]) -> None:
        if spec["type"] in ("NodePort", "LoadBalancer"):
            had = {(port["protocol"], port["port"]): port.get("nodePort") for port in before.get("ports") or []}
            taken = {port.get("nodePort") for port in spec.get("ports") or []}
            for port in spec.get("ports") or []:
                previous = had.get((port["protocol"], port["port"]))
                if not port.get("nodePort") and previous and previous not in taken:
                    port["nodePort"] = previous
        elif before.get("type") in ("NodePort", "LoadBalancer"):
            had_ports = {port.get("nodePort") for port in before.get("ports") or []}
            for port in spec.get("ports") or []:
                if port.get("nodePort") in had_ports:
                    port.pop("nodePort", None)

    def allocate(self, service: dict[str, Any], old: dict[str, Any] | None = None) -> None:
        """Give the Service what it lacks, in place.

        Raises:
            ApiError: a chosen address or port is taken or out of range, or none is left.
        """
        spec = service["spec"]
        if spec["type"] == "ExternalName":
            spec.pop("clusterIPs", None)
            return
        before = old["spec"] if old else {}
        if spec.get("ipFamilyPolicy") == "RequireDualStack" or (spec.get("ipFamilies") or ["IPv4"])[0] != "IPv4":
            message = "this cluster is not configured for dual-stack services" if spec.get("ipFamilyPolicy") == "RequireDualStack" \
                else "not configured on this cluster"
            where = "spec.ipFamilyPolicy" if spec.get("ipFamilyPolicy") == "RequireDualStack" else "spec.ipFamilies[0]"
            value = spec.get("ipFamilyPolicy") if where.endswith("Policy") else spec["ipFamilies"][0]
            raise self._refuse(service, [invalid(where, value, message)])
        self._ips(service, spec, before)
        spec.setdefault("ipFamilies", ["IPv4"])
        spec.setdefault("ipFamilyPolicy", "SingleStack")
        self._ports(service, spec, before)

    def _ips(self, service: dict[str, Any], spec: dict[str, Any], before: dict[str, Any]) -> None:
        chosen = spec.get("clusterIP")
        if chosen == "None" or (chosen and chosen == before.get("clusterIP")):
            return
        used = self.used_ips()
        if not chosen:
            chosen = self._free_ip(used)
            if chosen is None:
                raise errors.internal(f"failed to allocate a serviceIP: range is full ({self.network})")
            spec["clusterIP"], spec["clusterIPs"] = chosen, [chosen]
            return
        try:
            address = ipaddress.ip_address(chosen)
        except ValueError:
            message = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
            raise self._refuse(service, [invalid("spec.clusterIPs[0]", chosen, message)]) from None
        if address not in self.network or address in (self.network.network_address, self.network.broadcast_address):
            why = f"failed to allocate IP {chosen}: the provided network does not match the current range"
            raise self._refuse(service, [invalid("spec.clusterIPs", [chosen], why)])
        if chosen in used:
            raise self._refuse(service, [invalid("spec.clusterIPs", [chosen],
                                                 f"failed to allocate IP {chosen}: provided IP is already allocated")])

    def _free_ip(self, used: set[str]) -> str | None:
        base, last = int(self.network.network_address), self.network.num_addresses - 1
        low, high = self._band + 1, last - 1
        for _ in range(64):
            candidate = str(ipaddress.ip_address(base + random.randint(low, high)))
            if candidate not in used:
                return candidate
        for offset in (*range(low, high + 1), *range(1, low)):
            candidate = str(ipaddress.ip_address(base + offset))
            if candidate not in used:
                return candidate
        return None

    def _ports(self, service: dict[str, Any], spec: dict[str, Any], before: dict[str, Any]) -> None:
        kind = spec["type"]
        if kind not in ("NodePort", "LoadBalancer"):
            spec.pop("healthCheckNodePort", None)
            spec.pop("allocateLoadBalancerNodePorts", None)
            return
        own = {(port.get("protocol"), port["nodePort"]) for port in before.get("ports") or [] if port.get("nodePort")}
        used = self.used_ports() - own
        found: list[FieldError] = []
        wants = kind == "NodePort" or spec.get("allocateLoadBalancerNodePorts", True)
        for index, port in enumerate(spec.get("ports") or []):
            number = port.get("nodePort")
            if not number:
                continue
            if not self.first_port <= number <= self.last_port and (port["protocol"], number) not in own:
                why = f"provided port is not in the valid range. The range of valid ports is {self.first_port}-{self.last_port}"
                found.append(invalid(f"spec.ports[{index}].nodePort", number, why))
            elif (port["protocol"], number) in used:
                found.append(invalid(f"spec.ports[{index}].nodePort", number, "provided port is already allocated"))
            used.add((port["protocol"], number))
        if found:
            raise self._refuse(service, found)
        for port in spec.get("ports") or []:
            if not port.get("nodePort") and wants:
                # One number for a port that is served over several protocols, as real Kubernetes prefers.
                twin = next((other["nodePort"] for other in spec["ports"]
                             if other.get("nodePort") and other["port"] == port["port"] and other is not port), None)
                port["nodePort"] = twin if twin and (port["protocol"], twin) not in used else self._free_port(port["protocol"], used)
                used.add((port["protocol"], port["nodePort"]))
        if kind == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local":
            if not spec.get("healthCheckNodePort"):
                spec["healthCheckNodePort"] = before.get("healthCheckNodePort") or self._free_port("TCP", used)
        else:
            spec.pop("healthCheckNodePort", None)

    def _free_port(self, protocol: str, used: set[tuple[str, int]]) -> int:
        # The lowest ports are left to those who choose theirs (KEP-3668).
        low = self.first_port + _band(self.last_port - self.first_port + 1, 32, 128)
        for _ in range(64):
            candidate = random.randint(low, self.last_port)
            if (protocol, candidate) not in used:
                return candidate
        for candidate in (*range(low, self.last_port + 1), *range(self.first_port, low)):
            if (protocol, candidate) not in used:
                return candidate
        raise errors.internal("failed to allocate a nodePort: range is full")

    @staticmethod
    def _refuse(service: dict[str, Any], found: list[FieldError]) -> errors.ApiError:
        return errors.invalid_object("Service", "", service["metadata"].get("name", ""), found)
