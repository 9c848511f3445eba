"""The Kubernetes API over plain HTTP: get, list, watch, and the server's own tables.

Small on purpose: everything that changes the cluster goes through kubectl, as the learner would do it.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import ssl
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import yaml

from .errors import ClusterError, LabError, NotAllowed, NotFound

# plural: (path of its group and version, short names, namespaced); what the lessons use, so that no discovery is needed for it
_KINDS: dict[str, tuple[str, tuple[str, ...], bool]] = {
    "pods": ("api/v1", ("pod", "po"), True),
    "services": ("api/v1", ("service", "svc"), True),
    "configmaps": ("api/v1", ("configmap", "cm"), True),
    "secrets": ("api/v1", ("secret",), True),
    "events": ("api/v1", ("event", "ev"), True),
    "endpoints": ("api/v1", ("ep",), True),
    "serviceaccounts": ("api/v1", ("serviceaccount", "sa"), True),
    "resourcequotas": ("api/v1", ("resourcequota", "quota"), True),
    "nodes": ("api/v1", ("node", "no"), False),
    "namespaces": ("api/v1", ("namespace", "ns"), False),
    "deployments": ("apis/apps/v1", ("deployment", "deploy"), True),
    "replicasets": ("apis/apps/v1", ("replicaset", "rs"), True),
    "endpointslices": ("apis/discovery.k8s.io/v1", ("endpointslice",), True),
    "leases": ("apis/coordination.k8s.io/v1", ("lease",), True),
}
_ALIASES = {alias: plural for plural, (_, aliases, _n) in _KINDS.items() for alias in (plural, *aliases)}
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class ApiError(LabError):
    """The API server's refusal (a metav1.Status).

    Attributes:
        code: HTTP status, such as 403.
        reason: such as ``Forbidden``.
    """

    def __init__(self, message: str, code: int, reason: str) -> None:
        super().__init__(message)
        self.code, self.reason = code, reason


class Client:
    """A connection to one API server, as one user, described by a kubeconfig. Safe to use from several threads."""

    def __init__(self, kubeconfig: Path | str, context: str | None = None) -> None:
        self.kubeconfig = Path(kubeconfig)
        cluster, user, self.namespace = _entries(self.kubeconfig, context)
        self.server: str = cluster["server"]
        self._extensions = {"sni_hostname": cluster["tls-server-name"]} if cluster.get("tls-server-name") else {}
        user = _with_exec(user)
        headers = {}
        if token := _token(user, self.kubeconfig.parent):
            headers["Authorization"] = f"Bearer {token}"
        self._http = httpx.Client(
            base_url=self.server.rstrip("/"), headers=headers, verify=_tls(cluster, user, self.kubeconfig.parent),
            timeout=httpx.Timeout(30.0, connect=10.0), proxy=cluster.get("proxy-url"), trust_env=False,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=8),
        )  # fmt: skip
        self._discovered: dict[str, tuple[str, str, bool]] = {}
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._streams: dict[object, httpx.Response | None] = {}  # watches that are read just now; None while the answer is awaited
        self._ended = threading.Condition()  # guards them

    def close(self) -> None:
        """Ends the watches, then closes the connections.

        In this order: TLS reads and writes by the number of a socket, and the number of one that was closed under a reader is given to
        the next file that this process opens, which the reader would then read from and write to.
        """
        self._closing.set()
        with self._ended:
            for response in self._streams.values():
                if response is not None:
                    _shut(response)
            self._ended.wait_for(lambda: not self._streams, timeout=5)
        self._http.close()

    def path(self, kind: str, namespace: str | None, name: str | None = None) -> str:
        """The URL path of a collection, or of one object in it. ``kind`` as kubectl takes it: ``svc``, ``pods``, ``Deployment``."""
        base, plural, namespaced = self._resource(kind)
        where = f"/namespaces/{quote(namespace, safe='')}" if namespaced and namespace else ""
        return f"/{base}{where}/{plural}" + (f"/{quote(name, safe='')}" if name else "")

    def get(self, kind: str, name: str, namespace: str | None = None) -> dict[str, Any]:
        """One object as the API gives it.

        Raises:
            NotFound: it isn't there.
            ApiError: the server refused.
        """
        return self._json("GET", self.path(kind, namespace, name))

    def list(
        self, kind: str, namespace: str | None = None, *, selector: str | None = None, fields: str | None = None
    ) -> list[dict[str, Any]]:
        """All objects of a kind (in ``namespace``, or in all when None) that match a label and a field selector."""
        return self._json("GET", self.path(kind, namespace), params=_params(selector, fields)).get("items") or []

    def table(self, kind: str, namespace: str | None = None, *, selector: str | None = None) -> dict[str, Any]:
        """The server's own Table for a kind: the columns and cells that ``kubectl get`` prints."""
        accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
        return self._json("GET", self.path(kind, namespace), params=_params(selector, None), headers={"Accept": accept})

    def logs(self, pod: str, namespace: str, *, container: str | None = None, tail: int | None = None) -> str:
        """What a pod's container has logged; of several containers one must be named.

        Raises:
            NotFound: no such pod.
            ApiError: the container hasn't started yet, or the server refused.
        """
        params = {k: str(v) for k, v in (("container", container), ("tailLines", tail)) if v is not None}
        return self._answer("GET", f"{self.path('pods', namespace, pod)}/log", params=params).text

    def request(
        self, method: str, path: str, body: Any = None, *, content_type: str = "application/json", params: dict | None = None
    ) -> dict:
        """Any other request; ``body`` is sent as JSON."""
        return self._json(
            method,
            path,
            params=params or {},
            content=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": content_type},
        )

    def raw(self, path: str, params: dict[str, str] | None = None) -> httpx.Response:
        """A GET whose answer isn't JSON, such as one that the API server passes on from a pod (``pods/proxy``).

        Raises:
            NotAllowed, NotFound, ApiError: the API server itself refused; an answer from behind it is returned whatever its status.
            ClusterError: it doesn't answer.
        """
        try:
            response = self._http.get(path, params=params, extensions=self._extensions)
        except httpx.HTTPError as error:
            raise ClusterError(f"The cluster at {self.server} does not answer ({type(error).__name__}: {error}).") from error
        if response.status_code >= 400 and '"kind":"Status"' in response.text[:2000].replace(" ", ""):
            raise _refusal(response)
        return response

    def watch(
        self, kind: str, namespace: str | None = None, *, selector: str | None = None, stop: threading.Event | None = None,
    ) -> Iterator[tuple[str, dict[str, Any]]]:  # fmt: skip
        """Yields ("ADDED"|"MODIFIED"|"DELETED", object) for ever, first ADDED for all that is there, until ``stop`` is set.

        When the server ends the watch (a timeout, 410 Gone, a restart) it lists again and goes on: objects that are still
        there come as ADDED again, and those that went meanwhile as DELETED. See "Efficient detection of changes" in the
        Kubernetes API concepts.

        Raises:
            ApiError: the server refuses (403, 404); one that is unreachable or busy (429, 5xx) is tried again instead.
        """
        stop = stop or threading.Event()
        known: dict[str, dict[str, Any]] = {}
        path = self.path(kind, namespace)
        while not (stop.is_set() or self._closing.is_set()):
            try:
                listed = self._json("GET", path, params=_params(selector, None))
                fresh = {o["metadata"]["uid"]: o for o in listed.get("items") or []}
                for uid in [u for u in known if u not in fresh]:
                    yield "DELETED", known.pop(uid)
                known = fresh
                for obj in fresh.values():
                    yield "ADDED", obj
                version = listed["metadata"]["resourceVersion"]
                params = {
                    **_params(selector, None),
                    "watch": "1",
                    "resourceVersion": version,
                    "allowWatchBookmarks": "true",
                    "timeoutSeconds": "240",
                }
                for event in self._stream(path, params, stop):
                    if event["type"] == "ERROR":
                        break
                    if event["type"] == "BOOKMARK":
                        continue
                    obj = event["object"]
                    if event["type"] == "DELETED":
                        known.pop(obj["metadata"]["uid"], None)
                    else:
                        known[obj["metadata"]["uid"]] = obj
                    yield event["type"], obj
            except (ClusterError, ApiError) as error:
                if isinstance(error, ApiError) and error.code != 429 and error.code < 500:
                    raise
                stop.wait(0.5)  # the server is away or busy, perhaps restarting: try again until we are told to stop
            except RuntimeError:
                if self._http.is_closed:
                    return  # closed by another thread: nobody wants to know any more
                raise

    def _stream(self, path: str, params: dict[str, str], stop: threading.Event) -> Iterator[dict[str, Any]]:
        # A read that waits for the next event can't be interrupted, and a read timeout would end the stream: so another
        # thread shuts the socket when `stop` is set.
        watch = object()
        with self._ended:
            if self._closing.is_set():
                return
            self._streams[watch] = None
        try:
            with self._http.stream(
                "GET", path, params=params, timeout=httpx.Timeout(10.0, read=None), extensions=self._extensions
            ) as response:
                with self._ended:
                    if self._closing.is_set():
                        return
                    self._streams[watch] = response
                if response.status_code != 200:
                    response.read()
                    if response.status_code == 410:
                        return
                    raise _refusal(response)
                done = threading.Event()
                closer = threading.Thread(target=_close_when, args=(stop, done, response), daemon=True, name="servicelab-watch-closer")
                closer.start()
                try:
                    for line in response.iter_lines():
                        if stop.is_set():
                            return
                        if line:
                            yield json.loads(line)
                finally:
                    done.set()
        except (httpx.HTTPError, httpx.StreamError, OSError, ssl.SSLError) as error:
            if stop.is_set() or self._closing.is_set():
                return
            raise ClusterError(f"The watch on {path} broke: {error}") from error
        finally:  # only now its socket is closed, by this thread
            with self._ended:
                del self._streams[watch]
                self._ended.notify_all()

    def _resource(self, kind: str) -> tuple[str, str, bool]:
        word = kind.lower().split(".", maxsplit=1)[0]
        if plural := _ALIASES.get(word):
            base, _, namespaced = _KINDS[plural]
            return base, plural, namespaced
        with self._lock:
            if not self._discovered:
                self._discovered = self._discover()
        if word not in self._discovered:
            raise LabError(f'the server doesn\'t have a resource type "{kind}"; kubectl api-resources lists those it has.')
        return self._discovered[word]

    def _discover(self) -> dict[str, tuple[str, str, bool]]:
        bases = ["api/v1"] + [f"apis/{g['preferredVersion']['groupVersion']}" for g in self._json("GET", "/apis").get("groups", [])]
        found: dict[str, tuple[str, str, bool]] = {}
        for base in bases:
            for r in self._json("GET", f"/{base}").get("resources", []):
                if "/" not in r["name"]:
                    for word in (r["name"], r.get("singularName"), r["kind"].lower(), *(r.get("shortNames") or ())):
                        if word:
                            found.setdefault(word, (base, r["name"], r["namespaced"]))
        return found

    def _json(self, method: str, path: str, **kwargs: Any) -> dict[str, Any]:
        response = self._answer(method, path, **kwargs)
        return response.json() if response.content else {}

    def _answer(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, extensions=self._extensions, **kwargs)
        except httpx.HTTPError as error:
            raise ClusterError(
                f"The cluster at {self.server} does not answer ({type(error).__name__}: {error}). "
                "Is it running? servicelab status tells, and servicelab up starts it."
            ) from error
        if response.status_code >= 400:
            raise _refusal(response)
        return response


