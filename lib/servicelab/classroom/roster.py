"""Which students a class has now, read from the cluster: the namespaces that carry the class's label are the only record."""

from __future__ import annotations

from typing import Any

from ..client import Client
from ..errors import LabError
from .api import listing
from .group import LABEL, current
from .members import NAME
from .names import Student


def selector() -> str:
    """The label selector of the students' namespaces."""
    return f"{current().selector},servicelab.io/for=student"


def ours(namespace: dict[str, Any]) -> bool:
    """Whether the class made this namespace."""
    return (namespace["metadata"].get("labels") or {}).get(LABEL) == current().name


def student_of(namespace: dict[str, Any]) -> Student:
    """The student to whom a namespace belongs."""
    meta = namespace["metadata"]
    key = meta["name"].removeprefix(current().prefix)
    return Student(key, (meta.get("annotations") or {}).get(NAME) or key)


def namespaces(client: Client) -> list[dict[str, Any]]:
    """The students' namespaces, by name."""
    return sorted(listing(client, "/api/v1/namespaces", selector()), key=lambda found: found["metadata"]["name"])


def students(client: Client) -> list[Student]:
    """The students of the class; those that are just being deleted aren't among them."""
    return [student_of(found) for found in namespaces(client) if not found["metadata"].get("deletionTimestamp")]


def one(client: Client, word: str) -> Student:
    """The student of this short name, full name or namespace.

    Raises:
        LabError: there is none; says who is near.
    """
    import difflib

    from .names import cleaned

    every = students(client)
    wanted = {word, word.removeprefix(current().prefix), cleaned(word).removeprefix(current().prefix)}
    found = [student for student in every if student.key in wanted or student.name == word]
    if len(found) == 1:
        return found[0]
    if not every:
        raise LabError("There is no class in this cluster; servicelab class create makes one.")
    near = difflib.get_close_matches(cleaned(word), [student.key for student in every], n=3)
    hint = f"Did you mean {' or '.join(near)}?" if near else "servicelab class list shows all."
    raise LabError(f"There is no student {word!r} in this class. {hint}")
