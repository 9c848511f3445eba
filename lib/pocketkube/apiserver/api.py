"""The API itself, without HTTP: what is asked of objects, by clients and by the cluster's own parts alike.

HTTP handlers, controllers, scheduler and kubelets all call :class:`Api` from the event loop's thread; each call either changes the
store wholly or raises :class:`ApiError` and changes nothing.
"""

from __future__ import annotations

import secrets as random_secrets
import time
import uuid
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

from ..store import Store, StoreError, clone
from . import admission, errors, fields, schema, selectors, validation
from . import patch as patches
from .defaults import apply_defaults, suffix
from .errors import ApiError
from .informer import Informer
from .resources import BY_PLURAL, Resource
from .services import Allocator

__all__ = ["Api", "ApiError", "Informer", "Options", "micro_timestamp", "timestamp"]

EVENT_LIFETIME = 3600
"""How long events are kept, in seconds: one hour, as on a real cluster."""
SCHEDULER = "default-scheduler"
MAX_OBJECT = 1536 * 1024
"""The largest object that etcd takes by default, in bytes."""
_SYSTEM_METADATA = (
    "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation", "selfLink", "managedFields",
)


def timestamp(moment: datetime | None = None) -> str:
    """A moment (now, by default) as the API writes it: RFC 3339, UTC, whole seconds."""
    return (moment or datetime.now(timezone.utc)).strftime("%Y-%m-%dT%H:%M:%SZ")


