"""Reading a node: kube-proxy's nftables rules and the kernel's table of connections."""

from servicelab.rules import rules_for, tracked
from servicelab.views.curl import reason_of

# Made to the pattern of KEP 3866's examples; the quotes stand where nft puts them around names that it wouldn't read back otherwise.
LISTING = """
table ip kube-proxy {
\tmap no-endpoint-services {
\t\ttype ipv4_addr . inet_proto . inet_service : verdict
\t\telements = { 10.96.0.50 . tcp . 80 comment "ns/late" : goto reject-chain,
\t\t\t     10.96.0.51 . tcp . 81 : drop }
\t}

\tmap service-ips {
\t\ttype ipv4_addr . inet_proto . inet_service : verdict
\t\telements = { 10.96.0.10 . udp . 53 : goto service-AAAA-kube-system/kube-dns/udp/dns,
\t\t\t     10.96.0.77 . tcp . 80 : goto service-BBBB-ns/web/tcp/http,
\t\t\t     10.96.0.78 . tcp . 80 comment "ns/sticky" : goto "service-CCCC-ns/sticky/tcp/" }
\t}

\tchain mark-for-masquerade {
\t\tmeta mark set meta mark | 0x00004000
\t}

\tchain endpoint-E1-ns/w/tcp/http__10.244.1.5/8080 {
\t\tip saddr 10.244.1.5 jump mark-for-masquerade
\t\tmeta l4proto tcp dnat to 10.244.1.5:8080
\t}

\tchain endpoint-E2-ns/w/tcp/http__10.244.2.6/8080 { # handle 7
\t\tip saddr 10.244.2.6 jump mark-for-masquerade
\t\tmeta l4proto tcp dnat to 10.244.2.6:8080
\t}

\tchain service-BBBB-ns/web/tcp/http {
\t\tip daddr 10.96.0.77 ip saddr != 10.244.0.0/16 jump mark-for-masquerade
\t\tnumgen random mod 2 vmap { 0 : goto endpoint-E1-ns/w/tcp/http__10.244.1.5/8080, 1 : goto endpoint-E2-ns/w/tcp/http__10.244.2.6/8080 }
\t}

\tchain "service-CCCC-ns/sticky/tcp/" {
\t\tip saddr @affinity-E1 goto endpoint-E1-ns/w/tcp/http__10.244.1.5/8080
\t\tgoto "external-CCCC"
\t}

\tchain "external-CCCC" {
\t\tnumgen random mod 1 vmap { 0 : goto endpoint-E1-ns/w/tcp/http__10.244.1.5/8080 }
\t}
}
"""


def test_the_rules_of_a_service_port_are_followed_to_its_endpoints():
    rules = rules_for(LISTING, "10.96.0.77", 80)
    assert rules.lookup == "10.96.0.77 . tcp . 80 : goto service-BBBB-ns/web/tcp/http"
    assert rules.targets == ("10.244.1.5:8080", "10.244.2.6:8080")
    assert rules.choice == "numgen random mod 2 vmap { 0 : goto endpoint-…__10.244.1.5/8080, 1 : goto endpoint-…__10.244.2.6/8080 }"
    assert ("10.244.2.6:8080", "meta l4proto tcp dnat to 10.244.2.6:8080") in rules.rewrites
    assert not rules.refused


def test_quoted_names_comments_and_chains_between_are_read_too():
    rules = rules_for(LISTING, "10.96.0.78", 80)
    assert rules.targets == ("10.244.1.5:8080",)
    assert rules.choice.startswith("numgen random mod 1")


def test_what_is_not_there_is_not_found_and_no_endpoints_means_refused():
    assert rules_for(LISTING, "10.96.0.77", 81).lookup == ""
    assert rules_for(LISTING, "10.96.0.7", 80).lookup == ""  # a beginning of another address
    assert rules_for(LISTING, "10.96.0.77", 80, "udp").lookup == ""
    assert rules_for(LISTING, "10.96.0.50", 80).refused
    assert rules_for("Error: No such file or directory", "10.96.0.77", 80).targets == ()


def test_a_tracked_connection_is_found_by_the_clients_end():
    listing = (
        "tcp 6 86399 EST src=10.244.1.4 dst=10.96.0.77 sport=4000 dport=80 src=10.244.2.6 dst=10.244.1.4 sport=8080 dport=4000\n"
        "ipv4 2 tcp 6 9 TIME_WAIT src=10.244.1.4 dst=10.96.0.77 sport=4001 dport=80 src=10.244.1.5 dst=172.18.0.2 sport=8080 dport=61000\n"
        "icmp 1 29 src=10.244.1.4 dst=10.244.2.6 type=8 code=0 id=1"
    )
    assert tracked(listing, "10.244.1.4:4000").answered_by == "10.244.2.6:8080"
    entry = tracked(listing, "10.244.1.4:4001")
    assert (entry.dialled, entry.answered_by, entry.answered_to) == ("10.96.0.77:80", "10.244.1.5:8080", "172.18.0.2:61000")
    assert tracked(listing, "10.244.1.4:400") is None


def test_curls_reasons_lose_what_differs_from_request_to_request():
    assert reason_of("Failed to connect to web port 80 after 3 ms: Couldn't connect to server") == reason_of(
        "Failed to connect to web port 80 after 1045 ms: Could not connect to server"
    )
    assert reason_of("Connection timed out after 3001 milliseconds") == "Connection timed out"
    assert reason_of("Operation timed out after 3000 milliseconds with 0 bytes received") == "Operation timed out"
