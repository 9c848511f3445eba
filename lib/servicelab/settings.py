"""How long to wait and how to show progress: generous and plain when nobody watches, quick and live when someone does."""

from __future__ import annotations

import os


def headless() -> bool:
    """Whether nobody watches: ``./lab test``, ``servicelab smoke`` and ``record`` set ``SERVICELAB_HEADLESS=1``."""
    return os.environ.get("SERVICELAB_HEADLESS", "") not in ("", "0")


def patience() -> float:
    """Seconds for which a check looks again before it says no: 10 with a person, 60 on a busy machine without one."""
    return _seconds("SERVICELAB_PATIENCE", 60.0 if headless() else 10.0)


def wait_timeout() -> float:
    """Seconds that ``lab.wait_for`` waits when it isn't told: 120."""
    return _seconds("SERVICELAB_WAIT", 120.0)


def reset_timeout() -> float:
    """Seconds until ``lab.reset`` gives up waiting for objects to be gone: 300, since a busy machine ends pods slowly."""
    return _seconds("SERVICELAB_RESET_WAIT", 300.0)


def cell_timeout() -> int:
    """Seconds that one cell of a lesson may take in a headless run: 300."""
    return int(_seconds("SERVICELAB_CELL_WAIT", 300.0))


def run_timeout() -> float:
    """Seconds that one command in a pod or on a node may take when not told: 30 with a person, 60 headless."""
    return 60.0 if headless() else 30.0


def _seconds(variable: str, default: float) -> float:
    text = os.environ.get(variable, "")
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"{variable}={text!r} is not a number of seconds") from None
    if value < 0:
        raise ValueError(f"{variable}={text!r} is negative; give seconds, such as 30")
    return value