def _close_when(stop: threading.Event, done: threading.Event, response: httpx.Response) -> None:
    while not done.is_set():
        if stop.wait(0.5):
            if not done.is_set():
                _shut(response)
            return


def _shut(response: httpx.Response) -> None:
    """Wakes the thread that reads it: only the socket's shutdown does; httpx hands the socket out for such uses."""
    stream = response.extensions.get("network_stream")
    sock = stream.get_extra_info("socket") if stream else None
    if sock is not None:
        try:
            sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # already closed: the reader is awake


def _refusal(response: httpx.Response) -> LabError:
    try:
        status = response.json()
        message, reason = status.get("message") or response.text, status.get("reason") or response.reason_phrase
    except ValueError:
        message, reason = response.text.strip() or response.reason_phrase, response.reason_phrase
    if response.status_code == 404:
        return NotFound(message)
    if response.status_code == 401:
        message += (
            " (the kubeconfig's credentials are not this cluster's, or have expired: was the cluster made anew? Run connect() again.)"
        )
    if response.status_code == 403:
        return NotAllowed(message)
    return ApiError(message, response.status_code, reason)


def _params(selector: str | None, fields: str | None) -> dict[str, str]:
    return {k: v for k, v in (("labelSelector", selector), ("fieldSelector", fields)) if v}


