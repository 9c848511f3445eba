"""A plan as Kubernetes objects: the application as it should be, with the plan's faults put in."""

from __future__ import annotations

import base64
import hashlib
import secrets
from typing import Any

from servicelab import certificates
from servicelab.capstone.plan import HEALTH, KEY, Caller, Plan, Server

SERVER_IMAGE, CALLER_IMAGE = "nginx:1.29-alpine", "curlimages/curl:8.16.0"
LABEL, MADE = "servicelab.io/made-by", "capstone"
OWNER = "servicelab.io/capstone-of"  # on the second namespace: to whose application it belongs
RECORD = "capstone"  # the ConfigMap that says which plan is in the namespace
TRUSTED = "/etc/trusted/server.crt"  # in callers that speak TLS: the certificate they trust
LOGIN = "books"
PAUSE_SECONDS = 2

# One line for each call: the URL, the HTTP status, curl's exit code, and what curl has to say.
_CALL = r"""curl -s -o /dev/null --max-time 3 -w "$URL: status %{http_code}, exit code %{exitcode} %{errormsg}\n" OPTIONS"$URL" """
Object = dict[str, Any]


def of(plan: Plan) -> list[Object]:
    """Everything in the plan's namespaces, the namespaces themselves excepted, in the order in which it is to be made.

    Keys, certificate and password are made anew by each call; nobody is to read them in this source.
    """
    third, keeper = plan.servers[2], plan.callers[3]
    name = plan.wrong_name if "certificate" in plan.faults else third.name
    password = secrets.token_urlsafe(12)
    made = [
        _object(plan, "v1", "ConfigMap", RECORD, data=record(plan)),
        _labelled(certificates.self_signed(name, _names(plan, name), key_type="ec").secret(third.secret), plan.namespace),
        _secret(plan, third.users, htpasswd=f"{LOGIN}:{_hashed(password)}\n"),
        _secret(plan, keeper.secret, **{"login": LOGIN, plan.wrong_key if "secret" in plan.faults else KEY: password}),
    ]
    for server in plan.servers:
        made += [_configuration(plan, server), _service(plan, server), _server(plan, server)]
    return made + [_caller(plan, caller) for caller in plan.callers]


def record(plan: Plan) -> dict[str, str]:
    """What the record in the cluster says, from which the plan can be made again."""
    return {"seed": str(plan.seed), "faults": " ".join(sorted(plan.faults)), "other": plan.other}


def namespace(plan: Plan) -> Object:
    """The second namespace."""
    labels = {LABEL: MADE, OWNER: plan.namespace}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": plan.other, "labels": labels}}


def _names(plan: Plan, name: str) -> list[str]:
    # A right certificate covers what callers may say; a wrong one only the name it was made for.
    return [name] if "certificate" in plan.faults else [name, f"{name}.{plan.namespace}", f"{name}.{plan.namespace}.svc.cluster.local"]


def _labelled(obj: Object, where: str) -> Object:
    obj["metadata"] |= {"namespace": where, "labels": {LABEL: MADE, **obj["metadata"].get("labels", {})}}
    return obj


def _object(plan: Plan, version: str, kind: str, name: str, where: str = "", labels: dict | None = None, **rest: Any) -> Object:
    return _labelled(
        {"apiVersion": version, "kind": kind, "metadata": {"name": name, "labels": labels or {}}, **rest}, where or plan.namespace
    )


def _secret(plan: Plan, name: str, **data: str) -> Object:
    coded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
    return _object(plan, "v1", "Secret", name, type="Opaque", data=coded)


def _hashed(password: str) -> str:
    """A password as nginx takes it in a file of users: salted SHA-1, scheme {SSHA} of RFC 2307."""
    salt = secrets.token_bytes(8)
    return "{SSHA}" + base64.b64encode(hashlib.sha1(password.encode() + salt).digest() + salt).decode()


