"""What JupyterLab is given: a first layout, and defaults that the installed version knows."""

from __future__ import annotations

import json
import secrets
import socket
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from servicelab import serving
from servicelab.errors import LabError


def test_the_first_visit_has_the_file_list_folded_and_later_ones_are_left_alone(tmp_path):
    serving.furnish(tmp_path / "new")
    file = tmp_path / "new" / serving.DEFAULT_WORKSPACE
    written = json.loads(file.read_text())
    assert written["metadata"]["id"] == "default"
    assert written["data"]["layout-restorer:data"]["left"]["collapsed"] is True
    file.write_text('{"the learner\'s": "own"}')
    serving.furnish(tmp_path / "new")
    assert file.read_text() == '{"the learner\'s": "own"}'


def test_the_layout_has_the_name_that_this_jupyterlab_looks_for(tmp_path):
    from jupyterlab_server.workspaces_handler import WorkspacesManager

    serving.furnish(tmp_path)
    assert WorkspacesManager(str(tmp_path)).load("default")["data"]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(LabError, match=r"file/below can't be made: .* SERVICELAB_STATE"):
        serving.furnish(tmp_path / "file" / "below")


def test_a_port_that_another_lab_takes_meanwhile_costs_a_second_try(tmp_path, monkeypatch):
    monkeypatch.setenv("SERVICELAB_STATE", str(tmp_path))
    token, cluster, find, found = secrets.token_hex(24), SimpleNamespace(kind="pocket", name="x"), serving._free_port, []

    def found_free(wanted: int | None) -> int:
        found.append(find(wanted) if found else faster.getsockname()[1])
        return found[-1]

    monkeypatch.setattr(serving, "_free_port", found_free)
    with socket.socket() as faster, open(tmp_path / "log", "w+") as log:
        faster.bind(("127.0.0.1", 0))
        faster.listen()
        jupyter, port = serving._answering(cluster, None, token, log)
        serving.end_jupyter(jupyter)
        assert len(found) >= 2 and port == found[-1] != faster.getsockname()[1]


def test_every_default_is_a_setting_of_this_jupyterlab():
    defaults = json.loads((serving.SETTINGS / "labconfig" / "default_setting_overrides.json").read_text())
    schemas = Path(sys.prefix, "share", "jupyter", "lab", "schemas")
    for plugin, values in defaults.items():
        package, _, name = plugin.partition(":")
        known = json.loads((schemas / package / f"{name}.json").read_text())["properties"]
        assert values.keys() <= known.keys(), plugin
