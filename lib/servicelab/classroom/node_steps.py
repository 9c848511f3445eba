"""`--node-steps`: one prepared pod on each node that shows students what the lessons look at on a node, and can do nothing else.

Students get no shell, no `exec` and no command line there. They may send a GET to one port of these pods through the API server
(`pods/proxy`, for these pods' names and this port alone), and behind it stands an nginx that knows four answers:

    /nft      kube-proxy's rules of the node: a file
    /addr     the node's addresses: a file
    /fetch    one GET of / from a pod's or Service's address, sent from the node
    /local    one GET of / from the node's own port 80

The two files are written every two seconds by a second container, which has the node's programs (read-only) and NET_ADMIN, since
the kernel shows its rules to nobody else; it listens to nobody and takes no input. The nginx runs as nobody, without capabilities,
and asks only addresses in the cluster's own pod and Service networks: not the API server, not the cloud's metadata service.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable
from typing import Any

from ..client import Client
from ..errors import ClusterError, LabError
from ..settings import wait_timeout
from .api import apply, delete, listing
from .group import current

IMAGE = "nginx:1.29-alpine"  # the lessons' own: every node has it
CONFIG = "node-steps"

_WRITER = """
while :; do
  chroot /node nft list table ip kube-proxy > /shown/.nft 2>&1; mv /shown/.nft /shown/nft
  chroot /node ip -o addr > /shown/.addr 2>&1; mv /shown/.addr /shown/addr
  sleep 2
