"""Events in the group ``events.k8s.io``: another face of the same core/v1 Events, field by field."""

from __future__ import annotations

from typing import Any

_NAMES = (
    # events.k8s.io/v1, core/v1
    ("regarding", "involvedObject"),
    ("note", "message"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
    ("reportingController", "reportingComponent"),
)


def from_core(event: dict[str, Any]) -> dict[str, Any]:
    """A core/v1 Event as ``events.k8s.io/v1`` shows it."""
    names = {core: new for new, core in _NAMES}
    result = {names.get(key, key): value for key, value in event.items()}
    result["apiVersion"] = "events.k8s.io/v1"
    return result


def to_core(event: dict[str, Any]) -> dict[str, Any]:
    """An ``events.k8s.io/v1`` Event as it is kept."""
    names = dict(_NAMES)
    result = {names.get(key, key): value for key, value in event.items()}
    result["apiVersion"] = "v1"
    result.setdefault("involvedObject", {}).setdefault("namespace", event["metadata"].get("namespace", ""))
    return result
