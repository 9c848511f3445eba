"""Server-side apply, and the record of who set which field that it needs (``metadata.managedFields``).

See https://kubernetes.io/docs/reference/using-api/server-side-apply/. Only clients are tracked, not the cluster's own controllers: what
those set can be taken over without a conflict, apart from that ownership and conflicts are as on a real server.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..store import clone
from . import errors, fields, schema
from .resources import Resource
from .schema import Field, Struct

if TYPE_CHECKING:
    from .api import Api, Options

Path = tuple[str, ...]
_UNTRACKED_META = {"name", "namespace", "uid", "creationTimestamp", "generation", "resourceVersion", "managedFields", "selfLink",
                   "deletionTimestamp", "deletionGracePeriodSeconds"}
_KEY_DEFAULTS = {"protocol": "TCP"}
"""Keys of associative lists that have a default (container and Service ports)."""


def _item_key(item: Any, keys: tuple[str, ...]) -> str:
    """How ``fieldsV1`` names an item of an associative list."""
    values = {key: item.get(key, _KEY_DEFAULTS.get(key)) for key in sorted(keys)}
    return "k:" + json.dumps({key: value for key, value in values.items() if value is not None}, separators=(",", ":"))


def leaves(obj: dict[str, Any], struct: Struct, *, status: bool = False) -> dict[Path, Any]:
    """The fields of an object that can have an owner, each with its value.

    Args:
        status: the fields of the status subresource instead of all others.
    """
    found: dict[Path, Any] = {}
    for key, value in obj.items():
        if key in ("apiVersion", "kind") or key not in struct.fields or (key == "status") != status:
            continue
        tracked = {name: item for name, item in value.items() if name not in _UNTRACKED_META} if key == "metadata" else value
        if tracked or key != "metadata":
            found.update(_walk((f"f:{key}",), tracked, struct.fields[key]))
    return found


def _walk(path: Path, value: Any, field: Field) -> Iterator[tuple[Path, Any]]:
    if field.kind == "struct" and not field.atomic and isinstance(value, dict) and field.struct:
        if not value:
            yield path, {}
        for key, item in value.items():
            if key in field.struct.fields:
                yield from _walk((*path, f"f:{key}"), item, field.struct.fields[key])
    elif field.kind == "map" and not field.atomic and isinstance(value, dict) and field.item:
        if not value:
            yield path, {}
        for key, item in value.items():
            yield from _walk((*path, f"f:{key}"), item, field.item)
    elif field.kind == "list" and field.list_keys is not None and isinstance(value, list) and field.item:
        for item in value:
            if field.list_keys:
                here = (*path, _item_key(item, field.list_keys))
                yield here, None
                yield from _walk(here, item, field.item)
            else:
                yield (*path, "v:" + json.dumps(item)), item
    else:
        yield path, value


def to_tree(paths: set[Path]) -> dict[str, Any]:
    """A set of paths as ``fieldsV1``."""
    tree: dict[str, Any] = {}
    for path in sorted(paths):
        node = tree
        for step in path:
            node = node.setdefault(step, {})
        if path[-1].startswith("k:"):
            node["."] = {}
    return tree


def from_tree(tree: dict[str, Any], path: Path = ()) -> set[Path]:
    """``fieldsV1`` as a set of paths."""
    if not tree:
        return {path}
    found: set[Path] = set()
    for step, below in tree.items():
        found |= {path} if step == "." else from_tree(below, (*path, step))
    return found


def shown(path: Path) -> str:
    """A path as conflict messages show it, such as ``.spec.template.spec.containers[name="nginx"].image``."""
    text = ""
    for step in path:
        kind, _, rest = step.partition(":")
        if kind == "f":
            text += f".{rest}"
        elif kind == "k":
            text += "[" + ",".join(f"{key}={json.dumps(value)}" for key, value in json.loads(rest).items()) + "]"
        else:
            text += f"[={rest}]"
    return text


class Managers:
    """The owners of an object's fields: by (manager, operation, subresource) the set of its paths."""

    def __init__(self, entries: list[dict[str, Any]] | None):
        self._entries: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.sets: dict[tuple[str, str, str], set[Path]] = {}
        for entry in entries or []:
            key = (entry.get("manager", ""), entry.get("operation", ""), entry.get("subresource", ""))
            self._entries[key] = entry
            self.sets[key] = from_tree(entry.get("fieldsV1") or {}) if entry.get("fieldsV1") else set()

    def entries(self, api_version: str, now: str) -> list[dict[str, Any]]:
        """As ``metadata.managedFields``; an entry whose set is unchanged keeps its time."""
        result = []
        for key, paths in self.sets.items():
            if not paths:
                continue
            old = self._entries.get(key)
            tree = to_tree(paths)
            if old is not None and old.get("fieldsV1") == tree:
                result.append(old)
                continue
            entry = {"manager": key[0], "operation": key[1], "apiVersion": api_version, "time": now, "fieldsType": "FieldsV1",
                     "fieldsV1": tree}
            if key[2]:
                entry["subresource"] = key[2]
            result.append(entry)
        return result


