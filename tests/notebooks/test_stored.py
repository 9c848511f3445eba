"""Every notebook as it is stored: whole, executed, in one form, with nothing of the machine that made it. No cluster needed."""

from __future__ import annotations

import ast
import builtins
import json
import re
from pathlib import Path

import pytest
import yaml

from servicelab import executing, lessons, quizzes, record
from servicelab.checks import check

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = executing.find()
TEACHING = [path for path in NOTEBOOKS if not path.name.startswith("07")]
LINE_OF_SHELL = re.compile(r"^(\s*)[!%](?:.*\\\n)*.*$", re.MULTILINE)  # a backslash at its end continues it
OUTPUT_OF_SHELL = re.compile(r"^(\s*\w+ = )!(?:.*\\\n)*.*$", re.MULTILINE)

each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
each_lesson = pytest.mark.parametrize("path", TEACHING, ids=lambda path: path.stem)


def content(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def source(cell: dict) -> str:
    return "".join(cell["source"])


def python_of(cell: dict) -> ast.Module:
    """A cell's Python, its lines for the shell left away."""
    text = source(cell)
    return ast.parse("" if text.startswith("%%") else OUTPUT_OF_SHELL.sub(r"\1[]", LINE_OF_SHELL.sub(r"\1pass", text)))


def defined(tree: ast.Module) -> set[str]:
    """The names that some Python defines."""
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef | ast.ExceptHandler) and node.name:
            names.add(node.name)
    return names


def calls(cell: dict, name: str) -> list[str]:
    """The methods or first arguments with which a name is used: `check.NAME(…)`, `quiz("KEY")`."""
    found = []
    for node in ast.walk(python_of(cell)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name):
            found += [node.func.attr] if node.func.value.id == name else []
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name:
            found += [ast.literal_eval(node.args[0])]
    return found


def test_the_lessons_are_those_of_the_registry():
    assert NOTEBOOKS, "there are no notebooks"
    known = {lesson.notebook for lesson in lessons.LESSONS}
    assert {path.name for path in NOTEBOOKS} <= known


@each
def test_one_form(path):
    assert path.read_text(encoding="utf-8") == record.dumps(content(path)), f"`servicelab record {path.name}` writes it in its one form"
    ids = [cell["id"] for cell in content(path)["cells"]]
    assert len(set(ids)) == len(ids)
    assert all(one.startswith(path.name[:2]) for one in ids), ids


@each
def test_it_is_stored_executed(path):
    cells = executing.code_cells(path)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1)), "nbval compares nothing without these counts"
    assert sum(bool(cell["outputs"]) for cell in cells) > len(cells) // 2


@each
def test_nothing_in_the_outputs_that_does_not_belong_there(path):
    for cell in executing.code_cells(path):
        record.refuse(cell["outputs"], f"{path.name} [{cell['id']}]")
        for output in cell["outputs"]:
            assert record.WIDGET not in output.get("data", {}), f"[{cell['id']}] stores a widget's id, which no viewer can draw"


@each
def test_a_comparison_that_is_switched_off_is_followed_by_a_check(path):
    cells = executing.code_cells(path)
    for place, cell in enumerate(cells):
        by_comment = re.search(r"#\s*(NBVAL_|PYTEST_VALIDATE_IGNORE)", source(cell))
        if by_comment or {"nbval-ignore-output", "nbval-skip"} & set(executing.tags(cell)):
            after = [name for later in cells[place : place + 4] for name in calls(later, "check")]
            assert after, f"[{cell['id']}] is not compared, and no check follows it"


@each
def test_the_frame(path):
    cells = content(path)["cells"]
    assert cells[0]["cell_type"] == "markdown" and source(cells[0]).startswith("# ")
    code = executing.code_cells(path)
    assert "parameters" in executing.tags(code[0])
    assert {"cluster", "namespace"} <= executing.parameters_of(path)
    assert "from servicelab import" in source(code[1]) and "connect(cluster, namespace)" in source(code[1])
    assert "lab.reset(" in source(code[-1])


@each
def test_every_cell_stands_on_its_own_after_a_restart(path):
    """After a restart one runs the parameters, the connection and the cell where one was: it may use what these define, and no more."""
    code = executing.code_cells(path)
    base = defined(python_of(code[0])) | defined(python_of(code[1])) | set(dir(builtins))
    for cell in code[2:]:
        tree = python_of(cell)
        used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
        foreign = used - base - defined(tree)
        assert not foreign, f"[{cell['id']}] uses {sorted(foreign)} of another cell"


