"""docs/coverage.md: each statement of the document has cells that show it, and those cells are there."""

import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COVERAGE = ROOT / "docs" / "coverage.md"
SECTIONS = 6  # of the document


def _rows() -> list[list[str]]:
    """The cells of each row of each table, without heads and rules."""
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in COVERAGE.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows if row[1].strip() not in ("lesson", "---")]


def _cell_ids() -> set[str]:
    return {
        cell["id"]
        for notebook in (ROOT / "notebooks").glob("[0-9]*.ipynb")  # no hidden copy of a JupyterLab that saves
        for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    }


def test_every_cell_that_is_named_exists():
    there = _cell_ids()
    missing = {name for _, _, cells, _ in _rows() for name in re.findall(r"`([^`]+)`", cells)} - there
    assert not missing, f"docs/coverage.md names cells that no notebook has: {', '.join(sorted(missing))}"


def test_every_statement_has_cells_of_its_lesson():
    for said, lesson, cells, _ in _rows():
        names = re.findall(r"`([^`]+)`", cells)
        assert names, f"nothing shows: {said}"
        assert all(name.startswith(f"{lesson}-") for name in names), f"cells of another lesson than {lesson} for: {said}"


def test_every_lesson_of_the_document_is_in_it():
    assert {row[1] for row in _rows()} == {f"{number:02}" for number in range(1, 7)}
    assert len(re.findall(r"^## ", COVERAGE.read_text(encoding="utf-8"), re.M)) == SECTIONS


def test_corrections_are_told_in_the_lesson_too():
    """Each "what changed since the document" box is named in the table: none of them is forgotten there."""
    boxes = {
        cell["id"]
        for notebook in (ROOT / "notebooks").glob("0[1-6]*.ipynb")
        for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        if cell["cell_type"] == "markdown" and "**What changed since the document**" in "".join(cell["source"])
    }
    named = {name for _, _, cells, _ in _rows() for name in re.findall(r"`([^`]+)`", cells)}
    assert not boxes - named, f"boxes that docs/coverage.md doesn't name: {', '.join(sorted(boxes - named))}"
