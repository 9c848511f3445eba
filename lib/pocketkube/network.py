"""The machines and cables of the cluster: network namespaces, veth pairs, addresses and routes.

::

    outside  172.18.0.1 (the bridge br0; this process lives here)
       │
       ├── node servicelab-control-plane  eth0 172.18.0.2   pods 10.244.0.0/24
       ├── node servicelab-worker         eth0 172.18.0.3   pods 10.244.1.0/24
       └── node servicelab-worker2        eth0 172.18.0.4   pods 10.244.2.0/24
                └── veth… ── eth0 of a pod, 10.244.2.2

It is the network that kind's default plugin builds: a point-to-point veth pair for each pod, its node as the pod's
gateway, and on every node one route for each other node's pods. So a packet between two pods is routed,
never translated, which is what the Kubernetes network model asks for
(https://kubernetes.io/docs/concepts/services-networking/#the-kubernetes-network-model).

Two things differ from kind, both to keep the lab to itself: ``outside`` has no way to the real world, and a pod
that asks for an address that is neither a pod nor a node is told "unreachable" by its own node, at once.

Netlink work happens in one thread of its own, because a thread can change its network namespace without
disturbing the others.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import ipaddress
import os
import shutil
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from pocketkube import namespaces

NETNS = Path("/run/netns")
UTSNS = Path("/run/utsns")
GATEWAY = "172.18.0.1"
NODE_SUBNET = ipaddress.ip_network("172.18.0.0/16")
POD_SUBNET = ipaddress.ip_network("10.244.0.0/16")
SERVICE_SUBNET = ipaddress.ip_network("10.96.0.0/16")
BRIDGE = "br0"
IFA_F_NOPREFIXROUTE = 0x200  # linux/if_addr.h: no route to the whole pod CIDR on the cable; all goes through the gateway
BOOT = 3  # linux/rtnetlink.h RTPROT_BOOT: what `ip route add` sets
ISOLATION_TABLE = 100  # number of the routing table that pods' packets are looked up in, after "local"
PROGRAM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ROUTER_SYSCTLS = {
    "net/ipv4/ip_forward": "1",
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/default/rp_filter": "0",
    # A pod that reaches itself through its Service goes out and in by the same cable: no redirects for that.
    "net/ipv4/conf/all/send_redirects": "0",
    "net/ipv4/conf/default/send_redirects": "0",
    # The pods' addresses need no duplicate detection or router discovery; IPv6 is not part of this lab.
    "net/ipv6/conf/all/disable_ipv6": "1",
    "net/ipv6/conf/default/disable_ipv6": "1",
}


class NetworkError(Exception):
    """The network could not be built or changed; the text says which part and why."""


class NftError(NetworkError):
    """``nft`` refused a ruleset; nothing of it was applied. The text is nft's own."""


class NoFreeAddress(NetworkError):
    """Every address of a node's pod CIDR is taken."""


@dataclass
class PodNetwork:
    """A pod's place in the network.

    Attributes:
        uid: the pod's UID.
        ip: its address.
        netns: path of its network namespace.
        veth: name of the cable's end on the node.
    """

    uid: str
    ip: str
    netns: str
    veth: str


async def run_program(argv, *, input: bytes | None = None, timeout: float = 30, env: dict | None = None) -> tuple[int, bytes, bytes]:
    """Run a program to its end.

    Returns:
        Exit status (128 + signal if killed by one), standard output, standard error.

    Raises:
        asyncio.TimeoutError: it took longer than ``timeout`` seconds; it was killed.
    """
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.PIPE if input is not None else asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=env or {"PATH": PROGRAM_PATH, "HOME": "/", "LANG": "C.UTF-8"},
        cwd="/",
        start_new_session=True,
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(input), timeout)
    except (asyncio.TimeoutError, asyncio.CancelledError):
        # The whole session: `sh -c 'sleep 1000'` must not outlive its caller.
        try:
            os.killpg(process.pid, 9)
        except ProcessLookupError:
            pass
        await process.wait()
        raise
    status = process.returncode
    return (status if status >= 0 else 128 - status), out, err


