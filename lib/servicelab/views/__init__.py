"""Pictures of the cluster: ``lab.view.topology()`` and its kind. What they show is observed, never invented.

Every picture has three forms: a live drawing in the browser, an SVG that stands alone, and a text twin for a screen reader and for a
stored notebook.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from servicelab.lab import Lab
    from servicelab.views.packet_path import PacketPath
    from servicelab.views.topology import Topology


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

        return PacketPath(self._lab, client, url)
