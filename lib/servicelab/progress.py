"""What a learner has checked and answered, kept in the cluster: it survives kernels, restarts, and another laptop.

One ConfigMap in the learner's namespace, `servicelab-progress`, has a key for each check (`check.01.two_servers`) and each quiz
(`quiz.03.order`) with a small JSON document. A write touches one key only (RFC 7386 merge patch), so that two notebooks open
at once lose nothing of each other's. The teacher's board reads the same ConfigMaps.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from servicelab.client import ApiError
from servicelab.errors import LabError, NotFound

if TYPE_CHECKING:
    import pandas

    from servicelab.lab import Lab

CONFIG_MAP = "servicelab-progress"
LABELS = {"app.kubernetes.io/managed-by": "servicelab", "app.kubernetes.io/component": "progress"}


@dataclass(frozen=True)
class Entry:
    """What is known of one check or quiz.

    Attributes:
        passed: whether the check passed, or the answer was right, the last time.
        tries: how many times it was called or answered.
        since: when the present state (passed, or still failing) began, RFC 3339 in UTC.
        at: when it was last called or answered, RFC 3339 in UTC.
        saw: what the check saw or missed; the text of the answer chosen.
        hint: the hint shown last, empty when it passed.
        level: which of the hints that was, from 1; 0 when none.
    """

    passed: bool
    tries: int = 1
    since: str = ""
    at: str = ""
    saw: str = ""
    hint: str = ""
    level: int = 0


def now() -> str:
    """The time in UTC as RFC 3339 has it, to the second."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def entries_of(config_map: Mapping[str, Any] | None) -> dict[str, Entry]:
    """The entries of a progress ConfigMap by key; keys that are none of ours, or damaged by hand, are passed over.

    Example:
        >>> entries_of({"data": {"check.01.two_servers": '{"passed": true, "tries": 2}'}})["check.01.two_servers"].tries
        2
    """
    known = {field.name for field in fields(Entry)}
    entries = {}
    for key, text in ((config_map or {}).get("data") or {}).items():
        if not key.startswith(("check.", "quiz.")):
            continue
        try:
            entries[key] = Entry(**{name: value for name, value in json.loads(text).items() if name in known})
        except (ValueError, TypeError, AttributeError):
            continue  # someone edited it by hand: what can't be read counts as not done yet
    return entries


def next_entry(before: Entry | None, passed: bool, saw: str, hint: str = "", level: int = 0) -> Entry:
    """The entry after one more try: `since` stays while the verdict stays the same."""
    at = now()
    since = before.since if before is not None and before.passed == passed and before.since else at
    return Entry(passed, (before.tries if before else 0) + 1, since, at, saw, "" if passed else hint, 0 if passed else level)


class Progress:
    """One learner's progress: `lab.progress`.

    A cluster that does not answer must not spoil a check that has its verdict already: a failed write is kept in `trouble` and
    shown with the progress, and the next write tries again.

    Args:
        lab: whose namespace holds the ConfigMap.

    Attributes:
        trouble: why the last write failed; empty when all was kept.
    """

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self.trouble = ""

    def entries(self) -> dict[str, Entry]:
        """What has been kept, by key; empty for a learner who has just begun.

        Raises:
            LabError: the cluster does not answer.
        """
        return entries_of(self._read())

    def record(self, kind: str, key: str, passed: bool, saw: str = "", hint: str | None = None, level: int = 0) -> None:
        """Keep the outcome of one try.

        Args:
            kind: "check" or "quiz".
            key: the check's or quiz's key, such as `01.two_servers`.
            passed: whether it passed.
            saw: what was seen or answered.
            hint: the hint shown, if any; level: which one, from 1.
        """
        try:
            self._write(f"{kind}.{key}", passed, saw, hint or "", level)
        except LabError as error:
            self.trouble = f"not kept: {kind} {key} ({error})"
        else:
            self.trouble = ""

    def recall(self, key: str) -> str | None:
        """The text of the answer last chosen for this quiz, or None."""
        entry = self.entries().get(f"quiz.{key}")
        return entry.saw if entry else None

    def keep(self, key: str, text: str, right: bool) -> None:
        """Remember the answer to a quiz. Raises what the cluster answers: the widget shows it."""
        self._write(f"quiz.{key}", right, text, "", 0)

    def forget(self) -> None:
        """Start again from nothing: deletes the ConfigMap, if there is one."""
        try:
            self._lab.client.request("DELETE", self._path(CONFIG_MAP))
        except NotFound:
            return

    def table(self) -> pandas.DataFrame:
        """One row for each check and quiz of the lessons: lesson, kind, what, done (True, False, or None when not tried), tries."""
        import pandas

        rows = []
        entries = self.entries()
        for kind, lesson, key, title in catalogue():
            entry = entries.get(f"{kind}.{key}")
            rows.append((lesson, kind, title, entry.passed if entry else None, entry.tries if entry else 0))
        return pandas.DataFrame(rows, columns=["lesson", "kind", "what", "done", "tries"])

    def summary(self) -> str:
        """One line: how many checks passed and quizzes were answered rightly, of all there are."""
        return summary_of(self.entries()) + (f"  ({self.trouble})" if self.trouble else "")

    def __repr__(self) -> str:
        return self.summary()

    def _path(self, name: str | None = None) -> str:
        return self._lab.client.path("configmaps", self._lab.namespace, name)

    def _read(self) -> dict[str, Any] | None:
        try:
            return self._lab.client.get("configmaps", CONFIG_MAP, self._lab.namespace)
        except NotFound:
            return None

    def _write(self, full_key: str, passed: bool, saw: str, hint: str, level: int) -> None:
        present = self._read()
        entry = next_entry(entries_of(present).get(full_key), passed, saw, hint, level)
        data = {full_key: json.dumps(asdict(entry), ensure_ascii=False)}
        if present is None and self._created(data):
            return
        self._lab.client.request("PATCH", self._path(CONFIG_MAP), {"data": data}, content_type="application/merge-patch+json")

    def _created(self, data: dict[str, str]) -> bool:
        """Make it; False when another notebook was quicker."""
        metadata = {"name": CONFIG_MAP, "namespace": self._lab.namespace, "labels": LABELS}
        try:
            self._lab.client.request("POST", self._path(), {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})
        except ApiError as error:
            if error.code == 409:
                return False
            raise
        return True


def catalogue() -> list[tuple[str, str, str, str]]:
    """Everything that can be done in the lessons: (kind, lesson, key, title), in reading order."""
    from servicelab import checks, quizzes

    found = [("check", f"{one.lesson:02d}", one.key, one.title) for one in checks.check]
    found += [("quiz", key.partition(".")[0], key, one.question) for key, one in quizzes.all_quizzes().items()]
    return sorted(found, key=lambda row: (row[1], row[0]))


def summary_of(entries: Mapping[str, Entry]) -> str:
    """`Progress: 3 of 24 checks, 2 of 21 quizzes`, counting only what the lessons of today have."""
    counts = []
    for kind, plural in (("check", "checks"), ("quiz", "quizzes")):
        keys = [f"{k}.{key}" for k, _, key, _ in catalogue() if k == kind]
        counts.append(f"{sum(key in entries and entries[key].passed for key in keys)} of {len(keys)} {plural}")
    return f"Progress: {', '.join(counts)}"