class NodeNetwork:
    """One node: its namespaces, its address, the pods on it.

    Attributes:
        name: the node's name, also the hostname of programs run on it.
        ip: its InternalIP.
        pod_cidr: the pods' addresses, e.g. ``10.244.1.0/24``.
        netns: path of its network namespace.
        pods: by pod UID.
    """

    def __init__(self, network: Network, name: str, ip: str, pod_cidr: str):
        self._network = network
        self.name = name
        self.ip = ip
        self.pod_cidr = pod_cidr
        self.netns = str(NETNS / name)
        self.utsns = str(UTSNS / name)
        self.pods: dict[str, PodNetwork] = {}
        hosts = list(ipaddress.ip_network(pod_cidr).hosts())
        self.gateway = str(hosts[0])
        self._addresses = [str(address) for address in hosts[1:]]
        self._next = 0
        self._taken: set[str] = set()
        self._ipr = None  # an rtnetlink socket in this node's namespace, used by the network thread only
        self._nft: _Nft | None = None

    async def add_pod(self, uid: str) -> PodNetwork:
        """Give a pod a namespace with ``lo`` and ``eth0`` up, an address, and a route to everything in the lab.

        Asking again for the same UID gives the same answer.

        Raises:
            NoFreeAddress: the node's CIDR is used up.
            NetworkError: the kernel refused; nothing is left behind.
        """
        if uid in self.pods:
            return self.pods[uid]
        ip = self._take_address()
        pod = PodNetwork(uid, ip, str(NETNS / f"pod-{uid}"), f"veth{_short(uid)}")
        self.pods[uid] = pod
        try:
            await self._network.in_thread(self._add_pod, pod)
        except BaseException as error:
            self.pods.pop(uid, None)
            self._taken.discard(ip)
            if isinstance(error, Exception):
                raise NetworkError(f"no network for pod {uid} on node {self.name}: {error}") from error
            raise
        return pod

    async def remove_pod(self, uid: str) -> None:
        """Take a pod's cable, route, address and namespace away. A UID that isn't here is no error."""
        pod = self.pods.pop(uid, None)
        if pod is None:
            return
        await self._network.in_thread(self._remove_pod, pod)
        self._taken.discard(pod.ip)

    async def run(self, argv, *, input: bytes | None = None, timeout: float = 30) -> tuple[int, bytes, bytes]:
        """Run a program on this node: in its network namespace, under its hostname.

        Returns:
            Exit status, standard output, standard error.
        """
        return await run_program([*self.enter(), *argv], input=input, timeout=timeout)

    def enter(self) -> list[str]:
        """The command prefix that moves a program onto this node."""
        return ["nsenter", f"--net={self.netns}", f"--uts={self.utsns}", "--"]

    async def nft(self, ruleset: str) -> None:
        """Apply a ruleset to this node in one transaction: all of it or, on an error, nothing.

        Raises:
            NftError: with nft's own words.
        """
        if self._nft is not None:
            await self._network.in_nft_thread(self._nft.apply, ruleset)
            return
        status, _, err = await self.run(["nft", "-f", "-"], input=ruleset.encode())
        if status != 0:
            raise NftError(f"nft on {self.name}: {err.decode(errors='replace').strip()}")

    def socket(self, family: int, kind: int) -> socket.socket:
        """A socket that belongs to this node's network."""
        return socket_in(self.netns, family, kind)

    def _take_address(self) -> str:
        # Onwards from the last one given, like the host-local plugin: an address is not given again right after its
        # pod died, so that nobody's stale connection meets a stranger.
        for step in range(len(self._addresses)):
            address = self._addresses[(self._next + step) % len(self._addresses)]
            if address not in self._taken:
                self._next = (self._next + step + 1) % len(self._addresses)
                self._taken.add(address)
                return address
        raise NoFreeAddress(f"node {self.name} has no free address left in {self.pod_cidr} ({len(self._taken)} pods)")

    # -- below: in the network thread ---------------------------------------------------------------------

    def _add_pod(self, pod: PodNetwork) -> None:
        from pyroute2.iproute.linux import IPRoute

        node = self._ipr
        namespaces.create(pod.netns, prepare=lambda: _sysctl("net/ipv6/conf/default/disable_ipv6", "1"))
        try:
            fd = os.open(pod.netns, os.O_RDONLY | os.O_CLOEXEC)
            try:
                node.link("add", ifname=pod.veth, kind="veth", peer={"ifname": "eth0", "net_ns_fd": fd})
            finally:
                os.close(fd)
            index = socket_index(self.netns, pod.veth)
            node.link("set", index=index, state="up")
            node.addr("add", index=index, address=self.gateway, prefixlen=32)
            with namespaces.entered(pod.netns), IPRoute() as inside:
                eth0 = socket.if_nametoindex("eth0")
                inside.link("set", index=1, state="up")
                inside.link("set", index=eth0, state="up")
                inside.addr("add", index=eth0, address=pod.ip, prefixlen=24, IFA_FLAGS=IFA_F_NOPREFIXROUTE)
                inside.route("add", proto=BOOT, dst=f"{self.gateway}/32", oif=eth0, scope=253)
                inside.route("add", proto=BOOT, dst=self.pod_cidr, gateway=self.gateway, oif=eth0, prefsrc=pod.ip)
                inside.route("add", proto=BOOT, dst="default", gateway=self.gateway, oif=eth0)
            node.route("add", proto=BOOT, dst=f"{pod.ip}/32", oif=index, scope=253)
        except BaseException:
            self._remove_pod(pod)
            raise

    def _remove_pod(self, pod: PodNetwork) -> None:
        # The route first, so that the address is free at once. The cable goes with the namespace: the kernel takes
        # both down when the namespace's last process and socket are gone, many in one sweep. Deleting the link
        # here would hold the kernel's network lock for some 30 ms for each pod.
        try:
            self._ipr.route("del", dst=f"{pod.ip}/32", scope=253)
        except self._network.netlink_error as error:
            if error.code not in (errno.ESRCH, errno.ENOENT):  # it wasn't there: add_pod failed half-way
                raise
        namespaces.remove(pod.netns)

    def _start(self) -> None:
        from pyroute2.iproute.linux import IPRoute

        def settings() -> None:
            for key, value in _ROUTER_SYSCTLS.items():
                _sysctl(key, value)

        namespaces.create(self.utsns, namespaces.CLONE_NEWUTS, prepare=lambda: namespaces.sethostname(self.name))
        namespaces.create(self.netns, prepare=settings)
        outside = self._network._ipr
        port = f"node{self.ip.rpartition('.')[2]}"
        fd = os.open(self.netns, os.O_RDONLY | os.O_CLOEXEC)
        try:
            outside.link("add", ifname=port, kind="veth", peer={"ifname": "eth0", "net_ns_fd": fd})
        finally:
            os.close(fd)
        index = socket.if_nametoindex(port)
        outside.link("set", index=index, master=socket.if_nametoindex(BRIDGE), state="up")
        with namespaces.entered(self.netns):
            self._ipr = IPRoute()
            eth0 = socket.if_nametoindex("eth0")
            self._nft = _Nft.here(self.name)
        node = self._ipr
        node.link("set", index=1, state="up")
        node.link("set", index=eth0, state="up")
        node.addr("add", index=eth0, address=self.ip, prefixlen=NODE_SUBNET.prefixlen, broadcast=str(NODE_SUBNET.broadcast_address))
        node.route("add", proto=BOOT, dst="default", gateway=GATEWAY, oif=eth0)
        # What comes from this node's pods may go to pods and nodes; for anything else the node answers at once.
        # Cluster IPs get as far as the filter rules, since kube-proxy's refusal of those without endpoints is in them.
        for subnet in (POD_SUBNET, NODE_SUBNET, SERVICE_SUBNET):
            node.route("add", proto=BOOT, dst=str(subnet), type="throw", table=ISOLATION_TABLE)
        node.route("add", proto=BOOT, family=socket.AF_INET, dst="default", type="unreachable", table=ISOLATION_TABLE)
        node.rule("add", src=self.pod_cidr, table=ISOLATION_TABLE, priority=ISOLATION_TABLE)

    def _route_to(self, other: NodeNetwork) -> None:
        with namespaces.entered(self.netns):
            eth0 = socket.if_nametoindex("eth0")
        self._ipr.route("add", proto=BOOT, dst=other.pod_cidr, gateway=other.ip, oif=eth0)

    def _close(self) -> None:
        for uid in list(self.pods):
            namespaces.remove(self.pods.pop(uid).netns)
        if self._nft is not None:
            self._nft.close()
        if self._ipr is not None:
            self._ipr.close()
        namespaces.remove(self.netns)
        namespaces.remove(self.utsns)


