"""The cluster's DNS: the records of the Kubernetes DNS specification, asked for from a node over kube-dns' cluster IP."""

from __future__ import annotations

import json

import pytest
from dnslib import EDNS0, QTYPE, RCODE, DNSRecord

DNS = "10.96.0.10"
CLIENT = "curlimages/curl:8.16.0"
ASK = """
import json, socket, struct, sys
server, protocol, *queries = sys.argv[1:]
answers = []
for query in queries:
    data = bytes.fromhex(query)
    if protocol == "udp":
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.settimeout(5)
            for last in (False, False, False, True):  # UDP may lose a packet: resolvers ask again after 5 s, too
                s.sendto(data, (server, 53))
                try:
                    answers.append(s.recv(65535).hex())
                    break
                except socket.timeout:
                    if last:
                        raise
    else:
        with socket.create_connection((server, 53), 10) as s:
            s.sendall(struct.pack("!H", len(data)) + data)
            f = s.makefile("rb")
            (length,) = struct.unpack("!H", f.read(2))
            answers.append(f.read(length).hex())
print(json.dumps(answers))
"""


def ask(kube, name: str, kind: str = "A", *, protocol: str = "udp", edns: int | None = None) -> DNSRecord:
    """One query, from a worker node."""
    query = DNSRecord.question(name, kind)
    if edns:
        query.add_ar(EDNS0(udp_len=edns))
    (reply,) = json.loads(kube.python_on_node(kube.nodes[1], ASK, DNS, protocol, query.pack().hex()))
    record = DNSRecord.parse(bytes.fromhex(reply))
    assert record.header.id == query.header.id and record.header.qr == 1
    return record


def values(reply: DNSRecord, kind: str = "A") -> list[str]:
    return sorted(str(one.rdata) for one in reply.rr if QTYPE[one.rtype] == kind)


@pytest.fixture(scope="module")
def world(kube):
    """Three pods (one with hostname and subdomain), a ClusterIP, a headless and an ExternalName Service."""

    def pod(name: str, **spec) -> dict:
        container = {"name": "c", "image": CLIENT, "command": ["sleep", "100000"]}
        body = {"terminationGracePeriodSeconds": 1, "containers": [container], **spec}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "dns"}}, "spec": body}

    def service(name: str, **spec) -> dict:
        return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}

    ports = [{"name": "http", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}]
    kube.apply(
        [
            pod("one"),
            pod("two"),
            pod("named", hostname="alpha", subdomain="headless"),
            service("plain", selector={"app": "dns"}, ports=ports),
            service("headless", selector={"app": "dns"}, clusterIP="None", ports=ports),
            service("nobody", selector={"app": "nobody"}, ports=ports),
            service("nobody-headless", selector={"app": "nobody"}, clusterIP="None", ports=ports),
            service("outside", type="ExternalName", externalName="www.example.com"),
            service("inside", type="ExternalName", externalName=f"plain.{kube.name}.svc.cluster.local"),
        ]
    )
    kube.wait("condition=Ready", "pod/one", "pod/two", "pod/named")
    ips = {name: kube.get("pod", name)["status"]["podIP"] for name in ("one", "two", "named")}
    eachtime(kube, lambda: values(ask(kube, f"headless.{kube.name}.svc.cluster.local")) == sorted(ips.values()))
    eachtime(kube, lambda: values(ask(kube, f"inside.{kube.name}.svc.cluster.local")))
    return ips


def eachtime(kube, answered) -> None:
    """Wait until it holds several times in a row: two servers stand behind the address, and each follows the API by itself."""
    kube.wait(lambda: all(answered() for _ in range(8)))


def test_a_service_has_its_cluster_ip(kube, world):
    reply = ask(kube, f"plain.{kube.name}.svc.cluster.local")
    assert values(reply) == [kube.get("service", "plain")["spec"]["clusterIP"]]
    assert reply.rr[0].ttl == 30 and reply.header.aa == 1


def test_names_are_found_whatever_their_case(kube, world):
    name = f"PLAIN.{kube.name}.Svc.Cluster.LOCAL"
    reply = ask(kube, name)
    assert len(values(reply)) == 1 and str(reply.q.qname) == name + "."


def test_the_kubernetes_service_itself(kube):
    assert values(ask(kube, "kubernetes.default.svc.cluster.local")) == ["10.96.0.1"]


def test_a_service_without_endpoints_still_has_its_address(kube, world):
    assert values(ask(kube, f"nobody.{kube.name}.svc.cluster.local")) == [kube.get("service", "nobody")["spec"]["clusterIP"]]


def test_a_headless_service_has_the_pods_addresses(kube, world):
    assert values(ask(kube, f"headless.{kube.name}.svc.cluster.local")) == sorted(world.values())


def test_a_pod_with_hostname_and_subdomain_has_a_name(kube, world):
    assert values(ask(kube, f"alpha.headless.{kube.name}.svc.cluster.local")) == [world["named"]]


