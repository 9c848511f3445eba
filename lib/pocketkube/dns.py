"""The cluster's DNS server: Services and their endpoints as DNS records.

Records as in the Kubernetes DNS-Based Service Discovery specification 1.1.0
(https://github.com/kubernetes/dns/blob/master/docs/specification.md); where the specification leaves freedom (TTLs, the name of
an endpoint without hostname, the authority section), as CoreDNS answers in a kind cluster.

The server runs inside the cluster's process, and its sockets are opened in the network namespaces of the
``coredns`` pods of kube-system: packets take the whole way (a pod's resolv.conf, the Service kube-dns, the node's
rules, a pod's address), but each pod costs two sockets instead of some 30 MB of a second Python, and answers come
from the same caches that the controllers use, without any delay. A pod that isn't running has no socket, so a
deleted one stops to answer at once, as it should.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import random
import socket
import struct
import time

from dnslib import AAAA, CLASS, CNAME, NS, PTR, QTYPE, RCODE, RR, SOA, SRV, A, DNSError, DNSHeader, DNSLabel, DNSRecord

from pocketkube.network import socket_in

log = logging.getLogger(__name__)

ZONE = "cluster.local"
TTL = 30
PLAIN_UDP = 512  # bytes of an answer over UDP when the client says nothing (RFC 1035)
MOST_UDP = 1232  # … and at most, when it does (RFC 9715): never fragmented
IDLE_TCP = 10  # seconds before a silent TCP connection is closed
CNAME_DEPTH = 8


class DnsServer:
    """Answers queries from the API's caches, on any number of sockets.

    Args:
        api: the in-process API.

    Example::

        server = DnsServer(api)
        reply = server.answer(DNSRecord.question("kubernetes.default.svc.cluster.local").pack())
        DNSRecord.parse(reply).short()   # '10.96.0.1'
    """

    def __init__(self, api):
        self._services = api.informer("services")
        self._namespaces = api.informer("namespaces")
        self._slices: dict[tuple[str, str], dict[str, dict]] = {}
        api.informer("endpointslices").on_change(self._slice_changed)
        self._sockets: dict[str, tuple[asyncio.DatagramTransport, asyncio.AbstractServer]] = {}
        self.queries = 0

    def _slice_changed(self, kind: str, new: dict, _old: dict | None) -> None:
        meta = new["metadata"]
        service = (meta.get("labels") or {}).get("kubernetes.io/service-name")
        if not service:
            return
        key = (meta["namespace"], service)
        if kind == "DELETED":
            known = self._slices.get(key, {})
            known.pop(meta["name"], None)
            if not known:
                self._slices.pop(key, None)
        else:
            self._slices.setdefault(key, {})[meta["name"]] = new

    # -- sockets ---------------------------------------------------------------------------------------------

    async def serve(self, key: str, netns: str) -> None:
        """Answer on port 53, UDP and TCP, in the network namespace at path ``netns``, until :meth:`unserve`."""
        if key in self._sockets:
            return
        udp = socket_in(netns, socket.AF_INET, socket.SOCK_DGRAM)
        tcp = socket_in(netns, socket.AF_INET, socket.SOCK_STREAM)
        try:
            for sock in (udp, tcp):
                sock.setblocking(False)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind(("0.0.0.0", 53))
            tcp.listen(64)
            transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: _Udp(self), sock=udp)
            server = await asyncio.start_server(self._serve_tcp, sock=tcp)
        except BaseException:
            udp.close()
            tcp.close()
            raise
        self._sockets[key] = (transport, server)

    def unserve(self, key: str) -> None:
        """Close the sockets opened under ``key``, if there are any."""
        transport, server = self._sockets.pop(key, (None, None))
        if transport is not None:
            transport.close()
            server.close()

    def close(self) -> None:
        """Close all sockets."""
        for key in list(self._sockets):
            self.unserve(key)

    async def _serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                (length,) = struct.unpack("!H", await asyncio.wait_for(reader.readexactly(2), IDLE_TCP))
                reply = self.answer(await asyncio.wait_for(reader.readexactly(length), IDLE_TCP), udp=False)
                if reply is None:
                    return
                writer.write(struct.pack("!H", len(reply)) + reply)
                await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.TimeoutError, ConnectionError):
            return  # the client is done, or gone
        finally:
            writer.close()

    # -- answers ---------------------------------------------------------------------------------------------

    def answer(self, data: bytes, *, udp: bool = True) -> bytes | None:
        """The reply to one query, both in wire format; ``None`` for what isn't a query at all."""
        self.queries += 1
        try:
            query = DNSRecord.parse(data)
        except (DNSError, ValueError, IndexError, struct.error):
            if len(data) < 12 or data[2] & 0x80:
                return None
            header = DNSHeader(id=struct.unpack("!H", data[:2])[0], qr=1, rcode=RCODE.FORMERR)
            return DNSRecord(header).pack()
        if query.header.qr:
            return None  # a reply: answering it could go round for ever
        reply = query.reply(ra=1, aa=1)
        if query.header.opcode != 0:
            reply.header.rcode = RCODE.NOTIMP
        elif len(query.questions) != 1:
            reply.header.rcode = RCODE.FORMERR
        elif query.q.qclass not in (CLASS.IN, 255):
            reply.header.rcode = RCODE.REFUSED
        else:
            self._fill(reply, query.q.qname, query.q.qtype)
        limit = 65535
        if udp:
            sizes = [extra.rclass for extra in query.ar if extra.rtype == QTYPE.OPT]
            limit = max(PLAIN_UDP, min(sizes[0], MOST_UDP)) if sizes else PLAIN_UDP
            if sizes:
                from dnslib import EDNS0

                reply.add_ar(EDNS0(udp_len=MOST_UDP))
        return _fit(reply, limit)

    def _fill(self, reply: DNSRecord, qname: DNSLabel, qtype: int) -> None:
        name = str(qname).rstrip(".").lower()
        if name.endswith((".in-addr.arpa", ".ip6.arpa")) or name in ("in-addr.arpa", "ip6.arpa"):
            self._reverse(reply, qname, name, qtype)
            return
        if name != ZONE and not name.endswith("." + ZONE):
            # The lab has no world outside to ask; "no such name" lets resolvers end at once.
            reply.header.aa = 0
            reply.header.rcode = RCODE.NXDOMAIN
            return
        answers, extra, exists = self._forward(qname, name, qtype, 0)
        for record in answers:
            reply.add_answer(record)
        for record in extra:
            reply.add_ar(record)
        if not answers:
            reply.add_auth(_soa())
            if not exists:
                reply.header.rcode = RCODE.NXDOMAIN

    def _forward(self, qname: DNSLabel, name: str, qtype: int, depth: int) -> tuple[list[RR], list[RR], bool]:
        """Answers, additional records, and whether the name exists at all."""
        labels = name[: -len(ZONE)].rstrip(".").split(".") if name != ZONE else []
        match labels:
            case []:
                if qtype == QTYPE.SOA:
                    return [_soa()], [], True
                if qtype == QTYPE.NS:
                    return [RR(qname, QTYPE.NS, ttl=TTL, rdata=NS(f"ns.dns.{ZONE}."))], self._dns_addresses(), True
                return [], [], True
            case ["dns-version"]:
                return [], [], True
            case ["ns", "dns"]:
                return self._dns_addresses(qname) if qtype in (QTYPE.A, QTYPE.ANY) else [], [], True
            case ["svc"] | ["pod"]:
                return [], [], True
            case [namespace, "svc"]:
                return [], [], self._namespaces.get(None, namespace) is not None
            case [dashed, namespace, "pod"]:
                return self._pod(qname, dashed, namespace, qtype)
            case [*rest, namespace, "svc"]:
                service = self._services.get(namespace, rest[-1])
                if service is None:
                    return [], [], False
                return self._service(qname, service, rest[:-1], qtype, depth)
        return [], [], False

    def _pod(self, qname, dashed: str, namespace: str, qtype: int):
        # CoreDNS' "pods insecure": the name says the address, whether or not there is such a pod.
        if self._namespaces.get(None, namespace) is None:
            return [], [], False
        try:
            address = str(ipaddress.IPv4Address(dashed.replace("-", ".")))
        except ValueError:
            return [], [], False
        return ([_a(qname, address)] if qtype in (QTYPE.A, QTYPE.ANY) else []), [], True

    def _service(self, qname, service: dict, prefix: list[str], qtype: int, depth: int):
        spec, meta = service["spec"], service["metadata"]
        full = f"{meta['name']}.{meta['namespace']}.svc.{ZONE}."
        if spec.get("type") == "ExternalName":
            if prefix:
                return [], [], False
            if qtype not in (QTYPE.A, QTYPE.AAAA, QTYPE.CNAME, QTYPE.ANY):
                return [], [], True
            target = spec["externalName"].rstrip(".").lower()
            answers = [RR(qname, QTYPE.CNAME, ttl=TTL, rdata=CNAME(target + "."))]
            if qtype != QTYPE.CNAME and target.endswith("." + ZONE) and depth < CNAME_DEPTH:
                answers += self._forward(DNSLabel(target + "."), target, qtype, depth + 1)[0]
            return answers, [], True
        headless = spec.get("clusterIP") in (None, "", "None")
        if len(prefix) == 2 and prefix[0].startswith("_") and prefix[1].startswith("_"):
            return self._srv(qname, service, full, headless, qtype, port=prefix[0][1:], protocol=prefix[1][1:])
        if not prefix and qtype == QTYPE.SRV:
            return self._srv(qname, service, full, headless, qtype, port=None, protocol=None)
        if not prefix:
            addresses = {address for _, address, _ in self._endpoints(service)}
            if not headless:
                addresses = set(spec.get("clusterIPs") or [spec["clusterIP"]])
            if headless and not addresses:
                return [], [], False  # CoreDNS: a headless Service without endpoints has no name
            return _addresses(qname, addresses, qtype), [], True
        if len(prefix) == 1 and headless:
            addresses = {address for host, address, _ in self._endpoints(service) if host == prefix[0]}
            return _addresses(qname, addresses, qtype), [], bool(addresses)
        return [], [], False

    def _srv(self, qname, service: dict, full: str, headless: bool, qtype: int, *, port: str | None, protocol: str | None):
        targets: list[tuple[str, int, str]] = []  # host, port number, address
        if headless:
            for host, address, ports in self._endpoints(service):
                for one in ports:
                    if _is_port(one, port, protocol):
                        targets.append((f"{host}.{full}", one["port"], address))
        else:
            for one in service["spec"].get("ports") or []:
                if _is_port(one, port, protocol):
                    targets.append((full, one["port"], service["spec"]["clusterIP"]))
        if not targets:
            return [], [], False
        if qtype not in (QTYPE.SRV, QTYPE.ANY):
            addresses = {address for _, _, address in targets}
            return _addresses(qname, addresses, qtype), [], True
        weight = max(1, 100 // len({number for _, number, _ in targets}) // max(1, len({host for host, _, _ in targets})))
        answers = [RR(qname, QTYPE.SRV, ttl=TTL, rdata=SRV(0, weight, number, host)) for host, number, _ in targets]
        hosts = {host: address for host, _, address in targets}
        return answers, [_a(DNSLabel(host), address) for host, address in hosts.items()], True

    def _endpoints(self, service: dict):
        """``(host name, address, ports)`` for each endpoint that the Service's slices call ready."""
        meta = service["metadata"]
        for one in self._slices.get((meta["namespace"], meta["name"]), {}).values():
            if one.get("addressType") != "IPv4":
                continue
            for endpoint in one.get("endpoints") or []:
                # Unknown counts as ready (the EndpointSlice API); publishNotReadyAddresses is in the slice already.
                if (endpoint.get("conditions") or {}).get("ready") is False:
                    continue
                for address in endpoint["addresses"]:
                    yield endpoint.get("hostname") or address.replace(".", "-"), address, one.get("ports") or []

    def _reverse(self, reply: DNSRecord, qname: DNSLabel, name: str, qtype: int) -> None:
        address = _reversed_address(name)
        names = self._names_of(address) if address else []
        if qtype in (QTYPE.PTR, QTYPE.ANY):
            for one in names:
                reply.add_answer(RR(qname, QTYPE.PTR, ttl=TTL, rdata=PTR(one)))
        if not names:
            reply.header.rcode = RCODE.NXDOMAIN

    def _names_of(self, address: str) -> list[str]:
        for service in self._services.values():
            if address in (service["spec"].get("clusterIPs") or [service["spec"].get("clusterIP")]):
                meta = service["metadata"]
                return [f"{meta['name']}.{meta['namespace']}.svc.{ZONE}."]
        names = []
        for (namespace, service_name), slices in self._slices.items():
            for one in slices.values():
                for endpoint in one.get("endpoints") or []:
                    if address in endpoint["addresses"]:
                        host = endpoint.get("hostname") or address.replace(".", "-")
                        names.append(f"{host}.{service_name}.{namespace}.svc.{ZONE}.")
        return sorted(names)

    def _dns_addresses(self, qname: DNSLabel | None = None) -> list[RR]:
        service = self._services.get("kube-system", "kube-dns")
        return [_a(qname or DNSLabel(f"ns.dns.{ZONE}."), service["spec"]["clusterIP"])] if service else []


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, server: DnsServer):
        self._server = server
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr) -> None:
        reply = self._server.answer(data)
        if reply is not None:
            self._transport.sendto(reply, addr)

    def error_received(self, exc: OSError) -> None:
        log.debug("dns: a client went away: %s", exc)  # ICMP "port unreachable" for an answer that came too late