@dataclass
class Network:
    """All nodes, and the place outside of them.

    The calling process must be in namespaces of its own (network and mount; see :mod:`pocketkube.__main__`): its network
    becomes "outside".

    Attributes:
        nodes: by node name.
        gateway: the address of "outside" on the nodes' network.
    """

    nodes: dict[str, NodeNetwork] = field(default_factory=dict)
    gateway: str = GATEWAY

    def __post_init__(self):
        # One thread for namespaces and netlink (it changes its own namespace), one for nft (slower, and it needn't).
        self._thread = ThreadPoolExecutor(1, "network")
        self._nft_thread = ThreadPoolExecutor(1, "nft")
        self._ipr = None
        self.netlink_error: type[Exception] = OSError  # pyroute2 is imported in the thread, beside other imports

    def add_node(self, name: str, ip: str, pod_cidr: str) -> NodeNetwork:
        """Declare a node, before :meth:`start`."""
        node = self.nodes[name] = NodeNetwork(self, name, ip, pod_cidr)
        return node

    async def start(self) -> None:
        """Build the bridge and every node declared, with routes from each to each.

        Raises:
            NetworkError: what is missing, e.g. the privilege to make namespaces.
        """
        for program in ("nsenter", "nft"):
            if shutil.which(program, path=PROGRAM_PATH) is None:
                raise NetworkError(f"the program {program} is not installed: install util-linux (nsenter) and nftables (nft)")
        try:
            await self.in_thread(self._start)
        except Exception as error:  # OSError, or pyroute2's NetlinkError, which isn't one
            raise NetworkError(f"cannot build the cluster's network: {error}") from error

    async def stop(self) -> None:
        """Take everything down again."""
        await self.in_thread(self._close)
        self._thread.shutdown()
        self._nft_thread.shutdown()

    async def run_outside(self, argv, *, input: bytes | None = None, timeout: float = 30) -> tuple[int, bytes, bytes]:
        """Run a program outside the cluster, on its network (as 172.18.0.1). See :func:`run_program`."""
        return await run_program(list(argv), input=input, timeout=timeout)

    async def in_thread(self, function, *args):
        """Call ``function`` in the network thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *args)

    async def in_nft_thread(self, function, *args):
        """Call ``function`` in the nft thread."""
        return await asyncio.get_running_loop().run_in_executor(self._nft_thread, function, *args)

    def _start(self) -> None:
        from pyroute2.iproute.linux import IPRoute
        from pyroute2.netlink.exceptions import NetlinkError

        self.netlink_error = NetlinkError
        for directory in (NETNS, UTSNS):
            directory.mkdir(parents=True, exist_ok=True)
        for key, value in _ROUTER_SYSCTLS.items():
            _sysctl(key, value)
        self._ipr = outside = IPRoute()
        outside.link("set", index=1, state="up")
        outside.link("add", ifname=BRIDGE, kind="bridge", br_forward_delay=0, br_stp_state=0)
        bridge = socket.if_nametoindex(BRIDGE)
        outside.link("set", index=bridge, state="up")
        outside.addr("add", index=bridge, address=GATEWAY, prefixlen=NODE_SUBNET.prefixlen, broadcast=str(NODE_SUBNET.broadcast_address))
        for node in self.nodes.values():
            node._start()
        for node in self.nodes.values():
            for other in self.nodes.values():
                if other is not node:
                    node._route_to(other)

    def _close(self) -> None:
        for node in self.nodes.values():
            node._close()
        if self._ipr is not None:
            bridge = socket.if_nametoindex(BRIDGE)
            self._ipr.link("del", index=bridge)
            self._ipr.close()


class _Nft:
    """libnftables, the library behind the ``nft`` program, bound to one network namespace.

    A ruleset costs about a millisecond instead of the start of a process. Where the library can't be loaded, the
    program is used.
    """

    def __init__(self, library: ctypes.CDLL, node: str):
        self._library = library
        self._node = node
        # Flags 0: it opens its netlink socket now, in the namespace that the calling thread is in.
        self._context = library.nft_ctx_new(0)
        if not self._context:
            raise NftError(f"libnftables gave no context on node {node}")
        library.nft_ctx_buffer_output(self._context)
        library.nft_ctx_buffer_error(self._context)

    @classmethod
    def here(cls, node: str) -> _Nft | None:
        """For the network namespace of the calling thread; ``None`` without the library."""
        try:
            library = ctypes.CDLL("libnftables.so.1")
        except OSError:
            return None
        library.nft_ctx_new.restype = ctypes.c_void_p
        library.nft_ctx_new.argtypes = [ctypes.c_uint32]
        library.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
        for name in ("nft_ctx_buffer_output", "nft_ctx_buffer_error", "nft_ctx_free"):
            getattr(library, name).argtypes = [ctypes.c_void_p]
        for name in ("nft_ctx_get_error_buffer", "nft_ctx_get_output_buffer"):
            getattr(library, name).argtypes = [ctypes.c_void_p]
            getattr(library, name).restype = ctypes.c_char_p
        return cls(library, node)

    def apply(self, ruleset: str) -> None:
        status = self._library.nft_run_cmd_from_buffer(self._context, ruleset.encode())
        words = self._library.nft_ctx_get_error_buffer(self._context) or b""
        self._library.nft_ctx_get_output_buffer(self._context)  # reading empties it
        if status != 0:
            raise NftError(f"nft on {self._node}: {words.decode(errors='replace').strip()}")

    def close(self) -> None:
        self._library.nft_ctx_free(self._context)


def socket_in(netns: str, family: int, kind: int) -> socket.socket:
    """A socket that belongs to the network namespace at path ``netns``, whatever thread uses it later."""
    with namespaces.entered(netns):
        return socket.socket(family, kind | socket.SOCK_CLOEXEC)


def socket_index(netns: str, ifname: str) -> int:
    """The index of interface ``ifname`` in the namespace at path ``netns``."""
    with namespaces.entered(netns):
        return socket.if_nametoindex(ifname)


def _short(uid: str) -> str:
    """Eleven characters that name a cable: interface names have fifteen at most, and "veth" is four of them."""
    return uid.replace("-", "")[:11]


def _sysctl(key: str, value: str) -> None:
    """Set a sysctl of the calling thread's network namespace."""
    path = f"/proc/sys/{key}"
    if key.startswith("net/ipv6/") and not os.path.exists(path):
        return  # a kernel without IPv6 needs no telling
    with open(path, "w") as file:
        file.write(value)
