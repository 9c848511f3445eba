"""pyroute2's rtnetlink client, without the other hundred modules that ``import pyroute2`` brings along.

The package's ``__init__`` imports everything it has (a network database, wireless tools, …): 0.15 s and 9 MB that a cluster
which must be up in a second can't spare. Its parts need only the package's path, so that is all they get here.
"""

from __future__ import annotations

import importlib.util
import sys
import types

if "pyroute2" not in sys.modules:
    _spec = importlib.util.find_spec("pyroute2")
    if _spec is None:
        raise ImportError("the package pyroute2 is not installed: see requirements.txt")
    _package = types.ModuleType("pyroute2", "See pocketkube.rtnetlink.")
    _package.__path__ = list(_spec.submodule_search_locations)
    _package.__spec__ = _spec
    sys.modules["pyroute2"] = _package

from pyroute2.iproute.linux import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

__all__ = ["IPRoute", "NetlinkError"]
