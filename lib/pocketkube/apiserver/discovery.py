"""Discovery: which groups, versions and resources there are, plain and aggregated (``apidiscovery.k8s.io/v2``)."""

from __future__ import annotations

from typing import Any

from . import errors
from .resources import BY_PLURAL, GROUPS, RESOURCES, REVIEWS, Resource


def _in_group(group: str) -> list[Resource]:
    if group == "events.k8s.io":
        return [BY_PLURAL["events"]]
    return [resource for resource in RESOURCES if resource.group == group]


def api_versions(address: str) -> dict[str, Any]:
    """The answer to ``/api``."""
    return {"kind": "APIVersions", "versions": ["v1"],
            "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}]}


def _group(name: str, version: str) -> dict[str, Any]:
    one = {"groupVersion": f"{name}/{version}", "version": version}
    return {"name": name, "versions": [one], "preferredVersion": one}


def api_groups() -> dict[str, Any]:
    """The answer to ``/apis``."""
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(*group) for group in GROUPS]}


def api_group(name: str) -> dict[str, Any]:
    """The answer to ``/apis/GROUP``.

    Raises:
        ApiError: NotFound: no such group.
    """
    for group in GROUPS:
        if group[0] == name:
            return {"kind": "APIGroup", "apiVersion": "v1", **_group(*group)}
    raise errors.no_such_path()


def api_resources(group: str, version: str) -> dict[str, Any]:
    """The answer to ``/api/v1`` (group ``""``) or ``/apis/GROUP/VERSION``.

    Raises:
        ApiError: NotFound: no such group and version.
    """
    if (group, version) not in (("", "v1"), *GROUPS):
        raise errors.no_such_path()
    found: list[dict[str, Any]] = []
    for resource in _in_group(group):
        entry: dict[str, Any] = {"name": resource.plural, "singularName": resource.singular, "namespaced": resource.namespaced,
                                 "kind": resource.kind, "verbs": list(resource.verbs)}
        if resource.short_names:
            entry["shortNames"] = list(resource.short_names)
        if resource.categories:
            entry["categories"] = list(resource.categories)
        if resource.hash:
            entry["storageVersionHash"] = resource.hash
        found.append(entry)
        for sub in resource.subresources:
            entry = {"name": f"{resource.plural}/{sub.name}", "singularName": "", "namespaced": resource.namespaced}
            if sub.group:
                entry.update(group=sub.group, version=sub.version)
            found.append({**entry, "kind": sub.kind, "verbs": list(sub.verbs)})
    for plural, singular, kind, namespaced in REVIEWS.get(group, ()):
        found.append({"name": plural, "singularName": singular, "namespaced": namespaced, "kind": kind, "verbs": ["create"]})
    if not group:
        found.append({"name": "bindings", "singularName": "binding", "namespaced": True, "kind": "Binding", "verbs": ["create"]})
    found.sort(key=lambda entry: entry["name"])
    listing: dict[str, Any] = {"kind": "APIResourceList", "groupVersion": f"{group}/{version}" if group else version, "resources": found}
    return {**listing, "apiVersion": "v1"} if group else listing


def _scope(namespaced: bool) -> str:
    return "Namespaced" if namespaced else "Cluster"


def _aggregated(group: str, version: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = []
    for resource in _in_group(group):
        entry: dict[str, Any] = {
            "resource": resource.plural, "responseKind": {"group": resource.group, "version": resource.version, "kind": resource.kind},
            "scope": _scope(resource.namespaced), "singularResource": resource.singular, "verbs": list(resource.verbs),
        }
        if group == "events.k8s.io":
            entry["responseKind"] = {"group": group, "version": version, "kind": resource.kind}
        if resource.short_names:
            entry["shortNames"] = list(resource.short_names)
        if resource.categories:
            entry["categories"] = list(resource.categories)
        if resource.subresources:
            entry["subresources"] = [
                {"subresource": sub.name, "responseKind": {"group": sub.group or resource.group, "version": sub.version or resource.version,
                                                           "kind": sub.kind}, "verbs": list(sub.verbs)}
                for sub in resource.subresources
            ]
        found.append(entry)
    for plural, singular, kind, namespaced in REVIEWS.get(group, ()):
        found.append({"resource": plural, "responseKind": {"group": group, "version": version, "kind": kind}, "scope": _scope(namespaced),
                      "singularResource": singular, "verbs": ["create"]})
    if not group:
        found.append({"resource": "bindings", "responseKind": {"group": "", "version": "v1", "kind": "Binding"}, "scope": "Namespaced",
                      "singularResource": "binding", "verbs": ["create"]})
    found.sort(key=lambda entry: entry["resource"])
    return {"metadata": {"name": group} if group else {},
            "versions": [{"version": version, "resources": found, "freshness": "Current"}]}


def aggregated(core: bool, *, version: str = "v2") -> dict[str, Any]:
    """Aggregated discovery: the answer to ``/api`` (``core``) or ``/apis`` for clients that ask for an ``APIGroupDiscoveryList``."""
    items = [_aggregated("", "v1")] if core else [_aggregated(*group) for group in GROUPS]
    return {"kind": "APIGroupDiscoveryList", "apiVersion": f"apidiscovery.k8s.io/{version}", "metadata": {}, "items": items}


def verbs_of(resource: Resource, subresource: str | None) -> tuple[str, ...]:
    """The verbs that a resource, or its subresource, knows."""
    if subresource is None:
        return resource.verbs
    return next((sub.verbs for sub in resource.subresources if sub.name == subresource), ())


