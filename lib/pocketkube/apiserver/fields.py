"""Decoding: from what a client sent to a clean object, as strictly as the real API server's decoder.

Unknown and duplicate fields are collected (a request's ``fieldValidation`` says whether they are errors, warnings or nothing);
a value of the wrong type is an error in Go's own words, since that is what learners will meet on a real cluster.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import Any

from . import errors
from .schema import Field, Struct

_DUPLICATES = "\0duplicates"
_TIME = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$")
_QUANTITY = re.compile(r"^([+-]?)(\d+(?:\.\d*)?|\.\d+)(m|u|n|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|[eE][+-]?\d+)?$")
_RANGES = {"int32": (-(2**31), 2**31 - 1), "int64": (-(2**63), 2**63 - 1), "int": (-(2**63), 2**63 - 1)}


class DecodeError(Exception):
    """A value of a type that the field can't hold."""


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        result[_DUPLICATES] = [key for key, _ in pairs if key in seen or seen.add(key)]  # type: ignore[func-returns-value]
    return result


def parse_json(body: bytes, *, duplicates: bool = True) -> Any:
    """The JSON document in ``body``; repeated keys are remembered for :func:`decode` when ``duplicates`` is set.

    Raises:
        DecodeError: it isn't JSON, in the words of Go's decoder where they are close.
    """
    try:
        return json.loads(body, object_pairs_hook=_pairs if duplicates else None)
    except UnicodeDecodeError as error:
        raise DecodeError(f"invalid UTF-8 in the request's body at byte {error.start}") from error
    except json.JSONDecodeError as error:
        if error.pos >= len(error.doc.rstrip()):
            raise DecodeError("unexpected end of JSON input") from error
        raise DecodeError(f"invalid character {_go_character(error.doc[error.pos])} looking for beginning of value") from error
    except RecursionError as error:
        raise DecodeError("exceeded max depth") from error


def _go_character(character: str) -> str:
    return {"'": r"'\''", '"': "'\"'", "\n": r"'\n'", "\t": r"'\t'"}.get(character, f"'{character}'")


def parse_yaml(body: bytes) -> Any:
    """The one YAML document in ``body``.

    Raises:
        DecodeError: it isn't YAML.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        """Keeps timestamps as the strings that Kubernetes expects."""

    Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    try:
        return yaml.load(body, Loader)
    except yaml.YAMLError as error:
        raise DecodeError(f"error converting YAML to JSON: yaml: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise DecodeError("error converting YAML to JSON: exceeded max depth") from error


def describe(value: Any) -> str:
    """What Go's decoder calls a JSON value."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "string"
    if isinstance(value, list):
        return "array"
    return "object"


class _Decoder:
    def __init__(self) -> None:
        self.strict: list[str] = []

    def struct(self, struct: Struct, value: Any, path: str, go_path: str, root: bool = False) -> dict[str, Any]:
        result: dict[str, Any] = {}
        fields = struct.fields
        for key, item in value.items():
            field = fields.get(key)
            here = f"{path}.{key}" if path else key
            if field is None:
                if key == _DUPLICATES:
                    self.strict += [f'duplicate field "{path + "." if path else ""}{name}"' for name in item]
                elif not (root and key in ("apiVersion", "kind")):
                    self.strict.append(f'unknown field "{here}"')
                continue
            if item is None:
                continue
            clean = self.value(field, item, here, f"{go_path}.{key}" if go_path else key, struct.name)
            if (field.kind in ("list", "map") and not clean) and not field.required:
                continue
            result[key] = clean
        return result

    def value(self, field: Field, value: Any, path: str, go_path: str, owner: str) -> Any:
        kind = field.kind
        if kind == "scalar":
            return self.scalar(field, value, go_path, owner)
        if kind == "struct":
            if not isinstance(value, dict):
                raise _mismatch(value, field.go, go_path, owner)
            return self.struct(field.struct, value, path, go_path)  # type: ignore[arg-type]
        item: Field = field.item  # type: ignore[assignment]
        if kind == "list":
            if not isinstance(value, list):
                raise _mismatch(value, field.go, go_path, owner)
            return [
                self.value(item, one, f"{path}[{index}]", go_path, owner) if one is not None else ({} if item.kind == "struct" else "")
                for index, one in enumerate(value)
            ]
        if not isinstance(value, dict):
            raise _mismatch(value, field.go, go_path, owner)
        result = {}
        for key, one in value.items():
            if key == _DUPLICATES:
                self.strict += [f'duplicate field "{path}.{name}"' for name in one]
            elif one is None:
                result[key] = "" if item.kind == "scalar" else {}
            else:
                result[key] = self.value(item, one, f"{path}.{key}", go_path, owner)
        return result

    def scalar(self, field: Field, value: Any, go_path: str, owner: str) -> Any:
        go = field.go
        if go == "string":
            if isinstance(value, str):
                return value
        elif go == "bool":
            if isinstance(value, bool):
                return value
        elif go in _RANGES:
            if isinstance(value, float) and value.is_integer():
                value = int(value)
            if isinstance(value, int) and not isinstance(value, bool):
                low, high = _RANGES[go]
                if low <= value <= high:
                    return value
                raise _mismatch(value, go, go_path, owner, number=True)
            if isinstance(value, float):
                raise _mismatch(value, go, go_path, owner, number=True)
        elif go == "intstr.IntOrString":
            if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
                return value
            raise DecodeError(f"json: cannot unmarshal {describe(value)} into Go value of type {'int32' if value is not None else go}")
        elif go == "resource.Quantity":
            return quantity(value)
        elif go in ("v1.Time", "v1.MicroTime"):
            if isinstance(value, str):
                if not _TIME.match(value):
                    layout = "2006-01-02T15:04:05Z07:00"
                    raise DecodeError(f'parsing time "{value}" as "{layout}": cannot parse "{value}" as "2006"')
                return value
            raise DecodeError(f"json: cannot unmarshal {describe(value)} into Go value of type string")
        elif go == "[]uint8":
            if isinstance(value, str):
                try:
                    base64.b64decode(value, validate=True)
                except (binascii.Error, ValueError) as error:
                    raise DecodeError(f"illegal base64 data at input byte {_bad_base64(value)}") from error
                return value
        elif go == "float64":
            if isinstance(value, int | float) and not isinstance(value, bool):
                return value
        else:
            return without_marks(value)
        raise _mismatch(value, go, go_path, owner)


