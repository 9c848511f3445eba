"""Gives notebooks that pytest runs (``pytest --nbval notebooks``) the same cluster as the tests: one for each worker.

Without it a lesson would run on whatever cluster this machine happens to have up.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness import close_shared_cluster, shared_cluster

collect_ignore_glob = ["notebooks/.*"]  # a copy that a killed test has left
LIB = str(Path(__file__).resolve().parent / "lib")


@pytest.hookimpl(tryfirst=True)  # before pytest's own set-up of the cell's notebook, in which nbval starts the kernel
def pytest_runtest_setup(item: pytest.Item) -> None:
    if type(item).__module__.startswith("nbval"):
        os.environ["SERVICELAB_HEADLESS"] = "1"
        # kernels run in notebooks/: a relative PYTHONPATH would lead nowhere there
        if LIB not in os.environ.get("PYTHONPATH", "").split(os.pathsep):
            os.environ["PYTHONPATH"] = os.pathsep.join(p for p in (LIB, os.environ.get("PYTHONPATH")) if p)
        os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
        if os.environ.get("SERVICELAB_CLUSTER"):
            return  # whoever names a cluster means it
        cluster = shared_cluster(item.config)
        if cluster.kind == "kind":
            os.environ["SERVICELAB_CLUSTER"] = "kind"
        # a pocket cluster is found by SERVICELAB_STATE and SERVICELAB_NAME, which the harness has set: it is the one that is up


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With several workers (``--dist loadgroup``) a file stays on one, as its cells or fixtures belong together, unless marked `spread`."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.nodeid if item.get_closest_marker("spread") else str(item.path)))


def pytest_unconfigure(config: pytest.Config) -> None:
    close_shared_cluster(config)
