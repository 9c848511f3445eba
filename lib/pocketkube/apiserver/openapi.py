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

ENUMS = """
apps.v1.DeploymentStrategy.type Recreate RollingUpdate
core.v1.AppArmorProfile.type Localhost RuntimeDefault Unconfined
core.v1.AzureDiskVolumeSource.cachingMode None ReadOnly ReadWrite
core.v1.AzureDiskVolumeSource.kind Dedicated Managed Shared
core.v1.Container.imagePullPolicy Always IfNotPresent Never
core.v1.Container.terminationMessagePolicy FallbackToLogsOnError File
core.v1.ContainerPort.protocol SCTP TCP UDP
core.v1.EndpointPort.protocol SCTP TCP UDP
core.v1.EphemeralContainer.imagePullPolicy Always IfNotPresent Never
core.v1.EphemeralContainer.terminationMessagePolicy FallbackToLogsOnError File
core.v1.HTTPGetAction.scheme HTTP HTTPS
core.v1.HostPathVolumeSource.type BlockDevice CharDevice Directory DirectoryOrCreate File FileOrCreate Socket
core.v1.ImageVolumeSource.pullPolicy Always IfNotPresent Never
core.v1.NamespaceStatus.phase Active Terminating
core.v1.NodeSelectorRequirement.operator DoesNotExist Exists Gt In Lt NotIn
core.v1.NodeStatus.phase Pending Running Terminated
core.v1.PersistentVolumeClaimSpec.volumeMode Block Filesystem
core.v1.PodSecurityContext.fsGroupChangePolicy Always OnRootMismatch
core.v1.PodSecurityContext.supplementalGroupsPolicy Merge Strict
core.v1.PodSpec.dnsPolicy ClusterFirst ClusterFirstWithHostNet Default None
core.v1.PodSpec.preemptionPolicy Never PreemptLowerPriority
core.v1.PodSpec.restartPolicy Always Never OnFailure
core.v1.PodStatus.phase Failed Pending Running Succeeded Unknown
core.v1.PodStatus.qosClass BestEffort Burstable Guaranteed
core.v1.PortStatus.protocol SCTP TCP UDP
core.v1.SeccompProfile.type Localhost RuntimeDefault Unconfined
core.v1.SecurityContext.procMount Default Unmasked
core.v1.ServicePort.protocol SCTP TCP UDP
core.v1.ServiceSpec.externalTrafficPolicy Cluster Local
core.v1.ServiceSpec.internalTrafficPolicy Cluster Local
core.v1.ServiceSpec.ipFamilyPolicy PreferDualStack RequireDualStack SingleStack
core.v1.ServiceSpec.sessionAffinity ClientIP None
core.v1.ServiceSpec.type ClusterIP ExternalName LoadBalancer NodePort
core.v1.Taint.effect NoExecute NoSchedule PreferNoSchedule
core.v1.Toleration.effect NoExecute NoSchedule PreferNoSchedule
core.v1.Toleration.operator Equal Exists
core.v1.TopologySpreadConstraint.nodeAffinityPolicy Honor Ignore
core.v1.TopologySpreadConstraint.nodeTaintsPolicy Honor Ignore
core.v1.TopologySpreadConstraint.whenUnsatisfiable DoNotSchedule ScheduleAnyway
core.v1.VolumeMount.mountPropagation Bidirectional HostToContainer None
discovery.v1.EndpointPort.protocol SCTP TCP UDP
discovery.v1.EndpointSlice.addressType FQDN IPv4 IPv6
"""
"""The values of fields that know only a few, which the definitions file leaves out."""

_QUERY = {"dryRun": "string", "fieldManager": "string", "fieldValidation": "string", "pretty": "string"}


@functools.cache
def digest() -> str:
    """What clients cache the documents by."""
    return hashlib.sha512(schema.definitions_path().read_bytes() + REVISION.encode()).hexdigest().upper()


def index() -> dict[str, Any]:
    """The answer to ``/openapi/v3``: a document for each group and version."""
    paths = ["api/v1", *(f"apis/{group}/{version}" for group, version in GROUPS)]
    return {"paths": {path: {"serverRelativeURL": f"/openapi/v3/{path}?hash={digest()}"} for path in paths}}


@functools.cache
def _enums() -> dict[str, list[str]]:
    return {words[0]: words[1:] for words in (line.split() for line in ENUMS.splitlines()) if words}


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
        for key, field in (one.get("properties") or {}).items():
            values = _enums().get(f"{'.'.join(name.split('.')[-3:])}.{key}")
            if values and field.get("type") == "string":
                field["enum"] = values
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


SWAGGER_PROTOBUF_TYPE = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
SWAGGER_PROTOBUF = b"\x0a\x032.0\x12\x15\x0a\x0aKubernetes\x12\x07v1.34.4"
"""The v2 document in protobuf, with its heading alone. kubectl (1.28 and newer) asks for it only about kinds that the v3 documents lack,
and those aren't in it either."""


def swagger() -> bytes:
    """The OpenAPI v2 document of everything, as JSON."""
    paths: dict[str, Any] = {}
    for group, version in (("", "v1"), *GROUPS):
        paths.update(_paths(group, version, "#/definitions/", v2=True))
    roots = {resource.schema for resource in RESOURCES} | set(schema.EXTRA_ROOTS)
    content = {"swagger": "2.0", "info": {"title": "Kubernetes", "version": "v1.34.4"}, "paths": paths,
               "definitions": _definitions(roots, "#/definitions/", None)}
    return json.dumps(content, separators=(",", ":")).encode()
