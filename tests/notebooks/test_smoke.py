"""`servicelab smoke` and `servicelab record`: their options, their verdicts, what they refuse."""

from __future__ import annotations

import json
import secrets
import xml.etree.ElementTree as ET

import pytest

from servicelab import executing, record, smoke
from servicelab.cli import main
from servicelab.errors import LabError


def notebook(tmp_path, *sources: str, parameters: str = "number = 1"):
    """A notebook of our own, whose cells need no cluster."""
    cells = [
        {"cell_type": "code", "id": f"cell-{place}", "metadata": {"tags": ["parameters"]} if place == 0 else {}, "source": text,
         "outputs": [], "execution_count": None}
        for place, text in enumerate([parameters, *sources])
    ]  # fmt: skip
    metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    path = tmp_path / "99-made-up.ipynb"
    path.write_text(json.dumps({"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}))
    return path


def test_it_runs_with_parameters_and_tells_where_it_is(tmp_path):
    path = notebook(tmp_path, "assert number == 3", "print(number)")
    seen = []
    outcome = executing.execute(path, tmp_path / "out.ipynb", {"number": 3, "unheard_of": 1}, on_cell=lambda *where: seen.append(where))
    assert outcome.passed and (outcome.cells, outcome.done) == (3, 3)
    assert seen == [(1, 3), (2, 3), (3, 3)]
    printed = executing.code_cells(tmp_path / "out.ipynb")[-1]["outputs"][0]["text"]
    assert "".join(printed) == "3\n"


def test_it_names_the_failing_cell(tmp_path):
    path = notebook(tmp_path, "fine = 1", "# a comment\nraise ValueError('no good')", "print('never')")
    outcome = executing.execute(path, tmp_path / "out.ipynb")
    assert (outcome.passed, outcome.done, outcome.cells) == (False, 2, 4)
    assert outcome.cell.startswith("[cell-2]") and outcome.error == "ValueError: no good"
    suite = ET.fromstring(smoke.junit([outcome]))
    assert suite.get("failures") == "1" and "no good" in suite.find("testcase/failure").get("message")


def test_it_ends_a_run_that_takes_too_long(tmp_path):
    path = notebook(tmp_path, "import threading; threading.Event().wait()")
    outcome = executing.execute(path, tmp_path / "out.ipynb", timeout=6)
    assert not outcome.passed and "not done after 6 s" in outcome.error
    assert outcome.seconds < 120  # the cell itself never ends


def test_a_dead_kernel_is_reported(tmp_path):
    path = notebook(tmp_path, "import os; os._exit(3)")
    outcome = executing.execute(path, tmp_path / "out.ipynb", timeout=60)
    assert not outcome.passed and outcome.error


def test_wrong_options_are_errors(capsys):
    assert main(["smoke", "--only", "77"]) == 1
    assert "no notebook '77'" in capsys.readouterr().err
    assert main(["smoke", "-p", "replica", "3"]) == 1
    assert "no lesson chosen has a parameter 'replica'" in capsys.readouterr().err.lower()
    with pytest.raises(LabError, match="can't be read"):
        smoke.parsed([["replicas", "[1"]], executing.find("1"))
    assert smoke.parsed([["replicas", "3"], ["namespace", "null"]], executing.find("1")) == {"replicas": 3, "namespace": None}


def test_smoke_as_a_command(cluster, tmp_path, capsys):
    kept, junit, namespace = tmp_path / "kept", tmp_path / "results" / "junit.xml", f"t-{secrets.token_hex(4)}"
    options = ["--cluster", cluster.kind, "--only", "0", "--out", str(kept), "--junit", str(junit), "-p", "namespace", namespace]
    try:
        assert main(["smoke", *options]) == 0, capsys.readouterr()
    finally:
        cluster.kubectl("delete", "namespace", namespace, "--wait=false", "--ignore-not-found")
    assert "00-start-here" in capsys.readouterr().out
    assert (kept / "00-start-here.ipynb").is_file()
    assert ET.parse(junit).getroot().get("tests") == "1"


def test_what_recording_refuses():
    def output(text: str) -> list[dict]:
        return [{"output_type": "stream", "name": "stdout", "text": text}]

    record.refuse(output("pod/hello created\nGET /index.html 200\n/etc/nginx/ssl\nhttp://my-nginx/home/page\n"), "here")
    for wrong in ("Traceback (most recent call last)\n", "E1126 09:00:00.123456 1 x.go:1] oops", "see /home/someone/x", "/tmp/tmpab12/x"):
        with pytest.raises(LabError, match="here shows"):
            record.refuse(output(wrong), "here")
    with pytest.raises(LabError, match="standard error"):
        record.refuse([{"output_type": "stream", "name": "stderr", "text": "warning"}], "here")
    with pytest.raises(LabError, match="ends with an error"):
        record.refuse([{"output_type": "error", "ename": "E", "evalue": "v", "traceback": []}], "here")


def test_what_recording_takes_out():
    outputs = [
        {"output_type": "stream", "name": "stdout", "text": "\x1b[33mWarning\x1b[0m\r\n"},
        {"output_type": "stream", "name": "stdout", "text": "pods in h-x on made-up-worker2 and not in h-xy\n"},
        {"output_type": "execute_result", "data": {"text/plain": "a\nb", record.WIDGET: {"model_id": "1"}}, "execution_count": 9},
    ]
    first, second = record.scrubbed(outputs, {"h-x": "default", "made-up-worker": "servicelab-worker"}, 4)
    assert first["text"] == ["Warning\n", "pods in default on servicelab-worker2 and not in h-xy\n"]
    assert second["data"] == {"text/plain": ["a\n", "b"]} and second["execution_count"] == 4


def test_what_is_recorded_is_of_one_run(tmp_path):
    path = notebook(tmp_path, "print('10.244.1.9 Running')", "print('new')")
    changed, _ = record.record(path, {})
    assert changed == ["cell-1", "cell-2"]
    recorded = path.read_text()
    other_run = recorded.replace("10.244.1.9 Running\\n", "10.244.7.7 Running\\n")
    assert other_run != recorded
    path.write_text(other_run)
    assert record.record(path, {})[0] == [] and path.read_text() == other_run, "the same, but for an address"
    assert record.record(path, {}, fresh=True)[0] == [] and path.read_text() == recorded
    path.write_text(other_run.replace("new\\n", "old\\n"))
    assert record.record(path, {})[0] == ["cell-2"]
    assert path.read_text() == recorded, "what the first cell shows is of the same run as what the second shows"
    path.write_text(path.read_text().replace("print('new')", "raise KeyError('x')"))
    before = path.read_text()
    with pytest.raises(LabError, match=r"cell \[cell-2\]"):
        record.record(path, {})
    assert path.read_text() == before