done
"""
_NGINX = """
worker_processes 1;
pid /tmp/nginx.pid;
error_log /dev/stderr warn;
events {{}}
http {{
  access_log off;
  client_body_temp_path /tmp/body; proxy_temp_path /tmp/proxy; fastcgi_temp_path /tmp/fastcgi;
  uwsgi_temp_path /tmp/uwsgi; scgi_temp_path /tmp/scgi;
  default_type text/plain;
  limit_req_zone $server_name zone=all:64k rate=40r/s;
  geo $arg_ip $asked_ok {{
    default 0;
{networks}
    {api}/32 0;
  }}
  map $arg_port $port_ok {{ default 0; "~^[0-9]{{1,5}}$" 1; }}
  server {{
    listen {port};
    limit_req zone=all burst=200;
    client_max_body_size 1k;
    if ($request_method != GET) {{ return 405; }}
    location = /nft {{ alias /shown/nft; }}
    location = /addr {{ alias /shown/addr; }}
    location = /fetch {{
      if ($asked_ok = 0) {{ rewrite ^ /refused last; }}
      if ($port_ok = 0) {{ rewrite ^ /refused last; }}
      proxy_pass http://$arg_ip:$arg_port/;
      include /config/ask.conf;
    }}
    location = /local {{
      proxy_pass http://127.0.0.1:80/;
      include /config/ask.conf;
    }}
    location = /nothing {{ internal; add_header X-Node-Steps nothing always; return 200 ""; }}
    location = /refused {{ internal; add_header X-Node-Steps refused always; return 403 "not for students"; }}
    location / {{ return 404; }}
  }}
}}
"""
_ASK = """
proxy_pass_request_headers off;
proxy_pass_request_body off;
proxy_set_header Host $proxy_host;
proxy_set_header User-Agent curl;
proxy_http_version 1.1;
proxy_redirect off;
proxy_connect_timeout 3s;
proxy_read_timeout 3s;
error_page 502 504 =200 /nothing;
"""


def pod_name(node: str) -> str:
    """The name of the pod for node steps on a node."""
    return f"node-steps-{node}"


def present(client: Client) -> tuple[list[str], int]:
    """The names of the pods that are there, and their port."""
    return [pod["metadata"]["name"] for pod in _pods(client)], current().port


def _pods(client: Client) -> list[dict[str, Any]]:
    return listing(client, f"/api/v1/namespaces/{current().space}/pods", f"{current().selector},servicelab.io/for=node-steps")


def networks(client: Client) -> tuple[list[str], str]:
    """The networks of pods and Services, and the API server's address in them.

    Raises:
        ClusterError: the cluster doesn't say which networks it uses.
    """
    api = client.get("services", "kubernetes", "default")["spec"]["clusterIP"]
    found = {cidr for node in client.list("nodes") for cidr in node["spec"].get("podCIDRs") or []}
    try:
        for one in client.request("GET", "/apis/networking.k8s.io/v1/servicecidrs").get("items") or []:
            found.update(one["spec"]["cidrs"])
    except LabError:
        addresses = [service["spec"].get("clusterIP") for service in client.list("services")]
        found.update(f"{address}/32" for address in addresses if address and address != "None")
    if not any("/32" not in cidr for cidr in found):
        raise ClusterError("The cluster's nodes name no pod networks (spec.podCIDRs), so node steps can't be limited to them.")
    return sorted(cidr for cidr in found if ipaddress.ip_network(cidr).version == 4), api


def objects(client: Client, nodes: list[str], image: str = IMAGE) -> list[dict[str, Any]]:
    """The ConfigMap and one pod for each node."""
    cidrs, api = networks(client)
    nginx = _NGINX.format(networks="\n".join(f"    {cidr} 1;" for cidr in cidrs), api=api, port=current().port)
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": CONFIG, "namespace": current().space, "labels": current().labels},
        "data": {"nginx.conf": nginx, "ask.conf": _ASK},
    }
    return [config, *(_pod(node, image) for node in nodes)]


def _pod(node: str, image: str) -> dict[str, Any]:
    few = {"requests": {"cpu": "5m", "memory": "16Mi"}, "limits": {"cpu": "500m", "memory": "128Mi"}}
    writer = {
        "name": "writer",
        "image": image,
        "command": ["sh", "-c", _WRITER],
        "resources": few,
        "securityContext": {
            "runAsUser": 0,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN", "SYS_CHROOT", "DAC_READ_SEARCH"]},
        },
        "volumeMounts": [
            {"name": "node", "mountPath": "/node", "readOnly": True},
            {"name": "shown", "mountPath": "/shown"},
        ],
    }
    answers = {
        "name": "answers",
        "image": image,
        "command": ["nginx", "-c", "/config/nginx.conf", "-g", "daemon off;"],
        "ports": [{"containerPort": current().port}],
        "readinessProbe": {"httpGet": {"path": "/addr", "port": current().port}, "periodSeconds": 2},
        "resources": few,
        "securityContext": {
            "runAsUser": 65534,
            "runAsGroup": 65534,
            "runAsNonRoot": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "config", "mountPath": "/config", "readOnly": True},
            {"name": "shown", "mountPath": "/shown", "readOnly": True},
        ],
    }
    metadata = {"name": pod_name(node), "namespace": current().space, "labels": {**current().labels, "servicelab.io/for": "node-steps"}}
    spec = {
        "nodeName": node,
        "hostNetwork": True,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 1,
        "tolerations": [{"operator": "Exists"}],
        "containers": [writer, answers],
        "volumes": [
            {"name": "node", "hostPath": {"path": "/", "type": "Directory"}},
            {"name": "shown", "emptyDir": {"sizeLimit": "64Mi"}},
            {"name": "config", "configMap": {"name": CONFIG}},
        ],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def make(client: Client, step: Callable[[str], None] = lambda text: None) -> None:
    """Makes the pods on all nodes and waits until they answer.

    Raises:
        ClusterError: one of them doesn't come; says why.
    """
    step("preparing a pod for node steps on each node")
    nodes = [node["metadata"]["name"] for node in client.list("nodes")]
    for gone in [pod for pod in _pods(client) if pod.get("status", {}).get("phase") in ("Failed", "Succeeded")]:
        delete(client, f"/api/v1/namespaces/{current().space}/pods/{gone['metadata']['name']}")
    for obj in objects(client, nodes):
        apply(client, obj)
    deadline = time.monotonic() + wait_timeout()
    while waiting := [pod for pod in _pods(client) if not _ready(pod)]:
        if time.monotonic() > deadline:
            why = [
                f"{pod['metadata']['name']}: {state.get('reason', '?')} {state.get('message', '')}"
                for pod in waiting
                for container in pod.get("status", {}).get("containerStatuses") or []
                for state in (container.get("state") or {}).values()
                if not container.get("ready")
            ]
            raise ClusterError(
                f"The pods for node steps did not become ready ({'; '.join(why) or 'not started'}). "
                f"kubectl describe pods -n {current().space} tells more; without --node-steps the class works, too."
            )
        time.sleep(0.5)


def _ready(pod: dict[str, Any]) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod.get("status", {}).get("conditions") or [])


def remove(client: Client) -> None:
    """Removes the pods and their configuration, and waits until they are gone: until then they answer.

    Raises:
        ClusterError: one of them doesn't go; names it.
    """
    for pod in _pods(client):
        delete(client, f"/api/v1/namespaces/{current().space}/pods/{pod['metadata']['name']}")
    delete(client, f"/api/v1/namespaces/{current().space}/configmaps/{CONFIG}")
    deadline = time.monotonic() + wait_timeout()
    while left := present(client)[0]:
        if time.monotonic() > deadline:
            raise ClusterError(f"{', '.join(left)} in namespace {current().space} can't be removed; kubectl describe pods there tells why.")
        time.sleep(0.5)