def _configuration(plan: Plan, server: Server) -> Object:
    ways = [
        f'location = / {{ return 200 "this is {server.name}\\n"; }}',
        f'location = {HEALTH} {{ access_log off; return 200 "well\\n"; }}',
    ]
    head = [f"listen {server.port}{' ssl' if server.tls else ''};", "default_type text/plain;"]
    if server.tls:
        head += ["ssl_certificate /etc/nginx/ssl/tls.crt;", "ssl_certificate_key /etc/nginx/ssl/tls.key;"]
        # alias, not return: a return would answer before the password is asked for
        book = f"location = /{plan.theme.book} {{ auth_basic books; auth_basic_user_file /etc/nginx/users/htpasswd; alias {_PAGE}; }}"
        ways.append(book)
    ways.append("location / { return 404; }")
    text = "server {\n" + "".join(f"    {line}\n" for line in [*head, *ways]) + "}\n"
    return _object(plan, "v1", "ConfigMap", f"{server.name}-config", data={"default.conf": text})


_PAGE = "/usr/share/nginx/html/index.html"  # in the image


def _service(plan: Plan, server: Server) -> Object:
    first, second, _ = plan.servers
    label = plan.selector if server is first and "selector" in plan.faults else server.name
    target = plan.target_port if server is second and "port" in plan.faults else server.port
    ports = [{"name": "https" if server.tls else "http", "port": server.service_port, "targetPort": target, "protocol": "TCP"}]
    return _object(plan, "v1", "Service", server.name, spec={"selector": {"app": label}, "ports": ports})


def _server(plan: Plan, server: Server) -> Object:
    path = plan.probe_path if server.name == plan.misread and "readiness" in plan.faults else HEALTH
    probe = {"httpGet": {"path": path, "port": server.port, "scheme": "HTTPS" if server.tls else "HTTP"}, "periodSeconds": 2}
    mounts, volumes = (
        [{"name": "config", "mountPath": "/etc/nginx/conf.d"}],
        [_volume("config", configMap={"name": f"{server.name}-config"})],
    )
    if server.tls:
        mounts += [{"name": "tls", "mountPath": "/etc/nginx/ssl"}, {"name": "users", "mountPath": "/etc/nginx/users"}]
        volumes += [_volume("tls", secret={"secretName": server.secret}), _volume("users", secret={"secretName": server.users})]
    container = {
        "name": "web", "image": SERVER_IMAGE, "ports": [{"containerPort": server.port}], "readinessProbe": probe,
        "volumeMounts": [{**mount, "readOnly": True} for mount in mounts],
    }  # fmt: skip
    return _deployment(plan, server.name, plan.namespace, server.replicas, {"containers": [container], "volumes": volumes})


def _caller(plan: Plan, caller: Caller) -> Object:
    env: list[Object] = [{"name": "URL", "value": caller.url}]
    options, pod = "", {}
    container: Object = {"name": "curl", "image": CALLER_IMAGE}
    if plan.server(caller.server).tls:
        options += f"--cacert {TRUSTED} "
        # The certificate alone, as a client needs it, and not the key beside it in the Secret.
        items = [{"key": "tls.crt", "path": TRUSTED.rpartition("/")[2]}]
        pod["volumes"] = [_volume("trusted", secret={"secretName": plan.server(caller.server).secret, "items": items})]
        container["volumeMounts"] = [{"name": "trusted", "mountPath": TRUSTED.rpartition("/")[0], "readOnly": True}]
    if caller.secret:
        options += '-u "$LOGIN:$PASSWORD" '
        for name, key in (("LOGIN", "login"), ("PASSWORD", KEY)):
            env.append({"name": name, "valueFrom": {"secretKeyRef": {"name": caller.secret, "key": key}}})
    loop = f"while true; do {_CALL.replace('OPTIONS', options).strip()}; sleep {PAUSE_SECONDS}; done"
    container |= {"command": ["sh", "-c", loop], "env": env}
    # A shell that sleeps takes no notice of SIGTERM: nothing is lost by ending it soon.
    return _deployment(plan, caller.name, caller.namespace, 1, {**pod, "containers": [container], "terminationGracePeriodSeconds": 1})


def _volume(name: str, **source: Object) -> Object:
    return {"name": name, **source}


def _deployment(plan: Plan, name: str, where: str, replicas: int, pod: Object) -> Object:
    labels = {"app": name}
    template = {"metadata": {"labels": {**labels, LABEL: MADE}}, "spec": pod}
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    return _object(plan, "apps/v1", "Deployment", name, where, labels, spec=spec)
