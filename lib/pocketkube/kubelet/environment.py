"""The environment of a container: what the pod says, and a few variables for each Service.

https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Mapping

_REFERENCE = re.compile(r"\$(\$|\(([^()$]*)\))")


class ConfigError(Exception):
    """A container that can't be made from its configuration (waiting reason CreateContainerConfigError)."""


def expand(text: str, known: Mapping[str, str]) -> str:
    """``$(NAME)`` replaced by its value; a name that isn't known stays as written, ``$$`` is a plain ``$``.

    >>> expand("$(A)-$(B)-$$(A)", {"A": "1"})
    '1-$(B)-$(A)'
    """

    def replace(match: re.Match) -> str:
        if match[1] == "$":
            return "$"
        return known.get(match[2], match[0])

    return _REFERENCE.sub(replace, text)


def service_variables(services: Iterable[dict]) -> dict[str, str]:
    """The variables that tell a container of the Services that existed when it started.

    Headless and ExternalName Services have none.
    """
    result: dict[str, str] = {}
    for service in sorted(services, key=lambda s: (s["metadata"]["namespace"], s["metadata"]["name"])):
        spec = service.get("spec", {})
        address, ports = spec.get("clusterIP"), spec.get("ports") or []
        if not address or address == "None" or not ports:
            continue
        prefix = service["metadata"]["name"].upper().replace("-", "_")
        host = f"[{address}]" if ":" in address else address
        result[f"{prefix}_SERVICE_HOST"] = address
        result[f"{prefix}_SERVICE_PORT"] = str(ports[0]["port"])
        for port in ports:
            if port.get("name"):
                result[f"{prefix}_SERVICE_PORT_{port['name'].upper().replace('-', '_')}"] = str(port["port"])
        for index, port in enumerate(ports):
            protocol = port.get("protocol", "TCP")
            url = f"{protocol.lower()}://{host}:{port['port']}"
            if index == 0:
                result[f"{prefix}_PORT"] = url
            stem = f"{prefix}_PORT_{port['port']}_{protocol.upper()}"
            result[stem] = url
            result[f"{stem}_PROTO"] = protocol.lower()
            result[f"{stem}_PORT"] = str(port["port"])
            result[f"{stem}_ADDR"] = address
    return result


def quantity(text: str | int | float) -> float:
    """A Kubernetes quantity as a number: ``250m`` is 0.25, ``64Mi`` is 67108864."""
    text = str(text)
    for suffix, factor in (("Ki", 2**10), ("Mi", 2**20), ("Gi", 2**30), ("Ti", 2**40), ("Pi", 2**50), ("Ei", 2**60)):
        if text.endswith(suffix):
            return float(text[:-2]) * factor
    for suffix, factor in (
        ("n", 1e-9),
        ("u", 1e-6),
        ("m", 1e-3),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("P", 1e15),
        ("E", 1e18),
    ):
        if text.endswith(suffix) and not text[:-1].endswith(("e", "E")):
            return float(text[:-1]) * factor
    return float(text)


