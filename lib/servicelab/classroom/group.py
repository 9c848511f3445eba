"""How a class is called in the cluster. There may be several on one: `SERVICELAB_CLASS` names another than the usual one."""

from __future__ import annotations

import os
import re
import zlib
from dataclasses import dataclass

from ..errors import LabError

USUAL = "class"
LABEL = "servicelab.io/class"


@dataclass(frozen=True)
class Group:
    """The names that follow from a class's own."""

    name: str = USUAL

    @property
    def space(self) -> str:
        """The teacher's namespace."""
        return f"servicelab-{self.name}"

    @property
    def prefix(self) -> str:
        """Of every student's namespace: no student is called into `default` or `kube-system`."""
        return "student-" if self.name == USUAL else f"{self.name}-student-"

    @property
    def role(self) -> str:
        """Of the Roles and the ClusterRole that all students are bound to."""
        return f"servicelab-{self.name}-student"

    @property
    def labels(self) -> dict[str, str]:
        """On everything that the class makes."""
        return {"app.kubernetes.io/managed-by": "servicelab", LABEL: self.name}

    @property
    def selector(self) -> str:
        """What has these labels."""
        return f"{LABEL}={self.name}"

    @property
    def port(self) -> int:
        """Where the pods for node steps answer; they are on their nodes' network, so each class needs its own."""
        return 18081 if self.name == USUAL else 18100 + zlib.crc32(self.name.encode()) % 900


def current() -> Group:
    """The class that `SERVICELAB_CLASS` names, or the usual one.

    Raises:
        LabError: its name can't be part of a namespace's.
    """
    name = os.environ.get("SERVICELAB_CLASS") or USUAL
    if not re.fullmatch(r"[a-z]([-a-z0-9]{0,14}[a-z0-9])?", name):
        raise LabError(f"SERVICELAB_CLASS={name!r}: a class's name has up to 16 lower-case letters, digits and '-', a letter first.")
    return Group(name)


def of_namespace(namespace: str) -> Group:
    """The class to which a student's namespace belongs, by its name.

    Example:
        >>> of_namespace("student-ada").space, of_namespace("spring-student-ada").space
        ('servicelab-class', 'servicelab-spring')
    """
    before, found, _ = namespace.partition("student-")
    return Group(before.rstrip("-") or USUAL) if found else Group()
