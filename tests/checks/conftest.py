"""A lab in a namespace of its own, and the two questions that tests put to a check."""

from __future__ import annotations

import time

import pytest

from servicelab.checks import Missing, check
from servicelab.checks.framework import transient_errors
from servicelab.connecting import connect


class Asked:
    """A lab, and what its checks say of the state it is in.

    Attributes:
        lab: the Lab.
        kube: the namespace on the test cluster.
    """

    def __init__(self, lab, kube) -> None:
        self.lab = lab
        self.kube = kube

    def run(self, *lines: str) -> None:
        """kubectl commands, as a learner types them (without quotes: words are split at spaces)."""
        for line in lines:
            self.kube.kubectl(*line.split())

    def passes(self, name: str, *given, **expected) -> str:
        """The check must pass, by and by; what it saw."""
        result = getattr(check, name).result(self.lab, *given, **expected)
        assert result.passed, f"check.{name}: {result.message} ({result.hint})"
        return result.message

    def fails(self, name: str, *given, saying: str, hint: str, within: float = 90, **expected) -> None:
        """The check must say, by and by, that something is missing: this, with this among its hints."""
        deadline = time.monotonic() + within
        while True:
            try:
                said = f"it passes: {getattr(check, name).look(self.lab, *given, **expected)}"
            except Missing as missing:
                said = f"{missing.what} (hints: {missing.hints})"
                if saying in missing.what and any(hint in one for one in missing.hints):
                    return
            except transient_errors() as error:  # as a check called by a learner: a pod may go between being listed and being entered
                said = f"the cluster could not be looked at: {error}"
            assert time.monotonic() < deadline, f"check.{name} was to say {saying!r} and hint at {hint!r}, and says: {said}"
            time.sleep(0.1)


@pytest.fixture
def asked(fresh, monkeypatch) -> Asked:
    """A lab in a namespace that this test has for itself."""
    monkeypatch.setenv("SERVICELAB_HEADLESS", "1")
    kind = fresh.cluster.kind
    lab = connect(kind, fresh.name, show=False)
    yield Asked(lab, fresh)
    lab.close()
