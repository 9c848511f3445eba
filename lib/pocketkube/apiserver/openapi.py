"""The OpenAPI documents: what ``kubectl explain`` reads, and by which kubectl learns that the server checks fields itself.

Made on demand from the definitions file and not kept: they are large, asked for rarely, and cached by clients.
"""

from __future__ import annotations

import functools
import hashlib
import json
from typing import Any

from . import discovery, schema
from .resources import GROUPS, RESOURCES, Resource

REVISION = "1"
"""Raise it when the documents change for the same definitions: clients cache them by their hash."""

_QUERY = {"dryRun": "string", "fieldManager": "string", "fieldValidation": "string", "pretty": "string"}


@functools.cache
def digest() -> str:
    """What clients cache the documents by."""
    return hashlib.sha512(schema.definitions_path().read_bytes() + REVISION.encode()).hexdigest().upper()


def index() -> dict[str, Any]:
    """The answer to ``/openapi/v3``: a document for each group and version."""
    paths = ["api/v1", *(f"apis/{group}/{version}" for group, version in GROUPS)]
    return {"paths": {path: {"serverRelativeURL": f"/openapi/v3/{path}?hash={digest()}"} for path in paths}}


def _schema(definition: dict[str, Any], prefix: str, needed: set[str]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in definition.items():
        if key == "$ref":
            name = value.rsplit("/", 1)[-1]
            needed.add(name)
            if set(definition) == {"$ref"} or prefix != "#/components/schemas/":
                result["$ref"] = prefix + name
            else:
                # OpenAPI 3.0 ignores what stands beside $ref, hence allOf.
                result["allOf"] = [{"$ref": prefix + name}]
        elif key == "type":
            kind = value if isinstance(value, str) else next(one for one in value if one != "null")
            result["type"] = kind
        elif key == "properties":
            result[key] = {name: _schema(one, prefix, needed) for name, one in value.items()}
        elif key in ("items", "additionalProperties") and isinstance(value, dict):
            result[key] = _schema(value, prefix, needed)
        elif key == "oneOf":
            result[key] = [_schema(one, prefix, needed) for one in value]
        elif key not in ("enum", "$schema"):
            result[key] = value
    return result


def _definitions(roots: set[str], prefix: str, core_group: str | None) -> dict[str, Any]:
    everything = schema.load_definitions()
    found: dict[str, Any] = {}
    wanted = set(roots)
    while wanted:
        name = wanted.pop()
        if name in found or name not in everything:
            continue
        needed: set[str] = set()
        one = _schema(everything[name], prefix, needed)
        kinds = one.pop("x-kubernetes-group-version-kind", None)
        if kinds and core_group is not None:
            kinds = [kind for kind in kinds if kind["group"] == core_group] or kinds
        if kinds:
            one["x-kubernetes-group-version-kind"] = kinds
        if prefix != "#/components/schemas/" and "oneOf" in one:
            one = {"type": "string", **{key: value for key, value in one.items() if key != "oneOf"}}
            if name.endswith("IntOrString"):
                one["format"] = "int-or-string"
        elif name.endswith("IntOrString"):
            one["format"] = "int-or-string"
        found[name] = one
        wanted |= needed
    return found


def _operation(resource: Resource, gvk: dict[str, str], action: str, prefix: str, *, v2: bool) -> dict[str, Any]:
    parameters = [
        {"name": name, "in": "query", **({"type": kind} if v2 else {"schema": {"type": kind}})} for name, kind in _QUERY.items()
    ] if action in ("post", "put", "patch", "delete") else []
    response: dict[str, Any] = {"description": "OK"}
    if v2:
        response["schema"] = {"$ref": prefix + resource.schema}
    else:
        response["content"] = {"application/json": {"schema": {"$ref": prefix + resource.schema}}}
    return {"parameters": parameters, "responses": {"200": response}, "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": gvk}


def _paths(group: str, version: str, prefix: str, *, v2: bool = False) -> dict[str, Any]:
    base = f"/apis/{group}/{version}" if group else f"/api/{version}"
    paths: dict[str, Any] = {}
    for resource in (one for one in RESOURCES if one.group == group):
        gvk = {"group": group, "version": version, "kind": resource.kind}
        where = f"{base}/namespaces/{{namespace}}/{resource.plural}" if resource.namespaced else f"{base}/{resource.plural}"
        paths[where] = {"get": _operation(resource, gvk, "list", prefix, v2=v2), "post": _operation(resource, gvk, "post", prefix, v2=v2)}
        paths[f"{where}/{{name}}"] = {
            action: _operation(resource, gvk, action, prefix, v2=v2) for action in ("get", "put", "patch", "delete")
        }
    return paths


def document(group: str, version: str) -> bytes:
    """The OpenAPI v3 document of one group and version, as JSON.

    Raises:
        ApiError: NotFound: no such group and version.
    """
    discovery.api_resources(group, version)
    roots = {resource.schema for resource in RESOURCES if resource.group == group}
    if group == "events.k8s.io":
        roots = {"io.k8s.api.events.v1.Event"}
    roots |= {name for name in schema.EXTRA_ROOTS if name.startswith(f"io.k8s.api.{(group or 'core').split('.')[0]}.{version}.")}
    prefix = "#/components/schemas/"
    content = {
        "openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "1.34"}, "paths": _paths(group, version, prefix),
        "components": {"schemas": _definitions(roots, prefix, None)},
    }
    return json.dumps(content, separators=(",", ":")).encode()


def swagger() -> bytes:
    """The OpenAPI v2 document of everything, as JSON."""
    paths: dict[str, Any] = {}
    for group, version in (("", "v1"), *GROUPS):
        paths.update(_paths(group, version, "#/definitions/", v2=True))
    roots = {resource.schema for resource in RESOURCES} | set(schema.EXTRA_ROOTS)
    content = {"swagger": "2.0", "info": {"title": "Kubernetes", "version": "v1.34.4"}, "paths": paths,
               "definitions": _definitions(roots, "#/definitions/", None)}
    return json.dumps(content, separators=(",", ":")).encode()
