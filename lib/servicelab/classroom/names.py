"""Students' names to names of namespaces: cleaned, told apart, and refused with a reason where that can't be done."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ..errors import LabError
from .group import current

MOST = 200
"""Students in one class. A cluster of three ordinary nodes holds fewer; docs/teaching.md has the arithmetic."""
LONGEST = 63 - len("-student-") - 16  # beside a class's name

_LETTERS = {"ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "ı": "i"}
_ALIAS = re.compile(r"\s*([A-Za-z0-9][-A-Za-z0-9]*)\s*:\s+(\S.*)")


@dataclass(frozen=True, order=True)
class Student:
    """One student.

    Attributes:
        key: the short name, unique in the class: lower-case letters, digits and '-'.
        name: as the teacher wrote it; shown on the board.
    """

    key: str
    name: str

    @property
    def namespace(self) -> str:
        """The student's namespace."""
        return current().prefix + self.key


def cleaned(name: str) -> str:
    """A name as part of an RFC 1123 label: accents off, lower case, everything else to '-'. Empty when nothing is left of it.

    Example:
        >>> cleaned("Zoë Müller-Łuk")
        'zoe-muller-luk'
    """
    text = "".join(_LETTERS.get(letter, letter) for letter in unicodedata.normalize("NFKD", name).lower())
    text = "".join(letter for letter in text if not unicodedata.combining(letter))
    return re.sub(r"[^a-z0-9]+", "-", text).strip("-")


def parsed(text: str) -> list[Student]:
    """The students of the option `--students`: a number, or the path of a file of names.

    Raises:
        LabError: no such file, or what `listed` and `numbered` say.
    """
    if re.fullmatch(r"-?\d+", text.strip()):
        return numbered(int(text))
    path = Path(text).expanduser()
    try:
        words = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise LabError(f"{text!r} is neither a number of students nor a file of names that can be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise LabError(f"{path} isn't a text in UTF-8 (byte {error.start}). Save it as UTF-8, one name a line.") from error
    return listed(words.splitlines(), str(path))


def numbered(count: int) -> list[Student]:
    """`count` students without names: 01, 02, …

    Raises:
        LabError: fewer than 1, or more than MOST.
    """
    if not 1 <= count <= MOST:
        raise LabError(f"A class of {count} can't be made: give from 1 to {MOST} students. For more, use a second cluster.")
    return [Student(f"{number:02d}", f"Student {number}") for number in range(1, count + 1)]


def listed(lines: Iterable[str], source: str = "the list") -> list[Student]:
    """The students of a list with a name on each line. Empty lines and those that begin with '#' don't count.

    A line `wang: 王小明` gives the short name itself, for names that have no Latin letters and for two of one name.

    Raises:
        LabError: names that can't be cleaned, that are the same after cleaning, an empty or a huge list. All of the trouble at once,
            with line numbers.
    """
    students: dict[str, tuple[int, Student]] = {}
    trouble = []
    for number, line in enumerate(lines, 1):
        name = "".join(letter for letter in line if unicodedata.category(letter)[0] != "C").strip()
        if not name or name.startswith("#"):
            continue
        alias = _ALIAS.fullmatch(name)
        name = alias[2].strip() if alias else name
        key = cleaned(alias[1]) if alias else cleaned(name)
        if not key:
            trouble.append(f"line {number}: {name!r} has no letter or digit for a namespace's name; write `short-name: {name}`")
        elif len(key) > LONGEST:
            trouble.append(f"line {number}: {name[:30]!r}… has {len(key)} characters, and {LONGEST} are the most; write `short-name: …`")
        elif key in students:
            before, other = students[key]
            trouble.append(
                f"line {number}: {name!r} becomes {key!r}, as {other.name!r} on line {before} does; write `{key}-2: {name}`"
            )
        else:
            students[key] = (number, Student(key, name))
    if trouble:
        shown = "\n  ".join(trouble[:20]) + (f"\n  … and {len(trouble) - 20} more" if len(trouble) > 20 else "")
        raise LabError(f"Nothing was made, since {source} has names that can't be used:\n  {shown}")
    if not students:
        raise LabError(f"There are no names in {source}. Write one on each line, or give a number: --students 30.")
    if len(students) > MOST:
        raise LabError(f"{source} has {len(students)} names, and a class has at most {MOST}. For more, use a second cluster.")
    return [student for _, student in students.values()]
