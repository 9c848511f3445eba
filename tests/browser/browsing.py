"""The real JupyterLab, started as ``./lab`` starts it, and Debian's Chromium on its page, driven by Playwright."""

from __future__ import annotations

import json
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from harness import ROOT, TestCluster
from servicelab import serving
from servicelab.errors import LabError

CHROMIUMS = ("chromium", "chromium-browser", "google-chrome")
LESSON_SECONDS = 420  # the longest lesson on a machine with 2 busy cores; alone it takes a twentieth of that
PAGE_SECONDS = 120  # anything else that the page must do
WIDTH, HEIGHT = 1280, 1000
LATE_MODEL = "[anywidget] Failed to initialize model."
SCRIPT = (Path(__file__).parent / "page.js").read_text(encoding="utf-8")


class KernelEnded(AssertionError):
    """The kernel was gone before the lesson was through; carries JupyterLab's last words."""


def chromium() -> str | None:
    """The path of this machine's Chromium, or None."""
    return next(filter(None, map(shutil.which, CHROMIUMS)), None)


@dataclass
class Jupyter:
    """A running JupyterLab.

    Attributes:
        root: the directory that it shows: a copy, since a run writes into the notebooks.
        workspaces: where it remembers what was open.
        port: where it listens.
        token: what a browser must present.
        log: the open file of what it says.
    """

    root: Path
    workspaces: Path
    port: int
    token: str
    log: IO[str]

    def url(self, notebook: str) -> str:
        """Where a notebook below ``root`` is opened."""
        return f"http://127.0.0.1:{self.port}/lab/tree/{notebook}?token={self.token}"

    def first_visit(self) -> None:
        """Forgets what was open, so that the next page shows what ``./lab`` shows a new learner."""
        (self.workspaces / serving.DEFAULT_WORKSPACE).unlink(missing_ok=True)
        serving.furnish(self.workspaces)

    def write(self, notebook: str, cells: Iterable[str]) -> str:
        """Makes a notebook of these code cells (ids c0, c1, …); its path below ``root``."""
        made = [
            {"cell_type": "code", "id": f"c{n}", "metadata": {}, "source": source, "outputs": [], "execution_count": None}
            for n, source in enumerate(cells)
        ]
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        content = {"nbformat": 4, "nbformat_minor": 5, "metadata": kernel, "cells": made}
        (self.root / notebook).write_text(json.dumps(content), encoding="utf-8")
        return notebook


@contextmanager
def jupyter(cluster: TestCluster, directory: Path) -> Iterator[Jupyter]:
    """JupyterLab on copies of the notebooks, their outputs removed, in ``directory``; ends with its kernels.

    Raises:
        LabError: it does not start; with its own words.
    """
    root = directory / "lessons"
    for folder in ("notebooks", "manifests"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    for notebook in (root / "notebooks").glob("*.ipynb"):
        _forget_outputs(notebook)
    settings = directory / "settings"
    for name, values in {
        # all cells are on the page at once, so that each can be looked at; people keep JupyterLab's own default
        "notebook-extension/tracker": {"windowingMode": "none"},
        "docmanager-extension/plugin": {"autosave": False},
    }.items():
        file = settings / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(values), encoding="utf-8")
    options = ["--LabApp.expose_app_in_browser=True", f"--LabApp.user_settings_dir={settings}"]
    workspaces = directory / "workspaces"
    with tempfile.TemporaryFile("w+") as log:
        program, port, token = _started(cluster, log, root=root, workspaces=workspaces, options=options)
        try:
            yield Jupyter(root, workspaces, port, token, log)
        finally:
            serving.end_jupyter(program)


def _started(cluster: TestCluster, log: IO[str], **more: Any) -> tuple[subprocess.Popen, int, str]:
    token = secrets.token_hex(24)
    for attempt in range(3):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        program = serving.start_jupyter(cluster.cluster, port, token, log, **more)
        try:
            serving.wait_for_jupyter(program, port, token, log)
        except LabError as error:
            serving.end_jupyter(program)
            if attempt == 2 or "already in use" not in str(error):  # another program took the port in between
                raise
        else:
            return program, port, token
    raise AssertionError("unreachable")


