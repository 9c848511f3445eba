"""Defaulting: the values that the API server fills in, as real Kubernetes does, so that ``kubectl get -o yaml`` reads alike."""

from __future__ import annotations

import random
from typing import Any

SUFFIX_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
"""Kubernetes' alphabet for generated names: no vowels, so no words."""


def suffix(length: int = 5) -> str:
    """A random end for a generated name, such as ``x7k2p``."""
    return "".join(random.choices(SUFFIX_ALPHABET, k=length))


def apply_defaults(kind: str, obj: dict[str, Any]) -> None:
    """Fill in, in place, what an object of that kind leaves unsaid. Idempotent."""
    function = _BY_KIND.get(kind)
    if function:
        function(obj)


def _tag(image: str) -> str:
    name = image.partition("@")[0]
    return name.rpartition(":")[2] if ":" in name.rsplit("/", 1)[-1] else "latest"


def _probe(probe: dict[str, Any]) -> None:
    for key, value in (("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)):
        if not probe.get(key):
            probe[key] = value
    _handler(probe)


def _handler(handler: dict[str, Any]) -> None:
    get = handler.get("httpGet")
    if get is not None:
        get.setdefault("path", "/")
        get.setdefault("scheme", "HTTP")
    grpc = handler.get("grpc")
    if grpc is not None:
        grpc.setdefault("service", "")


def _resources(container: dict[str, Any]) -> None:
    resources = container.setdefault("resources", {})
    limits = resources.get("limits")
    if limits:
        requests = resources.setdefault("requests", {})
        for name, amount in limits.items():
            requests.setdefault(name, amount)


def _container(container: dict[str, Any], *, in_pod: bool, host_network: bool = False) -> None:
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    container.setdefault("terminationMessagePolicy", "File")
    if container.get("image"):
        container.setdefault("imagePullPolicy", "Always" if _tag(container["image"]) == "latest" and "@" not in container["image"]
                             else "IfNotPresent")
    if in_pod:
        _resources(container)
    else:
        container.setdefault("resources", {})
    for port in container.get("ports") or []:
        port.setdefault("protocol", "TCP")
        if host_network and port.get("containerPort"):
            port.setdefault("hostPort", port["containerPort"])
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        if container.get(name) is not None:
            _probe(container[name])
    for hook in (container.get("lifecycle") or {}).values():
        if isinstance(hook, dict):
            _handler(hook)
    for variable in container.get("env") or []:
        ref = (variable.get("valueFrom") or {}).get("fieldRef")
        if ref is not None:
            ref.setdefault("apiVersion", "v1")
        divided = (variable.get("valueFrom") or {}).get("resourceFieldRef")
        if divided is not None:
            divided.setdefault("divisor", "0")


def _downward(items: list[dict[str, Any]]) -> None:
    for item in items:
        if item.get("fieldRef") is not None:
            item["fieldRef"].setdefault("apiVersion", "v1")
        if item.get("resourceFieldRef") is not None:
            item["resourceFieldRef"].setdefault("divisor", "0")


def _volume(volume: dict[str, Any]) -> None:
    if not set(volume) - {"name"}:
        volume["emptyDir"] = {}
    for name in ("configMap", "secret", "downwardAPI", "projected"):
        if volume.get(name) is not None:
            volume[name].setdefault("defaultMode", 420)
    if volume.get("hostPath") is not None:
        volume["hostPath"].setdefault("type", "")
    if volume.get("downwardAPI") is not None:
        _downward(volume["downwardAPI"].get("items") or [])
    for source in (volume.get("projected") or {}).get("sources") or []:
        if source.get("serviceAccountToken") is not None:
            source["serviceAccountToken"].setdefault("expirationSeconds", 3600)
        if source.get("downwardAPI") is not None:
            _downward(source["downwardAPI"].get("items") or [])


def pod_spec(spec: dict[str, Any], *, in_pod: bool) -> None:
    """Defaults of a pod's spec, in a Pod itself or (fewer) in a template."""
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("schedulerName", "default-scheduler")
    spec.setdefault("securityContext", {})
    if spec.get("serviceAccountName") and not spec.get("serviceAccount"):
        spec["serviceAccount"] = spec["serviceAccountName"]
    elif spec.get("serviceAccount") and not spec.get("serviceAccountName"):
        spec["serviceAccountName"] = spec["serviceAccount"]
    if in_pod:
        spec.setdefault("enableServiceLinks", True)
    for group in ("initContainers", "containers", "ephemeralContainers"):
        for container in spec.get(group) or []:
            _container(container, in_pod=in_pod, host_network=bool(spec.get("hostNetwork")))
    for volume in spec.get("volumes") or []:
        _volume(volume)
    for constraint in spec.get("topologySpreadConstraints") or []:
        constraint.setdefault("whenUnsatisfiable", "DoNotSchedule")


def _pod(pod: dict[str, Any]) -> None:
    pod_spec(pod.setdefault("spec", {}), in_pod=True)


def _template(spec: dict[str, Any]) -> None:
    template = spec.setdefault("template", {})
    template.setdefault("metadata", {})
    pod_spec(template.setdefault("spec", {}), in_pod=False)


def _deployment(deployment: dict[str, Any]) -> None:
    spec = deployment.setdefault("spec", {})
    spec.setdefault("replicas", 1)
    strategy = spec.setdefault("strategy", {})
    strategy.setdefault("type", "RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        rolling = strategy.setdefault("rollingUpdate", {})
        rolling.setdefault("maxUnavailable", "25%")
        rolling.setdefault("maxSurge", "25%")
    spec.setdefault("revisionHistoryLimit", 10)
    spec.setdefault("progressDeadlineSeconds", 600)
    _template(spec)


def _replicaset(replicaset: dict[str, Any]) -> None:
    spec = replicaset.setdefault("spec", {})
    spec.setdefault("replicas", 1)
    _template(spec)


def _service(service: dict[str, Any]) -> None:
    spec = service.setdefault("spec", {})
    spec.setdefault("sessionAffinity", "None")
    if not spec.get("type"):
        spec["type"] = "ClusterIP"
    if spec["sessionAffinity"] == "ClientIP":
        spec.setdefault("sessionAffinityConfig", {}).setdefault("clientIP", {}).setdefault("timeoutSeconds", 10800)
    elif spec["sessionAffinity"] == "None":
        spec.pop("sessionAffinityConfig", None)
    for port in spec.get("ports") or []:
        port.setdefault("protocol", "TCP")
        if port.get("targetPort") in (None, "", 0) and "port" in port:
            port["targetPort"] = port["port"]
    kind = spec["type"]
    if kind in ("NodePort", "LoadBalancer"):
        if not spec.get("externalTrafficPolicy"):
            spec["externalTrafficPolicy"] = "Cluster"
    elif not spec.get("externalIPs"):
        spec.pop("externalTrafficPolicy", None)
    if kind in ("NodePort", "LoadBalancer", "ClusterIP"):
        spec.setdefault("internalTrafficPolicy", "Cluster")
    if kind == "LoadBalancer":
        spec.setdefault("allocateLoadBalancerNodePorts", True)
    service.setdefault("status", {}).setdefault("loadBalancer", {})


def _endpoints(endpoints: dict[str, Any]) -> None:
    for subset in endpoints.get("subsets") or []:
        for port in subset.get("ports") or []:
            port.setdefault("protocol", "TCP")


def _endpointslice(endpointslice: dict[str, Any]) -> None:
    endpointslice.setdefault("endpoints", [])
    for endpoint in endpointslice["endpoints"] or []:
        endpoint.setdefault("conditions", {})
    for port in endpointslice.get("ports") or []:
        port.setdefault("name", "")
        port.setdefault("protocol", "TCP")


def _secret(secret: dict[str, Any]) -> None:
    import base64

    plain = secret.pop("stringData", None)
    if plain:
        data = secret.setdefault("data", {})
        for key, value in plain.items():
            data[key] = base64.b64encode(value.encode()).decode()
    secret.setdefault("type", "Opaque")


def _namespace(namespace: dict[str, Any]) -> None:
    metadata = namespace["metadata"]
    if metadata.get("name"):
        metadata.setdefault("labels", {})["kubernetes.io/metadata.name"] = metadata["name"]
    namespace.setdefault("spec", {})
    namespace.setdefault("status", {}).setdefault("phase", "Active")


def _event(event: dict[str, Any]) -> None:
    event.setdefault("reportingComponent", "")
    event.setdefault("reportingInstance", "")
    event.setdefault("source", {})
    event.setdefault("involvedObject", {})


_BY_KIND = {
    "Pod": _pod,
    "Deployment": _deployment,
    "ReplicaSet": _replicaset,
    "Service": _service,
    "Endpoints": _endpoints,
    "EndpointSlice": _endpointslice,
    "Secret": _secret,
    "Namespace": _namespace,
    "Event": _event,
}
