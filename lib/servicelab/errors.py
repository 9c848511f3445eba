"""The errors a learner may meet. Each message says what happened, why, and what to do next."""


class LabError(RuntimeError):
    """Something the learner can act on; shown without a Python traceback by the command line and by notebooks."""

    def _render_traceback_(self) -> list[str]:
        """IPython calls this instead of printing a traceback: the words are what helps, not our frames."""
        return [f"{type(self).__name__}: {self}"]


class ClusterError(LabError):
    """A cluster can't be chosen, started, reached or stopped."""


class NotAllowed(LabError):
    """This cluster doesn't give the learner what was asked for, such as a shell on a node."""


class NotFound(LabError):
    """An object, a pod or a manifest of that name isn't there."""


class CommandFailed(LabError):
    """A program (kubectl, docker, a command in a pod) ended with an error.

    Attributes:
        returncode: its exit code.
        stdout: what it printed.
        stderr: what it complained.
    """

    def __init__(self, message: str, *, returncode: int = 1, stdout: str = "", stderr: str = "") -> None:
        super().__init__(message)
        self.returncode, self.stdout, self.stderr = returncode, stdout, stderr


class WaitTimeout(LabError):
    """What was awaited did not come in time; the message says what stands in its way."""


class NotYet(Exception):
    """Raised by a condition given to ``lab.wait_for`` to say why it does not hold yet."""
