"""What every namespace gets: the ServiceAccount ``default`` and the ConfigMap ``kube-root-ca.crt``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..apiserver.api import ApiError
from ..objects import deep, deleting
from .base import Controller

if TYPE_CHECKING:
    from ..apiserver.api import Api

_DESCRIPTION = (
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP"
    " or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters."
)


class NamespaceContentController(Controller):
    """Puts the standard objects into each namespace, and puts them back when somebody deletes or changes them.

    Args:
        api: The API.
        ca_certificate: The cluster's CA in PEM; without it no ``kube-root-ca.crt`` is made.
    """

    name = "serviceaccount-controller"

    def __init__(self, api: Api, ca_certificate: str | None = None) -> None:
        super().__init__(api)
        self.ca_certificate = ca_certificate
        self.namespaces = api.informer("namespaces")
        self.accounts = api.informer("serviceaccounts")
        self.config_maps = api.informer("configmaps")

    def subscribe(self) -> None:
        self.namespaces.on_change(lambda _type, obj, _old: self.queue.add(obj["metadata"]["name"]))
        self.accounts.on_change(lambda type_, obj, _old: self._content_changed(type_, obj, "default"))
        self.config_maps.on_change(lambda type_, obj, _old: self._content_changed(type_, obj, "kube-root-ca.crt"))

    def _content_changed(self, type_: str, obj: dict, name: str) -> None:
        if obj["metadata"]["name"] == name and type_ != "ADDED":
            self.queue.add(obj["metadata"]["namespace"])

    async def reconcile(self, key: str) -> None:
        namespace = self.namespaces.get(None, key)
        if namespace is None or deleting(namespace):
            return
        if self.accounts.get(key, "default") is None:
            self._create(
                "serviceaccounts", {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": key}}
            )
        if self.ca_certificate is None:
            return
        present = self.config_maps.get(key, "kube-root-ca.crt")
        data = {"ca.crt": self.ca_certificate}
        meta = {"name": "kube-root-ca.crt", "namespace": key, "annotations": {"kubernetes.io/description": _DESCRIPTION}}
        if present is None:
            self._create("configmaps", {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data})
        elif present.get("data") != data:
            self.api.update("configmaps", {**deep(present), "data": data})

    def _create(self, resource: str, obj: dict) -> None:
        try:
            self.api.create(resource, obj)
        except ApiError as error:
            if error.reason not in {"AlreadyExists", "NotFound"} and "is being terminated" not in error.message:
                raise
