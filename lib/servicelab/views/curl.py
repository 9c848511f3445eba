"""What curl says, in words that are the same for the same trouble."""

from __future__ import annotations

import re


def reason_of(error: str) -> str:
    """curl's complaint without what differs from request to request.

    Example:
        >>> reason_of("Failed to connect to web port 80 after 6 ms: Couldn't connect to server")
        'no connection to web:80: refused or unreachable'
    """
    error = re.sub(r"after \d+ (ms|milliseconds?)( with \d+ (out of -?\d+ )?bytes received)?", "", error)
    error = re.sub(r"^Failed to connect to (\S+) port (\d+)\s*(via \S+\s*)?(: )?", r"no connection to \1:\2: ", error)
    error = re.sub(r"Couldn't connect to server|Could not connect to server|Connection refused", "refused or unreachable", error)
    return " ".join(error.split()).strip(" :")[:80]
