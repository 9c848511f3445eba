"""A Lab in a namespace of its own, and a machine made of pretended programs."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from servicelab import connecting
from servicelab.lab import Lab


@pytest.fixture(scope="module")
def lab(kube) -> Lab:
    """The learner's view of the test cluster, in the module's namespace."""
    made = Lab(kube.cluster.cluster, connecting.with_namespace(Path(kube.kubeconfig), kube.name), kube.name)
    yield made
    made.close()


class Programs:
    """A directory that is the whole PATH, with links to real programs and pretended ones."""

    REAL = (
        "sh", "cat", "echo", "env", "true", "false", "grep", "sed", "sleep", "dirname", "readlink", "cksum", "mkdir", "rm", "ls", "chmod",
        "id", "uname", "tail", "mktemp", "printf", "touch", "flock",
    )  # fmt: skip

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        for name in self.REAL:
            self.real(name)

    def real(self, name: str) -> None:
        for place in ("/usr/bin", "/bin", "/usr/sbin", "/sbin"):
            if (program := Path(place, name)).exists() and not (self.folder / name).exists():
                (self.folder / name).symlink_to(program)
                return

    def pretend(self, name: str, script: str) -> Path:
        """A shell script under this name."""
        path = self.folder / name
        path.unlink(missing_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return path


@pytest.fixture
def programs(tmp_path, monkeypatch) -> Programs:
    """PATH holds these alone, during the test."""
    made = Programs(tmp_path / "bin")
    monkeypatch.setenv("PATH", str(made.folder))
    return made


@pytest.fixture
def state(tmp_path, monkeypatch) -> Path:
    """A state directory of the test's own, and no cluster named by the environment."""
    folder = tmp_path / "state"
    monkeypatch.setenv("SERVICELAB_STATE", str(folder))
    for name in list(os.environ):
        if name in (
            "SERVICELAB_CLUSTER",
            "SERVICELAB_NAME",
            "SERVICELAB_USER_KUBECONFIG",
            "KUBERNETES_SERVICE_HOST",
            "SERVICELAB_KIND_IMAGE",
        ):
            monkeypatch.delenv(name)
    return folder
