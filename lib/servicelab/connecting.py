"""``connect()``: the first thing that every notebook does."""

from __future__ import annotations

import atexit
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from . import clusters, kubectl
from .client import ApiError
from .errors import ClusterError, LabError, NotAllowed, NotFound
from .quizzes import keep_answers_with
from .state import write_private

if TYPE_CHECKING:
    from .lab import Lab

_open: list[Lab] = []
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def connect(cluster: str | None = None, namespace: str | None = None, *, show: bool = True) -> Lab:
    """Finds the cluster, points ``KUBECONFIG`` at it, and shows one card: which cluster, which nodes, which namespace.

    From then on plain ``!kubectl …`` works in every cell, in the learner's namespace.

    Args:
        cluster: ``kind``, ``pocket`` or ``context:NAME``; default as ``servicelab.clusters.choose`` says.
        namespace: where to work; made when it isn't there. Default: the cluster's own (``default`` on a lab cluster).
        show: whether to show the card.

    Returns:
        The learner's view of the cluster.

    Raises:
        ClusterError: no cluster is up, or it doesn't answer; says what to do.
        NotAllowed: the namespace isn't there and may not be made.

    Example:
        >>> lab = connect()  # doctest: +SKIP
        >>> lab.pods()  # doctest: +SKIP
    """
    from .lab import Lab

    _close_all()  # a cell that is run again: the earlier connection's sockets and helper pods aren't needed any more
    chosen = clusters.choose(cluster)
    try:
        file = chosen.kubeconfig()
    except ClusterError as error:
        status = chosen.status()
        raise ClusterError(status.detail if not status.running else str(error)) from error
    space = namespace or chosen.default_namespace
    if not _LABEL.fullmatch(space):
        raise LabError(
            f"{space!r} can't be a namespace: its name must be an RFC 1123 label, up to 63 lower-case letters, digits and '-', "
            "starting and ending with a letter or digit."
        )
    if chosen.kind == "context":
        chosen.namespace = space
    lab = Lab(chosen, with_namespace(file, space), space)
    _ensure_namespace(lab)
    os.environ.setdefault("SERVICELAB_USER_KUBECONFIG", os.environ.get("KUBECONFIG", ""))
    os.environ["KUBECONFIG"] = str(lab.kubeconfig)
    kubectl.put_first_on_path()
    _open.append(lab)
    keep_answers_with(lab.progress)
    _mend_shell_cells()
    if show:
        from . import card

        card.show(lab)
    return lab


def _mend_shell_cells() -> None:
    from .waiting import in_notebook

    if in_notebook():
        from IPython import get_ipython

        from . import shell_cells

        shell_cells.install(get_ipython())


@atexit.register
def _close_all() -> None:
    while _open:
        _open.pop().close()


def current() -> Lab | None:
    """The Lab of the last ``connect()`` in this program, if there is one."""
    return _open[-1] if _open else None


def with_namespace(file: Path, namespace: str) -> Path:
    """The kubeconfig whose context is in the learner's namespace: a file for each, since several notebooks share a cluster."""
    config = yaml.safe_load(file.read_text(encoding="utf-8"))
    contexts = config.get("contexts") or []
    if all((c["context"].get("namespace") or "default") == namespace for c in contexts):
        return file
    for c in contexts:
        c["context"]["namespace"] = namespace
    return write_private(file.with_name(f"kubeconfig-{namespace}"), yaml.safe_dump(config))


def _ensure_namespace(lab: Lab) -> None:
    try:
        found = lab.client.get("namespaces", lab.namespace)
    except ApiError as error:
        if error.code == 401:
            from .classroom.access import refusal

            if why := refusal(lab.kubeconfig):
                raise ClusterError(why) from error
        raise
    except NotAllowed:
        # a student may use a namespace without being allowed to look at the namespace itself
        try:
            lab.client.list("pods", lab.namespace)
        except NotAllowed as error:
            raise NotAllowed(
                f"You may not work in the namespace {lab.namespace!r} of this cluster: {error} "
                f"Without namespace=… connect() takes the one that your kubeconfig names."
            ) from error
        return
    except NotFound:
        try:
            body = {
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {"name": lab.namespace, "labels": {"servicelab.io/made-for": "lessons"}},
            }
            lab.client.request("POST", "/api/v1/namespaces", body)
        except NotAllowed as error:
            raise NotAllowed(
                f"There is no namespace {lab.namespace!r} in this cluster and you may not make it: {error} "
                "Ask whoever runs the cluster for a namespace, then connect(namespace=…)."
            ) from error
        except LabError as error:
            if getattr(error, "code", 0) != 409:  # 409: another notebook made it just now
                raise
        _until_pods_are_let_in(lab)
        return
    if found["metadata"].get("deletionTimestamp"):
        raise ClusterError(f"The namespace {lab.namespace!r} is just being deleted; wait until it is gone, then run connect() again.")


def _until_pods_are_let_in(lab: Lab) -> None:
    """Of a new namespace: its ServiceAccount comes a moment later, and pods are refused before."""
    from .waiting import wait_for

    def account_is_there() -> bool:
        """the new namespace has its ServiceAccount"""
        try:
            lab.client.get("serviceaccounts", "default", lab.namespace)
        except NotAllowed:
            return True  # not this learner's to see: no verdict
        return True

    wait_for(lab, account_is_there)
