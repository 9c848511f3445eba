"""Small questions about API objects that several controllers ask: time, ownership, selectors, readiness.

Everything here is a pure function of its arguments, so that a controller's decisions can be tested without a cluster.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timezone

from .store import clone


def now() -> datetime:
    """Return the present moment in UTC."""
    return datetime.now(timezone.utc)


def timestamp(moment: datetime | None = None) -> str:
    """Return a metav1.Time: RFC 3339 in UTC with whole seconds.

    >>> timestamp(datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc))
    '2026-01-02T03:04:05Z'
    """
    return (moment or now()).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(text: str) -> datetime:
    """Read a metav1.Time or MicroTime back.

    Raises:
        ValueError: When the text is not RFC 3339.
    """
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def key_of(obj: Mapping) -> tuple[str | None, str]:
    """Return (namespace, name); the namespace of a cluster-scoped object is None."""
    meta = obj["metadata"]
    return meta.get("namespace"), meta["name"]


def deleting(obj: Mapping) -> bool:
    """Whether somebody asked for the object's deletion."""
    return bool(obj["metadata"].get("deletionTimestamp"))


def labels_of(obj: Mapping) -> dict[str, str]:
    """Return the object's labels, which may be absent or null."""
    return obj["metadata"].get("labels") or {}


def annotations_of(obj: Mapping) -> dict[str, str]:
    """Return the object's annotations, which may be absent or null."""
    return obj["metadata"].get("annotations") or {}


def controller_of(obj: Mapping) -> dict | None:
    """Return the owner reference whose ``controller`` is true: at most one object manages another."""
    for reference in obj["metadata"].get("ownerReferences") or ():
        if reference.get("controller"):
            return reference
    return None


def controller_reference(owner: Mapping, api_version: str, kind: str) -> dict:
    """Return the reference that a controller writes into the objects it makes for ``owner``."""
    return {
        "apiVersion": api_version,
        "kind": kind,
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def selects(selector: Mapping | None, labels: Mapping[str, str]) -> bool:
    """Whether a metav1.LabelSelector matches a set of labels.

    A missing selector matches nothing and an empty one everything, as the API reference says.

    >>> selects({"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "c", "operator": "DoesNotExist"}]}, {"a": "b"})
    True
    """
    if selector is None:
        return False
    for name, value in (selector.get("matchLabels") or {}).items():
        if labels.get(name) != value:
            return False
    return all(_expression_holds(expression, labels) for expression in selector.get("matchExpressions") or ())


def _expression_holds(expression: Mapping, labels: Mapping[str, str]) -> bool:
    value = labels.get(expression["key"])
    operator, values = expression["operator"], expression.get("values") or ()
    if operator == "In":
        return value is not None and value in values
    if operator == "NotIn":
        return value is None or value not in values
    if operator == "Exists":
        return value is not None
    if operator == "DoesNotExist":
        return value is None
    if operator in {"Gt", "Lt"}:  # node affinity only; the label has to be an integer
        try:
            number, bound = int(value if value is not None else ""), int(values[0])
        except ValueError:
            return False
        return number > bound if operator == "Gt" else number < bound
    return False


def map_selects(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Whether a plain map selector, such as a Service's, matches a set of labels."""
    return all(labels.get(name) == value for name, value in selector.items())


def condition(obj: Mapping, type_: str) -> dict | None:
    """Return the status condition of that type, if there is one."""
    for item in obj.get("status", {}).get("conditions") or ():
        if item["type"] == type_:
            return item
    return None


def pod_ready(pod: Mapping) -> bool:
    """Whether the pod's Ready condition is True."""
    ready = condition(pod, "Ready")
    return ready is not None and ready["status"] == "True"


def pod_finished(pod: Mapping) -> bool:
    """Whether the pod has run to its end and will not run again."""
    return pod.get("status", {}).get("phase") in {"Succeeded", "Failed"}


def pod_active(pod: Mapping) -> bool:
    """Whether the pod counts toward its owner's replicas: neither finished nor being deleted."""
    return not pod_finished(pod) and not deleting(pod)


def pod_available_in(pod: Mapping, min_ready_seconds: int, moment: datetime) -> float | None:
    """Return the seconds until a pod counts as available; 0 if it does, None while it isn't ready."""
    ready = condition(pod, "Ready")
    if ready is None or ready["status"] != "True":
        return None
    if not min_ready_seconds:
        return 0.0
    since = ready.get("lastTransitionTime")
    if not since:
        return float(min_ready_seconds)
    return max(0.0, min_ready_seconds - (moment - parse_time(since)).total_seconds())


def scaled(value: int | str, total: int, *, round_up: bool) -> int:
    """Resolve an IntOrString against a total.

    >>> scaled("25%", 3, round_up=True), scaled("25%", 3, round_up=False), scaled(2, 3, round_up=True)
    (1, 0, 2)
    """
    if isinstance(value, int):
        return value
    percent = int(value.rstrip("%"))
    return -(-percent * total // 100) if round_up else percent * total // 100


def deep(obj: dict) -> dict:
    """Return a copy that may be changed; what informers hold is shared and must not be."""
    copied: dict = clone(obj)
    return copied


def without(items: Iterable[dict], type_: str) -> list[dict]:
    """Return conditions without the one of that type."""
    return [item for item in items if item["type"] != type_]
