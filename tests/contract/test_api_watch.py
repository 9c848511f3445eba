"""Watches: what a client sees of changes, from which version on, and when it must list again."""

from __future__ import annotations

import pytest
from rest import Rest


@pytest.fixture
def rest(kube) -> Rest:
    return Rest(kube.kubeconfig)


@pytest.fixture
def where(kube) -> str:
    return f"/api/v1/namespaces/{kube.name}/configmaps"


def seen(event):
    meta = event["object"]["metadata"]
    return event["type"], meta["name"], (meta.get("labels") or {}).get("w")


def test_changes_since_a_version(rest, where):
    since = rest.call("GET", where).body["metadata"]["resourceVersion"]
    rest.call("POST", where, {"metadata": {"name": "since", "labels": {"w": "1"}}})
    rest.call("PATCH", f"{where}/since", {"metadata": {"labels": {"w": "2"}}}, content_type="application/merge-patch+json")
    rest.call("DELETE", f"{where}/since")
    query = "watch=true&fieldSelector=metadata.name%3Dsince"
    watch = rest.watch(f"{where}?{query}&resourceVersion={since}&timeoutSeconds=60")
    events = [next(watch) for _ in range(3)]  # the server's cache of what happened may be a moment behind its store
    watch.close()
    assert [seen(event) for event in events] == [("ADDED", "since", "1"), ("MODIFIED", "since", "2"), ("DELETED", "since", "2")]
    versions = [int(event["object"]["metadata"]["resourceVersion"]) for event in events]
    assert versions == sorted(set(versions)) and versions[0] > int(since)
    assert not list(rest.watch(f"{where}?{query}&resourceVersion={versions[-1]}&timeoutSeconds=1")), "that was the last change"


def test_state_first_then_changes(rest, where):
    rest.call("POST", where, {"metadata": {"name": "first", "labels": {"w": "state"}}})
    watch = rest.watch(f"{where}?watch=true&labelSelector=w%3Dstate&timeoutSeconds=20")
    assert seen(next(watch)) == ("ADDED", "first", "state")
    rest.call("POST", where, {"metadata": {"name": "second", "labels": {"w": "state"}}})
    assert seen(next(watch)) == ("ADDED", "second", "state")
    rest.call("POST", where, {"metadata": {"name": "unseen", "labels": {"w": "other"}}})
    rest.call("PATCH", f"{where}/unseen", {"metadata": {"labels": {"w": "state"}}}, content_type="application/merge-patch+json")
    assert seen(next(watch)) == ("ADDED", "unseen", "state"), "it begins to match"
    rest.call("PATCH", f"{where}/first", {"metadata": {"labels": {"w": "away"}}}, content_type="application/merge-patch+json")
    assert seen(next(watch))[:2] == ("DELETED", "first"), "it ceases to match"
    watch.close()


def test_streaming_list(rest, where):
    rest.call("POST", where, {"metadata": {"name": "listed", "labels": {"w": "list"}}})
    watch = rest.watch(f"{where}?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
                       "&labelSelector=w%3Dlist&timeoutSeconds=20")
    assert seen(next(watch)) == ("ADDED", "listed", "list")
    mark = next(watch)
    assert mark["type"] == "BOOKMARK"
    assert mark["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
    assert mark["object"]["kind"] == "ConfigMap"
    watch.close()


def test_tables(rest, where):
    accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
    rest.call("POST", where, {"metadata": {"name": "tabled", "labels": {"w": "table"}}, "data": {"a": "b"}})
    watch = rest.watch(f"{where}?watch=true&labelSelector=w%3Dtable&timeoutSeconds=20", accept=accept)
    event = next(watch)
    assert event["type"] == "ADDED" and event["object"]["kind"] == "Table"
    assert event["object"]["rows"][0]["cells"][:2] == ["tabled", 1]
    watch.close()


def test_kubectl_get_watch(kube, rest, where):
    watching = kube.popen("get", "configmaps", "-l", "w=kubectl", "--watch", "--output-watch-events", "--no-headers",
                          "--request-timeout=20s")
    try:
        rest.call("POST", where, {"metadata": {"name": "observed", "labels": {"w": "kubectl"}}})
        assert watching.stdout.readline().split()[:2] == ["ADDED", "observed"]
        rest.call("DELETE", f"{where}/observed")
        assert watching.stdout.readline().split()[:2] == ["DELETED", "observed"]
    finally:
        watching.kill()
        watching.communicate()


@pytest.mark.pocket
def test_forgotten_versions_are_gone(kube, rest, where):
    """Of each resource the last thousand changes can be watched: an older version answers 410, and kubectl lists again."""
    since = rest.call("GET", where).body["metadata"]["resourceVersion"]
    rest.call("POST", where, {"metadata": {"name": "busy"}})
    for number in range(1001):
        rest.call("PATCH", f"{where}/busy", {"data": {"n": str(number)}}, content_type="application/merge-patch+json")
    event = next(rest.watch(f"{where}?watch=true&resourceVersion={since}&timeoutSeconds=5"))
    assert event["type"] == "ERROR"
    assert (event["object"]["code"], event["object"]["reason"]) == (410, "Expired")
    assert event["object"]["message"].startswith("too old resource version")
