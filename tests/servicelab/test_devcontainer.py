"""The devcontainer's description holds to what is in this repository; its images and features come from a registry, and aren't tried."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from servicelab import doctor, serving

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".devcontainer"


@pytest.fixture(scope="module")
def described() -> dict:
    text = (FOLDER / "devcontainer.json").read_text(encoding="utf-8")
    return json.loads("\n".join(line for line in text.splitlines() if not line.strip().startswith("//")))


def test_it_has_docker_inside_and_opens_the_first_lesson(described):
    assert any("/docker-in-docker:" in feature for feature in described["features"])
    opened = described["customizations"]["codespaces"]["openFiles"]
    assert opened == [serving.FIRST]
    for name in opened:
        assert (ROOT / name).is_file()
    python = described["customizations"]["vscode"]["settings"]["python.defaultInterpreterPath"]
    assert python.removeprefix("${containerWorkspaceFolder}/") == ".venv/bin/python", "where ./lab makes its environment"


def test_its_commands_are_files_of_this_repository(described):
    for command in (described["onCreateCommand"], described["postStartCommand"]):
        program = command.removeprefix("sh ").split()[0]
        assert (ROOT / program).is_file() and (ROOT / program).stat().st_mode & 0o111


def test_its_ports_are_the_clusters(described):
    config = yaml.safe_load((ROOT / "kind-config.yaml").read_text(encoding="utf-8"))
    mapped = [m["hostPort"] for node in config["nodes"] for m in node.get("extraPortMappings", [])]
    assert set(mapped) < set(described["forwardPorts"])
    assert {int(port) for port in described["portsAttributes"]} == set(described["forwardPorts"])


def test_it_prepares_what_the_lab_needs():
    script = FOLDER / "prepare.sh"
    assert subprocess.run(["sh", "-n", str(script)], check=False).returncode == 0
    text = script.read_text(encoding="utf-8")
    installed = set(re.search(r"apt-get install -y --no-install-recommends (.+)", text)[1].split())
    assert {package for _, package in doctor.PROGRAMS} <= installed
    assert "sha256sum -c" in text, "what is downloaded is compared with its sum"


def test_what_works_there_is_written_down():
    words = (ROOT / "docs" / "devcontainer.md").read_text(encoding="utf-8")
    for name in re.findall(r"`((?:\.devcontainer|notebooks|tests)/[\w./-]+\.\w+)`", words):
        assert (ROOT / name).exists(), name
