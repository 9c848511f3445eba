"""Every lesson run with other numbers in a namespace of its own: its exercises' checks fail before the solution and pass after it."""

from __future__ import annotations

import json
import textwrap

import pytest

from harness import ROOT
from servicelab import executing

BEFORE = """
import os
from servicelab.checks import CheckFailed
os.environ["SERVICELAB_PATIENCE"] = "0.5"  # there is nothing to wait for
try:
{check}
except CheckFailed as error:
    print(error)
else:
    raise AssertionError("the check passes, and nobody has done the exercise yet")
finally:
    del os.environ["SERVICELAB_PATIENCE"]
"""


def with_checks_before(notebook: dict) -> tuple[dict, int]:
    """A notebook in which each exercise's check is asked before the solution too, and must fail there; and how many are."""
    cells, added, behind = [], 0, None
    for place, cell in enumerate(notebook["cells"]):
        tags = executing.tags(cell)
        if "solution" in tags and behind is None:
            behind = next(c for c in notebook["cells"][place:] if c["cell_type"] == "code" and "solution" not in executing.tags(c))
            check = textwrap.indent("".join(behind["source"]), "    ")
            added += 1
            extra = {"source": BEFORE.format(check=check), "id": f"{behind['id']}-before"}
            cells.append({"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None, **extra})
        if cell is behind:
            behind = None
        cells.append(cell)
    return notebook | {"cells": cells}, added


@pytest.mark.parametrize("path", executing.find(), ids=lambda path: path.stem)
def test_exercises(path, fresh, tmp_path):
    notebook, added = with_checks_before(json.loads(path.read_text(encoding="utf-8")))
    # Not beside the others: tests of another worker read or copy that folder. Lessons name their manifests by a relative path.
    (tmp_path / "manifests").symlink_to(ROOT / "manifests")
    copy = tmp_path / "notebooks" / path.name
    copy.parent.mkdir()
    copy.write_text(json.dumps(notebook), encoding="utf-8")
    parameters = {"namespace": fresh.name, "replicas": 3, "node_port": "auto"}
    environment = {"SERVICELAB_CLUSTER": fresh.cluster.kind}
    outcome = executing.execute(copy, tmp_path / path.name, parameters, environment=environment, timeout=1200)
    assert outcome.passed, f"{outcome.cell}\n{outcome.error}"
    assert path.name.startswith("07") or added >= 2
    left = [f"{kind}/{item['metadata']['name']}" for kind in ("deployments", "pods", "services") for item in fresh.list(kind)]
    assert not left, f"the lesson leaves {left} behind"
