"""One student's lesson from the start, by the teacher's hand."""

from __future__ import annotations

from typing import Any

from ..connecting import with_namespace
from ..lab import Lab
from .create import refuse_pocket
from .names import Student


def reset(cluster: Any, student: Student, *, keep_progress: bool = True) -> None:
    """Removes what the lessons made in the student's namespace, as `lab.reset()` does there.

    Args:
        cluster: where the class is.
        student: whose namespace.
        keep_progress: whether the record of checks and answers stays.

    Raises:
        WaitTimeout: something doesn't go; names it.
    """
    refuse_pocket(cluster)
    lab = Lab(cluster, with_namespace(cluster.kubeconfig(), student.namespace), student.namespace)
    try:
        lab.reset(quiet=True, keep_progress=keep_progress)
    finally:
        lab.client.close()
