"""Services Lab: live lessons on how applications are connected in Kubernetes.

What a notebook imports::

    from servicelab import connect, check, quiz

    lab = connect()

Importing is quick: each name is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .checks import check
    from .lab import Lab
    from .quizzes import quiz

__all__ = ["Lab", "check", "connect", "quiz"]
__version__ = "0.1.0"

_HOMES = {"check": ".checks", "quiz": ".quizzes", "Lab": ".lab"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'servicelab' has no attribute {name!r}; it has {', '.join(__all__)}")
    value = getattr(importlib.import_module(_HOMES[name], __name__), name)
    globals()[name] = value
    return value


def connect(cluster: str | None = None, namespace: str | None = None, *, show: bool = True) -> Lab:
    """Finds the cluster, points kubectl at it, shows a card, and returns the Lab; see ``servicelab.connecting.connect``."""
    from .connecting import connect as really

    return really(cluster, namespace, show=show)
