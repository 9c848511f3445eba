"""`servicelab record`: run the lessons and store what they show as the expected outputs.

Real Kubernetes is the reference, so it records on kind unless told otherwise. Whatever is only this machine's is taken out, and an
output that should not be in a lesson is refused. A lesson is stored as one run showed it, so that an address in one cell is the address
in the next; where nothing differs from what is stored but what `tests/sanitize.cfg` masks, the file is left as it was.
"""

from __future__ import annotations

import argparse
import getpass
import json
import os
import platform
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from . import executing
from .capstone.plan import other_namespace
from .errors import LabError

SANITIZE = Path(__file__).resolve().parents[2] / "tests" / "sanitize.cfg"
WIDGET = "application/vnd.jupyter.widget-view+json"

# What must not stand in a stored output, and why.
REFUSED = (
    (re.compile(r"Traceback \(most recent call last\)"), "a Python traceback"),
    (re.compile(r"^[EWIF]\d{4} \d\d:\d\d:\d\d\.\d+", re.MULTILINE), "a line of a Kubernetes program's own log (klog)"),
    (re.compile(r"(?<![\w/.:])/(?:home|root|tmp|work|Users|var/folders|private/tmp)/[\w.@-]+"), "a path of this machine"),
    (re.compile(r"[A-Z]:\\\\Users\\\\"), "a path of this machine"),
)