def track(resource: Resource, old: dict[str, Any] | None, new: dict[str, Any], manager: str, subresource: str | None, now: str) -> None:
    """After a write that wasn't an apply: what it changed now belongs to its manager, in place in ``new``."""
    struct = schema.struct_of(resource)
    status = subresource == "status"
    before = leaves(old, struct, status=status) if old is not None else {}
    after = leaves(new, struct, status=status)
    changed = {path for path, value in after.items() if path not in before or before[path] != value}
    removed = set(before) - set(after)
    if old is not None and not changed and not removed:
        return
    managers = Managers(new["metadata"].get("managedFields"))
    own = (manager, "Update", subresource or "")
    for key in managers.sets:
        managers.sets[key] -= removed | ({path for path in changed if path in before} if key != own else set())
    managers.sets.setdefault(own, set()).update(changed)
    new["metadata"]["managedFields"] = managers.entries(resource.api_version, now)


def server_side(api: Api, resource: Resource, namespace: str | None, name: str, config: Any, subresource: str | None, options: Options
                ) -> tuple[dict[str, Any], bool]:
    """Apply a configuration: what it says becomes so, what this manager said before and no longer says goes.

    Returns:
        The object, and whether it was created.

    Raises:
        ApiError: Conflict, when another manager owns a field that would change and ``options.force`` isn't set; or as for an update.
    """
    from .api import Options as PlainOptions
    from .api import timestamp

    if not isinstance(config, dict) or not isinstance(config.get("metadata", {}), dict):
        raise errors.bad_request("error decoding YAML: the applied configuration must be an object")
    if not config.get("apiVersion") or not config.get("kind"):
        raise errors.bad_request("the applied configuration must have apiVersion and kind set")
    struct = schema.struct_of(resource)
    try:
        clean, strict = fields.decode(struct, config)
    except fields.DecodeError as error:
        raise fields.cannot_handle(resource.kind, resource.version, error) from error
    if strict and options.validation == "Strict":
        unknown = "; ".join(f".{one.split(chr(34))[1]}: field not declared in schema" for one in strict)
        version = config["apiVersion"] if resource.group else f"/{config['apiVersion']}"
        what = f"{namespace}/{name}; {version}, Kind={config['kind']}"
        raise errors.ApiError(500, "", f"failed to create typed patch object ({what}): {unknown}")
    options.warnings += strict if options.validation == "Warn" else []
    meta = clean.setdefault("metadata", {})
    if meta.get("managedFields"):
        raise errors.bad_request("metadata.managedFields must be nil")
    if meta.get("name", name) != name:
        raise errors.bad_request(f"the name of the object ({meta['name']}) does not match the name on the URL ({name})")
    meta["name"] = name
    if resource.namespaced:
        meta["namespace"] = namespace
    status = subresource == "status"
    wanted = leaves(clean, struct, status=status)
    own = (options.manager or "unknown", "Apply", subresource or "")
    plain = PlainOptions(dry_run=options.dry_run)
    live = api.store.get(resource.plural, namespace if resource.namespaced else None, name)
    if live is None:
        managers = Managers(None)
        managers.sets[own] = set(wanted)
        meta["managedFields"] = managers.entries(resource.api_version, timestamp())
        return api.create(resource.plural, clean, options=plain), True
    managers = Managers(live["metadata"].get("managedFields"))
    present = leaves(live, struct, status=status)
    conflicts = [
        (key, path) for key, paths in managers.sets.items() if key != own and key[2] == own[2]
        for path in sorted(paths) if path in wanted and not path[-1].startswith("k:") and wanted[path] != present.get(path)
    ]
    if own[0] == "kubectl" and conflicts:
        # Objects that kubectl has managed by client-side apply so far: what that configuration said isn't in the way of the new one.
        mine = _last_applied(live, present, struct)
        migrates = all(path in mine for _, path in conflicts)
    else:
        migrates = False
    if conflicts and not options.force and not migrates:
        raise _conflict(resource, conflicts)
    for key, path in conflicts:
        managers.sets[key].discard(path)
    merged = _merge_struct(clone(live), clean, struct)
    others = set().union(*(paths for key, paths in managers.sets.items() if key != own)) if managers.sets else set()
    gone = managers.sets.get(own, set()) - set(wanted)
    for path in sorted(gone, key=len):
        if _is_key(path):
            continue  # it goes with its item, or stays with it
        if not any(other[:len(path)] == path for other in others) and not any(kept[:len(path)] == path for kept in wanted):
            _remove(merged, path)
    managers.sets[own] = set(wanted)
    merged["metadata"]["managedFields"] = managers.entries(resource.api_version, timestamp())
    if not meta.get("resourceVersion"):
        merged["metadata"].pop("resourceVersion", None)
    return api.update(resource.plural, merged, subresource=subresource, options=plain), False


LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


def _last_applied(live: dict[str, Any], present: dict[Path, Any], struct: Struct) -> set[Path]:
    """The fields that kubectl's annotation of the last client-side apply names and that still are as it says."""
    text = (live["metadata"].get("annotations") or {}).get(LAST_APPLIED)
    try:
        config = fields.decode(struct, json.loads(text))[0] if text else {}
    except (ValueError, AttributeError, fields.DecodeError):
        return set()  # an annotation that was edited by hand: it vouches for nothing
    return {path for path, value in leaves(config, struct).items() if present.get(path) == value}


def _conflict(resource: Resource, conflicts: list[tuple[tuple[str, str, str], Path]]) -> errors.ApiError:
    def who(key: tuple[str, str, str]) -> str:
        part = f' with subresource "{key[2]}"' if key[2] else ""
        version = f" using {resource.api_version}" if key[1] == "Update" else ""
        return f'conflict with "{key[0]}"{part}{version}'

    by_manager: dict[tuple[str, str, str], list[str]] = {}
    for key, path in conflicts:
        by_manager.setdefault(key, []).append(shown(path))
    count = len(conflicts)
    if count == 1:
        text = f"{who(conflicts[0][0])}: {shown(conflicts[0][1])}"
    else:
        text = "\n".join(
            f"conflicts{who(key)[len('conflict'):]}:\n" + "\n".join(f"- {path}" for path in paths)
            for key, paths in sorted(by_manager.items())
        )
    causes = [{"reason": "FieldManagerConflict", "message": who(key), "field": shown(path)} for key, path in conflicts]
    return errors.ApiError(409, "Conflict", f"Apply failed with {count} conflict{'s' if count > 1 else ''}: {text}", {"causes": causes})


def _merge_struct(live: dict[str, Any], config: dict[str, Any], struct: Struct) -> dict[str, Any]:
    for key, value in config.items():
        field = struct.fields.get(key)
        live[key] = _merge_value(live.get(key), value, field) if field is not None else value
    return live


def _merge_value(live: Any, value: Any, field: Field) -> Any:
    if field.atomic or live is None:
        return clone(value)
    if field.kind == "struct" and field.struct and isinstance(live, dict):
        return _merge_struct(live, value, field.struct)
    if field.kind == "map" and field.item and isinstance(live, dict):
        for key, item in value.items():
            live[key] = _merge_value(live.get(key), item, field.item)
        return live
    if field.kind == "list" and field.list_keys is not None and field.item and isinstance(live, list):
        if not field.list_keys:
            return live + [item for item in value if item not in live]
        keys = field.list_keys
        positions = {_item_key(item, keys): index for index, item in enumerate(live)}
        for item in value:
            position = positions.get(_item_key(item, keys))
            if position is None:
                live.append(clone(item))
            else:
                live[position] = _merge_value(live[position], item, field.item)
        return live
    return clone(value)


def _is_key(path: Path) -> bool:
    """Whether the field is one of the keys by which its item is known in an associative list."""
    if len(path) < 2 or not path[-2].startswith("k:"):
        return False
    return path[-1][2:] in json.loads(path[-2][2:])


def _remove(obj: Any, path: Path) -> None:
    """Take the field at ``path`` out of the object, if it is there."""
    for index, step in enumerate(path):
        kind, _, rest = step.partition(":")
        last = index == len(path) - 1
        if kind == "f" and isinstance(obj, dict) and rest in obj:
            if last:
                del obj[rest]
                return
            obj = obj[rest]
        elif kind == "k" and isinstance(obj, list):
            keys = json.loads(rest)
            item = next((one for one in obj if all(one.get(key, _KEY_DEFAULTS.get(key)) == value for key, value in keys.items())), None)
            if item is None:
                return
            if last:
                obj.remove(item)
                return
            obj = item
        elif kind == "v" and isinstance(obj, list):
            value = json.loads(rest)
            if value in obj:
                obj.remove(value)
            return
        else:
            return
