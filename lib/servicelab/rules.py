"""Read what a node's kernel was told about a Service: the rules of kube-proxy in nftables, and the connections it tracks.

The names are those of kube-proxy's nftables mode (KEP 3866): the map ``service-ips`` leads from address, protocol and port to a chain
``service-…``, which picks one of the chains ``endpoint-…``, which writes the pod's address over the packet's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Rules:
    """What one node does with packets to one Service port.

    Attributes:
        lookup: The element of the map that matches, as ``nft`` prints it; empty when the address is in no map.
        choice: The rule that picks an endpoint, as ``nft`` prints it, cut of what doesn't matter here.
        rewrites: ``(address:port, rule)`` for each endpoint it may pick.
        refused: Whether the map of Services without endpoints has it: the kernel refuses the packet at once.
    """

    lookup: str
    choice: str
    rewrites: tuple[tuple[str, str], ...]
    refused: bool

    @property
    def targets(self) -> tuple[str, ...]:
        """The addresses that may be picked, as ``address:port``, in order."""
        return tuple(sorted({target for target, _ in self.rewrites}))


def rules_for(ruleset: str, ip: str, port: int, protocol: str = "tcp") -> Rules:
    """The rules for one Service port, out of what ``nft list table ip kube-proxy`` printed.

    Example:
        >>> rules_for("", "10.96.0.1", 443).lookup
        ''
    """
    element = rf"{re.escape(ip)} \. {protocol} \. {port}"
    wanted = element + r"""(?: comment "[^"]*")? : (\w+ [^\s,}]+)"""
    refused = re.search(wanted, _block(ruleset, "map", "no-endpoint-services")) is not None
    found = re.search(wanted, _block(ruleset, "map", "service-ips"))
    if found is None:
        return Rules("", "", (), refused)
    chain = found[1].split()[-1].strip('"')
    choice, rewrites = _follow(ruleset, chain, set())
    return Rules(found[0].replace('"', ""), choice, tuple(sorted(rewrites)), refused)


def _follow(ruleset: str, chain: str, seen: set[str]) -> tuple[str, list[tuple[str, str]]]:
    """The choosing rule and the rewriting rules that a chain leads to, through whatever chains lie between."""
    if chain in seen:
        return "", []
    seen.add(chain)
    choice, rewrites = "", []
    for line in _block(ruleset, "chain", chain).splitlines():
        rule = line.strip()
        if target := re.search(r"dnat (?:ip )?to ([\d.]+:\d+)", rule):
            rewrites.append((target[1], rule))
            continue
        onward = [name.strip('"') for name in re.findall(r"(?:goto|jump) ([^\s,}]+)", rule) if "mark-for" not in name]
        if onward and "numgen" in rule:
            choice = re.sub(r"endpoint-\w+-\S*?__([\d.]+)/(\d+)", r"endpoint-…__\1/\2", rule)
        for name in onward:
            deeper_choice, deeper = _follow(ruleset, name, seen)
            choice, rewrites = choice or deeper_choice, rewrites + deeper
    return choice, rewrites


def _block(ruleset: str, kind: str, name: str) -> str:
    """The body of a map or chain of the listing; empty when it isn't there."""
    found = re.search(rf'^\s*{kind} "?{re.escape(name)}"? \{{(?: #[^\n]*)?\n(.*?)^\t\}}', ruleset, re.DOTALL | re.MULTILINE)
    return found[1] if found else ""


@dataclass(frozen=True)
class Tracked:
    """One connection in the kernel's table: what the client sent, and the answer that the kernel expects.

    Attributes:
        client: Whence the client sends, ``address:port``.
        dialled: The address it was sent to.
        answered_by: Whence the answer comes: the address after translation.
        answered_to: Where the answer goes: the client, or a node that stands in for it.
        line: The entry as the kernel has it.
    """

    client: str
    dialled: str
    answered_by: str
    answered_to: str
    line: str


def tracked(table: str, client: str) -> Tracked | None:
    """The connection of a client (``address:port``) in what ``conntrack -L`` or ``/proc/net/nf_conntrack`` printed."""
    for line in table.splitlines():
        ends = re.findall(r"src=(\S+) dst=(\S+) sport=(\d+) dport=(\d+)", line)
        if len(ends) == 2 and f"{ends[0][0]}:{ends[0][2]}" == client:
            (source, target, source_port, target_port), (by, to, by_port, to_port) = ends
            return Tracked(
                f"{source}:{source_port}", f"{target}:{target_port}", f"{by}:{by_port}", f"{to}:{to_port}", " ".join(line.split())
            )
    return None