def _entries(path: Path, context: str | None) -> tuple[dict, dict, str]:
    """The cluster, user and namespace of a kubeconfig's (current) context."""
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        name = context or config["current-context"]
        chosen = next(c["context"] for c in config["contexts"] if c["name"] == name)
        cluster = next(c["cluster"] for c in config["clusters"] if c["name"] == chosen["cluster"])
        user = next((u.get("user") or {} for u in config.get("users") or [] if u["name"] == chosen.get("user")), {})
        return cluster, dict(user), chosen.get("namespace") or "default"
    except OSError as error:
        raise ClusterError(
            f"The kubeconfig {path} can't be read: {error.strerror}. servicelab up starts a cluster and writes one."
        ) from error
    except (yaml.YAMLError, KeyError, TypeError, StopIteration) as error:
        wanted = f"context {context!r}" if context else "a current context"
        raise ClusterError(f"{path} is not a usable kubeconfig ({wanted} with its cluster): {error!r}") from error


def _with_exec(user: dict) -> dict:
    """Credentials from a plug-in (client.authentication.k8s.io), as managed clusters have them."""
    plugin = user.get("exec")
    if not plugin:
        return user
    env = {**os.environ, **{e["name"]: e["value"] for e in plugin.get("env") or []}}
    info = {"apiVersion": plugin["apiVersion"], "kind": "ExecCredential", "spec": {"interactive": False}}
    env["KUBERNETES_EXEC_INFO"] = json.dumps(info)
    command = [plugin["command"], *(plugin.get("args") or [])]
    try:
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=True)
        status = json.loads(done.stdout)["status"]
    except (OSError, subprocess.SubprocessError, ValueError, KeyError) as error:
        said = getattr(error, "stderr", "") or error
        raise ClusterError(f"The kubeconfig's credential plug-in {command[0]!r} gave no credentials: {said}") from error
    encode = lambda text: base64.b64encode(text.encode()).decode()
    result = {k: v for k, v in user.items() if k != "exec"}
    if status.get("token"):
        result["token"] = status["token"]
    if status.get("clientCertificateData"):
        result["client-certificate-data"] = encode(status["clientCertificateData"])
        result["client-key-data"] = encode(status["clientKeyData"])
    return result


def _token(user: dict, folder: Path) -> str | None:
    if file := user.get("tokenFile"):
        return (folder / file).read_text(encoding="utf-8").strip()
    return user.get("token")


def _tls(cluster: dict, user: dict, folder: Path) -> ssl.SSLContext | bool:
    if not cluster["server"].startswith("https"):
        return True
    if cluster.get("insecure-skip-tls-verify"):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    elif data := cluster.get("certificate-authority-data"):
        context = ssl.create_default_context(cadata=base64.b64decode(data).decode())
    elif file := cluster.get("certificate-authority"):
        context = ssl.create_default_context(cafile=str(folder / file))
    else:
        context = ssl.create_default_context()
    if data := user.get("client-certificate-data"):
        # ssl reads key pairs from files only: a private directory that is gone a moment later
        with tempfile.TemporaryDirectory() as private:
            pair = [Path(private, part) for part in ("crt", "key")]
            for file, text in zip(pair, (data, user["client-key-data"]), strict=True):
                file.write_bytes(base64.b64decode(text))
            context.load_cert_chain(*map(str, pair))
    elif file := user.get("client-certificate"):
        context.load_cert_chain(str(folder / file), str(folder / user["client-key"]))
    return context
