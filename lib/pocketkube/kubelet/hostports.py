"""hostPort: a port of the node that leads to a container of a pod on it (CNI's portmap plugin).

All of a node's host ports are in one nftables table, ``ip hostports``, that is replaced as a whole at each change.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class HostPort:
    """One mapping."""

    protocol: str  # tcp or udp
    address: str  # of the node, or "" for all of its addresses
    port: int
    pod_ip: str
    pod_port: int


def pod_host_ports(pod: dict, pod_ip: str) -> list[HostPort]:
    """The mappings that a pod asks for; none for hostNetwork, where the containers have the node's ports already."""
    if pod["spec"].get("hostNetwork"):
        return []
    result = []
    for container in pod["spec"]["containers"]:
        for port in container.get("ports") or []:
            if port.get("hostPort"):
                address = port.get("hostIP") or ""
                result.append(
                    HostPort(
                        port.get("protocol", "TCP").lower(),
                        "" if address == "0.0.0.0" else address,
                        port["hostPort"],
                        pod_ip,
                        port["containerPort"],
                    )
                )
    return result


class HostPorts:
    """The host ports of one node.

    Args:
        nft: applies a ruleset atomically in the node's network namespace.
    """

    def __init__(self, nft) -> None:
        self._nft = nft
        self._ports: dict[str, list[HostPort]] = {}

    async def set(self, uid: str, ports: list[HostPort]) -> None:
        """Sets (or with an empty list removes) the mappings of one pod."""
        if self._ports.get(uid, []) == ports:
            return
        if ports:
            self._ports[uid] = ports
        else:
            self._ports.pop(uid, None)
        rules = []
        for port in sorted(p for all_ports in self._ports.values() for p in all_ports):
            where = f"ip daddr {port.address}" if port.address else "fib daddr type local"
            rules.append(f"    {where} {port.protocol} dport {port.port} dnat to {port.pod_ip}:{port.pod_port}")
        body = "\n".join(rules)
        await self._nft(
            "add table ip hostports\ndelete table ip hostports\n"
            "table ip hostports {\n"
            f"  chain ports {{\n{body}\n  }}\n"
            "  chain prerouting {\n    type nat hook prerouting priority dstnat; policy accept;\n    jump ports\n  }\n"
            "  chain output {\n    type nat hook output priority -100; policy accept;\n    jump ports\n  }\n"
            "}\n"
        )