def test_any_endpoint_of_a_headless_service_has_a_name_made_of_its_address(kube, world):
    dashed = world["one"].replace(".", "-")
    assert values(ask(kube, f"{dashed}.headless.{kube.name}.svc.cluster.local")) == [world["one"]]


def test_a_pods_address_as_a_name(kube, world):
    assert values(ask(kube, f"{world['two'].replace('.', '-')}.{kube.name}.pod.cluster.local")) == [world["two"]]


@pytest.mark.parametrize(
    ("name", "exists"),
    [
        ("plain.{}.svc.cluster.local", True),
        ("{}.svc.cluster.local", True),
        ("svc.cluster.local", True),
        ("cluster.local", True),
        ("nothing.{}.svc.cluster.local", False),
        ("plain.no-such-namespace.svc.cluster.local", False),
        ("no-such-namespace.svc.cluster.local", False),
        ("plain.{}", False),
        ("no-such-host.headless.{}.svc.cluster.local", False),
        ("x.plain.{}.svc.cluster.local", False),
        ("nobody-headless.{}.svc.cluster.local", False),
        ("plain.{}.cluster.local", False),
        ("plain.{}.svc.cluster.local.{}.svc.cluster.local", False),
    ],
)
def test_no_such_name_differs_from_no_such_record(kube, world, name, exists):
    """For an IPv6 address: a name that exists answers NOERROR with nothing, any other NXDOMAIN; both with the zone's SOA."""
    reply = ask(kube, name.format(kube.name, kube.name), "AAAA")
    assert reply.rr == []
    if not name.endswith("cluster.local"):
        assert reply.header.rcode != RCODE.NOERROR  # who is asked beyond the cluster differs from place to place
        return
    assert RCODE[reply.header.rcode] == ("NOERROR" if exists else "NXDOMAIN")
    (soa,) = reply.auth
    assert (QTYPE[soa.rtype], str(soa.rname), soa.ttl) == ("SOA", "cluster.local.", 30)
    assert str(soa.rdata.mname) == "ns.dns.cluster.local." and str(soa.rdata.rname) == "hostmaster.cluster.local."


def test_srv_records_of_a_service_name_its_ports(kube, world):
    reply = ask(kube, f"_http._tcp.plain.{kube.name}.svc.cluster.local", "SRV")
    assert values(reply, "SRV") == [f"0 100 80 plain.{kube.name}.svc.cluster.local."]
    assert [str(one.rdata) for one in reply.ar if one.rtype == QTYPE.A] == [kube.get("service", "plain")["spec"]["clusterIP"]]
    assert values(ask(kube, f"_dns._udp.plain.{kube.name}.svc.cluster.local", "SRV"), "SRV") == [
        f"0 100 53 plain.{kube.name}.svc.cluster.local."
    ]
    assert ask(kube, f"_dns._tcp.plain.{kube.name}.svc.cluster.local", "SRV").header.rcode == RCODE.NXDOMAIN
    assert ask(kube, f"_nope._tcp.plain.{kube.name}.svc.cluster.local", "SRV").header.rcode == RCODE.NXDOMAIN


def test_srv_records_of_a_headless_service_name_its_pods(kube, world):
    reply = ask(kube, f"_http._tcp.headless.{kube.name}.svc.cluster.local", "SRV", edns=1232)
    hosts = {str(one.rdata.target): one.rdata for one in reply.rr}
    suffix = f".headless.{kube.name}.svc.cluster.local."
    assert set(hosts) == {"alpha" + suffix, *(world[name].replace(".", "-") + suffix for name in ("one", "two"))}
    assert {(rdata.priority, rdata.weight, rdata.port) for rdata in hosts.values()} == {(0, 33, 80)}
    assert sorted(str(one.rdata) for one in reply.ar if one.rtype == QTYPE.A) == sorted(world.values())


def test_a_cluster_ip_has_a_name(kube, world):
    address = kube.get("service", "plain")["spec"]["clusterIP"]
    name = ".".join(reversed(address.split("."))) + ".in-addr.arpa"
    assert values(ask(kube, name, "PTR"), "PTR") == [f"plain.{kube.name}.svc.cluster.local."]


def test_an_endpoint_has_a_name_in_each_of_its_services(kube, world):
    name = ".".join(reversed(world["named"].split("."))) + ".in-addr.arpa"
    assert f"alpha.headless.{kube.name}.svc.cluster.local." in values(ask(kube, name, "PTR"), "PTR")


def test_an_external_name_is_an_alias(kube, world):
    reply = ask(kube, f"outside.{kube.name}.svc.cluster.local", "CNAME")
    assert values(reply, "CNAME") == ["www.example.com."]
    reply = ask(kube, f"inside.{kube.name}.svc.cluster.local")
    assert values(reply, "CNAME") == [f"plain.{kube.name}.svc.cluster.local."]
    assert values(reply) == [kube.get("service", "plain")["spec"]["clusterIP"]]