@each_lesson
def test_questions_checks_and_exercises(path):
    code = executing.code_cells(path)
    asked = [key for cell in code for key in calls(cell, "quiz")]
    assert len(asked) >= 3 and len(set(asked)) == len(asked)
    assert set(asked) <= set(quizzes.all_quizzes())
    kinds = [next((tag for tag in ("exercise", "solution") if tag in executing.tags(cell)), "") for cell in code]
    assert kinds.count("exercise") >= 2
    assert kinds.count("solution") >= kinds.count("exercise")
    for place, kind in enumerate(kinds):
        if kind == "solution":
            assert code[place]["metadata"].get("jupyter", {}).get("source_hidden"), f"[{code[place]['id']}] gives the solution away"
            # JupyterLab shows the first line of a folded cell.
            assert source(code[place]).startswith(("#", "%%")), f"[{code[place]['id']}] shows its solution although it is folded"
            later = next(cell for cell, k in zip(code[place + 1 :], kinds[place + 1 :], strict=True) if k != "solution")
            assert calls(later, "check"), f"no check follows the solution [{code[place]['id']}]"


@each
def test_boards_list_what_a_lesson_asks_in_its_order(path):
    lesson, code = int(path.name[:2]), executing.code_cells(path)
    known = [one.name for one in check if one.lesson == lesson]
    checked = [name for cell in code for name in calls(cell, "check")]
    assert list(dict.fromkeys(name for name in checked if name in known)) == known
    assert [key for cell in code for key in calls(cell, "quiz")] == [k for k in quizzes.all_quizzes() if k.startswith(path.name[:2])]


@each
def test_manifests_and_what_they_make(path):
    text = "\n".join(source(cell) for cell in content(path)["cells"])
    names = set(re.findall(r"manifests/([\w.-]+\.yaml)", text)) | set(re.findall(r'"([\w.-]+\.yaml)"', text))
    for name in names:
        file = ROOT / "manifests" / name
        assert file.is_file(), f"{path.name} needs manifests/{name}"
        for obj in yaml.safe_load_all(file.read_text(encoding="utf-8")):
            made = (obj["kind"].lower(), obj["metadata"]["name"])
            assert made in lessons.MADE, f"lab.reset() leaves {made} of {name} behind: it isn't in servicelab/lessons.py"


def test_images_are_pinned():
    for file in (ROOT / "manifests").glob("*.yaml"):
        for image in re.findall(r"^\s*-?\s*image:\s*(\S+)", file.read_text(encoding="utf-8"), re.MULTILINE):
            assert re.search(r":\d", image), f"{file.name}: {image} may mean something else tomorrow"


def test_masks_can_be_read_and_keep_what_matters():
    rules = record.sanitizers()
    # nbval reads a mask only with something after `replace: `; one that it passes over would show as a difference much later.
    text = record.SANITIZE.read_text(encoding="utf-8")
    assert len(rules) == text.count("\nregex:") == text.count("\nreplace:")
    one = "my-nginx-7897d99465-cscqp   1/1     Running   0          2s    10.244.1.43   servicelab-worker2   <none>\r\n"
    other = "my-nginx-67df47756-5kqmp    1/1   Running  0   3m12s   10.244.2.7   lab-x1-worker   <none>\n"
    assert record.sanitized(one, rules) == record.sanitized(other, rules)
    for wrong in (one.replace("Running", "Pending"), one.replace("1/1", "0/1"), one.replace("my-nginx", "my-ngnix")):
        assert record.sanitized(wrong, rules) != record.sanitized(other, rules)
    assert record.sanitized("10.96.0.10 10.96.7.4", rules) == "10.96.0.10 SERVICE-IP"
    # busybox' nslookup: an empty line for the answer about IPv6, whichever came first
    first, last = "Address:\t10.96.0.10:53\n\n\nName:\tx\nAddress: y\n\n", "Address:\t10.96.0.10:53\n\nName:\tx\nAddress: y\n\n\n"
    assert record.sanitized(first, rules) == record.sanitized(last, rules)
    # a Service that finds nobody, before and after its empty EndpointSlice is made; not one that should have found somebody
    none, empty = "Endpoints:                <none>\nSession\n", "Endpoints:                \nSession\n"
    some = "Endpoints:                10.244.1.2:80\nSession\n"
    assert record.sanitized(none, rules) == record.sanitized(empty, rules) != record.sanitized(some, rules)
