"""Startup, liveness and readiness probes.

https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#container-probes
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from .. import namespaces
from . import process
from .sandbox import Container

# A program that was started a moment ago may not listen yet. Within this time a refused connection is tried again at once
# instead of a whole period later, and isn't reported.
_STARTING = 0.5  # seconds
_STARTING_STEP = 0.03

VERSION = "1.34"


@dataclass
class ProbeResult:
    """What one try said."""

    success: bool
    output: str
    refused: bool = False


async def connect(netns: str, host: str, port: int) -> socket.socket:
    """A connection made from within a network namespace.

    Raises:
        OSError: when it is refused or there is no route.
    """
    with namespaces.entered(netns):  # a socket stays in the namespace that it was made in
        sock = socket.socket(
            socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        )
    try:
        await asyncio.get_running_loop().sock_connect(sock, (host, port))
    except BaseException:
        sock.close()
        raise
    return sock


def port_number(value: int | str, container: dict) -> int:
    """A port by number, or by its name in the container."""
    if isinstance(value, int) or str(value).isdigit():
        return int(value)
    for port in container.get("ports") or []:
        if port.get("name") == value:
            return int(port["containerPort"])
    raise LookupError(f"couldn't find port: {value}")


async def http_get(netns: str, action: dict, pod_ip: str, container: dict, timeout: float) -> tuple[int, str]:
    """One request of an httpGet action: (status code, URL).

    Raises:
        OSError, asyncio.TimeoutError: when there is no answer.
    """
    port = port_number(action["port"], container)
    host = action.get("host") or pod_ip
    scheme = (action.get("scheme") or "HTTP").lower()
    path = action.get("path") or "/"
    shown = f"[{host}]" if ":" in host else host
    url = f"{scheme}://{shown}:{port}{path if path.startswith('/') else '/' + path}"
    headers = {"Host": f"{shown}:{port}", "User-Agent": f"kube-probe/{VERSION}", "Accept": "*/*", "Connection": "close"}
    for header in action.get("httpHeaders") or []:
        headers[header["name"]] = header["value"]
    context = None
    if scheme == "https":
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # as the kubelet: probes don't verify

    async def ask() -> int:
        sock = await connect(netns, host, port)
        reader, writer = await asyncio.open_connection(sock=sock, ssl=context, server_hostname=host if context else None)
        try:
            request = f"GET {url.split(':' + str(port), 1)[1]} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in headers.items()) + "\r\n"
            writer.write(request.encode())
            await writer.drain()
            status = await reader.readline()
            if not status:
                raise ConnectionResetError("EOF")
            return int(status.split()[1])
        finally:
            writer.close()

    return await asyncio.wait_for(ask(), timeout), url


async def try_once(probe: dict, *, container: Container, spec: dict, pod_ip: str, netns: str) -> ProbeResult:
    """One try of a probe, with the words of the kubelet for what went wrong."""
    timeout = probe.get("timeoutSeconds", 1)
    if "exec" in probe:
        command = probe["exec"].get("command") or []
        try:
            code, output = await process.run(container.exec_argv(command), env=container.exec_environment, timeout=timeout, limit=10240)
        except asyncio.TimeoutError:
            return ProbeResult(False, f'command timed out: "{" ".join(command)}" timed out after {timeout}s')
        return ProbeResult(code == 0, output.decode(errors="replace"))
    if "httpGet" in probe:
        action = probe["httpGet"]
        url = f"{(action.get('scheme') or 'HTTP').lower()}://{action.get('host') or pod_ip}:{action['port']}{action.get('path') or '/'}"
        try:
            code, url = await http_get(netns, action, pod_ip, spec, timeout)
        except asyncio.TimeoutError:
            return ProbeResult(False, f'Get "{url}": context deadline exceeded (Client.Timeout exceeded while awaiting headers)')
        except LookupError as error:
            return ProbeResult(False, str(error))
        except (OSError, ValueError) as error:
            return _refusal(f'Get "{url}": ', error, action.get("host") or pod_ip, port_number(action["port"], spec))
        return ProbeResult(200 <= code < 400, f"HTTP probe failed with statuscode: {code}")
    if "tcpSocket" in probe:
        action = probe["tcpSocket"]
        host = action.get("host") or pod_ip
        try:
            port = port_number(action["port"], spec)
            (await asyncio.wait_for(connect(netns, host, port), timeout)).close()
        except asyncio.TimeoutError:
            return ProbeResult(False, f"dial tcp {host}:{port}: i/o timeout")
        except LookupError as error:
            return ProbeResult(False, str(error))
        except OSError as error:
            return _refusal("", error, host, port)
        return ProbeResult(True, "")
    return ProbeResult(False, f"this cluster has no {', '.join(set(probe) & {'grpc'}) or 'such'} probes: use exec, httpGet or tcpSocket")


def _refusal(prefix: str, error: Exception, host: str, port: int) -> ProbeResult:
    if isinstance(error, ConnectionRefusedError):
        return ProbeResult(False, f"{prefix}dial tcp {host}:{port}: connect: connection refused", refused=True)
    if isinstance(error, ConnectionResetError):
        return ProbeResult(False, f"{prefix}{'EOF' if str(error) == 'EOF' else 'read: connection reset by peer'}")
    text = os.strerror(error.errno).lower() if isinstance(error, OSError) and error.errno else str(error)
    return ProbeResult(False, f"{prefix}dial tcp {host}:{port}: connect: {text}")


class Prober:
    """Runs one probe of one running container, again and again, until it is stopped.

    Args:
        kind: Startup, Liveness or Readiness.
        attempt: one try.
        started: whether the startup probe (if there is one) has succeeded; the others wait for it.
        result: called when the verdict changes: after successThreshold or failureThreshold equal results.
        unhealthy: called with the output of every try that fails.
    """

    def __init__(
        self,
        kind: str,
        probe: dict,
        *,
        attempt: Callable[[], Awaitable[ProbeResult]],
        started: asyncio.Event,
        result: Callable[[bool], None],
        unhealthy: Callable[[str], None],
    ) -> None:
        self._kind = kind
        self._probe = probe
        self._attempt = attempt
        self._started = started
        self._result = result
        self._unhealthy = unhealthy
        self._task = asyncio.ensure_future(self._run())

    def stop(self) -> None:
        """No more tries."""
        self._task.cancel()

    async def _run(self) -> None:
        probe = self._probe
        loop = asyncio.get_running_loop()
        began = loop.time()
        verdict: bool | None = None
        last, streak = None, 0
        await asyncio.sleep(probe.get("initialDelaySeconds", 0))
        if self._kind != "Startup":
            await self._started.wait()
        while True:
            outcome = await self._attempt()
            if outcome.refused and loop.time() - began < _STARTING:
                await asyncio.sleep(_STARTING_STEP)
                continue
            if not outcome.success:
                self._unhealthy(f"{self._kind} probe failed: {outcome.output}")
            streak = streak + 1 if outcome.success == last else 1
            last = outcome.success
            needed = probe.get("successThreshold", 1) if outcome.success else probe.get("failureThreshold", 3)
            if streak >= needed and (outcome.success != verdict or not outcome.success):
                verdict = outcome.success
                self._result(verdict)
                if self._kind == "Startup" and verdict:
                    return
            await asyncio.sleep(probe.get("periodSeconds", 10))