def _bad_base64(text: str) -> int:
    match = re.search(r"[^A-Za-z0-9+/]", text.rstrip("="))
    return match.start() if match else len(text) - len(text) % 4


def _mismatch(value: Any, go: str, go_path: str, owner: str, *, number: bool = False) -> DecodeError:
    shown = f"number {value}" if number else describe(value)
    if owner:
        return DecodeError(f"json: cannot unmarshal {shown} into Go struct field {owner}.{go_path} of type {go}")
    return DecodeError(f"json: cannot unmarshal {shown} into Go value of type {go}")


def without_marks(value: Any) -> Any:
    """The value without the marks that :func:`parse_json` leaves for repeated keys."""
    if isinstance(value, dict):
        return {key: without_marks(item) for key, item in value.items() if key != _DUPLICATES}
    if isinstance(value, list):
        return [without_marks(item) for item in value]
    return value


def quantity(value: Any) -> str:
    """A resource quantity in the canonical form that the API returns.

    >>> quantity("0.5"), quantity("1000m"), quantity(2), quantity("1024Mi"), quantity("128Mi")
    ('500m', '1', '2', '1Gi', '128Mi')

    Raises:
        DecodeError: it isn't a quantity.
    """
    text = str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
    match = _QUANTITY.match(text) if isinstance(text, str) else None
    if not match:
        raise DecodeError(
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
        )
    from fractions import Fraction

    sign, digits, suffix = match.group(1), Fraction(match.group(2)), match.group(3) or ""
    signed = "-" if sign == "-" else ""
    if suffix in ("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"):
        power = ("Ki", "Mi", "Gi", "Ti", "Pi", "Ei").index(suffix)
        while digits and digits % 1024 == 0 and power < 5:
            digits, power = digits / 1024, power + 1
        if digits.denominator == 1:
            return f"{signed}{digits.numerator}{('Ki', 'Mi', 'Gi', 'Ti', 'Pi', 'Ei')[power]}"
        return str(text)
    exponents = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
    if suffix not in exponents:
        return str(text)
    amount = digits * Fraction(10) ** exponents[suffix]
    if amount == 0:
        return "0"
    for name, exponent in sorted(exponents.items(), key=lambda item: -item[1]):
        scaled = amount / Fraction(10) ** exponent
        if scaled.denominator == 1:
            return f"{signed}{scaled.numerator}{name}"
    return str(text)


def decode(struct: Struct, value: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """A clean copy of ``value`` as the API server would hold it, and the strict decoding errors found on the way.

    Unknown fields are dropped, nulls and empty optional lists and maps too (as Go's ``omitempty`` does), quantities made canonical.

    Raises:
        DecodeError: a value has a type that its field can't hold.
    """
    decoder = _Decoder()
    return decoder.struct(struct, value, "", "", root=True), decoder.strict


def cannot_handle(kind: str, version: str, error: DecodeError | str) -> errors.ApiError:
    """The API's answer to an object that can't be decoded."""
    return errors.bad_request(f'{kind} in version "{version}" cannot be handled as a {kind}: {error}')
