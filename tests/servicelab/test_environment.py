"""What is needed is said in three files; they say the same."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]


def _project() -> list[str]:
    if sys.version_info >= (3, 11):
        import tomllib

        data = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        return [*data["dependencies"], *data["optional-dependencies"]["test"]]
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    blocks = re.findall(r"^(?:dependencies|test) = \[\n(.*?)^\]", text, re.M | re.S)
    return re.findall(r'"([^"]+)"', "".join(blocks))


def _bare(requirement: str) -> str:
    return re.split(r"[<>=!~\[ ;]", requirement)[0].lower().replace("_", "-")


def test_conda_environment_is_equal_to_pyproject():
    data = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    pip = next(d["pip"] for d in data["dependencies"] if isinstance(d, dict))
    assert sorted(pip) == sorted(_project())


def test_every_dependency_is_pinned_and_nothing_names_a_host():
    lines = [line.strip() for line in (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()]
    pins = {_bare(line) for line in lines if line and not line.startswith("#")}
    assert {_bare(r) for r in _project()} <= pins
    for line in lines:
        assert not line or line.startswith("#") or re.match(r"[A-Za-z0-9._-]+==\S+", line), line
        assert "://" not in line


def test_every_dependency_has_its_reason():
    words = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    missing = [name for name in map(_bare, _project()) if not re.search(rf"\b{re.escape(name)}\b", words, re.I)]
    assert missing == []


@pytest.mark.parametrize("name", ["lab", ".ci/run"])
def test_scripts_parse(name):
    import subprocess

    shell = "bash" if (ROOT / name).read_text(encoding="utf-8").startswith("#!/bin/bash") else "sh"
    done = subprocess.run([shell, "-n", str(ROOT / name)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (ROOT / name).stat().st_mode & 0o111
