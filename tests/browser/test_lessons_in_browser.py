"""Each lesson in the real JupyterLab: Run All, no error, every widget drawn, no text cut off, in light and dark; pictures of it all.

``./lab test --browser tests/browser --screenshots DIR`` keeps the pictures, and goes through each lesson a second time, cell by cell, to
have each view as a learner sees it at that moment: after Run All the live ones show the lesson's end.
"""

from __future__ import annotations

import warnings

import pytest
from browsing import KernelEnded

from harness import ROOT

DARK = "02"  # the lesson with the most pictures is looked at in the dark, too; all of them with --screenshots
LESSONS = sorted(path.name for path in (ROOT / "notebooks").glob("[0-9]*.ipynb"))


@pytest.mark.parametrize("lesson", LESSONS)
def test_lesson_runs_and_is_drawn(lesson, open_notebook, screenshots, request):
    page = open_notebook(f"notebooks/{lesson}")
    try:
        page.run_all()
    except KernelEnded as ended:
        warnings.warn(f"run once more, since {ended}", stacklevel=1)
        page = open_notebook(f"notebooks/{lesson}")
        page.run_all()
    assert [cell["id"] for cell in page.cells() if cell["source"].strip() and cell["count"] is None] == []
    page.assert_drawn()
    cut_off = page.cut_off()
    number = lesson[:2]
    page.shoot(screenshots / f"{number}-light")
    kept = request.config.getoption("--screenshots")
    if kept or number == DARK:
        page.theme("Dark")
        page.assert_drawn()
        page.shoot(screenshots / f"{number}-dark")
        page.theme("Light")
    if kept:
        cut_off += walk(page, screenshots, number)
    assert cut_off == []


def walk(page, screenshots, number) -> list[str]:
    cut_off = []
    for place, cell in enumerate(page.cells()):
        outputs = page.run(cell["id"])
        if any("application/vnd.jupyter.widget-view+json" in output.get("data", {}) for output in outputs):
            page.assert_drawn()
            page.shoot_cell(cell["id"], screenshots / f"{number}-cell-{place:02d}-{cell['id']}.png")
            cut_off += page.cut_off()
    return cut_off
