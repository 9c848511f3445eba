"""A student's side of node steps: the lessons' read-only commands, answered by the pod that the teacher prepared on the node."""

from __future__ import annotations

import ipaddress
import re
import shlex
import subprocess
import time
from collections.abc import Sequence
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from ..client import Client
from ..clusters import Ran
from ..errors import LabError, NotAllowed, NotFound
from .group import of_namespace
from .node_steps import pod_name

FRESH_SECONDS = 10.0


class NodeSteps:
    """Asks the class's pods on the nodes.

    Args:
        client: the student's connection.
        namespace: the student's namespace: which class it is.
    """

    def __init__(self, client: Client, namespace: str) -> None:
        self._client, self._class = client, of_namespace(namespace)
        self._there: bool | None = None

    def run(self, node: str, argv: Sequence[str]) -> Ran | None:
        """The outcome of a command on a node, or None when it isn't one of those that students may run, or there are no such pods."""
        if self._there is False:
            return None
        command = argv[2] if list(argv[:2]) == ["sh", "-c"] and len(argv) == 3 else shlex.join(argv)
        command, _, otherwise = command.partition("||")
        command, _, filters = command.partition("|")
        try:
            words = shlex.split(command)
            ran = self._answer(node, words)
        except (NotAllowed, NotFound):
            self._there = False  # this class has no node steps
            return None
        except (ValueError, LabError):
            return None
        if ran is None:
            return None
        self._there = True
        if filters:
            ran = _locally(filters, ran.stdout)
        if ran.returncode and otherwise:
            ran = _locally(otherwise, "")
        return ran

    def _get(self, node: str, what: str, **params: str):
        path = f"/api/v1/namespaces/{self._class.space}/pods/{pod_name(node)}:{self._class.port}/proxy/{what}"
        return self._client.raw(path, params)

    def _answer(self, node: str, words: list[str]) -> Ran | None:
        if words[:1] == ["curl"]:
            return self._curl(node, words[1:])
        if words[:3] == ["nft", "list", "table"] and words[3:] == ["ip", "kube-proxy"]:
            return Ran(0, self._shown(node, "nft"), "")
        if words[:2] == ["nft", "list"] and words[2:5] == ["map", "ip", "kube-proxy"] and len(words) == 6:
            return _part(self._shown(node, "nft"), "map", words[5])
        if words[:1] == ["ip"] and "addr" in words and set(words[1:]) <= {"-o", "-4", "addr", "show"} and "-o" in words:
            lines = self._shown(node, "addr").splitlines(keepends=True)
            return Ran(0, "".join(line for line in lines if "-4" not in words or " inet " in line), "")
        return None

    def _shown(self, node: str, what: str) -> str:
        """A file that the node's pod writes every two seconds, written after this was called."""
        asked = None
        deadline = time.monotonic() + FRESH_SECONDS
        while True:
            response = self._get(node, what)
            # Both times are the node's own, so that clocks need not agree.
            asked = asked or parsedate_to_datetime(response.headers["Date"])
            if parsedate_to_datetime(response.headers["Last-Modified"]) > asked or time.monotonic() > deadline:
                return response.text
            time.sleep(0.5)

    def _curl(self, node: str, words: list[str]) -> Ran | None:
        url, form, keep = "", "", True
        rest = iter(words)
        for word in rest:
            if word in ("--max-time", "--connect-timeout"):
                next(rest, "")
            elif word == "-w":
                form = next(rest, "")
            elif word == "-o":
                keep = next(rest, "") != "/dev/null"
            elif re.fullmatch(r"-[sSk]+", word):
                continue
            elif not word.startswith("-") and not url:
                url = word
            else:
                return None
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme != "http" or parts.path not in ("", "/") or parts.query or not parts.hostname:
            return None
        port = parts.port or 80
        if parts.hostname in ("localhost", "127.0.0.1"):
            if port != 80:
                return None
            response = self._get(node, "local")
        else:
            response = self._get(node, "fetch", ip=str(ipaddress.ip_address(parts.hostname)), port=str(port))
        verdict = response.headers.get("X-Node-Steps")
        if verdict == "refused":
            return None
        nothing = verdict == "nothing"
        body = response.text if keep and not nothing else ""
        code = "000" if nothing else str(response.status_code)
        said = form.replace("%{http_code}", code).replace("\\n", "\n")
        return Ran(7 if nothing else 0, body + said, "")


def _part(table: str, kind: str, name: str) -> Ran:
    """One map of a listing, as nft lists it alone."""
    found = re.search(rf"^\t{kind} {re.escape(name)} \{{$.*?^\t\}}$", table, re.MULTILINE | re.DOTALL)
    if not found:
        return Ran(1, "", f"Error: No such file or directory; list {kind} ip kube-proxy {name}\n")
    return Ran(0, f"table ip kube-proxy {{\n{found[0]}\n}}\n", "")


def _locally(command: str, text: str) -> Ran:
    """What follows a pipe works on the text alone: it runs here, as the student."""
    done = subprocess.run(["sh", "-c", command], input=text, capture_output=True, text=True, timeout=30, check=False)
    return Ran(done.returncode, done.stdout, done.stderr)
