"""What a check is: it looks at the cluster, says what it saw, or what is missing and where to look next.

A lesson's check is a function of the learner's `Lab`. It returns one line that says what it saw, or raises
`Missing` with what is wrong *now* and up to three hints, each more telling than the one before:

    @checker(lesson=1, title="two servers run")
    def two_servers(lab):
        ready = [pod for pod in lab.list("pods", "run=my-nginx") if is_ready(pod)]
        if len(ready) < 2:
            raise Missing(f"{len(ready)} of 2 pods are ready", "Look at the READY column.", "…", "kubectl scale …")
        return "2 pods are ready"

A notebook calls it as `check.two_servers(lab)`. Since rules, probes and deletions follow a change only a moment later, a
failed look is repeated for `lab.patience` seconds, unless the check says that waiting can't mend it (`settles=False`).
"""

from __future__ import annotations

import importlib
import pkgutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from servicelab import settings
from servicelab.errors import LabError

PACKAGE = "servicelab.checks"
LOOK_AGAIN_SECONDS = 0.4


class CheckFailed(AssertionError):
    """A check failed in a run that nobody watches (tests, smoke, recording), where that must stop the run."""


class Missing(Exception):
    """What a check found wanting.

    Args:
        what: what is missing or wrong, in one sentence, from the present state of the cluster.
        hints: up to three, from a nudge to the very command; they fit this state, not the exercise in general.
        settles: True when it may come right by itself (rules, probes, deletions on their way), so that looking again makes
            sense; False when only the learner can mend it.
    """

    def __init__(self, what: str, *hints: str, settles: bool = True):
        super().__init__(what)
        self.what = what
        self.hints = hints
        self.settles = settles


@dataclass(frozen=True)
class Result:
    """What one call of a check came to.

    Attributes:
        passed: whether the state of the cluster is right.
        message: what was seen, or what is missing.
        hint: the hint shown, or None.
        level: which hint it is, from 1; 0 when there is none.
    """

    passed: bool
    message: str
    hint: str | None = None
    level: int = 0


@dataclass
class Check:
    """One check, called with a `Lab`; it prints its verdict and returns nothing, so that a notebook shows one line.

    Args:
        name: how lessons call it: `check.<name>(lab)`.
        lesson: the number of the lesson that it belongs to.
        title: what it asserts, in a few words; shown on the progress board.
        look: the function that looks once.
    """

    name: str
    lesson: int
    title: str
    look: Callable[..., str]
    _shown: dict[str, int] = field(default_factory=dict, repr=False)

    @property
    def key(self) -> str:
        """The check's name in the record of progress, such as `01.two_servers`."""
        return f"{self.lesson:02d}.{self.name}"

    def __repr__(self) -> str:
        return f"<check.{self.name}: {self.title}>"

    def __call__(self, lab, *given, **expected) -> None:
        """Look, print `✓ what was seen` or `✗ what is missing` with a hint, and keep the result in the learner's progress.

        Args:
            lab: what `connect()` gave.
            given: what the check wants to be told, such as the addresses noted before; see its own help.
            expected: the same by name, such as `replicas=3`.

        Raises:
            CheckFailed: in a headless run, when the check fails.
        """
        result = self.result(lab, *given, **expected)
        record = getattr(getattr(lab, "progress", None), "record", None)
        if record is not None:
            record("check", self.key, result.passed, result.message, result.hint, result.level)
        if result.passed:
            print(f"✓ {result.message}")
            return
        lines = [f"✗ {result.message}"]
        if result.hint:
            lines.append(f"  hint: {result.hint}")
        if settings.headless():
            raise CheckFailed("\n".join([f"check.{self.name}: {lines[0]}", *lines[1:]]))
        print("\n".join(lines))

    def result(self, lab, *given, **expected) -> Result:
        """Look until it is right or patience ends, without printing.

        A repeated call that finds the same thing missing gives the next hint; another problem starts again at its first.

        Returns:
            Result: the last look's verdict.
        """
        deadline = time.monotonic() + lab.patience
        while True:
            try:
                message = self.look(lab, *given, **expected)
            except Missing as missing:
                if missing.settles and time.monotonic() < deadline:
                    time.sleep(LOOK_AGAIN_SECONDS)
                    continue
                return self._failed(missing)
            except transient_errors() as error:
                # A pod may vanish between being listed and being entered, an API server may be restarting: look again.
                if time.monotonic() < deadline:
                    time.sleep(LOOK_AGAIN_SECONDS)
                    continue
                advice = "`./lab status` says whether the cluster is up."
                return self._failed(Missing(f"the cluster could not be looked at: {error}", advice))
            self._shown.clear()
            return Result(True, message)

    def _failed(self, missing: Missing) -> Result:
        # Counted by the hints, not by the sentence: numbers in it ("1 of 2 …") may change while the problem stays the same.
        problem = "\n".join(missing.hints) or missing.what
        level = min(self._shown.get(problem, 0) + 1, len(missing.hints))
        self._shown = {problem: level}
        if not level:
            return Result(False, missing.what)
        hint = missing.hints[level - 1]
        more = "" if level == len(missing.hints) else "  (run the cell again for a plainer hint)"
        return Result(False, missing.what, hint + more, level)


_REGISTRY: dict[str, Check] = {}


def checker(*, lesson: int, title: str) -> Callable[[Callable[..., str]], Check]:
    """Register a function as `check.<its name>`.

    Args:
        lesson: the number of the lesson, from 0.
        title: what the check asserts, in a few words.

    Raises:
        ValueError: when another lesson has a check of that name: notebooks call all of them through one object.
    """

    def register(function: Callable[..., str]) -> Check:
        name = function.__name__
        known = _REGISTRY.get(name)
        if known is not None and known.look.__module__ != function.__module__:
            raise ValueError(f"check.{name} is in {known.look.__module__} and in {function.__module__}: rename one of them")
        check = Check(name, lesson, title, function)
        check.__doc__ = function.__doc__
        _REGISTRY[name] = check
        return check

    return register


class Checks:
    """All checks of all lessons, by name: `check.two_servers(lab)`. `dir(check)` lists them."""

    def __getattr__(self, name: str) -> Check:
        if name.startswith("_"):
            raise AttributeError(name)
        every = load()
        if name not in every:
            import difflib

            near = difflib.get_close_matches(name, every, n=3)
            wanted = f"Did you mean {' or '.join('check.' + n for n in near)}?" if near else "`dir(check)` lists them."
            raise AttributeError(f"there is no check.{name}. {wanted}")
        return every[name]

    def __dir__(self) -> list[str]:
        return sorted(load())

    def __iter__(self) -> Iterator[Check]:
        # in reading order: each module has its lesson's checks in the order in which the lesson calls them
        return iter(sorted(load().values(), key=lambda check: check.lesson))

    def __repr__(self) -> str:
        return "<the lessons' checks: call one as check.NAME(lab); dir(check) lists their names>"


def load() -> dict[str, Check]:
    """Import every lesson's checks and return them by name."""
    package = importlib.import_module(PACKAGE)
    for module in pkgutil.iter_modules(package.__path__):
        if module.name.startswith("lesson"):
            importlib.import_module(f"{PACKAGE}.{module.name}")
    return _REGISTRY


def transient_errors() -> tuple[type[Exception], ...]:
    """The errors after which it makes sense to look again: something vanished, or the API did not answer."""
    import httpx
    import kr8s

    of_kr8s = (kr8s.NotFoundError, kr8s.ServerError, kr8s.APITimeoutError, kr8s.ConnectionClosedError)
    return (LabError, OSError, httpx.HTTPError, *of_kr8s)


check = Checks()
