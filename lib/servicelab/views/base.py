"""The widget that every view is: a scene, redrawn in the browser where it changed, with an SVG and a text that stand without JavaScript."""

from __future__ import annotations

import contextlib
import pathlib
import threading
from typing import Any

import anywidget
import traitlets

from servicelab import settings
from servicelab.views.svg import Scene
from servicelab.views.theme import STYLE

HERE = pathlib.Path(__file__).parent
UNSEEN_SECONDS = 120.0  # a live view that no browser has drawn by then stops watching; one that is drawn later starts again


def script(*names: str) -> str:
    """The JavaScript of a view: the common renderer and its own file behind it, since a widget's module can import no file beside it."""
    return "\n".join((HERE / name).read_text(encoding="utf-8") for name in ("scene.js", *names))


class View(anywidget.AnyWidget):
    """One picture. A subclass makes :class:`Scene` objects and gives them to :meth:`show`; one that follows the cluster overrides
    begin and end.

    Attributes:
        scene: What is drawn now (see ``svg.py``).
        notice: What is wrong, in words; shown above the picture.
        viewers: How many times it is drawn on a page just now; at 0 it stops watching.
    """

    _esm = script("view.js")
    _css = (HERE / "view.css").read_text(encoding="utf-8") + STYLE

    scene = traitlets.Dict().tag(sync=True)
    notice = traitlets.Unicode().tag(sync=True)
    viewers = traitlets.Int(0).tag(sync=True)

    def __init__(self, scene: Scene, **traits: Any) -> None:
        self.now = scene
        self._unseen: threading.Timer | None = None
        super().__init__(scene=scene.as_json(), **traits)
        self.observe(self._seen, names="viewers")

    # what a live view does, and a still one doesn't

    def begin(self) -> None:
        """Start following the cluster; called when the view is shown. Must be harmless when it runs already."""

    def end(self) -> None:
        """Stop following; called when the last drawing is removed, and by :meth:`close`."""

    def show(self, scene: Scene) -> None:
        """Draw this now. May be called from any thread."""
        self.now = scene
        drawn = scene.as_json()
        if drawn != self.scene:
            self.scene = drawn

    def _seen(self, change: dict[str, Any]) -> None:
        self._forget_timer()
        if change["new"] > 0:
            self.begin()
        else:
            self.end()

    def _forget_timer(self) -> None:
        if self._unseen is not None:
            self._unseen.cancel()
            self._unseen = None

    def close(self) -> None:
        """Remove the view and stop whatever it does."""
        with contextlib.suppress(AttributeError):  # a view whose making failed is closed by the garbage collector, half made
            self._forget_timer()
            self.end()
        super().close()

    # forms

    def text(self) -> str:
        """The picture in words, the same for the same state of the cluster."""
        return self.now.text

    def svg(self) -> str:
        """The picture as SVG, one line."""
        return self.now.svg()

    def __repr__(self) -> str:
        return self.text()

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict, dict]:
        if not settings.headless():
            self.begin()
            self._forget_timer()
            self._unseen = threading.Timer(UNSEEN_SECONDS, lambda: self.viewers or self.end())
            self._unseen.daemon = True
            self._unseen.start()
        bundle = super()._repr_mimebundle_(**kwargs)
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle, {})
        return {**data, "text/plain": self.text(), "image/svg+xml": self.svg()}, metadata
