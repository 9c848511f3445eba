"""Where the lab keeps its files: kubeconfigs and the state of pocket clusters, never in the user's ``~/.kube``."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

from .errors import LabError

DEFAULT_NAME = "servicelab"
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,48}[a-z0-9])?")


def state_dir() -> Path:
    """The state directory: ``$SERVICELAB_STATE``, else ``$XDG_STATE_HOME/servicelab``, else ``~/.local/state/servicelab``."""
    if own := os.environ.get("SERVICELAB_STATE"):
        return Path(own).expanduser().absolute()
    base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(base).expanduser().absolute() / "servicelab"


def cluster_name() -> str:
    """The cluster's name: ``$SERVICELAB_NAME`` or ``servicelab``.

    Raises:
        LabError: the name can't be part of a host name, as kind and the pocket cluster need it.
    """
    return checked_name(os.environ.get("SERVICELAB_NAME") or DEFAULT_NAME)


def checked_name(name: str) -> str:
    """``name`` if it can name a cluster, else a LabError which says what a name looks like."""
    if not _NAME.fullmatch(name):
        raise LabError(
            f"{name!r} can't be a cluster's name: it becomes part of host names, so use up to 50 lower-case letters, "
            "digits and '-', starting and ending with a letter or digit (SERVICELAB_NAME or --name)."
        )
    return name


def cluster_dir(name: str, prefix: str = "") -> Path:
    """The directory of one cluster, made (0700) when it isn't there. A prefix keeps clusters of one name but other kinds apart.

    Raises:
        LabError: it can't be made, with the reason and the way out.
    """
    path = state_dir() / "clusters" / f"{prefix}{checked_name(name)}"
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise LabError(
            f"The lab can't keep its files in {path}: {error.strerror}. "
            "Make the directory writable, or set SERVICELAB_STATE to one that is."
        ) from error
    return path


def write_private(path: Path, text: str) -> Path:
    """Writes a file only its owner can read (0600), at once and whole: readers see the old text or the new one."""
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise LabError(
            f"The lab can't write {path}: {error.strerror}. Free some space there, or set SERVICELAB_STATE elsewhere."
        ) from error
    return path
