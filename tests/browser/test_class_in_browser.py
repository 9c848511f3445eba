"""The teacher's notebook in the real JupyterLab: the board shows a student's check a moment later, and resets at two clicks."""

from __future__ import annotations

import os
import secrets

import pytest

from harness import eventually
from servicelab.classroom import access
from servicelab.classroom.create import create
from servicelab.classroom.delete import delete
from servicelab.classroom.names import Student
from servicelab.clusters.context import ContextCluster
from servicelab.lab import Lab

pytestmark = pytest.mark.kind
HEADLESS = False
ADA = Student("ada", "Ada Lovelace")


@pytest.fixture(scope="module", autouse=True)
def lab(cluster, tmp_path_factory):
    """A student's Lab, in a class of a random name; before `jupyter`, whose kernels learn that name from the environment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SERVICELAB_CLASS", f"b{secrets.token_hex(4)}")
        patch.setenv("SERVICELAB_CLUSTER", os.environ.get("SERVICELAB_CLUSTER") or "kind")
        patch.setenv("SERVICELAB_STATE", str(tmp_path_factory.mktemp("state")))
        folder = tmp_path_factory.mktemp("class")
        try:
            create(cluster.cluster, [ADA], out=folder)
            of_ada = ContextCluster(ADA.namespace)
            of_ada._file = access.file_of(folder, ADA)
            of_ada.namespace = ADA.namespace
            yield Lab(of_ada, access.file_of(folder, ADA), ADA.namespace)
        finally:
            delete(cluster.cluster, out=folder)


def test_the_board_is_live_in_the_teachers_notebook(lab, open_notebook, screenshots):
    page = open_notebook("notebooks/teacher/board.ipynb")
    page.run_all()
    row = "tbody[data-student=ada]"
    page.page.wait_for_selector(row)
    assert page.page.inner_text(f"{row} th") == "Student 1"
    page.page.click(".sl-board .bar button")
    page.until("() => document.querySelector('tbody[data-student=ada] th').textContent === 'Ada Lovelace'")
    lab.progress.record("check", "01.servers_run", False, "none are ready", "kubectl get pods", 1)
    page.until("() => document.querySelector('tbody[data-student=ada] td.stuck').textContent.includes('hint 1: kubectl get pods')")
    page.shoot_cell("board", screenshots / "class-board.png")
    lab.progress.record("check", "01.servers_run", True, "2 pods")
    page.until("() => document.querySelectorAll('tbody[data-student=ada] .cell.passed').length === 1")
    lab.apply("nginx-svc.yaml")
    page.page.dblclick(f"{row} button")  # to ask and to confirm at once: the question stands for 4 s only
    page.until("() => document.querySelector('.sl-board .notice').textContent === 'The lesson of Ada Lovelace is reset.'")
    eventually(lambda: not [service for service in lab.list("services") if service["metadata"]["name"] == "my-nginx"])
    assert page.errors == []
