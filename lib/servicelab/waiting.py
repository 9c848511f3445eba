"""Waiting for the cluster by watching it, and saying why it takes so long."""

from __future__ import annotations

import html
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from . import settings
from .conditions import condition
from .delays import why_late
from .errors import LabError, NotFound, NotYet, WaitTimeout
from .readiness import State

if TYPE_CHECKING:
    from .client import Client
    from .lab import Lab

# what can change the answer to a condition in the learner's namespace
_WATCHED = ("pods", "deployments", "replicasets", "services", "endpointslices")


class Watcher:
    """Wakes a waiting loop whenever something of interest changes; the loop then looks for itself (level-triggered)."""

    def __init__(self, client: Client, namespace: str, kinds: tuple[str, ...] = _WATCHED) -> None:
        self.changed, self._stop = threading.Event(), threading.Event()
        self._threads = [
            threading.Thread(target=self._follow, args=(client, kind, namespace), daemon=True, name=f"servicelab-wait-{kind}")
            for kind in kinds
        ]

    def __enter__(self) -> Watcher:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()

    def _follow(self, client: Client, kind: str, namespace: str) -> None:
        try:
            for _ in client.watch(kind, namespace, stop=self._stop):
                self.changed.set()
        except LabError:
            # Not allowed to watch this kind (a student's Role), or the cluster lacks it: the loop's own look, once
            # in `tick` seconds, is then what notices.
            return

    def wait(self, seconds: float) -> None:
        """Until something changes, at most ``seconds``."""
        self.changed.wait(seconds)
        self.changed.clear()


def wait_for(
    lab: Lab, what: str | Callable[[], Any], *, timeout: float | None = None, namespace: str | None = None, gone: bool = False
) -> Any:
    """Waits until ``what`` holds; see ``Lab.wait_for``."""
    namespace = namespace or lab.namespace
    seconds = settings.wait_timeout() if timeout is None else float(timeout)
    if isinstance(what, str):
        look = _gone(lab.client, namespace, what) if gone else condition(lab, namespace, what)
        title = what
    else:
        look, title = _callable(what), _title(what)
    deadline = time.monotonic() + seconds
    tick = 1.0 if isinstance(what, str) else 0.25  # a callable may look at things that no watch announces
    state = look()
    if not state.done:
        with Watcher(lab.client, namespace) as watcher, _progress(title) as show:
            while not (state := look()).done:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise WaitTimeout(_too_late(lab, namespace, what, title, seconds, state))
                show(state, seconds - left)
                watcher.wait(min(tick, left))
    if isinstance(what, str):
        print(f"✓ {title} {state.words}")
        return None
    return look.result  # type: ignore[attr-defined]


def _title(what: Callable[[], Any]) -> str:
    name = getattr(what, "__name__", "the condition")
    doc = (what.__doc__ or "").strip().splitlines()
    return doc[0] if doc else ("the condition" if name == "<lambda>" else name.replace("_", " "))


class _callable:  # a function with a memory of its last result
    def __init__(self, what: Callable[[], Any]) -> None:
        self._what, self.result = what, None

    def __call__(self) -> State:
        try:
            self.result = self._what()
        except (NotYet, NotFound) as reason:
            return State(False, str(reason))
        return State(
            bool(self.result), "it is not so yet" if self.result is None or isinstance(self.result, bool) else f"it gives {self.result!r}"
        )


def _gone(client: Client, namespace: str, what: str) -> Callable[[], State]:
    kind, _, name = what.partition("/")

    def look() -> State:
        if "=" in name:
            left = client.list(kind, namespace, selector=name)
            return State(not left, "is gone" if not left else f"{len(left)} are still there")
        try:
            obj = client.get(kind, name, namespace)
        except NotFound:
            return State(True, "is gone")
        waits = ", ".join(obj["metadata"].get("finalizers") or [])
        return State(False, f"is still there{', held by ' + waits if waits else ''}")

    return look


def _too_late(lab: Lab, namespace: str, what: Any, title: str, seconds: float, state: State) -> str:
    text = f"{title}: {state.words} after {seconds:g} s."
    if isinstance(what, str):
        reasons = why_late(lab.client, namespace, what)
        text += "".join(f"\n  {r}" for r in reasons)
        kind, _, name = what.partition("/")
        see = f"kubectl get pods -l {name}" if "=" in name else f"kubectl describe {kind} {name}"
        text += f"\nNext: {see}"
    return text


# -- showing it --------------------------------------------------------------------------------------------------------


class _Silent:
    """Nobody watches: only the result is printed."""

    def __enter__(self) -> Callable[[State, float], None]:
        return lambda state, seconds: None

    def __exit__(self, *_: object) -> None:
        return None


class _Bar:
    """A widget in a notebook; when the waiting is over, its place in the cell's outputs is left empty.

    A closed widget alone would leave its id there, and a notebook that is opened again would show "model not found".
    """

    def __init__(self, title: str) -> None:
        self._title, self._widget, self._shown = title, None, None

    def __enter__(self) -> Callable[[State, float], None]:
        return self._show

    def _show(self, state: State, seconds: float) -> None:
        if seconds < 0.4 and self._widget is None:
            return  # most waits are over before a bar could be read
        value = "" if state.share is None else f' value="{state.share:.2f}"'
        bar = f'<progress max="1"{value} style="width:12em"></progress>'
        text = f"{bar} {html.escape(self._title)} {html.escape(state.words)} · {seconds:.0f} s"
        if self._widget is None:
            import ipywidgets
            from IPython.display import display

            self._widget = ipywidgets.HTML(text)
            self._shown = display(self._widget, display_id=True)
        else:
            self._widget.value = text

    def __exit__(self, *_: object) -> None:
        if self._widget is not None:
            self._shown.update({"text/plain": ""}, raw=True)
            self._widget.close()


class _Line:
    """A line in a terminal that is written over and wiped at the end."""

    def __init__(self, title: str) -> None:
        from rich.console import Console

        self._title = title
        self._status = Console(stderr=True).status(title)

    def __enter__(self) -> Callable[[State, float], None]:
        self._status.start()
        return lambda state, seconds: self._status.update(f"{self._title} {state.words} · {seconds:.0f} s")

    def __exit__(self, *_: object) -> None:
        self._status.stop()


def _progress(title: str) -> _Silent | _Bar | _Line:
    if settings.headless():
        return _Silent()
    if in_notebook():
        return _Bar(title)
    import sys

    return _Line(title) if sys.stderr.isatty() else _Silent()


def in_notebook() -> bool:
    """Whether a Jupyter kernel runs this code."""
    import sys

    if "IPython" not in sys.modules:
        return False
    shell = sys.modules["IPython"].get_ipython()
    return shell is not None and hasattr(shell, "kernel")
