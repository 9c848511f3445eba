"""The store: versions, watches' history, and what a crash, a full disk or a second cluster may do to it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from pocketkube.store import Store, StoreError, clone


def obj(name, namespace="ns", **more):
    return {"metadata": {"name": name, "namespace": namespace}, **more}


def test_versions_only_rise(tmp_path):
    store = Store(tmp_path / "db")
    first = int(store.put("pods", obj("a"))["metadata"]["resourceVersion"])
    second = int(store.put("pods", obj("b"))["metadata"]["resourceVersion"])
    gone = int(store.delete("pods", "ns", "b")["metadata"]["resourceVersion"])
    assert first < second < gone == store.revision
    store.close()
    again = Store(tmp_path / "db")
    assert again.revision == gone, "also over a restart, and though the newest object is gone"
    assert list(again.objects("pods")) == [("ns", "a")]
    assert int(again.put("pods", obj("c"))["metadata"]["resourceVersion"]) > gone
    again.close()


def test_changes_are_told_in_order():
    store, seen = Store(), []
    cancel = store.subscribe("pods", lambda change: seen.append((change.type, change.object["metadata"]["name"], change.old is not None)))
    store.put("pods", obj("a"))
    store.put("pods", obj("a", spec=1))
    store.put("services", obj("other"))
    store.delete("pods", "ns", "a")
    cancel()
    store.put("pods", obj("b"))
    assert seen == [("ADDED", "a", False), ("MODIFIED", "a", True), ("DELETED", "a", True)]
    assert store.delete("pods", "ns", "never") is None


def test_history_has_an_end(tmp_path):
    store = Store(tmp_path / "db", history=3)
    start = store.revision
    for number in range(5):
        store.put("pods", obj("a", spec=number))
    assert store.changes("pods", start) is None, "the first two are forgotten"
    assert [change.object["spec"] for change in store.changes("pods", start + 3)] == [3, 4]
    assert list(store.changes("services", start)) == [], "nothing happened to these"
    store.close()
    again = Store(tmp_path / "db")
    assert again.changes("pods", again.revision - 1) is None, "a restart forgets"
    assert list(again.changes("pods", again.revision)) == []
    again.close()


WRITER = """
import sys
from pocketkube.store import Store
store = Store(sys.argv[1])
number = 0
while True:
    number += 1
    store.put("pods", {"metadata": {"namespace": "ns", "name": f"p{number}"}, "spec": {"number": number}})
    print(number, flush=True)
"""


def test_a_killed_process_loses_no_accepted_write(tmp_path):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path / "db")], stdout=subprocess.PIPE, text=True, env=env)
    accepted = 0
    while accepted < 200:
        accepted = int(writer.stdout.readline())
    writer.send_signal(signal.SIGKILL)
    accepted = [int(line) for line in writer.communicate()[0].split()][-1:] or [accepted]
    store = Store(tmp_path / "db")
    numbers = sorted(pod["spec"]["number"] for pod in store.objects("pods").values())
    assert numbers == list(range(1, len(numbers) + 1)) and len(numbers) >= accepted[0]
    assert store.revision >= len(numbers)
    store.close()


def test_a_full_disk_refuses_whole_writes(tmp_path):
    store = Store(tmp_path / "db")
    store.put("configmaps", obj("kept", data="x"))
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count={pages}")  # the file can't grow: SQLite's own "database or disk is full"
    before = store.revision
    told = []
    store.subscribe("configmaps", told.append)
    with pytest.raises(StoreError, match="the disk is full: free some space") as caught:
        store.put("configmaps", obj("large", data="x" * 100_000))
    assert caught.value.full
    assert (store.revision, told) == (before, [])
    assert store.get("configmaps", "ns", "large") is None
    store._db.execute("PRAGMA max_page_count=100000")
    store.put("configmaps", obj("large", data="x" * 100_000))
    store.close()
    again = Store(tmp_path / "db")
    assert {name for _, name in again.objects("configmaps")} == {"kept", "large"}
    again.close()


def test_a_read_only_database(tmp_path):
    store = Store(tmp_path / "db")
    store.put("pods", obj("a"))
    store._db.execute("PRAGMA query_only=1")
    with pytest.raises(StoreError, match="read-only"):
        store.delete("pods", "ns", "a")
    assert store.get("pods", "ns", "a") is not None
    store.close()


def test_one_cluster_at_a_time(tmp_path):
    first = Store(tmp_path / "db")
    with pytest.raises(StoreError, match="another running cluster uses it"):
        Store(tmp_path / "db")
    first.close()
    Store(tmp_path / "db").close()


def test_a_missing_directory_or_damaged_file(tmp_path):
    with pytest.raises(StoreError, match="missing or read-only"):
        Store(tmp_path / "nowhere" / "db")
    (tmp_path / "db").write_bytes(b"this is no database" * 100)
    with pytest.raises(StoreError, match="damaged: move it away"):
        Store(tmp_path / "db")


def test_clone_is_deep():
    original = {"a": [{"b": 1}], "c": None}
    copy = clone(original)
    copy["a"][0]["b"] = 2
    assert original == {"a": [{"b": 1}], "c": None}
