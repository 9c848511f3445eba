"""A class: one shared cluster, a namespace for each student, a board for the teacher. `servicelab class …`, and in a notebook::

    from servicelab.classroom import Classroom

    classroom = Classroom.open("kind")
    classroom.board()
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .commands import add_parser

if TYPE_CHECKING:
    from ..views.class_board import ClassBoard
    from .names import Student

__all__ = ["Classroom", "add_parser"]


class Classroom:
    """The class of one cluster, for the teacher's notebook.

    Attributes:
        cluster: where it is.
    """

    def __init__(self, cluster: Any) -> None:
        from ..client import Client
        from .create import refuse_pocket

        refuse_pocket(cluster)
        self.cluster = cluster
        self.client = Client(cluster.kubeconfig())

    @classmethod
    def open(cls, cluster: str | None = None) -> Classroom:
        """The class of a cluster: `kind` or `context:NAME`; None takes what `servicelab` itself would take.

        Raises:
            ClusterError: the cluster isn't up, or is a pocket cluster, which holds no class.
        """
        from .. import clusters
        from ..errors import ClusterError
        from .create import refuse_pocket

        chosen = clusters.choose(cluster)
        refuse_pocket(chosen)
        status = chosen.status()
        if not status.running:
            raise ClusterError(status.detail or f"The cluster {chosen.name!r} is not up.")
        return cls(chosen)

    def students(self) -> list[Student]:
        """Who is in the class."""
        from .roster import students

        return students(self.client)

    def reset(self, student: str, *, keep_progress: bool = True) -> None:
        """Removes what the lessons made in a student's namespace."""
        from .reset import reset
        from .roster import one

        reset(self.cluster, one(self.client, student), keep_progress=keep_progress)

    def board(self, *, hide_names: bool = False) -> ClassBoard:
        """The live heat map of students by checks.

        Args:
            hide_names: begin with numbers instead of names, for a projector; a button in the board changes it.
        """
        from ..views.class_board import ClassBoard

        return ClassBoard(self, hide_names=hide_names)

    def __repr__(self) -> str:
        return f"a class of {len(self.students())} on the {self.cluster.kind} cluster {self.cluster.name}"
