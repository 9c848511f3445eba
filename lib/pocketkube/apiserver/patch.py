"""The three kinds of patch: JSON patch (RFC 6902), JSON merge patch (RFC 7386) and Kubernetes' strategic merge patch.

Strategic merge patches are what ``kubectl apply``, ``edit`` and ``patch`` send: lists merge by the keys that the type's schema names.
See https://github.com/kubernetes/community/blob/master/contributors/devel/sig-api-machinery/strategic-merge-patch.md.
"""

from __future__ import annotations

from typing import Any

from ..store import clone
from . import errors
from .schema import Field, Struct

_ORDER = "$setElementOrder/"
_DELETE = "$deleteFromPrimitiveList/"
_RETAIN = "$retainKeys"
_DIRECTIVE = "$patch"


def merge(original: Any, patch: Any) -> Any:
    """The result of a JSON merge patch; neither argument is changed.

    >>> merge({"a": 1, "b": {"c": 2}}, {"a": None, "b": {"d": 3}})
    {'b': {'c': 2, 'd': 3}}
    """
    if not isinstance(patch, dict):
        return clone(patch)
    result = dict(original) if isinstance(original, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), value)
    return result


def json_patch(original: dict[str, Any], patch: Any) -> dict[str, Any]:
    """The result of a JSON patch.

    Raises:
        ApiError: BadRequest for a malformed patch, Invalid when an operation can't be carried out.
    """
    import jsonpatch
    import jsonpointer

    if not isinstance(patch, list):
        from .fields import describe

        raise errors.bad_request(f"error decoding patch: json: cannot unmarshal {describe(patch)} into Go value of type jsonpatch.Patch")
    if len(patch) > 10000:
        raise errors.too_large(f"The allowed maximum operations in a JSON patch is 10000, got {len(patch)}")
    try:
        result: dict[str, Any] = jsonpatch.apply_patch(original, patch)
    except (jsonpatch.JsonPatchConflict, jsonpatch.JsonPatchTestFailed, jsonpointer.JsonPointerException) as error:
        raise errors.ApiError(422, "Invalid", "the server rejected our request due to an error in our request", {}) from error
    except (jsonpatch.InvalidJsonPatch, TypeError, KeyError, AttributeError) as error:
        raise errors.bad_request(f"error decoding patch: {error}") from error
    return result


def strategic(original: dict[str, Any], patch: dict[str, Any], struct: Struct | None) -> dict[str, Any]:
    """The result of a strategic merge patch on an object of that shape; neither argument is changed.

    Raises:
        ApiError: BadRequest for a patch that names an unknown directive or lacks a list's merge key.
    """
    result = _object(clone(original), clone(patch), struct)
    return result if result is not None else {}


def _field(struct: Struct | None, key: str) -> Field | None:
    return struct.fields.get(key) if struct else None


def _object(original: dict[str, Any], patch: dict[str, Any], struct: Struct | None, values: Field | None = None) -> dict[str, Any] | None:
    directive = patch.pop(_DIRECTIVE, None)
    if directive == "replace":
        return _plain(patch)
    if directive == "delete":
        return None
    if directive not in (None, "merge"):
        raise errors.bad_request(f"unknown patch type found: {directive}")
    retain = patch.pop(_RETAIN, None)
    if retain is not None:
        original = {key: value for key, value in original.items() if key in retain}
    order = {key[len(_ORDER):]: patch.pop(key) for key in list(patch) if key.startswith(_ORDER)}
    drop = {key[len(_DELETE):]: patch.pop(key) for key in list(patch) if key.startswith(_DELETE)}
    for key, items in drop.items():
        if isinstance(original.get(key), list):
            original[key] = [item for item in original[key] if item not in items]
    for key, value in patch.items():
        field = values or _field(struct, key)
        if value is None:
            original.pop(key, None)
        elif isinstance(value, dict):
            present = original.get(key)
            if field is not None and field.kind == "scalar" and field.go != "any":
                original[key] = value
                continue
            items = field.item if field is not None and field.kind == "map" else None
            merged = _object(present if isinstance(present, dict) else {}, value, field.struct if field else None,
                             items if items is not None and items.kind != "scalar" else None)
            if merged is None:
                original.pop(key, None)
            else:
                original[key] = merged
        elif isinstance(value, list) and field is not None and field.kind == "list" and "merge" in field.strategy:
            original[key] = _list(original.get(key) or [], value, field, order.get(key), key)
        else:
            original[key] = _plain(value)
    for key, wanted in order.items():
        field = _field(struct, key)
        if key not in patch and isinstance(original.get(key), list) and field is not None:
            original[key] = _reorder(original[key], original[key], wanted, field.merge_key)
    return original


def _plain(value: Any) -> Any:
    """A new value of a patch, without directives and nulls."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if item is not None and not key.startswith(("$setElementOrder/", "$patch",
                "$retainKeys", "$deleteFromPrimitiveList/"))}
    if isinstance(value, list):
        return [_plain(item) for item in value if not (isinstance(item, dict) and item.get(_DIRECTIVE) == "delete")]
    return value


def _list(original: list[Any], patch: list[Any], field: Field, order: list[Any] | None, name: str) -> list[Any]:
    key = field.merge_key
    before = list(original)
    if not key or (field.item and field.item.kind == "scalar"):
        merged = list(original) + [item for item in dict.fromkeys(patch) if item not in original]
        return _reorder(merged, before, order, None)
    if any(isinstance(item, dict) and item.get(_DIRECTIVE) == "replace" for item in patch):
        return [_plain(item) for item in patch if set(item) != {_DIRECTIVE}]
    struct = field.item.struct if field.item else None
    merged = list(original)
    for item in patch:
        if not isinstance(item, dict) or key not in item:
            raise errors.bad_request(f"map: {item} does not contain declared merge key: {key}")
        position = next((index for index, one in enumerate(merged) if isinstance(one, dict) and one.get(key) == item[key]), None)
        if item.get(_DIRECTIVE) == "delete":
            merged = [one for one in merged if not (isinstance(one, dict) and one.get(key) == item[key])]
        elif position is None:
            created = _object({}, item, struct)
            if created is not None:
                merged.append(created)
        else:
            changed = _object(dict(merged[position]), item, struct)
            if changed is not None:
                merged[position] = changed
    return _reorder(merged, before, order, key)


def _reorder(merged: list[Any], before: list[Any], order: list[Any] | None, key: str | None) -> list[Any]:
    """Put the items that the patch knows into its order; those only the server has stay where they were relative to them."""
    if order is None:
        return merged

    def identity(item: Any) -> Any:
        value = item.get(key) if key and isinstance(item, dict) else item
        return value if not isinstance(value, dict | list) else repr(value)

    wanted = {identity(item): index for index, item in enumerate(order)}
    was = {identity(item): index for index, item in enumerate(before)}
    ours = sorted((item for item in merged if identity(item) in wanted), key=lambda item: wanted[identity(item)])
    theirs = [item for item in merged if identity(item) not in wanted]
    result: list[Any] = []
    while ours and theirs:
        mine, other = was.get(identity(ours[0])), was.get(identity(theirs[0]))
        if other is not None and (mine is None or other < mine):
            result.append(theirs.pop(0))
        else:
            result.append(ours.pop(0))
    return result + ours + theirs