class DnsPods:
    """Opens the server's sockets in each running ``coredns`` pod, and closes them when it no longer runs.

    Args:
        api: the in-process API.
        network: where the pods' namespaces are.
        server: what answers there.
    """

    def __init__(self, api, network, server: DnsServer):
        self._network = network
        self._server = server
        self._tasks: set[asyncio.Task] = set()
        api.informer("pods").on_change(self._changed)

    def _changed(self, kind: str, pod: dict, _old: dict | None) -> None:
        meta = pod["metadata"]
        if meta["namespace"] != "kube-system" or (meta.get("labels") or {}).get("k8s-app") != "kube-dns":
            return
        statuses = (pod.get("status") or {}).get("containerStatuses") or []
        running = kind != "DELETED" and any("running" in (status.get("state") or {}) for status in statuses)
        node = self._network.nodes.get(pod["spec"].get("nodeName"))
        place = node.pods.get(meta["uid"]) if node else None
        if running and place is not None:
            task = asyncio.ensure_future(self._serve(meta["uid"], place.netns))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif not running:
            self._server.unserve(meta["uid"])

    async def _serve(self, uid: str, netns: str) -> None:
        try:
            await self._server.serve(uid, netns)
        except OSError as error:
            log.error("dns: no socket in %s: %s", netns, error)  # the pod vanished meanwhile; the next one is served


