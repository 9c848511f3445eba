"""Pictures of the cluster: ``lab.view.topology()`` and its kind. What they show is observed, never invented.

Every picture has three forms: a live drawing in the browser, an SVG that stands alone, and a text twin for a screen reader and for a
stored notebook.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from servicelab.lab import Lab
    from servicelab.views.board import Board
    from servicelab.views.certificate_card import CertificateCard
    from servicelab.views.debugging_tree import DebuggingTree
    from servicelab.views.endpoints_over_time import EndpointsOverTime
    from servicelab.views.packet_path import PacketPath
    from servicelab.views.port_map import PortMap
    from servicelab.views.topology import Topology
    from servicelab.views.who_answered import WhoAnswered


class Views:
    """What ``lab.view`` offers. Each method returns a picture; as the last line of a cell it is shown.

    Args:
        lab: Whose cluster and namespace is looked at.
    """

    def __init__(self, lab: Lab) -> None:
        self._lab = lab

    def __repr__(self) -> str:
        return "lab.view: " + ", ".join(f"{name}()" for name in sorted(vars(type(self))) if not name.startswith("_"))

    def topology(self, *services: str) -> Topology:
        """Nodes, the pods on them, Services and the lines between, live.

        Args:
            services: Only these Services; all but ``kubernetes`` when none is named.

        Example::

            lab.view.topology()
        """
        from servicelab.views.topology import Topology

        return Topology(self._lab, list(services) or None)

    def packet_path(self, client: str = "curl", url: str = "http://my-nginx") -> PacketPath:
        """One request from a pod to a URL, step by step, with what DNS, the routes and the kernels' rules say about it.

        Args:
            client: A pod with curl: its name, a label selector, or ``deployment/NAME``.
            url: Where to; a short name, a full name, or an address.

        Raises:
            NotFound: There is no such pod.
            LabError: Nothing can be sent from it; says why.

        Example::

            lab.view.packet_path("curl", "http://my-nginx")
        """
        from servicelab.views.packet_path import PacketPath

        return PacketPath(self._lab, _client(self._lab, client), url)

    def who_answered(
        self, service: str = "my-nginx", *, rate: float = 5, seconds: float = 10, client: str = "curl", url: str | None = None
    ) -> WhoAnswered:
        """Real requests from a pod through a Service, and which pod answered each, read from the pods' access logs.

        With someone at the page the requests begin when the picture is seen, and the cell doesn't wait: scale, delete and watch. A
        headless run sends them all first.

        Args:
            service: The Service whose pods are watched.
            rate: Requests a second, at most 20; the slider changes it.
            seconds: For how long; rate × seconds requests are sent.
            client: The pod that sends them: its name, a label selector, or ``deployment/NAME``.
            url: Where to, when it isn't the Service's first port under its short name.

        Raises:
            NotFound: There is no such Service or client pod.
            LabError: The client can't send; or a number makes no sense.

        Example::

            lab.view.who_answered("my-nginx", rate=5, seconds=10)
        """
        from servicelab.views.who_answered import WhoAnswered

        return WhoAnswered(self._lab, service, rate=rate, seconds=seconds, client=_client(self._lab, client), url=url)

    def endpoints_over_time(self, service: str = "my-nginx", *, seconds: float = 60) -> EndpointsOverTime:
        """A strip for each pod of a Service (pending, ready, terminating, gone), above the addresses in its EndpointSlices.

        It watches from now on, while other cells run::

            story = lab.view.endpoints_over_time("my-nginx")
            story                                              # live
            !kubectl delete pod -l run=my-nginx                # in the next cell
            story.picture()                                    # all that happened, once it is over

        Args:
            service: Whose endpoints.
            seconds: For how long to watch, at most 3600.

        Raises:
            NotFound: There is no such Service.
        """
        from servicelab.views.endpoints_over_time import EndpointsOverTime

        return EndpointsOverTime(self._lab, service, seconds)

    def port_map(self, service: str = "my-nginx") -> PortMap:
        """Where each port of a Service leads: nodePort → port → targetPort → the container's port.

        Args:
            service: Which Service.

        Raises:
            NotFound: There is no such Service.
        """
        from servicelab.views.port_map import PortMap

        return PortMap(self._lab, service)

    def certificate(self, source: bytes | str | Mapping[str, Any], name: str = "") -> CertificateCard:
        """A certificate as a card: whom it is for, by which names, who signed it, how long it holds.

        Args:
            source: The name of a Secret, or a certificate as PEM, or a Secret as the API gives it.
            name: A name that a client asked for; the card says whether the certificate holds for it.

        Raises:
            NotFound: There is no such Secret.
            LabError: There is no certificate in it.
        """
        from servicelab.views.certificate_card import CertificateCard

        return CertificateCard(self._lab, source, name)

    def board(self) -> Board:
        """Which of the capstone's connections work by now, live, from its callers' own requests.

        Raises:
            NotFound: There is no application; ``lab.break_it()`` builds one.
        """
        from servicelab.views.board import Board

        return Board(self._lab)

    def debugging_tree(self) -> DebuggingTree:
        """How to find out why a Service isn't reached: six questions, from the pod to the caller, each with its command."""
        from servicelab.views.debugging_tree import DebuggingTree

        return DebuggingTree()


def _client(lab: Lab, client: str) -> str:
    """The name of the pod that is to send requests.

    Raises:
        NotFound: There is none; says how to make one.
    """
    from servicelab.errors import NotFound

    try:
        return lab.pod(client).name
    except NotFound as error:
        raise NotFound(
            f"There is no pod {client!r} in namespace {lab.namespace!r} to send from. lab.apply('curl.yaml') makes one called curl; "
            "client= names another."
        ) from error
