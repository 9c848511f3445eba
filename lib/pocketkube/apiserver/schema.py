"""The shape of every served kind, from Kubernetes' own OpenAPI definitions (as the ``kubernetes-validate`` package carries them).

Only what is reachable from the served kinds is kept, without its prose: that serves decoding (:mod:`.fields`), patches (:mod:`.patch`)
and server-side apply. Documents for ``kubectl explain`` are made on demand from the same file (:mod:`.openapi`).
"""

from __future__ import annotations

import functools
import importlib.util
import json
from pathlib import Path
from typing import Any

from . import resources

EXTRA_ROOTS = (
    # Definitions needed besides those of the resources themselves.
    "io.k8s.api.autoscaling.v1.Scale",
    "io.k8s.api.core.v1.Binding",
    "io.k8s.api.policy.v1.Eviction",
    "io.k8s.api.authentication.v1.SelfSubjectReview",
    "io.k8s.api.authentication.v1.TokenRequest",
    "io.k8s.api.authentication.v1.TokenReview",
    "io.k8s.api.authorization.v1.LocalSubjectAccessReview",
    "io.k8s.api.authorization.v1.SelfSubjectAccessReview",
    "io.k8s.api.authorization.v1.SelfSubjectRulesReview",
    "io.k8s.api.authorization.v1.SubjectAccessReview",
    "io.k8s.api.events.v1.Event",
    "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions",
)
_SCALARS = {
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": "intstr.IntOrString",
    "io.k8s.apimachinery.pkg.api.resource.Quantity": "resource.Quantity",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Time": "v1.Time",
    "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime": "v1.MicroTime",
    "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1": "v1.FieldsV1",
    "io.k8s.apimachinery.pkg.runtime.RawExtension": "runtime.RawExtension",
}


class Field:
    """The type of one value.

    Attributes:
        kind: ``struct``, ``list``, ``map`` or ``scalar``.
        go: the name of its Go type, which error messages quote.
        struct: for a struct, its :class:`Struct`.
        item: for a list or map, the type of its items.
        merge_key: for a list that strategic merge patches merge by key, that key.
        strategy: the strategic merge patch strategies (``merge``, ``retainKeys``, ``replace``).
        list_keys: for an associative list under server-side apply, its keys; ``()`` for a set; None for an atomic list.
        atomic: under server-side apply the value has one owner as a whole.
        required: whether the definition requires it.
    """

    __slots__ = ("atomic", "go", "item", "kind", "list_keys", "merge_key", "required", "strategy", "struct")

    def __init__(self, kind: str, go: str):
        self.kind, self.go = kind, go
        self.struct: Struct | None = None
        self.item: Field | None = None
        self.merge_key: str | None = None
        self.strategy: tuple[str, ...] = ()
        self.list_keys: tuple[str, ...] | None = None
        self.atomic = False
        self.required = False


class Struct:
    """An object with known fields.

    Attributes:
        name: its Go name, such as ``PodSpec``.
        message: its protobuf message, such as ``core.v1.PodSpec``.
    """

    __slots__ = ("fields", "message", "name")

    def __init__(self, full_name: str):
        parts = full_name.split(".")
        self.name = parts[-1]
        self.message = ".".join(parts[-3:])
        self.fields: dict[str, Field] = {}


def definitions_path() -> Path:
    """The file with Kubernetes' definitions.

    Raises:
        RuntimeError: the package that carries it isn't installed, or is too old.
    """
    # find_spec rather than import: importing the package would load jsonschema, which costs start-up time and memory.
    spec = importlib.util.find_spec("kubernetes_validate")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError("the package kubernetes-validate is not installed: run ./lab, or pip install kubernetes-validate")
    path = Path(spec.submodule_search_locations[0]) / "kubernetes-json-schema" / "v1.34.0-local" / "_definitions.json"
    if not path.is_file():
        raise RuntimeError(f"kubernetes-validate lacks the definitions for Kubernetes 1.34 ({path}): install kubernetes-validate >= 1.34")
    return path