def _forget_outputs(notebook: Path) -> None:
    content = json.loads(notebook.read_text(encoding="utf-8"))
    for cell in content["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
    notebook.write_text(json.dumps(content), encoding="utf-8")


@contextmanager
def browser() -> Iterator[Any]:
    """Chromium, headless."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # no sandbox: its own user namespaces are refused to root in a container, and the page is ours
        options = ["--no-sandbox", "--disable-dev-shm-usage"]
        opened = playwright.chromium.launch(executable_path=chromium(), args=options, timeout=PAGE_SECONDS * 1000)
        try:
            yield opened
        finally:
            opened.close()


class Page:
    """A notebook open in the browser.

    Attributes:
        page: Playwright's page, for what a person does: clicks, keys, looking.
        foreign: requests that the page sent to anything but this JupyterLab; there should be none.
        errors: what its scripts threw.
    """

    def __init__(self, browser: Any, jupyter: Jupyter, notebook: str) -> None:
        self.jupyter = jupyter
        self.notebook = notebook
        self.foreign: list[str] = []
        self.errors: list[str] = []
        self.page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        self.page.set_default_timeout(PAGE_SECONDS * 1000)
        self.page.add_init_script(SCRIPT)
        self.page.on("pageerror", self._script_failed)
        own = (f"http://127.0.0.1:{jupyter.port}/", "data:", "blob:")
        self.page.on("request", lambda request: None if request.url.startswith(own) else self.foreign.append(request.url))
        jupyter.first_visit()
        self.page.goto(jupyter.url(notebook))
        self.page.wait_for_function("lesson.ready()", polling=100)

    def close(self) -> None:
        """Ends the notebook's kernel and closes the page."""
        self.page.evaluate("jupyterapp.shell.currentWidget.sessionContext.shutdown()")
        self.page.close()

    def run_all(self) -> None:
        """Run > Run All Cells, and wait until all have run.

        Raises:
            KernelEnded: the kernel is gone.
            AssertionError: a cell failed (its traceback is in the message), or it took too long.
        """
        self._ran(self.page.evaluate("(seconds) => lesson.runAll(seconds)", LESSON_SECONDS), "the notebook")

    def run(self, cell: str) -> list[dict[str, Any]]:
        """Runs one cell, waits for its end, and returns its outputs. Raises as :meth:`run_all`."""
        self._ran(self.page.evaluate("([id, seconds]) => lesson.run(id, seconds)", [cell, LESSON_SECONDS]), f"cell {cell}")
        return next(each["outputs"] for each in self.cells() if each["id"] == cell)

    def _script_failed(self, error: Any) -> None:
        # anywidget complains of a model that isn't loaded after 2 s of a busy page, and draws it once it is. Whether it is, the page tells.
        if LATE_MODEL not in f"{error}":
            self.errors.append(f"{error}")

    def _ran(self, result: str, what: str) -> None:
        if result == "kernel ended":
            raise KernelEnded(f"{self.notebook}: the kernel ended while {what} ran. JupyterLab says:\n{serving.tail(self.jupyter.log, 40)}")
        for cell in self.cells():
            for output in cell["outputs"]:
                if output["output_type"] == "error":
                    raise AssertionError(f"{self.notebook}, cell {cell['id']}:\n{cell['source']}\n" + "\n".join(output["traceback"]))
        if result != "ran":
            waiting = next((cell["id"] for cell in self.cells() if cell["source"].strip() and cell["count"] is None), "none")
            raise AssertionError(f"{self.notebook}: {what} has not run within {LESSON_SECONDS} s; first cell without a count: {waiting}")
        self.page.wait_for_function("!lesson.busy()", polling=100)

    def cells(self) -> list[dict[str, Any]]:
        """The code cells: id, source, count, outputs."""
        return self.page.evaluate("lesson.cells()")

    def cell(self, cell: str) -> Any:
        """A cell's element, for Playwright."""
        return self.page.evaluate_handle("(id) => lesson.node(id)", cell).as_element()

    def until(self, condition: str, *args: Any, what: str = "") -> Any:
        """Waits until JavaScript is true of the page, and returns what it gave; on a timeout says what was awaited."""
        try:
            return self.page.wait_for_function(condition, arg=list(args) or None, polling=50).json_value()
        except Exception as error:
            raise AssertionError(f"{self.notebook}: not within {PAGE_SECONDS} s: {what or condition}") from error

    def assert_drawn(self) -> None:
        """Every widget is on the page, and no script failed."""
        deadline = time.monotonic() + PAGE_SECONDS
        while undrawn := self.page.evaluate("lesson.undrawn()"):
            if time.monotonic() > deadline:
                raise AssertionError(f"{self.notebook}: " + "\n".join(undrawn))
            self.page.wait_for_timeout(100)  # the page goes on meanwhile; there is no one event for "everything is drawn"
        if self.errors:
            raise AssertionError(f"{self.notebook}: scripts of the page failed: {self.errors}")

    def cut_off(self) -> list[str]:
        """Text that can't be read whole at this width of the window: the cell, and what is wrong with it."""
        return self.until("() => lesson.cutOff()", what="pictures that have come to rest")

    def theme(self, name: str) -> None:
        """Wears JupyterLab's theme of this name."""
        self.page.evaluate("(name) => lesson.theme(name)", f"JupyterLab {name}")
        self.until("([light]) => document.body.dataset.jpThemeLight === light", "false" if name == "Dark" else "true")
        widgets = "[...document.querySelectorAll('.sl-view, .sl-quiz')]"
        self.until(f"([theme]) => {widgets}.every((widget) => widget.dataset.theme === theme)", name.lower())

    def shoot_cell(self, cell: str, file: Path) -> None:
        """A picture of one cell."""
        element = self.cell(cell)
        element.scroll_into_view_if_needed()
        element.screenshot(path=file)

    def shoot(self, stem: Path) -> list[Path]:
        """The whole notebook in pictures, one for each windowful, from top to bottom."""
        files: list[Path] = []
        scroll: Callable[[int], tuple[int, int, int]] = lambda top: self.page.evaluate(
            """(top) => { const box = lesson.scroller(); box.scrollTop = top;
                          return new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(
                            () => done([box.scrollTop, box.clientHeight, lesson.end()])))); }""",
            top,
        )
        top = 0
        while True:
            here, height, whole = scroll(top)
            file = stem.with_name(f"{stem.name}-{len(files):02d}.png")
            self.page.screenshot(path=file)
            files.append(file)
            if here + height >= whole - 1:
                return files
            top = here + height - 40
