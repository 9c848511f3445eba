"""A widget's script on a page of its own in a real browser, with a model that tests and benchmarks set."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUMS = ("chromium", "chromium-browser", "google-chrome")
MILLISECONDS = 120_000  # what the page is to do, on a busy machine
PAGE = """<!doctype html><meta charset="utf-8"><style>body {{ width: 800px }} {css}</style>
<body data-jp-theme-light="true"><div id="cell"></div><script type="module">
const source = {source};
const widget = (await import(URL.createObjectURL(new Blob([source], {{ type: "text/javascript" }})))).default;
const state = {state}, listeners = {{}};
window.saved = [];
window.model = {{
  get: (name) => state[name],
  set: (name, value) => {{ state[name] = value; for (const listener of [...(listeners[`change:${{name}}`] || [])]) listener(); }},
  on: (name, listener) => (listeners[name] ||= []).push(listener),
  off: (name, listener) => (listeners[name] = listeners[name].filter((other) => other !== listener)),
  save_changes: () => window.saved.push({{ ...state }}),
}};
window.listening = () => Object.values(listeners).flat().length;
window.unmount = widget.render({{ model: window.model, el: document.getElementById("cell") }});
window.mounted = true;
</script>"""


def chromium() -> str | None:
    """The path of this machine's Chromium."""
    return next(filter(None, map(shutil.which, CHROMIUMS)), None)


@contextmanager
def browser() -> Iterator[Any]:
    """A headless Chromium; Playwright's object for it."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"], timeout=MILLISECONDS)
        yield opened
        opened.close()


@contextmanager
def mounted(browser: Any, folder: Path, widget: type, **traits: Any) -> Iterator[Any]:
    """A page on which the script of a widget class has drawn with these traits; Playwright's object for it.

    Raises:
        AssertionError: at the end, when the page had an error.
    """
    errors: list[str] = []
    css, source = str(widget._css), json.dumps(str(widget._esm))
    state = json.dumps({"notice": "", "viewers": 0, **traits})
    page = browser.new_page()
    page.set_default_timeout(MILLISECONDS)
    file = folder / f"page-{id(page)}.html"
    file.write_text(PAGE.format(css=css, source=source, state=state), encoding="utf-8")
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.goto(file.as_uri())
    page.wait_for_function("window.mounted")
    yield page
    page.close()
    assert errors == []
