"""The plan of a capstone application: its names, ports and faults, all of which follow from a seed. No cluster here."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass

FAULTS = ("selector", "port", "readiness", "secret", "name", "certificate")
HEALTH = "/healthz"  # where every server says that it is well
KEY = "password"  # under which the keeper of the books looks for its password in its Secret


@dataclass(frozen=True)
class Theme:
    """What the application is about: the names of its parts.

    Attributes:
        what: the application in two words.
        servers: the Services: the page, its list of things, and the one that needs TLS.
        callers: who calls: page, list, TLS, TLS with a password, and from another namespace.
        book: the path that asks for a password.
    """

    what: str
    servers: tuple[str, str, str]
    callers: tuple[str, str, str, str, str]
    book: str


THEMES = (
    Theme("a bookshop", ("front", "catalogue", "payment"), ("visitor", "search", "checkout", "bookkeeper", "reseller"), "ledger"),
    Theme("a library", ("desk", "shelves", "loans"), ("reader", "librarian", "renewal", "auditor", "school"), "fines"),
    Theme("a cinema", ("foyer", "programme", "tickets"), ("guest", "poster", "boxoffice", "accountant", "magazine"), "takings"),
    Theme("a bakery", ("counter", "recipes", "till"), ("customer", "baker", "cashier", "taxadviser", "supplier"), "receipts"),
    Theme("a museum", ("entrance", "collection", "donations"), ("tourist", "guide", "patron", "treasurer", "university"), "accounts"),
    Theme("a railway", ("station", "timetable", "booking"), ("traveller", "signal", "conductor", "inspector", "airline"), "refunds"),
)


@dataclass(frozen=True)
class Server:
    """One Service and the Deployment of the same name behind it.

    Attributes:
        port: where its program listens.
        replicas: how many pods.
        tls: whether it speaks TLS.
    """

    name: str
    port: int
    replicas: int
    tls: bool = False

    @property
    def service_port(self) -> int:
        """The port of the Service: what a URL means that names none."""
        return 443 if self.tls else 80

    @property
    def secret(self) -> str:
        """The Secret with its certificate, where it has one."""
        return f"{self.name}-tls"

    @property
    def users(self) -> str:
        """The Secret with the passwords that it accepts, where it asks for them."""
        return f"{self.name}-users"


@dataclass(frozen=True)
class Caller:
    """A Deployment whose pod calls one URL, again and again.

    Attributes:
        namespace: where it runs.
        server: the name of the Service that it wants to reach.
        url: what it calls.
        right_url: what it should call.
        secret: the Secret from which it takes its password, or "".
    """

    name: str
    namespace: str
    server: str
    url: str
    right_url: str
    secret: str = ""


@dataclass(frozen=True)
class Plan:
    """One application and what is wrong with it.

    Attributes:
        seed: from which all else follows.
        namespace: where it lives.
        other: the second namespace; "" where none could be made.
        faults: which of `FAULTS` it has.
        theme: its names.
        servers: three of them; the last speaks TLS.
        callers: five; the last lives in the second namespace, if there is one.
        misread: the server whose readiness probe asks for a wrong path.
        selector: the label value that the first Service looks for by mistake.
        target_port: where the second Service sends to by mistake.
        probe_path: what the probe asks for by mistake.
        wrong_key: the key under which the password lies by mistake.
        wrong_name: the name for which the certificate was made by mistake.
    """

    seed: int
    namespace: str
    other: str
    faults: frozenset[str]
    theme: Theme
    servers: tuple[Server, Server, Server]
    callers: tuple[Caller, ...]
    misread: str
    selector: str
    target_port: int
    probe_path: str
    wrong_key: str
    wrong_name: str

    def server(self, name: str) -> Server:
        """The server of that name."""
        return next(server for server in self.servers if server.name == name)

    def in_the_way(self, caller: Caller) -> tuple[str, ...]:
        """The faults that keep a caller from its answer, in the order in which its request meets them."""
        first, second, third = self.servers
        met = {
            "secret": bool(caller.secret),
            "name": caller is self.callers[-1],
            "selector": caller.server == first.name,
            "readiness": caller.server == self.misread,
            "port": caller.server == second.name,
            "certificate": caller.server == third.name,
        }
        return tuple(fault for fault, is_met in met.items() if is_met and fault in self.faults)

    def text(self) -> str:
        """The application in words, as its owner would tell them: who calls whom, and not what is wrong."""
        lines = [f"{self.theme.what}, number {self.seed}: {len(self.servers)} Services and {len(self.callers)} callers"]
        wide = max(len(caller.name) for caller in self.callers)
        for caller in self.callers:
            notes = [f"in namespace {caller.namespace}"] if caller.namespace != self.namespace else []
            notes += ["with a password"] if caller.secret else []
            lines.append(f"  {caller.name:<{wide}}  calls {caller.url}" + (f"  ({', '.join(notes)})" if notes else ""))
        return "\n".join(lines)


def other_namespace(namespace: str) -> str:
    """The second namespace that belongs to a learner's namespace; an RFC 1123 label like it.

    Example:
        >>> other_namespace("default")
        'default-partner'
    """
    return f"{namespace[:55].rstrip('-')}-partner"


def make(seed: int, namespace: str, *, second: bool = True, faults: Iterable[str] = FAULTS) -> Plan:
    """The plan that follows from a seed.

    Args:
        seed: any whole number; the same one gives the same plan.
        namespace: where the application is to live.
        second: whether there is a second namespace. Without one the last caller asks for a name in a namespace that isn't there.
        faults: which faults; all by default.

    Raises:
        ValueError: a fault that isn't one of `FAULTS`.

    Example:
        >>> make(1, "default") == make(1, "default"), make(1, "default") == make(2, "default")
        (True, False)
    """
    wanted = frozenset(faults)
    if unknown := wanted - set(FAULTS):
        raise ValueError(f"no such fault: {', '.join(sorted(unknown))}; there are {', '.join(FAULTS)}")
    # Everything is drawn in the same order whatever the faults are, so that they don't change the names.
    draw = random.Random(seed)
    theme = draw.choice(THEMES)
    web, tls = draw.sample((80, 8000, 8080, 8888, 9090), 2), draw.choice((443, 8443, 9443))
    first, second_server, third = (
        Server(theme.servers[0], web[0], 2), Server(theme.servers[1], web[1], 2), Server(theme.servers[2], tls, 1, tls=True),
    )  # fmt: skip
    misread = draw.choice((first.name, second_server.name))
    selector = misspelt(first.name, draw)
    target_port = draw.choice([port for port in (80, 3000, 5000, 8000, 8080, 8081, 8888, 9090) if port != second_server.port])
    probe_path = draw.choice(("/health", "/ready", "/status", "/livez", "/ping", "/healthy"))
    wrong_key = draw.choice(("passwd", "pass", "pasword", "Password", "secret", "password.txt"))
    wrong_name = draw.choice((misspelt(third.name, draw), f"{third.name}.example.com", first.name, f"{third.name}.prod", "localhost"))
    called = draw.choice((first, second_server))

    other = other_namespace(namespace) if second else ""
    a, b, c, d, e = theme.callers
    right = f"http://{called.name}.{namespace}" if other else f"http://{called.name}"
    wrong = f"http://{called.name}" if other else f"http://{called.name}.{theme.callers[4]}"
    secure = f"https://{third.name}"
    callers = (
        Caller(a, namespace, first.name, f"http://{first.name}", f"http://{first.name}"),
        Caller(b, namespace, second_server.name, f"http://{second_server.name}", f"http://{second_server.name}"),
        Caller(c, namespace, third.name, secure, secure),
        Caller(d, namespace, third.name, f"{secure}/{theme.book}", f"{secure}/{theme.book}", secret=f"{d}-login"),
        Caller(e, other or namespace, called.name, wrong if "name" in wanted else right, right),
    )
    servers = (first, second_server, third)
    return Plan(seed, namespace, other, wanted, theme, servers, callers, misread, selector, target_port, probe_path, wrong_key, wrong_name)


def misspelt(word: str, draw: random.Random) -> str:
    """The word with one slip of the fingers: two letters swapped, one doubled, or one left out; never the word itself.

    Example:
        >>> misspelt("payment", random.Random(1)) != "payment"
        True
    """
    slips = []
    for place in range(1, len(word) - 1):
        head, letter, tail = word[:place], word[place], word[place + 1 :]
        slips += [head + tail, head + letter + letter + tail, head + tail[0] + letter + tail[1:]]
    return draw.choice(sorted(set(slips) - {word}))