def load_definitions() -> dict[str, Any]:
    """All of Kubernetes' definitions by name, prose included (about 1.5 MB of JSON: don't keep the result)."""
    with definitions_path().open("rb") as file:
        definitions: dict[str, Any] = json.load(file)["$defs"]
    return definitions


def ref_name(schema: dict[str, Any]) -> str | None:
    """The definition that a schema refers to, if any."""
    ref = schema.get("$ref")
    return str(ref).rsplit("/", 1)[-1] if ref else None


def type_of(schema: dict[str, Any]) -> str | None:
    """A schema's type, "null" set aside."""
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((one for one in kind if one != "null"), None)
    return kind


class _Builder:
    def __init__(self, definitions: dict[str, Any]):
        self.definitions = definitions
        self.structs: dict[str, Struct] = {}

    def struct(self, name: str) -> Struct:
        if name in self.structs:
            return self.structs[name]
        struct = self.structs[name] = Struct(name)
        definition = self.definitions[name]
        needed = set(definition.get("required", ()))
        for key, schema in definition.get("properties", {}).items():
            struct.fields[key] = field = self.field(schema, name)
            field.required = key in needed
        return struct

    def field(self, schema: dict[str, Any], inside: str) -> Field:
        name = ref_name(schema)
        target = self.definitions[name] if name else schema
        if name in _SCALARS:
            field = Field("scalar", _SCALARS[name])
            field.atomic = True
        elif name and (target.get("properties") is not None):
            field = Field("struct", f"{name.split('.')[-2]}.{name.split('.')[-1]}")
            field.struct = self.struct(name)
        elif type_of(target) == "array":
            item = self.field(target["items"], inside)
            field = Field("list", "[]" + item.go)
            field.item = item
        elif type_of(target) == "object" and "additionalProperties" in target:
            item = self.field(target["additionalProperties"], inside)
            field = Field("map", "map[string]" + item.go)
            field.item = item
        else:
            field = Field("scalar", self.scalar(target))
        self.annotate(field, {**target, **schema})
        return field

    @staticmethod
    def scalar(schema: dict[str, Any]) -> str:
        kind, fmt = type_of(schema), schema.get("format")
        if kind == "integer":
            return fmt or "int"
        if kind == "number":
            return "float64"
        if kind == "boolean":
            return "bool"
        if kind == "string":
            return "[]uint8" if fmt == "byte" else "string"
        return "any"

    @staticmethod
    def annotate(field: Field, schema: dict[str, Any]) -> None:
        field.merge_key = schema.get("x-kubernetes-patch-merge-key")
        field.strategy = tuple(filter(None, schema.get("x-kubernetes-patch-strategy", "").split(",")))
        kind = schema.get("x-kubernetes-list-type")
        if kind == "map":
            field.list_keys = tuple(schema.get("x-kubernetes-list-map-keys", ()))
        elif kind == "set":
            field.list_keys = ()
        if schema.get("x-kubernetes-map-type") == "atomic":
            field.atomic = True


@functools.cache
def structs() -> dict[str, Struct]:
    """Every definition reachable from the served kinds, by its full name."""
    builder = _Builder(load_definitions())
    for resource in resources.RESOURCES:
        builder.struct(resource.schema)
    for name in EXTRA_ROOTS:
        if name in builder.definitions:
            builder.struct(name)
    return builder.structs


def struct_of(resource: resources.Resource) -> Struct:
    """The shape of a resource's objects."""
    return structs()[resource.schema]


@functools.cache
def kinds() -> dict[tuple[str, str], str]:
    """The definition of each (apiVersion, kind) that a request's body may hold."""
    found = {(resource.api_version, resource.kind): resource.schema for resource in resources.RESOURCES}
    for name in EXTRA_ROOTS:
        group, version, kind = name.split(".")[-3:]
        prefix = {"meta": "", "core": "", "authentication": "authentication.k8s.io/", "authorization": "authorization.k8s.io/",
                  "events": "events.k8s.io/"}.get(group, f"{group}/")
        found[(prefix + version, kind)] = name
    # Options of requests are of the version of the group that they are sent to.
    options = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"
    found.update({(resource.api_version, "DeleteOptions"): options for resource in resources.RESOURCES})
    return found