def micro_timestamp() -> str:
    """Now, as the API writes a MicroTime."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@dataclass
class Options:
    """How a client wants a write to be carried out.

    Attributes:
        dry_run: go through everything but keep nothing.
        manager: the field manager, recorded in ``metadata.managedFields``; None for the cluster's own parts, which aren't tracked.
        validation: ``Ignore``, ``Warn`` or ``Strict`` for unknown and duplicate fields in a patch's result.
        force: server-side apply takes fields over from other managers.
        warnings: filled with what the client should be warned of.
    """

    dry_run: bool = False
    manager: str | None = None
    validation: str = "Ignore"
    force: bool = False
    warnings: list[str] = field(default_factory=list)


class Api:
    """The Kubernetes API over a :class:`Store`.

    Args:
        store: where the objects are.
        service_cidr: the range of cluster IPs.
        node_port_range: first and last node port.

    Objects come and go as plain dicts in their served version; resources are named by plural (``"pods"``).

    >>> api = Api(Store()); api.bootstrap()
    >>> made = api.create("configmaps", {"metadata": {"namespace": "default", "name": "c"}, "data": {"a": "1"}})
    >>> api.get("configmaps", "default", "c")["data"]
    {'a': '1'}
    """

    def __init__(self, store: Store, *, service_cidr: str = "10.96.0.0/16", node_port_range: tuple[int, int] = (30000, 32767)):
        self.store = store
        self.allocator = Allocator(store.objects("services"), service_cidr, node_port_range)
        self._informers: dict[str, Informer] = {}
        self._events: dict[tuple[Any, ...], str] = {}
        self._swept = 0.0
        self._token_key = random_secrets.token_bytes(32)

    # --- reading ------------------------------------------------------------------------------------------------------------------------

    @staticmethod
    def resource(plural: str) -> Resource:
        """The resource of that plural name.

        Raises:
            ApiError: NotFound: this API has no such resource.
        """
        found = BY_PLURAL.get(plural)
        if found is None:
            raise errors.no_such_path()
        return found

    def peek(self, resource: str, namespace: str | None, name: str) -> dict[str, Any]:
        """The stored object itself: read-only.

        Raises:
            ApiError: NotFound.
        """
        kind = self.resource(resource)
        obj = self.store.get(resource, namespace if kind.namespaced else None, name)
        if obj is None:
            raise errors.not_found(kind.plural, kind.group, name)
        return obj

    def get(self, resource: str, namespace: str | None, name: str) -> dict[str, Any]:
        """A copy of the object; ``namespace`` is None for cluster-scoped ones.

        Raises:
            ApiError: NotFound.
        """
        copy: dict[str, Any] = clone(self.peek(resource, namespace, name))
        return copy

    def select(self, resource: str, namespace: str | None = None, *, labels: str | None = None, fields: str | None = None
               ) -> list[dict[str, Any]]:
        """The stored objects that match, read-only, ordered by namespace and name.

        Raises:
            ApiError: BadRequest for a selector that can't be parsed.
        """
        kind = self.resource(resource)
        by_label = selectors.labels(labels) if labels else None
        by_field = selectors.fields(fields, kind) if fields else None
        found = []
        for key in sorted(self.store.objects(resource), key=lambda key: (key[0] or "", key[1])):
            if namespace and key[0] != namespace:
                continue
            obj = self.store.objects(resource)[key]
            if by_label and not by_label(obj["metadata"].get("labels") or {}):
                continue
            if by_field and not by_field(obj):
                continue
            found.append(obj)
        return found

    def list(self, resource: str, namespace: str | None = None, *, labels: str | None = None, fields: str | None = None
             ) -> list[dict[str, Any]]:
        """Copies of the objects that match the selectors (their text, as on kubectl's command line).

        Raises:
            ApiError: BadRequest for a selector that can't be parsed.
        """
        return [clone(obj) for obj in self.select(resource, namespace, labels=labels, fields=fields)]

    def informer(self, resource: str) -> Informer:
        """The shared cache of a resource; already complete."""
        self.resource(resource)
        if resource not in self._informers:
            self._informers[resource] = Informer(self.store, resource)
        return self._informers[resource]

    # --- creating -----------------------------------------------------------------------------------------------------------------------

    def create(self, resource: str, obj: dict[str, Any], *, options: Options | None = None) -> dict[str, Any]:
        """Create an object, with names generated, defaults filled in and addresses allocated; returns it as it was stored.

        Raises:
            ApiError: AlreadyExists, Invalid, Forbidden, NotFound (of its namespace), or the store's refusal.
        """
        kind = self.resource(resource)
        options = options or Options()
        obj = clone(obj)
        obj["apiVersion"], obj["kind"] = kind.api_version, kind.kind
        meta = obj.setdefault("metadata", {})
        if meta.get("resourceVersion"):
            raise ApiError(500, "", "resourceVersion should not be set on objects to be created")
        meta.pop("resourceVersion", None)
        managed = meta.get("managedFields")
        for key in _SYSTEM_METADATA:
            meta.pop(key, None)
        if not kind.namespaced:
            meta.pop("namespace", None)
        elif not meta.get("namespace"):
            raise errors.bad_request(f"an empty namespace may not be set during creation of {kind.plural}")
        if not meta.get("name") and meta.get("generateName"):
            meta["name"] = self._generate(kind, meta)
        meta["uid"] = str(uuid.uuid4())
        meta["creationTimestamp"] = timestamp()
        if managed:
            meta["managedFields"] = managed
        if kind.generation:
            meta["generation"] = 1
        if kind.namespaced:
            admission.namespace(self.store, kind, obj)
        if self.store.get(resource, meta.get("namespace"), meta.get("name", "")) is not None:
            raise errors.already_exists(kind.plural, kind.group, meta["name"])
        self._fresh_status(kind, obj)
        apply_defaults(kind.kind, obj)
        if kind.kind == "Pod":
            admission.pod(self.store, obj)
            obj["status"]["qosClass"] = admission.quality_of_service(obj["spec"])
        elif kind.kind == "Namespace":
            obj["spec"] = {"finalizers": ["kubernetes"]}
        elif kind.kind == "Service":
            self.allocator.prepare(obj)
        validation.validate(kind, obj)
        if kind.kind == "Service":
            self.allocator.allocate(obj)
        self._manage(kind, None, obj, options)
        obj = self._ordered(obj)
        if options.dry_run:
            return obj
        if kind.kind == "Event":
            self._sweep_events()
        return clone(self._put(kind, obj))

    def _generate(self, kind: Resource, meta: dict[str, Any]) -> str:
        for _ in range(8):
            name = meta["generateName"][:58] + suffix()
            if self.store.get(kind.plural, meta.get("namespace"), name) is None:
                return name
        raise errors.already_exists(kind.plural, kind.group, name)

    @staticmethod
    def _fresh_status(kind: Resource, obj: dict[str, Any]) -> None:
        if kind.kind == "Pod":
            obj["status"] = {"phase": "Pending"}
        elif kind.kind in ("Deployment", "ReplicaSet"):
            obj["status"] = {"replicas": 0} if kind.kind == "ReplicaSet" else {}
        elif kind.kind == "Service":
            obj["status"] = {"loadBalancer": {}}
        elif kind.kind == "Namespace":
            obj["status"] = {"phase": "Active"}

    @staticmethod
    def _ordered(obj: dict[str, Any]) -> dict[str, Any]:
        """The object with its top-level keys in Kubernetes' usual order."""
        front = {"kind": obj["kind"], "apiVersion": obj["apiVersion"], "metadata": obj["metadata"]}
        return {**front, **{key: value for key, value in obj.items() if key not in front}}

    def _put(self, kind: Resource, obj: dict[str, Any]) -> dict[str, Any]:
        if kind.kind in ("ConfigMap", "Secret", "Event", "Pod") and _size(obj) > MAX_OBJECT:
            raise ApiError(500, "", "etcdserver: request is too large")
        try:
            return self.store.put(kind.plural, obj)
        except StoreError as error:
            raise _storage(error) from error

    # --- changing -----------------------------------------------------------------------------------------------------------------------

    def update(self, resource: str, obj: dict[str, Any], *, subresource: str | None = None, options: Options | None = None
               ) -> dict[str, Any]:
        """Replace an object, or its part that a subresource (``status``, ``finalize``) stands for.

        An ``obj`` that carries a ``resourceVersion`` is refused if the stored one has moved on. Nothing is written when nothing changes.

        Raises:
            ApiError: NotFound, Conflict, Invalid, or the store's refusal.
        """
        kind = self.resource(resource)
        options = options or Options()
        meta = obj.get("metadata") or {}
        old = self.peek(resource, meta.get("namespace"), meta.get("name", ""))
        current = old["metadata"]
        if meta.get("uid") and meta["uid"] != current["uid"]:
            where = "/".join(filter(None, (kind.plural, current.get("namespace"), current["name"])))
            why = (f"StorageError: invalid object, Code: 4, Key: /registry/{where}, ResourceVersion: 0, AdditionalErrorMsg: "
                   f"Precondition failed: UID in precondition: {meta['uid']}, UID in object meta: {current['uid']}")
            raise errors.conflict(kind.plural, kind.group, current["name"], why)
        if meta.get("resourceVersion") and meta["resourceVersion"] != current["resourceVersion"]:
            raise errors.conflict(kind.plural, kind.group, current["name"], errors.MODIFIED)
        new = self._merged(kind, old, clone(obj), subresource)
        if subresource is None:
            apply_defaults(kind.kind, new)
            if kind.kind == "Service":
                self.allocator.prepare(new, old)
            validation.validate(kind, new, old)
            if kind.kind == "Service":
                self.allocator.allocate(new, old)
        if kind.generation and subresource is None and _desired(kind, new) != _desired(kind, old):
            new["metadata"]["generation"] = current.get("generation", 0) + 1
        self._manage(kind, old, new, options, subresource)
        return self._commit(kind, old, new, options)

    def _merged(self, kind: Resource, old: dict[str, Any], new: dict[str, Any], subresource: str | None) -> dict[str, Any]:
        new["apiVersion"], new["kind"] = kind.api_version, kind.kind
        if subresource == "status":
            return {**old, "metadata": clone(old["metadata"]), "status": new.get("status") or {}}
        if subresource == "finalize":
            return {**old, "metadata": clone(old["metadata"]), "spec": new.get("spec") or {}}
        meta = new["metadata"]
        for key in _SYSTEM_METADATA:
            if key == "managedFields" and key in meta:
                continue
            meta.pop(key, None)
            if key in old["metadata"]:
                meta[key] = clone(old["metadata"][key])
        if old["metadata"].get("generateName") and not meta.get("generateName"):
            meta["generateName"] = old["metadata"]["generateName"]
        if not kind.namespaced:
            meta.pop("namespace", None)
        if kind.status:
            new.pop("status", None)
            if "status" in old:
                new["status"] = old["status"]
        if kind.kind == "Namespace":
            new["spec"] = old.get("spec") or {}
        return self._ordered(new)

    def _commit(self, kind: Resource, old: dict[str, Any], new: dict[str, Any], options: Options) -> dict[str, Any]:
        new["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"]
        if new == old:
            return clone(old)
        if self._is_over(kind, new):
            if not options.dry_run:
                return clone(self._remove(kind, new))
            return clone(new)
        if options.dry_run:
            return clone(new)
        return clone(self._put(kind, clone(new)))

    @staticmethod
    def _is_over(kind: Resource, obj: dict[str, Any]) -> bool:
        """Whether a deleted object has nothing left that keeps it."""
        meta = obj["metadata"]
        if not meta.get("deletionTimestamp") or meta.get("finalizers"):
            return False
        if kind.kind == "Namespace" and (obj.get("spec") or {}).get("finalizers"):
            return False
        return not meta.get("deletionGracePeriodSeconds")

    def _remove(self, kind: Resource, obj: dict[str, Any]) -> dict[str, Any]:
        meta = obj["metadata"]
        try:
            last = self.store.delete(kind.plural, meta.get("namespace"), meta["name"])
        except StoreError as error:
            raise _storage(error) from error
        return last if last is not None else obj

    def patch(self, resource: str, namespace: str | None, name: str, patch: Any, *, kind: str = "merge", subresource: str | None = None,
              options: Options | None = None) -> dict[str, Any]:
        """Change an object by a patch of the given kind: ``merge``, ``strategic`` or ``json``.

        Raises:
            ApiError: NotFound, BadRequest, Conflict, Invalid, or the store's refusal.
        """
        of = self.resource(resource)
        options = options or Options()
        old = self.peek(resource, namespace, name)
        changed = patched(old, patch, kind, schema.struct_of(of))
        renamed = changed["metadata"].get("name")
        if renamed != name:
            raise errors.bad_request(f"the name of the object ({renamed}) does not match the name on the URL ({name})")
        try:
            clean, strict = fields.decode(schema.struct_of(of), changed)
        except fields.DecodeError as error:
            raise _unprocessable(kind, error) from error
        if strict and options.validation == "Strict":
            raise errors.bad_request(f"strict decoding error: {', '.join(strict)}")
        if strict and options.validation == "Warn":
            options.warnings += strict
        return self.update(resource, clean, subresource=subresource, options=options)

    # --- deleting -----------------------------------------------------------------------------------------------------------------------

    def delete(self, resource: str, namespace: str | None, name: str, *, grace_seconds: int | None = None, propagation: str | None = None,
               uid: str | None = None, resource_version: str | None = None, options: Options | None = None) -> dict[str, Any]:
        """Delete an object: at once, or (pods with a grace period, finalizers, namespaces) by marking it for those who finish the work.

        Args:
            grace_seconds: a pod's time to end; None for its own ``terminationGracePeriodSeconds``.
            propagation: ``Background``, ``Foreground`` or ``Orphan``: what becomes of the objects that it owns.
            uid: refuse if the object is another by now.

        Returns:
            The object: as it is now if it still exists (then it has a ``deletionTimestamp``), else as it last was.

        Raises:
            ApiError: NotFound, Conflict (preconditions), Forbidden, or the store's refusal.
        """
        kind = self.resource(resource)
        options = options or Options()
        old = self.peek(resource, namespace, name)
        meta = old["metadata"]
        for label, wanted, have in (("UID", uid, meta["uid"]), ("ResourceVersion", resource_version, meta["resourceVersion"])):
            if wanted and wanted != have:
                why = f"Precondition failed: {label} in precondition: {wanted}, {label} in object meta: {have}"
                raise errors.conflict(kind.plural, kind.group, name, why)
        if kind.kind == "Namespace" and name in admission.IMMORTAL:
            raise errors.forbidden("namespaces", "", name, "this namespace may not be deleted")
        new = clone(old)
        meta = new["metadata"]
        grace = self._grace(kind, old, grace_seconds)
        finalizers = [one for one in meta.get("finalizers") or [] if one not in ("foregroundDeletion", "orphan") or propagation is None]
        if propagation in ("Foreground", "Orphan"):
            finalizers.append("foregroundDeletion" if propagation == "Foreground" else "orphan")
        if finalizers:
            meta["finalizers"] = finalizers
        else:
            meta.pop("finalizers", None)
        lasting = bool(finalizers) or grace > 0 or (kind.kind == "Namespace" and bool((new.get("spec") or {}).get("finalizers")))
        if not lasting:
            return clone(old) if options.dry_run else clone(self._remove(kind, old))
        if not meta.get("deletionTimestamp"):
            meta["deletionTimestamp"] = timestamp(datetime.now(timezone.utc) + timedelta(seconds=grace))
            meta["deletionGracePeriodSeconds"] = grace
            if meta.get("generation"):
                meta["generation"] += 1
        elif grace < meta.get("deletionGracePeriodSeconds", 0):
            started = datetime.strptime(meta["deletionTimestamp"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
            started -= timedelta(seconds=meta.get("deletionGracePeriodSeconds", 0))
            meta["deletionTimestamp"] = timestamp(max(started + timedelta(seconds=grace), datetime.now(timezone.utc)))
            meta["deletionGracePeriodSeconds"] = grace
        if kind.kind == "Namespace":
            meta.pop("deletionGracePeriodSeconds", None)
            new.setdefault("status", {})["phase"] = "Terminating"
        return self._commit(kind, old, new, options)

    @staticmethod
    def _grace(kind: Resource, obj: dict[str, Any], asked: int | None) -> int:
        if kind.kind != "Pod":
            return 0
        spec, status = obj["spec"], obj.get("status") or {}
        if not spec.get("nodeName") or status.get("phase") in ("Succeeded", "Failed"):
            return 0
        grace = asked if asked is not None else spec.get("terminationGracePeriodSeconds", 30)
        grace = 1 if grace < 0 else grace
        if obj["metadata"].get("deletionTimestamp"):
            grace = min(grace, obj["metadata"].get("deletionGracePeriodSeconds", grace))
        return int(grace)

    # --- subresources of their own kind -------------------------------------------------------------------------------------------------

    def bind(self, namespace: str, pod_name: str, node_name: str, *, uid: str | None = None) -> None:
        """Assign a pod to a node (the ``pods/binding`` subresource).

        Raises:
            ApiError: NotFound, or Conflict when the pod is assigned or on its way out.
        """
        old = self.peek("pods", namespace, pod_name)
        if uid and uid != old["metadata"]["uid"]:
            raise errors.conflict("pods", "", pod_name, f"Precondition failed: UID in precondition: {uid}, UID in object meta: "
                                  f"{old['metadata']['uid']}")
        if old["metadata"].get("deletionTimestamp"):
            raise errors.conflict("pods/binding", "", pod_name, f"pod {pod_name} is being deleted, cannot be assigned to a host")
        if old["spec"].get("nodeName"):
            raise errors.conflict("pods/binding", "", pod_name, f"pod {pod_name} is already assigned to node \"{old['spec']['nodeName']}\"")
        status = clone(old.get("status") or {})
        conditions = [one for one in status.get("conditions") or [] if one["type"] != "PodScheduled"]
        generation = old["metadata"].get("generation", 1)
        conditions.append({"lastProbeTime": None, "lastTransitionTime": timestamp(), "observedGeneration": generation, "status": "True",
                           "type": "PodScheduled"})
        status["conditions"] = conditions
        new = {**old, "metadata": dict(old["metadata"]), "spec": {**old["spec"], "nodeName": node_name}, "status": status}
        self._put(self.resource("pods"), new)

    def get_scale(self, resource: str, namespace: str, name: str) -> dict[str, Any]:
        """The ``autoscaling/v1`` Scale of a Deployment or ReplicaSet."""
        return scale_of(self.peek(resource, namespace, name))

    def update_scale(self, resource: str, namespace: str, name: str, scale: dict[str, Any], *, options: Options | None = None
                     ) -> dict[str, Any]:
        """Set the number of replicas through the scale subresource.

        Raises:
            ApiError: NotFound, Conflict, or Invalid for a negative number.
        """
        obj = self.get(resource, namespace, name)
        replicas = (scale.get("spec") or {}).get("replicas", 0)
        if replicas < 0:
            raise errors.invalid_object("Scale", "autoscaling", name, [errors.invalid("spec.replicas", replicas, validation.NON_NEGATIVE)])
        obj["spec"]["replicas"] = replicas
        for key in ("resourceVersion", "uid"):
            if (scale.get("metadata") or {}).get(key):
                obj["metadata"][key] = scale["metadata"][key]
        return scale_of(self.update(resource, obj, options=options))

    def create_token(self, namespace: str, name: str, request: dict[str, Any]) -> dict[str, Any]:
        """Answer a TokenRequest for a service account."""
        account = self.peek("serviceaccounts", namespace, name)
        spec = request.get("spec") or {}
        lifetime = int(spec.get("expirationSeconds") or 3600)
        audiences = spec.get("audiences") or ["https://kubernetes.default.svc.cluster.local"]
        now = time.time()
        expires = timestamp(datetime.fromtimestamp(now + lifetime, timezone.utc))
        return {
            "kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1",
            "metadata": {"name": name, "namespace": namespace, "creationTimestamp": timestamp()},
            "spec": {"audiences": audiences, "expirationSeconds": lifetime, "boundObjectRef": spec.get("boundObjectRef")},
            "status": {"token": admission.token(account, lifetime, audiences, self._token_key, now), "expirationTimestamp": expires},
        }

    def account_of(self, token: str) -> str | None:
        """The service account (``system:serviceaccount:NAMESPACE:NAME``) whose valid token this is, or None."""
        user = admission.check_token(token, self._token_key, time.time())
        if user:
            namespace, name = user.split(":")[2:]
            return user if self.store.get("serviceaccounts", namespace, name) is not None else None
        return None

    # --- events -------------------------------------------------------------------------------------------------------------------------

    def record_event(self, obj: dict[str, Any], type_: str, reason: str, message: str, component: str, node: str | None = None, *,
                     field_path: str | None = None) -> None:
        """Say that something happened to an object, as an Event; the same again only raises the count of the first.

        Args:
            type_: ``Normal`` or ``Warning``.
            component: who says so, such as ``kubelet``.
            node: the node on which it happened.
            field_path: the part of the object, such as ``spec.containers{nginx}``.

        An event that can't be stored is dropped, since nothing depends on events.
        """
        meta = obj["metadata"]
        namespace = meta.get("namespace") or "default"
        now = timestamp()
        key = (namespace, meta.get("uid"), meta["name"], type_, reason, message, component, node, field_path)
        known = self.store.get("events", namespace, self._events.get(key, ""))
        try:
            if known is not None:
                self._put(self.resource("events"), {**known, "metadata": dict(known["metadata"]), **_again(known, now)})
                return
            involved = {"kind": obj["kind"], "namespace": meta.get("namespace"), "name": meta["name"], "uid": meta.get("uid"),
                        "apiVersion": obj["apiVersion"], "resourceVersion": meta.get("resourceVersion"), "fieldPath": field_path}
            event = {
                "metadata": {"name": f"{meta['name']}.{time.time_ns():x}", "namespace": namespace},
                "involvedObject": {name: value for name, value in involved.items() if value},
                "reason": reason, "message": message, "type": type_, "reportingComponent": component,
            }
            if component == SCHEDULER:
                # The scheduler alone reports in the newer form of events, which has no source and no first and last time.
                event.update(source={}, firstTimestamp=None, lastTimestamp=None, eventTime=micro_timestamp(),
                             reportingInstance=f"{SCHEDULER}-servicelab-control-plane",
                             action="Binding" if reason == "Scheduled" else "Scheduling")
            else:
                source = {"component": component, "host": node}
                event.update(source={name: value for name, value in source.items() if value}, firstTimestamp=now, lastTimestamp=now,
                             count=1, eventTime=None, reportingInstance=node or "")
            made = self.create("events", event)
        except ApiError:
            return
        self._events[key] = made["metadata"]["name"]

    def _sweep_events(self) -> None:
        now = time.monotonic()
        if now - self._swept < 60:
            return
        self._swept = now
        limit = timestamp(datetime.now(timezone.utc) - timedelta(seconds=EVENT_LIFETIME))
        kind = self.resource("events")
        for event in list(self.store.objects("events").values()):
            seen = (event.get("series") or {}).get("lastObservedTime") or event.get("lastTimestamp")
            if (seen or event["metadata"]["creationTimestamp"]) < limit:
                self._remove(kind, event)
        self._events = {key: name for key, name in self._events.items() if self.store.get("events", key[0], name) is not None}

    # --- the objects that every cluster has ---------------------------------------------------------------------------------------------

    def bootstrap(self, address: str = "172.18.0.2", port: int = 6443) -> None:
        """Create what a new cluster has before anyone asks: the system namespaces, and the Service ``kubernetes`` with its endpoints.

        Args:
            address: where the API server answers inside the cluster's network.
            port: its port there.
        """
        for name in ("default", "kube-system", "kube-public", "kube-node-lease"):
            if self.store.get("namespaces", None, name) is None:
                self.create("namespaces", {"metadata": {"name": name}})
        labels = {"component": "apiserver", "provider": "kubernetes"}
        meta = {"name": "kubernetes", "namespace": "default"}
        wanted: list[tuple[str, dict[str, Any]]] = [
            ("services", {"metadata": {**meta, "labels": labels}, "spec": {
                "type": "ClusterIP", "clusterIP": str(self.allocator.network[1]),
                "ports": [{"name": "https", "port": 443, "targetPort": port, "protocol": "TCP"}]}}),
            ("endpoints", {"metadata": {**meta, "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}}, "subsets": [
                {"addresses": [{"ip": address}], "ports": [{"name": "https", "port": port, "protocol": "TCP"}]}]}),
            ("endpointslices", {"metadata": {**meta, "labels": {"kubernetes.io/service-name": "kubernetes"}}, "addressType": "IPv4",
                                "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
                                "ports": [{"name": "https", "port": port, "protocol": "TCP"}]}),
        ]
        for resource, obj in wanted:
            if self.store.get(resource, "default", "kubernetes") is None:
                self.create(resource, obj)
            elif resource != "services":
                self.update(resource, obj)

    # --- managed fields -----------------------------------------------------------------------------------------------------------------

    def _manage(self, kind: Resource, old: dict[str, Any] | None, new: dict[str, Any], options: Options, subresource: str | None = None
                ) -> None:
        """Record who set which fields, for clients that name themselves."""
        if options.manager:
            from . import apply

            apply.track(kind, old, new, options.manager, subresource, timestamp())


def patched(original: dict[str, Any], patch: Any, kind: str, struct: schema.Struct | None) -> dict[str, Any]:
    """An object with a patch of the given kind (``merge``, ``strategic``, ``json``) applied to it; nothing is stored.

    Raises:
        ApiError: the patch is malformed or can't be applied.
    """
    if kind == "json":
        result: Any = patches.json_patch(clone(original), patch)
    elif not isinstance(patch, dict):
        what = fields.describe(patch)
        raise errors.bad_request(f"error decoding patch: json: cannot unmarshal {what} into Go value of type map[string]interface {{}}")
    elif kind == "strategic":
        result = patches.strategic(original, patch, struct)
    else:
        result = patches.merge(clone(original), patch)
    if not isinstance(result, dict) or not isinstance(result.get("metadata"), dict):
        raise errors.bad_request("the patched object has no metadata: a patch may change an object's fields, not replace it wholly")
    return result


def scale_of(obj: dict[str, Any]) -> dict[str, Any]:
    """The ``autoscaling/v1`` Scale that stands for a workload."""
    meta = obj["metadata"]
    kept = {key: meta[key] for key in ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")}
    return {
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": kept, "spec": {"replicas": obj["spec"].get("replicas", 1)},
        "status": {"replicas": (obj.get("status") or {}).get("replicas", 0),
                   "selector": selectors.format_label_selector(obj["spec"].get("selector"))},
    }


def _again(event: dict[str, Any], now: str) -> dict[str, Any]:
    """What changes in an event that happens once more."""
    if event.get("eventTime"):
        series = event.get("series") or {"count": 1}
        return {"series": {"count": series["count"] + 1, "lastObservedTime": micro_timestamp()}}
    return {"count": event["count"] + 1, "lastTimestamp": now}


def _desired(kind: Resource, obj: dict[str, Any]) -> Any:
    if kind.kind == "EndpointSlice":
        return obj.get("endpoints"), obj.get("ports"), obj["metadata"].get("labels")
    return obj.get("spec")


def _size(obj: Any) -> int:
    """About how many bytes the object takes as JSON: exact enough to hold it against etcd's limit."""
    if isinstance(obj, dict):
        return sum(len(key) + 4 + _size(value) for key, value in obj.items()) + 2
    if isinstance(obj, list):
        return sum(_size(value) + 1 for value in obj) + 2
    if isinstance(obj, str):
        return len(obj.encode()) + 2
    return 5


def _storage(error: StoreError) -> ApiError:
    return ApiError(507 if error.full else 500, "InsufficientStorage" if error.full else "InternalError", str(error))


def _unprocessable(kind: str, error: fields.DecodeError) -> ApiError:
    if kind == "strategic":
        return errors.bad_request(str(error))
    return ApiError(422, "Invalid", f"the server rejected our request due to an error in our request: {error}", {})
