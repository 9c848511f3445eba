"""Validation: what the API server refuses, with Kubernetes' own field paths and words (``pkg/apis/*/validation`` upstream)."""

from __future__ import annotations

import base64
import ipaddress
import json
import re
from collections.abc import Callable
from typing import Any

from . import errors, selectors
from .errors import FieldError, duplicate, invalid, not_allowed, not_supported, required, too_long
from .resources import Resource

DNS1123_SUBDOMAIN = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an"
    " alphanumeric character (e.g. 'example.com', regex used for validation is"
    " '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
DNS1123_LABEL = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric"
    " character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
DNS1035_LABEL = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an"
    " alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')"
)
CONFIG_KEY = (
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex"
    " used for validation is '[-._a-zA-Z0-9]+')"
)
ENV_NAME = "environment variable names must be only printable ASCII characters except '='" 
IANA_SVC_CHARS = "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)"
PORT_RANGE = "must be between 1 and 65535, inclusive"
NON_NEGATIVE = "must be greater than or equal to 0"
IMMUTABLE = "field is immutable"
MAX_DATA = 1024 * 1024
POD_UPDATE = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds`"
    " (allow it to be set to 1 if it was previously negative)"
)
_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_LABEL_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_CONFIG_KEY = re.compile(r"[-._a-zA-Z0-9]+")
_PERCENT = re.compile(r"[0-9]+%")
PROTOCOLS = ["SCTP", "TCP", "UDP"]
DNS_POLICIES = ["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"]
IP_FAMILY_POLICIES = ["PreferDualStack", "RequireDualStack", "SingleStack"]

Errors = list[FieldError]


def subdomain_problems(value: str) -> list[str]:
    """What keeps ``value`` from being a DNS subdomain name, as most objects' names must be."""
    problems = []
    if len(value) > 253:
        problems.append("must be no more than 253 bytes")
    if not _SUBDOMAIN.fullmatch(value):
        problems.append(DNS1123_SUBDOMAIN)
    return problems


def label_problems(value: str) -> list[str]:
    """What keeps ``value`` from being a DNS label."""
    problems = []
    if len(value) > 63:
        problems.append("must be no more than 63 bytes")
    if not _LABEL.fullmatch(value):
        problems.append(DNS1123_LABEL)
    return problems


def label_1035_problems(value: str) -> list[str]:
    """What keeps ``value`` from being a Service's name: a DNS label that begins with a letter."""
    problems = []
    if len(value) > 63:
        problems.append("must be no more than 63 bytes")
    if not _LABEL_1035.fullmatch(value):
        problems.append(DNS1035_LABEL)
    return problems


def port_name_problems(value: str) -> list[str]:
    """What keeps ``value`` from naming a container's port (an IANA service name)."""
    problems = []
    if len(value) > 15:
        problems.append("must be no more than 15 characters")
    if not re.fullmatch(r"[-a-z0-9]+", value):
        problems.append(IANA_SVC_CHARS)
    if not re.search(r"[a-z]", value):
        problems.append("must contain at least one letter (a-z)")
    if "--" in value:
        problems.append("must not contain consecutive hyphens")
    if value.startswith("-") or value.endswith("-"):
        problems.append("must not begin or end with a hyphen")
    return problems


_NAME_RULES: dict[str, Callable[[str], list[str]]] = {"Service": label_1035_problems, "Namespace": label_problems}


def _qualified_name(value: str) -> bool:
    return bool(selectors._KEY.match(value)) and len(value.split("/", maxsplit=1)[0]) <= 253


def validate_labels(labels: dict[str, str], path: str) -> Errors:
    """Errors in a map of labels."""
    found = []
    for key, value in sorted(labels.items()):
        if not _qualified_name(key):
            found.append(invalid(path, key, selectors.KEY_RULE))
        if len(value) > 63:
            found.append(invalid(path, value, "must be no more than 63 bytes"))
        if not re.fullmatch(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?", value):
            found.append(invalid(path, value, selectors.VALUE_RULE))
    return found


def metadata(resource: Resource, obj: dict[str, Any]) -> Errors:
    """Errors in an object's metadata."""
    meta, found = obj["metadata"], []
    name = meta.get("name", "")
    if not name:
        found.append(required("metadata.name", "name or generateName is required"))
    else:
        found += [invalid("metadata.name", name, problem) for problem in _NAME_RULES.get(resource.kind, subdomain_problems)(name)]
    found += validate_labels(meta.get("labels") or {}, "metadata.labels")
    annotations = meta.get("annotations") or {}
    for key in sorted(annotations):
        if not _qualified_name(key.lower()):
            found.append(invalid("metadata.annotations", key, selectors.KEY_RULE))
    if sum(len(key.encode()) + len(value.encode()) for key, value in annotations.items()) > 256 * 1024:
        found.append(too_long("metadata.annotations", 256 * 1024))
    for index, owner in enumerate(meta.get("ownerReferences") or []):
        found += [
            required(f"metadata.ownerReferences[{index}].{key}", "must not be empty")
            for key in ("apiVersion", "kind", "name", "uid") if not owner.get(key)
        ]
    for finalizer in meta.get("finalizers") or []:
        if "/" not in finalizer and finalizer not in ("foregroundDeletion", "orphan", "kubernetes"):
            found.append(invalid("metadata.finalizers", finalizer,
                                 "name is neither a standard finalizer name nor is it fully qualified"))
    return found


# --- pods -------------------------------------------------------------------------------------------------------------------------------

def pod_spec(spec: dict[str, Any], path: str, *, template: bool = False) -> Errors:
    """Errors in a pod's spec."""
    found: Errors = []
    volumes: dict[str, dict[str, Any]] = {}
    for index, volume in enumerate(spec.get("volumes") or []):
        found += _volume(volume, f"{path}.volumes[{index}]", volumes)
    containers = spec.get("containers") or []
    if not containers:
        found.append(required(f"{path}.containers"))
    names: set[str] = set()
    ports: set[tuple[Any, ...]] = set()
    for group in ("containers", "initContainers"):
        for index, container in enumerate(spec.get(group) or []):
            found += _container(container, f"{path}.{group}[{index}]", names, volumes, ports if group == "containers" else set(),
                                init=group == "initContainers", host_network=bool(spec.get("hostNetwork")))
    if spec.get("restartPolicy") not in ("Always", "OnFailure", "Never"):
        found.append(not_supported(f"{path}.restartPolicy", spec.get("restartPolicy"), ["Always", "OnFailure", "Never"]))
    elif template and spec["restartPolicy"] != "Always":
        found.append(not_supported(f"{path}.restartPolicy", spec["restartPolicy"], ["Always"]))
    if spec.get("dnsPolicy") not in DNS_POLICIES:
        found.append(not_supported(f"{path}.dnsPolicy", spec.get("dnsPolicy"), DNS_POLICIES))
    elif spec["dnsPolicy"] == "None" and not (spec.get("dnsConfig") or {}).get("nameservers"):
        found.append(required(f"{path}.dnsConfig.nameservers",
                              "must provide at least one DNS nameserver when `dnsPolicy` is None"))
    if isinstance(spec.get("terminationGracePeriodSeconds"), int) and spec["terminationGracePeriodSeconds"] < 0:
        found.append(invalid(f"{path}.terminationGracePeriodSeconds", spec["terminationGracePeriodSeconds"], NON_NEGATIVE))
    if spec.get("activeDeadlineSeconds") is not None and spec["activeDeadlineSeconds"] < 1:
        found.append(invalid(f"{path}.activeDeadlineSeconds", spec["activeDeadlineSeconds"], "must be between 1 and 2147483647, inclusive"))
    found += validate_labels(spec.get("nodeSelector") or {}, f"{path}.nodeSelector")
    if spec.get("serviceAccountName"):
        found += [invalid(f"{path}.serviceAccountName", spec["serviceAccountName"], problem)
                  for problem in subdomain_problems(spec["serviceAccountName"])]
    if spec.get("nodeName"):
        found += [invalid(f"{path}.nodeName", spec["nodeName"], problem) for problem in subdomain_problems(spec["nodeName"])]
    for key in ("hostname", "subdomain"):
        if spec.get(key):
            found += [invalid(f"{path}.{key}", spec[key], problem) for problem in label_problems(spec[key])]
    for index, alias in enumerate(spec.get("hostAliases") or []):
        if not _is_ip(alias.get("ip", "")):
            found.append(_bad_ip(f"{path}.hostAliases[{index}].ip", alias.get("ip", "")))
    for index, toleration in enumerate(spec.get("tolerations") or []):
        found += _toleration(toleration, f"{path}.tolerations[{index}]")
    return found


def _toleration(toleration: dict[str, Any], path: str) -> Errors:
    found: Errors = []
    if not toleration.get("key") and toleration.get("operator", "Equal") != "Exists":
        found.append(invalid(f"{path}.operator", toleration.get("operator", ""), "operator must be Exists when `key` is empty, which means"
                             ' "match all values and all keys"'))
    if toleration.get("operator") not in (None, "", "Equal", "Exists"):
        found.append(not_supported(f"{path}.operator", toleration["operator"], ["Equal", "Exists"]))
    if toleration.get("operator") == "Exists" and toleration.get("value"):
        found.append(invalid(f"{path}.operator", toleration["value"], "value must be empty when `operator` is 'Exists'"))
    if toleration.get("effect") not in (None, "", "NoSchedule", "PreferNoSchedule", "NoExecute"):
        found.append(not_supported(f"{path}.effect", toleration["effect"], ["NoSchedule", "PreferNoSchedule", "NoExecute"]))
    return found


def _volume(volume: dict[str, Any], path: str, volumes: dict[str, dict[str, Any]]) -> Errors:
    found: Errors = []
    name = volume.get("name", "")
    if not name:
        found.append(required(f"{path}.name"))
    else:
        found += [invalid(f"{path}.name", name, problem) for problem in label_problems(name)]
        if name in volumes:
            found.append(duplicate(f"{path}.name", name))
        else:
            volumes[name] = volume
    sources = [key for key in volume if key != "name"]
    if len(sources) > 1:
        found += [not_allowed(f"{path}.{key}", "may not specify more than 1 volume type") for key in sources[1:]]
    if volume.get("secret") is not None and not volume["secret"].get("secretName"):
        found.append(required(f"{path}.secret.secretName"))
    if volume.get("configMap") is not None and not volume["configMap"].get("name"):
        found.append(required(f"{path}.configMap.name"))
    if volume.get("hostPath") is not None and not volume["hostPath"].get("path"):
        found.append(required(f"{path}.hostPath.path"))
    for kind in ("secret", "configMap"):
        for index, item in enumerate((volume.get(kind) or {}).get("items") or []):
            where = f"{path}.{kind}.items[{index}]"
            if not item.get("key"):
                found.append(required(f"{where}.key"))
            target = item.get("path", "")
            if not target:
                found.append(required(f"{where}.path"))
            elif target.startswith("/"):
                found.append(invalid(f"{where}.path", target, "must be a relative path"))
            elif ".." in target.split("/"):
                found.append(invalid(f"{where}.path", target, "must not contain '..'"))
    return found


def _container(container: dict[str, Any], path: str, names: set[str], volumes: dict[str, dict[str, Any]], ports: set[tuple[Any, ...]], *,
               init: bool, host_network: bool) -> Errors:
    found: Errors = []
    name = container.get("name", "")
    if not name:
        found.append(required(f"{path}.name"))
    else:
        found += [invalid(f"{path}.name", name, problem) for problem in label_problems(name)]
        if name in names:
            found.append(duplicate(f"{path}.name", name))
        names.add(name)
    image = container.get("image", "")
    if not image:
        found.append(required(f"{path}.image"))
    elif image != image.strip():
        found.append(invalid(f"{path}.image", image, "must not have leading or trailing whitespace"))
    if container.get("imagePullPolicy") not in (None, "Always", "IfNotPresent", "Never"):
        found.append(not_supported(f"{path}.imagePullPolicy", container["imagePullPolicy"], ["Always", "IfNotPresent", "Never"]))
    port_names: set[str] = set()
    for index, port in enumerate(container.get("ports") or []):
        found += _container_port(port, f"{path}.ports[{index}]", port_names, ports, host_network)
    for index, variable in enumerate(container.get("env") or []):
        found += _variable(variable, f"{path}.env[{index}]")
    for index, source in enumerate(container.get("envFrom") or []):
        here = f"{path}.envFrom[{index}]"
        kinds = [key for key in ("configMapRef", "secretRef") if source.get(key) is not None]
        if not kinds:
            found.append(invalid(here, "", "must specify one of: `configMapRef` or `secretRef`"))
        for kind in kinds:
            if not source[kind].get("name"):
                found.append(required(f"{here}.{kind}.name"))
    mounts: set[str] = set()
    for index, mount in enumerate(container.get("volumeMounts") or []):
        here = f"{path}.volumeMounts[{index}]"
        if not mount.get("name"):
            found.append(required(f"{here}.name"))
        elif mount["name"] not in volumes:
            found.append(errors.field_not_found(f"{here}.name", mount["name"]))
        if not mount.get("mountPath"):
            found.append(required(f"{here}.mountPath"))
        elif mount["mountPath"] in mounts:
            found.append(invalid(f"{here}.mountPath", mount["mountPath"], "must be unique"))
        mounts.add(mount.get("mountPath", ""))
        if mount.get("subPath", "").startswith("/"):
            found.append(invalid(f"{here}.subPath", mount["subPath"], "must be a relative path"))
    for key in ("livenessProbe", "readinessProbe", "startupProbe"):
        if container.get(key) is None:
            continue
        if init and container.get("restartPolicy") != "Always":
            found.append(not_allowed(f"{path}.{key}", "may not be set for init containers without restartPolicy=Always"))
        else:
            found += _probe(container[key], f"{path}.{key}", success_one=key != "readinessProbe")
    lifecycle = container.get("lifecycle") or {}
    for hook in ("postStart", "preStop"):
        if lifecycle.get(hook) is not None:
            found += _handler(lifecycle[hook], f"{path}.lifecycle.{hook}", ("exec", "httpGet", "tcpSocket", "sleep"))
    found += _requests(container.get("resources") or {}, f"{path}.resources")
    return found


def _container_port(port: dict[str, Any], path: str, names: set[str], ports: set[tuple[Any, ...]], host_network: bool) -> Errors:
    found: Errors = []
    name = port.get("name")
    if name:
        problems = port_name_problems(name)
        found += [invalid(f"{path}.name", name, problem) for problem in problems]
        if not problems and name in names:
            found.append(duplicate(f"{path}.name", name))
        names.add(name)
    number = port.get("containerPort", 0)
    if number == 0:
        found.append(required(f"{path}.containerPort"))
    elif not 1 <= number <= 65535:
        found.append(invalid(f"{path}.containerPort", number, PORT_RANGE))
    host_port = port.get("hostPort", 0)
    if host_port and not 1 <= host_port <= 65535:
        found.append(invalid(f"{path}.hostPort", host_port, PORT_RANGE))
    if host_network and host_port != number:
        found.append(invalid(f"{path}.containerPort", number, "must match `hostPort` when `hostNetwork` is true"))
    if port.get("protocol") not in PROTOCOLS:
        found.append(not_supported(f"{path}.protocol", port.get("protocol"), PROTOCOLS))
    if host_port:
        key = (port.get("protocol"), port.get("hostIP", ""), host_port)
        if key in ports:
            found.append(duplicate(f"{path}.hostPort", f"{key[0]}/{key[1]}/{host_port}"))
        ports.add(key)
    return found


def _variable(variable: dict[str, Any], path: str) -> Errors:
    found: Errors = []
    name = variable.get("name", "")
    if not name:
        found.append(required(f"{path}.name"))
    elif not all(" " <= character <= "~" and character != "=" for character in name):
        found.append(invalid(f"{path}.name", name, ENV_NAME))
    source = variable.get("valueFrom")
    if source is not None:
        kinds = [key for key in ("fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef") if source.get(key) is not None]
        if variable.get("value") and kinds:
            found.append(invalid(f"{path}.valueFrom", "", "may not be specified when `value` is not empty"))
        if not kinds:
            found.append(invalid(f"{path}.valueFrom", "", "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or"
                                 " `secretKeyRef`"))
        elif len(kinds) > 1:
            found.append(invalid(f"{path}.valueFrom", "", "may not have more than one field specified at a time"))
        for kind in ("configMapKeyRef", "secretKeyRef"):
            if source.get(kind) is not None:
                if not source[kind].get("name"):
                    found.append(required(f"{path}.valueFrom.{kind}.name"))
                if not source[kind].get("key"):
                    found.append(required(f"{path}.valueFrom.{kind}.key"))
        ref = source.get("fieldRef")
        if ref is not None:
            known = ["metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName", "status.hostIP",
                     "status.hostIPs", "status.podIP", "status.podIPs"]
            where = ref.get("fieldPath", "")
            if not where:
                found.append(required(f"{path}.valueFrom.fieldRef.fieldPath"))
            elif where not in known and not re.fullmatch(r"metadata\.(labels|annotations)\['[^']+'\]", where):
                if re.match(r"(metadata|spec|status)\.", where):
                    found.append(not_supported(f"{path}.valueFrom.fieldRef.fieldPath", where, known))
                else:
                    found.append(invalid(f"{path}.valueFrom.fieldRef.fieldPath", where,
                                         f'error converting fieldPath: field label not supported: {where}'))
    return found


def _probe(probe: dict[str, Any], path: str, *, success_one: bool) -> Errors:
    found = _handler(probe, path, ("exec", "httpGet", "tcpSocket", "grpc"))
    for key in ("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"):
        if probe.get(key, 0) < 0:
            found.append(invalid(f"{path}.{key}", probe[key], NON_NEGATIVE))
    if success_one and probe.get("successThreshold", 1) != 1:
        found.append(invalid(f"{path}.successThreshold", probe["successThreshold"], "must be 1"))
    return found


def _handler(handler: dict[str, Any], path: str, kinds: tuple[str, ...]) -> Errors:
    found: Errors = []
    present = [kind for kind in kinds if handler.get(kind) is not None]
    if not present:
        return [required(path, "must specify a handler type")]
    found += [not_allowed(f"{path}.{kind}", "may not specify more than 1 handler type") for kind in present[1:]]
    kind = present[0]
    action = handler[kind]
    if kind == "exec" and not action.get("command"):
        found.append(required(f"{path}.exec.command"))
    if kind in ("httpGet", "tcpSocket"):
        port = action.get("port")
        where = f"{path}.{kind}.port"
        if isinstance(port, int):
            if not 1 <= port <= 65535:
                found.append(invalid(where, port, PORT_RANGE))
        elif port:
            found += [invalid(where, port, problem) for problem in port_name_problems(port)]
        else:
            found.append(required(where))
        if kind == "httpGet" and action.get("scheme") not in ("HTTP", "HTTPS"):
            found.append(not_supported(f"{path}.httpGet.scheme", action.get("scheme"), ["HTTP", "HTTPS"]))
    return found


def amount(quantity: str) -> float:
    """A resource quantity as a number.

    >>> amount("500m"), amount("1Ki")
    (0.5, 1024.0)
    """
    match = re.fullmatch(r"([+-]?[0-9.]+)([a-zA-Z]*)([+-]?\d+)?", str(quantity))
    if not match:
        raise ValueError(f"{quantity!r} is no quantity")
    number, unit, exponent = float(match[1]), match[2], match[3]
    if exponent is not None:
        return number * 10.0 ** int(exponent)
    if unit.endswith("i"):
        return number * 1024.0 ** ("KMGTPE".index(unit[0]) + 1)
    return number * {"n": 1e-9, "u": 1e-6, "m": 1e-3, "": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}[unit]


def _requests(resources: dict[str, Any], path: str) -> Errors:
    found: Errors = []
    limits = resources.get("limits") or {}
    for group in ("limits", "requests"):
        for name, quantity in sorted((resources.get(group) or {}).items()):
            if "/" not in name and name not in ("cpu", "memory", "ephemeral-storage") and not name.startswith("hugepages-"):
                found.append(invalid(f"{path}.{group}[{name}]", name, "must be a standard resource for containers"))
            elif amount(quantity) < 0:
                found.append(invalid(f"{path}.{group}[{name}]", quantity, NON_NEGATIVE))
            elif group == "requests" and name in limits and amount(quantity) > amount(limits[name]):
                found.append(invalid(f"{path}.requests", quantity, f"must be less than or equal to {name} limit of {limits[name]}"))
    return found


# --- workloads --------------------------------------------------------------------------------------------------------------------------

def label_selector(selector: dict[str, Any], path: str) -> Errors:
    """Errors in a ``metav1.LabelSelector``."""
    found = validate_labels(selector.get("matchLabels") or {}, f"{path}.matchLabels")
    for index, expression in enumerate(selector.get("matchExpressions") or []):
        here, operator = f"{path}.matchExpressions[{index}]", expression.get("operator", "")
        if operator in ("In", "NotIn"):
            if not expression.get("values"):
                found.append(required(f"{here}.values", "must be specified when `operator` is 'In' or 'NotIn'"))
        elif operator in ("Exists", "DoesNotExist"):
            if expression.get("values"):
                found.append(not_allowed(f"{here}.values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"))
        else:
            found.append(invalid(f"{here}.operator", operator, "not a valid selector operator"))
        if not _qualified_name(expression.get("key", "")):
            found.append(invalid(f"{here}.key", expression.get("key", ""), selectors.KEY_RULE))
    return found


def _workload(spec: dict[str, Any]) -> Errors:
    found: Errors = []
    if spec["replicas"] < 0:
        found.append(invalid("spec.replicas", spec["replicas"], NON_NEGATIVE))
    if spec.get("minReadySeconds", 0) < 0:
        found.append(invalid("spec.minReadySeconds", spec["minReadySeconds"], NON_NEGATIVE))
    selector = spec.get("selector")
    template = spec["template"]
    labels = template["metadata"].get("labels") or {}
    if selector is None:
        found.append(required("spec.selector"))
    else:
        found += label_selector(selector, "spec.selector")
        if not selector.get("matchLabels") and not selector.get("matchExpressions"):
            found.append(invalid("spec.selector", selector, "empty selector is invalid for deployment"))
    found += validate_labels(labels, "spec.template.labels")
    empty = selector is not None and not selector.get("matchLabels") and not selector.get("matchExpressions")
    if not empty and not selectors.label_selector(selector)(labels):
        found.append(invalid("spec.template.metadata.labels", template["metadata"].get("labels"),
                             "`selector` does not match template `labels`"))
    found += pod_spec(template["spec"], "spec.template.spec", template=True)
    return found


def _deployment(obj: dict[str, Any]) -> Errors:
    spec = obj["spec"]
    found = _workload(spec)
    strategy = spec["strategy"]
    if strategy["type"] not in ("Recreate", "RollingUpdate"):
        found.append(not_supported("spec.strategy.type", strategy["type"], ["Recreate", "RollingUpdate"]))
    elif strategy["type"] == "Recreate":
        if strategy.get("rollingUpdate") is not None:
            found.append(not_allowed("spec.strategy.rollingUpdate", "may not be specified when strategy `type` is 'Recreate'"))
    else:
        rolling = strategy["rollingUpdate"]
        values = []
        for key in ("maxUnavailable", "maxSurge"):
            value = rolling[key]
            if isinstance(value, str):
                if not _PERCENT.fullmatch(value):
                    found.append(invalid(f"spec.strategy.rollingUpdate.{key}", value,
                                         "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%',"
                                         " regex used for validation is '[0-9]+%')"))
                    continue
                if key == "maxUnavailable" and int(value[:-1]) > 100:
                    found.append(invalid("spec.strategy.rollingUpdate.maxUnavailable", value, "must not be greater than 100%"))
                values.append(int(value[:-1]))
            else:
                if value < 0:
                    found.append(invalid(f"spec.strategy.rollingUpdate.{key}", value, NON_NEGATIVE))
                values.append(value)
        if values == [0, 0]:
            found.append(invalid("spec.strategy.rollingUpdate.maxUnavailable", rolling["maxUnavailable"],
                                 "may not be 0 when `maxSurge` is 0"))
    for key in ("revisionHistoryLimit", "progressDeadlineSeconds"):
        if spec[key] < 0:
            found.append(invalid(f"spec.{key}", spec[key], NON_NEGATIVE))
    if spec["progressDeadlineSeconds"] <= spec.get("minReadySeconds", 0):
        found.append(invalid("spec.progressDeadlineSeconds", spec["progressDeadlineSeconds"], "must be greater than minReadySeconds"))
    return found


def _replicaset(obj: dict[str, Any]) -> Errors:
    return _workload(obj["spec"])


def _immutable_selector(new: dict[str, Any], old: dict[str, Any]) -> Errors:
    if new["spec"].get("selector") != old["spec"].get("selector"):
        return [invalid("spec.selector", new["spec"].get("selector"), IMMUTABLE)]
    return []


def _pod(obj: dict[str, Any]) -> Errors:
    return pod_spec(obj["spec"], "spec")


_POD_MUTABLE = ("activeDeadlineSeconds", "tolerations", "nodeName", "schedulingGates")


def _pod_update(new: dict[str, Any], old: dict[str, Any]) -> Errors:
    def mutable_aside(pod: dict[str, Any]) -> dict[str, Any]:
        spec = {key: value for key, value in pod["spec"].items() if key not in _POD_MUTABLE}
        for group in ("containers", "initContainers"):
            if spec.get(group):
                spec[group] = [{key: value for key, value in one.items() if key != "image"} for one in spec[group]]
        return spec

    found: Errors = []
    for group in ("containers", "initContainers"):
        if len(new["spec"].get(group) or []) != len(old["spec"].get(group) or []):
            return [not_allowed(f"spec.{group}", "pod updates may not add or remove containers")]
    kept = old["spec"].get("tolerations") or []
    if any(toleration not in (new["spec"].get("tolerations") or []) for toleration in kept):
        found.append(not_allowed("spec.tolerations", "existing toleration can not be modified except its tolerationSeconds"))
    gates = old["spec"].get("schedulingGates") or []
    if any(gate not in gates for gate in new["spec"].get("schedulingGates") or []):
        found.append(not_allowed("spec.schedulingGates", "only deletion is allowed, but found new scheduling gate(s)"))
    if mutable_aside(new) != mutable_aside(old) or (old["spec"].get("nodeName") != new["spec"].get("nodeName")):
        found.append(not_allowed("spec", POD_UPDATE + "\n" + difference(old["spec"], new["spec"])))
    return found


def difference(old: Any, new: Any) -> str:
    """The changed lines of two values, in the manner of the diff that real Kubernetes adds to "pod updates may not change"."""
    import difflib

    lines = list(difflib.unified_diff(json.dumps(old, indent=1, sort_keys=True).splitlines(),
                                      json.dumps(new, indent=1, sort_keys=True).splitlines(), lineterm="", n=1))[2:]
    return "\n".join(line for line in lines if not line.startswith("@@")) + "\n"


# --- services ---------------------------------------------------------------------------------------------------------------------------

def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _bad_ip(path: str, value: str) -> FieldError:
    return invalid(path, value, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)")


SERVICE_TYPES = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"]


def _service(obj: dict[str, Any]) -> Errors:
    spec, found = obj["spec"], []
    kind = spec["type"]
    ports = spec.get("ports") or []
    headless = spec.get("clusterIP") == "None"
    if kind not in SERVICE_TYPES:
        found.append(not_supported("spec.type", kind, SERVICE_TYPES))
    if not ports and not headless and kind != "ExternalName":
        found.append(required("spec.ports"))
    if kind == "LoadBalancer" and headless:
        found.append(invalid("spec.clusterIPs[0]", "None", "may not be set to 'None' for LoadBalancer services"))
    if kind == "NodePort" and headless:
        found.append(invalid("spec.clusterIPs[0]", "None", "may not be set to 'None' for NodePort services"))
    if kind == "ExternalName":
        if spec.get("clusterIP"):
            found.append(not_allowed("spec.clusterIPs[0]", "may not be set for ExternalName services"))
        if not spec.get("externalName"):
            found.append(required("spec.externalName"))
        else:
            name = spec["externalName"].rstrip(".")
            found += [invalid("spec.externalName", name, problem) for problem in subdomain_problems(name)]
    found += _service_ports(ports, kind)
    found += validate_labels(spec.get("selector") or {}, "spec.selector")
    if spec["sessionAffinity"] not in ("ClientIP", "None"):
        found.append(not_supported("spec.sessionAffinity", spec["sessionAffinity"], ["ClientIP", "None"]))
    elif spec["sessionAffinity"] == "ClientIP":
        seconds = spec["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"]
        if not 1 <= seconds <= 86400:
            found.append(invalid("spec.sessionAffinityConfig.clientIP.timeoutSeconds", seconds,
                                 "must be greater than 0 and less than 86400"))
    for index, address in enumerate(spec.get("externalIPs") or []):
        if not _is_ip(address):
            found.append(_bad_ip(f"spec.externalIPs[{index}]", address))
    for key in ("externalTrafficPolicy", "internalTrafficPolicy"):
        if spec.get(key) not in (None, "", "Cluster", "Local"):
            found.append(not_supported(f"spec.{key}", spec[key], ["Cluster", "Local"]))
    if spec.get("externalTrafficPolicy") and kind not in ("NodePort", "LoadBalancer") and not spec.get("externalIPs"):
        found.append(invalid("spec.externalTrafficPolicy", spec["externalTrafficPolicy"],
                             "may only be set for externally-accessible services"))
    if spec.get("ipFamilyPolicy") not in (None, *IP_FAMILY_POLICIES):
        found.append(not_supported("spec.ipFamilyPolicy", spec["ipFamilyPolicy"], IP_FAMILY_POLICIES))
    for index, source in enumerate(spec.get("loadBalancerSourceRanges") or []):
        try:
            ipaddress.ip_network(source.strip(), strict=False)
        except ValueError:
            found.append(invalid(f"spec.LoadBalancerSourceRanges[{index}]", source,
                                 "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"))
    return found


def _service_ports(ports: list[dict[str, Any]], kind: str) -> Errors:
    found: Errors = []
    names: set[str] = set()
    numbers: set[tuple[Any, ...]] = set()
    node_ports: set[tuple[Any, ...]] = set()
    for index, port in enumerate(ports):
        here = f"spec.ports[{index}]"
        name = port.get("name", "")
        if not name and len(ports) > 1:
            found.append(required(f"{here}.name"))
        elif name:
            found += [invalid(f"{here}.name", name, problem) for problem in label_problems(name)]
            if name in names:
                found.append(duplicate(f"{here}.name", name))
            names.add(name)
        number = port.get("port", 0)
        if not 1 <= number <= 65535:
            found.append(invalid(f"{here}.port", number, PORT_RANGE))
        if port["protocol"] not in PROTOCOLS:
            found.append(not_supported(f"{here}.protocol", port["protocol"], PROTOCOLS))
        target = port.get("targetPort")
        if isinstance(target, int) and not 1 <= target <= 65535:
            found.append(invalid(f"{here}.targetPort", target, PORT_RANGE))
        elif isinstance(target, str):
            found += [invalid(f"{here}.targetPort", target, problem) for problem in port_name_problems(target)]
        key = (port["protocol"], number)
        if key in numbers:
            found.append(duplicate(here, {"Name": "", "Protocol": port["protocol"], "AppProtocol": None, "Port": number, "TargetPort": 0,
                                           "NodePort": 0}))
        numbers.add(key)
        node_port = port.get("nodePort", 0)
        if node_port:
            if kind in ("ClusterIP", "ExternalName"):
                found.append(not_allowed(f"{here}.nodePort", f"may not be used when `type` is '{kind}'"))
            key = (port["protocol"], node_port)
            if key in node_ports:
                found.append(duplicate(f"{here}.nodePort", node_port))
            node_ports.add(key)
    return found


def _service_update(new: dict[str, Any], old: dict[str, Any]) -> Errors:
    before, after = old["spec"], new["spec"]
    if before["type"] == "ExternalName" or after["type"] == "ExternalName":
        return []
    found: Errors = []
    if before.get("clusterIP") and after.get("clusterIP") != before["clusterIP"]:
        found.append(invalid("spec.clusterIPs[0]", after.get("clusterIPs") or [], "may not change once set"))
    return found


# --- configuration and the rest ---------------------------------------------------------------------------------------------------------

def _data_keys(obj: dict[str, Any], groups: tuple[str, ...], decode: tuple[str, ...]) -> Errors:
    found: Errors = []
    total = 0
    for group in groups:
        for key, value in sorted((obj.get(group) or {}).items()):
            if len(key) > 253 or not _CONFIG_KEY.fullmatch(key) or key in (".", "..") or key.startswith(".."):
                problem = CONFIG_KEY
                if key in (".", ".."):
                    problem = f"must not be '{key}'"
                elif key.startswith(".."):
                    problem = "must not start with '..'"
                elif len(key) > 253:
                    problem = "must be no more than 253 characters"
                found.append(invalid(f"{group}[{key}]", key, problem))
            total += len(base64.b64decode(value)) if group in decode else len(value.encode())
    if total > MAX_DATA:
        found.append(too_long("[]" if len(groups) > 1 else "data", MAX_DATA))
    return found


def _configmap(obj: dict[str, Any]) -> Errors:
    found = _data_keys(obj, ("binaryData", "data"), ("binaryData",))
    both = set(obj.get("data") or {}) & set(obj.get("binaryData") or {})
    return found + [invalid(f"data[{key}]", key, "duplicate of key present in binaryData") for key in sorted(both)]


def _immutable_data(new: dict[str, Any], old: dict[str, Any]) -> Errors:
    found: Errors = []
    if new["kind"] == "Secret" and new.get("type") != old.get("type"):
        found.append(invalid("type", new.get("type"), IMMUTABLE))
    if old.get("immutable"):
        if not new.get("immutable"):
            found.append(not_allowed("immutable", "field is immutable when `immutable` is set"))
        for group in ("data", "binaryData"):
            if (new.get(group) or {}) != (old.get(group) or {}):
                found.append(not_allowed(group, "field is immutable when `immutable` is set"))
    return found


def _secret(obj: dict[str, Any]) -> Errors:
    found = _data_keys(obj, ("data",), ("data",))
    data = obj.get("data") or {}
    if obj["type"] == "kubernetes.io/tls":
        found += [required(f"data[{key}]") for key in ("tls.crt", "tls.key") if key not in data]
    if obj["type"] == "kubernetes.io/basic-auth" and not {"username", "password"} & set(data):
        found += [required("data[username]"), required("data[password]")]
    if obj["type"] == "kubernetes.io/dockerconfigjson":
        if ".dockerconfigjson" not in data:
            found.append(required("data[.dockerconfigjson]"))
        else:
            try:
                json.loads(base64.b64decode(data[".dockerconfigjson"]))
            except ValueError:
                found.append(invalid("data[.dockerconfigjson]", "<secret contents redacted>",
                                     "invalid character looking for beginning of value"))
    return found


def _endpoints(obj: dict[str, Any]) -> Errors:
    found: Errors = []
    for index, subset in enumerate(obj.get("subsets") or []):
        here = f"subsets[{index}]"
        if not subset.get("addresses") and not subset.get("notReadyAddresses"):
            found.append(required(here, "must specify `addresses` or `notReadyAddresses`"))
        for group in ("addresses", "notReadyAddresses"):
            for position, address in enumerate(subset.get(group) or []):
                found += _endpoint_ip(address.get("ip", ""), f"{here}.{group}[{position}].ip")
        ports = subset.get("ports") or []
        for position, port in enumerate(ports):
            if len(ports) > 1 and not port.get("name"):
                found.append(required(f"{here}.ports[{position}].name"))
            if not 1 <= port.get("port", 0) <= 65535:
                found.append(invalid(f"{here}.ports[{position}].port", port.get("port", 0), PORT_RANGE))
    return found


def _endpoint_ip(text: str, path: str) -> Errors:
    if not _is_ip(text):
        return [_bad_ip(path, text)]
    address = ipaddress.ip_address(text)
    if address.is_unspecified:
        return [invalid(path, text, f"may not be unspecified ({text})")]
    if address.is_loopback:
        return [invalid(path, text, "may not be in the loopback range (127.0.0.0/8, ::1/128)")]
    if address.is_link_local:
        return [invalid(path, text, "may not be in the link-local range (169.254.0.0/16, fe80::/10)")]
    if address.is_multicast:
        return [invalid(path, text, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)")]
    return []


def _endpointslice(obj: dict[str, Any]) -> Errors:
    found: Errors = []
    kind = obj.get("addressType", "")
    if not kind:
        found.append(required("addressType"))
    elif kind not in ("FQDN", "IPv4", "IPv6"):
        found.append(not_supported("addressType", kind, ["FQDN", "IPv4", "IPv6"]))
    for index, endpoint in enumerate(obj.get("endpoints") or []):
        if not endpoint.get("addresses"):
            found.append(required(f"endpoints[{index}].addresses", "must contain at least 1 address"))
        for position, address in enumerate(endpoint.get("addresses") or []):
            here = f"endpoints[{index}].addresses[{position}]"
            if kind in ("IPv4", "IPv6"):
                problems = _endpoint_ip(address, here)
                if not problems and (":" in address) != (kind == "IPv6"):
                    problems = [invalid(here, address, f"must be an {kind} address")]
                found += problems
            elif kind == "FQDN":
                found += [invalid(here, address, problem) for problem in subdomain_problems(address)]
    names: set[str] = set()
    for index, port in enumerate(obj.get("ports") or []):
        name = port.get("name", "")
        if name in names:
            found.append(duplicate(f"ports[{index}].name", name))
        names.add(name)
        if name:
            found += [invalid(f"ports[{index}].name", name, problem) for problem in label_problems(name)]
        if port["protocol"] not in PROTOCOLS:
            found.append(not_supported(f"ports[{index}].protocol", port["protocol"], PROTOCOLS))
    return found


def _endpointslice_update(new: dict[str, Any], old: dict[str, Any]) -> Errors:
    return [] if new.get("addressType") == old.get("addressType") else [invalid("addressType", new.get("addressType"), IMMUTABLE)]


def _event(obj: dict[str, Any]) -> Errors:
    involved = obj.get("involvedObject") or {}
    if involved.get("namespace", obj["metadata"].get("namespace")) != obj["metadata"].get("namespace") and \
            not (not involved.get("namespace") and obj["metadata"].get("namespace") == "default"):
        return [invalid("involvedObject.namespace", involved.get("namespace", ""), "does not match event.namespace")]
    return []


_CREATE: dict[str, Callable[[dict[str, Any]], Errors]] = {
    "Pod": _pod,
    "Deployment": _deployment,
    "ReplicaSet": _replicaset,
    "Service": _service,
    "ConfigMap": _configmap,
    "Secret": _secret,
    "Endpoints": _endpoints,
    "EndpointSlice": _endpointslice,
    "Event": _event,
}
_UPDATE: dict[str, Callable[[dict[str, Any], dict[str, Any]], Errors]] = {
    "Pod": _pod_update,
    "Deployment": _immutable_selector,
    "ReplicaSet": _immutable_selector,
    "Service": _service_update,
    "ConfigMap": _immutable_data,
    "Secret": _immutable_data,
    "EndpointSlice": _endpointslice_update,
}


def validate(resource: Resource, obj: dict[str, Any], old: dict[str, Any] | None = None) -> None:
    """Check a defaulted object, also against what it replaces.

    Raises:
        ApiError: Invalid, naming every field that is wrong.
    """
    found = metadata(resource, obj)
    workload = resource.group == "apps"
    if old is not None and resource.kind in _UPDATE and not workload:
        found += _UPDATE[resource.kind](obj, old)
    if resource.kind in _CREATE and not (resource.kind == "Pod" and old is not None and found):
        found += _CREATE[resource.kind](obj)
    if old is not None and workload:
        found += _UPDATE[resource.kind](obj, old)
    if found:
        raise errors.invalid_object(resource.kind, resource.group, obj["metadata"].get("name", ""), found)