def test_tcp_answers_as_udp_does(kube, world):
    name = f"headless.{kube.name}.svc.cluster.local"
    assert values(ask(kube, name, protocol="tcp")) == values(ask(kube, name))


def test_an_answer_that_does_not_fit_says_so_and_tcp_has_it_whole(kube, world):
    """40 addresses need more than the 512 bytes that a client without EDNS takes over UDP."""
    addresses = [f"203.0.113.{number}" for number in range(1, 41)]  # RFC 5737: documentation
    port = {"name": "http", "port": 80, "protocol": "TCP"}
    kube.apply(
        [
            {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "many"}, "spec": {"clusterIP": "None", "ports": [port]}},
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {"name": "many-1", "labels": {"kubernetes.io/service-name": "many"}},
                "addressType": "IPv4",
                "endpoints": [{"addresses": [address]} for address in addresses],
                "ports": [port],
            },
        ]
    )
    name = f"many.{kube.name}.svc.cluster.local"
    eachtime(kube, lambda: len(values(ask(kube, name, protocol="tcp"))) == len(addresses))
    assert values(ask(kube, name, protocol="tcp")) == sorted(addresses)
    cut = ask(kube, name)
    assert cut.header.tc == 1 and len(cut.pack()) <= 512
    assert len(values(ask(kube, name, edns=1232))) == len(addresses)


def test_only_ready_endpoints_unless_asked_otherwise(kube, world):
    """EndpointSlices say what is ready; DNS follows them at once."""
    port = {"name": "http", "port": 80, "protocol": "TCP"}
    piece = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "some-1", "labels": {"kubernetes.io/service-name": "some"}},
        "addressType": "IPv4",
        "endpoints": [
            {"addresses": ["203.0.113.1"], "conditions": {"ready": True}},
            {"addresses": ["203.0.113.2"], "conditions": {"ready": False}},
        ],
        "ports": [port],
    }
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "some"}, "spec": {"clusterIP": "None", "ports": [port]}}
    kube.apply([service, piece])
    name = f"some.{kube.name}.svc.cluster.local"
    kube.wait(lambda: values(ask(kube, name)) == ["203.0.113.1"])
    piece["endpoints"][1]["conditions"]["ready"] = True
    kube.apply(piece)
    kube.wait(lambda: values(ask(kube, name)) == ["203.0.113.1", "203.0.113.2"], timeout=45)  # CoreDNS caches nothing of the zone
    kube.kubectl("delete", "service", "some")
    kube.wait(lambda: ask(kube, name).header.rcode == RCODE.NXDOMAIN)


def test_a_pod_finds_services_by_short_names(kube, world):
    """By way of the search path in its /etc/resolv.conf."""
    conf = kube.exec("one", "cat", "/etc/resolv.conf")
    assert conf.split("\n")[0] == f"search {kube.name}.svc.cluster.local svc.cluster.local cluster.local" or "nameserver 10.96.0.10" in conf
    address = kube.get("service", "plain")["spec"]["clusterIP"]
    for name in ("plain", f"plain.{kube.name}", f"plain.{kube.name}.svc", f"plain.{kube.name}.svc.cluster.local"):
        done = kube.kubectl("exec", "one", "--", "curl", "-sv", "-m", "30", f"http://{name}/", check=False)
        assert f"{address}:80" in done.stderr or f"({address})" in done.stderr, done.stderr


def test_the_server_is_what_the_cluster_shows(kube):
    """Service kube-dns, whose endpoints are the coredns pods."""
    pods = json.loads(kube.kubectl("get", "pods", "-n", "kube-system", "-l", "k8s-app=kube-dns", "-o", "json").stdout)["items"]
    slices = ["get", "endpointslices", "-n", "kube-system", "-l", "kubernetes.io/service-name=kube-dns", "-o", "json"]
    found = json.loads(kube.kubectl(*slices).stdout)["items"]
    addresses = {address for one in found for endpoint in one["endpoints"] for address in endpoint["addresses"]}
    assert addresses == {pod["status"]["podIP"] for pod in pods} and len(addresses) == 2
    assert all(pod["metadata"]["name"].startswith("coredns-") for pod in pods)


@pytest.mark.pocket
def test_nonsense_gets_an_error_or_nothing_and_the_server_goes_on(kube, world):
    queries = [b"\x00\x01\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\xff\xff", b"\x12\x34\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00"]
    for query in queries:
        (reply,) = json.loads(kube.python_on_node(kube.nodes[1], ASK, DNS, "udp", query.hex()))
        assert bytes.fromhex(reply)[:2] == query[:2] and bytes.fromhex(reply)[3] & 15 == RCODE.FORMERR
    assert values(ask(kube, "kubernetes.default.svc.cluster.local")) == ["10.96.0.1"]
