"""Requests in Kubernetes' protobuf encoding, which newer kubectls use for the objects that they make themselves (``kubectl create …``).

Only requests are read in this form; answers are always JSON, which every client accepts beside it.
See https://kubernetes.io/docs/reference/using-api/api-concepts/#protobuf-encoding.
"""

from __future__ import annotations

import base64
import functools
import json
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

from . import schema
from .fields import DecodeError
from .protobuf_numbers import NUMBERS
from .schema import Field, Struct

MAGIC = b"k8s\0"

POINTERS = frozenset((
    "activeDeadlineSeconds", "allocateLoadBalancerNodePorts", "allowPrivilegeEscalation", "automountServiceAccountToken",
    "blockOwnerDeletion", "controller", "defaultMode", "deletionGracePeriodSeconds", "enableServiceLinks", "expirationSeconds",
    "fsGroup", "gracePeriodSeconds", "hostUsers", "immutable", "leaseDurationSeconds", "leaseTransitions", "mode", "optional",
    "orphanDependents", "priority", "privileged", "progressDeadlineSeconds", "readOnlyRootFilesystem", "ready", "replicas",
    "revisionHistoryLimit", "runAsGroup", "runAsNonRoot", "runAsUser", "serving", "setHostnameAsFQDN", "shareProcessNamespace",
    "terminating", "terminationGracePeriodSeconds", "tolerationSeconds",
))
"""Numbers and booleans whose zero means something. Of all others a zero in the message is the same as nothing."""


class _Message:
    """A protobuf message: by field number its name, or the message whose fields are this one's."""

    __slots__ = ("inlined", "names")

    def __init__(self) -> None:
        self.names: dict[int, str] = {}
        self.inlined: dict[int, str] = {}


@functools.cache
def _messages() -> dict[str, _Message]:
    found: dict[str, _Message] = {}
    message = _Message()
    for line in NUMBERS.splitlines():
        words = line.split()
        if not line.startswith(" "):
            message = found[words[0]] = _Message()
            words = words[1:]
        for word in words:
            name, _, number = word.rpartition("=")
            if name.startswith("@"):
                message.inlined[int(number)] = name[1:]
            else:
                message.names[int(number)] = name
    return found


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise DecodeError("unexpected EOF in a protobuf number")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _parts(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a message: number and value, in order."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield number, value
            continue
        if wire == 2:
            size, at = _varint(data, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise DecodeError(f"proto: illegal wireType {wire}")
        if at + size > len(data):
            raise DecodeError("unexpected EOF in a protobuf message")
        yield number, data[at:at + size]
        at += size


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def _first(data: bytes, number: int, default: Any) -> Any:
    return next((value for key, value in _parts(data) if key == number), default)


def _text(value: int | bytes) -> str:
    if not isinstance(value, bytes):
        raise DecodeError("proto: a string was expected")
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise DecodeError("proto: a string isn't valid UTF-8") from error


def _time(data: bytes, micro: bool) -> str | None:
    seconds, nanos = _signed(_first(data, 1, 0)), _signed(_first(data, 2, 0))
    if not data:
        return None
    moment = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=seconds, microseconds=nanos // 1000)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ" if micro else "%Y-%m-%dT%H:%M:%SZ")


def _scalar(go: str, value: int | bytes) -> Any:
    if go in ("int32", "int64", "int"):
        return _signed(value) if isinstance(value, int) else None
    if go == "bool":
        return bool(value)
    if not isinstance(value, bytes):
        raise DecodeError(f"proto: a number was not expected for {go}")
    if go == "intstr.IntOrString":
        return _text(_first(value, 3, b"")) if _first(value, 1, 0) else _signed(_first(value, 2, 0))
    if go == "resource.Quantity":
        return _text(_first(value, 1, b"0")) or "0"
    if go in ("v1.Time", "v1.MicroTime"):
        return _time(value, go == "v1.MicroTime")
    if go == "[]uint8":
        return base64.b64encode(value).decode()
    if go in ("v1.FieldsV1", "runtime.RawExtension"):
        raw = _first(value, 1, b"")
        return json.loads(raw) if raw else None
    return _text(value)


def _value(field: Field, value: int | bytes) -> Any:
    if field.kind == "scalar":
        return _scalar(field.go, value)
    if not isinstance(value, bytes):
        raise DecodeError(f"proto: a message was expected for {field.go}")
    if field.kind == "struct" and field.struct:
        return _struct(field.struct, value)
    # A list inside a map (the extra attributes of users): a message of its own, whose items are its field 1.
    item = field.item
    return [_value(item, one) for number, one in _parts(value) if number == 1] if item else None


def _struct(struct: Struct, data: bytes, message: str | None = None, into: dict[str, Any] | None = None) -> dict[str, Any]:
    known = _messages().get(message or struct.message)
    if known is None:
        raise DecodeError(f"the protobuf message {struct.message} is not known here")
    result: dict[str, Any] = {} if into is None else into
    for number, value in _parts(data):
        if number in known.inlined and isinstance(value, bytes):
            _struct(struct, value, known.inlined[number], result)
            continue
        name = known.names.get(number)
        field = struct.fields.get(name or "")
        if name is None or field is None:
            continue  # a field of a newer version: dropped, as by a real server of this one
        if field.kind == "list" and field.item:
            result.setdefault(name, []).append(_value(field.item, value))
        elif field.kind == "map" and field.item and isinstance(value, bytes):
            key, item = _text(_first(value, 1, b"")), _first(value, 2, None)
            empty: Any = "" if field.item.kind == "scalar" else {}
            result.setdefault(name, {})[key] = _value(field.item, item) if item is not None else empty
        else:
            one = _value(field, value)
            if one is None or (one in ("", 0, False) and not isinstance(one, dict | list) and name not in POINTERS
                               and field.go != "intstr.IntOrString"):
                continue
            result[name] = one
    return result


def decode(body: bytes, kinds: dict[tuple[str, str], str]) -> dict[str, Any]:
    """The object in a protobuf request, in its JSON form.

    Args:
        kinds: the definition for each (apiVersion, kind) that may be in it.

    Raises:
        DecodeError: it isn't Kubernetes' protobuf, or of an unknown kind.
    """
    if not body.startswith(MAGIC):
        raise DecodeError("provided data does not appear to be a protobuf message, expected prefix 6b387300")
    envelope: dict[int, Any] = dict(_parts(body[len(MAGIC):]))
    meta = dict(_parts(envelope.get(1, b"")))
    version, kind = _text(meta.get(1, b"")), _text(meta.get(2, b""))
    name = kinds.get((version, kind))
    if name is None:
        raise DecodeError(f'no kind "{kind}" is registered for version "{version}"')
    obj = _struct(schema.structs()[name], envelope.get(2, b""))
    return {"apiVersion": version, "kind": kind, **obj}
