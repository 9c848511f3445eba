"""Count packets on the nodes' cables by the address that they carry, with counters in the kernel (nftables).

The counters stand in a table of their own, after kube-proxy's translation, and only count: no packet is changed or dropped.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from servicelab.errors import ClusterError


class Wire:
    """What the counters of `watch` have counted; filled when the block ends."""

    def __init__(self) -> None:
        self.packets: dict[str, dict[str, int]] = {}

    def total(self, name: str) -> int:
        """Packets that left all nodes together.

        Args:
            name: the name that the address was given in `watch`.
        """
        return sum(self.packets[name].values())


@contextmanager
def watch(lab, **addresses: str | list[str]) -> Iterator[Wire]:
    """Count, while the block runs, the packets that leave the nodes by a card for given addresses.

    "By a card" means: to another machine. A packet between two pods of one node never leaves it and isn't counted.

    Args:
        lab: what `connect()` gave; its nodes must be enterable (`lab.nodes_allowed`).
        addresses: a name for each address, or list of addresses, to count.

    Yields:
        Wire: has numbers (packets, by name and by node) once the block has ended.

    Example:
        with watch(lab, service=lab.service("my-nginx").ip) as wire:
            lab.run_in_pod("curl", "curl -s http://my-nginx")
        wire.total("service")
    """
    # Several learners may count on the same nodes at once: each has a table of their own.
    table = f"lab_{secrets.token_hex(4)}"
    counters = "\n".join(f"counter {name} {{ }}" for name in addresses)
    rules = "\n".join(f"ip daddr {{ {', '.join(_listed(value))} }} counter name {name}" for name, value in addresses.items())
    # After source NAT (priority 100), so what is counted is what the cable carries. Nodes' cards are eth*, pods' cables are not.
    hook = 'type filter hook postrouting priority 200; policy accept; oifname "eth*" jump count'
    ruleset = f"table ip {table} {{\n{counters}\nchain count {{\n{rules}\n}}\nchain out {{\n{hook}\n}}\n}}"
    wire = Wire()
    try:
        for node in lab.nodes:
            said = node.run(f"nft -f - <<'END'\n{ruleset}\nEND")
            if said.strip():
                raise ClusterError(f"the packet counters can't be put on {node.name}: {said.strip()}")
        yield wire
        for name in addresses:
            wire.packets[name] = {node.name: _packets(node, table, name) for node in lab.nodes}
    finally:
        for node in lab.nodes:
            node.run(f"nft delete table ip {table} 2>/dev/null || true")


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def _packets(node, table: str, name: str) -> int:
    text = node.run(f"nft list counter ip {table} {name}")
    found = re.search(r"packets (\d+)", text)
    if found is None:
        raise ClusterError(f"there is no packet counter {name} on {node.name}: {text.strip()}")
    return int(found.group(1))