def resource_field(pod: dict, reference: dict, container: dict, allocatable: Mapping[str, str]) -> str:
    """A resourceFieldRef's value: a limit or request of a container, divided by the divisor and rounded up."""
    name = reference.get("containerName") or container["name"]
    specs = [c for c in [*pod["spec"]["containers"], *(pod["spec"].get("initContainers") or [])] if c["name"] == name]
    if not specs:
        raise ConfigError(f"container {name} not found")
    kind, _, what = reference["resource"].partition(".")
    resources = specs[0].get("resources") or {}
    value = (resources.get(kind) or {}).get(what)
    if value is None and kind == "limits":
        value = allocatable.get(what)
    number = quantity(value) if value is not None else 0.0
    divisor = quantity(reference.get("divisor") or "1") or 1.0
    return str(-int(-(number / divisor) // 1))


def pod_field(pod: dict, path: str) -> str:
    """A fieldRef's value, from the pod as it is now.

    Raises:
        ConfigError: for a field that may not be used.
    """
    metadata, spec, status = pod["metadata"], pod["spec"], pod.get("status", {})
    subscript = re.match(r"^metadata\.(labels|annotations)\['(.*)'\]$", path)
    if subscript:
        return (metadata.get(subscript[1]) or {}).get(subscript[2], "")
    if path in ("metadata.labels", "metadata.annotations"):
        items = metadata.get(path.partition(".")[2]) or {}
        return "\n".join(f"{k}={_quote(v)}" for k, v in sorted(items.items()))
    simple = {
        "metadata.name": lambda: metadata["name"],
        "metadata.namespace": lambda: metadata["namespace"],
        "metadata.uid": lambda: metadata["uid"],
        "spec.nodeName": lambda: spec.get("nodeName", ""),
        "spec.serviceAccountName": lambda: spec.get("serviceAccountName", ""),
        "status.podIP": lambda: status.get("podIP", ""),
        "status.hostIP": lambda: status.get("hostIP", ""),
        "status.podIPs": lambda: ",".join(ip["ip"] for ip in status.get("podIPs", [])),
        "status.hostIPs": lambda: ",".join(ip["ip"] for ip in status.get("hostIPs", [])),
    }
    if path not in simple:
        raise ConfigError(f"unsupported fieldPath: {path}")
    return simple[path]()


def _quote(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def decode_secret(secret: dict) -> dict[str, str]:
    """A Secret's data as text."""
    return {k: base64.b64decode(v).decode(errors="surrogateescape") for k, v in (secret.get("data") or {}).items()}


def container_environment(
    pod: dict,
    container: dict,
    *,
    services: Iterable[dict],
    find: Callable[[str, str], dict | None],
    allocatable: Mapping[str, str],
) -> dict[str, str]:
    """A container's variables, in the kubelet's order of precedence.

    Args:
        pod: with ``status.podIP`` and ``status.hostIP`` filled in.
        services: all Services of the cluster.
        find: ``find("configmaps", name)`` looks in the pod's namespace.
        allocatable: the node's resources, for limits that aren't set.

    Raises:
        ConfigError: with the kubelet's words.
    """
    namespace = pod["metadata"]["namespace"]
    links = pod["spec"].get("enableServiceLinks", True)
    visible = [
        s
        for s in services
        if (links and s["metadata"]["namespace"] == namespace)
        or (s["metadata"]["namespace"] == "default" and s["metadata"]["name"] == "kubernetes")
    ]
    # A Service called kubernetes in the pod's own namespace doesn't hide the real one.
    visible = [s for s in visible if s["metadata"]["name"] != "kubernetes" or s["metadata"]["namespace"] == "default"]
    from_services = service_variables(visible)
    result: dict[str, str] = {}
    for source in container.get("envFrom") or []:
        for kind, resource, title in (("configMapRef", "configmaps", "configmap"), ("secretRef", "secrets", "secret")):
            if kind not in source:
                continue
            found = find(resource, source[kind]["name"])
            if found is None:
                if source[kind].get("optional"):
                    continue
                raise ConfigError(f'{title} "{source[kind]["name"]}" not found')
            data = (found.get("data") or {}) if resource == "configmaps" else decode_secret(found)
            result.update({source.get("prefix", "") + key: value for key, value in sorted(data.items())})
    for entry in container.get("env") or []:
        name, source = entry["name"], entry.get("valueFrom")
        if source is None:
            value: str | None = expand(entry.get("value") or "", {**from_services, **result})
        elif "fieldRef" in source:
            value = pod_field(pod, source["fieldRef"]["fieldPath"])
        elif "resourceFieldRef" in source:
            value = resource_field(pod, source["resourceFieldRef"], container, allocatable)
        elif "configMapKeyRef" in source:
            value = _key(find, "configmaps", source["configMapKeyRef"], namespace)
        elif "secretKeyRef" in source:
            value = _key(find, "secrets", source["secretKeyRef"], namespace)
        else:
            raise ConfigError(f"environment variable {name}: {', '.join(source)} is not supported")
        if value is not None:
            result[name] = value
    for name, value in from_services.items():
        result.setdefault(name, value)
    return result


def _key(find: Callable[[str, str], dict | None], resource: str, reference: dict, namespace: str) -> str | None:
    title, shown = ("configmap", "ConfigMap") if resource == "configmaps" else ("secret", "Secret")
    found = find(resource, reference.get("name", ""))
    if found is None:
        if reference.get("optional"):
            return None
        raise ConfigError(f'{title} "{reference.get("name", "")}" not found')
    data = (found.get("data") or {}) if resource == "configmaps" else decode_secret(found)
    if reference["key"] not in data:
        if reference.get("optional"):
            return None
        raise ConfigError(f"couldn't find key {reference['key']} in {shown} {namespace}/{reference['name']}")
    return data[reference["key"]]