def add_parser(commands) -> None:
    """Add `record` to the `servicelab` command."""
    from .cli import cluster_options

    text = "Run the lessons and store their outputs as the expected ones. Records on kind, the reference, unless --cluster says otherwise."
    parser = commands.add_parser("record", help="store the lessons' outputs anew", description=text)
    cluster_options(parser)
    parser.add_argument("notebooks", nargs="*", metavar="NOTEBOOK", help="numbers or files; all when none is given")
    parser.add_argument("--fresh", action="store_true", help="store this run also where only masked things differ, such as pictures")
    parser.add_argument("--namespace", help="record in this namespace (stored as if it were the default one)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command.

    Raises:
        LabError: a lesson failed, or shows what must not be stored; nothing of that lesson is stored then.
    """
    from .cli import running

    if not getattr(args, "cluster", None) and not os.environ.get("SERVICELAB_CLUSTER"):
        args.cluster = "kind"
    cluster = running(args)
    environment = {"SERVICELAB_CLUSTER": cluster.kind, "SERVICELAB_NAME": os.environ.get("SERVICELAB_NAME") or "servicelab"}
    for notebook in executing.find(",".join(args.notebooks) or None):
        changed, seconds = record(notebook, environment, namespace=args.namespace, cluster_name=cluster.name, fresh=args.fresh)
        print(f"✓ {notebook.name}: {len(changed)} cells changed, {seconds:.0f} s" + (f": {', '.join(changed)}" if changed else ""))
    return 0


def record(
    notebook: Path, environment: dict[str, str], *, namespace: str | None = None, cluster_name: str = "servicelab", fresh: bool = False
) -> tuple[list[str], float]:
    """Run one notebook, and store all of its outputs in it when any of them has changed.

    Args:
        notebook: the file.
        environment: environment variables for the run; they choose the cluster.
        namespace: where to run it; the outputs then say `default` instead.
        cluster_name: the cluster's name; the outputs then say `servicelab` instead.
        fresh: store them in any case.

    Returns:
        tuple: the ids of the cells whose outputs have changed, and how many seconds it took.

    Raises:
        LabError: a cell failed, or an output is refused.
    """
    with tempfile.TemporaryDirectory(prefix="servicelab-record-") as folder:
        out = Path(folder) / notebook.name
        outcome = executing.execute(notebook, out, {"namespace": namespace} if namespace else None, environment=environment)
        if not outcome.passed:
            raise LabError(f"{notebook.name} can't be recorded: cell {outcome.cell} fails: {outcome.error}")
        executed = {cell["id"]: cell for cell in executing.code_cells(out)}
    names = {f"{cluster_name}-{role}": f"servicelab-{role}" for role in ("control-plane", "worker")}
    if namespace:
        names |= {namespace: "default", other_namespace(namespace): other_namespace("default")}
    content = json.loads(notebook.read_text(encoding="utf-8"))
    rules = sanitizers()
    changed, count = [], 0
    for cell in content["cells"]:
        if cell["cell_type"] != "code":
            continue
        count += 1
        outputs = scrubbed(executed[cell["id"]]["outputs"], names, count)
        refuse(outputs, f"{notebook.name}, cell [{cell['id']}]")
        if not _same(cell["outputs"], outputs, rules):
            changed.append(cell["id"])
        fresh = fresh or cell["execution_count"] != count  # a cell that came, went or moved
        cell["outputs"], cell["execution_count"] = outputs, count
    if changed or fresh:
        notebook.write_text(dumps(content), encoding="utf-8")
    return changed, outcome.seconds


def dumps(content: dict[str, Any]) -> str:
    """A notebook as it is kept in the repository: one form only, so that the same notebook is the same bytes."""
    return json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def scrubbed(outputs: list[dict[str, Any]], names: dict[str, str], count: int) -> list[dict[str, Any]]:
    """Outputs without what belongs to this run alone: colours, widget ids, names that the run was given.

    Args:
        outputs: as the kernel sent them.
        names: what to write instead of which words.
        count: the cell's place among the code cells.
    """
    result: list[dict[str, Any]] = []
    for output in outputs:
        kind = output["output_type"]
        if kind == "stream":
            text = executing.ANSI.sub("", _text(output["text"])).replace("\r\n", "\n")
            if result and result[-1]["output_type"] == "stream" and result[-1]["name"] == output["name"]:
                result[-1]["text"] += text
            else:
                result.append({"name": output["name"], "output_type": kind, "text": text})
        elif kind in ("display_data", "execute_result"):
            # A widget's id names a model that is gone with its kernel: a viewer would wait for it and show nothing.
            data = {mime: value if isinstance(value, dict) else _text(value) for mime, value in output["data"].items() if mime != WIDGET}
            one = {"data": data, "metadata": output.get("metadata", {}), "output_type": kind}
            result.append(one | ({"execution_count": count} if kind == "execute_result" else {}))
        else:
            result.append(output)
    text = json.dumps(result, ensure_ascii=False)
    for old, new in names.items():
        text = re.sub(rf"(?<![a-z0-9]){re.escape(old)}(?![a-zA-Z_-])", new, text)
    return [_with_lines(output) for output in json.loads(text)]


def refuse(outputs: Iterable[dict[str, Any]], where: str) -> None:
    """See that outputs may be stored.

    Args:
        outputs: of one cell.
        where: which cell, for the error.

    Raises:
        LabError: an error, a traceback, a log line, a path or a name of this machine; with what was found.
    """
    words = {platform.node(): "the name of this machine", getpass.getuser(): "the name of a user of this machine"}
    for output in outputs:
        if output["output_type"] == "error":
            raise LabError(f"{where} ends with an error: {output['ename']}: {output['evalue']}")
        if output["output_type"] == "stream" and output["name"] == "stderr":
            raise LabError(f"{where} complains on standard error: {_text(output['text'])[:500]}")
        text = shown(output)
        for pattern, what in REFUSED:
            if found := pattern.search(text):
                raise LabError(f"{where} shows {what}: {found.group(0)!r}. Change the cell so that it doesn't.")
        for word, what in words.items():
            # Short or common words ("root", "user") are in many an honest output.
            if len(word) > 5 and word not in ("localhost", "servicelab") and re.search(rf"\b{re.escape(word)}\b", text):
                raise LabError(f"{where} shows {what}: {word!r}. Change the cell so that it doesn't.")


def shown(output: dict[str, Any]) -> str:
    """Everything textual in an output, in one string."""
    if output["output_type"] == "stream":
        return _text(output["text"])
    if output["output_type"] == "error":
        return "\n".join(output.get("traceback", []))
    return "\n".join(_text(value) for mime, value in sorted(output["data"].items()) if mime != WIDGET and not isinstance(value, dict))


def sanitizers(path: Path = SANITIZE) -> list[tuple[re.Pattern[str], str]]:
    """The masks of `tests/sanitize.cfg`, read exactly as nbval reads them.

    Raises:
        LabError: the file isn't there, or a mask is not a regular expression.
    """
    try:
        pairs = re.findall(r"^regex: (.*)$\n^replace: (.*)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        return [(re.compile(regex), replacement) for regex, replacement in pairs]
    except OSError as error:
        raise LabError(f"The masks for comparing outputs can't be read: {path}: {error.strerror}") from error
    except re.error as error:
        raise LabError(f"{path}: {error.pattern!r} is not a regular expression: {error}") from error


def sanitized(text: str, rules: list[tuple[re.Pattern[str], str]]) -> str:
    """A text with everything masked that is random by nature."""
    for pattern, replacement in rules:
        text = pattern.sub(replacement, text)
    return text


def _same(old: list[dict[str, Any]], new: list[dict[str, Any]], rules: list[tuple[re.Pattern[str], str]]) -> bool:
    def essence(outputs: list[dict[str, Any]]) -> list[Any]:
        return [
            (o["output_type"], o.get("name"), sorted(o.get("data", {}).keys() - {WIDGET}), sanitized(shown(o), rules)) for o in outputs
        ]

    return essence(old) == essence(new)


def _text(value: str | list[str]) -> str:
    return value if isinstance(value, str) else "".join(value)


def _with_lines(output: dict[str, Any]) -> dict[str, Any]:
    """Texts as lists of lines, as notebooks are stored: a change is then a change of lines."""
    if output["output_type"] == "stream":
        return output | {"text": output["text"].splitlines(keepends=True)}
    if "data" in output:
        lines = {mime: value.splitlines(keepends=True) if isinstance(value, str) else value for mime, value in output["data"].items()}
        return output | {"data": lines}
    return output
