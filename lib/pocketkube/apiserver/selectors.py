"""Label and field selectors, as in ``kubectl get -l`` and ``--field-selector``.

See https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from . import errors
from .resources import Resource

Predicate = Callable[[dict[str, Any]], bool]
_SET = re.compile(r"^(?P<key>[^\s,!=()]+)\s+(?P<op>in|notin)\s*\((?P<values>[^()]*)\)$")
_EQUAL = re.compile(r"^(?P<key>[^\s,!=<>()]+)\s*(?P<op>==|=|!=|>|<)\s*(?P<value>[^\s,!=<>()]*)$")
_EXISTS = re.compile(r"^(?P<not>!\s*)?(?P<key>[^\s,!=<>()]+)$")
_KEY = re.compile(r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$")
_VALUE = re.compile(r"^(([A-Za-z0-9][-A-Za-z0-9_.]{0,61})?[A-Za-z0-9])?$")


def _split(text: str) -> list[str]:
    """The requirements of a selector: commas inside parentheses don't separate."""
    parts, depth, current = [], 0, ""
    for character in text:
        depth += (character == "(") - (character == ")")
        if character == "," and depth == 0:
            parts.append(current)
            current = ""
        else:
            current += character
    return [*parts, current]


def labels(text: str) -> Predicate:
    """A predicate over label maps from a label selector's text.

    Raises:
        ApiError: BadRequest, with what can't be parsed.

    >>> labels("app=web,tier in (a, b),!old")({"app": "web", "tier": "b"})
    True
    """
    tests: list[Predicate] = []
    if not text.strip():
        return lambda _: True
    for raw in _split(text):
        part = raw.strip()
        if match := _SET.match(part):
            key, values = match["key"], frozenset(value.strip() for value in match["values"].split(","))
            if match["op"] == "in":
                tests.append(lambda have, key=key, values=values: key in have and have[key] in values)
            else:
                tests.append(lambda have, key=key, values=values: have.get(key) not in values)
        elif match := _EQUAL.match(part):
            key, op, value = match["key"], match["op"], match["value"]
            if op == "!=":
                tests.append(lambda have, key=key, value=value: have.get(key) != value)
            elif op in "<>":
                tests.append(_compare(key, op, value))
            else:
                tests.append(lambda have, key=key, value=value: key in have and have[key] == value)
            if not _VALUE.match(value):
                raise _unparsable(f'values[0][{key}]: Invalid value: "{value}": {VALUE_RULE}')
        elif match := _EXISTS.match(part):
            key = match["key"]
            if match["not"]:
                tests.append(lambda have, key=key: key not in have)
            else:
                tests.append(lambda have, key=key: key in have)
        else:
            raise _unparsable(_problem(part))
        if not _KEY.match(key):
            raise _unparsable(f'<nil>: Invalid value: "{key}": {KEY_RULE}')
    return lambda have: all(test(have) for test in tests)


KEY_RULE = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character"
    " (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
VALUE_RULE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an"
    " alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is"
    " '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)


def _problem(part: str) -> str:
    """Where a requirement goes wrong, in the words of upstream's parser."""
    words = part.split()
    if len(words) > 2 and words[1] in ("in", "notin"):
        return f"found '{words[2]}' expected: '('"
    if len(words) > 1:
        return f"found '{words[1]}', expected: in, notin, =, ==, !=, gt, lt"
    return f"found '{part}', expected: identifier"


def _compare(key: str, op: str, value: str) -> Predicate:
    try:
        limit = int(value)
    except ValueError as error:
        raise _unparsable(f"for 'Gt', 'Lt' operators, the value must be an integer, not '{value}'") from error

    def test(have: dict[str, Any]) -> bool:
        text = have.get(key, "")
        if not re.fullmatch(r"-?\d+", text):
            return False
        return int(text) > limit if op == ">" else int(text) < limit

    return test


def _unparsable(why: str) -> errors.ApiError:
    return errors.bad_request(f"unable to parse requirement: {why}")


def label_selector(selector: dict[str, Any] | None) -> Predicate:
    """A predicate over label maps from a ``metav1.LabelSelector`` object; None selects nothing, an empty one everything."""
    if selector is None:
        return lambda _: False
    wanted = selector.get("matchLabels") or {}
    expressions = selector.get("matchExpressions") or []

    def test(have: dict[str, Any]) -> bool:
        if any(have.get(key) != value for key, value in wanted.items()):
            return False
        for expression in expressions:
            key, operator, values = expression["key"], expression["operator"], expression.get("values") or []
            if operator == "In" and have.get(key) not in values:
                return False
            if operator == "NotIn" and key in have and have[key] in values:
                return False
            if operator == "Exists" and key not in have:
                return False
            if operator == "DoesNotExist" and key in have:
                return False
        return True

    return test


def format_label_selector(selector: dict[str, Any] | None) -> str:
    """A ``metav1.LabelSelector`` as text, as kubectl's SELECTOR column and scale's ``status.selector`` show it."""
    if selector is None:
        return "<none>"
    parts = [f"{key}={value}" for key, value in sorted((selector.get("matchLabels") or {}).items())]
    for expression in selector.get("matchExpressions") or []:
        key, operator, values = expression["key"], expression["operator"], ",".join(sorted(expression.get("values") or []))
        parts.append({"In": f"{key} in ({values})", "NotIn": f"{key} notin ({values})", "Exists": key}.get(operator, f"!{key}"))
    return ",".join(parts) or "<none>"


def fields(text: str, resource: Resource) -> Predicate:
    """A predicate over objects from a field selector's text; each kind knows only a few fields.

    Raises:
        ApiError: BadRequest, as for an unknown field on a real server.
    """
    tests: list[Predicate] = []
    for raw in filter(None, (part.strip() for part in text.split(","))):
        for operator in ("!=", "==", "="):
            if operator in raw:
                path, _, value = raw.partition(operator)
                break
        else:
            raise errors.bad_request(f"invalid selector: '{text}'; can't understand '{raw}'")
        if path not in ("metadata.name", "metadata.namespace", *resource.selectable):
            raise errors.bad_request(f'field label not supported: {path}' if resource.selectable or resource.group else
                                     f'"{path}" is not a known field selector: only "metadata.name", "metadata.namespace"')
        value = re.sub(r"\\(.)", r"\1", value)
        tests.append(lambda obj, path=path, value=value, negate=operator == "!=": (field_value(obj, path) == value) != negate)
    return lambda obj: all(test(obj) for test in tests)


def field_value(obj: dict[str, Any], path: str) -> str:
    """An object's field as a field selector compares it: a string, empty where the field isn't set."""
    if path == "name":
        path = "metadata.name"
    if path == "source":
        return str((obj.get("source") or {}).get("component") or obj.get("reportingComponent") or "")
    value: Any = obj
    for step in path.split("."):
        value = value.get(step) if isinstance(value, dict) else None
    if value is None:
        return "false" if path in ("spec.hostNetwork", "spec.unschedulable") else "0" if path == "status.replicas" else ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