def _is_port(port: dict, name: str | None, protocol: str | None) -> bool:
    if name is None:
        return True
    return (port.get("name") or "") == name and (port.get("protocol") or "TCP").lower() == protocol


def _a(qname: DNSLabel, address: str) -> RR:
    return RR(qname, QTYPE.A, ttl=TTL, rdata=A(address))


def _addresses(qname: DNSLabel, addresses: set[str], qtype: int) -> list[RR]:
    records = []
    for address in addresses:
        if ":" in address:
            if qtype in (QTYPE.AAAA, QTYPE.ANY):
                records.append(RR(qname, QTYPE.AAAA, ttl=TTL, rdata=AAAA(address)))
        elif qtype in (QTYPE.A, QTYPE.ANY):
            records.append(_a(qname, address))
    random.shuffle(records)  # CoreDNS' "loadbalance": a client that takes the first spreads its load
    return records


def _soa() -> RR:
    times = (int(time.time()), 7200, 1800, 86400, TTL)
    return RR(f"{ZONE}.", QTYPE.SOA, ttl=TTL, rdata=SOA(f"ns.dns.{ZONE}.", f"hostmaster.{ZONE}.", times))


def _reversed_address(name: str) -> str | None:
    if not name.endswith(".in-addr.arpa"):
        return None
    try:
        return str(ipaddress.IPv4Address(".".join(reversed(name[: -len(".in-addr.arpa")].split(".")))))
    except ValueError:
        return None


def _fit(reply: DNSRecord, limit: int) -> bytes:
    """Pack ``reply`` into ``limit`` bytes: additional records go first, then answers with TC set (RFC 2181 section 9)."""
    data = reply.pack()
    if len(data) <= limit:
        return data
    opt = [record for record in reply.ar if record.rtype == QTYPE.OPT]
    extra = [record for record in reply.ar if record.rtype != QTYPE.OPT]
    while len(data) > limit and (extra or reply.rr):
        if extra:
            extra.pop()
        else:
            reply.rr.pop()
            reply.header.tc = 1
        reply.ar = opt + extra
        data = reply.pack()
    return data
