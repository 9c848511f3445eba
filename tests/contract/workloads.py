"""Objects that several contract tests make."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness import Kube

NGINX = "nginx:1.29-alpine"
SAYS_ITS_NAME = 'hostname > /usr/share/nginx/html/index.html; exec nginx -g "daemon off;"'
LISTENS = {"tcpSocket": {"port": 80}, "periodSeconds": 1, "failureThreshold": 120}  # a startup probe: else pods are ready too early
HELD = {"preStop": {"exec": {"command": ["sh", "-c", "until [ -e /tmp/let-go ]; do sleep 0.1; done"]}}}
HELD_FOR = 100  # seconds at most; a fixed pause would be over before a busy machine has looked


def let_go(kube: Kube, *names: str) -> None:
    """End the preStop hook ``HELD`` of pods, which terminate until then."""
    for name in names:
        kube.exec(name, "touch", "/tmp/let-go")


def deployment(name: str, replicas: int = 2, *, spec: dict | None = None, pod: dict | None = None, **container: Any) -> dict:
    """A Deployment of nginx pods, each of which answers with its own name.

    Args:
        name: also the value of the pods' label ``app``.
        replicas: how many.
        spec: more fields of the Deployment's spec.
        pod: more fields of the pods' spec.
        container: more fields of the container.
    """
    labels = {"app": name}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            **(spec or {}),
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "terminationGracePeriodSeconds": 1,
                    **(pod or {}),
                    "containers": [
                        {
                            "name": "nginx",
                            "image": NGINX,
                            "command": ["sh", "-c", SAYS_ITS_NAME],
                            "ports": [{"name": "http", "containerPort": 80}],
                            **container,
                        }
                    ],
                },
            },
        },
    }


def pod(name: str, labels: dict | None = None, *, spec: dict | None = None, **container: Any) -> dict:
    """A pod that lasts until it is deleted, with curl in it."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels or {"run": name}},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "main", "image": NGINX, **container}],
            **(spec or {}),
        },
    }


def service(name: str, selector: dict | None, *, port: int = 80, target: int | str = "http", **spec: Any) -> dict:
    """A Service with one unnamed port."""
    body = {"ports": [{"port": port, "targetPort": target}], **spec}
    if selector is not None:
        body["selector"] = selector
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": body}
