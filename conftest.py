"""Gives notebooks that pytest runs (``pytest --nbval notebooks``) the same cluster as the tests: one for each worker.

Without it a lesson would run on whatever cluster this machine happens to have up.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness import close_shared_cluster, shared_cluster

collect_ignore_glob = ["notebooks/.*"]  # copies of a JupyterLab that saves
SPREAD = {"test_exercises.py", "test_lessons_in_browser.py"}  # each of their tests is a lesson of its own
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


@pytest.hookimpl(optionalhook=True)  # xdist is there in the lab's environment, but not in everyone's
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object | None:
    """With several workers a file stays on one, since its cells and fixtures belong together; files of long independent tests don't."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class LessonScheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.split("::", 1)[0]
            return nodeid if Path(file).name in SPREAD else file

    return LessonScheduling(config, log)


def pytest_unconfigure(config: pytest.Config) -> None:
    close_shared_cluster(config)
