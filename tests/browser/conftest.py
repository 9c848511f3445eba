"""A browser, and a JupyterLab for each module; all of it only with ``./lab test --browser``."""

from __future__ import annotations

import os
from pathlib import Path

import browsing
import pytest


def pytest_collection_modifyitems(items) -> None:
    reason = None
    if not os.environ.get("SERVICELAB_BROWSER"):
        reason = "a browser test: ./lab test --browser"
    elif browsing.chromium() is None:
        reason = "no Chromium here: apt-get install chromium"
    for item in items:
        if reason and Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def screenshots(request, tmp_path_factory) -> Path:
    """Where pictures go: ``--screenshots DIR``, or pytest's temporary directory."""
    wanted = request.config.getoption("--screenshots")
    folder = Path(wanted).resolve() if wanted else tmp_path_factory.mktemp("screenshots")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def browser():
    with browsing.browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def jupyter(request, cluster, tmp_path_factory):
    """JupyterLab on the worker's cluster. A module's ``HEADLESS = False`` says that its kernels have a person before them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SERVICELAB_HEADLESS", "1" if getattr(request.module, "HEADLESS", True) else "")
        patch.setenv("PYDEVD_DISABLE_FILE_VALIDATION", "1")
        for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
            patch.setenv(name, str(tmp_path_factory.mktemp(name.lower())))  # not this user's own settings
        with browsing.jupyter(cluster, tmp_path_factory.mktemp("jupyter")) as started:
            yield started


@pytest.fixture
def open_notebook(browser, jupyter):
    """Opens a notebook of JupyterLab's directory; at the end its kernel ends, and nothing must have been asked of another host."""
    pages = []

    def opened(notebook: str) -> browsing.Page:
        pages.append(browsing.Page(browser, jupyter, notebook))
        return pages[-1]

    yield opened
    for page in pages:
        page.close()
        assert page.foreign == []
