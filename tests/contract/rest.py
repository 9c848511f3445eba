"""The API without kubectl: plain HTTPS with a kubeconfig's credentials, for what kubectl doesn't show."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import os
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml


class Answer:
    """An answer of the API: ``status``, ``headers`` and the decoded ``body``."""

    def __init__(self, status: int, headers: Any, body: Any) -> None:
        self.status = status
        self.headers = headers
        self.body = body


class Rest:
    """Requests to the cluster of a kubeconfig.

    Args:
        kubeconfig: its path.
        token: another bearer token than the kubeconfig's.
    """

    def __init__(self, kubeconfig: Path, token: str | None = None) -> None:
        config = yaml.safe_load(Path(kubeconfig).read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        server = urlsplit(cluster["server"])
        self._host, self._port = server.hostname, server.port
        self._context = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
        self._headers = {"Accept": "application/json"}
        if token is not None:
            self._headers["Authorization"] = f"Bearer {token}"
        elif user.get("token"):
            self._headers["Authorization"] = f"Bearer {user['token']}"
        else:
            with tempfile.TemporaryDirectory() as directory:
                pem = Path(directory) / "client.pem"
                pem.touch(mode=0o600)
                pem.write_bytes(base64.b64decode(user["client-certificate-data"]) + b"\n" + base64.b64decode(user["client-key-data"]))
                self._context.load_cert_chain(os.fspath(pem))

    def _send(self, method: str, path: str, body: Any, content_type: str, accept: str | None, timeout: float
              ) -> tuple[http.client.HTTPSConnection, http.client.HTTPResponse]:
        connection = http.client.HTTPSConnection(self._host, self._port, context=self._context, timeout=timeout)
        headers = dict(self._headers)
        if accept:
            headers["Accept"] = accept
        data = None
        if body is not None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            headers["Content-Type"] = content_type
        connection.request(method, path, body=data, headers=headers)
        return connection, connection.getresponse()

    def call(self, method: str, path: str, body: Any = None, *, content_type: str = "application/json", accept: str | None = None
             ) -> Answer:
        """One request; the answer whatever its status."""
        connection, response = self._send(method, path, body, content_type, accept, 30)
        with contextlib.closing(connection):
            raw = response.read()
            kind = response.headers.get("Content-Type", "")
            return Answer(response.status, response.headers, json.loads(raw) if "json" in kind else raw.decode())

    def watch(self, path: str, *, accept: str | None = None, timeout: float = 30) -> Iterator[dict[str, Any]]:
        """The events of a watch, until the server ends it; a silence of ``timeout`` seconds is an error."""
        connection, response = self._send("GET", path, None, "", accept, timeout)
        with contextlib.closing(connection):
            assert response.status == 200, response.read()
            while line := response.readline():
                yield json.loads(line)
