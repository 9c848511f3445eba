"""The lessons' checks: `from servicelab import check`, then `check.two_servers(lab)`.

One module for each lesson (`lesson01.py` …); `framework.py` has what they share.
"""

from servicelab.checks.framework import Check, CheckFailed, Checks, Missing, Result, check, checker

__all__ = ["Check", "CheckFailed", "Checks", "Missing", "Result", "check", "checker"]
